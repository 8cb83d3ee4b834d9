//! One user of a replay: a device, the application behind it, and its comings and goings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use switchboard_device::{Device, Event, Incoming, Offline, ReceiptState};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::checker::{MessageId, Receipt};
use super::plan::{Leave, Stretches};
use super::run::Run;

/// Longest wait for the connection after a time offline; then the user writes all the same, into
/// the device's outbox.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A user as the rest of the replay sees it.
#[derive(Debug)]
pub(super) struct Person {
    /// The handle of the device.
    pub(super) device: Device,
    /// Whether the user is there to write; not whether the connection happens to stand.
    pub(super) present: watch::Sender<bool>,
    /// Whether the connection stands.
    pub(super) connected: watch::Sender<bool>,
}

/// The application: shows messages, then acknowledges them, and reads what the plan says.
pub(super) async fn use_device(run: Arc<Run>, user: usize, mut events: mpsc::Receiver<Event>) {
    let mut reads: Vec<(Bytes, MessageId)> = Vec::new();
    while let Some(event) = events.recv().await {
        handle(&run, user, event, &mut reads);
        while let Ok(event) = events.try_recv() {
            handle(&run, user, event, &mut reads);
        }
        flush(&run, user, &mut reads);
    }
}

fn handle(run: &Run, user: usize, event: Event, reads: &mut Vec<(Bytes, MessageId)>) {
    let Some(person) = run.people.get(user) else { return };
    match event {
        Event::Online { .. } => {
            run.ledger().online(user, run.now_us());
            person.connected.send_replace(true);
        }
        Event::Offline { reason, replaced, fatal, .. } => {
            run.ledger().offline(user, run.now_us());
            person.connected.send_replace(false);
            if fatal || replaced {
                run.give_up(format!("the device of a user was turned away: {reason}"));
            } else {
                run.last_trouble(reason);
            }
        }
        Event::Message(message) => show(run, user, &message, reads),
        Event::Receipt { message_id, state, by_user, .. } => {
            let state = match state {
                ReceiptState::Delivered => Receipt::Delivered,
                ReceiptState::Read => Receipt::Read,
            };
            run.ledger().receipt(user, &message_id, run.user(&by_user), state, run.now_us());
        }
        // What a send came to is known from its future.
        _ => {}
    }
}

fn show(run: &Run, user: usize, message: &Incoming, reads: &mut Vec<(Bytes, MessageId)>) {
    let from = run.user(&message.from_user);
    let shown = run.ledger().shown(user, &message.message_id, from, &message.body, run.now_us());
    if shown.is_some_and(|shown| shown.read) {
        reads.push((message.from_user.clone(), message.message_id));
    }
    // Only now: had the process died before, the message would come again.
    if let Some(person) = run.people.get(user) {
        person.device.acknowledge(message.seq);
    }
}

fn flush(run: &Run, user: usize, reads: &mut Vec<(Bytes, MessageId)>) {
    let Some(person) = run.people.get(user) else { return };
    // Stable: each sender's messages stay in order.
    reads.sort_by(|a, b| a.0.cmp(&b.0));
    for chunk in reads.chunk_by(|a, b| a.0 == b.0) {
        if let Some((from, _)) = chunk.first() {
            person.device.read(from, chunk.iter().map(|(_, id)| *id).collect());
        }
    }
    reads.clear();
}

/// Comes and goes until `stay` is cancelled, then stays.
pub(super) async fn come_and_go(
    run: Arc<Run>,
    user: usize,
    stretches: Stretches,
    stay: CancellationToken,
) {
    let Some(person) = run.people.get(user) else { return };
    for stretch in stretches {
        if stay.run_until_cancelled(sleep(stretch.online)).await.is_none() {
            break;
        }
        person.present.send_replace(false);
        person
            .device
            .go_offline(match stretch.leave {
                Leave::Clean => Offline::Goodbye,
                Leave::Abrupt => Offline::Drop,
            })
            .await;
        run.ledger().offline(user, run.now_us());
        let awake = stay.run_until_cancelled(sleep(stretch.offline)).await.is_some();
        person.device.go_online();
        let mut connected = person.connected.subscribe();
        // Late or gone: either way the user is back.
        let _ = timeout(CONNECT_WAIT_MAX, connected.wait_for(|connected| *connected)).await;
        person.present.send_replace(true);
        if !awake {
            break;
        }
    }
}
