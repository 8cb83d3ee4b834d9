//! Message ids are written once, however many checkpoints remember them.

use std::path::{Path, PathBuf};

use switchboard_engine::{Rules, ShardOptions, Status, fs::Files};

use crate::support::{Driver, GROUP, Replica, enqueue, enqueued};

fn purging() -> ShardOptions {
    ShardOptions { purge_after_checkpoint: true }
}

fn id_files(replica: &Replica) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|e| e == "ids");
    replica.files.paths().into_iter().filter(is_one).collect()
}

fn bytes(replica: &Replica) -> usize {
    let files = id_files(replica);
    files.iter().map(|path| replica.files.content(path).expect("there").len()).sum()
}

fn send(replica: &Replica, driver: &mut Driver, numbers: std::ops::Range<u64>) {
    let commands: Vec<_> = numbers.map(|number| enqueue("bob", 1, number, "")).collect();
    for reply in driver.propose(&[replica], &commands) {
        assert_eq!(enqueued(reply).status, Status::Ok);
    }
}

fn is_known(replica: &Replica, driver: &mut Driver, number: u64) -> bool {
    let reply = driver.one(&[replica], enqueue("eve", 1, number, ""));
    enqueued(reply).status == Status::Duplicate
}

#[test]
fn an_id_is_written_once_and_remembered_through_checkpoints_and_restarts() {
    let mut replica = Replica::new(31, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    for round in 0..10 {
        send(&replica, &mut driver, round * 500..(round + 1) * 500);
        replica.shard.checkpoint().expect("checkpoint");
        assert_eq!(id_files(&replica).len() as u64, round + 1);
        if round % 3 == 0 {
            let hash = replica.shard.state_hash();
            replica = replica.reopened();
            assert_eq!(replica.shard.state_hash(), hash);
        }
    }
    let written = bytes(&replica);
    assert!(written < 5_000 * 18 + 10 * 100, "{written} bytes for 5,000 ids");
    for number in (0..5_000).step_by(97) {
        assert!(is_known(&replica, &mut driver, number), "{number}");
    }
    assert!(!is_known(&replica, &mut driver, 5_000));
}

#[test]
fn a_file_goes_when_none_of_its_ids_is_remembered() {
    let mut replica = Replica::new(32, purging());
    let rules = Rules { dedup_horizon_ms: 80_000, ..Rules::default() };
    let mut driver = Driver::begin(&[&replica], rules);
    for round in 0..20 {
        send(&replica, &mut driver, round * 10..(round + 1) * 10);
        replica.shard.checkpoint().expect("checkpoint");
        driver.now_ms += 10_000;
    }
    assert!((8..=10).contains(&id_files(&replica).len()), "{:?}", id_files(&replica));
    let hash = replica.shard.state_hash();
    replica = replica.reopened();
    assert_eq!(replica.shard.state_hash(), hash);
    assert!(!is_known(&replica, &mut driver, 100));
    assert!(is_known(&replica, &mut driver, 199));
}

#[test]
fn many_small_files_become_one() {
    let mut replica = Replica::new(33, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    for number in 0..70 {
        send(&replica, &mut driver, number..number + 1);
        replica.shard.checkpoint().expect("checkpoint");
        assert!(id_files(&replica).len() <= 64);
    }
    assert!(id_files(&replica).len() < 10);
    replica = replica.reopened();
    assert!((0..70).all(|number| is_known(&replica, &mut driver, number)));
}

#[test]
fn a_missing_or_damaged_file_is_refused_and_named() {
    let replica = Replica::new(34, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    send(&replica, &mut driver, 0..3);
    replica.shard.checkpoint().expect("checkpoint");
    let path = id_files(&replica).remove(0);
    let length = replica.files.content(&path).expect("there").len() as u64;
    for at in 0..length {
        replica.files.flip(&path, at, 0x10);
        let error = replica.open_again().expect_err("damaged").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        replica.files.flip(&path, at, 0x10);
    }
    replica.open_again().expect("as it was");
    replica.files.remove(&path).expect("remove");
    let error = replica.open_again().expect_err("missing").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn a_file_that_no_checkpoint_names_is_removed_at_the_start() {
    let mut replica = Replica::new(35, purging());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    send(&replica, &mut driver, 0..3);
    // The checkpoint stops right before its own file gets its name.
    let mut files = Vec::new();
    for step in 1.. {
        replica.files.crash_at(replica.files.operations() + step);
        let is_done = replica.shard.checkpoint().is_ok();
        replica = replica.after_power_cut();
        files.push(id_files(&replica).len());
        let names = replica.files.list(Path::new("/data/checkpoints")).expect("list");
        let named = names.iter().filter(|name| name.ends_with(".ckpt")).count();
        assert_eq!(id_files(&replica).len(), named, "after {step} operations, group {GROUP}");
        assert!(is_known(&replica, &mut driver, 2));
        if is_done {
            break;
        }
    }
    assert!(files.contains(&0) && files.contains(&1), "{files:?}");
}
