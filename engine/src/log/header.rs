//! The frame that opens a segment: whose it is, and the state of every group.
//!
//! It is a frame of kind 2 at offset 0, synced before any other frame of the segment is written.
//! Its first record is the *origin*, then one *group state* per group that the log knows, by
//! ascending id. Both have the head of a record (see `record`).
//!
//! ```text
//! origin (kind 16, head otherwise zero)          group state (kind 17, head: group and life)
//! offset size                                     offset size
//!      0   16  disk id                                 0    1  which fields follow, bit by bit:
//!     16    8  bytes of the segment                            0 vote, 1 committed, 2 purged,
//!                                                              3 checkpoint, 4 last, 5 first
//!                                                 then, as far as they are there, in that order:
//!                                                           2+n  vote: length, bytes
//!                                                             16  term, index: committed, purged,
//!                                                                 checkpoint, last
//!                                                              8  index of the first entry
//! ```

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::core::Core;
use super::frame::FrameBuilder;
use super::limits::{GROUPS_MAX, VOTE_BYTES_MAX};
use super::record::{BadRecord, Found, Head, Kind};
use super::written::Written;
use crate::codec::{DecodeError, Reader};
use crate::planted::{self, Bug};
use crate::{GroupId, LogId};

/// What a segment header holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) disk_id: [u8; 16],
    pub(super) segment_bytes: u64,
    pub(super) groups: BTreeMap<GroupId, Core>,
}

/// Why a segment header can't be read although its CRCs are right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    #[error("{0}")]
    Record(#[from] BadRecord),
    #[error("a group's state is malformed: {0}")]
    Decode(#[from] DecodeError),
    #[error("the segment header is malformed: {0}")]
    Shape(&'static str),
}

/// Puts the records of a header into a frame.
pub(super) fn encode(
    frame: &mut FrameBuilder<'_>,
    disk_id: &[u8; 16],
    segment_bytes: u64,
    written: &Written,
) {
    let mut payload = BytesMut::new();
    payload.put_slice(disk_id);
    payload.put_u64_le(segment_bytes);
    push(frame, Kind::Origin, 0, 0, &payload);
    for (group, core) in written.cores() {
        payload.clear();
        encode_core(&mut payload, core);
        push(frame, Kind::GroupState, group, core.life, &payload);
    }
}

fn push(frame: &mut FrameBuilder<'_>, kind: Kind, group: GroupId, life: u32, payload: &[u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(payload);
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let id = LogId::default();
    let head = Head { len, crc: 0, group, life, id, kind: kind as u8, detail: 0 };
    frame.push(&head.encode(hasher), payload);
}

fn encode_core(out: &mut BytesMut, core: &Core) {
    let Core { life: _, vote, committed, purged, checkpoint, first, last } = core;
    let vote = vote.as_ref().filter(|_| !planted::is(Bug::VoteLeftBehind));
    let ids = [committed, purged, checkpoint, last];
    let mut flags = u8::from(vote.is_some()) | u8::from(first.is_some()) << 5;
    for (bit, id) in (1..).zip(ids) {
        flags |= u8::from(id.is_some()) << bit;
    }
    out.put_u8(flags);
    if let Some(vote) = vote {
        crate::codec::put_medium(out, vote);
    }
    for id in ids.into_iter().flatten() {
        out.put_u64_le(id.term);
        out.put_u64_le(id.index);
    }
    if let Some(first) = first {
        out.put_u64_le(*first);
    }
}

/// Reads the records of a header.
pub(super) fn decode(mut records: &[u8]) -> Result<SegmentHeader, BadHeader> {
    let (origin, rest) = Found::first(records)?;
    records = rest;
    if Kind::of(origin.head.kind) != Some(Kind::Origin) {
        return Err(BadHeader::Shape("it does not begin with an origin"));
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(origin.payload));
    let (disk_id, segment_bytes) = (reader.array()?, reader.u64()?);
    reader.finish()?;
    let mut groups = BTreeMap::new();
    while !records.is_empty() {
        let (found, rest) = Found::first(records)?;
        records = rest;
        if Kind::of(found.head.kind) != Some(Kind::GroupState) || groups.len() == GROUPS_MAX {
            return Err(BadHeader::Shape("it holds what is no state of a group"));
        }
        let core = decode_core(found.head.life, found.payload)?;
        if groups.insert(found.head.group, core).is_some() {
            return Err(BadHeader::Shape("it holds a group twice"));
        }
    }
    Ok(SegmentHeader { disk_id, segment_bytes, groups })
}

fn decode_core(life: u32, payload: &[u8]) -> Result<Core, DecodeError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(payload));
    let flags = reader.u8()?;
    if flags >= 1 << 6 {
        return Err(DecodeError::Tag { what: "fields of a group's state", tag: flags, at: 0 });
    }
    let has = |bit: u8| flags & 1 << bit != 0;
    let vote = has(0).then(|| reader.medium("vote", VOTE_BYTES_MAX)).transpose()?;
    let mut id = |bit| {
        has(bit).then(|| Ok::<_, DecodeError>(LogId::new(reader.u64()?, reader.u64()?))).transpose()
    };
    let (committed, purged, checkpoint, last) = (id(1)?, id(2)?, id(3)?, id(4)?);
    let first = has(5).then(|| reader.u64()).transpose()?;
    reader.finish()?;
    Ok(Core { life, vote, committed, purged, checkpoint, first, last })
}
