//! The Switchboard binary.
fn main() {}
