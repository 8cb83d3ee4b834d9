//! Redis drains the same mailboxes.

use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};

use super::{AT_ONCE, MESSAGES_EACH, TOGETHER};
use crate::{
    peers::redis::{Client, Redis, Value},
    run::Run,
    workload::{BODY_BYTES, user},
};

/// Messages drained a second; `None` when it is not installed.
pub(super) fn drain(run: &Run, recipients: u64) -> Result<Option<f64>> {
    let scratch = run.scratch()?;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Redis::start(scratch.path(), &options)? else { return Ok(None) };
    let mut clients: Vec<Client> = (0..TOGETHER).map(|_| server.client()).collect::<Result<_>>()?;
    fill(&mut clients[0], recipients)?;
    let started = Instant::now();
    let mut messages = 0;
    for first in (0..recipients).step_by(TOGETHER as usize) {
        let streams: Vec<Vec<u8>> =
            (first..(first + TOGETHER).min(recipients)).map(stream).collect();
        messages += drain_streams(&mut clients, &streams)?;
    }
    ensure!(messages == recipients * MESSAGES_EACH, "Redis gave {messages} messages");
    Ok(Some(messages as f64 / started.elapsed().as_secs_f64()))
}

fn stream(n: u64) -> Vec<u8> {
    [b"q:".as_slice(), &user(n)].concat()
}

fn fill(client: &mut Client, recipients: u64) -> Result<()> {
    let body = [b'x'; BODY_BYTES];
    let messages = recipients * MESSAGES_EACH;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(messages);
        for n in numbers.clone() {
            client.push(&[b"XADD", &stream(n % recipients), b"*", b"m", &body])?;
        }
        client.flush()?;
        numbers.clone().try_for_each(|_| client.answer().map(drop))?;
    }
    Ok(())
}

/// One stream a connection: all read, then all delete what they read.
fn drain_streams(clients: &mut [Client], streams: &[Vec<u8>]) -> Result<u64> {
    for (client, stream) in clients.iter_mut().zip(streams) {
        client.push(&[b"XRANGE", stream, b"-", b"+", b"COUNT", b"100"])?;
        client.flush()?;
    }
    let mut messages = 0;
    for (client, stream) in clients.iter_mut().zip(streams) {
        let ids = ids_of(client.answer()?)?;
        let mut command: Vec<&[u8]> = vec![b"XDEL", stream];
        command.extend(ids.iter().map(Vec::as_slice));
        client.push(&command)?;
        client.flush()?;
        messages += ids.len() as u64;
    }
    for (client, _) in clients.iter_mut().zip(streams) {
        client.answer()?;
    }
    Ok(messages)
}

fn ids_of(page: Value) -> Result<Vec<Vec<u8>>> {
    let Value::List(entries) = page else { bail!("XRANGE gave no list") };
    let id = |entry| match entry {
        Value::List(parts) => match parts.into_iter().next() {
            Some(Value::Bytes(id)) => Ok(id),
            _ => Err(anyhow!("an entry without an id")),
        },
        _ => Err(anyhow!("XRANGE gave something that is no entry")),
    };
    entries.into_iter().map(id).collect()
}
