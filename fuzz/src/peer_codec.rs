//! A message between replicas from anywhere: as a request, as a response and as a vote.
//!
//! Not every form is the only one of its message (the voters of a membership may come in any order), so
//! what is compared is what the decoder makes of it: encoded and decoded once more it stays the same.

use bytes::{BufMut, Bytes};
use switchboard_raft::{PeerRequest, PeerResponse, decode_vote, encode_vote};

use crate::Seed;

/// A message of each kind, laid out as `raft/src/wire.rs` says.
pub fn seeds() -> Vec<Seed> {
    let log_id = |out: &mut Vec<u8>, index: u64| {
        out.put_u8(1);
        out.put_u64_le(7);
        out.put_u64_le(index);
    };
    let vote = |out: &mut Vec<u8>| {
        out.put_u64_le(7);
        out.put_u64_le(3);
        out.put_u8(1);
    };
    let begun = |kind: u8| vec![1, kind];
    let with_vote = |kind: u8| {
        let mut out = begun(kind);
        vote(&mut out);
        out
    };
    let mut asks = with_vote(2);
    log_id(&mut asks, 6);
    asks.put_u8(1);
    let mut transfer = with_vote(4);
    transfer.put_u64_le(2);
    log_id(&mut transfer, 6);
    let mut voted = with_vote(5);
    voted.put_u8(1);
    log_id(&mut voted, 6);
    let mut changed = with_vote(7);
    vote(&mut changed);
    let mut unflushed = begun(8);
    log_id(&mut unflushed, 6);
    unflushed.put_u8(0);
    let mut part = begun(2);
    log_id(&mut part, 6);
    let mut clock = begun(9);
    clock.put_u64_le(1_700_000_000_000);
    vec![
        ("append", append(&log_id, with_vote(1))),
        ("vote", asks),
        ("transfer", transfer),
        ("clock", begun(5)),
        ("appended", begun(1)),
        ("part", part),
        ("higher_vote", with_vote(4)),
        ("voted", voted),
        ("vote_changed", changed),
        ("not_flushed", unflushed),
        ("clock_is", clock),
    ]
}

/// An append of one entry of each kind: nothing, commands, and a membership that is changing.
fn append(log_id: &impl Fn(&mut Vec<u8>, u64), mut out: Vec<u8>) -> Vec<u8> {
    log_id(&mut out, 4);
    log_id(&mut out, 3);
    let mut membership = vec![1, 2];
    for voters in [&[1_u64, 2, 3][..], &[1, 2, 4]] {
        membership.put_u16_le(3);
        voters.iter().for_each(|id| membership.put_u64_le(*id));
    }
    membership.put_u16_le(4);
    (1..=4).for_each(|id| membership.put_u64_le(id));
    let entries: [(u8, &[u8]); 3] = [(0, b""), (1, b"commands"), (2, &membership)];
    out.put_u32_le(entries.len() as u32);
    for ((kind, payload), index) in entries.into_iter().zip(5..) {
        out.put_u64_le(7);
        out.put_u64_le(index);
        out.put_u8(kind);
        out.put_u32_le(payload.len() as u32);
        out.put_slice(payload);
    }
    out
}

/// Checks one message.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(request) = PeerRequest::decode(bytes.clone()) {
        let encoded = request.encode();
        let again = PeerRequest::decode(encoded.clone()).expect("it was decoded before");
        assert_eq!(again.encode(), encoded);
    }
    if let Ok(response) = PeerResponse::decode(bytes) {
        let encoded = response.encode();
        let again = PeerResponse::decode(encoded.clone()).expect("it was decoded before");
        assert_eq!(again.encode(), encoded);
    }
    if let Ok(vote) = decode_vote(data) {
        let encoded = encode_vote(&vote);
        assert_eq!(decode_vote(&encoded), Ok(vote));
        assert_eq!(encoded.len(), data.len());
    }
}
