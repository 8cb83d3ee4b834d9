//! One replication group on this node: a replica of a shard (or of the meta group) with everything
//! that drives it.
//!
//! ```text
//!  propose ─▶ Proposer ─▶ openraft ─▶ LogStore ─▶ Log (all groups)
//!                            │ committed
//!                            ▼
//!                       StateMachine ─▶ Shard ◀─ reads (after a barrier, if asked for)
//!                            └─▶ News: applied index, applied entries
//! ```
//! Order invariant: `purged ≤ checkpoint ≤ applied ≤ committed`, and on the leader of a one-voter
//! group `committed ≤ flushed`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader, RaftError};
use parking_lot::Mutex;
use switchboard_engine::log::Log;
use switchboard_engine::{Command, GroupId, LogId, Shard};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::barrier::{Barrier, Consistency};
use crate::clocks::Clocks;
use crate::error::{BarrierError, GroupOpenError, OverloadReason, Overloaded, WaitError};
use crate::freshness::Freshness;
use crate::limits::OVERLOADED_RETRY_MAX;
use crate::log_store::LogStore;
use crate::log_time::LogTime;
use crate::network::{NetworkFactory, Transport, Unsent};
use crate::newcomer::Newcomer;
use crate::proposer::{Bounds, Outcome, Proposed, Proposer, Sink, UnderWay};
use crate::settings;
use crate::snapshot::SnapshotDir;
use crate::state_machine::{Applied, News, StateMachine};
use crate::status::{GroupStatus, Role, Staleness, status};
use crate::types::{EntryData, NodeId, Responder, TypeConfig};

pub(crate) type GroupRaft = Raft<TypeConfig, StateMachine>;

/// What a group is opened with.
pub(crate) struct GroupParts {
    pub(crate) id: GroupId,
    pub(crate) node_id: NodeId,
    pub(crate) log: Log,
    pub(crate) shard: Arc<Shard>,
    pub(crate) newcomer: Newcomer,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) snapshots: SnapshotDir,
    pub(crate) bounds: Bounds,
    pub(crate) admission: Arc<Admission>,
}

/// A replica of one group.
pub struct Group {
    id: GroupId,
    node_id: NodeId,
    raft: GroupRaft,
    log: Log,
    shard: Arc<Shard>,
    news: Arc<News>,
    proposer: Arc<Proposer>,
    admission: Arc<Admission>,
    /// Taken by the shutdown, which waits for it.
    proposing: Mutex<Option<JoinHandle<()>>>,
    freshness: Freshness,
    pub(crate) newcomer: Newcomer,
    pub(crate) transport: Arc<dyn Transport>,
    unsent: Unsent,
    /// Held while members change: there is one change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    lease: Arc<Barrier>,
    read_index: Arc<Barrier>,
    /// Set before this replica is dropped: that it stops then is no failure.
    leaving: AtomicBool,
    /// Until then no vote is granted: a promise given before the start may still bind.
    pub(crate) silent_until: Option<Instant>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("node_id", &self.node_id).finish()
    }
}

impl Group {
    /// Starts the replica; it takes part in elections from now on.
    pub(crate) async fn open(parts: GroupParts) -> Result<Arc<Self>, GroupOpenError> {
        let GroupParts { id, node_id, log, shard, clocks, transport, .. } = parts;
        let GroupParts { snapshots, bounds, admission, newcomer, .. } = parts;
        let store = LogStore::new(log.clone(), id)
            .map_err(|source| GroupOpenError::Vote { group: id, source })?;
        let silent_until =
            store.has_voted().then(|| Instant::now() + settings::VOTE_SILENCE_AFTER_START);
        let log_time = Arc::new(LogTime::new(clocks, shard.log_time_ms()));
        let inherited = log.group_state(id).last;
        let news = Arc::new(News::new(log_time.clone(), shard.applied(), inherited));
        let machine = StateMachine::new(shard.clone(), news.clone(), snapshots);
        let unsent = Unsent::default();
        let network = NetworkFactory {
            transport: transport.clone(),
            node_id,
            group: id,
            unsent: unsent.clone(),
        };
        let config = settings::raft_config(format!("group-{id}"))
            .map_err(|error| GroupOpenError::Settings { reason: error.to_string() })?;
        let raft = Raft::new(node_id, config, network, store, machine)
            .await
            .map_err(|error| GroupOpenError::Raft { group: id, reason: error.to_string() })?;
        raft.runtime_config().elect(!newcomer.is_new());
        let proposer = Arc::new(Proposer::new(log_time, bounds));
        let proposing = tokio::spawn(proposer.clone().run(RaftSink { raft: raft.clone() }));
        Ok(Arc::new(Self {
            id,
            node_id,
            log,
            shard,
            news,
            proposer,
            admission,
            proposing: Mutex::new(Some(proposing)),
            freshness: Freshness::default(),
            newcomer,
            transport,
            unsent,
            changing: tokio::sync::Mutex::default(),
            leaving: AtomicBool::new(false),
            lease: Barrier::lease(raft.clone()),
            read_index: Barrier::read_index(raft.clone()),
            raft,
            silent_until,
        }))
    }

