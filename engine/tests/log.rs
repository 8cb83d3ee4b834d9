//! The append log from outside: on real files and on simulated ones.

#[path = "log/basic.rs"]
mod basic;
#[path = "log/crash.rs"]
mod crash;
#[path = "log/model.rs"]
mod model;
#[path = "log/support.rs"]
mod support;
