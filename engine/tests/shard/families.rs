//! What each family of commands promises: devices, sweeps, generations, expiry, the meta group.

use bytes::Bytes;
use switchboard_engine::{
    Command, EndIncarnation, GatewayKind, Init, InitCluster, META_GROUP, Position, RaiseFormat,
    RegisterGateway, Reply, Rules, SetNode, Shard, ShardOpenError, ShardOptions, Status, Sweep,
    Unregister,
    limits::{DAY_MS, USER_BUCKETS},
};

use crate::support::{
    Driver, GROUP, Replica, ack, claim, claimed, device, enqueue, enqueued, release,
};

fn begin(seed: u64, rules: Rules) -> (Replica, Driver) {
    let replica = Replica::new(seed, ShardOptions::default());
    let driver = Driver::begin(&[&replica], rules);
    (replica, driver)
}

#[test]
fn a_user_who_is_away_with_nothing_waiting_takes_no_record() {
    let (replica, mut driver) = begin(1, Rules::default());
    let bob = device("bob", 1);
    let epoch = claimed(driver.one(&[&replica], claim(&bob, 1))).epoch;
    driver.one(&[&replica], enqueue("bob", 1, 1, "hello"));
    assert_eq!(replica.shard.stats().users, 1);
    driver.one(&[&replica], ack(&bob, epoch, u64::MAX));
    driver.one(&[&replica], release(&bob, epoch));
    assert_eq!(replica.shard.stats().users, 0);
    // The primary device is there all the same.
    assert_eq!(replica.shard.locate(b"bob").devices.as_slice(), [1]);
    // A further device is kept, until it is removed.
    let epoch = claimed(driver.one(&[&replica], claim(&device("bob", 5), 2))).epoch;
    driver.one(&[&replica], release(&device("bob", 5), epoch));
    assert_eq!(replica.shard.locate(b"bob").devices.as_slice(), [1, 5]);
    driver.one(&[&replica], Command::Unregister(Unregister { device: device("bob", 5) }));
    assert_eq!(replica.shard.locate(b"bob").devices.as_slice(), [1]);
    assert_eq!(replica.shard.stats().users, 0);
}

#[test]
fn the_device_idle_for_longest_gives_its_place_to_a_new_one() {
    let rules = Rules { devices_max: 3, ..Rules::default() };
    let (replica, mut driver) = begin(2, rules);
    for number in [2, 3] {
        let reply = driver.one(&[&replica], claim(&device("bob", number), 1));
        driver.one(&[&replica], release(&device("bob", number), claimed(reply).epoch));
        driver.now_ms += DAY_MS;
    }
    let refused = claimed(driver.one(&[&replica], claim(&device("bob", 4), 1)));
    assert_eq!(refused.status, Status::Invalid);
    driver.now_ms += rules.device_idle_ms;
    let taken = claimed(driver.one(&[&replica], claim(&device("bob", 4), 1)));
    assert_eq!((taken.status, taken.evicted_device), (Status::Ok, 2));
    assert_eq!(replica.shard.locate(b"bob").devices.as_slice(), [1, 3, 4]);
}

