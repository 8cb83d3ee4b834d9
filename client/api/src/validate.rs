//! What a request must look like, checked in one place by whoever reads it: device frames by the
//! gateway, Route items by chat, batches by the store.
//!
//! A check says what is wrong ([`Fault`]); the reader decides whether one item fails (with
//! [`Fault::status`]) or the whole request (`INVALID_ARGUMENT` with [`Fault::reason`]). Nothing
//! here clamps but [`ttl_ms`], [`window`], [`page_messages`] and [`page_bytes`], where the contract
//! says so.

use crate::{
    device::v1 as device,
    limits, own_copy,
    v1::{
        DeviceRef, EnqueueRequest, ItemStatus, RegisterRequest, ack_request, claim_request,
        enqueue_request, message, release_request, route_request,
    },
};

/// What is wrong with a request or one of its items.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A device reference is missing.
    #[error("`{field}` is missing")]
    DeviceMissing {
        /// Which field.
        field: &'static str,
    },
    /// A user id has no byte or too many.
    #[error("a user id of {length} bytes; it has 1 to {}", limits::USER_BYTES_MAX)]
    UserLength {
        /// As given.
        length: usize,
    },
    /// A device number out of range.
    #[error(
        "device {device}; it is 1 to {}, and 0 only as the recipient of a send",
        limits::DEVICE_MAX
    )]
    DeviceRange {
        /// As given.
        device: u32,
    },
    /// A message id of another length than 16 bytes.
    #[error("a message id of {length} bytes; it has exactly {}", limits::MESSAGE_ID_BYTES)]
    MessageIdLength {
        /// As given.
        length: usize,
    },
    /// A message that is to be copied to the sender's devices has an id without a copy.
    #[error("`to_own_devices` needs a message id that is a UUIDv7")]
    NoCopyId,
    /// A message to oneself has the id of a copy.
    #[error(
        "a message to oneself with an id of version 15, which is kept for copies; take a UUIDv7"
    )]
    CopyId,
    /// A body beyond the limit.
    #[error("a body of {length} bytes; the limit is {}", limits::BODY_BYTES_MAX)]
    BodyTooLarge {
        /// As given.
        length: usize,
    },
    /// A list beyond its limit.
    #[error("{count} entries in `{field}`; the limit is {max}")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// As given.
        count: usize,
        /// What is allowed.
        max: usize,
    },
    /// A list that must not be empty is.
    #[error("`{field}` is empty")]
    Empty {
        /// Which list.
        field: &'static str,
    },
    /// A text that is empty or too long.
    #[error("`{field}` of {length} bytes; it has {min} to {max}")]
    TextLength {
        /// Which field.
        field: &'static str,
        /// As given.
        length: usize,
        /// What is needed.
        min: usize,
        /// What is allowed.
        max: usize,
    },
    /// A request that is too large as a whole.
    #[error("a request of {length} bytes; the limit is {}", limits::REQUEST_BYTES_MAX)]
    RequestTooLarge {
        /// As given.
        length: usize,
    },
    /// A number that no value of the enum has.
    #[error("{value} is no value of `{field}`")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// As given.
        value: i32,
    },
}

impl Fault {
    /// The answer for an item with this fault.
    #[must_use]
    pub fn status(&self) -> ItemStatus {
        match self {
            Self::BodyTooLarge { .. } | Self::RequestTooLarge { .. } => ItemStatus::TooLarge,
            _ => ItemStatus::Invalid,
        }
    }

    /// The `reason` of a `google.rpc.ErrorInfo` with this fault.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DeviceMissing { .. } => "DEVICE_MISSING",
            Self::UserLength { .. } => "USER_LENGTH",
            Self::DeviceRange { .. } => "DEVICE_RANGE",
            Self::MessageIdLength { .. } => "MESSAGE_ID_LENGTH",
            Self::NoCopyId => "NO_COPY_ID",
            Self::CopyId => "COPY_ID",
            Self::BodyTooLarge { .. } => "BODY_TOO_LARGE",
            Self::TooMany { .. } => "TOO_MANY_ITEMS",
            Self::Empty { .. } => "EMPTY_LIST",
            Self::TextLength { .. } => "TEXT_LENGTH",
            Self::RequestTooLarge { .. } => "REQUEST_TOO_LARGE",
            Self::UnknownValue { .. } => "UNKNOWN_VALUE",
        }
    }
}

