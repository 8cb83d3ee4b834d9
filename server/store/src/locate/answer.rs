//! What was found of many users, and how it is written down.
//!
//! Most users have one device: what is to be said of them is copied out of the map, 40 bytes each,
//! and encoded from there, without the lists and names that the generated messages are made of. The
//! bytes are those that the generated code would write; a test compares them.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use switchboard_api::v1::{ItemStatus, LocateResponse, locate_response};
use switchboard_engine::{PRIMARY_DEVICE, SessionRecord};

use crate::convert;

/// What was found of one user.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Nothing was looked up.
    Refused(ItemStatus),
    /// There is no device but the primary one; its session if it is connected.
    Primary(Option<SessionRecord>),
    /// There are more devices, or another node has answered.
    Several(locate_response::Result),
}

impl Found {
    /// The same as a message.
    pub(super) fn into_result(self, user: &Bytes) -> locate_response::Result {
        match self {
            Self::Refused(status) => {
                locate_response::Result { status: status.into(), ..Default::default() }
            }
            Self::Primary(session) => {
                let info = |s: SessionRecord| convert::session_info(s.of(user, PRIMARY_DEVICE));
                locate_response::Result {
                    status: ItemStatus::Ok.into(),
                    sessions: session.map(info).into_iter().collect(),
                    devices: vec![u32::from(PRIMARY_DEVICE)],
                }
            }
            Self::Several(result) => result,
        }
    }

    fn encoded_len(&self, user: &Bytes) -> usize {
        match self {
            Self::Refused(status) => varint_len(*status as u64),
            Self::Primary(session) => {
                let session = session.map_or(0, |session| nested_len(session_len(&session, user)));
                varint_len(ItemStatus::Ok as u64)
                    + session
                    + nested_len(encoded_len_varint(u64::from(PRIMARY_DEVICE)))
            }
            Self::Several(result) => result.encoded_len(),
        }
    }

    fn encode(&self, user: &Bytes, out: &mut BytesMut) {
        match self {
            Self::Refused(status) => put_varint(STATUS, *status as u64, out),
            Self::Primary(session) => {
                put_varint(STATUS, ItemStatus::Ok as u64, out);
                if let Some(session) = session {
                    put_nested(SESSIONS, session_len(session, user), out);
                    put_session(session, user, out);
                }
                put_nested(DEVICES, encoded_len_varint(u64::from(PRIMARY_DEVICE)), out);
                encode_varint(u64::from(PRIMARY_DEVICE), out);
            }
            Self::Several(result) => result.encode_raw(out),
        }
    }
}

/// An answer: what was found of each user asked for, in their order.
pub(super) struct Answer {
    pub(super) users: Vec<Bytes>,
    pub(super) found: Vec<Found>,
    pub(super) staleness_ms: u64,
}

impl Answer {
    /// As a message.
    pub(super) fn into_response(self) -> LocateResponse {
        let results = self.found.into_iter().zip(&self.users);
        LocateResponse {
            results: results.map(|(found, user)| found.into_result(user)).collect(),
            staleness_ms: self.staleness_ms,
        }
    }

    /// As the bytes of that message.
    pub(super) fn encode(&self) -> Bytes {
        let each = || self.found.iter().zip(&self.users);
        let lens: Vec<usize> = each().map(|(found, user)| found.encoded_len(user)).collect();
        let results: usize = lens.iter().map(|len| nested_len(*len)).sum();
        let mut out = BytesMut::with_capacity(results + varint_len(self.staleness_ms));
        for ((found, user), len) in each().zip(lens) {
            put_nested(RESULTS, len, &mut out);
            found.encode(user, &mut out);
        }
        put_varint(STALENESS_MS, self.staleness_ms, &mut out);
        out.freeze()
    }
}

