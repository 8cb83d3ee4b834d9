//! The network between nodes, and between clients and nodes: it delays, loses, repeats and cuts.
//!
//! What it keeps is what [`Transport`] promises: requests of one group to one peer arrive in the
//! order of the calls or not at all, except that votes, hand-overs and clocks may overtake.
//! Everything that is under way is here, by the time at which it arrives, so that the world can hand
//! it out between two steps of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use switchboard_engine::GroupId;
use switchboard_engine::fs::sim::Random;
use switchboard_raft::simulation::Vote;
use switchboard_raft::{
    NodeId, PeerRequest, PeerResponse, SnapshotFile, Transport, TransportError,
};
use tokio::sync::oneshot;

use crate::clients::{Answer, Ask};
use crate::clock::Time;

/// Something on its way.
pub enum Letter {
    Request { from: NodeId, to: NodeId, group: GroupId, request: PeerRequest, call: u64 },
    Answer { from: NodeId, to: NodeId, answer: PeerResponse, call: u64 },
    Snapshot { from: NodeId, to: NodeId, group: GroupId, vote: Vote, file: SnapshotFile, call: u64 },
    SnapshotAnswer { from: NodeId, to: NodeId, vote: Vote, call: u64 },
    Ask { to: NodeId, ask: Ask },
    Told { from: NodeId, answer: Answer },
}

impl Letter {
    /// The nodes between which it travels; clients are never cut off from a node.
    fn link(&self) -> Option<(NodeId, NodeId)> {
        match self {
            Self::Request { from, to, .. }
            | Self::Answer { from, to, .. }
            | Self::Snapshot { from, to, .. }
            | Self::SnapshotAnswer { from, to, .. } => Some((*from, *to)),
            Self::Ask { .. } | Self::Told { .. } => None,
        }
    }

    /// What is said of it in the trace.
    pub fn describe(&self) -> String {
        match self {
            Self::Request { from, to, group, request, call } => {
                let what = match request {
                    PeerRequest::Append(rpc) => format!("append {rpc}"),
                    PeerRequest::Vote(_) => "vote".into(),
                    PeerRequest::PreVote(_) => "prevote".into(),
                    PeerRequest::TransferLeader(_) => "transfer".into(),
                    PeerRequest::Clock => "clock".into(),
                    PeerRequest::MayForget { node } => format!("may forget {node}"),
                    PeerRequest::IsNew => "is new".into(),
                };
                format!("{from}>{to}/{group} {call} {what}")
            }
            Self::Answer { from, to, call, answer } => {
                format!("{from}>{to} answer {call} {answer:?}")
            }
            Self::Snapshot { from, to, group, .. } => format!("{from}>{to}/{group} snapshot"),
            Self::SnapshotAnswer { from, to, .. } => format!("{from}>{to} installed"),
            Self::Ask { to, ask } => format!(">{to} {ask:?}"),
            Self::Told { from, answer } => format!("{from}> {answer:?}"),
        }
    }
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub delay_ms_max: u64,
    /// One letter in so many is lost; 0: none.
    pub lost_one_in: u64,
    /// One request in so many arrives twice; 0: none.
    pub twice_one_in: u64,
}

pub const FAIR: Weather = Weather { delay_ms_max: 2, lost_one_in: 0, twice_one_in: 0 };
pub const STORM: Weather = Weather { delay_ms_max: 60, lost_one_in: 12, twice_one_in: 12 };

struct State {
    random: Random,
    weather: Weather,
    under_way: BTreeMap<(u64, u64), Letter>,
    next: u64,
    /// When the last ordered request of a stream arrives: none arrives before it.
    streams: BTreeMap<(NodeId, NodeId, GroupId), u64>,
    /// Directions in which nothing passes.
    cut: BTreeSet<(NodeId, NodeId)>,
    calls: BTreeMap<u64, Waiting>,
    /// Nodes that a group does not talk to: they have another disk than they joined with.
    barred: BTreeSet<(NodeId, GroupId)>,
}

/// Who waits for the answer to a call.
enum Waiting {
    Answer(oneshot::Sender<PeerResponse>),
    Vote(oneshot::Sender<Vote>),
}

#[derive(Clone)]
pub struct Net {
    time: Time,
    /// A lock because transports must be shared between threads; there is only one.
    state: Arc<Mutex<State>>,
}

