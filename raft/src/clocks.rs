//! The clocks of the nodes, as one of them knows them: its own, and what the others answered when
//! they were last asked.
//!
//! ```text
//!  own clock ───────────────────────────────┐
//!  peer 2: Unix time at a monotonic moment ──┼─▶ all moved on to now ─▶ median, if a majority is known
//!  peer 3: Unix time at a monotonic moment ──┘
//! ```
//! Every node asks all that it shares a group with once a second, over the transport, by a request
//! that is about nothing else. An answer counts as read in the middle between question and answer,
//! so it is wrong by at most half of the longest time that is waited for one.
//!
//! Invariant: as long as a majority of the clocks are right, so is the median: of an even number
//! the lower middle one is taken, because log time that runs behind delays an expiry and log time
//! that runs ahead loses messages. A clock that was wrong counts as wrong until whoever read it has
//! read it again, which takes [`CLOCK_READING_AGE_MAX`] at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use switchboard_engine::{Clock, META_GROUP};
use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::limits::{
    CLOCK_ANSWER_WAIT_MAX, CLOCK_EXCHANGE_INTERVAL, CLOCK_EXCHANGE_RETRY, CLOCK_JUMP_MAX_MS,
    CLOCK_READING_AGE_MAX,
};
use crate::network::{PeerRequest, PeerResponse, Transport};
use crate::types::NodeId;

/// The clock of another node at a moment of the own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    unix_ms: u64,
    at: Duration,
}

impl Reading {
    /// What the clock shows by now, if the reading is still good.
    fn moved_on(self, now: Duration) -> Option<u64> {
        let age = now.saturating_sub(self.at);
        (age <= CLOCK_READING_AGE_MAX).then(|| self.unix_ms.saturating_add(millis(age)))
    }
}

/// The clocks that a node knows of.
#[derive(Debug)]
pub(crate) struct Clocks {
    own: Arc<dyn Clock>,
    /// Every peer, with its last reading; none while no group has members. A lock because stamps
    /// are made on other tasks than answers arrive on; held for a few comparisons.
    peers: Mutex<Option<BTreeMap<NodeId, Option<Reading>>>>,
    off: AtomicBool,
    alarms: AtomicU64,
}

impl Clocks {
    /// Those of a node that knows no other yet.
    pub(crate) fn new(own: Arc<dyn Clock>) -> Self {
        let (off, alarms) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { own, peers: Mutex::default(), off, alarms }
    }

    /// Those of a node that has no others to know.
    #[cfg(test)]
    pub(crate) fn alone(own: Arc<dyn Clock>) -> Self {
        let clocks = Self::new(own);
        clocks.set_peers(Some(&BTreeSet::new()));
        clocks
    }

    /// The own clock.
    pub(crate) fn own(&self) -> &dyn Clock {
        &*self.own
    }

    /// What most clocks agree on; nothing while fewer than a majority are known.
    pub(crate) fn median_ms(&self) -> Option<u64> {
        self.median(None)
    }

    /// What most clocks of these nodes agree on, of which this is one; nothing if there are none.
    pub(crate) fn median_among(&self, nodes: &BTreeSet<NodeId>) -> Option<u64> {
        if nodes.is_empty() { None } else { self.median(Some(nodes)) }
    }

    fn median(&self, among: Option<&BTreeSet<NodeId>>) -> Option<u64> {
        let (own_ms, now) = (self.own.unix_ms(), self.own.monotonic());
        let peers = self.peers.lock();
        let peers = peers.as_ref()?;
        let nodes = among.map_or(peers.len() + 1, BTreeSet::len);
        let counted = peers.iter().filter(|(peer, _)| among.is_none_or(|some| some.contains(peer)));
        let known = counted.filter_map(|(_, reading)| (*reading)?.moved_on(now));
        let clocks: Vec<u64> = std::iter::once(own_ms).chain(known).collect();
        (2 * clocks.len() > nodes).then(|| lower_median(clocks)).flatten()
    }

