//! What is measured beside Switchboard, set up to do the same work with the same promises.

#[cfg(feature = "peers")]
pub mod durable;
pub mod etcd;
pub mod maps;
pub mod mqtt;
pub mod nats;
pub mod redis;
pub mod talk;
pub mod xmpp;
