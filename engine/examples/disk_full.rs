//! Fills a small file system through a store, and sees that the store lives through it.
//!
//! ```text
//! scripts/disk-full            mounts a tmpfs of 48 MiB for it
//! ```
//! Messages are refused with the documented error once less than the reserve is free. Reads, acks and
//! purges go on; what they free, and what somebody else frees, lets messages in again, without a
//! restart. In the end a restart finds what must be there.

use std::{error::Error, fs, path::Path};

use bytes::Bytes;
use switchboard_engine::{
    DeviceId, Enqueue, MessageKind, Options, Store, StoreError,
    log::{AppendError, LogOptions},
};

const MAILBOXES: u64 = 32;
const BODY_BYTES: usize = 2_000;
const ROUNDS: u64 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("the directory of a small file system, please")?;
    let (dir, ballast) = (Path::new(&dir).join("store"), Path::new(&dir).join("ballast"));
    let mut store = open(&dir)?;
    let mut next = 0;
    for round in 1..=ROUNDS {
        let before = next;
        next = fill(&store, next)?;
        let waiting = count(&store)?;
        assert_eq!(store.stats().messages, waiting, "every message is read while the disk is full");
        println!("round {round}: refused after {} messages, {waiting} wait", next - before);
        for mailbox in 0..MAILBOXES - 1 {
            match mailbox % 2 {
                0 => drop(store.ack(&device(mailbox), u64::MAX)?),
                _ => drop(store.purge(&device(mailbox), "the disk is full")?),
            }
        }
        make_room(&store)?;
        store.enqueue(&[message(next)])?;
        next += 1;
        let left = count(&store)?;
        println!("round {round}: acks and purges went on, messages are taken again, {left} wait");
        if round % 2 == 0 {
            drop(store);
            store = open(&dir)?;
            assert_eq!(count(&store)?, left, "a restart finds them");
        }
    }
    store.purge(&device(MAILBOXES - 1), "what is left")?;
    make_room(&store)?;
    // Somebody else takes the space, and gives it back.
    let mut taken = Vec::new();
    while store.enqueue(&[message(next)]).is_ok() {
        next += 1;
        taken.resize(taken.len() + (1 << 20), 1);
        fs::write(&ballast, &taken)?;
    }
    assert!(is_disk_full(&store.enqueue(&[message(next)]).expect_err("still full")));
    fs::remove_file(&ballast)?;
    store.enqueue(&[message(next)])?;
    println!("a file of {} MiB beside it did the same, and its removal", taken.len() >> 20);
    Ok(())
}

fn open(dir: &Path) -> Result<Store, Box<dyn Error>> {
    let log =
        LogOptions { segment_bytes: 1 << 20, reserve_bytes: 16 << 20, ..LogOptions::default() };
    Ok(Store::open(dir, Options { log, checkpoint_bytes: 4 << 20, ..Options::default() })?)
}

/// Sends messages until they are refused for want of space.
fn fill(store: &Store, mut next: u64) -> Result<u64, Box<dyn Error>> {
    loop {
        match store.enqueue(&[message(next), message(next + 1)]) {
            Ok(_) => next += 2,
            Err(error) if is_disk_full(&error) => return Ok(next),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Happens by itself as acks come. One checkpoint counts what is left in each file, the next rewrites
/// the files that have little.
fn make_room(store: &Store) -> Result<(), StoreError> {
    for _ in 0..2 {
        store.ack(&device(0), u64::MAX)?;
        store.checkpoint()?;
    }
    Ok(())
}

fn is_disk_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Append(AppendError::DiskFull { .. }))
}

/// Reads every mailbox to its end.
fn count(store: &Store) -> Result<u64, StoreError> {
    let mut count = 0;
    for mailbox in 0..MAILBOXES {
        let mut after = 0;
        loop {
            let page = store.fetch(&device(mailbox), after, 1_024)?;
            count += page.messages.len() as u64;
            assert!(page.messages.iter().all(|message| message.body.len() == BODY_BYTES));
            match page.messages.last() {
                Some(last) if page.more => after = last.seq,
                _ => break,
            }
        }
    }
    Ok(count)
}

fn device(mailbox: u64) -> DeviceId {
    DeviceId::new(format!("user-{mailbox}"), 1)
}

fn message(number: u64) -> Enqueue {
    let to = device(number % MAILBOXES);
    Enqueue {
        to_user: to.user,
        to_device: to.device,
        message_id: (u128::from(number) + 1).to_le_bytes(),
        from: DeviceId::new("filler", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::from(vec![number as u8; BODY_BYTES]),
    }
}
