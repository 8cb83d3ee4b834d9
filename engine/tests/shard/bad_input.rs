//! Every limit of a shard has its answer, and a refused command changes nothing.

use switchboard_engine::{Command, Enqueue, MessageKind, Reply, Rules, ShardOptions, Status};

use crate::support::{
    Driver, Replica, ack, claim, claimed, device, enqueue, enqueued, id, release,
};

fn small() -> Rules {
    Rules { mailbox_messages_max: 10, mailbox_bytes_max: 1_000, ..Rules::default() }
}

#[test]
fn a_full_mailbox_refuses_and_receipts_have_room_of_their_own() {
    let replica = Replica::new(11, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], small());
    for number in 0..10 {
        let reply = enqueued(driver.one(&[&replica], enqueue("bob", 0, number, "x")));
        assert_eq!(reply.status, Status::Ok);
    }
    let full = enqueued(driver.one(&[&replica], enqueue("bob", 0, 10, "x")));
    assert_eq!(full.status, Status::MailboxFull);
    let Command::Enqueue(content) = enqueue("bob", 1, 11, "r") else { panic!("an enqueue") };
    let receipt = Command::Enqueue(Enqueue { kind: MessageKind::Receipt, ..content });
    assert_eq!(enqueued(driver.one(&[&replica], receipt)).status, Status::Ok);
    // What was refused is not remembered: it may come again when there is room.
    driver.one(&[&replica], ack(&device("bob", 1), 0, u64::MAX));
    let again = enqueued(driver.one(&[&replica], enqueue("bob", 0, 10, "x")));
    assert_eq!(again.status, Status::Ok);
}

#[test]
fn bytes_fill_a_mailbox_too() {
    let replica = Replica::new(12, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], small());
    assert_eq!(
        enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, vec![0; 900]))).status,
        Status::Ok
    );
    assert_eq!(
        enqueued(driver.one(&[&replica], enqueue("bob", 0, 2, vec![0; 200]))).status,
        Status::MailboxFull
    );
}

#[test]
fn a_stale_epoch_changes_nothing() {
    let replica = Replica::new(13, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bob = device("bob", 1);
    let old = claimed(driver.one(&[&replica], claim(&bob, 1))).epoch;
    driver.one(&[&replica], enqueue("bob", 0, 1, "x"));
    let new = claimed(driver.one(&[&replica], claim(&bob, 2)));
    assert!(new.epoch > old);
    assert_eq!(new.replaced.map(|session| session.epoch), Some(old));
    let Reply::Acked(acked) = driver.one(&[&replica], ack(&bob, old, u64::MAX)) else {
        panic!("an ack")
    };
    assert_eq!(acked.status, Status::Fenced);
    let Reply::Released(released) = driver.one(&[&replica], release(&bob, old)) else {
        panic!("a release")
    };
    assert_eq!(released.status, Status::Fenced);
    assert_eq!(replica.fetch(&bob).messages.len(), 1);
    assert_eq!(replica.shard.locate(b"bob").sessions[0].epoch, new.epoch);
}

#[test]
fn an_ack_of_everything_is_clamped_to_what_is_there() {
    let replica = Replica::new(14, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bob = device("bob", 1);
    driver.one(&[&replica], enqueue("bob", 0, 1, "x"));
    driver.one(&[&replica], ack(&bob, 0, u64::MAX));
    assert!(replica.fetch(&bob).messages.is_empty());
    driver.one(&[&replica], enqueue("bob", 0, 2, "later"));
    assert_eq!(replica.fetch(&bob).messages[0].body, "later");
}

#[test]
fn the_seventeenth_device_is_refused() {
    let replica = Replica::new(15, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    for number in 2..=16 {
        let reply = claimed(driver.one(&[&replica], claim(&device("bob", number), 1)));
        assert_eq!(reply.status, Status::Ok, "device {number}");
    }
    let reply = claimed(driver.one(&[&replica], claim(&device("bob", 17), 1)));
    assert_eq!((reply.status, reply.epoch), (Status::Invalid, 0));
    let unknown = enqueued(driver.one(&[&replica], enqueue("bob", 99, 1, "x")));
    assert_eq!(unknown.status, Status::Invalid);
}

#[test]
fn log_time_that_steps_back_does_not_go_back() {
    let replica = Replica::new(16, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    driver.now_ms += 1_000;
    driver.one(&[&replica], Command::Tick);
    let before = replica.shard.log_time_ms();
    driver.now_ms -= 500;
    driver.one(&[&replica], Command::Tick);
    assert_eq!(replica.shard.log_time_ms(), before);
}

#[test]
fn a_repeat_names_what_still_waits_and_is_forgotten_after_the_horizon() {
    let replica = Replica::new(17, ShardOptions::default());
    let rules = Rules { dedup_horizon_ms: 60_000, ..Rules::default() };
    let mut driver = Driver::begin(&[&replica], rules);
    let first = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, "x")));
    let again = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, "x")));
    assert_eq!((again.status, again.stored[0].seq), (Status::Duplicate, first.stored[0].seq));
    assert_eq!(again.stored[0].prev_seq, 0);
    driver.one(&[&replica], ack(&device("bob", 1), 0, u64::MAX));
    let gone = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, "x")));
    assert_eq!((gone.status, gone.stored.len()), (Status::Duplicate, 0));
    driver.now_ms += 2 * 60_000;
    let fresh = enqueued(driver.one(&[&replica], enqueue("bob", 0, 1, "x")));
    assert_eq!(fresh.status, Status::Ok);
    assert_eq!(replica.fetch(&device("bob", 1)).messages[0].message_id, id(1));
}
