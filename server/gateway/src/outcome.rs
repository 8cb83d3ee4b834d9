//! What a chat answered for one send or one batch of receipts.

use std::time::Duration;

use switchboard_api::{device::v1::error::Code, v1::ItemStatus};

/// An answer, or the lack of one: a stream that broke answers UNAVAILABLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: ItemStatus,
    pub(crate) at_ms: u64,
    pub(crate) retry_after_ms: u64,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is durable.
    Durable,
    /// Send it again.
    Retry,
    /// It will never be taken.
    Refused,
}

impl Outcome {
    /// Nothing is known of it; nobody may have seen it.
    pub(crate) const UNAVAILABLE: Self =
        Self { status: ItemStatus::Unavailable, at_ms: 0, retry_after_ms: 0 };

    pub(crate) fn verdict(&self) -> Verdict {
        match self.status {
            ItemStatus::Ok | ItemStatus::Duplicate => Verdict::Durable,
            ItemStatus::Overloaded | ItemStatus::Unavailable => Verdict::Retry,
            _ => Verdict::Refused,
        }
    }

    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_millis(self.retry_after_ms.min(10_000))
    }

    /// The code that a device is told.
    pub(crate) fn code(&self) -> Code {
        match self.status {
            ItemStatus::MailboxFull => Code::MailboxFull,
            ItemStatus::TooLarge => Code::TooLarge,
            ItemStatus::Invalid => Code::Invalid,
            ItemStatus::Overloaded => Code::Overloaded,
            ItemStatus::Unavailable => Code::Unavailable,
            _ => Code::Internal,
        }
    }

    /// For people to read.
    pub(crate) fn reason(&self) -> &'static str {
        match self.status {
            ItemStatus::MailboxFull => "the recipient's mailbox is full",
            ItemStatus::TooLarge => "the message is too large",
            ItemStatus::Invalid => "the message is not valid, or the recipient has no such device",
            ItemStatus::Overloaded => "the servers are busy",
            ItemStatus::Unavailable => "the servers cannot be reached",
            _ => "the message was refused",
        }
    }
}
