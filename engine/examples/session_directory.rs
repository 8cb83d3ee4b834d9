//! Who is connected where: four gateways claim devices at once, and the newest claim of a device wins.
//!
//! `cargo run --release -p switchboard-engine --example session_directory`

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use switchboard_engine::{DeviceId, Options, Store};

const GATEWAYS: u32 = 4;
const USERS: u64 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Options::default())?;

    // Every gateway claims every user, so all but one of them lose each. Each claim is durable when it
    // returns; the threads share their syncs.
    let replaced = AtomicUsize::new(0);
    thread::scope(|scope| {
        for gateway in 1..=GATEWAYS {
            let (store, replaced) = (&store, &replaced);
            scope.spawn(move || {
                for n in 0..USERS {
                    let device = DeviceId::new(format!("user-{n}"), 1);
                    let claim = store.claim(&device, gateway, n).expect("a claim");
                    replaced.fetch_add(usize::from(claim.replaced.is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    let replaced = replaced.into_inner();
    println!("{} sessions, {replaced} were replaced", store.stats().sessions);
    assert_eq!(replaced as u64, u64::from(GATEWAYS - 1) * USERS);

    // The epoch fences what an older connection still tries.
    let device = DeviceId::new("user-7", 1);
    let old = store.claim(&device, 1, 700)?;
    let new = store.claim(&device, 2, 701)?;
    println!("user-7 moved from gateway 1 to gateway 2");
    assert!(!store.release(&device, old.epoch)?, "the session of gateway 2 stays");

    // After a restart everybody is where he was.
    drop(store);
    let store = Store::open(dir.path(), Options::default())?;
    let located = store.locate(b"user-7");
    println!("after a restart user-7 is at gateway {}", located.sessions[0].gateway_id);
    assert_eq!(located.sessions[0].epoch, new.epoch);
    Ok(())
}
