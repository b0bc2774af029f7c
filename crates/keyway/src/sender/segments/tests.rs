//! A sender that lies about its segments: each lie is named, ends its lane, and touches no other.

use keyway_abi::{layout::RELEASE_SLOTS, limits::SEGMENT_PAYLOAD_BYTES_MAX};
use keyway_broker::Embedded;
use keyway_provoked::Figures;

use super::*;
use crate::{
    client::Client,
    fault::SegmentFault,
    queue::{Inbox, Incoming, Queue, QueueOptions},
    sender::SenderOptions,
};

const SOON: Duration = Duration::from_secs(5);
const BLOCK_BYTES: usize = 4096;

struct Scene {
    client: Client,
    queue: Queue,
    liar: Sender,
    other: Sender,
    pool: Pool,
    _broker: Embedded,
}

fn scene() -> Scene {
    scene_with(QueueOptions::default())
}

fn scene_with(options: QueueOptions) -> Scene {
    let broker = Embedded::start().expect("a broker");
    let client = Client::over(broker.connect().expect("a socket")).expect("a session");
    let queue = client.create_queue(options).expect("a queue");
    let open = || {
        let capability = queue.sender_capability(None).expect("a capability");
        client.open_sender_with(&capability, SenderOptions::default()).expect("a lane")
    };
    let (liar, other) = (open(), open());
    let options = PoolOptions { bytes: 4 * BLOCK_BYTES as u64, ..PoolOptions::default() };
    let pool = client.create_pool(options).expect("a pool");
    Scene { client, queue, liar, other, pool, _broker: broker }
}

impl Scene {
    /// Brings the pool's region to the place 0 in an honest message.
    fn bring(&mut self) {
        let block = self.pool.loan(BLOCK_BYTES).expect("a block").share();
        self.liar.send_segments(&Outgoing::default(), &[block.whole()]).expect("sent");
        let message = self.queue.receive_timeout(SOON).expect("a message");
        assert_eq!(message.segments.len(), 1);
    }

    fn lie(&mut self, bytes: &[u8]) -> Lie<'_> {
        self.liar.send_record(&Outgoing::default(), flags::SEGMENTS, bytes, Until::Forever).expect("sent");
        Lie { queue: &mut self.queue, other: &mut self.other }
    }

    fn lie_of(&mut self, table: &Table) -> Lie<'_> {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        self.lie(&bytes)
    }
}

struct Lie<'s> {
    queue: &'s mut Queue,
    other: &'s mut Sender,
}

impl Lie<'_> {
    /// Its lane ends with that; the other lane goes on.
    fn ends_with(self, expected: SegmentFault) {
        assert_eq!(fault_of(self.queue), expected);
        self.other.send(b"still here").expect("sent");
        assert_eq!(self.queue.receive_timeout(SOON).expect("a message").payload, b"still here");
        assert_eq!(self.queue.peers().count(), 1);
    }
}

/// With what the next lane ends, which is noted.
fn fault_of(queue: &mut Queue) -> SegmentFault {
    loop {
        match queue.next_timeout(SOON).expect("news") {
            Incoming::Ended { why, .. } => {
                let figures = Figures { number: None, errno: Some(why.errno()) };
                keyway_provoked::note_figures(&why, "", figures);
                let Error::SegmentFault(fault) = why else { panic!("{why}") };
                keyway_provoked::note(&fault, "receive");
                return fault;
            }
            Incoming::Opened(_) => {}
            Incoming::Message(message) => panic!("{message:?}"),
        }
    }
}

fn honest() -> Entry {
    Entry { offset: 0, len: BLOCK_BYTES as u64, place: 0, slot: 0, generation: 1 }
}

fn of(entries: Vec<Entry>) -> Table {
    Table { regions: Vec::new(), entries, is_payload: false }
}

#[test]
fn a_region_that_was_never_brought() {
    for place in [0, 1, 63, 64, u16::MAX] {
        let mut scene = scene();
        if place != 0 {
            scene.bring();
        }
        scene.lie_of(&of(vec![Entry { place, ..honest() }])).ends_with(SegmentFault::RegionUnknown { place });
    }
}

#[test]
fn a_segment_that_leaves_its_region() {
    let region_bytes = 4 * BLOCK_BYTES;
    for (offset, len_bytes) in [
        (region_bytes as u64, 1),
        (0, region_bytes as u64 + 1),
        (1, region_bytes as u64),
        (u64::MAX, 1),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
    ] {
        let mut scene = scene();
        scene.bring();
        let expected = SegmentFault::OutOfRegion { offset, len_bytes, region_bytes };
        scene.lie_of(&of(vec![Entry { offset, len: len_bytes, ..honest() }])).ends_with(expected);
    }
}

#[test]
fn a_slot_that_there_is_not() {
    for slot in [RELEASE_SLOTS as u16, u16::MAX - 1] {
        let mut scene = scene();
        scene.bring();
        let expected = SegmentFault::SlotUnknown { slot, max: RELEASE_SLOTS };
        scene.lie_of(&of(vec![honest(), Entry { slot, ..honest() }])).ends_with(expected);
    }
}

#[test]
fn more_segments_than_there_can_be() {
    let mut scene = scene();
    scene.bring();
    let expected = SegmentFault::SegmentsExceeded { asked: 65, max: MESSAGE_SEGMENTS_MAX };
    scene.lie_of(&of(vec![honest(); 65])).ends_with(expected);
}

