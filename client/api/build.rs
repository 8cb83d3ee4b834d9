//! Compiles the `.proto` files with protox: no protoc on the machine is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = [
        "switchboard/v1/session.proto",
        "switchboard/v1/gateway.proto",
        "switchboard/v1/mailbox.proto",
        "switchboard/v1/cluster.proto",
        "switchboard/v1/peer.proto",
        "switchboard/v1/chat.proto",
        "switchboard/v1/delivery.proto",
        "switchboard/v1/drain.proto",
        "switchboard/device/v1/device.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".switchboard.v1.LocateStreamResponse", "crate::LocateStreamResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
