//! How fast entries are applied: the difference of two samples.

use std::collections::BTreeMap;

use super::sample::{Node, Sample, Shard};

/// Entries a second. Who is missing has no rate: it was not there before, was started again, has not
/// answered since, or is told by another replica now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    /// By node: over all its replicas.
    pub(super) nodes: BTreeMap<u64, f64>,
    /// By shard.
    pub(super) shards: BTreeMap<u32, f64>,
}

/// What happened between two samples.
pub(super) fn rates(before: &Sample, after: &Sample) -> Rates {
    let nodes = after.nodes.iter().filter_map(|node| {
        let last = before.nodes.iter().find(|last| last.node_id == node.node_id)?;
        Some((node.node_id, node_rate(last, node)?))
    });
    let shards = after.shards.iter().filter_map(|shard| {
        let last = before.shards.iter().find(|last| last.shard == shard.shard)?;
        Some((shard.shard, shard_rate(last, shard)?))
    });
    Rates { nodes: nodes.collect(), shards: shards.collect() }
}

fn node_rate(before: &Node, after: &Node) -> Option<f64> {
    // A node that was started again applies its log once more; those entries are not new.
    if after.applied.is_empty() || after.uptime_ms < before.uptime_ms {
        return None;
    }
    // A replica that came meanwhile has no beginning, and one that got a snapshot may go back.
    let grown = after
        .applied
        .iter()
        .filter_map(|(shard, applied)| applied.checked_sub(*before.applied.get(shard)?));
    a_second(grown.sum(), before.at, after.at)
}

fn shard_rate(before: &Shard, after: &Shard) -> Option<f64> {
    // Two replicas are never equally far: their difference is no rate.
    let same = (before.told_by, before.term) == (after.told_by, after.term);
    if !same || after.told_by == 0 {
        return None;
    }
    a_second(after.applied_index.checked_sub(before.applied_index)?, before.at, after.at)
}

fn a_second(entries: u64, from: std::time::Duration, to: std::time::Duration) -> Option<f64> {
    let seconds = to.checked_sub(from)?.as_secs_f64();
    (seconds > 0.0).then(|| entries as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Made, look};
    use super::*;

    fn sample(at_s: u64, made: &[Made]) -> Sample {
        Sample::of(look(at_s, made))
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time_between() {
        let before = sample(10, &[Made::new(1).applied(100)]);
        let after = sample(14, &[Made::new(1).applied(140)]);
        let rates = rates(&before, &after);
        assert_eq!(rates.nodes, BTreeMap::from([(1, 20.0)]), "two shards, 10 each");
        assert_eq!(rates.shards, BTreeMap::from([(0, 10.0), (1, 10.0)]));
        assert_eq!(super::rates(&before, &before), Rates::default(), "no time has passed");
    }

    #[test]
    fn a_node_that_was_started_again_has_no_rate() {
        let before = sample(1, &[Made::new(1).applied(100).up_ms(9_000)]);
        let after = sample(2, &[Made::new(1).applied(40).up_ms(300)]);
        assert_eq!(rates(&before, &after), Rates::default());
        let ahead = sample(2, &[Made::new(1).applied(400).up_ms(300)]);
        assert!(rates(&before, &ahead).nodes.is_empty());
    }

    #[test]
    fn a_new_leader_begins_a_new_rate() {
        let nodes = |leader, term, first| {
            [1, 2, 3].map(|id| {
                let applied = if id == 1 { first } else { 90 };
                Made::new(id).applied(applied).led_by(leader, term)
            })
        };
        let (before, after) = (sample(1, &nodes(1, 3, 100)), sample(2, &nodes(2, 4, 100)));
        let rates = rates(&before, &after);
        assert!(rates.shards.is_empty(), "{rates:?}");
        assert!(rates.nodes.values().all(|rate| *rate >= 0.0), "{rates:?}");
    }

    #[test]
    fn who_is_silent_has_no_rate_and_comes_back_with_the_mean_since() {
        let first = sample(1, &[Made::new(1).applied(100).up_ms(1_000)]);
        let silent = first.then(look(2, &[Made::new(1).silent()]));
        assert_eq!(rates(&first, &silent), Rates::default());
        let back = silent.then(look(5, &[Made::new(1).applied(180).up_ms(5_000)]));
        assert_eq!(rates(&silent, &back).nodes[&1], 40.0, "160 entries in 4 s");
    }
}
