//! What replicas say to each other, as bytes for a transport.
//!
//! ```text
//! request    version 1 | kind u8 | body
//!   1 append      vote | log id? (previous) | log id? (committed) | entries u32 | entries
//!       entry     term u64 | index u64 | kind u8 | length u32 | payload
//!                 kind: 0 blank, 1 commands (engine), 2 membership (codec)
//!   2 vote        vote | log id? | transfer u8
//!   3 pre-vote    as vote
//!   4 transfer    vote | to u64 | log id?
//!   5 clock
//!   6 may forget  node u64
//!   7 is new
//! response   version 1 | kind u8 | body
//!   1 appended             2 appended in part: log id?
//!   3 conflict             4 higher vote: vote
//!   5 vote: vote | granted u8 | log id?
//!   6 transfer accepted    7 transfer refused, vote changed: vote | vote
//!   8 transfer refused, log not flushed: log id? | log id?
//!   9 clock: Unix ms u64   10 may forget: certain u8
//!   11 is new: u8
//! vote       term u64 | node u64 | committed u8
//! log id?    0, or 1 | term u64 | index u64
//! ```
//! Integers are little-endian. Entries are slices of the message that they came in: nothing is
//! copied on the way to the log. What comes from a peer is never trusted to be well formed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use switchboard_engine::{EntryPayload, LogId};

use crate::limits::APPEND_ENTRIES_MAX;
use crate::network::{PeerRequest, PeerResponse};
use crate::types::{
    RaftEntry, RaftLogId, RaftVote, entry_to_raft, payload_to_engine, to_engine, to_raft,
    vote_parts,
};

const VERSION: u8 = 1;
/// What an entry takes beside its payload.
const ENTRY_HEADER_BYTES: usize = 8 + 8 + 1 + 4;
/// What a message takes beside its entries, at most.
const HEADER_BYTES: usize = 64;

/// Bytes of a peer that are no message that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Written by a newer version, or nothing of ours.
    #[error("version {found} of a message between replicas is not known here (1 is)")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Ends early, or goes on after its end.
    #[error("a message between replicas is cut off or too long")]
    Length,
    /// A kind or a flag that has no meaning.
    #[error("{found} is no {what} of a message between replicas")]
    Tag {
        /// What was read.
        what: &'static str,
        /// What was found.
        found: u8,
    },
    /// A membership that no cluster can have.
    #[error("a message between replicas holds a membership that cannot be")]
    Membership,
}

impl PeerRequest {
    /// Whether it must not wait behind entries: a vote, a hand-over, a clock. An append without
    /// entries is not urgent, because it need not be a heartbeat: see [`Self::may_overtake`].
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.may_overtake()
    }

    /// The request as bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES);
        out.put_u8(VERSION);
        match self {
            Self::Append(append) => put_append(&mut out, append),
            Self::Vote(vote) => put_vote_request(&mut out, 2, &vote),
            Self::PreVote(vote) => put_vote_request(&mut out, 3, &vote),
            Self::TransferLeader(transfer) => {
                out.put_u8(4);
                put_vote(&mut out, transfer.from_leader());
                out.put_u64_le(*transfer.to_node_id());
                put_log_id(&mut out, transfer.last_log_id().copied());
            }
            Self::Clock => out.put_u8(5),
            Self::MayForget { node } => {
                out.put_u8(6);
                out.put_u64_le(node);
            }
            Self::IsNew => out.put_u8(7),
        }
        out.freeze()
    }

    /// The request of these bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes)?;
        let request = match reader.u8()? {
            1 => Self::Append(reader.append()?),
            2 => Self::Vote(reader.vote_request()?),
            3 => Self::PreVote(reader.vote_request()?),
            4 => Self::TransferLeader(TransferLeaderRequest::new(
                reader.vote()?,
                reader.u64()?,
                reader.log_id()?,
            )),
            5 => Self::Clock,
            6 => Self::MayForget { node: reader.u64()? },
            7 => Self::IsNew,
            found => return Err(WireError::Tag { what: "request", found }),
        };
        reader.end().map(|()| request)
    }
}

