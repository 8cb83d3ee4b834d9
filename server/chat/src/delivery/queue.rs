//! Pushes that wait for one gateway: bounded bookkeeping, no I/O.

use std::collections::{HashMap, VecDeque};

use switchboard_api::v1::{
    DeliverRequest, DeliverResponse, DeviceRef, ItemStatus, deliver_request::Push, message::Kind,
};

use crate::limits::{
    DELIVER_BYTES_MAX, DELIVER_PUSHES_MAX, DELIVERS_UNDER_WAY_MAX, GATEWAY_BYTES_MAX,
    GATEWAY_PUSHES_MAX,
};

/// Invariant: `bytes` is the sum over `waiting`, and both are within the limits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Push>,
    bytes: usize,
    /// Whether anybody is woken up, so that it must be known who a push was for.
    wakes: bool,
    /// By the id of a request, whom its pushes wake up if they find nobody: none for a receipt.
    under_way: HashMap<u64, Vec<Option<DeviceRef>>>,
    next_id: u64,
}

impl Queue {
    pub(super) fn new(wakes: bool) -> Self {
        Self { wakes, ..Self::default() }
    }

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
        if self.waiting.is_empty() || self.under_way.len() >= DELIVERS_UNDER_WAY_MAX {
            return None;
        }
        let (mut pushes, mut bytes) = (Vec::new(), 0);
        while pushes.len() < DELIVER_PUSHES_MAX && bytes < DELIVER_BYTES_MAX {
            let Some(push) = self.waiting.pop_front() else { break };
            bytes += body_bytes(&push);
            pushes.push(push);
        }
        self.bytes -= bytes;
        self.next_id += 1;
        let noted = if self.wakes { &pushes[..] } else { &[] };
        self.under_way.insert(self.next_id, noted.iter().map(asleep_if_fenced).collect());
        Some(DeliverRequest { id: self.next_id, pushes, replaced: Vec::new() })
    }

    /// A request was answered; the devices that a message was for and that were not there.
    pub(super) fn answered(&mut self, response: &DeliverResponse) -> Vec<DeviceRef> {
        let devices = self.under_way.remove(&response.id).unwrap_or_default();
        let answered = devices.into_iter().zip(response.statuses());
        let fenced = answered.filter(|(_, status)| *status == ItemStatus::Fenced);
        fenced.filter_map(|(device, _)| device).collect()
    }

    /// The stream broke: its requests will not be answered. What waits stays.
    pub(super) fn broke(&mut self) {
        self.under_way.clear();
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Empties the queue; how many pushes were dropped.
    pub(super) fn clear(&mut self) -> usize {
        let dropped = self.waiting.len();
        *self = Self { next_id: self.next_id, ..Self::new(self.wakes) };
        dropped
    }
}

fn asleep_if_fenced(push: &Push) -> Option<DeviceRef> {
    let is_content = push.message.as_ref().is_some_and(|message| message.kind() == Kind::Content);
    push.device.as_ref().filter(|_| is_content).cloned()
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
    fn whose_message_found_nobody_is_told_and_no_receipt_counts() {
        let to = |device, kind: Kind| {
            let message = Some(Message { kind: kind.into(), ..Message::default() });
            let device = Some(DeviceRef { user: Bytes::from_static(b"bob"), device });
            Push { device, message, ..Push::default() }
        };
        let mut queue = Queue::new(true);
        for (device, kind) in [(1, Kind::Content), (2, Kind::Content), (3, Kind::Receipt)] {
            queue.push(to(device, kind));
        }
        let id = queue.take().unwrap().id;
        let statuses = [ItemStatus::Ok, ItemStatus::Fenced, ItemStatus::Fenced];
        let response = DeliverResponse { id, statuses: statuses.map(Into::into).to_vec() };
        let asleep = queue.answered(&response);
        assert_eq!(asleep.iter().map(|device| device.device).collect::<Vec<_>>(), [2]);
        assert!(queue.answered(&response).is_empty());
    }

    #[test]
    fn a_slow_gateway_lets_pushes_gather() {
        let mut queue = Queue::default();
        let mut last = 0;
        for n in 0..DELIVERS_UNDER_WAY_MAX as u64 {
            queue.push(push(n, 0));
            last = queue.take().unwrap().id;
        }
        queue.push(push(1000, 0));
        queue.push(push(1001, 0));
        assert!(queue.take().is_none());
        queue.answered(&DeliverResponse { id: last, statuses: Vec::new() });
        assert_eq!(queue.take().unwrap().pushes.len(), 2);
        queue.push(push(1002, 0));
        queue.broke();
        assert_eq!(queue.take().unwrap().pushes.len(), 1);
    }
}
