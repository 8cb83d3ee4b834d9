//! An export with right CRCs and any content: it is taken whole or changes nothing, and what was taken
//! is a state like any other.

use switchboard_engine::{Command, DeviceId, Rules, Shard};

use crate::{
    Seed, sections,
    world::{World, ack, claim, enqueue, furnished},
};

const MAGIC: &[u8; 8] = b"SBEXPT01";

/// Exports of a furnished shard and of one that has only begun.
pub fn seeds() -> Vec<Seed> {
    let begun = World::begin(Rules::default());
    let export = |world: World| world.export().expect("an export");
    vec![("furnished", export(furnished())), ("begun", export(begun))]
}

/// Imports into a shard that holds something else.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let export = sections::repaired(MAGIC, data);
    let header = Shard::read_export_header(&mut &export[..]);
    let mut world = World::begin(Rules::default());
    let bob = DeviceId::new("bob", 1);
    world.one(Command::Enqueue(enqueue(&bob, 1, b"before")));
    let before = world.shard.state_hash();

    if world.import(&export).is_err() {
        assert_eq!(world.shard.state_hash(), before, "an import that failed changes nothing");
        let page = world.shard.fetch(&bob, 0, 10, usize::MAX).expect("bodies are still there");
        assert_eq!(page.messages.len(), 1);
        world.one(Command::Enqueue(enqueue(&bob, 2, b"after")));
        return;
    }
    let header = header.expect("what was taken begins with a header");
    assert_eq!(world.shard.applied(), header.at);
    let imported = world.shard.state_hash();

    // The bodies came with it, so it can be passed on.
    let again = world.export().expect("what was taken can be exported");
    let other = World::begin(Rules::default());
    other.import(&again).expect("and taken again");
    assert_eq!(other.shard.state_hash(), imported, "passed on unchanged");

    let mut world = world.reopened(true).expect("an import is durable");
    assert_eq!(world.shard.state_hash(), imported, "durable as it was taken");
    goes_on(&mut world);
}

/// Entries after an import find a state that they fit.
fn goes_on(world: &mut World) {
    let last = world.shard.applied().expect("an import has a last entry");
    if last.index >= switchboard_engine::limits::LOG_INDEX_MAX - 4 {
        return;
    }
    let (one, all) = (DeviceId::new("ann", 1), DeviceId::new("ann", 0));
    world.propose(&[Command::Enqueue(enqueue(&all, 77, b"new")), claim(&one, 9, b"")]);
    world.one(ack(&one, 0, u64::MAX, Vec::new()));
    world.now_ms = world.now_ms.saturating_add(100 * 24 * 60 * 60 * 1000);
    world.one(Command::Tick);
    let at_end = world.shard.state_hash();
    if world.shard.checkpoint().is_ok() {
        assert_eq!(world.shard.state_hash(), at_end, "a checkpoint changes nothing");
    }
}