impl PeerResponse {
    /// The response as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES);
        out.put_u8(VERSION);
        match self {
            Self::Append(AppendEntriesResponse::Success) => out.put_u8(1),
            Self::Append(AppendEntriesResponse::PartialSuccess(upto)) => {
                out.put_u8(2);
                put_log_id(&mut out, *upto);
            }
            Self::Append(AppendEntriesResponse::Conflict) => out.put_u8(3),
            Self::Append(AppendEntriesResponse::HigherVote(vote)) => {
                out.put_u8(4);
                put_vote(&mut out, vote);
            }
            Self::Vote(response) => {
                out.put_u8(5);
                put_vote(&mut out, &response.vote);
                out.put_u8(u8::from(response.vote_granted));
                put_log_id(&mut out, response.last_log_id);
            }
            Self::TransferLeader(Ok(())) => out.put_u8(6),
            Self::TransferLeader(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
                out.put_u8(7);
                put_vote(&mut out, expected);
                put_vote(&mut out, actual);
            }
            Self::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
                out.put_u8(8);
                put_log_id(&mut out, *expected);
                put_log_id(&mut out, *actual);
            }
            Self::Clock { unix_ms } => {
                out.put_u8(9);
                out.put_u64_le(*unix_ms);
            }
            Self::MayForget { is_certain } => {
                out.put_u8(10);
                out.put_u8(u8::from(*is_certain));
            }
            Self::IsNew { is_new } => {
                out.put_u8(11);
                out.put_u8(u8::from(*is_new));
            }
        }
        out.freeze()
    }

    /// The response of these bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes)?;
        let response = match reader.u8()? {
            1 => Self::Append(AppendEntriesResponse::Success),
            2 => Self::Append(AppendEntriesResponse::PartialSuccess(reader.log_id()?)),
            3 => Self::Append(AppendEntriesResponse::Conflict),
            4 => Self::Append(AppendEntriesResponse::HigherVote(reader.vote()?)),
            5 => {
                let (vote, granted) = (reader.vote()?, reader.flag()?);
                Self::Vote(VoteResponse::new(vote, reader.log_id()?, granted))
            }
            6 => Self::TransferLeader(Ok(())),
            7 => {
                let (expected, actual) = (reader.vote()?, reader.vote()?);
                Self::TransferLeader(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }
            8 => {
                let (expected, actual) = (reader.log_id()?, reader.log_id()?);
                Self::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }
            9 => Self::Clock { unix_ms: reader.u64()? },
            10 => Self::MayForget { is_certain: reader.flag()? },
            11 => Self::IsNew { is_new: reader.flag()? },
            found => return Err(WireError::Tag { what: "response", found }),
        };
        reader.end().map(|()| response)
    }
}

type Append = AppendEntriesRequest<crate::types::TypeConfig>;
type Vote = VoteRequest<crate::types::TypeConfig>;

fn put_append(out: &mut BytesMut, append: Append) {
    out.put_u8(1);
    put_vote(out, &append.vote);
    put_log_id(out, append.prev_log_id);
    put_log_id(out, append.leader_commit);
    // At most `APPEND_ENTRIES_MAX`, and each payload far below 4 GiB.
    out.put_u32_le(append.entries.len() as u32);
    for entry in append.entries {
        let log_id = to_engine(&entry.log_id);
        let (kind, payload) = match payload_to_engine(entry.payload) {
            EntryPayload::Blank => (0, Bytes::new()),
            EntryPayload::Commands(bytes) => (1, bytes),
            EntryPayload::Membership(bytes) => (2, bytes),
        };
        out.reserve(ENTRY_HEADER_BYTES + payload.len());
        out.put_u64_le(log_id.term);
        out.put_u64_le(log_id.index);
        out.put_u8(kind);
        out.put_u32_le(payload.len() as u32);
        out.put_slice(&payload);
    }
}

fn put_vote_request(out: &mut BytesMut, kind: u8, request: &Vote) {
    out.put_u8(kind);
    put_vote(out, &request.vote);
    put_log_id(out, request.last_log_id);
    out.put_u8(u8::from(request.leadership_transfer));
}

