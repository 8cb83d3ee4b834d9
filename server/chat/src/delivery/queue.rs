//! Pushes that wait for one gateway: bounded bookkeeping, no I/O.

use std::collections::VecDeque;

use switchboard_api::v1::{DeliverRequest, deliver_request::Push};

use crate::limits::{
    DELIVER_BYTES_MAX, DELIVER_PUSHES_MAX, DELIVERS_UNDER_WAY_MAX, GATEWAY_BYTES_MAX,
    GATEWAY_PUSHES_MAX,
};

/// Invariant: `bytes` is the sum over `waiting`, and both are within the limits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Push>,
    bytes: usize,
    under_way: usize,
    next_id: u64,
}

impl Queue {
    /// False when there is no room: the push is dropped.
    pub(super) fn push(&mut self, push: Push) -> bool {
        let bytes = body_bytes(&push);
        if self.waiting.len() >= GATEWAY_PUSHES_MAX || self.bytes + bytes > GATEWAY_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.waiting.push_back(push);
        true
    }

    /// The next request, of all that waits up to a bound; `None` when nothing waits or too much is
    /// not answered.
    pub(super) fn take(&mut self) -> Option<DeliverRequest> {
        if self.waiting.is_empty() || self.under_way >= DELIVERS_UNDER_WAY_MAX {
            return None;
        }
        let (mut pushes, mut bytes) = (Vec::new(), 0);
        while pushes.len() < DELIVER_PUSHES_MAX && bytes < DELIVER_BYTES_MAX {
            let Some(push) = self.waiting.pop_front() else { break };
            bytes += body_bytes(&push);
            pushes.push(push);
        }
        self.bytes -= bytes;
        self.under_way += 1;
        self.next_id += 1;
        Some(DeliverRequest { id: self.next_id, pushes, replaced: Vec::new() })
    }

    /// A request was answered.
    pub(super) fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The stream broke: its requests will not be answered. What waits stays.
    pub(super) fn broke(&mut self) {
        self.under_way = 0;
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Empties the queue; how many pushes were dropped.
    pub(super) fn clear(&mut self) -> usize {
        let dropped = self.waiting.len();
        *self = Self { next_id: self.next_id, ..Self::default() };
        dropped
    }
}

fn body_bytes(push: &Push) -> usize {
    push.message.as_ref().map_or(0, |message| message.body.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use switchboard_api::v1::Message;

    use super::*;

    fn push(n: u64, bytes: usize) -> Push {
        let body = Bytes::from(vec![0; bytes]);
        let message = Some(Message { seq: n, body, ..Message::default() });
        Push { connection_id: n, message, ..Push::default() }
    }

    #[test]
    fn pushes_go_out_in_order_and_in_bounded_requests() {
        let mut queue = Queue::default();
        let count = 3 * DELIVER_PUSHES_MAX as u64;
        for n in 0..count {
            assert!(queue.push(push(n, 1)));
        }
        let mut next = 0;
        while let Some(request) = queue.take() {
            assert!(request.pushes.len() <= DELIVER_PUSHES_MAX);
            for push in request.pushes {
                assert_eq!(push.connection_id, next);
                next += 1;
            }
        }
        assert_eq!((next, queue.bytes), (count, 0));
    }

    #[test]
    fn a_full_queue_drops_and_never_grows() {
        let mut queue = Queue::default();
        let taken = (0..GATEWAY_PUSHES_MAX as u64 + 10).filter(|n| queue.push(push(*n, 0))).count();
        assert_eq!(taken, GATEWAY_PUSHES_MAX);
        assert_eq!(queue.clear(), GATEWAY_PUSHES_MAX);
        let large = 64 * 1024;
        let taken = (0..1000).filter(|n| queue.push(push(*n, large))).count();
        assert_eq!(taken, GATEWAY_BYTES_MAX / large);
        let request = queue.take().unwrap();
        assert_eq!(request.pushes.len(), DELIVER_BYTES_MAX / large);
    }

    #[test]
    fn a_slow_gateway_lets_pushes_gather() {
        let mut queue = Queue::default();
        for n in 0..DELIVERS_UNDER_WAY_MAX as u64 {
            queue.push(push(n, 0));
            assert!(queue.take().is_some());
        }
        queue.push(push(1000, 0));
        queue.push(push(1001, 0));
        assert!(queue.take().is_none());
        queue.answered();
        assert_eq!(queue.take().unwrap().pushes.len(), 2);
        queue.push(push(1002, 0));
        queue.broke();
        assert_eq!(queue.take().unwrap().pushes.len(), 1);
    }
}
