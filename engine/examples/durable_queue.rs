//! A queue for each recipient: durable when a send returns, repeated sends told apart, gone by
//! acknowledgement or by time.
//!
//! `cargo run --release -p switchboard-engine --example durable_queue`

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use switchboard_engine::{
    Clock, DeviceId, Enqueue, ManualClock, MessageKind, Options, Status, Store, SystemClock,
};

const SENDERS: u16 = 4;
const MESSAGES: u16 = 50;

fn message(to: &DeviceId, sender: u16, number: u16, ttl: Duration) -> Enqueue {
    let mut message_id = [0; 16];
    message_id[..2].copy_from_slice(&number.to_le_bytes());
    Enqueue {
        to_user: to.user.clone(),
        to_device: to.device,
        message_id,
        from: DeviceId::new(format!("sender-{sender}"), 1),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        kind: MessageKind::Content,
        body: Bytes::from(format!("{sender}: message {number}")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // A clock in our hand, so that nobody has to wait for a day.
    let clock = Arc::new(ManualClock::at_unix_ms(SystemClock::new().unix_ms()));
    let options = || Options { clock: clock.clone(), ..Options::default() };
    let store = Store::open(dir.path(), options())?;
    let bob = DeviceId::new("bob", 1);
    let day = Duration::from_secs(24 * 60 * 60);

    // Four threads send; calls that come while a sync is under way share the next one.
    thread::scope(|scope| {
        for sender in 1..=SENDERS {
            let (store, bob) = (&store, &bob);
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let receipts = store.enqueue(&[message(bob, sender, number, day)]);
                    assert_eq!(receipts.expect("a send")[0].status, Status::Ok);
                }
            });
        }
    });
    println!("{} messages wait for bob", store.stat(&bob)?.messages);

    // A sender that has missed its answer sends again, and nothing is stored twice.
    let again = store.enqueue(&[message(&bob, 1, 0, day)])?;
    println!("sent again: {:?}", again[0].status);
    assert_eq!(again[0].status, Status::Duplicate);

    // A restart loses nothing, and the order stays.
    drop(store);
    let store = Store::open(dir.path(), options())?;
    let page = store.fetch(&bob, 0, 100)?;
    let last = page.messages.last().map_or(0, |message| message.seq);
    println!("after a restart the first page has {} of them", page.messages.len());
    store.ack(&bob, last)?;
    println!("acknowledged, {} wait", store.stat(&bob)?.messages);
    assert_eq!(store.stat(&bob)?.messages, u64::from(SENDERS * MESSAGES) - 100);

    // What nobody fetches in its time to live goes by itself.
    clock.advance(day + Duration::from_secs(1));
    println!("a day later {} wait", store.stat(&bob)?.messages);
    assert_eq!(store.stat(&bob)?.messages, 0);
    Ok(())
}