#[test]
fn a_full_mailbox_refuses_unless_the_rules_say_to_drop_the_oldest() {
    let rules = Rules { mailbox_messages_max: 10, ..Rules::default() };
    let (replica, mut driver) = begin(9, rules);
    let (other, mut its_driver) = begin(10, rules);
    let mut both = |command: Command| {
        let reply = driver.one(&[&replica], command.clone());
        assert_eq!(its_driver.one(&[&other], command), reply);
        reply
    };
    let sent: Vec<_> = (0..10).map(|n| enqueued(both(enqueue("bob", 1, n, "x")))).collect();
    assert_eq!(enqueued(both(enqueue("bob", 1, 10, "x"))).status, Status::MailboxFull);
    both(Command::SetRules(Rules { drop_oldest: true, ..rules }));
    let reply = enqueued(both(enqueue("bob", 1, 10, "x")));
    assert_eq!((reply.status, reply.dropped), (Status::Ok, 1));
    let seq = |reply: &switchboard_engine::Enqueued| reply.stored[0].seq;
    assert_eq!(reply.stored[0].prev_seq, seq(&sent[9]));
    let page = replica.fetch(&device("bob", 1));
    let waiting: Vec<u64> = page.messages.iter().map(|m| m.seq).collect();
    let expected: Vec<u64> = sent[1..].iter().chain([&reply]).map(seq).collect();
    assert_eq!(waiting, expected);
    // A repeat of what was dropped stores nothing, and names nothing that waits.
    let repeat = enqueued(both(enqueue("bob", 1, 0, "x")));
    assert_eq!((repeat.status, repeat.stored.len()), (Status::Duplicate, 0));
    // The rule is state: it outlives a checkpoint and a restart, and is part of the hash.
    let before = replica.shard.state_hash();
    replica.shard.checkpoint().expect("checkpoint");
    let replica = replica.reopened();
    assert_eq!(replica.shard.state_hash(), before);
    assert!(replica.shard.rules().drop_oldest);
    let (replies, again) = (driver.one(&[&replica], enqueue("bob", 1, 11, "x")), &[&other]);
    assert_eq!(its_driver.one(again, enqueue("bob", 1, 11, "x")), replies);
    assert_eq!(
        (enqueued(replies).dropped, replica.shard.state_hash()),
        (1, other.shard.state_hash())
    );
}

#[test]
fn a_send_to_all_devices_has_one_seq_and_each_mailbox_its_own_order() {
    let (replica, mut driver) = begin(3, Rules::default());
    driver.one(&[&replica], enqueue("bob", 1, 1, "only the primary"));
    driver.one(&[&replica], claim(&device("bob", 2), 1));
    let all = enqueued(driver.one(&[&replica], enqueue("bob", 0, 2, "all")));
    let stored: Vec<_> = all.stored.iter().map(|s| (s.device, s.prev_seq != 0)).collect();
    assert_eq!(stored, [(1, true), (2, false)]);
    assert_eq!(all.stored[0].seq, all.stored[1].seq);
    assert_eq!(all.sessions.len(), 1, "the second device is connected");
    let unknown = enqueued(driver.one(&[&replica], enqueue("bob", 9, 3, "nobody")));
    assert_eq!(unknown.status, Status::Invalid);
}

#[test]
fn sweeps_remove_ended_sessions_only_and_end() {
    let (replica, mut driver) = begin(4, Rules::default());
    let session = |user: u32, incarnation| {
        let Command::Claim(mut c) = claim(&device(&format!("user{user}"), 1), 1) else {
            unreachable!()
        };
        c.incarnation = incarnation;
        Command::Claim(c)
    };
    let dead: Vec<Command> = (0..3_000).map(|user| session(user, 1)).collect();
    let alive: Vec<Command> = (3_000..3_100).map(|user| session(user, 2)).collect();
    for some in dead.chunks(1_000) {
        driver.propose(&[&replica], some);
    }
    driver.propose(&[&replica], &alive);
    let (mut cursor, mut swept, mut rounds) = (Some(0), 0, 0);
    while let Some(from) = cursor {
        let sweep = Sweep { gateway_id: 1, up_to_incarnation: 1, cursor: from, sessions_max: 500 };
        let Reply::Swept(reply) = driver.one(&[&replica], Command::Sweep(sweep)) else {
            panic!("no sweep")
        };
        assert!(reply.sessions < 600, "one sweep is bounded");
        swept += reply.sessions;
        cursor = reply.next_cursor;
        rounds += 1;
        assert!(rounds < USER_BUCKETS);
    }
    assert_eq!((swept, replica.shard.stats().sessions), (3_000, 100));
    assert_eq!(replica.shard.stats().users, 100);
}

#[test]
fn what_expired_is_dropped_within_a_round_without_being_touched() {
    let (replica, mut driver) = begin(5, Rules::default());
    for user in 0..200 {
        let Command::Enqueue(mut c) = enqueue(&format!("user{user}"), 1, user, "brief") else {
            unreachable!()
        };
        c.ttl_ms = 1_000;
        driver.one(&[&replica], Command::Enqueue(c));
    }
    let due = replica.shard.next_due_ms();
    assert_eq!(due, Some(driver.now_ms + 1_000));
    for _ in 0..40 {
        driver.now_ms += 1_000;
        driver.one(&[&replica], Command::Tick);
        assert_eq!(replica.shard.stat(&device("user7", 1)).messages, 0, "reads filter at once");
    }
    let stats = replica.shard.stats();
    assert_eq!((stats.messages, stats.users), (0, 0));
    assert_eq!(replica.shard.next_due_ms(), None);
}

