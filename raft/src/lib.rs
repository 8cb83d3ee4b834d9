//! Replication: openraft groups on the engine's log.