/// A user id: 1 to 64 bytes.
pub fn user(user: &[u8]) -> Result<(), Fault> {
    match user.len() {
        1..=limits::USER_BYTES_MAX => Ok(()),
        length => Err(Fault::UserLength { length }),
    }
}

/// A device that exists: with a user, and a number from 1.
pub fn device<'a>(
    field: &'static str,
    device: Option<&'a DeviceRef>,
) -> Result<&'a DeviceRef, Fault> {
    let device = destination(field, device)?;
    if device.device == 0 {
        return Err(Fault::DeviceRange { device: 0 });
    }
    Ok(device)
}

/// The recipient of a send: a device, or with number 0 all devices of the user.
pub fn destination<'a>(
    field: &'static str,
    device: Option<&'a DeviceRef>,
) -> Result<&'a DeviceRef, Fault> {
    let device = device.ok_or(Fault::DeviceMissing { field })?;
    user(&device.user)?;
    if device.device > limits::DEVICE_MAX {
        return Err(Fault::DeviceRange { device: device.device });
    }
    Ok(device)
}

/// A message id: exactly 16 bytes.
pub fn message_id(id: &[u8]) -> Result<[u8; limits::MESSAGE_ID_BYTES], Fault> {
    id.try_into().map_err(|_| Fault::MessageIdLength { length: id.len() })
}

/// A body: at most 64 KiB.
pub fn body(body: &[u8]) -> Result<(), Fault> {
    if body.len() > limits::BODY_BYTES_MAX {
        return Err(Fault::BodyTooLarge { length: body.len() });
    }
    Ok(())
}

/// A list of at most `max` entries.
pub fn at_most(field: &'static str, count: usize, max: usize) -> Result<(), Fault> {
    if count > max {
        return Err(Fault::TooMany { field, count, max });
    }
    Ok(())
}

/// The items of a batch: at most 1,024.
pub fn items(count: usize) -> Result<(), Fault> {
    at_most("items", count, limits::ITEMS_PER_BATCH_MAX)
}

/// The encoded length of a request: at most 4 MiB.
pub fn request_bytes(length: usize) -> Result<(), Fault> {
    if length > limits::REQUEST_BYTES_MAX {
        return Err(Fault::RequestTooLarge { length });
    }
    Ok(())
}

/// A whole `Enqueue` request as such: its count and size. Its items are checked one by one.
pub fn enqueue_request(request: &EnqueueRequest) -> Result<(), Fault> {
    items(request.items.len())?;
    request_bytes(prost::Message::encoded_len(request))
}

/// An item of `Enqueue`.
pub fn enqueue_item(item: &enqueue_request::Item) -> Result<(), Fault> {
    destination("to", item.to.as_ref())?;
    device("from", item.from.as_ref())?;
    message_id(&item.message_id)?;
    if message::Kind::try_from(item.kind).is_err() {
        return Err(Fault::UnknownValue { field: "kind", value: item.kind });
    }
    body(&item.body)
}

/// An item of `Claim`.
pub fn claim_item(item: &claim_request::Item) -> Result<(), Fault> {
    device("device", item.device.as_ref())?;
    text("push_token", &item.push_token, 0, limits::PUSH_TOKEN_BYTES_MAX)
}

/// An item of `Release`.
pub fn release_item(item: &release_request::Item) -> Result<(), Fault> {
    device("device", item.device.as_ref()).map(|_| ())
}

/// An item of `Ack`.
pub fn ack_item(item: &ack_request::Item) -> Result<(), Fault> {
    device("device", item.device.as_ref())?;
    at_most("seqs", item.seqs.len(), limits::ACK_SEQS_MAX)
}

/// `Register`: a name and an address.
pub fn register(request: &RegisterRequest) -> Result<(), Fault> {
    text("name", &request.name, 1, limits::NAME_BYTES_MAX)?;
    text("address", &request.address, 1, limits::ADDRESS_BYTES_MAX)?;
    if crate::v1::register_request::Kind::try_from(request.kind).is_err() {
        return Err(Fault::UnknownValue { field: "kind", value: request.kind });
    }
    Ok(())
}

/// The reason of a purge.
pub fn purge_reason(reason: &str) -> Result<(), Fault> {
    text("reason", reason, 1, limits::PURGE_REASON_BYTES_MAX)
}

/// A send of a Route stream.
pub fn route_send(send: &route_request::Send) -> Result<(), Fault> {
    device("from", send.from.as_ref())?;
    destination("to", send.to.as_ref())?;
    message_id(&send.message_id)?;
    let [from, to] = [&send.from, &send.to].map(|device| device.as_ref().map(|it| &it.user));
    copies(from == to, send.to_own_devices, &send.message_id)?;
    body(&send.body)
}

