//! The Rust SDK: a client of the store for gateways, chats, tools and applications.