#[test]
fn a_table_that_is_longer_than_its_message() {
    let mut scene = scene();
    let expected = SegmentFault::TableTruncated { needed_bytes: 8 + 24, found_bytes: 8 };
    scene.lie(&1_u64.to_le_bytes()).ends_with(expected);
    let mut scene = self::scene();
    scene.lie(b"").ends_with(SegmentFault::TableTruncated { needed_bytes: 8, found_bytes: 0 });
}

#[test]
fn a_head_of_garbage() {
    let mut scene = scene();
    scene.lie(&[0xff; 64]).ends_with(SegmentFault::TableUnknown { word: u64::MAX });
}

#[test]
fn a_region_for_a_place_that_there_is_not() {
    let mut scene = scene();
    let table = Table { regions: vec![(64, false)], ..Table::default() };
    scene.lie_of(&table).ends_with(SegmentFault::PlaceUnknown { place: 64, max: SEGMENT_REGIONS_MAX });
}

#[test]
fn a_region_without_its_capability() {
    let mut scene = scene();
    let table = Table { regions: vec![(0, false)], ..Table::default() };
    scene.lie_of(&table).ends_with(SegmentFault::RegionNotMapped { place: 0 });
}

#[test]
fn a_capability_that_maps_nothing() {
    let mut scene = scene();
    let queue = scene.queue.sender_capability(None).expect("a capability");
    let region = scene.client.create_region(4096).expect("a region");
    let _writer = scene.client.map_writer(&region).expect("a mapping");
    // A queue for a region, and a live region that is said to be frozen.
    for (is_frozen, carried) in
        [(false, Carried::Copy(&queue, Rights::SEND)), (true, Carried::Copy(&region, Rights::MAP))]
    {
        let capability = scene.queue.sender_capability(None).expect("a capability");
        let mut liar = scene.client.open_sender(&capability).expect("a lane");
        let table = Table { regions: vec![(0, is_frozen)], entries: vec![honest()], is_payload: false };
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let carried = [carried];
        let message = Outgoing { capabilities: &carried, ..Outgoing::default() };
        liar.send_record(&message, flags::SEGMENTS, &bytes, Until::Forever).expect("sent");
        assert_eq!(fault_of(&mut scene.queue), SegmentFault::RegionNotMapped { place: 0 });
    }
}

#[test]
fn a_payload_that_is_larger_than_what_is_copied_out() {
    let mut scene = scene();
    scene.bring();
    let asked_bytes = SEGMENT_PAYLOAD_BYTES_MAX + 1;
    let table = Table { is_payload: true, ..of(vec![Entry { len: asked_bytes, ..honest() }]) };
    let expected = SegmentFault::PayloadTooLarge { asked_bytes, bytes_max: SEGMENT_PAYLOAD_BYTES_MAX };
    scene.lie_of(&table).ends_with(expected);
}

#[test]
fn a_payload_that_is_larger_than_this_queue_takes() {
    let mut scene = scene_with(QueueOptions { payload_bytes_max: 100, ..QueueOptions::default() });
    scene.bring();
    let of_bytes = |len| Table { is_payload: true, ..of(vec![Entry { len, ..honest() }]) };
    let mut bytes = Vec::new();
    of_bytes(100).encode(&mut bytes);
    scene.liar.send_record(&Outgoing::default(), flags::SEGMENTS, &bytes, Until::Forever).expect("sent");
    assert_eq!(scene.queue.receive_timeout(SOON).expect("a message").payload.len(), 100);
    let expected = SegmentFault::PayloadTooLarge { asked_bytes: 101, bytes_max: 100 };
    scene.lie_of(&of_bytes(101)).ends_with(expected);
}

/// The other ways of receiving judge the same: that lane is gone, the other goes on.
#[test]
fn every_way_of_receiving_refuses_the_same() {
    type Receive = fn(&mut Queue) -> Vec<u8>;
    let ways: [Receive; 3] = [
        |queue| queue.receive_ref_timeout(SOON).expect("a message").payload.to_vec(),
        |queue| {
            let mut inbox = Inbox::new();
            assert_eq!(queue.receive_many_timeout(&mut inbox, 8, SOON).expect("messages"), 1);
            inbox.get(0).expect("a message").payload.to_vec()
        },
        |queue| {
            let mut buffer = [0; 32];
            let len = queue.receive_into(&mut buffer).expect("a message");
            buffer[..len].to_vec()
        },
    ];
    for receive in ways {
        let mut scene = scene();
        scene.bring();
        let _ = scene.lie_of(&of(vec![Entry { place: 5, ..honest() }]));
        // Twice, so that the liar's turn comes.
        for _ in 0..2 {
            scene.other.send(b"still here").expect("sent");
            assert_eq!(receive(&mut scene.queue), b"still here");
        }
        assert_eq!(scene.queue.peers().count(), 1);
    }
}

/// A slot that is named twice, or one of another segment: released twice, which hurts the liar alone.
#[test]
fn a_slot_that_is_named_twice_is_the_liars_own_matter() {
    let mut scene = scene();
    scene.bring();
    let Lie { queue, .. } = scene.lie_of(&of(vec![honest(), honest()]));
    assert_eq!(queue.receive_timeout(SOON).expect("a message").segments.len(), 2);
}
