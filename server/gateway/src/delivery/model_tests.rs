//! Tests of delivery against a model mailbox.
