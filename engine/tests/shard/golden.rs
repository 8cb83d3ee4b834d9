//! Version 1 of checkpoints, exports and old files, byte by byte: what was written once stays readable.

use std::path::Path;

use bytes::Bytes;
use switchboard_engine::{
    Command, GatewayKind, InitCluster, META_GROUP, MessageKind, RegisterGateway, Rules, SetNode,
    Shard, ShardOptions,
};

use crate::support::{Driver, GROUP, Replica, claim, device, enqueue};

const CHECKPOINT: &str = include_str!("golden/checkpoint-v1.hex");
const EXPORT: &str = include_str!("golden/export-v1.hex");
const META: &str = include_str!("golden/export-meta-v1.hex");
const OLD: &str = include_str!("golden/old-v1.hex");
const IDS: &str = include_str!("golden/ids-v1.hex");

/// A group that has one of everything.
fn sample() -> Replica {
    let replica = Replica::new(1, ShardOptions::default());
    let mut driver = Driver::begin(&[&replica], Rules::default());
    let Command::Claim(mut with_token) = claim(&device("bob", 2), 5) else { unreachable!() };
    with_token.push_token = Bytes::from_static(b"token");
    driver.one(&[&replica], Command::Claim(with_token));
    driver.one(&[&replica], enqueue("bob", 0, 1, "to all"));
    let Command::Enqueue(mut receipt) = enqueue("bob", 1, 2, "receipt") else { unreachable!() };
    receipt.kind = MessageKind::Receipt;
    receipt.ttl_ms = 10;
    driver.one(&[&replica], Command::Enqueue(receipt));
    // It expires, and its bucket has not been visited yet.
    driver.now_ms += 10;
    driver.one(&[&replica], Command::Tick);
    replica
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect());
    lines.collect::<Vec<String>>().join("\n") + "\n"
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hexadecimal")).collect()
}

fn golden(name: &str, content: &[u8], expected: &str) {
    if std::env::var_os("SWITCHBOARD_GOLDEN_WRITE").is_some() {
        let path = format!("{}/tests/shard/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, hex(content)).expect("golden");
    } else {
        assert_eq!(hex(content), expected, "{name}");
    }
}

#[test]
fn a_checkpoint_and_the_files_it_names_are_these_bytes() {
    let replica = sample();
    let at = replica.shard.checkpoint().expect("checkpoint");
    let content = |path: String| replica.files.content(Path::new(&path)).expect("the file");
    let checkpoint = content(format!("/data/checkpoints/{GROUP}-{:016x}.ckpt", at.index));
    golden("checkpoint-v1.hex", &checkpoint, CHECKPOINT);
    let old = content(format!("/data/bodies/{GROUP}/{:010}.old", 1));
    golden("old-v1.hex", &old, OLD);
    let ids = content(format!("/data/ids/{GROUP}/{:016}.ids", 1));
    golden("ids-v1.hex", &ids, IDS);
}

#[test]
fn an_export_is_these_bytes_and_they_are_taken() {
    let replica = sample();
    let mut export = Vec::new();
    replica.shard.export(&mut export).expect("export");
    golden("export-v1.hex", &export, EXPORT);
    let other = Replica::new(2, ShardOptions::default());
    let header = Shard::read_export_header(&mut &bytes(EXPORT)[..]).expect("header");
    assert_eq!(header.at, replica.shard.applied());
    other.shard.import(&mut &bytes(EXPORT)[..]).expect("import");
    assert_eq!(other.shard.state_hash(), replica.shard.state_hash());
    assert_eq!(other.fetch(&device("bob", 2)), replica.fetch(&device("bob", 2)));
    assert_eq!(other.fetch(&device("bob", 1)).messages.len(), 1, "the receipt has expired");
}

#[test]
fn an_export_of_the_meta_group_is_these_bytes() {
    let replica = Replica::of_group(3, META_GROUP);
    let mut driver = Driver::new();
    let cluster = InitCluster { cluster_id: [1; 16], shards: 16, generation: 0 };
    driver.one(&[&replica], Command::InitCluster(cluster));
    let node = SetNode { node_id: 1, address: "127.0.0.1:7400".into(), disk_id: [2; 16] };
    driver.one(&[&replica], Command::SetNode(node));
    let (name, address) = ("g1".into(), "127.0.0.1:7415".into());
    let gateway = RegisterGateway { name, address, kind: GatewayKind::Gateway };
    driver.one(&[&replica], Command::RegisterGateway(gateway));
    let mut export = Vec::new();
    replica.shard.export(&mut export).expect("export");
    golden("export-meta-v1.hex", &export, META);
    let other = Replica::of_group(4, META_GROUP);
    other.shard.import(&mut &bytes(META)[..]).expect("import");
    assert_eq!(other.shard.state_hash(), replica.shard.state_hash());
}