// Numbers of fields: of LocateResponse, its Result, SessionInfo and DeviceRef.
const RESULTS: u32 = 1;
const STALENESS_MS: u32 = 2;
const STATUS: u32 = 1;
const SESSIONS: u32 = 2;
const DEVICES: u32 = 3;
const SESSION_DEVICE: u32 = 1;
const DEVICE_USER: u32 = 1;
const DEVICE_NUMBER: u32 = 2;

/// The numbers of a session with their fields, in the order of these.
fn numbers(session: &SessionRecord) -> [(u32, u64); 5] {
    [
        (2, u64::from(session.gateway_id)),
        (3, session.incarnation),
        (4, session.connection_id),
        (5, session.epoch),
        (6, session.connected_at_ms),
    ]
}

fn device_len(user: &Bytes) -> usize {
    nested_len(user.len()) + varint_len(u64::from(PRIMARY_DEVICE))
}

fn session_len(session: &SessionRecord, user: &Bytes) -> usize {
    let numbers = numbers(session).into_iter().map(|(_, number)| varint_len(number));
    nested_len(device_len(user)) + numbers.sum::<usize>()
}

fn put_session(session: &SessionRecord, user: &Bytes, out: &mut BytesMut) {
    put_nested(SESSION_DEVICE, device_len(user), out);
    // Never empty: it was validated.
    put_nested(DEVICE_USER, user.len(), out);
    out.put_slice(user);
    put_varint(DEVICE_NUMBER, u64::from(PRIMARY_DEVICE), out);
    for (field, number) in numbers(session) {
        put_varint(field, number, out);
    }
}

/// Every field here has a number below 16, so its key takes one byte. What is zero is not written.
fn varint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

fn nested_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_varint(field: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// The head of a field of so many bytes.
fn put_nested(field: u32, len: usize, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::{DeviceRef, SessionInfo};

    use super::*;

    fn session(number: u64) -> SessionRecord {
        SessionRecord {
            gateway_id: number as u32,
            incarnation: number.wrapping_mul(3),
            connection_id: number.wrapping_mul(number),
            epoch: number << 24,
            connected_at_ms: 1_700_000_000_000 ^ number,
        }
    }

    fn several() -> locate_response::Result {
        let device = Some(DeviceRef { user: "carol".into(), device: 7 });
        let sessions = vec![SessionInfo { device, epoch: 9, ..Default::default() }; 2];
        locate_response::Result { status: 0, sessions, devices: vec![1, 7, 300] }
    }

    fn answer(staleness_ms: u64) -> Answer {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX];
        let mut found: Vec<Found> =
            numbers.map(|number| Found::Primary(Some(session(number)))).to_vec();
        found.push(Found::Primary(None));
        found.push(Found::Several(several()));
        for status in [ItemStatus::Ok, ItemStatus::Unavailable, ItemStatus::Invalid] {
            found.push(Found::Refused(status));
        }
        // Names from the shortest to the longest, so that every length prefix is met.
        let users = (0..found.len()).map(|n| Bytes::from(vec![b'u'; 1 + n * 63 / 12])).collect();
        Answer { users, found, staleness_ms }
    }

    #[test]
    fn the_bytes_are_those_of_the_generated_message() {
        for staleness_ms in [0, 1, 127, 128, u64::MAX] {
            let encoded = answer(staleness_ms).encode();
            assert_eq!(encoded, answer(staleness_ms).into_response().encode_to_vec());
        }
        let none = Answer { users: Vec::new(), found: Vec::new(), staleness_ms: 0 };
        assert!(none.encode().is_empty());
    }

    #[test]
    fn a_thousand_sessions_read_back_as_they_were() {
        let users: Vec<Bytes> = (0..1_024).map(|n| Bytes::from(format!("user-{n}"))).collect();
        let found = (0..1_024).map(|n| Found::Primary(Some(session(n)))).collect();
        let answer = Answer { users, found, staleness_ms: 3 };
        let read = LocateResponse::decode(answer.encode()).unwrap();
        assert_eq!(read, answer.into_response());
    }
}
