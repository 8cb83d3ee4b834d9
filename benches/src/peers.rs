//! What is measured beside Switchboard, set up to do the same work with the same promises.

pub mod maps;
pub mod redis;
