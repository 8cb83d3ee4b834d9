//! The embedded engine: sessions and mailboxes over an append log.
