//! Conversations are replayed through a cluster of three store processes, of which one at random is
//! killed with SIGKILL and restarted every few seconds. At the end nothing is lost, out of order or
//! shown twice, and the replicas' state hashes are equal.
//!
//! How long is chosen by the environment (`scripts/replay-cluster` sets it):
//! `SWITCHBOARD_TEST_RESTARTS` every so many kills, the next node in turn is restarted in order instead
//! (0: never); `SWITCHBOARD_TEST_KILLS` kills and restarts (3), `SWITCHBOARD_TEST_KILL_EVERY_MS` mean time between two (4,000),
//! `SWITCHBOARD_TEST_REPLAY_FILE` conversations instead of generated ones,
//! `SWITCHBOARD_TEST_REPLAY_ARGS` more arguments of `bench replay`.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::server::{Server, addresses, cluster, environment};
use support::{Process, conversations, text};

fn corpus(dir: &Path, kills: usize) -> PathBuf {
    if let Some(path) = std::env::var_os("SWITCHBOARD_TEST_REPLAY_FILE") {
        return path.into();
    }
    let path = dir.join("conversations.jsonl");
    // A message takes 0.7 to 1.1 s: half a second's pause, and whoever is offline is waited for. With
    // its restart, a kill takes about six.
    conversations(&path, 40, 80, 24 + 8 * kills);
    path
}

#[test]
fn nothing_is_lost_while_store_nodes_are_killed() {
    let seed = environment("SWITCHBOARD_TEST_SEED", u64::from(std::process::id()));
    let kills_wanted: usize = environment("SWITCHBOARD_TEST_KILLS", 3);
    let every_ms: u64 = environment("SWITCHBOARD_TEST_KILL_EVERY_MS", 4_000);
    let restarts: usize = environment("SWITCHBOARD_TEST_RESTARTS", 0);
    eprintln!("seed {seed} (SWITCHBOARD_TEST_SEED)");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut stores = cluster(dir.path(), 4, &mut random);
    let at = addresses(&stores);
    let chat = ["--store", &at, "--name", "chat-1"];
    let mut chat = Server::start("chat", &chat, &["--listen", "--http"], &mut random);
    let gateway = ["--store", &at, "--name", "gateway-1"];
    let listen = ["--listen", "--listen-tcp", "--listen-ws", "--http"];
    let mut gateway = Server::start("gateway", &gateway, &listen, &mut random);
    chat.process.ready();
    gateway.process.ready();

    let report_path = dir.path().join("report.json");
    let mut replay = support::command(["bench", "replay"]);
    replay.arg(corpus(dir.path(), kills_wanted));
    replay.args(["--gateway", &gateway.address("--listen-tcp"), "--offline-mean", "2"]);
    replay.args(["--drain-timeout", "120", "--seed", &seed.to_string()]);
    replay.arg("--json").arg(&report_path);
    let more: String = environment("SWITCHBOARD_TEST_REPLAY_ARGS", "--speedup 2".to_owned());
    replay.args(more.split_whitespace());
    let mut replay = Process::spawn(&mut replay);

    let (started, mut kills) = (Instant::now(), 0);
    while replay.is_running() {
        let due = Duration::from_millis(every_ms).mul_f64(random.random_range(0.5..1.5));
        let until = Instant::now() + due;
        while replay.is_running() && (Instant::now() < until || kills == kills_wanted) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if replay.is_running() {
            kills += 1;
            let (victim, how) = if restarts > 0 && kills % restarts == 0 {
                let next = kills / restarts % stores.len();
                assert!(stores[next].process.terminate().success(), "it ends in order");
                stores[next].restart();
                (next, "restarted")
            } else {
                let victim = random.random_range(0..stores.len());
                stores[victim].kill_and_restart(&mut random);
                (victim, "killed")
            };
            eprintln!("{:6.1} s: {how} store {}", started.elapsed().as_secs_f64(), victim + 1);
        }
    }
    let status = replay.wait();
    let errors = replay.errors();
    let report = std::fs::read(&report_path).map(|bytes| text(&bytes)).unwrap_or_default();
    eprintln!("{errors}\n{report}");
    assert!(status.success(), "seed {seed}: {errors}");
    assert_eq!(kills, kills_wanted, "the conversations were too short");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for field in ["lost", "out_of_order", "shown_twice", "body_mismatches", "unaccepted"] {
        assert_eq!(report[field], 0, "{field}");
    }
    assert_eq!(report["accepted"], report["messages"]);
    eprintln!("{}", support::succeed(["shard", "compare", "--store", &at]));
    for server in [&mut gateway, &mut chat].into_iter().chain(&mut stores) {
        assert!(server.process.terminate().success(), "{} ends in order", server.kind);
    }
}
