//! C12: idle connections, and what each costs.
//!
//! A gateway as a process of its own holds 15,000 connections of `switchboard bench connections`,
//! plain and then with TLS; its resident memory is read before and after. Then as many as the machine
//! should hold, a million, over 56 gateways: each must have its Welcome and be found by a look-up, and a
//! thousand of them, chosen at random, send each other a message. Devices say that they live every ten
//! minutes. Beside it mosquitto and ejabberd.

use anyhow::Result;
use serde::Deserialize;

use super::Row;
use crate::{
    entry::{Bar, Better, Entry},
    messenger::{Messenger, Transport},
    peers::{mqtt, xmpp},
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C12", title: "connections", measure, probes: &[] };

const EACH: u64 = 15_000;
/// Below the limit of 20,000 files a process.
const PER_GATEWAY: u64 = 18_000;
const GATEWAYS: u64 = 56;
const MANY: u64 = 1_000_000;
const TALK: u64 = 1_000;
const PEER: &str = "mosquitto";
/// Of ejabberd, whose connections take some fifty times as much.
const XMPP: u64 = 3_000;

/// What `switchboard bench connections` reports, as far as it is looked at here.
#[derive(Debug, Deserialize)]
pub(super) struct Held {
    pub(super) connections: u64,
    pub(super) logins_per_second: f64,
    bytes_per_connection: Option<f64>,
    kernel_bytes_per_connection: Option<f64>,
    located: Option<u64>,
    talked: Option<Talked>,
}

#[derive(Debug, Deserialize)]
struct Talked {
    arrived: u64,
    p99_ms: f64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    run.say("C12: plain");
    let plain = hold(run, 1, run.scaled(EACH), Transport::Tcp, &[])?;
    run.say("C12: TLS");
    let tls = hold(run, 1, run.scaled(EACH), Transport::Tls, &[])?;
    run.say("C12: mosquitto");
    let scratch = run.scratch()?;
    let peer = mqtt::connections(scratch.path(), run.scaled(EACH) as usize)?;
    run.say("C12: ejabberd");
    let scratch = run.scratch()?;
    let xmpp = xmpp::connections(scratch.path(), run.scaled(XMPP) as usize)?;
    let (many, gateways) = (run.scaled(MANY), run.scaled(GATEWAYS).max(1));
    run.say(format_args!("C12: {many} over {gateways} gateways"));
    let talk = TALK.to_string();
    let many = many.min(gateways * PER_GATEWAY);
    let many = hold(run, gateways, many, Transport::Tcp, &["--locate", "--talk", &talk])?;
    let bytes = |id: &str, what: &str, held: &Held| {
        let value = held.bytes_per_connection.unwrap_or(f64::NAN);
        Entry::new(id, what, value, "B", Better::Less)
    };
    let kernel = many.kernel_bytes_per_connection.unwrap_or(f64::NAN);
    let talked = many.talked.as_ref();
    let count = |id: &str, what: &str, value: u64, bar: u64| {
        let entry = Entry::new(id, what, value as f64, "", Better::More);
        entry.bar(Bar::AtLeast(bar as f64))
    };
    Ok(vec![
        bytes("C12.plain", "resident memory of the gateway, an idle connection", &plain)
            .bar(Bar::AtMost(1_200.0))
            .peer(PEER, peer.map(|peer| peer.bytes_each)),
        bytes("C12.plain.xmpp", "the same", &plain)
            .peer("ejabberd", xmpp.map(|peer| peer.bytes_each)),
        bytes("C12.tls", "the same with TLS", &tls).bar(Bar::AtMost(5_000.0)),
        count("C12.many", "connections held at once", many.connections, run.scaled(MANY)),
        count(
            "C12.found",
            "of them found by look-ups",
            many.located.unwrap_or(0),
            many.connections,
        ),
        bytes("C12.many.each", "resident memory of all gateways, a connection", &many),
        Entry::new(
            "C12.kernel",
            "slab memory, both ends of a connection",
            kernel,
            "B",
            Better::Less,
        ),
        count(
            "C12.talk",
            "messages that arrived among a thousand of them",
            talked.map_or(0, |talked| talked.arrived),
            TALK,
        ),
        Entry::new(
            "C12.talk.p99",
            "how long these took, p99",
            talked.map_or(f64::NAN, |talked| talked.p99_ms),
            "ms",
            Better::Less,
        ),
    ])
}

/// Holds connections over so many gateways.
pub(super) fn hold(
    run: &Run,
    gateways: u64,
    count: u64,
    transport: Transport,
    more: &[&str],
) -> Result<Held> {
    let messenger = Messenger::start(run, gateways as usize, transport)?;
    let (store, urls) = (messenger.store(), messenger.gateways()?);
    let pids: Vec<String> = messenger.gateway_pids().iter().map(ToString::to_string).collect();
    let (count, pids) = (count.to_string(), pids.join(","));
    let servers = ["--store", &store, "--gateway", &urls, "--pid", &pids];
    // A few first, so that what is made once is there already.
    let few = ["connections", "--count", "200", "--prefix", "few", "--hold", "1"];
    let _: Held = messenger.bench(&[&few[..], &servers].concat())?;
    let load = ["connections", "--count", &count];
    messenger.bench(&[&load[..], &servers, more].concat())
}