    /// Deletes snapshots that nobody will ask for again: who was to get them is no member any more, or another
    /// replica leads.
    pub(crate) fn drop_unsent(&self) {
        let mut unsent = self.unsent.lock();
        if unsent.is_empty() {
            return;
        }
        let status = self.status();
        let is_led = status.role == Role::Leader;
        unsent.retain(|node, _| {
            is_led && (status.voters.contains(node) || status.learners.contains(node))
        });
    }

    /// Which group: 0 is the meta group, shard `s` is `s + 1`.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The state, to read.
    #[must_use]
    pub fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// Hands commands over, to be appended in the order of the calls; the future resolves with
    /// one reply a command once they are durable on a majority and applied here.
    ///
    /// The hand-over happens in this call, whether or not the future is polled.
    pub fn propose(&self, commands: Vec<Command>) -> Result<Proposed, Overloaded> {
        if !self.admission.admits(&commands) {
            let reason = OverloadReason::DiskReserve;
            return Err(Overloaded { retry_after: OVERLOADED_RETRY_MAX, reason });
        }
        self.proposer.propose(commands)
    }

    /// Whether entries of a leader find no room.
    pub(crate) fn is_full(&self) -> bool {
        self.admission.is_full()
    }

    /// Waits until a read of [`Self::shard`] is as fresh as asked for, and says how stale it may
    /// be. Concurrent calls share one check of leadership.
    pub async fn barrier(&self, consistency: Consistency) -> Result<Staleness, BarrierError> {
        match consistency {
            Consistency::Local => return Ok(self.staleness()),
            Consistency::Lease => self.lease.pass().await?,
            Consistency::Linearizable => self.read_index.pass().await?,
        }
        Ok(Staleness::fresh(self.shard.applied()))
    }

    /// How stale a read of this replica may be right now.
    #[must_use]
    pub fn staleness(&self) -> Staleness {
        let applied = self.shard.applied();
        let heard = self.freshness.age(applied.map_or(0, |at| at.index));
        Staleness::of(&self.raft.metrics().borrow_watched(), applied, heard)
    }

    /// A leader's append that came at `heard_at` was taken: it has said what is committed.
    pub(crate) fn hear(&self, committed: Option<u64>, heard_at: Instant) {
        let applied = self.shard.applied().map_or(0, |at| at.index);
        self.freshness.hear(committed.unwrap_or(0), applied, heard_at);
    }

    /// Lets a replica vote and stand for election that was new here.
    pub(crate) async fn end_newness(&self) -> std::io::Result<()> {
        self.newcomer.end().await?;
        self.raft.runtime_config().elect(true);
        Ok(())
    }

    /// Begins the group with these voters. Where several begin it, each has to do so with the same ones.
    pub(crate) async fn begin(
        &self,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), RaftError<TypeConfig, openraft::errors::InitializeError<TypeConfig>>> {
        // Nobody has made promises in a group that is about to begin.
        if let Err(error) = self.end_newness().await {
            tracing::error!(group = self.id, %error, "a replica stays marked as new");
        }
        self.raft.initialize(voters).await
    }

    /// Says that this replica is about to be dropped, or that it is not after all. While it is, it takes
    /// nothing from a peer.
    pub(crate) fn set_leaving(&self, is_leaving: bool) {
        self.leaving.store(is_leaving, Ordering::Release);
    }