/// A vote alone as bytes: `version 1 | vote`.
#[must_use]
pub fn encode_vote(vote: &RaftVote) -> Bytes {
    crate::codec::encode_vote(vote)
}

/// The vote of these bytes.
pub fn decode_vote(bytes: &[u8]) -> Result<RaftVote, WireError> {
    crate::codec::decode_vote(bytes).map_err(|_| WireError::Length)
}

fn put_vote(out: &mut BytesMut, vote: &RaftVote) {
    let (term, node) = vote_parts(vote);
    out.put_u64_le(term);
    out.put_u64_le(node);
    out.put_u8(u8::from(vote.committed));
}

fn put_log_id(out: &mut BytesMut, log_id: Option<RaftLogId>) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id.as_ref().map(to_engine) {
        out.put_u64_le(log_id.term);
        out.put_u64_le(log_id.index);
    }
}

/// Reads off a message and never past its end.
struct Reader(Bytes);

impl Reader {
    fn new(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Self(bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            found => Err(WireError::Version { found }),
        }
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Length)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32_le().map_err(|_| WireError::Length)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64_le().map_err(|_| WireError::Length)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(WireError::Tag { what: "flag", found }),
        }
    }

    fn vote(&mut self) -> Result<RaftVote, WireError> {
        let (term, node) = (self.u64()?, self.u64()?);
        let committed = self.flag()?;
        Ok(if committed { RaftVote::new_committed(term, node) } else { RaftVote::new(term, node) })
    }

    fn log_id(&mut self) -> Result<Option<RaftLogId>, WireError> {
        if !self.flag()? {
            return Ok(None);
        }
        let (term, index) = (self.u64()?, self.u64()?);
        Ok(Some(to_raft(LogId { term, index })))
    }

    fn vote_request(&mut self) -> Result<Vote, WireError> {
        let mut request = Vote::new(self.vote()?, self.log_id()?);
        request.leadership_transfer = self.flag()?;
        Ok(request)
    }

    fn append(&mut self) -> Result<Append, WireError> {
        let (vote, prev_log_id, leader_commit) = (self.vote()?, self.log_id()?, self.log_id()?);
        let count = self.u32()?;
        if u64::from(count) > APPEND_ENTRIES_MAX {
            return Err(WireError::Length);
        }
        let entries = (0..count).map(|_| self.entry()).collect::<Result<Vec<_>, _>>()?;
        Ok(Append { vote, prev_log_id, entries, leader_commit })
    }

    fn entry(&mut self) -> Result<RaftEntry, WireError> {
        let log_id = LogId { term: self.u64()?, index: self.u64()? };
        let (kind, length) = (self.u8()?, self.u32()? as usize);
        if length > self.0.len() {
            return Err(WireError::Length);
        }
        let bytes = self.0.split_to(length);
        let payload = match kind {
            0 if bytes.is_empty() => EntryPayload::Blank,
            0 => return Err(WireError::Length),
            1 => EntryPayload::Commands(bytes),
            2 => EntryPayload::Membership(bytes),
            found => return Err(WireError::Tag { what: "entry", found }),
        };
        entry_to_raft(log_id, payload).map_err(|_| WireError::Membership)
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(term: u64, index: u64) -> RaftLogId {
        to_raft(LogId { term, index })
    }

    fn requests() -> Vec<PeerRequest> {
        let vote = RaftVote::new_committed(7, 3);
        let entry = |index, payload| entry_to_raft(LogId { term: 7, index }, payload).unwrap();
        let entries = vec![
            entry(5, EntryPayload::Blank),
            entry(6, EntryPayload::Commands(Bytes::from_static(b"commands"))),
        ];
        let mut ask = Vote::new(RaftVote::new(8, 1), Some(log_id(7, 6)));
        ask.leadership_transfer = true;
        let commit = Some(log_id(7, 4));
        let append = |entries| Append { vote, prev_log_id: commit, entries, leader_commit: None };
        vec![
            PeerRequest::Append(append(entries)),
            PeerRequest::Append(append(Vec::new())),
            PeerRequest::Vote(ask.clone()),
            PeerRequest::PreVote(ask),
            PeerRequest::TransferLeader(TransferLeaderRequest::new(vote, 2, commit)),
            PeerRequest::Clock,
            PeerRequest::MayForget { node: 3 },
            PeerRequest::IsNew,
        ]
    }

    fn responses() -> Vec<PeerResponse> {
        let (vote, at) = (RaftVote::new(9, 2), Some(log_id(1, 2)));
        let (expected, actual) = (vote, RaftVote::new_committed(10, 1));
        vec![
            PeerResponse::Append(AppendEntriesResponse::Success),
            PeerResponse::Append(AppendEntriesResponse::PartialSuccess(at)),
            PeerResponse::Append(AppendEntriesResponse::Conflict),
            PeerResponse::Append(AppendEntriesResponse::HigherVote(vote)),
            PeerResponse::Vote(VoteResponse::new(vote, at, true)),
            PeerResponse::TransferLeader(Ok(())),
            PeerResponse::TransferLeader(Err(TransferLeaderError::VoteChanged {
                expected,
                actual,
            })),
            PeerResponse::TransferLeader(Err(TransferLeaderError::LogNotFlushed {
                expected: at,
                actual: None,
            })),
            PeerResponse::Clock { unix_ms: 1_700_000_000_000 },
            PeerResponse::MayForget { is_certain: true },
            PeerResponse::IsNew { is_new: true },
        ]
    }

    #[test]
    fn round_trips() {
        for request in requests() {
            let decoded = PeerRequest::decode(request.clone().encode()).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
            assert_eq!(decoded.encode(), request.encode());
        }
        for response in responses() {
            let decoded = PeerResponse::decode(response.encode()).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{response:?}"));
        }
    }

    #[test]
    fn any_cut_and_any_addition_is_refused() {
        for bytes in requests().into_iter().map(PeerRequest::encode) {
            for length in 0..bytes.len() {
                assert!(PeerRequest::decode(bytes.slice(..length)).is_err(), "{length}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(PeerRequest::decode(longer.into()).is_err());
        }
        for bytes in responses().iter().map(PeerResponse::encode) {
            for length in 0..bytes.len() {
                assert!(PeerResponse::decode(bytes.slice(..length)).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn appends_keep_their_order_even_without_entries() {
        let urgent: Vec<bool> = requests().iter().map(PeerRequest::is_urgent).collect();
        assert_eq!(urgent, [false, false, true, true, true, true, true, true]);
    }

    #[test]
    fn golden_version_1() {
        let vote = [1, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        let append = [&[1], &vote[..], &[0, 0, 0, 0, 0, 0]].concat();
        let request = PeerRequest::decode(append.clone().into()).unwrap();
        assert_eq!(request.encode(), append);
        for (request, golden) in [
            (PeerRequest::Clock, &[1, 5][..]),
            (PeerRequest::MayForget { node: 3 }, &[1, 6, 3, 0, 0, 0, 0, 0, 0, 0]),
            (PeerRequest::IsNew, &[1, 7]),
        ] {
            assert_eq!(&request.encode()[..], golden);
        }
        for (response, golden) in [
            (PeerResponse::Append(AppendEntriesResponse::Success), &[1, 1][..]),
            (PeerResponse::Append(AppendEntriesResponse::Conflict), &[1, 3]),
            (PeerResponse::TransferLeader(Ok(())), &[1, 6]),
            (PeerResponse::Clock { unix_ms: 258 }, &[1, 9, 2, 1, 0, 0, 0, 0, 0, 0]),
            (PeerResponse::MayForget { is_certain: true }, &[1, 10, 1]),
            (PeerResponse::IsNew { is_new: false }, &[1, 11, 0]),
        ] {
            assert_eq!(&response.encode()[..], golden);
        }
        assert!(matches!(
            PeerRequest::decode(Bytes::from_static(&[2, 5])).unwrap_err(),
            WireError::Version { found: 2 }
        ));
    }
}
