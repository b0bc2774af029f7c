//! Regions: written once, read by many, and their end.

use keyway_abi::{
    Denial, Event, Kind, Reply, Rights,
    layout::{WORD_DEAD, WORD_REVOKED},
    request::{self, MapAccess},
};

use super::driver::Driver;
use crate::Descriptor;

#[test]
fn the_first_to_map_with_write_is_the_writer_whoever_made_the_region() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let region = driver.region(a);
    let shared = driver.give(a, region, b, Rights::MAP | Rights::WRITE);
    let map = request::MapRegion { region: shared, access: MapAccess::Write };
    let (reply, descriptors) = driver.ask_all(b.number, map);
    let Reply::Mapping { mapping, word, .. } = reply else { panic!("a mapping") };
    assert!(matches!(descriptors[..], [Descriptor::Writable(_)]));
    assert_eq!(driver.word(b.number, word), word.generation);
    driver.done(b.number, request::RegionMapped { mapping });
    let map = request::MapRegion { region, access: MapAccess::Read };
    let (reply, descriptors) = driver.ask_all(a.number, map);
    assert!(matches!(reply, Reply::Mapping { .. }));
    assert!(matches!(descriptors[..], [Descriptor::Readable(_)]));
    driver.finish();
}

#[test]
fn a_writer_that_is_gone_before_it_wrote_ends_the_region() {
    for unmaps in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let region = driver.region(a);
        let shared = driver.give(a, region, b, Rights::MAP | Rights::WRITE);
        let (mapping, _) = driver.map(b, shared, MapAccess::Write);
        if unmaps {
            driver.done(b.number, request::Unmap { mapping });
        } else {
            driver.end(b.number);
        }
        for access in [MapAccess::Read, MapAccess::Write] {
            let denial = driver.denied(a.number, request::MapRegion { region, access });
            assert_eq!(denial, Denial::ObjectEnded { kind: Kind::Region });
        }
        driver.finish();
    }
}

#[test]
fn readers_see_that_the_writer_died_and_can_still_read() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let (region, ..) = driver.written_region(a);
    let shared = driver.give(a, region, b, Rights::MAP | Rights::GRANT);
    let other = driver.give(a, region, c, Rights::MAP);
    let (_, word) = driver.map(b, shared, MapAccess::Read);
    let (mapping, unmapped) = driver.map(c, other, MapAccess::Read);
    driver.done(c.number, request::Unmap { mapping });
    driver.end(a.number);
    assert_eq!(driver.word(b.number, word), WORD_DEAD);
    assert_eq!(driver.word(c.number, unmapped), unmapped.generation, "nobody looks at it any more");
    let (_, late) = driver.map(c, other, MapAccess::Read);
    assert_eq!(driver.word(c.number, late), late.generation);
    driver.finish();
}

#[test]
fn a_writer_that_unmaps_leaves_what_it_wrote() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, mapping, _) = driver.written_region(a);
    let shared = driver.give(a, region, b, Rights::MAP);
    let (_, word) = driver.map(b, shared, MapAccess::Read);
    driver.done(a.number, request::Unmap { mapping });
    assert_eq!(driver.word(b.number, word), word.generation);
    driver.map(b, shared, MapAccess::Read);
    driver.finish();
}

#[test]
fn a_revoked_mapping_says_so_and_stays_until_unmapped() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, _, writer_word) = driver.written_region(a);
    let shared = driver.give(a, region, b, Rights::MAP);
    let (mapping, word) = driver.map(b, shared, MapAccess::Read);
    driver.ask(a.number, request::Revoke { handle: region });
    assert_eq!(driver.word(b.number, word), WORD_REVOKED);
    assert_eq!(driver.word(a.number, writer_word), WORD_REVOKED, "its own mapping is derived as well");
    assert_eq!(driver.events(b.number), [Event::CapabilityLost { handle: shared }]);
    driver.end(a.number);
    assert_eq!(driver.word(b.number, word), WORD_REVOKED, "its last word");
    assert_eq!(driver.memories.len(), 1, "a mapping still holds it");
    driver.done(b.number, request::Unmap { mapping });
    assert!(driver.memories.is_empty());
    driver.finish();
}

#[test]
fn a_region_goes_with_its_last_holder() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, mapping, _) = driver.written_region(a);
    let shared = driver.give(a, region, b, Rights::MAP);
    driver.done(a.number, request::Delete { handle: region });
    driver.done(a.number, request::Unmap { mapping });
    assert_eq!(driver.memories.len(), 1);
    let account = driver.kernel.process(a.number).account;
    assert_eq!(driver.kernel.accounts.used(account).bytes, 8192, "its creator pays while it is there");
    driver.done(b.number, request::Delete { handle: shared });
    assert!(driver.memories.is_empty());
    assert_eq!(driver.kernel.accounts.used(account).bytes, 0);
    driver.finish();
}