#[test]
fn a_generation_raises_positions_and_never_lowers_them() {
    let (replica, mut driver) = begin(6, Rules::default());
    let init = |generation| {
        Command::Init(Init { generation, dedup_key: [9; 16], rules: Rules::default() })
    };
    let before = enqueued(driver.one(&[&replica], enqueue("bob", 1, 1, "a"))).stored[0].seq;
    driver.one(&[&replica], init(3));
    driver.one(&[&replica], init(2));
    let after = enqueued(driver.one(&[&replica], enqueue("bob", 1, 2, "b"))).stored[0];
    assert_eq!(Position::try_from_u64(after.seq).map(Position::generation), Some(3));
    assert_eq!(after.prev_seq, before);
    // The ids seen before are still known: the key has stayed.
    let repeat = enqueued(driver.one(&[&replica], enqueue("bob", 1, 1, "a")));
    assert_eq!(repeat.status, Status::Duplicate);
    assert_eq!(replica.fetch(&device("bob", 1)).messages.len(), 2);
    let bad = driver.one(&[&replica], init(200));
    assert_eq!(bad, Reply::Done(Status::Invalid));
}

#[test]
fn a_group_that_has_not_begun_takes_nothing() {
    let replica = Replica::new(7, ShardOptions::default());
    let mut driver = Driver::new();
    let reply = enqueued(driver.one(&[&replica], enqueue("bob", 1, 1, "a")));
    assert_eq!(reply.status, Status::Unavailable);
    assert_eq!(driver.one(&[&replica], Command::Tick), Reply::Done(Status::Ok));
    assert!(!replica.shard.is_initialized());
}

