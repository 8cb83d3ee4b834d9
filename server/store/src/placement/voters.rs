//! Who votes in the meta group: a pure function of the nodes.
//!
//! Every node has a replica of it. Up to five vote, an odd number of them where there are more than two,
//! for an even number survives no more failures than one less.

use std::collections::BTreeSet;

use switchboard_raft::NodeId;

use crate::limits::META_VOTERS_MAX;

/// The voters that the meta group should have. Who votes keeps its vote; `candidates` are the nodes that
/// stay, those that are not being drained first.
pub(crate) fn wanted(voters: &BTreeSet<NodeId>, candidates: &[NodeId]) -> BTreeSet<NodeId> {
    let count = match candidates.len().min(META_VOTERS_MAX) {
        even @ (4 | 6 | 8) => even - 1,
        count => count,
    };
    let keep = candidates.iter().filter(|node| voters.contains(node));
    let others = candidates.iter().filter(|node| !voters.contains(node));
    keep.chain(others).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_five_vote_and_who_votes_goes_on() {
        let wanted = |voters: &[NodeId], nodes: &[NodeId]| {
            wanted(&voters.iter().copied().collect(), nodes).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[1], &[1]), [1]);
        assert_eq!(wanted(&[1, 2, 3], &[1, 2, 3, 4]), [1, 2, 3]);
        assert_eq!(wanted(&[1, 2, 3], &[1, 2, 3, 4, 5]), [1, 2, 3, 4, 5]);
        assert_eq!(wanted(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 6, 7]), [1, 2, 3, 4, 5]);
        assert_eq!(wanted(&[1, 2, 3, 4, 5], &[2, 3, 4, 5, 6, 7]), [2, 3, 4, 5, 6]);
        assert_eq!(wanted(&[1, 2, 3], &[2, 3, 4]), [2, 3, 4]);
        assert_eq!(wanted(&[1, 2, 3], &[2, 3]), [2, 3]);
    }
}
