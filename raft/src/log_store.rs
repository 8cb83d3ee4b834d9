//! openraft's log storage on the node's one log.
//!
//! Every write goes to [`Log::append`] in the order in which openraft makes it, votes and entries
//! alike, and the log keeps that order on disk: what openraft asks for (a term is durable before
//! any entry of that term) follows without waiting. Only a vote is waited for, because openraft
//! answers a candidate when `save_vote` returns. Completions of appends come from the log's writer
//! and may come late, but never before the sync.
//!
//! Truncation and purge are not waited for either: an entry in the place of a truncated one lies behind it in
//! the same log, so it is never durable without it, and whoever installs a snapshot waits for both.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use futures::stream::{self, Stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use switchboard_engine::log::{Log, Record};
use switchboard_engine::{GroupId, LogId};
use tokio::sync::oneshot;

use crate::codec;
use crate::limits::{APPEND_BYTES_MAX, APPLY_READ_BYTES_MAX};
use crate::planted::{self, PlantedBug};
use crate::types::{
    RaftEntry, RaftLogId, RaftVote, TypeConfig, entry_to_raft, payload_to_engine, to_engine,
    to_raft,
};

/// The part of the node's log that is one group's, as openraft writes and reads it.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Log,
    group: GroupId,
    /// The last vote that is durable. A lock because readers may ask on other tasks; it is held
    /// to copy a vote.
    vote: Arc<Mutex<Option<RaftVote>>>,
}

impl LogStore {
    pub(crate) fn new(log: Log, group: GroupId) -> io::Result<Self> {
        let vote = match log.group_state(group).vote {
            Some(bytes) => Some(codec::decode_vote(&bytes).map_err(invalid)?),
            None => None,
        };
        Ok(Self { log, group, vote: Arc::new(Mutex::new(vote)) })
    }

    /// Whether this replica ever voted, so that a promise to a leader may outlive its restart.
    pub(crate) fn has_voted(&self) -> bool {
        self.vote.lock().is_some()
    }

    /// Hands records to the log; what becomes of them is reported by the writes behind them.
    fn append_lazily(&self, record: Record) {
        self.log.append(
            vec![record],
            Box::new(|done| {
                if let Err(error) = done {
                    tracing::error!(%error, "the log failed under a record that nobody waits for");
                }
            }),
        );
    }

    /// The part of `range` that the log has, half open.
    fn present(&self, range: impl RangeBounds<u64>) -> std::ops::Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.log.group_state(self.group);
        let first = state.first.unwrap_or(u64::MAX);
        let next = state.last.map_or(0, |last| last.index.saturating_add(1));
        start.max(first)..end.min(next)
    }

    /// Entries of a range that is known to be there, at least one, up to about `bytes_max`.
    fn read(&self, range: std::ops::Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self.log.read(self.group, range, bytes_max).map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|(log_id, payload)| entry_to_raft(log_id, payload).map_err(invalid))
            .collect()
    }

    fn log_id_at(&self, index: u64) -> io::Result<LogId> {
        self.log.log_id_at(self.group, index).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no entry at index {index}"))
        })
    }

    /// The last index in `first..=last` with the term of `first`; terms never decrease.
    fn last_of_term(&self, first: LogId, last: LogId) -> io::Result<LogId> {
        let (mut low, mut high) = (first, last.index);
        while low.index < high {
            let middle = self.log_id_at(low.index + (high - low.index).div_ceil(2))?;
            if middle.term == first.term { low = middle } else { high = middle.index - 1 }
        }
        Ok(low)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let range = store.present(range);
        let chunks = stream::unfold((store, range), |(store, mut range)| async move {
            if range.is_empty() {
                return None;
            }
            let entries = store.read(range.clone(), APPLY_READ_BYTES_MAX);
            match entries.as_ref().map(|entries| entries.len() as u64) {
                Ok(read) if read > 0 => range.start += read,
                Ok(_) | Err(_) => range.start = range.end,
            }
            Some((entries, (store, range)))
        });
        let entries = futures::StreamExt::flat_map(chunks, |chunk| match chunk {
            Ok(entries) => futures::future::Either::Left(stream::iter(entries.into_iter().map(Ok))),
            Err(error) => futures::future::Either::Right(stream::iter([Err(error)])),
        });
        Box::pin(entries)
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = self.present(range);
        if range.is_empty() { Ok(Vec::new()) } else { self.read(range, usize::MAX) }
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let range = self.present(start..end);
        if range.is_empty() { Ok(Vec::new()) } else { self.read(range, APPEND_BYTES_MAX) }
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(*self.vote.lock())
    }

    /// openraft's own search reads whole entries to learn their ids; the log knows them.
    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<RaftLogId>,
    ) -> io::Result<Vec<RaftLogId>> {
        let (mut next, last) = (to_engine(range.start()), to_engine(range.end()));
        let mut keys = Vec::new();
        loop {
            let key = self.last_of_term(next, last)?;
            keys.push(to_raft(key));
            if key.index >= last.index {
                return Ok(keys);
            }
            next = self.log_id_at(key.index + 1)?;
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.group_state(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_raft),
            last_log_id: state.last.map(to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        // Openraft notices one that is behind its own log: a leader's is in the log's terms.
        if planted::is(PlantedBug::LostVote) && !vote.committed {
            *self.vote.lock() = Some(*vote);
            return Ok(());
        }
        let (sender, done) = oneshot::channel();
        self.log.append(
            vec![Record::Vote { group: self.group, bytes: codec::encode_vote(vote) }],
            // A receiver that is gone belongs to a group that was stopped meanwhile.
            Box::new(move |result| drop(sender.send(result))),
        );
        match done.await {
            Ok(result) => result.map_err(io::Error::other)?,
            Err(_) => return Err(io::Error::other("the log was closed")),
        }
        *self.vote.lock() = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(log_id) = committed {
            self.append_lazily(Record::Committed { group: self.group, log_id: to_engine(&log_id) });
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.log.group_state(self.group).committed.map(to_raft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let group = self.group;
        let records: Vec<Record> = entries
            .into_iter()
            .map(|entry| Record::Entry {
                group,
                log_id: to_engine(&entry.log_id),
                payload: payload_to_engine(entry.payload),
            })
            .collect();
        if planted::is(PlantedBug::AnswerBeforeSync) {
            self.log.append(records, Box::new(|_| {}));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let done = Box::new(move |result: Result<(), _>| {
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.log.append(records, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        let after = last_log_id.as_ref().map(to_engine);
        self.append_lazily(Record::Truncate { group: self.group, after });
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.append_lazily(Record::Purge { group: self.group, upto: to_engine(&log_id) });
        Ok(())
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
