//! Lines on standard output that scripts wait for. Everything else goes to standard error.

use std::{io::Write, net::SocketAddr};

/// Prints `listening NAME ADDRESS`.
pub fn announce(name: &str, address: SocketAddr) {
    line(format_args!("listening {name} {address}"));
}

/// Prints `ready`, after all addresses.
pub fn ready() {
    line(format_args!("ready"));
}

fn line(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away must not stop a server.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
