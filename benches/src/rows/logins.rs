//! C13: logins, each with a durable claim, and all of a crowd at once.
//!
//! A gateway as a process of its own takes in 15,000 devices of `switchboard bench connections`, plain
//! and with TLS; beside it mosquitto and ejabberd, which record nothing durably. Then `switchboard bench storm`: six
//! gateways with 100,000 devices are killed at once, and the devices come back on six others by the
//! backoff of the device library, while others look users up and send messages.

use anyhow::Result;
use serde::Deserialize;

use super::{Row, connections::hold};
use crate::{
    entry::{Bar, Better, Entry},
    messenger::{Messenger, Transport},
    peers::{mqtt, xmpp},
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C13", title: "logins and storms", measure, probes: &[] };

const LOGINS: u64 = 15_000;
/// As many logins under way as a crowd makes: with few of them the rate would be that of one login's latency.
const LOAD: [&str; 4] = ["--hold", "0", "--opening", "512"];
const STORM_DEVICES: u64 = 100_000;
const STORM_GATEWAYS: &str = "6";
const PEER: &str = "mosquitto, no claim";
/// Of ejabberd, which takes in a tenth as many a second.
const XMPP: u64 = 3_000;

/// What `switchboard bench storm` reports, as far as it is looked at here.
#[derive(Debug, Deserialize)]
struct Storm {
    back_ms: Back,
    missing: u64,
    ghosts: u64,
    lost: u64,
    lookups: Compared,
    messages: Compared,
}

#[derive(Debug, Deserialize)]
struct Back {
    p50: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
struct Compared {
    p99_ratio: Option<f64>,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let count = run.scaled(LOGINS);
    run.say("C13: logins");
    let plain = hold(run, 1, count, Transport::Tcp, &LOAD)?;
    run.say("C13: logins with TLS");
    let tls = hold(run, 1, count, Transport::Tls, &LOAD)?;
    run.say("C13: mosquitto");
    let scratch = run.scratch()?;
    let peer = mqtt::connections(scratch.path(), count as usize)?;
    run.say("C13: ejabberd");
    let scratch = run.scratch()?;
    let xmpp = xmpp::connections(scratch.path(), run.scaled(XMPP) as usize)?;
    let devices = run.scaled(STORM_DEVICES).to_string();
    run.say(format_args!("C13: a storm of {devices}"));
    // The storm starts the gateways itself: it is to kill them.
    let messenger = Messenger::start(run, 0, Transport::Tcp)?;
    let store = messenger.store();
    let storm = ["storm", "--quiet", "--devices", &devices, "--gateways", STORM_GATEWAYS];
    let storm: Storm =
        messenger.bench(&[&storm[..], &["--calm", "8", "--store", &store]].concat())?;
    let per_s = |id: &str, what: &str, value: f64| Entry::new(id, what, value, "1/s", Better::More);
    let none = |id: &str, what: &str, value: u64| {
        Entry::new(id, what, value as f64, "", Better::Less).bar(Bar::AtMost(0.0))
    };
    let ratio = |id: &str, what: &str, compared: &Compared| {
        Entry::new(id, what, compared.p99_ratio.unwrap_or(f64::NAN), "x", Better::Less)
    };
    let seconds = |id: &str, what: &str, ms: f64| Entry::new(id, what, ms / 1e3, "s", Better::Less);
    Ok(vec![
        per_s("C13.plain", "logins with a durable claim", plain.logins_per_second)
            .bar(Bar::AtLeast(12_000.0))
            .peer(PEER, peer.map(|peer| peer.logins_per_second)),
        per_s("C13.plain.xmpp", "the same rate", plain.logins_per_second)
            .peer("ejabberd", xmpp.map(|peer| peer.logins_per_second)),
        per_s("C13.tls", "the same with TLS", tls.logins_per_second).bar(Bar::AtLeast(3_000.0)),
        seconds("C13.storm", "all devices of six dead gateways are back after", storm.back_ms.max)
            .bar(Bar::AtMost(15.0)),
        seconds("C13.storm50", "half of them are", storm.back_ms.p50),
        ratio("C13.lookups", "look-ups of others meanwhile, p99 by calm", &storm.lookups)
            .bar(Bar::AtMost(2.0)),
        ratio("C13.messages", "messages of others meanwhile, p99 by calm", &storm.messages),
        none("C13.missing", "devices that did not come back", storm.missing),
        none("C13.ghosts", "sessions on dead gateways afterwards", storm.ghosts),
        none("C13.lost", "messages lost that were safe", storm.lost),
    ])
}
