//! Route streams: from a gateway's requests to durable messages, in order.

mod concurrency;
mod copies;
pub(crate) mod pairs;
mod patience;
pub(crate) mod receipts;
pub(crate) mod router;
pub(crate) mod stream;
