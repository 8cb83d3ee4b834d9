//! The store process: sessions, mailboxes, gateways and placement over gRPC.
