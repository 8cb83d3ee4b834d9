//! Copies of a message for the sender's other devices.
//!
//! A copy is a message from the sending device to all devices of its own user. Sender and message id
//! name a message for good, in every shard, so a copy has an id of its own: that of the message with
//! another version in the UUID, 15 for 7. It is told from a message to oneself by that, and the id of
//! the message is got back from it. The sending device never sees its copy, and a copy yields no
//! receipt.
//!
//! ```
//! use switchboard_api::own_copy;
//!
//! let id = [0x01, 0x9a, 0xcb, 0x41, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 7];
//! let copy = own_copy::id(&id).unwrap();
//! assert_eq!(own_copy::original(&copy), Some(id));
//! assert_eq!(own_copy::original(&id), None);
//! ```

/// Where a UUID has its version, in the upper half of the byte.
const VERSION_AT: usize = 6;
const VERSION_7: u8 = 0x70;
const VERSION_OF_COPY: u8 = 0xf0;

/// The id of the copy; `None` when the id is no UUIDv7.
#[must_use]
pub fn id(message_id: &[u8]) -> Option<[u8; 16]> {
    with_version(message_id, VERSION_7, VERSION_OF_COPY)
}

/// The id of the message of which this is a copy; `None` when it is that of no copy.
#[must_use]
pub fn original(copy_id: &[u8]) -> Option<[u8; 16]> {
    with_version(copy_id, VERSION_OF_COPY, VERSION_7)
}

fn with_version(id: &[u8], from: u8, to: u8) -> Option<[u8; 16]> {
    let mut id: [u8; 16] = id.try_into().ok()?;
    if id[VERSION_AT] & 0xf0 != from {
        return None;
    }
    id[VERSION_AT] = to | (id[VERSION_AT] & 0x0f);
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_of_version_7_has_a_copy() {
        let mut message = [0xab; 16];
        for version in 0..16_u8 {
            message[VERSION_AT] = version << 4 | 0x0b;
            assert_eq!(id(&message).is_some(), version == 7);
            assert_eq!(original(&message).is_some(), version == 15);
        }
        assert_eq!(id(&[0x70; 15]), None);
    }
}
