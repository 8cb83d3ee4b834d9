//! Fuzz targets of the engine, of what replicas say to each other, and of what a device says to a gateway:
//! bytes that nobody has thought of, against what is promised.
//!
//! ```text
//!   libFuzzer ──bytes──▶ fuzz_targets/NAME.rs ──▶ src/NAME.rs: run(bytes)
//!                                                    │  one simulated disk in memory, nothing else
//!                                                    ▼
//!                                     the engine by its public API, and a model or a rule
//! ```
//! | target | bytes | what must hold |
//! |---|---|---|
//! | [`command_codec`] | an entry | decodes or not; what decodes encodes to the same bytes |
//! | [`log_recovery`] | what is appended, then what is done to the files | the log opens as it was at some frame, or refuses; it serves nothing that is not in its files |
//! | [`checkpoint_load`] | a checkpoint, CRCs made right | loads or not; what loads is written and loaded again to the same state hash |
//! | [`state_model`] | commands, restarts, checkpoints | the shard answers as a model of ordinary maps does |
//! | [`export_import`] | an export, CRCs made right | is taken whole or changes nothing; what was taken is exported and taken again to the same state hash |
//! | [`peer_codec`] | a message between replicas | decodes or not; what decodes is encoded, decoded and encoded again to the same bytes |
//! | [`device_frames`] | a device's stream | however it is cut into reads it gives the same frames or the same error; a frame encodes to itself |
//! | [`device_conversation`] | what a device, the store and a chat do | in order, within the window, receipts first, and in the end everything is delivered and settled |
//!
//! A target is a function of its bytes: it reads no clock, file or randomness of the system. The engine may
//! load and recover on several threads, whose order changes no answer; so an artifact repeats, while edges
//! may be counted a little differently from run to run.
//!
//! The crate reaches the engine by its public API only. It does know two formats, to make CRCs right
//! after bytes were changed: that of sections ([`sections`]) and that of log frames ([`frames`]).

pub mod checkpoint_load;
pub mod command_codec;
pub mod device_conversation;
pub mod device_frames;
pub mod export_import;
pub mod frames;
pub mod input;
pub mod log_recovery;
mod model;
pub mod peer_codec;
pub mod sections;
pub mod state_model;
mod world;

use std::path::Path;

/// A seed: its name, and its bytes.
pub type Seed = (&'static str, Vec<u8>);

/// With `FUZZ_SEEDS=DIR`, writes a target's seeds there and ends the process. They are made by the build
/// that is fuzzed, so they follow its formats.
pub fn write_seeds_if_asked(seeds: impl FnOnce() -> Vec<Seed>) {
    let Some(dir) = std::env::var_os("FUZZ_SEEDS") else { return };
    for (name, bytes) in seeds() {
        let path = Path::new(&dir).join(name);
        if let Err(error) = std::fs::write(&path, bytes) {
            eprintln!("cannot write {}: {error}", path.display());
            std::process::exit(1);
        }
    }
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seeds: Vec<Seed>, run: impl Fn(&[u8])) {
        assert!(!seeds.is_empty());
        for (name, bytes) in seeds {
            println!("{name}");
            run(&bytes);
            run(&bytes[..bytes.len() / 2]);
        }
        run(&[]);
    }

    #[test]
    fn every_target_passes_on_its_seeds() {
        check(command_codec::seeds(), command_codec::run);
        check(log_recovery::seeds(), log_recovery::run);
        check(checkpoint_load::seeds(), checkpoint_load::run);
        check(state_model::seeds(), state_model::run);
        check(export_import::seeds(), export_import::run);
        check(peer_codec::seeds(), peer_codec::run);
        check(device_frames::seeds(), device_frames::run);
        check(device_conversation::seeds(), device_conversation::run);
    }
}
