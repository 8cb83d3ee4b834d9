//! Layers, unknown keys and faults of a configuration, as a process would meet them.

use std::{net::SocketAddr, path::Path};

use serde::{Deserialize, Serialize};
use switchboard_process::config::{Config, ConfigError, Faults, Layers, render};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    name: String,
    listen: SocketAddr,
    store: Vec<String>,
    advertise: Option<String>,
    insecure: bool,
    limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Limits {
    ttl_ms: u64,
    devices_max: u32,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            name: "one".into(),
            listen: "127.0.0.1:7400".parse().unwrap(),
            store: vec!["127.0.0.1:7400".into()],
            advertise: None,
            insecure: false,
            limits: Limits { ttl_ms: 1000, devices_max: 16 },
        }
    }
}

impl Config for Sample {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.name.is_empty(), "name", "is empty");
        faults.check_range("limits.devices_max", self.limits.devices_max, 1, 64);
        faults.check_plain_text("listen", self.listen, self.insecure);
    }
}

#[derive(Default, Serialize)]
struct Flags {
    name: Option<String>,
    insecure: Option<bool>,
}

fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switchboard.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refused(layers: &Layers) -> String {
    match layers.load::<Sample>() {
        Err(error @ ConfigError::Invalid(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn later_layers_win_key_by_key() {
    let (_dir, path) =
        file("name = 'file'\nadvertise = 'x:1'\n[limits]\nttl_ms = 1\ndevices_max = 2\n");
    let layers = Layers::new()
        .file(Some(&path))
        .environment(variables(&[
            ("SWITCHBOARD_LIMITS__TTL_MS", "7"),
            ("SWITCHBOARD_NAME", "42"),
            ("SWITCHBOARD_STORE", "a:1, b:2"),
            ("PATH", "/bin"),
        ]))
        .flags(&Flags { insecure: Some(true), ..Flags::default() })
        .unwrap();
    let loaded: Sample = layers.load().unwrap();
    assert_eq!(loaded.name, "42", "text that looks like a number stays text");
    assert_eq!(loaded.limits, Limits { ttl_ms: 7, devices_max: 2 });
    assert_eq!(loaded.store, ["a:1", "b:2"]);
    assert_eq!(loaded.advertise.as_deref(), Some("x:1"));
    assert!(loaded.insecure);
}

#[test]
fn an_unknown_key_is_named_with_its_source_and_the_nearest_valid_key() {
    let (_dir, path) = file("[limits]\nttl_mss = 1\n");
    let text = refused(&Layers::new().file(Some(&path)));
    assert!(text.contains(&format!("key `limits.ttl_mss` in {}", path.display())), "{text}");
    assert!(text.contains("did you mean `limits.ttl_ms`?"), "{text}");

    let text = refused(&Layers::new().environment(variables(&[("SWITCHBOARD_LIMITS__TTL", "1")])));
    assert!(text.contains("environment variable SWITCHBOARD_LIMITS__TTL is unknown"), "{text}");
    assert!(text.contains("did you mean `SWITCHBOARD_LIMITS__TTL_MS`?"), "{text}");

    let text = refused(&Layers::new().environment(variables(&[("SWITCHBOARD_QQQ", "1")])));
    assert!(text.ends_with("SWITCHBOARD_QQQ is unknown"), "{text}");
}

#[test]
fn a_key_in_the_wrong_section_is_found() {
    let (_dir, path) = file("devices_max = 1\n");
    let text = refused(&Layers::new().file(Some(&path)));
    assert!(text.contains("did you mean `limits.devices_max`?"), "{text}");
}

#[test]
fn a_section_that_is_misspelt_is_found() {
    let (_dir, path) = file("[limts]\ndevices_max = 1\n");
    let text = refused(&Layers::new().file(Some(&path)));
    assert!(text.ends_with("did you mean `limits`?"), "{text}");
}

#[test]
fn all_faults_come_at_once() {
    let (_dir, path) =
        file("name = ''\nlisten = '0.0.0.0:1'\nnam = 'x'\n[limits]\ndevices_max = 65\n");
    let text = refused(&Layers::new().file(Some(&path)));
    for part in [
        "key `nam` in ",
        "`name` is empty",
        "`limits.devices_max` is 65; it must be from 1 to 64",
        "`listen` is 0.0.0.0:1: plain text beyond loopback needs `insecure = true`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_value_of_the_wrong_type_names_key_and_source() {
    let text =
        refused(&Layers::new().environment(variables(&[("SWITCHBOARD_LIMITS__TTL_MS", "soon")])));
    assert!(text.contains("`limits.ttl_ms` in the environment: "), "{text}");
    let (_dir, path) = file("listen = 'nowhere'\n");
    let text = refused(&Layers::new().file(Some(&path)));
    assert!(text.contains("`listen` in "), "{text}");
}

#[test]
fn variables_of_other_commands_are_passed_over() {
    let layers = Layers::new().environment(variables(&[("SWITCHBOARD_TOKEN", "secret")]));
    assert_eq!(layers.load::<Sample>().unwrap(), Sample::default());
}

#[test]
fn files_that_are_missing_or_no_toml_are_named() {
    let error = Layers::new().file(Some(Path::new("/nonexistent.toml"))).load::<Sample>();
    assert!(matches!(error, Err(ConfigError::Read { .. })), "{error:?}");
    let (_dir, path) = file("name = \n");
    let error = Layers::new().file(Some(&path)).load::<Sample>().unwrap_err();
    assert!(matches!(error, ConfigError::Toml { .. }), "{error:?}");
    assert!(error.to_string().contains("switchboard.toml"), "{error}");
}

#[test]
fn what_is_unset_is_rendered_in_its_section() {
    #[derive(Serialize)]
    struct Inner {
        key: Option<u32>,
        other: u32,
    }
    #[derive(Serialize)]
    struct Outer {
        unset: Option<String>,
        set: Option<String>,
        first: Inner,
        second: Inner,
    }
    let inner = |key| Inner { key, other: 2 };
    let outer =
        Outer { unset: None, set: Some("x".into()), first: inner(None), second: inner(Some(1)) };
    let expected = "set = \"x\"\n# unset = …\n\n[first]\nother = 2\n# key = …\n\n\
                    [second]\nkey = 1\nother = 2\n";
    assert_eq!(render(&outer).unwrap().replace('\'', "\""), expected);
}

#[test]
fn what_is_rendered_loads_to_the_same() {
    let config = Sample { name: "printed".into(), ..Sample::default() };
    let (_dir, path) = file(&render(&config).unwrap());
    assert_eq!(Layers::new().file(Some(&path)).load::<Sample>().unwrap(), config);
}
