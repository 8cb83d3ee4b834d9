//! How a client behaves. The defaults suit gateways and chats.

use std::time::Duration;

/// Settings of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// For one call with all its retries. Default 10 s. A node that does not answer within a fifth of
    /// it, at least a second, is given up for another, if there is one, unless the call must not be
    /// repeated or may take long.
    pub deadline: Duration,
    /// For making a connection, and for an answer to the watch of the shard map. Default 2 s.
    pub connect_timeout: Duration,
    /// A stream that owes an answer for so long is given up. Default 10 s.
    pub stall_timeout: Duration,
    /// How long a connection may be silent before it is probed. Default 1 s.
    pub keep_alive: Duration,
    /// How long a probe may stay unanswered before the connection is given up, with all that is under way
    /// on it: a node that lost its power or was cut off says nothing more. Default 2 s.
    pub keep_alive_timeout: Duration,
    /// The first wait before a retry or a new connection, before jitter. Default 20 ms.
    pub backoff_base: Duration,
    /// The longest wait before a retry or a new connection. Default 1 s.
    pub backoff_max: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
            backoff_base: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl ClientOptions {
    /// The same with another deadline for a call with all its retries.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}
