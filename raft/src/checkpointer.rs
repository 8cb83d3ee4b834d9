//! When a group is checkpointed: by the bytes of log that it keeps.
//!
//! One task a node takes one checkpoint at a time, so that the disk is shared with appends and not
//! fought over. A checkpoint that fails (a full disk, say) is logged and tried again at a later
//! look; nothing stops for it.
//!
//! ```text
//!  look ─▶ choose ─▶ Shard::checkpoint ─▶ openraft: "a snapshot" ─▶ openraft: purge ─▶ LogStore::purge
//!   ▲                (blocking thread)                                                     │
//!   └────────────────────────────── the log recycles the segment ◀────────────────────────┘
//! ```
//! A group is chosen when it keeps more than its bound, or when the node's log as a whole is
//! beyond its own bound and this group's entries are in the oldest segment: a group that writes
//! little would otherwise pin that segment, and all that others wrote after it, for ever. While space is
//! short both bounds are an eighth, for it is the log that can be made shorter.

use std::collections::HashMap;
use std::sync::Arc;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use switchboard_engine::log::{Record, SpaceLevel};
use switchboard_engine::{GroupId, LogId};
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::group::Group;
use crate::limits::{CHECKPOINT_LOOK_INTERVAL, CHECKPOINT_NOTE_WAIT_MAX};
use crate::planted::{self, PlantedBug};
use crate::types::{TypeConfig, to_engine};

/// While space is short, a checkpoint is due after this part of the usual bytes.
const SHORT_OF_SPACE_PART: u64 = 8;

/// The bounds of a node's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Bytes that one group writes before it is checkpointed.
    pub(crate) group_bytes: u64,
    /// Bytes of the whole log before the group in its oldest segment is checkpointed.
    pub(crate) log_bytes: u64,
}

impl Policy {
    fn with_space(self, level: SpaceLevel) -> Self {
        match level {
            SpaceLevel::Ample => self,
            SpaceLevel::Reserve | SpaceLevel::Full => Self {
                group_bytes: self.group_bytes / SHORT_OF_SPACE_PART,
                log_bytes: self.log_bytes / SHORT_OF_SPACE_PART,
            },
        }
    }
}

/// What the choice is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    group: GroupId,
    /// Bytes of log that it keeps beyond what its last checkpoint left.
    grown_bytes: u64,
    /// Whether it keeps an entry of the oldest segment.
    pins_oldest: bool,
}

/// Which group to checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// It wrote much.
    Grown(GroupId),
    /// It holds up the recycling of segments, so all of its log goes.
    Pinning(GroupId),
}

impl Choice {
    fn group(self) -> GroupId {
        match self {
            Self::Grown(group) | Self::Pinning(group) => group,
        }
    }
}

/// The group that grew most among those beyond their bound, or else one that pins the oldest segment
/// of a log that is too long.
fn choose(policy: Policy, log_bytes: u64, candidates: &[Candidate]) -> Option<Choice> {
    let most = |best: Option<&Candidate>| best.map(|candidate| candidate.group);
    let beyond = candidates.iter().filter(|group| group.grown_bytes >= policy.group_bytes);
    let too_long = log_bytes >= policy.log_bytes;
    let pinning = candidates.iter().filter(|group| too_long && group.pins_oldest);
    most(beyond.max_by_key(|group| group.grown_bytes))
        .map(Choice::Grown)
        .or_else(|| most(pinning.max_by_key(|group| group.grown_bytes)).map(Choice::Pinning))
}

/// The checkpointer of a node.
pub(crate) struct Checkpointer<F> {
    policy: Policy,
    groups: F,
    /// Bytes of log that each group's last checkpoint left unpurged on purpose.
    left: HashMap<GroupId, u64>,
}

impl<F: Fn() -> Vec<Arc<Group>>> Checkpointer<F> {
    pub(crate) fn new(policy: Policy, groups: F) -> Self {
        Self { policy, groups, left: HashMap::new() }
    }

    /// Looks at the sizes and takes checkpoints until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(CHECKPOINT_LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            if let Some((group, choice, grown_bytes)) = self.look() {
                let taken = checkpoint(&group, matches!(choice, Choice::Pinning(_))).await;
                match taken {
                    Some(Purged::ToCheckpoint) => drop(self.left.insert(group.id(), 0)),
                    Some(Purged::ToTheOneBefore) => {
                        self.left.insert(group.id(), grown_bytes);
                    }
                    // What failed is tried again at the next look.
                    None => continue,
                }
                // Others may be beyond their bounds too.
                looks.reset_after(CHECKPOINT_LOOK_INTERVAL / 10);
            }
        }
    }

    fn look(&mut self) -> Option<(Arc<Group>, Choice, u64)> {
        let groups = (self.groups)();
        groups.iter().for_each(|group| group.drop_unsent());
        let log = groups.first()?.log().clone();
        let stats = log.stats();
        let oldest = stats.oldest.map_or_else(Vec::new, |oldest| oldest.groups);
        let mut candidates = Vec::with_capacity(groups.len());
        for group in &groups {
            let kept = log.retained_bytes(group.id());
            // It may have been purged since, by a later checkpoint or an installed snapshot.
            let left = self.left.entry(group.id()).or_default();
            *left = kept.min(*left);
            // Without news its checkpoint would be the one that it has, and free nothing.
            if group.shard().applied() > checkpoint_of(group) {
                candidates.push(Candidate {
                    group: group.id(),
                    grown_bytes: kept - *left,
                    pins_oldest: oldest.contains(&group.id()),
                });
            }
        }
        let policy = self.policy.with_space(stats.space.level);
        let choice = choose(policy, stats.bytes_total, &candidates)?;
        let chosen = candidates.iter().find(|candidate| candidate.group == choice.group())?;
        let group = groups.into_iter().find(|group| group.id() == choice.group())?;
        Some((group, choice, chosen.grown_bytes))
    }
}