    /// Whether it is about to be dropped.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// The id of this node.
    pub(crate) fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), WaitError> {
        let reached = |applied: &Option<LogId>| applied.is_some_and(|at| at.index >= index);
        if reached(&self.shard.applied()) {
            return Ok(());
        }
        let mut applied = self.news.watch_applied();
        match tokio::time::timeout_at(deadline, applied.wait_for(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::Timeout { index }),
        }
    }

    /// Follows the log id of the last entry applied here.
    #[must_use]
    pub fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.news.watch_applied()
    }

    /// Entries of commands as they are applied here, from now on. A listener that falls behind by
    /// more than [`crate::limits::APPLIED_EVENTS_MAX`] is told that it lagged, and how far.
    #[must_use]
    pub fn applied_events(&self) -> broadcast::Receiver<Arc<Applied>> {
        self.news.subscribe()
    }

    /// The node that leads the group, as far as this replica knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Whether this replica believes that it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.node_id)
    }

    /// Whether this replica has no vote, as while it catches up.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.raft.metrics().borrow_watched().state == openraft::ServerState::Learner
    }

    /// Whether this replica was opened empty where others had one, and holds too little to say anything of the group, as
    /// who leads it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.newcomer.is_new()
    }

    /// Log time as this node would stamp an entry now.
    #[must_use]
    pub fn log_time_now_ms(&self) -> u64 {
        self.news.log_time.now()
    }

    /// Everything that an operator may ask about this replica.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let log_time = &self.news.log_time;
        GroupStatus {
            log_time_ms: self.shard.log_time_ms(),
            clock_alarms: log_time.alarms(),
            clock_leaping: log_time.is_leaping(),
            proposer: self.proposer.stats(),
            log_bytes: self.log.retained_bytes(self.id),
            ..status(self.id, &self.raft.metrics().borrow_watched())
        }
    }

    pub(crate) fn raft(&self) -> &GroupRaft {
        &self.raft
    }

    /// Who votes, asked of openraft itself: its metrics are empty for a moment after a start.
    pub(crate) async fn voters(&self) -> Result<Vec<NodeId>, Fatal<TypeConfig>> {
        let voters = |state: &openraft::RaftState<TypeConfig>| {
            state.membership_state.effective().voter_ids().collect()
        };
        self.raft.with_raft_state(voters).await
    }

    /// Who has a replica, voters and learners, asked of openraft itself as [`Self::voters`] is.
    pub(crate) async fn members(&self) -> Result<Vec<NodeId>, Fatal<TypeConfig>> {
        let members = |state: &openraft::RaftState<TypeConfig>| {
            state.membership_state.effective().nodes().map(|(id, ())| *id).collect()
        };
        self.raft.with_raft_state(members).await
    }

    /// Whether a change of its voters is half done.
    pub async fn is_changing_members(&self) -> bool {
        let is_joint = |state: &openraft::RaftState<TypeConfig>| {
            state.membership_state.effective().membership().get_joint_config().len() > 1
        };
        self.raft.with_raft_state(is_joint).await.unwrap_or(true)
    }

    pub(crate) fn log_time(&self) -> &LogTime {
        &self.news.log_time
    }

    /// What the clock of this node shows.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.news.log_time.clock_ms()
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Proposes a tick if this replica leads and something is due by now.
    pub(crate) fn tick_if_due(&self) -> bool {
        // To know what is due takes a look at every bucket of the shard; only who leads needs it.
        let is_due = || {
            let due_ms = self.shard.next_due_ms();
            due_ms.is_some_and(|due_ms| due_ms <= self.log_time_now_ms())
        };
        // The outcome does not matter: the next look repeats it while something is due.
        self.is_leader() && is_due() && self.propose(vec![Command::Tick]).is_ok()
    }

    /// Stops proposing, then the replica. What waited is answered.
    pub(crate) async fn shutdown(&self) {
        self.proposer.close();
        let proposing = self.proposing.lock().take();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = self.id, %error, "a group did not stop cleanly");
        }
        if let Some(proposing) = proposing
            && let Err(error) = proposing.await
        {
            tracing::error!(group = self.id, %error, "a proposer did not stop cleanly");
        }
    }
}

/// Where a group's entries go.
struct RaftSink {
    raft: GroupRaft,
}

impl Sink for RaftSink {
    async fn hand_over(&self, entry: Bytes) -> UnderWay {
        let (responder, committed, completed) = Responder::new();
        let handed_over = self.raft.client_write_ff(EntryData(entry), Some(responder)).await;
        let stopped = handed_over.is_err();
        UnderWay {
            committed: Box::pin(async move { committed.await.map(drop).map_err(drop) }),
            outcome: Box::pin(async move {
                match completed.await {
                    _ if stopped => Outcome::Stopped,
                    Ok(Ok(response)) => Outcome::Applied(response.data.into_vec()),
                    Ok(Err(ClientWriteError::ForwardToLeader(forward))) => refused(&forward),
                    // LogEntryDiscarded, or a responder that went down with openraft.
                    Ok(Err(_)) | Err(_) => Outcome::Unknown,
                }
            }),
        }
    }
}

/// openraft refused the entry before appending it.
fn refused(forward: &ForwardToLeader<TypeConfig>) -> Outcome {
    match forward.reason {
        ForwardReason::LeaseExpired => Outcome::LeaseExpired,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            Outcome::NotLeader(forward.leader_id)
        }
    }
}
