//! Route streams: from a gateway's requests to durable messages, in order.

pub(crate) mod pairs;
pub(crate) mod receipts;
pub(crate) mod stream;