    /// How often the own clock was found to be off.
    pub(crate) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Relaxed)
    }

    /// Whether the own clock is off right now.
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Tells whose clocks count. While that is not known there is no median.
    pub(crate) fn set_peers(&self, ids: Option<&BTreeSet<NodeId>>) {
        let mut peers = self.peers.lock();
        let Some(ids) = ids else {
            *peers = None;
            return;
        };
        let peers = peers.get_or_insert_default();
        peers.retain(|id, _| ids.contains(id));
        for id in ids {
            peers.entry(*id).or_default();
        }
    }

    fn has_peers(&self) -> bool {
        self.peers.lock().as_ref().is_some_and(|peers| !peers.is_empty())
    }

    fn note(&self, peer: NodeId, reading: Reading) {
        if let Some(known) = self.peers.lock().as_mut().and_then(|peers| peers.get_mut(&peer)) {
            *known = Some(reading);
        }
    }

    /// Raises the alarm when the own clock leaves the others, and ends it when it is back.
    fn compare(&self) {
        let Some(median_ms) = self.median_ms() else { return };
        let own_ms = self.own.unix_ms();
        let off = own_ms.abs_diff(median_ms) > CLOCK_JUMP_MAX_MS;
        if off && !self.off.swap(off, Ordering::Relaxed) {
            self.alarms.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(own_ms, median_ms, "the clock of this node is off; most others agree");
        } else if !off && self.off.swap(off, Ordering::Relaxed) {
            tracing::info!(own_ms, median_ms, "the clock of this node agrees with most others");
        }
    }
}

/// The middle one, the lower of two.
fn lower_median(mut clocks: Vec<u64>) -> Option<u64> {
    clocks.sort_unstable();
    clocks.get(clocks.len().checked_sub(1)? / 2).copied()
}

