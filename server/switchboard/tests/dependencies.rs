//! Dependencies between the crates of this workspace point one way.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each crate may name in `[dependencies]`, directly.
const ALLOWED: &[(&str, &[&str])] = &[
    ("switchboard-engine", &[]),
    ("switchboard-raft", &["engine"]),
    ("switchboard-api", &[]),
    ("switchboard-sdk", &["api"]),
    ("switchboard-device", &["api", "sdk"]),
    ("switchboard-histories", &[]),
    ("switchboard-process", &[]),
    ("switchboard-store", &["engine", "raft", "api", "process"]),
    ("switchboard-gateway", &["api", "sdk", "process"]),
    ("switchboard-chat", &["api", "sdk", "process"]),
    ("switchboard", &["engine", "api", "sdk", "device", "process", "store", "gateway", "chat"]),
    ("switchboard-benches", &["engine", "api", "sdk"]),
];

/// Crates that the engine must never reach, by whatever way.
const NOT_IN_ENGINE: &[&str] =
    &["tokio", "tonic", "prost", "openraft", "chrono", "rand", "metrics"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        // Resolves nothing, and so needs no network.
        .no_deps()
        .exec()
        .expect("cargo metadata")
}

fn graph() -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let metadata = metadata();
    let members: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let graph = metadata
        .packages
        .iter()
        .map(|package| {
            let normal = |kind| kind != DependencyKind::Development;
            let named = package.dependencies.iter().filter(|dep| normal(dep.kind));
            (package.name.to_string(), named.map(|dep| dep.name.clone()).collect())
        })
        .collect();
    (graph, members)
}

#[test]
fn crates_depend_in_one_direction_only() {
    let (graph, members) = graph();
    for (name, allowed) in ALLOWED {
        let dependencies = graph.get(*name).unwrap_or_else(|| panic!("{name} is gone"));
        for dependency in dependencies.intersection(&members) {
            let short = dependency.trim_start_matches("switchboard-");
            assert!(allowed.contains(&short), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn edges_never_reach_the_store() {
    let (graph, members) = graph();
    for edge in ["switchboard-gateway", "switchboard-chat", "switchboard-device", "switchboard-sdk"]
    {
        let mut reached = BTreeSet::new();
        let mut next = vec![edge.to_owned()];
        while let Some(name) = next.pop() {
            let own = graph.get(&name).into_iter().flatten();
            next.extend(
                own.filter(|dep| members.contains(*dep) && reached.insert((*dep).clone())).cloned(),
            );
        }
        for store in ["switchboard-store", "switchboard-raft", "switchboard-engine"] {
            assert!(!reached.contains(store), "{edge} reaches {store}: {reached:?}");
        }
    }
}

#[test]
fn the_engine_knows_neither_network_nor_clock_nor_chance() {
    let (graph, _) = graph();
    for banned in NOT_IN_ENGINE {
        assert!(!graph["switchboard-engine"].contains(*banned), "{banned}");
    }
}

#[test]
fn what_is_measured_against_is_not_in_the_default_build() {
    let metadata = metadata();
    let defaults: Vec<_> =
        metadata.workspace_default_packages().iter().map(|p| p.name.to_string()).collect();
    let missing: Vec<_> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .filter(|name| !defaults.contains(name))
        .collect();
    assert_eq!(missing, ["switchboard-benches"]);
    let (graph, _) = graph();
    for (name, dependencies) in graph.iter().filter(|(name, _)| *name != "switchboard-benches") {
        for peer in ["switchboard-benches", "dashmap", "fjall", "papaya", "redb", "scc"] {
            assert!(!dependencies.contains(peer), "{name} must not depend on {peer}");
        }
    }
}

#[test]
fn openraft_is_seen_by_one_crate_only() {
    let (graph, members) = graph();
    let users: Vec<_> = members
        .iter()
        .filter(|name| graph[*name].contains("openraft"))
        .map(String::as_str)
        .collect();
    assert_eq!(users, ["switchboard-raft"]);
}
