//! Conversations are replayed through store, chat and gateway as processes of their own, while each
//! kind is killed with SIGKILL and restarted with requests in flight.
//!
//! How long is chosen by the environment (`scripts/replay-kills` sets it):
//! `SWITCHBOARD_TEST_KILLS` kills per kind (2), `SWITCHBOARD_TEST_KILL_EVERY_MS` mean time between two
//! kills (1,500), `SWITCHBOARD_TEST_REPLAY_FILE` conversations instead of generated ones,
//! `SWITCHBOARD_TEST_REPLAY_ARGS` more arguments of `bench replay`.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::server::{Server, environment};
use support::{Process, conversations, text};

fn corpus(dir: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("SWITCHBOARD_TEST_REPLAY_FILE") {
        return path.into();
    }
    let kills: usize = environment("SWITCHBOARD_TEST_KILLS", 2);
    let path = dir.join("conversations.jsonl");
    // Messages are a second apart and the replay below runs at twice that speed, slowed by people
    // who are away: long enough for the kills, which come every second and a half per kind.
    conversations(&path, 50, 120, 16 + 12 * kills);
    path
}

fn servers(data: &Path, random: &mut StdRng) -> [Server; 3] {
    let data = data.join("store").display().to_string();
    let store = Server::start(
        "store",
        &["--single", "--shards", "4", "--data", &data],
        &["--listen", "--http"],
        random,
    );
    let at = store.address("--listen");
    let chat = Server::start(
        "chat",
        &["--store", &at, "--name", "chat-1"],
        &["--listen", "--http"],
        random,
    );
    let gateway = Server::start(
        "gateway",
        &["--store", &at, "--name", "gateway-1"],
        &["--listen", "--listen-tcp", "--listen-ws", "--http"],
        random,
    );
    let mut servers = [store, chat, gateway];
    servers.iter_mut().for_each(|server| server.process.ready());
    servers
}

#[test]
fn nothing_is_lost_while_every_kind_of_process_is_killed() {
    let seed = environment("SWITCHBOARD_TEST_SEED", u64::from(std::process::id()));
    let kills_wanted: u32 = environment("SWITCHBOARD_TEST_KILLS", 2);
    let every_ms: u64 = environment("SWITCHBOARD_TEST_KILL_EVERY_MS", 1_500);
    eprintln!("seed {seed} (SWITCHBOARD_TEST_SEED)");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut servers = servers(dir.path(), &mut random);
    let [_, _, gateway] = &servers;
    let gateways =
        format!("{},ws://{}", gateway.address("--listen-tcp"), gateway.address("--listen-ws"));
    let report_path = dir.path().join("report.json");
    let mut replay = support::command(["bench", "replay"]);
    replay.arg(corpus(dir.path()));
    replay.args(["--gateway", &gateways, "--require-repeats", "--offline-mean", "2"]);
    replay
        .args(["--drain-timeout", "120", "--seed", &seed.to_string()])
        .arg("--json")
        .arg(&report_path);
    let more: String = environment("SWITCHBOARD_TEST_REPLAY_ARGS", "--speedup 2".to_owned());
    replay.args(more.split_whitespace());
    let mut replay = Process::spawn(&mut replay);

    let started = Instant::now();
    let mut turn = 0;
    while replay.is_running() {
        std::thread::sleep(Duration::from_millis(50));
        let due = Duration::from_millis(every_ms).mul_f64(random.random_range(0.3..1.7));
        let Some(server) = servers.get_mut(turn % 3).filter(|server| server.kills < kills_wanted)
        else {
            continue;
        };
        std::thread::sleep(due);
        if replay.is_running() {
            server.kill_and_restart(&mut random);
            eprintln!("{:6.1} s: killed {}", started.elapsed().as_secs_f64(), server.kind);
        }
        turn += 1;
    }
    let status = replay.wait();
    let errors = replay.errors();
    eprintln!("{errors}");
    let report = std::fs::read(&report_path).map(|bytes| text(&bytes)).unwrap_or_default();
    eprintln!("{report}");
    assert!(status.success(), "seed {seed}: {errors}");
    for server in &servers {
        assert!(
            server.kills >= kills_wanted,
            "{} was killed {} times only",
            server.kind,
            server.kills
        );
    }
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for field in ["lost", "out_of_order", "shown_twice", "body_mismatches", "unaccepted"] {
        assert_eq!(report[field], 0, "{field}");
    }
    assert_eq!(report["accepted"], report["messages"]);
    assert!(report["repeats"].as_u64() > Some(0), "nothing was in flight");
    for server in servers.iter_mut().rev() {
        assert!(server.process.terminate().success(), "{} ends in order", server.kind);
    }
}
