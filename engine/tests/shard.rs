//! A shard on a simulated disk: what it answers, what survives, what two replicas agree on.

#[path = "shard/bad_input.rs"]
mod bad_input;
#[path = "shard/checkpoints.rs"]
mod checkpoints;
#[path = "shard/determinism.rs"]
mod determinism;
#[path = "shard/families.rs"]
mod families;
#[path = "shard/golden.rs"]
mod golden;
#[path = "shard/ids.rs"]
mod ids;
#[path = "shard/model.rs"]
mod model;
#[path = "shard/restoring.rs"]
mod restoring;
#[path = "shard/support.rs"]
mod support;
