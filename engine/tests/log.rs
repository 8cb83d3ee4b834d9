//! The append log from outside: on real files and on simulated ones.

#[path = "log/basic.rs"]
mod basic;
#[path = "log/support.rs"]
mod support;
