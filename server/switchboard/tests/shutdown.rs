//! Servers end soon and in order when they are told to, whatever has become of the processes that
//! they talk to and of whoever should read what they print.

mod support;

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use support::{DEADLINE, Process, command, run};

/// What the documentation promises to supervisors.
const END_MAX: Duration = Duration::from_secs(30);

fn store_command(data: &Path) -> Command {
    let mut store = command(["store", "--single", "--shards", "1", "--listen", "127.0.0.1:0"]);
    store.args(["--http", "127.0.0.1:0", "--data"]).arg(data);
    store
}

/// Waits until the store in `data` answers operators; its gRPC address.
fn answering(data: &Path) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let bytes = std::fs::read(data.join("addresses.json")).unwrap_or_default();
        let addresses: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(address) = addresses["store-grpc"].as_str()
            && run(["cluster", "status", "--store", address]).status.success()
        {
            return address.to_owned();
        }
        assert!(Instant::now() < deadline, "the store does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn terminated(child: &mut Child) -> ExitStatus {
    support::terminate(child);
    let until = Instant::now() + END_MAX;
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it did not end within {END_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_gateway_and_a_chat_whose_store_has_gone_end_soon() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Process::spawn(&mut store_command(dir.path()));
    let at = store.listening()["store-grpc"].to_string();
    let free = "127.0.0.1:0";
    let listen = ["--listen", free, "--http", free, "--store", &at];
    let devices = ["--listen-tcp", free, "--listen-ws", free];
    let mut gateway =
        Process::start(["gateway", "--name", "g"].iter().chain(&listen).chain(&devices));
    let mut chat = Process::start(["chat", "--name", "c"].iter().chain(&listen));
    let device_at = gateway.listening()["gateway-tcp"].to_string();
    chat.ready();
    let mut device =
        Process::start(["device", "--as", "alice", "--gateway", &device_at, "recv", "--follow"]);
    store.kill();
    let started = Instant::now();
    assert!(gateway.terminate().success());
    assert!(chat.terminate().success());
    assert!(started.elapsed() < END_MAX, "{:?}", started.elapsed());
    device.kill();
}

#[test]
fn a_store_whose_log_is_not_read_serves_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store_command(dir.path());
    store.env("SWITCHBOARD_LOG__FILTER", "trace");
    let mut store = store.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = store.stderr.take().expect("piped");
    let at = answering(dir.path());
    // A pipe holds 64 KiB; with less than a page of room, the next lines do not fit.
    let deadline = Instant::now() + DEADLINE;
    while rustix::io::ioctl_fionread(&unread).unwrap() < 60 * 1024 {
        assert!(Instant::now() < deadline, "the store does not fill its log");
        assert!(run(["session", "locate", "alice", "--store", &at]).status.success());
    }
    for _ in 0..5 {
        assert!(run(["session", "locate", "alice", "--store", &at]).status.success());
    }
    assert!(terminated(&mut store).success());
    drop(unread);
}

#[test]
fn a_store_whose_output_has_no_reader_any_more_serves_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store_command(dir.path());
    store.env("SWITCHBOARD_LOG__FILTER", "debug");
    let mut store = store.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((store.stdout.take(), store.stderr.take()));
    let at = answering(dir.path());
    assert!(run(["session", "locate", "alice", "--store", &at]).status.success());
    assert!(terminated(&mut store).success());
}
