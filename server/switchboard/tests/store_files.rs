//! What a store says about its data directory: somebody else has it, a torn end, a flipped bit.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{Process, run, succeed, text};

fn store_args(data: &Path) -> Vec<String> {
    [
        "store",
        "--single",
        "--shards",
        "2",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--data",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([data.display().to_string()])
    .collect()
}

/// A directory with some messages in it, left by a store that was killed.
fn written() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let mut dev = Process::start(support::dev_args(data.path()));
    let gateway = dev.listening()["gateway-tcp"].to_string();
    for n in 0..10 {
        let message = format!("message {n}");
        succeed(["device", "--as", "alice", "--gateway", &gateway, "send", "bob", &message]);
    }
    dev.kill();
    data
}

fn received(data: &Path) -> usize {
    let mut dev = Process::start(support::dev_args(data));
    let gateway = dev.listening()["gateway-tcp"].to_string();
    succeed(["device", "--as", "bob", "--gateway", &gateway, "recv"]).lines().count()
}

fn inspect(data: &Path) -> serde_json::Value {
    let output = run(["log", "inspect", data.to_str().unwrap(), "--output", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

/// The last segment and how far it is used.
fn last_segment(data: &Path) -> (PathBuf, u64) {
    let report = inspect(data);
    let segment = report["segments"]
        .as_array()
        .and_then(|segments| segments.iter().rev().find(|s| s["frames"].as_u64() > Some(1)))
        .unwrap_or_else(|| panic!("no segment is used: {report}"));
    let file = data.join(segment["file"].as_str().unwrap());
    (file, segment["used_bytes"].as_u64().unwrap())
}

/// Where a record of a segment is that others follow; what pads a frame would not be missed.
fn middle_record(data: &Path, segment: &Path) -> u64 {
    let lines = succeed(["log", "inspect", data.to_str().unwrap(), "--frames"]);
    let frames = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let name = segment.file_stem().unwrap().to_str().unwrap();
    let number: u64 = name.parse().unwrap();
    let records = frames.filter(|frame| frame["segment"] == number).flat_map(|frame| {
        let records = frame["records"].as_array().cloned().unwrap_or_default();
        records.into_iter().filter_map(|record| record["offset"].as_u64())
    });
    let records: Vec<u64> = records.collect();
    records[records.len() / 2]
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Process::start(store_args(data.path()));
    first.listening();
    let second = run(store_args(data.path()));
    let errors = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{errors}");
    assert!(errors.contains("another process"), "{errors}");
    assert!(first.is_running());
    assert!(first.terminate().success());
    let mut third = Process::start(store_args(data.path()));
    third.listening();
    assert!(third.terminate().success());
}

#[test]
fn a_write_that_never_finished_is_cut_and_nothing_is_lost() {
    let data = written();
    let (file, used) = last_segment(data.path());
    // What a crash in the middle of a sync leaves: some bytes of a frame that nobody waits for.
    let garbage: Vec<u8> = (0..700u32).map(|n| (n * 31 + 7) as u8).collect();
    OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&garbage, used).unwrap();
    assert_eq!(received(data.path()), 10);
}

#[test]
fn a_log_truncated_behind_its_last_frame_opens() {
    let data = written();
    let (file, used) = last_segment(data.path());
    OpenOptions::new().write(true).open(&file).unwrap().set_len(used).unwrap();
    assert_eq!(received(data.path()), 10);
}

#[test]
fn a_flipped_bit_in_an_acknowledged_frame_is_refused_with_file_and_offset() {
    let data = written();
    let (file, _) = last_segment(data.path());
    let flipped_at = middle_record(data.path(), &file);
    let segment = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let mut byte = [0];
    segment.read_exact_at(&mut byte, flipped_at).unwrap();
    segment.write_all_at(&[byte[0] ^ 0x10], flipped_at).unwrap();

    let output = run(support::dev_args(data.path()));
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(errors.contains(&name), "names the file: {errors}");
    assert!(errors.contains("offset"), "names the offset: {errors}");
    assert!(errors.contains("log inspect"), "says what helps: {errors}");
    assert!(errors.contains("--lost-disk"), "says what repairs it: {errors}");

    let inspected = run(["log", "inspect", data.path().to_str().unwrap()]);
    assert_eq!(inspected.status.code(), Some(1));
    assert!(text(&inspected.stderr).contains(&name), "{}", text(&inspected.stderr));
}

#[test]
fn a_store_without_a_cluster_waits_and_says_how_to_make_one() {
    let data = tempfile::tempdir().unwrap();
    let args: Vec<_> =
        store_args(data.path()).into_iter().filter(|arg| arg != "--single").collect();
    let mut store = Process::start(args);
    assert!(store.is_listening(2), "{}", store.errors());
    assert!(store.terminate().success());
    let errors = store.errors();
    assert!(errors.contains("cluster init"), "{errors}");
}

#[test]
fn scrubbing_finds_each_damaged_file_and_nothing_in_a_whole_directory() {
    let data = written();
    assert_eq!(received(data.path()), 10);
    let args = ["log", "scrub", data.path().to_str().unwrap(), "--output", "json"];
    let scrub = || {
        let output = run(args);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), report)
    };
    let (code, report) = scrub();
    assert_eq!((code, &report["faults"]), (Some(0), &serde_json::json!([])));
    // The header of the first segment: everything after it says that it was durable.
    let segment = data.path().join("0000000000000001.log");
    let file = OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
    let (code, report) = scrub();
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["faults"][0]["file"], segment.to_str().unwrap(), "{report}");
    assert_eq!(report["faults"][0]["offset"], 0, "{report}");
}
