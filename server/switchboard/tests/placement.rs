//! The operator's commands on a cluster of real processes: it grows by a plan, shrinks by a drain, and says
//! what would be lost where it refuses.

mod support;

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use support::server::{Server, addresses, cluster};
use support::{Process, run, succeed, text};

const SHARDS: u32 = 2;

/// A cluster, as operators name it.
struct Operated {
    stores: Vec<Server>,
    at: String,
    random: StdRng,
}

impl Operated {
    fn start(dir: &Path, seed: u64) -> Operated {
        let mut random = StdRng::seed_from_u64(seed);
        let stores = cluster(dir, SHARDS, &mut random);
        Operated { at: addresses(&stores), stores, random }
    }

    /// One node more.
    fn add(&mut self, dir: &Path, node: u64) {
        let (data, id) = (dir.join(format!("store-{node}")), node.to_string());
        let fixed = ["--node-id", &id, "--data", &data.display().to_string()];
        let store = Server::start("store", &fixed, &["--listen", "--http"], &mut self.random);
        self.stores.push(store);
        let address = self.address(node);
        for (zone, state) in [("nowhere", "added"), ("elsewhere", "updated")] {
            let changed = self.json(&["node", "add", &id, &address, "--zone", zone]);
            assert_eq!(changed["state"], state, "{changed}");
        }
        self.stores.last_mut().expect("pushed").process.ready();
    }

    fn address(&self, node: u64) -> String {
        self.stores[node as usize - 1].address("--listen")
    }

