//! C11: messages from device to device, each durable before its sender is told.
//!
//! A store node, a chat and a gateway as processes of their own; `switchboard bench message` as
//! another, with 2,000 devices that are online and acknowledge what they get, delivered receipts
//! included. Closed loop with 16 messages under way a device, then 2,000 messages a second whatever the
//! answers. Growth: a quarter and four times as many devices with as many messages under way in all.
//! Beside it mosquitto with QoS 1, which makes nothing durable and sends no receipts, and ejabberd, whose clients send
//! receipts, and which makes nothing durable either.

use std::time::Duration;

use anyhow::Result;

use super::Row;
use crate::{
    cluster::LoadReport,
    entry::{Bar, Better, Entry},
    messenger::{Messenger, Transport},
    peers::{mqtt, talk, xmpp},
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C11", title: "end to end", measure, probes: &[] };

const SECONDS: u64 = 8;
const DEVICES: u64 = 2_000;
/// Messages under way over all devices.
const UNDER_WAY: u64 = 32_000;
const OPEN_RATE: u64 = 2_000;
const PEER: &str = "mosquitto QoS 1, not durable";
const XMPP: &str = "ejabberd with receipts, not durable";

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1);
    let (less, ours, more) = (
        closed(run, DEVICES / 4, seconds)?,
        closed(run, DEVICES, seconds)?,
        closed(run, DEVICES * 4, seconds)?,
    );
    run.say("C11: open loop");
    let rate = OPEN_RATE.to_string();
    let open = message(run, DEVICES, seconds, &["--in-flight", "4", "--rate", &rate])?;
    run.say("C11: mosquitto");
    let scratch = run.scratch()?;
    let (clients, each) = (DEVICES as usize, (UNDER_WAY / DEVICES) as usize);
    let peer = mqtt::messages(scratch.path(), clients, each, Duration::from_secs(seconds))?;
    run.say("C11: ejabberd");
    let scratch = run.scratch()?;
    let xmpp = xmpp::messages(scratch.path(), clients, each, Duration::from_secs(seconds))?;
    Ok(entries(&less, &ours, &more, &open, [peer, xmpp]))
}

/// With as many messages under way however many devices there are.
fn closed(run: &Run, devices: u64, seconds: u64) -> Result<LoadReport> {
    run.say(format_args!("C11: {devices} devices"));
    message(run, devices, seconds, &["--in-flight", &(UNDER_WAY / devices).to_string()])
}

fn message(run: &Run, devices: u64, seconds: u64, more: &[&str]) -> Result<LoadReport> {
    let messenger = Messenger::start(run, 1, Transport::Tcp)?;
    let (store, gateways) = (messenger.store(), messenger.gateways()?);
    let pids: Vec<String> = messenger.pids().iter().map(ToString::to_string).collect();
    let (devices, seconds, pids) = (devices.to_string(), seconds.to_string(), pids.join(","));
    let load =
        ["message", "--quiet", "--warmup", "3", "--devices", &devices, "--seconds", &seconds];
    let servers = ["--store", &store, "--gateway", &gateways, "--pid", &pids];
    messenger.bench(&[&load[..], &servers, more].concat())
}

fn entries(
    less: &LoadReport,
    ours: &LoadReport,
    more: &LoadReport,
    open: &LoadReport,
    [peer, xmpp]: [Option<talk::Messages>; 2],
) -> Vec<Entry> {
    let cpu = |report: &LoadReport| report.server_cpu_us_per_item.unwrap_or(0.0);
    let costs = [less, ours, more].map(cpu);
    let growth = costs.iter().copied().fold(0.0, f64::max) / costs[1];
    let ms = |id: &str, what: &str, ms: f64| Entry::new(id, what, ms, "ms", Better::Less);
    vec![
        Entry::new(
            "C11.rate",
            "messages of 256 B from device to device, durable, with receipts",
            ours.items_per_s,
            "1/s",
            Better::More,
        )
        .bar(Bar::AtLeast(60_000.0))
        .peer(PEER, peer.map(|peer| peer.per_second)),
        Entry::new(
            "C11.cpu",
            "CPU of gateway, chat and store a message",
            cpu(ours),
            "us",
            Better::Less,
        )
        .bar(Bar::AtMost(25.0))
        .peer(PEER, peer.map(|peer| peer.cpu_us)),
        Entry::new("C11.rate.xmpp", "the same rate", ours.items_per_s, "1/s", Better::More)
            .peer(XMPP, xmpp.map(|peer| peer.per_second)),
        Entry::new("C11.cpu.xmpp", "the same CPU", cpu(ours), "us", Better::Less)
            .peer(XMPP, xmpp.map(|peer| peer.cpu_us)),
        ms("C11.open50", "2,000 messages a second, p50", open.latency_ms.p50).bar(Bar::AtMost(1.0)),
        ms("C11.open99", "2,000 messages a second, p99", open.latency_ms.p99).bar(Bar::AtMost(4.0)),
        Entry::new("C11.growth", "CPU at 1/4 and 4 x the devices", growth, "x", Better::Less)
            .bar(Bar::AtMost(1.5)),
    ]
}
