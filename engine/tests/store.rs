//! The embedded store: durable answers, group commit, restarts, checkpoints, crashes, limits.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use switchboard_engine::{
    Ack, DeviceId, Enqueue, ManualClock, MessageKind, Options, Rules, Status, Store, StoreError,
    fs::sim::SimFiles,
    log::{AppendError, LogOptions, WriterMode},
};

const START_MS: u64 = 1_700_000_000_000;

fn options(files: &SimFiles, clock: &Arc<ManualClock>) -> Options {
    let log = LogOptions { segment_bytes: 64 * 1024, reserve_bytes: 0, ..LogOptions::default() };
    Options { log, clock: clock.clone(), files: Arc::new(files.clone()), ..Options::default() }
}

fn open(files: &SimFiles, clock: &Arc<ManualClock>) -> Store {
    Store::open(Path::new("/store"), options(files, clock)).expect("open")
}

fn message(id: u64, to: &DeviceId, body: &[u8]) -> Enqueue {
    Enqueue {
        to_user: to.user.clone(),
        to_device: to.device,
        message_id: (u128::from(id) << 8).to_le_bytes(),
        from: DeviceId::new("alice", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::copy_from_slice(body),
    }
}

fn bodies(store: &Store, device: &DeviceId) -> Vec<Bytes> {
    let page = store.fetch(device, 0, 1_024).expect("fetch");
    assert!(!page.more);
    page.messages.into_iter().map(|m| m.body).collect()
}

#[test]
fn threads_share_syncs_and_every_answer_is_its_own() {
    let (files, clock) = (SimFiles::new(1), Arc::new(ManualClock::at_unix_ms(START_MS)));
    let store = open(&files, &clock);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                let to = DeviceId::new(format!("user{thread}"), 1);
                let mut last = 0;
                for n in 0..50 {
                    let item = message(thread * 1_000 + n, &to, format!("{n}").as_bytes());
                    let answers = store.enqueue(&[item]).expect("enqueue");
                    assert_eq!(answers[0].status, Status::Ok);
                    assert_eq!(answers[0].stored[0].prev_seq, last);
                    last = answers[0].stored[0].seq;
                }
            });
        }
    });
    assert_eq!(store.stats().messages, 400);
    drop(store);
    files.kill();
    let store = open(&files, &clock);
    for thread in 0..8 {
        let found = bodies(&store, &DeviceId::new(format!("user{thread}"), 1));
        let expected: Vec<Bytes> = (0..50).map(|n| Bytes::from(format!("{n}"))).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_long_log_is_checkpointed_and_goes() {
    let (files, clock) = (SimFiles::new(2), Arc::new(ManualClock::at_unix_ms(START_MS)));
    let small = || Options { checkpoint_bytes: 128 * 1024, ..options(&files, &clock) };
    let store = Store::open(Path::new("/store"), small()).expect("open");
    let (kept, gone) = (DeviceId::new("kept", 1), DeviceId::new("gone", 1));
    store.enqueue(&[message(1, &kept, b"stays")]).expect("enqueue");
    for n in 0..400 {
        store.enqueue(&[message(100 + n, &gone, &[7; 4_000])]).expect("enqueue");
        store.ack(&gone, u64::MAX).expect("ack");
    }
    assert!(files.used() < 1_000_000, "{} bytes are left of 1.6 MB", files.used());
    drop(store);
    files.kill();
    let store = Store::open(Path::new("/store"), small()).expect("reopen");
    assert_eq!(bodies(&store, &kept), [Bytes::from_static(b"stays")]);
    assert!(bodies(&store, &gone).is_empty());
    // What was seen before is remembered through checkpoint and restart.
    let again = store.enqueue(&[message(1, &kept, b"stays")]).expect("enqueue");
    assert_eq!(again[0].status, Status::Duplicate);
}

#[test]
fn bad_items_fail_alone_and_batches_larger_than_an_entry_are_whole() {
    let (files, clock) = (SimFiles::new(3), Arc::new(ManualClock::at_unix_ms(START_MS)));
    let mut options = options(&files, &clock);
    options.log.segment_bytes = 8 << 20;
    let store = Store::open(Path::new("/store"), options).expect("open");
    let to = DeviceId::new("bob", 1);
    let mut items: Vec<Enqueue> = (0..40).map(|n| message(n, &to, &[n as u8; 65_536])).collect();
    items[3].body = Bytes::from(vec![0; 65_537]);
    items[5].to_user = Bytes::new();
    items[7].to_device = 9;
    let answers = store.enqueue(&items).expect("enqueue");
    for (n, answer) in answers.iter().enumerate() {
        let expected = match n {
            3 => Status::TooLarge,
            5 | 7 => Status::Invalid,
            _ => Status::Ok,
        };
        assert_eq!(answer.status, expected, "item {n}");
    }
    let claim = store.claim(&to, 1, 1).expect("claim");
    assert_eq!(claim.backlog, 37);
    let fenced = store.ack_fenced(&to, claim.epoch + 1, u64::MAX, &[]).expect("ack");
    assert_eq!(fenced.status, Status::Fenced);
    assert!(matches!(
        store.claim(&DeviceId::new("", 1), 1, 1),
        Err(StoreError::Refused { status: Status::Invalid })
    ));
    let ack = |device: &DeviceId, epoch, up_to_seq| Ack {
        device: device.clone(),
        epoch,
        up_to_seq,
        seqs: Vec::new(),
    };
    let acks = [
        ack(&to, claim.epoch + 1, u64::MAX),
        ack(&DeviceId::new("", 1), 0, u64::MAX),
        ack(&to, claim.epoch, answers[0].stored[0].seq),
    ];
    let acked = store.ack_batch(&acks).expect("ack");
    let statuses: Vec<_> = acked.iter().map(|acked| (acked.status, acked.removed)).collect();
    assert_eq!(statuses, [(Status::Fenced, 0), (Status::Invalid, 0), (Status::Ok, 1)]);
    assert!(store.release(&to, claim.epoch).expect("release"));
    assert!(!store.release(&to, claim.epoch).expect("release"));
    assert_eq!(store.purge(&to, "test").expect("purge").messages, 36);
}

#[test]
fn messages_expire_though_nothing_is_written() {
    let (files, clock) = (SimFiles::new(4), Arc::new(ManualClock::at_unix_ms(START_MS)));
    let store = open(&files, &clock);
    let to = DeviceId::new("bob", 1);
    let brief = Enqueue { ttl_ms: 5_000, ..message(1, &to, b"brief") };
    store.enqueue(&[brief, message(2, &to, b"long")]).expect("enqueue");
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(bodies(&store, &to).len(), 2);
    clock.advance(Duration::from_millis(1_001));
    assert_eq!(bodies(&store, &to), [Bytes::from_static(b"long")]);
    assert_eq!(store.stat(&to).expect("stat").messages, 1);
}

#[test]
fn rules_out_of_range_are_refused() {
    let (files, clock) = (SimFiles::new(5), Arc::new(ManualClock::at_unix_ms(START_MS)));
    let rules = Rules { devices_max: 0, ..Rules::default() };
    let opened = Store::open(Path::new("/store"), Options { rules, ..options(&files, &clock) });
    assert!(opened.is_err());
    let store = open(&files, &clock);
    assert!(store.set_rules(rules).is_err());
    store.set_rules(Rules { devices_max: 2, ..Rules::default() }).expect("rules");
    store.claim(&DeviceId::new("bob", 2), 1, 1).expect("a second device");
    assert!(store.claim(&DeviceId::new("bob", 3), 1, 1).is_err(), "a third");
}

/// Power goes at every operation in turn: whatever was answered is there, whatever was acknowledged is
/// not, and the store goes on.
#[test]
fn answered_is_durable_through_a_power_cut_at_any_operation() {
    let to = DeviceId::new("bob", 1);
    let mut operation = 1;
    loop {
        let (files, clock) =
            (SimFiles::new(operation), Arc::new(ManualClock::at_unix_ms(START_MS)));
        let stepped = || {
            let mut options = options(&files, &clock);
            options.log.writer = WriterMode::Stepped;
            options.checkpoint_bytes = 24 * 1024;
            options
        };
        files.crash_at(operation);
        let (mut sent, mut acked) = (BTreeSet::new(), BTreeSet::new());
        let mut asked = BTreeSet::new();
        let finished = work(stepped(), &to, &mut sent, &mut asked, &mut acked);
        files.power_cut();
        let store = Store::open(Path::new("/store"), stepped()).expect("reopen");
        let page = store.fetch(&to, 0, 1_024).expect("fetch");
        let found: BTreeSet<u64> =
            page.messages.iter().map(|m| u128::from_le_bytes(m.message_id) as u64 >> 8).collect();
        assert!(found.is_disjoint(&acked), "acknowledged is back after {operation}");
        let lost: Vec<_> = sent.difference(&asked).filter(|n| !found.contains(n)).collect();
        assert!(lost.is_empty(), "{lost:?} lost after {operation}");
        store.enqueue(&[message(9_999, &to, b"on")]).expect("goes on");
        if finished {
            break;
        }
        operation += 1;
    }
    assert!(operation > 50, "only {operation} operations");
}

/// Sends and acknowledges until the disk is gone; true when it got to the end.
fn work(
    options: Options,
    to: &DeviceId,
    sent: &mut BTreeSet<u64>,
    asked: &mut BTreeSet<u64>,
    acked: &mut BTreeSet<u64>,
) -> bool {
    let Ok(store) = Store::open(Path::new("/store"), options) else { return false };
    for n in 1..=24_u64 {
        let Ok(answers) = store.enqueue(&[message(n, to, &[n as u8; 3_000])]) else {
            return false;
        };
        sent.insert(n);
        if n % 3 == 0 {
            asked.insert(n);
            let Ok(_) = store.ack_fenced(to, 0, 0, &[answers[0].stored[0].seq]) else {
                return false;
            };
            acked.insert(n);
        }
    }
    true
}

/// What takes space is refused in time; what makes room is not, and then it goes on by itself.
#[test]
fn a_full_disk_refuses_messages_and_takes_acks_until_there_is_space_again() {
    let (files, clock) = (SimFiles::new(6), Arc::new(ManualClock::at_unix_ms(START_MS)));
    files.set_capacity(Some(2 << 20));
    let mut options = options(&files, &clock);
    options.log.reserve_bytes = 768 * 1024;
    options.log.writer = WriterMode::Stepped;
    options.checkpoint_bytes = 256 * 1024;
    let store = Store::open(Path::new("/store"), options.clone()).expect("open");
    let devices: Vec<DeviceId> = (0..4).map(|n| DeviceId::new(format!("user{n}"), 1)).collect();
    let mut number = 0;
    for _ in 0..5 {
        let refused = loop {
            let item = message(number, &devices[number as usize % 4], &[number as u8; 3_000]);
            match store.enqueue(&[item]) {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(is_disk_full(&refused), "{refused}");
        assert!(is_disk_full(&store.claim(&devices[0], 1, 1).expect_err("as full for claims")));
        let waiting: usize = devices.iter().map(|device| bodies(&store, device).len()).sum();
        assert_eq!(store.stats().messages, waiting as u64);
        store.ack(&devices[0], u64::MAX).expect("acks go on");
        store.purge(&devices[1], "full").expect("purges go on");
        store.checkpoint().expect("the reserve has room for it");
        // Only now is it known how little is left in the files of old messages.
        store.ack(&devices[2], u64::MAX).expect("acks go on");
        store.checkpoint().expect("the reserve has room for it");
        store.enqueue(&[message(1_000_000 + number, &devices[3], b"on")]).expect("space again");
        store.purge(&devices[3], "next round").expect("purge");
    }
    assert!(number > 400, "{number} messages in all");
    store.enqueue(&[message(2_000_000, &devices[0], b"kept")]).expect("enqueue");
    drop(store);
    files.power_cut();
    let store = Store::open(Path::new("/store"), options).expect("reopen");
    assert_eq!(bodies(&store, &devices[0]), [Bytes::from_static(b"kept")]);
}

fn is_disk_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Append(AppendError::DiskFull { .. }))
}
