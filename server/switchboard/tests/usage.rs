//! The command line from outside: usage errors, configuration, completions, help.

mod support;

use support::{command, run, succeed, text};

#[test]
fn wrong_use_exits_with_2_and_says_how() {
    for args in [
        vec!["no-such-command"],
        vec!["device", "--as", "alice/0", "recv"],
        vec!["device", "recv"],
        vec!["bench", "replay"],
        vec!["bench", "replay", "x", "--offline-fraction", "2"],
        vec!["mailbox", "purge", "bob"],
        vec!["chat", "--listen", "nowhere"],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("error:"), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn what_cannot_be_reached_fails_with_1_and_says_what_to_do() {
    // Port 1 of loopback: nobody listens there without being root.
    for args in [
        vec!["device", "--as", "alice", "--gateway", "127.0.0.1:1", "send", "bob", "hi"],
        vec!["session", "locate", "alice", "--store", "127.0.0.1:1"],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains("switchboard dev"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_typo_in_the_configuration_is_named_with_the_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.toml");
    std::fs::write(&path, "listten = \"127.0.0.1:0\"\n").unwrap();
    let output = run(["chat", "--config", path.to_str().unwrap()]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("`listten`") && errors.contains("`listen`"), "{errors}");
}

#[test]
fn layers_win_in_order_and_can_be_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.toml");
    std::fs::write(&path, "name = \"file\"\nhttp = \"127.0.0.1:1\"\nreceipt_merge_ms = 3\n")
        .unwrap();
    let output = command(["chat", "--print-config", "--config"])
        .arg(&path)
        .args(["--name", "flag"])
        .env("SWITCHBOARD_NAME", "environment")
        .env("SWITCHBOARD_HTTP", "127.0.0.1:2")
        .output()
        .unwrap();
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config: toml::Table = toml::from_str(&out).unwrap();
    assert_eq!(config["name"].as_str(), Some("flag"));
    assert_eq!(config["http"].as_str(), Some("127.0.0.1:2"));
    assert_eq!(config["receipt_merge_ms"].as_integer(), Some(3));
}

#[test]
fn every_key_can_be_seen() {
    for (process, keys) in [
        ("gateway", &["name", "advertise", "tls_cert", "tls_key"][..]),
        ("chat", &["name", "advertise", "webhook", "webhook_secret_file", "vapid_key_file"]),
    ] {
        let printed = succeed([process, "--print-config"]);
        for key in keys {
            assert!(printed.contains(&format!("\n# {key} = ")), "{process} {key}: {printed}");
        }
    }
}

#[test]
fn plain_text_beyond_loopback_names_the_flag() {
    let output = run(["chat", "--listen", "0.0.0.0:0", "--advertise", "10.0.0.1:7420"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--insecure"), "{}", text(&output.stderr));
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(succeed(["completions", shell]).contains("switchboard"), "{shell}");
    }
}

#[test]
fn certificates_are_made_and_never_written_over() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("certs");
    let dir = dir.to_str().unwrap();
    let early = run(["cert", "issue", "gateway-1", "--dir", dir]);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("switchboard cert init"), "{}", text(&early.stderr));
    succeed(["cert", "init", "--dir", dir]);
    let made = succeed(["cert", "issue", "gateway-1", "--dir", dir, "--output", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["role"], "gateway");
    assert!(std::path::Path::new(made["key"].as_str().unwrap()).exists());
    for again in [vec!["cert", "init"], vec!["cert", "issue", "gateway-1"]] {
        let output = run([again, vec!["--dir", dir]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("is there already"), "{}", text(&output.stderr));
    }
}

#[test]
fn the_configurations_that_are_packaged_are_valid() {
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/config");
    for process in ["store", "gateway", "chat"] {
        let file = format!("{packaged}/{process}.toml");
        let printed = succeed([process, "--config", &file, "--print-config"]);
        assert!(printed.contains("insecure = true"), "{printed}");
    }
}
