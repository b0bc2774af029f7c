//! Readers of one payload that die with it in their hands.

use keyway::{Client, Error, Outgoing, PoolOptions, QueueOptions};

use crate::{
    players::{self, PATIENCE, SOON},
    stage::{Stage, publish},
};

const BLOCK_BYTES: usize = 1 << 20;

/// Receives a message under the name that it is given, reads what it names, and stays.
pub(crate) fn read_and_stay(part: &players::Part) {
    let client = Client::connect().unwrap();
    let (mut queue, _name) = publish(&client, &part.argument, QueueOptions::default());
    players::say("ready");
    let message = queue.receive_timeout(PATIENCE).unwrap();
    assert!(message.segments[0].to_vec().iter().all(|byte| *byte == 7));
    players::say("read");
    players::stay();
}

#[test]
fn a_reader_that_is_killed_frees_its_share_and_no_others() {
    let stage = Stage::begin();
    let client = stage.client();
    let pool =
        client.create_pool(PoolOptions { bytes: BLOCK_BYTES as u64, ..PoolOptions::default() }).unwrap();
    let mut readers: Vec<_> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let mut reader = stage.player("reader", name);
            assert_eq!(reader.hear(), "ready");
            let sender = client.open_sender(&client.lookup(name).unwrap()).unwrap();
            (reader, sender)
        })
        .collect();
    let mut block = pool.loan(BLOCK_BYTES).unwrap();
    block.fill(7);
    let block = block.share();
    for (reader, sender) in &mut readers {
        sender.send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
        assert_eq!(reader.hear(), "read");
    }
    drop(block);
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)));
    readers[0].0.kill();
    stage.forgets(readers[0].0.pid());
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)), "the other one still reads");
    // The death wakes who waits for it.
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.loan_timeout(BLOCK_BYTES, SOON).map(|block| block.len()));
        readers[1].0.kill();
        assert_eq!(waiter.join().unwrap().unwrap(), BLOCK_BYTES);
    });
    let sent = readers[0].1.send_segments(&Outgoing::default(), &[]);
    assert!(matches!(sent, Err(Error::LaneEnded { .. })), "{sent:?}");
}