    /// What a command that succeeds prints for programs.
    fn json(&self, args: &[&str]) -> Value {
        let out = succeed([args, &["--store", &self.at, "--output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// The same of one that prints an object a line.
    fn events(&self, args: &[&str]) -> Vec<Value> {
        let out = succeed([args, &["--store", &self.at, "--output", "json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    /// Waits for the shard list, which follows on its own.
    fn until_replicas(&self, shard: usize, wanted: [u64; 3]) {
        support::until("the list shows the replicas", || {
            let mut replicas = self.replicas(shard);
            replicas.sort_unstable();
            replicas == wanted
        });
    }

    /// A command that is refused says why, and what to do.
    fn refused(&self, args: &[&str], words: &[&str]) {
        let output = run([args, &["--store", &self.at]].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{args:?}: `{word}` is missing: {errors}");
        }
    }

    /// The nodes that have a replica of a shard.
    fn replicas(&self, shard: usize) -> Vec<u64> {
        let shards = self.json(&["shard", "list"]);
        let replicas = shards[shard]["replicas"].as_array().expect("a list");
        replicas.iter().map(|replica| replica["node_id"].as_u64().expect("an id")).collect()
    }
}

#[test]
fn a_cluster_grows_by_a_plan_and_shrinks_by_a_drain() {
    let dir = tempfile::tempdir().unwrap();
    let mut operated = Operated::start(dir.path(), 11);
    let balanced = operated.json(&["shard", "plan"]);
    assert_eq!(balanced["moves"].as_array().map(Vec::len), Some(0));
    operated.refused(&["node", "drain", "2"], &["NOWHERE_TO_GO", "node add"]);
    operated.refused(&["node", "remove", "2"], &["HAS_REPLICAS", "less to survive with"]);
    operated.refused(&["shard", "move", "0", "--from", "1", "--to", "2"], &["HAS_REPLICA"]);
    operated.refused(&["shard", "abort", "0"], &["were not taken back"]);

    operated.add(dir.path(), 4);
    let plan = dir.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    let planned = operated.json(&["shard", "plan", "--output-file", plan]);
    let moves = planned["moves"].as_array().map_or(0, Vec::len);
    assert!(moves > 0, "{planned}");
    let events = operated.events(&["shard", "apply", plan]);
    let end = events.last().expect("an end");
    assert_eq!((&end["event"], &end["done"]), (&"end".into(), &moves.into()), "{events:?}");
    assert_eq!(events.iter().filter(|event| event["event"] == "ended").count(), moves);
    operated.refused(&["shard", "apply", plan], &["PLACEMENT_MOVED_ON", "shard plan"]);

    // Node 4 has no replica of some shard: those come from the others.
    let file = dir.path().join("backup.sbb");
    let file = file.to_str().unwrap();
    let lacks = (0..SHARDS as usize).any(|shard| !operated.replicas(shard).contains(&4));
    assert!(lacks, "every shard has a replica on node 4");
    succeed(["backup", "create", file, "--store", &operated.address(4)]);
    let verified = succeed(["backup", "verify", file, "--output", "json"]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["groups"].as_array().map(Vec::len), Some(SHARDS as usize + 1));

    let events = operated.events(&["node", "drain", "1", "--wait"]);
    assert_eq!(events.last().map(|end| &end["state"]), Some(&"empty".into()), "{events:?}");
    for shard in 0..SHARDS as usize {
        operated.until_replicas(shard, [2, 3, 4]);
    }
    operated.json(&["node", "remove", "1"]);
    assert!(operated.stores[0].process.terminate().success(), "it ends in order");
    operated.at = addresses(&operated.stores[1..]);
    let nodes = operated.json(&["node", "list"]);
    let ids: Vec<_> = nodes.as_array().unwrap().iter().map(|node| &node["node_id"]).collect();
    assert_eq!(ids, [2, 3, 4], "{nodes}");
    assert_eq!(nodes[2]["zone"], "elsewhere");
    operated.refused(&["node", "remove", "9"], &["UNKNOWN_NODE"]);
    // A shard whose leader has just gone may be about to elect another.
    for all_is_well in [["cluster", "status"], ["shard", "compare"]] {
        let args = [&all_is_well[..], &["--store", &operated.at]].concat();
        support::until("all is well", || run(&args).status.success());
    }
}

#[test]
fn who_follows_a_move_may_go_and_the_move_is_taken_back_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut operated = Operated::start(dir.path(), 12);
    operated.add(dir.path(), 4);
    operated.stores[3].kill();
    let args = ["shard", "move", "0", "--from", "1", "--to", "4", "--output", "json", "--store"];
    let mut following = Process::start([&args[..], &[&operated.at]].concat());
    following.line_with("\"event\":\"move\"");
    following.interrupt();
    assert_eq!(following.wait().code(), Some(1));
    let errors = following.errors();
    for words in ["the moves go on", "shard list", "shard abort"] {
        assert!(errors.contains(words), "`{words}` is missing: {errors}");
    }
    assert_eq!(operated.json(&["shard", "list"])[0]["move"]["to"], 4);
    operated.refused(
        &["shard", "move", "0", "--from", "2", "--to", "4"],
        &["MOVE_UNDER_WAY", "shard list"],
    );
    let aborted = operated.json(&["shard", "abort"]);
    assert_eq!(aborted[0]["aborted"], true, "{aborted}");
    support::until("the move is undone", || operated.json(&["shard", "list"])[0]["move"].is_null());
    operated.until_replicas(0, [1, 2, 3]);
}

#[test]
fn what_is_no_plan_is_used_wrongly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    std::fs::write(&path, "{\"moves\": []}").unwrap();
    let output = run(["shard", "apply", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("shard plan --output-file"), "{}", text(&output.stderr));
    let output = run(["shard", "move", "0", "--from", "1", "--to", "1"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_cluster_says_what_it_can_do_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = ["store", "--single", "--shards", "2", "--listen", "127.0.0.1:0"];
    let more = ["--http", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let mut store = Process::start([&args[..], &more].concat());
    let at = store.listening()["store-grpc"].to_string();
    let check = ["cluster", "check", "perf", "--rate", "100", "--seconds", "0.5"];
    let report = succeed([&check[..], &["--output", "json", "--store", &at]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["nodes"][0]["sync_ms"]["p50"].as_f64() > Some(0.0), "{report}");
    let load = report["load"].as_array().expect("a list");
    assert_eq!(load.len(), 3, "{report}");
    for measured in load {
        assert!(measured["items_per_s"].as_f64() > Some(0.0), "{measured}");
    }
    let shards = succeed(["shard", "list", "--output", "json", "--store", &at]);
    let shards: Value = serde_json::from_str(&shards).unwrap();
    let left = shards.as_array().unwrap().iter().map(|shard| shard["messages"].as_u64());
    assert_eq!(left.map(Option::unwrap).sum::<u64>(), 0, "{shards}");
    assert!(!data.join("probe").exists());
}
