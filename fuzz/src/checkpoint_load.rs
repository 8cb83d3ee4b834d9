//! A checkpoint with right CRCs and any content: it loads or is refused, and what loads is a state like
//! any other, which can be written down and loaded again.

use std::path::{Path, PathBuf};

use switchboard_engine::{DeviceId, EntryPayload, LogId, fs::sim::SimFiles};

use crate::{
    Seed, sections,
    world::{DIR, GROUP, World, furnished, put},
};

const MAGIC: &[u8; 8] = b"SBCKPT01";

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "ckpt")
}

/// A disk with a checkpoint and the files that it names; no log.
fn disk() -> Vec<(PathBuf, Vec<u8>)> {
    let world = furnished();
    world.shard.checkpoint().expect("a checkpoint");
    let is_state = |path: &PathBuf| {
        let parts: Vec<_> = path.strip_prefix(DIR).into_iter().flat_map(Path::iter).collect();
        parts.len() > 1
    };
    let paths = world.files.paths().into_iter().filter(is_state);
    let read = |path: PathBuf| {
        let bytes = world.files.content(&path).unwrap_or_default();
        (path, bytes)
    };
    paths.map(read).collect()
}

/// One real checkpoint.
pub fn seeds() -> Vec<Seed> {
    let files = disk().into_iter();
    files.filter(|(path, _)| is_checkpoint(path)).map(|(_, bytes)| ("real", bytes)).collect()
}

/// Loads a checkpoint beside the files that the real one names.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    thread_local! {
        static OTHERS: Vec<(PathBuf, Vec<u8>)> =
            disk().into_iter().filter(|(path, _)| !is_checkpoint(path)).collect();
    }
    let checkpoint = sections::repaired(MAGIC, data);
    let index = sections::applied_index(&checkpoint).unwrap_or(0);
    let files = SimFiles::new(1);
    let name = format!("checkpoints/{GROUP}-{index:016x}.ckpt");
    put(&files, &Path::new(DIR).join(name), &checkpoint);
    OTHERS.with(|others| {
        for (path, bytes) in others {
            put(&files, path, bytes);
        }
    });
    let Ok(world) = World::open(files) else { return };

    look(&world);
    let (at, hash) = world.shard.state_hash();
    assert_eq!(world.shard.state_hash(), (at, hash), "a hash changes nothing");
    // Another index, so that a checkpoint is due; it moves log ids only.
    let next = LogId::new(at.term, at.index.wrapping_add(1));
    if next.index == 0 || world.append(next, EntryPayload::Blank).is_none() {
        return;
    }
    let moved = world.shard.state_hash();
    assert_eq!(moved, (next, hash), "a blank entry changes the log id only");
    // Bodies that the index names wrongly show here at the latest.
    if world.shard.checkpoint().is_err() {
        return;
    }
    let world = world.reopened(true).expect("what was written loads");
    assert_eq!(world.shard.state_hash(), moved, "what was written is what was there");
    look(&world);
}

/// Reads what can be read; damage that shows is an error, never a panic.
fn look(world: &World) {
    let _ = world.export();
    let _ = (world.shard.stats(), world.shard.next_due_ms(), world.shard.rules());
    for number in 1..=2 {
        let device = DeviceId::new("ann", number);
        let _ = world.shard.fetch(&device, 0, 1_024, usize::MAX);
        let _ = (world.shard.stat(&device), world.shard.push_token(&device));
    }
    let _ = world.shard.locate(b"ann");
}
