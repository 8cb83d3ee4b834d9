//! What operators are told while nodes are away: which, and what still works.

mod support;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use support::server::{Server, addresses, cluster};
use support::{run, succeed, text};

/// What a command says that fails.
fn fails(args: &[&str]) -> String {
    let output = run(args);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
    errors
}

#[test]
fn two_of_three_nodes_are_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = cluster(dir.path(), 2, &mut StdRng::seed_from_u64(21));
    let all = addresses(&stores);
    stores[0].kill();
    let compared = run(["shard", "compare", "--store", &all, "--output", "json"]);
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!(compared[0]["outcome"], "unknown", "{compared}");
    assert_eq!(compared[0]["replicas"][0]["reachable"], false, "{compared}");
    assert_eq!(compared[0]["replicas"][1]["reachable"], true, "{compared}");
    stores[1].kill();

    let local = ["session", "locate", "bob", "--read", "local", "--store"];
    for at in [&all, &stores[2].address("--listen")] {
        let located = succeed([&local[..], &[at]].concat());
        assert!(located.contains("offline") && located.contains("ms old"), "{located}");
    }
    let nodes = succeed(["node", "list", "--store", &all, "--output", "json"]);
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let away = (&nodes[0]["reachable"], &nodes[0]["replicas"], &nodes[0]["log_bytes"]);
    assert_eq!(away, (&false.into(), &2.into(), &Value::Null), "{nodes}");
    assert!(nodes[2]["uptime_ms"].as_u64() > Some(0), "{nodes}");
    let status = fails(&["cluster", "status", "--store", &all]);
    assert!(status.contains("nodes [1, 2] cannot be reached, shards [0, 1]"), "{status}");
    for args in [
        &["mailbox", "purge", "bob", "--reason", "test"][..],
        &["shard", "move", "0", "--from", "1", "--to", "4"],
    ] {
        let errors = fails(&[args, &["--store", &all]].concat());
        assert!(errors.contains("cluster status"), "{args:?}: {errors}");
        assert!(!errors.contains("may or may not"), "{args:?}: {errors}");
    }
}

#[test]
fn a_node_that_waits_for_its_cluster_is_told_from_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let fixed = ["--data", data.to_str().unwrap()];
    let random = &mut StdRng::seed_from_u64(22);
    let store = Server::start("store", &fixed, &["--listen", "--http"], random);
    let at = store.address("--listen");
    for command in
        [["node", "list"], ["cluster", "status"], ["shard", "list"], ["shard", "compare"]]
    {
        let errors = fails(&[&command[..], &["--store", &at]].concat());
        assert!(errors.contains("waits for its cluster"), "{command:?}: {errors}");
        assert!(errors.contains("cluster init"), "{command:?}: {errors}");
    }
}