impl Net {
    pub fn new(time: Time, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            weather: FAIR,
            under_way: BTreeMap::new(),
            next: 0,
            streams: BTreeMap::new(),
            cut: BTreeSet::new(),
            calls: BTreeMap::new(),
            barred: BTreeSet::new(),
        };
        Self { time, state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Cuts one direction.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
    }

    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.weather = FAIR;
    }

    /// From now on nothing of a group goes to a node or comes from it.
    pub fn bar(&self, node: NodeId, group: GroupId) {
        self.state.lock().barred.insert((node, group));
    }

    pub fn unbar(&self, node: NodeId, group: GroupId) {
        self.state.lock().barred.remove(&(node, group));
    }

    pub fn is_barred(&self, node: NodeId, group: GroupId) -> bool {
        self.state.lock().barred.contains(&(node, group))
    }

    /// Sends a letter, which may never arrive.
    pub fn send(&self, letter: Letter) {
        let now_ms = self.time.now_ms();
        self.state.lock().send(now_ms, letter);
    }

    /// The next letter that has arrived by now.
    pub fn arrived(&self) -> Option<Letter> {
        let mut state = self.state.lock();
        loop {
            let first = state.under_way.first_entry()?;
            if first.key().0 > self.time.now_ms() {
                return None;
            }
            let letter = first.remove();
            if !letter.link().is_some_and(|link| state.cut.contains(&link)) && !state.bars(&letter)
            {
                return Some(letter);
            }
        }
    }

    /// Hands an answer to whoever still waits for it.
    pub fn resolve(&self, call: u64, answer: PeerResponse) {
        if let Some(Waiting::Answer(waiting)) = self.state.lock().calls.remove(&call) {
            let _ = waiting.send(answer);
        }
    }

    /// The same for a snapshot.
    pub fn resolve_vote(&self, call: u64, vote: Vote) {
        if let Some(Waiting::Vote(waiting)) = self.state.lock().calls.remove(&call) {
            let _ = waiting.send(vote);
        }
    }

    /// The caller learns that nobody is there.
    pub fn refuse(&self, call: u64) {
        self.state.lock().calls.remove(&call);
    }

    fn call(&self, letter: impl FnOnce(u64) -> Letter, waiting: Waiting) {
        let now_ms = self.time.now_ms();
        let mut state = self.state.lock();
        state.next += 1;
        let call = state.next;
        // Whoever waits no longer is forgotten here, now and then.
        if call.is_multiple_of(1_024) {
            state.calls.retain(|_, waiting| !waiting.is_over());
        }
        state.calls.insert(call, waiting);
        state.send(now_ms, letter(call));
    }
}

impl Waiting {
    fn is_over(&self) -> bool {
        match self {
            Self::Answer(waiting) => waiting.is_closed(),
            Self::Vote(waiting) => waiting.is_closed(),
        }
    }
}

impl State {
    /// Whether a letter is to or from a node that its group does not talk to. An answer is to a request
    /// that was let through.
    fn bars(&self, letter: &Letter) -> bool {
        let (Letter::Request { from, to, group, .. } | Letter::Snapshot { from, to, group, .. }) =
            letter
        else {
            return false;
        };
        self.barred.contains(&(*from, *group)) || self.barred.contains(&(*to, *group))
    }

    fn send(&mut self, now_ms: u64, letter: Letter) {
        let Weather { delay_ms_max, lost_one_in, twice_one_in } = self.weather;
        let lost = lost_one_in > 0 && self.random.one_in(lost_one_in);
        let cut = letter.link().is_some_and(|link| self.cut.contains(&link));
        // Drawn also for what is lost, so that a cut changes nothing else.
        let mut due_ms = now_ms + 1 + self.random.below(delay_ms_max);
        let twice = twice_one_in > 0 && self.random.one_in(twice_one_in);
        if lost || cut {
            return;
        }
        if let Letter::Request { from, to, group, request, .. } = &letter
            && !request.may_overtake()
        {
            let last_ms = self.streams.entry((*from, *to, *group)).or_default();
            due_ms = due_ms.max(*last_ms);
            *last_ms = due_ms;
        }
        if twice && let Letter::Request { from, to, group, request, .. } = &letter {
            let again = (*from, *to, *group, request.clone());
            let (from, to, group, request) = again;
            // Its answer finds nobody who waits.
            let letter = Letter::Request { from, to, group, request, call: 0 };
            let again_ms = due_ms + self.random.below(delay_ms_max);
            self.put(again_ms, letter);
        }
        self.put(due_ms, letter);
    }

    fn put(&mut self, due_ms: u64, letter: Letter) {
        self.next += 1;
        self.under_way.insert((due_ms, self.next), letter);
    }
}

/// A node's way into the network.
pub struct SimTransport {
    pub net: Net,
    pub from: NodeId,
}

impl Transport for SimTransport {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let (sender, answered) = oneshot::channel();
        let from = self.from;
        let letter = |call| Letter::Request { from, to, group, request, call };
        self.net.call(letter, Waiting::Answer(sender));
        Box::pin(async move {
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(TransportError::Unreachable(to)),
                Err(_) => Err(TransportError::Timeout(to)),
            }
        })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        vote: Vote,
        file: SnapshotFile,
    ) -> BoxFuture<'static, Result<Vote, TransportError>> {
        let (sender, answered) = oneshot::channel();
        let from = self.from;
        let letter = |call| Letter::Snapshot { from, to, group, vote, file, call };
        self.net.call(letter, Waiting::Vote(sender));
        Box::pin(async move {
            match tokio::time::timeout(Duration::from_secs(5), answered).await {
                Ok(Ok(vote)) => Ok(vote),
                Ok(Err(_)) => Err(TransportError::Unreachable(to)),
                Err(_) => Err(TransportError::Timeout(to)),
            }
        })
    }
}