/// That the message and its copy, if there is one, can be told from each other.
fn copies(to_self: bool, to_own_devices: bool, message_id: &[u8]) -> Result<(), Fault> {
    if to_own_devices && own_copy::id(message_id).is_none() {
        return Err(Fault::NoCopyId);
    }
    if to_self && own_copy::original(message_id).is_some() {
        return Err(Fault::CopyId);
    }
    Ok(())
}

/// Receipts of a Route stream.
pub fn route_receipts(receipts: &route_request::Receipts) -> Result<(), Fault> {
    device("by", receipts.by.as_ref())?;
    destination("to", receipts.to.as_ref())?;
    if device::receipt::State::try_from(receipts.state).is_err() {
        return Err(Fault::UnknownValue { field: "state", value: receipts.state });
    }
    if receipts.message_ids.is_empty() {
        return Err(Fault::Empty { field: "message_ids" });
    }
    at_most("message_ids", receipts.message_ids.len(), limits::RECEIPT_IDS_MAX)?;
    receipts.message_ids.iter().try_for_each(|id| message_id(id).map(|_| ()))
}

/// The first frame of a device.
pub fn hello(hello: &device::Hello) -> Result<(), Fault> {
    user(&hello.user)?;
    if !(1..=limits::DEVICE_MAX).contains(&hello.device) {
        return Err(Fault::DeviceRange { device: hello.device });
    }
    text("token", &hello.token, 0, limits::TOKEN_BYTES_MAX)?;
    text("push_token", &hello.push_token, 0, limits::PUSH_TOKEN_BYTES_MAX)
}

/// A send of a device of user `from`.
pub fn send(from: &[u8], send: &device::Send) -> Result<(), Fault> {
    message_id(&send.message_id)?;
    user(&send.to_user)?;
    if send.to_device > limits::DEVICE_MAX {
        return Err(Fault::DeviceRange { device: send.to_device });
    }
    copies(send.to_user == from, send.to_own_devices, &send.message_id)?;
    body(&send.body)
}

/// A `Read` of a device.
pub fn read(read: &device::Read) -> Result<(), Fault> {
    user(&read.to_user)?;
    at_most("message_ids", read.message_ids.len(), limits::READ_IDS_MAX)?;
    read.message_ids.iter().try_for_each(|id| message_id(id).map(|_| ()))
}

/// An `Ack` of a device.
pub fn ack(ack: &device::Ack) -> Result<(), Fault> {
    at_most("seqs", ack.seqs.len(), limits::ACK_SEQS_MAX)
}

/// The time to live that an item gets: 0 is the default, more than the maximum is the maximum.
#[must_use]
pub const fn ttl_ms(asked: u64) -> u64 {
    if asked == 0 || asked > limits::TTL_MS_MAX { limits::TTL_MS_MAX } else { asked }
}

/// The window that a connection gets: 0 is the default, more than the maximum is the maximum.
#[must_use]
pub const fn window(asked: u32) -> u32 {
    clamp(asked, limits::WINDOW_DEFAULT, limits::WINDOW_MAX)
}

/// How many messages a page holds at most: 0 is the default, more than the maximum the maximum.
#[must_use]
pub const fn page_messages(asked: u32) -> u32 {
    clamp(asked, limits::FETCH_MESSAGES_DEFAULT, limits::FETCH_MESSAGES_MAX)
}

/// How many bytes of bodies a page holds at most: 0 is the default, more than the maximum the
/// maximum.
#[must_use]
pub const fn page_bytes(asked: u32) -> u32 {
    clamp(asked, limits::FETCH_BYTES_DEFAULT, limits::FETCH_BYTES_MAX)
}

const fn clamp(asked: u32, default: u32, max: u32) -> u32 {
    if asked == 0 {
        default
    } else if asked > max {
        max
    } else {
        asked
    }
}