fn checkpoint_of(group: &Group) -> Option<LogId> {
    group.shard().checkpoint_meta().map(|checkpoint| checkpoint.at)
}

/// Up to where the log was purged after a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purged {
    /// All that the checkpoint holds.
    ToCheckpoint,
    /// What the checkpoint before it held.
    ToTheOneBefore,
}

/// Takes a checkpoint and has the log purged: up to it if `purge_all` or if nobody else
/// replicates the group, and up to the one before it otherwise, so that a replica that lags a
/// little finds entries and needs no snapshot. Nothing if it failed.
pub(crate) async fn checkpoint(group: &Arc<Group>, purge_all: bool) -> Option<Purged> {
    let before = checkpoint_of(group);
    let shard = group.shard().clone();
    let started = tokio::time::Instant::now();
    if planted::is(PlantedBug::PurgeBeforeCheckpoint)
        && let Some(upto) = shard.applied()
    {
        group.log().append(vec![Record::Purge { group: group.id(), upto }], Box::new(|_| {}));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let at = match blocking::run(move || shard.checkpoint()).await {
        Ok(Ok(at)) => at,
        Ok(Err(error)) => {
            tracing::warn!(group = group.id(), %error, "a checkpoint failed; it is tried again");
            return None;
        }
        Err(error) => {
            tracing::error!(group = group.id(), %error, "a checkpoint panicked");
            return None;
        }
    };
    tracing::info!(group = group.id(), %at, elapsed = ?started.elapsed(), "checkpoint");
    let all = purge_all || is_alone(group);
    tell_openraft(group, at, if all { Some(at) } else { before }).await?;
    Some(if all { Purged::ToCheckpoint } else { Purged::ToTheOneBefore })
}

impl Group {
    /// Takes a checkpoint now, whatever the log keeps, and has the log purged up to it (or, if
    /// other nodes replicate the group, up to the one before). False if it failed, which the log of
    /// the process explains; the group goes on.
    pub async fn checkpoint(self: &Arc<Self>) -> bool {
        checkpoint(self, false).await.is_some()
    }
}

/// Whether no other node has a replica.
fn is_alone(group: &Group) -> bool {
    let metrics = group.raft().metrics();
    metrics.borrow_watched().membership_config.membership().nodes().count() <= 1
}

/// Reports the checkpoint as a snapshot, has openraft purge, and waits until it has.
async fn tell_openraft(group: &Group, at: LogId, upto: Option<LogId>) -> Option<()> {
    let raft = group.raft();
    raft.trigger().snapshot().await.ok()?;
    let noted =
        |metrics: &RaftMetrics<TypeConfig>| metrics.snapshot.as_ref().map(to_engine) >= Some(at);
    raft.wait(Some(CHECKPOINT_NOTE_WAIT_MAX)).metrics(noted, "a checkpoint").await.ok()?;
    let Some(upto) = upto else { return Some(()) };
    raft.trigger().purge_log(upto.index).await.ok()?;
    // A leader waits with it while it sends these entries to somebody.
    let purged =
        |metrics: &RaftMetrics<TypeConfig>| metrics.purged.as_ref().map(to_engine) >= Some(upto);
    raft.wait(Some(CHECKPOINT_NOTE_WAIT_MAX)).metrics(purged, "a purge").await.ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { group_bytes: 100, log_bytes: 1_000 };

    fn candidate(group: GroupId, grown_bytes: u64, pins_oldest: bool) -> Candidate {
        Candidate { group, grown_bytes, pins_oldest }
    }

    #[test]
    fn nobody_within_the_bounds() {
        let candidates = [candidate(0, 99, true), candidate(1, 0, false)];
        assert_eq!(choose(POLICY, 999, &candidates), None);
    }

    #[test]
    fn the_largest_beyond_its_bound_first() {
        let candidates =
            [candidate(0, 1, true), candidate(1, 100, false), candidate(2, 300, false)];
        assert_eq!(choose(POLICY, 5_000, &candidates), Some(Choice::Grown(2)));
    }

    #[test]
    fn sooner_while_space_is_short() {
        let candidates = [candidate(0, 13, false), candidate(1, 2, true)];
        let choice = |level, log_bytes| choose(POLICY.with_space(level), log_bytes, &candidates);
        assert_eq!(choice(SpaceLevel::Ample, 900), None);
        assert_eq!(choice(SpaceLevel::Reserve, 10), Some(Choice::Grown(0)));
        let small = [candidate(0, 11, false), candidate(1, 2, true)];
        let policy = POLICY.with_space(SpaceLevel::Full);
        assert_eq!(choose(policy, 900, &small), Some(Choice::Pinning(1)));
    }

    #[test]
    fn a_small_group_that_pins_the_oldest_segment_of_a_long_log() {
        let candidates = [candidate(0, 1, true), candidate(1, 99, false)];
        assert_eq!(choose(POLICY, 999, &candidates), None);
        assert_eq!(choose(POLICY, 1_000, &candidates), Some(Choice::Pinning(0)));
    }
}
