//! Votes and memberships as bytes in the log.
//!
//! ```text
//! vote        version 1 | term u64 | node u64 | committed u8                           18 bytes
//! membership  version 1 | configs u8 | configs × (voters u16 | voters × id u64)
//!                       | nodes u16 | nodes × id u64
//! ```
//! Integers are little-endian. A membership has more than one configuration while it changes
//! (joint consensus); `nodes` names voters and learners. Ids are in ascending order, so that equal
//! memberships have equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::planted::{self, PlantedBug};
use crate::types::{NodeId, RaftMembership, RaftVote, vote_parts};

const VERSION: u8 = 1;

/// Bytes in the log that are no vote or membership that this version can read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CodecError {
    /// Written by a newer version, or not what it is taken for.
    #[error("format version {found} of a {what} is not known here (1 is)")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// Ends early, or goes on after its end.
    #[error("a {what} of {len} bytes is cut off or too long")]
    Length {
        /// What was read.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// A membership that no cluster can have.
    #[error("an invalid membership: {reason}")]
    Membership {
        /// What is wrong with it.
        reason: String,
    },
}

pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    let (term, node) = vote_parts(vote);
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u64_le(term);
    out.put_u64_le(node);
    out.put_u8(u8::from(vote.committed));
    out.freeze()
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<RaftVote, CodecError> {
    let mut reader = Reader::new("vote", bytes)?;
    let (term, node, committed) = (reader.u64()?, reader.u64()?, reader.u8()?);
    reader.end()?;
    Ok(if committed == 0 { RaftVote::new(term, node) } else { RaftVote::new_committed(term, node) })
}

pub(crate) fn encode_membership(membership: &RaftMembership) -> Bytes {
    let mut out = BytesMut::new();
    let mut configs = &membership.get_joint_config()[..];
    if planted::is(PlantedBug::SkippedJointStep) {
        configs = &configs[configs.len().saturating_sub(1)..];
    }
    out.put_u8(VERSION);
    // Two configurations at most, and a cluster has far less than 65,536 nodes.
    out.put_u8(configs.len() as u8);
    for voters in configs {
        out.put_u16_le(voters.len() as u16);
        voters.iter().for_each(|id| out.put_u64_le(*id));
    }
    let nodes: Vec<NodeId> = membership.nodes().map(|(id, ())| *id).collect();
    out.put_u16_le(nodes.len() as u16);
    nodes.iter().for_each(|id| out.put_u64_le(*id));
    out.freeze()
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<RaftMembership, CodecError> {
    let mut reader = Reader::new("membership", bytes)?;
    let mut configs = Vec::new();
    for _ in 0..reader.u8()? {
        configs.push(reader.ids()?.into_iter().collect::<BTreeSet<_>>());
    }
    let nodes: BTreeMap<NodeId, ()> = reader.ids()?.into_iter().map(|id| (id, ())).collect();
    reader.end()?;
    RaftMembership::new(configs, nodes)
        .map_err(|error| CodecError::Membership { reason: error.to_string() })
}

/// Reads integers off a slice and never past its end.
struct Reader<'a> {
    what: &'static str,
    len: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Self { what, len: bytes.len(), rest: bytes };
        match reader.u8()? {
            VERSION => Ok(reader),
            found => Err(CodecError::Version { what, found }),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.length())?;
        self.rest = rest;
        Ok(*head)
    }

    fn length(&self) -> CodecError {
        CodecError::Length { what: self.what, len: self.len }
    }

    fn u8(&mut self) -> Result<u8, CodecError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        self.take().map(u64::from_le_bytes)
    }

    fn ids(&mut self) -> Result<Vec<NodeId>, CodecError> {
        let count = self.take().map(u16::from_le_bytes)?;
        (0..count).map(|_| self.u64()).collect()
    }

    fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.length()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> RaftMembership {
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let nodes: BTreeMap<NodeId, ()> = (1..=5).map(|id| (id, ())).collect();
        RaftMembership::new(configs, nodes).expect("valid")
    }

    #[test]
    fn round_trips() {
        for vote in [RaftVote::new(0, 0), RaftVote::new(7, 3), RaftVote::new_committed(u64::MAX, 9)]
        {
            assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        }
        for membership in [joint(), RaftMembership::default()] {
            assert_eq!(decode_membership(&encode_membership(&membership)), Ok(membership));
        }
    }

    /// Version 1 on disk: these bytes are readable for ever.
    #[test]
    fn golden_version_1() {
        let vote = [1, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(&encode_vote(&RaftVote::new_committed(7, 3))[..], vote);
        let one = RaftMembership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, ())]));
        let golden = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(&encode_membership(&one.expect("valid"))[..], golden);
    }

    #[test]
    fn any_cut_is_refused() {
        let bytes = encode_membership(&joint());
        for len in 0..bytes.len() {
            assert!(decode_membership(&bytes[..len]).is_err(), "{len}");
        }
        let vote = encode_vote(&RaftVote::new(1, 2));
        for len in 0..vote.len() {
            assert!(decode_vote(&vote[..len]).is_err(), "{len}");
        }
        let mut longer = vote.to_vec();
        longer.push(0);
        assert_eq!(decode_vote(&longer), Err(CodecError::Length { what: "vote", len: 19 }));
        assert!(matches!(decode_vote(&[9; 18]), Err(CodecError::Version { found: 9, .. })));
    }

    /// A voter without a node would be sent nothing.
    #[test]
    fn a_voter_that_is_no_node_is_refused() {
        let bytes = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(decode_membership(&bytes), Err(CodecError::Membership { .. })));
    }
}
