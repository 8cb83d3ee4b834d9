//! Parts of answers that the store encodes by itself, while it finds them.
//!
//! A generated message is made of lists and names, each with memory of its own, and is walked once
//! for the length of every level. Where hundreds of thousands are answered a second that costs more
//! than finding them. On the wire nothing differs.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

use crate::v1::LocateResponse;

/// A message, or what it is encoded to.
///
/// ```
/// use prost::Message as _;
/// use switchboard_api::{Ahead, v1::LocateResponse};
///
/// let response = LocateResponse { staleness_ms: 7, ..Default::default() };
/// let ahead = Ahead::<LocateResponse>::Encoded(response.encode_to_vec().into());
/// assert_eq!(ahead.encode_to_vec(), response.encode_to_vec());
/// assert_eq!(ahead.into_message()?, response);
/// # Ok::<(), prost::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Ahead<M> {
    /// As it is when it was received.
    Message(M),
    /// The bytes of a message; they are sent as they are.
    Encoded(Bytes),
}

impl<M: Default> Default for Ahead<M> {
    fn default() -> Self {
        Self::Message(M::default())
    }
}

impl<M: Message + Default> Ahead<M> {
    /// The message itself.
    ///
    /// # Errors
    /// If it was encoded ahead to something else.
    pub fn into_message(self) -> Result<M, DecodeError> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Encoded(bytes) => M::decode(bytes),
        }
    }
}

impl<M: Message + Default> Message for Ahead<M> {
    fn encode_raw(&self, out: &mut impl BufMut) {
        match self {
            Self::Message(message) => message.encode_raw(out),
            Self::Encoded(bytes) => out.put_slice(bytes),
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if let Self::Encoded(bytes) = self {
            *self = Self::Message(M::decode(std::mem::take(bytes))?);
        }
        match self {
            Self::Message(message) => message.merge_field(tag, wire_type, from, context),
            Self::Encoded(_) => Ok(()),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Message(message) => message.encoded_len(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The answer to one request of `SessionService.LocateStream`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LocateStreamResponse {
    /// The id of the request.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What was found.
    #[prost(message, optional, tag = "2")]
    pub response: Option<Ahead<LocateResponse>>,
}
