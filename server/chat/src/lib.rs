//! The chat process: routes messages and receipts.