/// Asks all peers for their clocks until it is stopped: soon again while too few are known.
pub(crate) async fn run(
    clocks: Arc<Clocks>,
    transport: Arc<dyn Transport>,
    node_id: NodeId,
    groups: impl Fn() -> Vec<Arc<Group>> + Send,
    stop: CancellationToken,
) {
    loop {
        let peers = peers_of(node_id, &groups()).await;
        clocks.set_peers(peers.as_ref());
        let asked = peers.into_iter().flatten().map(|peer| ask(&clocks, &*transport, peer));
        let asked = futures::future::join_all(asked);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = asked => clocks.compare(),
        }
        // Who has no peers may get some any moment, when its cluster is made.
        let settled = clocks.median_ms().is_some() && clocks.has_peers();
        let pause = if settled { CLOCK_EXCHANGE_INTERVAL } else { CLOCK_EXCHANGE_RETRY };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The other nodes that have a replica of any of these groups; none while no group has members: a
/// node that was just made, or lost its disk, is not alone, it only does not know the others yet. Each group's
/// log time learns of its own on the way.
pub(crate) async fn peers_of(node_id: NodeId, groups: &[Arc<Group>]) -> Option<BTreeSet<NodeId>> {
    let mut members = BTreeSet::new();
    for group in groups {
        // A group that has stopped has nobody to agree with.
        let of_group = group.members().await.unwrap_or_default();
        group.log_time().set_members(&of_group);
        members.extend(of_group);
    }
    if members.is_empty() {
        return None;
    }
    members.remove(&node_id);
    Some(members)
}

/// Asks one peer. No answer leaves the last reading to grow old.
async fn ask(clocks: &Clocks, transport: &dyn Transport, peer: NodeId) {
    let asked = clocks.own.monotonic();
    // Every node replicates the meta group, so the question finds its way on every transport.
    let answer = transport.call(peer, META_GROUP, PeerRequest::Clock, CLOCK_ANSWER_WAIT_MAX).await;
    let took = clocks.own.monotonic().saturating_sub(asked);
    if let Ok(PeerResponse::Clock { unix_ms }) = answer
        && took <= CLOCK_ANSWER_WAIT_MAX
    {
        clocks.note(peer, Reading { unix_ms, at: asked + took / 2 });
    }
}

/// Whole milliseconds, as many as fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use switchboard_engine::ManualClock;

    use super::*;

    const NOON: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn clocks(own_ms: u64, peers: &[(NodeId, Option<u64>)]) -> (Arc<ManualClock>, Clocks) {
        let own = Arc::new(ManualClock::at_unix_ms(own_ms));
        let clocks = Clocks::new(own.clone());
        clocks.set_peers(Some(&peers.iter().map(|(id, _)| *id).collect()));
        for (id, unix_ms) in peers {
            if let Some(unix_ms) = *unix_ms {
                clocks.note(*id, Reading { unix_ms, at: Duration::ZERO });
            }
        }
        (own, clocks)
    }

    #[test]
    fn a_node_alone_goes_by_its_own_clock() {
        assert_eq!(clocks(NOON, &[]).1.median_ms(), Some(NOON));
    }

    #[test]
    fn a_node_that_knows_no_members_yet_believes_no_clock() {
        let (_, clocks) = clocks(NOON + HOUR, &[]);
        clocks.set_peers(None);
        assert_eq!(clocks.median_ms(), None);
    }

    #[test]
    fn one_clock_an_hour_ahead_or_behind_moves_nothing() {
        for wrong in [NOON + HOUR, NOON - HOUR] {
            let others = clocks(NOON, &[(2, Some(wrong)), (3, Some(NOON + 20))]).1;
            assert!(others.median_ms().is_some_and(|ms| ms.abs_diff(NOON) <= 20));
            let own = clocks(wrong, &[(2, Some(NOON)), (3, Some(NOON + 20))]).1;
            assert!(own.median_ms().is_some_and(|ms| ms.abs_diff(NOON) <= 20));
        }
    }

    #[test]
    fn of_two_clocks_the_one_behind_counts() {
        let ahead = clocks(NOON + HOUR, &[(2, Some(NOON)), (3, None)]).1;
        assert_eq!(ahead.median_ms(), Some(NOON));
    }

    #[test]
    fn a_minority_of_clocks_says_nothing() {
        assert_eq!(clocks(NOON, &[(2, None), (3, None)]).1.median_ms(), None);
        assert_eq!(clocks(NOON, &[(2, Some(NOON)), (3, None), (4, None)]).1.median_ms(), None);
    }

    #[test]
    fn most_members_of_a_group_are_enough_where_half_of_all_nodes_are_away() {
        let (_, clocks) = clocks(NOON, &[(2, Some(NOON + 20)), (3, None), (4, None)]);
        assert_eq!(clocks.median_ms(), None);
        assert_eq!(clocks.median_among(&[1, 2, 3].into()), Some(NOON));
        assert_eq!(clocks.median_among(&[1, 3, 4].into()), None);
        assert_eq!(clocks.median_among(&BTreeSet::new()), None, "nothing is known of them");
    }

    #[test]
    fn readings_move_on_with_monotonic_time_and_grow_old() {
        let (own, clocks) = clocks(NOON, &[(2, Some(NOON)), (3, Some(NOON))]);
        own.advance(Duration::from_secs(5));
        own.set_unix_ms(NOON + HOUR);
        assert_eq!(clocks.median_ms(), Some(NOON + 5_000));
        own.advance(CLOCK_READING_AGE_MAX);
        assert_eq!(clocks.median_ms(), None, "nobody answered for too long");
    }

    #[test]
    fn the_alarm_is_raised_once_until_the_clock_is_back() {
        let (own, clocks) = clocks(NOON, &[(2, Some(NOON)), (3, Some(NOON))]);
        own.set_unix_ms(NOON + HOUR);
        clocks.compare();
        clocks.compare();
        assert_eq!((clocks.alarms(), clocks.is_off()), (1, true));
        own.set_unix_ms(NOON);
        clocks.compare();
        assert_eq!((clocks.alarms(), clocks.is_off()), (1, false));
    }
}
