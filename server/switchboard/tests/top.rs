//! `top` without a terminal: one sample of a whole messenger, for people and for programs.

mod support;

use support::{Process, command, dev_args, run, succeed, text};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn one_sample_shows_what_there_is() {
    let data = tempfile::tempdir().unwrap();
    let mut dev = Process::start(dev_args(data.path()));
    let addresses = dev.listening();
    let store = addresses["store-grpc"].to_string();
    let gateway = addresses["gateway-tcp"].to_string();
    for to in ["bob", "bob", "carol"] {
        succeed(["device", "--as", "alice", "--gateway", &gateway, "send", to, "hello"]);
    }
    let mut dora =
        Process::start(["device", "--as", "dora", "--gateway", &gateway, "recv", "--follow"]);
    support::until("dora is connected", || {
        let locate = ["session", "locate", "dora", "--store", &store, "--output", "json"];
        json(&succeed(locate))["sessions"][0]["device"] == 1
    });

    let once = ["top", "--once", "--store", &store, "--output", "json"];
    let sample = json(&succeed(once));
    let totals = &sample["totals"];
    assert_eq!((&totals["nodes"], &totals["nodes_up"]), (&1.into(), &1.into()), "{totals}");
    assert_eq!(totals["shards"], totals["shards_with_leader"], "{totals}");
    assert_eq!(totals["messages"], 3, "{totals}");
    assert!(totals["message_bytes"].as_u64() > Some(0), "{totals}");
    assert_eq!(totals["moves"], 0, "{totals}");
    assert_eq!(totals["alarms"].as_array().map(Vec::len), Some(0), "{totals}");

    let shards = sample["shards"].as_array().unwrap();
    let sum = |key: &str| shards.iter().map(|shard| shard[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("messages"), 3);
    assert_eq!(sum("sessions"), totals["sessions"].as_u64().unwrap());
    assert_eq!(sum("sessions"), 1, "{sample}");
    let node = &sample["nodes"][0];
    assert_eq!((&node["reachable"], &node["state"]), (&true.into(), &"active".into()), "{node}");
    assert_eq!(node["leads"].as_u64(), Some(shards.len() as u64), "{node}");
    assert_eq!(node["messages_led"], 3, "{node}");
    let kinds: Vec<_> = sample["gateways"].as_array().unwrap().iter().map(|p| &p["kind"]).collect();
    assert_eq!(kinds, ["gateway", "chat"], "{sample}");
    assert_eq!(sample["moves"].as_array().map(Vec::len), Some(0));

    // Here standard output is no terminal.
    let output = run(["top", "--store", &store]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("standard output is no terminal"));
    let table = text(&output.stdout);
    assert!(table.contains("nodes up") && table.contains("active"), "{table}");
    assert!(table.contains("leader") && table.contains("chat"), "{table}");
    dora.terminate();
}

#[test]
fn one_sample_of_a_store_that_is_away_fails_and_says_what_to_do() {
    // Port 1 of loopback: nobody listens there without being root.
    let output = run(["top", "--once", "--store", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("switchboard dev"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn an_interval_beyond_its_bounds_is_wrong_use() {
    for interval in ["0", "0.01", "3601", "soon"] {
        let output = command(["top", "--interval", interval]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{interval}: {}", text(&output.stderr));
    }
}
