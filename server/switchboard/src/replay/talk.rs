//! One conversation of a replay: its messages in order, with their pauses.
//!
//! Within a turn the next message does not wait for the one before it to be accepted, as people
//! type on; so several are in flight, and their order is worth checking. When the other side takes
//! its turn, all before it are accepted. Nobody writes while away.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use switchboard_device::{Outgoing, SendError, new_message_id};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::plan::Timing;
use super::run::Run;
use crate::limits::TURN_IN_FLIGHT_MAX;

/// Sends one conversation's messages, of which the first is message `first` of the plan.
pub(super) async fn talk(run: Arc<Run>, conversation: usize, first: usize, timing: Timing) {
    let Some(messages) = run.corpus.conversations.get(conversation).map(|c| &c.messages) else {
        return;
    };
    sleep(timing.start).await;
    let mut speaker = None;
    let mut pending: VecDeque<JoinHandle<()>> = VecDeque::new();
    for (n, (message, pause)) in messages.iter().zip(timing.pauses).enumerate() {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let keep = if speaker == Some(message.from) { TURN_IN_FLIGHT_MAX - 1 } else { 0 };
        settle(&mut pending, keep).await;
        speaker = Some(message.from);
        let Some(person) = run.people.get(message.from) else { return };
        // An error would mean that the person is gone, which outlives every conversation.
        let _ = person.present.subscribe().wait_for(|present| *present).await;
        pending.push_back(hand_over(&run, first + n, message.from, message.to, &message.text));
    }
    settle(&mut pending, 0).await;
}

async fn settle(pending: &mut VecDeque<JoinHandle<()>>, keep: usize) {
    while pending.len() > keep {
        let Some(oldest) = pending.pop_front() else { return };
        // A panic in it is a bug of the replay and ends it there.
        oldest.await.expect("recording an answer does not panic");
    }
}

fn hand_over(run: &Arc<Run>, index: usize, from: usize, to: usize, text: &str) -> JoinHandle<()> {
    let message_id = new_message_id();
    let outgoing = Outgoing {
        message_id,
        to_user: run.names.get(to).cloned().unwrap_or_default(),
        to_device: 0,
        ttl_ms: 0,
        body: Bytes::copy_from_slice(text.as_bytes()),
    };
    let device = run.people.get(from).map(|person| person.device.clone());
    let answer = {
        // Both under the lock: the order that the checker expects is the order of the outbox.
        let mut ledger = run.ledger();
        ledger.handed_over(index, message_id, run.now_us());
        device.map(|device| device.send(outgoing))
    };
    let run = Arc::clone(run);
    tokio::spawn(async move {
        let Some(answer) = answer else { return };
        match answer.await {
            Ok(_) => run.ledger().accepted(index, run.now_us()),
            // The replay ends; the message is found unaccepted.
            Err(SendError::Closed) => {}
            Err(error) => run.ledger().refused(index, &error.to_string()),
        }
    })
}