#[test]
fn the_meta_group_keeps_names_and_lets_incarnations_rise() {
    let replica = Replica::of_group(8, META_GROUP);
    let mut driver = Driver::new();
    let all = &[&replica];
    let cluster =
        |shards| Command::InitCluster(InitCluster { cluster_id: [1; 16], shards, generation: 0 });
    let register = |name: &str, kind| {
        Command::RegisterGateway(RegisterGateway { name: name.into(), address: "a:1".into(), kind })
    };
    let registered = |reply| match reply {
        Reply::Registered(r) => r,
        other => panic!("no registration: {other:?}"),
    };
    let early = registered(driver.one(all, register("g", GatewayKind::Gateway)));
    assert_eq!(early.status, Status::Unavailable);
    assert_eq!(driver.one(all, cluster(3)), Reply::Done(Status::Invalid));
    assert_eq!(driver.one(all, cluster(16)), Reply::Done(Status::Ok));
    driver.one(all, cluster(32));
    let node = SetNode { node_id: 1, address: "n:1".into(), disk_id: [2; 16] };
    driver.one(all, Command::SetNode(node));
    let first = registered(driver.one(all, register("g", GatewayKind::Gateway)));
    let chat = registered(driver.one(all, register("g", GatewayKind::Chat)));
    let second = registered(driver.one(all, register("g", GatewayKind::Gateway)));
    assert_eq!(first.gateway_id, second.gateway_id);
    assert_ne!(first.gateway_id, chat.gateway_id);
    assert!(second.incarnation > first.incarnation);
    let raise = |to| Command::RaiseFormat(RaiseFormat { to });
    assert_eq!(driver.one(all, raise(2)), Reply::Done(Status::Ok));
    assert_eq!(driver.one(all, raise(1)), Reply::Done(Status::Invalid), "a format never goes down");
    let end = |gateway_id, incarnation| {
        Command::EndIncarnation(EndIncarnation { gateway_id, incarnation })
    };
    // An old life that ends late does not end the new one.
    let late = driver.one(all, end(first.gateway_id, first.incarnation));
    assert_eq!(late, Reply::Ended(Status::Ok));
    let check = |shard: &Shard, second_ended: bool| {
        shard.meta(|meta| {
            assert_eq!((meta.shards(), meta.nodes().count(), meta.format()), (16, 1, 2));
            assert!(meta.has_ended(first.gateway_id, first.incarnation));
            assert_eq!(meta.has_ended(second.gateway_id, second.incarnation), second_ended);
            assert!(!meta.has_ended(second.gateway_id, second.incarnation + 1), "newer is live");
            assert!(!meta.has_ended(99, 1), "unknown is live");
        });
    };
    check(&replica.shard, false);
    driver.one(all, end(second.gateway_id, second.incarnation));
    assert_eq!(driver.one(all, end(99, 1)), Reply::Ended(Status::UnknownGateway));
    replica.shard.checkpoint().expect("checkpoint");
    let replica = replica.reopened();
    check(&replica.shard, true);
    let stray = enqueued(driver.one(&[&replica], enqueue("bob", 1, 1, "a")));
    assert_eq!(stray.status, Status::Invalid);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_named() {
    let (replica, mut driver) = begin(9, Rules::default());
    driver.one(&[&replica], enqueue("bob", 1, 1, Bytes::from(vec![1; 2_000])));
    replica.shard.checkpoint().expect("checkpoint");
    let path = format!("/data/checkpoints/{GROUP}-{:016x}.ckpt", 2);
    let path = std::path::Path::new(&path);
    let len = replica.files.content(path).expect("the checkpoint's file").len() as u64;
    for offset in (0..len).step_by(7) {
        replica.files.flip(path, offset, 3);
        let refused = replica.open_again();
        let Err(ShardOpenError::Checkpoint { path: named, source }) = refused else {
            panic!("byte {offset} of {len} is wrong and nobody saw it")
        };
        assert_eq!(named, path);
        assert!(source.to_string().contains("byte"), "names no offset: {source}");
        replica.files.flip(path, offset, 3);
    }
    replica.open_again().expect("whole again");
}

#[test]
fn a_damaged_old_body_is_an_error_and_not_a_message() {
    let (replica, mut driver) = begin(10, Rules::default());
    driver.one(&[&replica], enqueue("bob", 1, 1, Bytes::from(vec![1; 2_000])));
    replica.shard.checkpoint().expect("checkpoint");
    let path = format!("/data/bodies/{GROUP}/{:010}.old", 1);
    replica.files.flip(std::path::Path::new(&path), 500, 1);
    let error = replica.shard.fetch(&device("bob", 1), 0, 10, 1 << 20).expect_err("damaged");
    assert!(error.to_string().contains(&path), "names no file: {error}");
}

#[test]
fn readers_see_whole_commands_while_one_applies_and_checkpoints_come() {
    let options = ShardOptions { purge_after_checkpoint: true };
    let replica = Replica::new(11, options);
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let bob = device("bob", 1);
    driver.one(&[&replica], claim(&device("bob", 2), 1));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut pages = 0_u64;
                let mut high = 0;
                while !done.load(std::sync::atomic::Ordering::Acquire) || pages == 0 {
                    let page = replica.fetch(&bob);
                    for message in &page.messages {
                        let number =
                            u64::from_le_bytes(message.message_id[..8].try_into().unwrap());
                        assert_eq!(message.body, format!("body {number}"), "another's body");
                    }
                    assert!(page.messages.is_sorted_by(|a, b| a.seq < b.seq));
                    assert!(page.tail == 0 || page.tail >= high, "the tail went back");
                    high = high.max(page.tail);
                    pages += 1;
                }
            });
        }
        for number in 0..600 {
            driver.one(&[&replica], enqueue("bob", 0, number, format!("body {number}")));
            if number % 7 == 0 {
                let tail = replica.shard.stat(&bob).tail;
                driver.one(&[&replica], ack(&bob, 0, tail.saturating_sub(10 << 16)));
            }
            if number % 50 == 49 {
                replica.shard.checkpoint().expect("checkpoint");
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    let hash = replica.shard.state_hash();
    assert_eq!(replica.reopened().shard.state_hash(), hash);
}
