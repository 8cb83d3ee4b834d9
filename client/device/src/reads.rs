//! Read receipts that no gateway has accepted yet: repeated until `ReadAccepted`.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use switchboard_api::device::v1::Read;

use crate::limits::{ANSWER_TIMEOUT, READ_FRAMES_IN_FLIGHT_MAX, READ_IDS_MAX};

/// One frame: ids of one user's messages.
#[derive(Debug)]
struct Batch {
    from_user: Bytes,
    ids: Vec<[u8; 16]>,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Not yet written on this connection.
    waiting: VecDeque<Batch>,
    /// Written, not all accepted.
    in_flight: VecDeque<Batch>,
    /// Every id in `waiting` and `in_flight`, with whose message it is.
    pending: HashMap<[u8; 16], Bytes>,
    overdue_at: Option<Instant>,
}

impl Reads {
    /// Queues ids; those that wait already stay where they are.
    pub(crate) fn push(&mut self, from_user: &Bytes, ids: Vec<[u8; 16]>) {
        for id in ids {
            if self.pending.insert(id, from_user.clone()).is_some() {
                continue;
            }
            match self.waiting.back_mut() {
                Some(batch) if batch.from_user == from_user && batch.ids.len() < READ_IDS_MAX => {
                    batch.ids.push(id);
                }
                _ => self.waiting.push_back(Batch { from_user: from_user.clone(), ids: vec![id] }),
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// A connection ended or begins: all goes out again.
    pub(crate) fn rewind(&mut self) {
        while let Some(batch) = self.in_flight.pop_back() {
            self.waiting.push_front(batch);
        }
        self.overdue_at = None;
    }

    pub(crate) fn next_to_write(&mut self, now: Instant) -> Option<Read> {
        if self.in_flight.len() >= READ_FRAMES_IN_FLIGHT_MAX {
            return None;
        }
        let batch = self.waiting.pop_front()?;
        let read = Read {
            to_user: batch.from_user.clone(),
            message_ids: batch.ids.iter().map(|id| Bytes::copy_from_slice(id)).collect(),
        };
        self.in_flight.push_back(batch);
        self.overdue_at.get_or_insert(now + ANSWER_TIMEOUT);
        Some(read)
    }

    /// Takes accepted ids out; returns those that waited.
    pub(crate) fn accepted(&mut self, ids: &[Bytes], now: Instant) -> Vec<[u8; 16]> {
        let accepted: Vec<[u8; 16]> = ids
            .iter()
            .filter_map(|id| <[u8; 16]>::try_from(id.as_ref()).ok())
            .filter(|id| self.pending.remove(id).is_some())
            .collect();
        let pending = &self.pending;
        for queue in [&mut self.in_flight, &mut self.waiting] {
            // Answers come in order, so the front batch is the one that empties.
            while let Some(batch) = queue.front_mut() {
                batch.ids.retain(|id| pending.contains_key(id));
                if !batch.ids.is_empty() {
                    break;
                }
                queue.pop_front();
            }
        }
        self.overdue_at = (!self.in_flight.is_empty()).then(|| now + ANSWER_TIMEOUT);
        accepted
    }

    /// Writes all again if an answer is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.overdue_at.is_some_and(|at| at <= now) {
            self.rewind();
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.overdue_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u16>) -> Vec<[u8; 16]> {
        range.map(|n| u128::from(n).to_be_bytes()).collect()
    }

    fn written(reads: &mut Reads, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| reads.next_to_write(now).map(|read| read.message_ids.len())).collect()
    }

    fn as_bytes(ids: &[[u8; 16]]) -> Vec<Bytes> {
        ids.iter().map(|id| Bytes::copy_from_slice(id)).collect()
    }

    #[test]
    fn ids_are_split_and_repeated_until_accepted() {
        let now = Instant::now();
        let mut reads = Reads::default();
        let bob = Bytes::from_static(b"bob");
        reads.push(&bob, ids(0..300));
        reads.push(&bob, ids(0..300));
        assert_eq!(reads.len(), 300);
        assert_eq!(written(&mut reads, now), [256, 44]);
        assert_eq!(reads.accepted(&as_bytes(&ids(0..256)), now).len(), 256);
        reads.rewind();
        assert_eq!(written(&mut reads, now), [44]);
        assert_eq!(written(&mut reads, now + ANSWER_TIMEOUT), [] as [usize; 0]);
        reads.expire(now + ANSWER_TIMEOUT);
        assert_eq!(written(&mut reads, now + ANSWER_TIMEOUT), [44]);
        assert_eq!(reads.accepted(&as_bytes(&ids(0..300)), now).len(), 44);
        assert_eq!(reads.len(), 0);
        assert_eq!(reads.wake_at(), None);
    }
}
