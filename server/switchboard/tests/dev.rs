//! `dev` as a user runs it: two people chat, somebody is away, operators look, everything restarts.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use support::{Process, conversations, dev_args, succeed};

struct Dev {
    process: Process,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Dev {
    fn start(data: &Path) -> Dev {
        let mut process = Process::start(dev_args(data));
        let addresses = process.listening();
        Dev { process, addresses }
    }

    fn address(&self, name: &str) -> String {
        self.addresses[name].to_string()
    }

    fn device(&self, who: &str, args: &[&str]) -> Vec<String> {
        let gateway = self.address("gateway-tcp");
        let mut all = vec!["device", "--as", who, "--gateway", &gateway];
        all.extend(args);
        all.into_iter().map(str::to_owned).collect()
    }
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn two_people_chat_and_see_ticks() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(data.path());
    let mut alice = Process::start(dev.device("alice", &["chat", "bob"]));
    let mut bob = Process::start(dev.device("bob", &["chat", "alice"]));
    alice.type_line("hello bob");
    assert_eq!(bob.line_with("hello"), "alice: hello bob");
    alice.line_with("✓✓ read hello bob");
    bob.type_line("hello alice");
    assert_eq!(alice.line_with("hello alice"), "bob: hello alice");
    bob.line_with("✓✓ read hello alice");
    alice.type_line("/quit");
    assert!(alice.wait().success());
}

#[test]
fn what_was_sent_to_somebody_away_waits_in_order_also_through_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(data.path());
    for n in 0..5 {
        let sent = succeed(
            dev.device("alice", &["send", "bob", &format!("message {n}"), "--output", "json"]),
        );
        assert_eq!(json(&sent)["duplicate"], false);
    }
    succeed(dev.device("carol/2", &["send", "bob", ""]));
    assert!(dev.process.terminate().success(), "SIGTERM ends it in order");
    assert!(!data.path().join("addresses.json").exists());

    let dev = Dev::start(data.path());
    let received = succeed(dev.device("bob", &["recv"]));
    let lines: Vec<_> = received.lines().map(json).collect();
    assert_eq!(lines.len(), 6, "{received}");
    for (n, line) in lines.iter().take(5).enumerate() {
        assert_eq!(line["text"], format!("message {n}"));
        assert_eq!(line["from"], "alice");
        assert!(line["seq"].as_u64().is_some() && line["sent_at_ms"].as_u64().is_some());
        assert_eq!(line["message_id"].as_str().map(str::len), Some(36));
    }
    assert_eq!((&lines[5]["text"], &lines[5]["from_device"]), (&"".into(), &2.into()));
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    assert_eq!(succeed(dev.device("bob", &["recv"])), "", "acknowledged messages are gone");
}

#[test]
fn a_websocket_device_gets_what_a_tcp_device_sent() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(data.path());
    let websocket = format!("ws://{}", dev.address("gateway-ws"));
    succeed(dev.device("alice", &["send", "bob", "over two transports"]));
    let received = succeed(["device", "--as", "bob", "--gateway", &websocket, "recv"]);
    assert_eq!(json(&received)["text"], "over two transports");
}

#[test]
fn operators_see_sessions_mailboxes_and_processes() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(data.path());
    let store = dev.address("store-grpc");
    let ask = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--store", &store, "--output", "json"]);
        json(&succeed(all))
    };
    let written = std::fs::read_to_string(data.path().join("addresses.json")).unwrap();
    let written: BTreeMap<String, SocketAddr> = serde_json::from_str(&written).unwrap();
    assert_eq!(written, dev.addresses);

    succeed(dev.device("alice", &["send", "bob", "hello"]));
    assert_eq!(ask(&["mailbox", "stat", "bob"])["messages"], 1);
    let peeked = ask(&["mailbox", "peek", "bob"]);
    assert_eq!(peeked[0]["from"], "alice");
    assert_eq!(ask(&["session", "locate", "bob"])["sessions"].as_array().map(Vec::len), Some(0));
    let mut bob = Process::start(dev.device("bob", &["recv", "--follow"]));
    bob.line_with("hello");
    let located = ask(&["session", "locate", "bob"]);
    assert_eq!(located["sessions"][0]["device"], 1, "{located}");
    let processes = ask(&["gateway-ctl", "list"]);
    let kinds: Vec<_> = processes.as_array().unwrap().iter().map(|p| p["kind"].clone()).collect();
    assert_eq!(kinds, ["gateway", "chat"], "{processes}");
    assert!(bob.terminate().code().is_some() || !bob.is_running());

    succeed(dev.device("alice", &["send", "carol", "unwanted"]));
    assert_eq!(ask(&["mailbox", "purge", "carol", "--reason", "test"])["messages"], 1);
    assert_eq!(ask(&["mailbox", "stat", "carol"])["messages"], 0);
}

#[test]
fn a_small_replay_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(data.path());
    let file = data.path().join("conversations.jsonl");
    conversations(&file, 12, 30, 20);
    let gateway = dev.address("gateway-tcp");
    let websocket = format!("ws://{}", dev.address("gateway-ws"));
    let report = succeed([
        "bench",
        "replay",
        file.to_str().unwrap(),
        "--gateway",
        &format!("{gateway},{websocket}"),
        "--speedup",
        "20",
        "--offline-mean",
        "1",
        "--output",
        "json",
        "--quiet",
    ]);
    let report = json(&report);
    assert_eq!(report["messages"], 600, "{report}");
    for (field, wanted) in [
        ("accepted", 600),
        ("delivered", 600),
        ("lost", 0),
        ("out_of_order", 0),
        ("shown_twice", 0),
        ("body_mismatches", 0),
        ("receipts_delivered", 600),
        ("receipts_delivered_missing", 0),
        ("receipts_read_missing", 0),
    ] {
        assert_eq!(report[field], wanted, "{field}: {report}");
    }
    assert!(report["receipts_read"].as_u64() > Some(0), "{report}");
}
