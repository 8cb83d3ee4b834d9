//! What is measured beside Switchboard, set up to do the same work with the same promises.

#[cfg(feature = "peers")]
pub mod durable;
pub mod maps;
pub mod redis;
