//! A reader that lies about what it has released: its own share is what it can give back, and nothing else.

use keyway_abi::layout::{GENERATION_FIRST, PAGE_BYTES, WORD_DEAD};
use keyway_broker::Embedded;
use keyway_shm::Access;
use keyway_sys::memory::{Mapping, Populate, create_memory};

use super::*;
use crate::{
    client::Client,
    pool::{Pool, PoolOptions},
};

const ACK_WORDS: usize = 2;

/// Memory that the test writes in the reader's and the broker's place.
fn page() -> View {
    let memory = create_memory("page", PAGE_BYTES).expect("memory");
    Mapping::new(memory, PAGE_BYTES, Access::Write, Populate::OnUse).expect("a mapping").view()
}

fn lane(ack: &View, broker: &View) -> Arc<Shares> {
    broker.store_u32(4, GENERATION_FIRST, Ordering::Relaxed);
    let status = Status::new(broker.word(4).expect("a word"), GENERATION_FIRST);
    Arc::new(Shares::new((ProcessNumber(1), LaneId(1)), ack.clone(), page().word(0).expect("a word"), status))
}

fn send(pool: &Pool, lane: &Arc<Shares>) -> Slot {
    let block = pool.try_loan(PAGE_BYTES).expect("a block").share();
    let mut slots = Vec::new();
    assert!(lane.take(std::slice::from_ref(&block), &mut slots));
    block.tell_pool_of(lane);
    slots[0]
}

fn lent(pool: &Pool) -> bool {
    pool.try_loan(PAGE_BYTES).is_err()
}

#[test]
fn only_a_slots_own_generation_frees_it_and_only_it() {
    let host = Embedded::start().expect("a broker");
    let client = Client::over(host.connect().expect("a socket")).expect("a session");
    let options = PoolOptions { bytes: (ACK_WORDS * PAGE_BYTES) as u64, ..PoolOptions::default() };
    let pool = client.create_pool(options).expect("a pool");
    let (ack, broker) = (page(), page());
    let lane = lane(&ack, &broker);
    for round in 0..5 {
        let slots = [send(&pool, &lane), send(&pool, &lane)];
        assert!(lent(&pool), "round {round}");
        let say = |slot: Slot, said| ack.store_u32(releases::place(slot.number), said, Ordering::Release);
        // Anything else, and any word of a slot that is not in use.
        for said in [0, slots[0].generation.wrapping_sub(1), slots[0].generation + 1, u32::MAX] {
            say(slots[0], said);
            assert!(lent(&pool), "{said} was never given");
        }
        for number in ACK_WORDS as u16..RELEASE_SLOTS as u16 {
            ack.store_u32(releases::place(number), u32::MAX, Ordering::Release);
        }
        assert!(lent(&pool));
        say(slots[0], slots[0].generation);
        let freed = pool.try_loan(PAGE_BYTES).expect("its block is free");
        assert!(lent(&pool), "the other one is not");
        say(slots[1], slots[1].generation);
        drop(freed);
        assert!(pool.try_loan(2 * PAGE_BYTES).is_ok());
    }
}

#[test]
fn a_death_frees_all_of_a_lane_and_after_our_own_closing_only_releases_do() {
    let host = Embedded::start().expect("a broker");
    let client = Client::over(host.connect().expect("a socket")).expect("a session");
    let options = PoolOptions { bytes: PAGE_BYTES as u64, ..PoolOptions::default() };
    let pool = client.create_pool(options).expect("a pool");
    let (ack, broker) = (page(), page());
    let dies = lane(&ack, &broker);
    send(&pool, &dies);
    assert!(lent(&pool));
    broker.store_u32(4, WORD_DEAD, Ordering::Release);
    assert!(!lent(&pool));
    let (ack, broker) = (page(), page());
    let closes = lane(&ack, &broker);
    let slot = send(&pool, &closes);
    closes.close();
    broker.store_u32(4, 0, Ordering::Release);
    assert!(lent(&pool), "what was sent can still be received");
    ack.store_u32(releases::place(slot.number), slot.generation, Ordering::Release);
    assert!(!lent(&pool));
    assert!(locked(&pool.inner.lanes).iter().all(|lane| !Arc::ptr_eq(lane, &closes)), "and it is forgotten");
}
