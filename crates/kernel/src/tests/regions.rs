//! Regions: written once, read by many, and their end.

use keyway_abi::{
    Denial, Kind, Reply, Rights,
    layout::{WORD_DEAD, WORD_REVOKED},
    request::{self, MapAccess, RegionFlags},
};

use super::driver::{Driver, REGION_BYTES, Who, lost};
use crate::{Descriptor, Effect, Refusal, SealUse};

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
    let seal = |effect: &Effect| matches!(effect, Effect::SealMemory { seals: SealUse::LiveRegion, .. });
    assert!(driver.effects.iter().any(seal));
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
    assert_eq!(driver.word(c.number, unmapped), WORD_REVOKED, "nobody looks at it any more");
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
    assert_eq!(driver.events(b.number), [lost(shared)]);
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

fn region_with(driver: &mut Driver, who: Who, flags: RegionFlags) -> keyway_abi::Handle {
    driver.made(who.number, request::CreateRegion { bytes: REGION_BYTES, flags }).handle
}

#[test]
fn flags_that_exclude_each_other_do_not_exist_or_do_not_suit_the_size_are_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let both = RegionFlags::FREEZABLE | RegionFlags::SHARED;
    for (bytes, flags) in [
        (4096, both),
        (4096, RegionFlags::from_bits_retain(1 << 9)),
        (4096, RegionFlags::HUGE),
        ((2 << 20) + 4096, RegionFlags::HUGE),
    ] {
        let denial = driver.denied(a.number, request::CreateRegion { bytes, flags });
        assert_eq!(denial, Denial::InvalidFlags { asked: flags.bits(), bytes });
    }
    driver.made(a.number, request::CreateRegion { bytes: 2 << 20, flags: RegionFlags::HUGE });
    let huge = |effect: &Effect| matches!(effect, Effect::CreateMemory { huge: true, .. });
    assert!(driver.effects.iter().any(huge));
    driver.finish();
}

#[test]
fn a_frozen_region_is_read_by_all_and_written_by_none() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let region = region_with(&mut driver, a, RegionFlags::FREEZABLE);
    let shown = driver.give(a, region, b, Rights::MAP);
    let (mapping, _) = driver.map(a, region, MapAccess::Write);
    let early = request::Freeze { mapping };
    assert_eq!(driver.denied(a.number, early.clone()), Denial::NotWriter { mapping }, "not written yet");
    driver.done(a.number, request::RegionMapped { mapping });
    let seal = |effect: &Effect| matches!(effect, Effect::SealMemory { seals: SealUse::FreezableRegion, .. });
    assert!(driver.effects.iter().any(seal));
    let frozen = request::MapRegion { region: shown, access: MapAccess::Frozen };
    assert_eq!(driver.denied(b.number, frozen.clone()), Denial::NotFrozen);
    let (other, _) = driver.map(b, shown, MapAccess::Read);
    assert_eq!(
        driver.denied(b.number, request::Freeze { mapping: other }),
        Denial::NotWriter { mapping: other }
    );
    let (reply, descriptors) = driver.ask_all(a.number, early.clone());
    assert_eq!(reply, Reply::Done);
    assert!(matches!(descriptors[..], [Descriptor::Readable(_)]));
    let (reply, descriptors) = driver.ask_all(b.number, frozen);
    assert!(matches!(reply, Reply::Mapping { .. }));
    assert!(matches!(descriptors[..], [Descriptor::Readable(_)]));
    assert_eq!(driver.denied(a.number, early), Denial::NotWriter { mapping });
    let write = request::MapRegion { region, access: MapAccess::Write };
    assert_eq!(driver.denied(a.number, write), Denial::WriterTaken);
    driver.finish();
}

