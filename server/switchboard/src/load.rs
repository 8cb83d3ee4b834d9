//! Load on a running system, and what it did: the parts that `bench locate|claim|enqueue|message`
//! share.
//!
//! ```text
//!  turns (when to begin) ──▶ workers ──▶ Work::call ──▶ servers
//!                               │
//!                               └──▶ samples ──▶ live line, report (with CPU and memory of servers)
//! ```
//! *Closed loop*: a worker begins its next call when the one before is answered, so the load adapts
//! to the servers. *Open loop*: calls are due at a fixed rate whatever the servers do, and a latency
//! counts from when the call was due, not from when a worker was free for it; so a server that
//! stands still for a second is seen by everyone who would have come in that second.

pub(crate) mod device;
pub(crate) mod drive;
pub(crate) mod kernel;
pub(crate) mod live;
pub(crate) mod people;
pub(crate) mod report;
pub(crate) mod samples;
pub(crate) mod servers;
pub(crate) mod source;
pub(crate) mod turns;