fn text(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), Fault> {
    let length = text.len();
    if length < min || length > max {
        return Err(Fault::TextLength { field, length, min, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn at(user: &[u8], device: u32) -> Option<DeviceRef> {
        Some(DeviceRef { user: Bytes::copy_from_slice(user), device })
    }

    fn item() -> enqueue_request::Item {
        enqueue_request::Item {
            to: at(b"bob", 0),
            from: at(b"alice", 1),
            message_id: Bytes::from_static(&[7; 16]),
            body: Bytes::from_static(b"hello"),
            ..enqueue_request::Item::default()
        }
    }

    #[test]
    fn a_good_item_passes() {
        assert_eq!(enqueue_item(&item()), Ok(()));
        let largest = Bytes::from(vec![0; limits::BODY_BYTES_MAX]);
        assert_eq!(enqueue_item(&enqueue_request::Item { body: largest, ..item() }), Ok(()));
    }

    #[test]
    fn each_fault_has_its_status() {
        let cases = [
            (enqueue_request::Item { to: None, ..item() }, ItemStatus::Invalid),
            (enqueue_request::Item { to: at(b"", 1), ..item() }, ItemStatus::Invalid),
            (enqueue_request::Item { to: at(&[b'x'; 65], 1), ..item() }, ItemStatus::Invalid),
            (enqueue_request::Item { to: at(b"bob", 65_536), ..item() }, ItemStatus::Invalid),
            (enqueue_request::Item { from: at(b"alice", 0), ..item() }, ItemStatus::Invalid),
            (enqueue_request::Item { kind: 2, ..item() }, ItemStatus::Invalid),
            (
                enqueue_request::Item { message_id: Bytes::from_static(&[7; 15]), ..item() },
                ItemStatus::Invalid,
            ),
            (
                enqueue_request::Item {
                    body: Bytes::from(vec![0; limits::BODY_BYTES_MAX + 1]),
                    ..item()
                },
                ItemStatus::TooLarge,
            ),
        ];
        for (bad, status) in cases {
            let fault = enqueue_item(&bad).unwrap_err();
            assert_eq!(fault.status(), status, "{fault}");
            assert!(!fault.reason().is_empty());
        }
    }

    #[test]
    fn a_message_to_oneself_is_never_taken_for_a_copy() {
        let id = |version: u8| Bytes::from(vec![version << 4; 16]);
        for (to, version, fault) in [
            (b"alice", 15, Err(Fault::CopyId)),
            (b"alice", 7, Ok(())),
            (b"alice", 4, Ok(())),
            (b"robby", 15, Ok(())),
        ] {
            let sent = device::Send {
                message_id: id(version),
                to_user: Bytes::copy_from_slice(to),
                ..device::Send::default()
            };
            assert_eq!(send(b"alice", &sent), fault);
            let routed = route_request::Send {
                from: at(b"alice", 1),
                to: at(to, 0),
                message_id: id(version),
                ..route_request::Send::default()
            };
            assert_eq!(route_send(&routed), fault);
        }
        assert_eq!(Fault::CopyId.status(), ItemStatus::Invalid);
    }

    #[test]
    fn device_0_stands_in_sends_only() {
        assert!(destination("to", at(b"bob", 0).as_ref()).is_ok());
        assert_eq!(device("device", at(b"bob", 0).as_ref()), Err(Fault::DeviceRange { device: 0 }));
        assert!(device("device", at(b"bob", 65_535).as_ref()).is_ok());
    }

    #[test]
    fn batches_are_bounded() {
        assert_eq!(items(limits::ITEMS_PER_BATCH_MAX), Ok(()));
        let fault = items(limits::ITEMS_PER_BATCH_MAX + 1).unwrap_err();
        assert_eq!(fault.to_string(), "1025 entries in `items`; the limit is 1024");
    }

    #[test]
    fn receipts_name_1_to_1024_messages() {
        let mut receipts = route_request::Receipts {
            by: at(b"bob", 1),
            to: at(b"alice", 1),
            ..route_request::Receipts::default()
        };
        assert!(matches!(route_receipts(&receipts), Err(Fault::Empty { .. })));
        receipts.message_ids = vec![Bytes::from_static(&[1; 16]); 1_024];
        assert_eq!(route_receipts(&receipts), Ok(()));
        receipts.message_ids.push(Bytes::from_static(&[1; 16]));
        assert!(matches!(route_receipts(&receipts), Err(Fault::TooMany { .. })));
    }

    #[test]
    fn clamps_follow_the_contract() {
        assert_eq!(ttl_ms(0), limits::TTL_MS_MAX);
        assert_eq!(ttl_ms(u64::MAX), limits::TTL_MS_MAX);
        assert_eq!(ttl_ms(5), 5);
        assert_eq!((window(0), window(9), window(5_000)), (64, 9, 1_024));
        assert_eq!((page_messages(0), page_messages(u32::MAX)), (64, 1_024));
        assert_eq!((page_bytes(0), page_bytes(u32::MAX)), (1 << 20, 4 << 20));
    }
}