#[test]
fn what_linux_says_to_freezing_is_told_and_leaves_the_region_as_it_was() {
    const BUSY: i32 = 16;
    const NOT_PERMITTED: i32 = 1;
    let mut driver = Driver::new();
    let a = driver.connect();
    let region = region_with(&mut driver, a, RegionFlags::FREEZABLE);
    let (mapping, _) = driver.map(a, region, MapAccess::Write);
    driver.done(a.number, request::RegionMapped { mapping });
    let (reader, _) = driver.map(a, region, MapAccess::Read);
    driver.hold = true;
    for (errno, denial) in [
        (BUSY, Denial::Pinned),
        (NOT_PERMITTED, Denial::SealedByOther),
        (12, Denial::SystemRefused { errno: 12 }),
    ] {
        let call = driver.post(a.number, request::Freeze { mapping });
        assert_eq!(driver.denied(a.number, request::Freeze { mapping }), Denial::Pinned, "one at a time");
        let other = request::Freeze { mapping: reader };
        assert_eq!(driver.denied(a.number, other), Denial::NotWriter { mapping: reader });
        driver.answer_next(Err(Refusal::System(errno)));
        assert_eq!(driver.reply_to(a.number, call), Some(Reply::Denied(denial)));
    }
    let call = driver.post(a.number, request::Freeze { mapping });
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Done));
    driver.finish();
}

#[test]
fn a_region_is_frozen_also_for_a_writer_that_has_gone_meanwhile() {
    for outcome in [Ok(()), Err(Refusal::System(16))] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let region = region_with(&mut driver, a, RegionFlags::FREEZABLE);
        let shown = driver.give(a, region, b, Rights::MAP);
        let (mapping, _) = driver.map(a, region, MapAccess::Write);
        driver.done(a.number, request::RegionMapped { mapping });
        driver.hold = true;
        driver.post(a.number, request::Freeze { mapping });
        driver.end(a.number);
        driver.answer_next(outcome);
        driver.hold = false;
        let frozen = driver.ask(b.number, request::MapRegion { region: shown, access: MapAccess::Frozen });
        match outcome {
            Ok(()) => assert!(matches!(frozen, Reply::Mapping { .. })),
            Err(_) => assert_eq!(frozen, Reply::Denied(Denial::NotFrozen)),
        }
        driver.map(b, shown, MapAccess::Read);
        driver.finish();
    }
}

#[test]
fn several_write_a_region_only_where_it_was_made_so_and_the_asker_says_so() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let (shared, single) = (region_with(&mut driver, a, RegionFlags::SHARED), driver.region(a));
    let of_b = driver.give(a, shared, b, Rights::MAP | Rights::WRITE);
    let of_c = driver.give(a, shared, c, Rights::MAP);
    let write = request::MapRegion { region: shared, access: MapAccess::Write };
    assert_eq!(driver.denied(a.number, write), Denial::WrongSharing { shared: true });
    let share = request::MapRegion { region: single, access: MapAccess::Share };
    assert_eq!(driver.denied(a.number, share), Denial::WrongSharing { shared: false });
    let (mapping, _) = driver.map(a, shared, MapAccess::Share);
    let share = request::MapRegion { region: of_b, access: MapAccess::Share };
    assert_eq!(driver.denied(b.number, share.clone()), Denial::RegionUnwritten);
    driver.done(a.number, request::RegionMapped { mapping });
    let seal = |effect: &Effect| matches!(effect, Effect::SealMemory { seals: SealUse::SharedRegion, .. });
    assert!(driver.effects.iter().any(seal));
    let (reply, descriptors) = driver.ask_all(b.number, share);
    let Reply::Mapping { word, .. } = reply else { panic!("a mapping: {reply:?}") };
    assert!(matches!(descriptors[..], [Descriptor::Writable(_)]));
    let share = request::MapRegion { region: of_c, access: MapAccess::Share };
    let denial = driver.denied(c.number, share);
    assert_eq!(denial, Denial::MissingRights { handle: of_c, needed: Rights::WRITE, held: Rights::MAP });
    assert_eq!(driver.denied(a.number, request::Freeze { mapping }), Denial::NotFreezable);
    driver.end(a.number);
    assert_eq!(driver.word(b.number, word), word.generation, "the first writer's end is not the region's");
    driver.finish();
}
