//! The append log from outside: on real files and on simulated ones.

#[path = "log/basic.rs"]
mod basic;
#[path = "log/corrupt.rs"]
mod corrupt;
#[path = "log/crash.rs"]
mod crash;
#[path = "log/full.rs"]
mod full;
#[path = "log/model.rs"]
mod model;
#[path = "log/recycle.rs"]
mod recycle;
#[path = "log/support.rs"]
mod support;
