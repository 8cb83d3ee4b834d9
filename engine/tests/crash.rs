//! Crashes at every named point of everything that is kept on a disk.
//!
//! `SWITCHBOARD_CRASH_RUNS=10000` makes as many runs, `SWITCHBOARD_CRASH_SEED=7` repeats one; the
//! table of points and hits is shown by `--nocapture`.

#[path = "crash/aim.rs"]
mod aim;
#[path = "log/model.rs"]
mod model;
#[path = "crash/node.rs"]
mod node;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/pursuit.rs"]
mod pursuit;
#[path = "crash/reference.rs"]
mod reference;
#[path = "crash/runs.rs"]
mod runs;
#[path = "crash/store.rs"]
mod store;
#[path = "crash/tables.rs"]
mod tables;
#[path = "crash/workload.rs"]
mod workload;

#[test]
fn a_store_loses_nothing_wherever_the_machine_goes_down() {
    runs::survive::<store::StoreWorld>("a_store_loses", tables::STORE);
}

#[test]
fn a_node_loses_nothing_wherever_the_machine_goes_down() {
    runs::survive::<node::NodeWorld>("a_node_loses", tables::NODE);
}
