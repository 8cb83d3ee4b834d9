//! Queues on embedded stores drain the same mailboxes.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{AT_ONCE, MESSAGES_EACH, TOGETHER};
use crate::{
    peers::durable::{Message, Queue, Taken},
    run::Run,
    workload::{BODY_BYTES, user},
};

/// Messages drained a second.
pub(super) fn drain<Q: Queue>(run: &Run, recipients: u64) -> Result<f64> {
    let scratch = run.scratch()?;
    let queue = Q::open(scratch.path())?;
    fill(&queue, recipients)?;
    let started = Instant::now();
    let mut messages = 0;
    for first in (0..recipients).step_by(TOGETHER as usize) {
        let mut taken: Vec<Taken> = Vec::new();
        for n in first..(first + TOGETHER).min(recipients) {
            queue.fetch(&user(n), &mut taken)?;
        }
        queue.ack(&taken)?;
        messages += taken.len() as u64;
    }
    ensure!(messages == recipients * MESSAGES_EACH, "{} gave {messages} messages", Q::NAME);
    Ok(messages as f64 / started.elapsed().as_secs_f64())
}

fn fill<Q: Queue>(queue: &Q, recipients: u64) -> Result<()> {
    let body = [b'x'; BODY_BYTES];
    let messages = recipients * MESSAGES_EACH;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(messages);
        let message =
            |n| Message { to: user(n % recipients), seq: n + 1, expires_at_ms: 0, body: &body };
        queue.enqueue(&numbers.map(message).collect::<Vec<_>>())?;
    }
    Ok(())
}
