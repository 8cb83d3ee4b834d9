//! Frames of the device protocol on a byte stream: a protobuf message preceded by its length as a
//! varint, the standard delimited form. On WebSocket a message is a frame and none of this is used.
//!
//! ```text
//! | length: varint, 1 to 3 bytes | protobuf, `length` bytes, at most 128 KiB |
//! ```
//!
//! Invariants: nothing is allocated for a length before it is checked; how the stream is cut into
//! reads changes nothing; after an error the stream has no frame boundary any more and must be
//! closed.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::limits::DEVICE_FRAME_BYTES_MAX;

/// A 64-bit varint has at most this many bytes.
const VARINT_BYTES_MAX: usize = 10;

/// Why a byte stream holds no further frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a frame of {length} bytes; the limit is {max}")]
    TooLarge {
        /// As announced.
        length: u64,
        /// What is allowed.
        max: usize,
    },
    /// The length is not a varint in its shortest form, or does not fit 64 bits.
    #[error("the length of a frame is not a varint in its shortest form")]
    Length,
    /// The frame is no message of the expected type.
    #[error("a frame is not the expected message: {0}")]
    Message(#[from] prost::DecodeError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {missing} bytes or more were to come")]
    Cut {
        /// Bytes missing at the least.
        missing: usize,
    },
}

/// Appends `message` to `out` with its length before it.
///
/// A frame beyond the limit is refused and `out` is left as it was.
///
/// ```
/// use bytes::BytesMut;
/// use switchboard_api::{device::v1::Ping, frame};
///
/// let mut out = BytesMut::new();
/// frame::encode(&Ping { nonce: 7 }, &mut out)?;
/// let ping: Ping = frame::Decoder::new().next(&mut out)?.expect("a whole frame");
/// assert_eq!(ping.nonce, 7);
/// # Ok::<(), frame::FrameError>(())
/// ```
pub fn encode(message: &impl Message, out: &mut BytesMut) -> Result<(), FrameError> {
    let length = message.encoded_len();
    if length > DEVICE_FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { length: length as u64, max: DEVICE_FRAME_BYTES_MAX });
    }
    out.reserve(length + VARINT_BYTES_MAX);
    prost::encoding::encode_varint(length as u64, out);
    message.encode_raw(out);
    Ok(())
}

/// Cuts a byte stream into frames. Holds no bytes itself: those not yet used stay in the buffer
/// that the caller reads into.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    frame_bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// With the limit of the device protocol, [`DEVICE_FRAME_BYTES_MAX`].
    #[must_use]
    pub const fn new() -> Self {
        Self { frame_bytes_max: DEVICE_FRAME_BYTES_MAX }
    }

    /// With a smaller limit, for a peer that is not trusted yet.
    #[must_use]
    pub const fn with_limit(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max }
    }

    /// The bytes of the next frame, without its length; `None` when more must be read first.
    pub fn next_bytes(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some((length, prefix)) = self.head(buffer)? else { return Ok(None) };
        if buffer.len() - prefix < length {
            return Ok(None);
        }
        buffer.advance(prefix);
        Ok(Some(buffer.split_to(length).freeze()))
    }

    /// The next message; `None` when more must be read first. `bytes` fields of the message share
    /// the buffer's memory.
    pub fn next<M: Message + Default>(
        &self,
        buffer: &mut BytesMut,
    ) -> Result<Option<M>, FrameError> {
        match self.next_bytes(buffer)? {
            Some(frame) => Ok(Some(M::decode(frame)?)),
            None => Ok(None),
        }
    }

    /// How many bytes are missing until the frame at the front is whole; 1 while its length is not
    /// known, 0 when it is whole. A reader may reserve as much.
    pub fn missing(&self, buffer: &[u8]) -> Result<usize, FrameError> {
        match self.head(buffer)? {
            Some((length, prefix)) => Ok((prefix + length).saturating_sub(buffer.len())),
            None => Ok(1),
        }
    }

    /// To be asked at the end of the stream: what is left must be nothing.
    pub fn finish(&self, buffer: &[u8]) -> Result<(), FrameError> {
        if buffer.is_empty() {
            return Ok(());
        }
        match self.missing(buffer)? {
            0 => Ok(()),
            missing => Err(FrameError::Cut { missing }),
        }
    }

    /// (length of the frame, bytes of its prefix), or `None` while the prefix is not whole.
    fn head(&self, buffer: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let mut length = 0_u64;
        for (i, byte) in buffer.iter().take(VARINT_BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * i as u32;
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(FrameError::Length);
            }
            length |= bits << shift;
            if byte & 0x80 == 0 {
                if i > 0 && bits == 0 {
                    return Err(FrameError::Length);
                }
                return match usize::try_from(length) {
                    Ok(fits) if fits <= self.frame_bytes_max => Ok(Some((fits, i + 1))),
                    _ => Err(FrameError::TooLarge { length, max: self.frame_bytes_max }),
                };
            }
        }
        if buffer.len() >= VARINT_BYTES_MAX { Err(FrameError::Length) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::v1::{ClientFrame, Ping, Send, client_frame::Frame};

    fn send(body: Vec<u8>) -> ClientFrame {
        ClientFrame {
            frame: Some(Frame::Send(Send {
                message_id: Bytes::from_static(b"0123456789abcdef"),
                to_user: Bytes::from_static(b"bob"),
                body: body.into(),
                ..Send::default()
            })),
        }
    }

    #[test]
    fn golden_bytes_of_a_ping() {
        let mut out = BytesMut::new();
        let ping = ClientFrame { frame: Some(Frame::Ping(Ping { nonce: 300 })) };
        encode(&ping, &mut out).unwrap();
        // Length 5; field 5, length-delimited, 3 bytes; field 1, varint, 300.
        assert_eq!(&out[..], [5, 0x2a, 3, 0x08, 0xac, 0x02]);
    }

    #[test]
    fn a_length_of_2_to_the_40_is_refused_before_anything_is_allocated() {
        let mut buffer = BytesMut::from(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20][..]);
        let capacity = buffer.capacity();
        let error = Decoder::new().next_bytes(&mut buffer).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { length: 1 << 40, max: DEVICE_FRAME_BYTES_MAX });
        assert_eq!(buffer.capacity(), capacity);
    }

    #[test]
    fn the_limit_is_exact() {
        let decoder = Decoder::new();
        let mut at_limit = BytesMut::from(&[0x80, 0x80, 0x08][..]);
        assert_eq!(decoder.missing(&at_limit), Ok(DEVICE_FRAME_BYTES_MAX));
        assert_eq!(decoder.next_bytes(&mut at_limit), Ok(None));
        let mut above = BytesMut::from(&[0x81, 0x80, 0x08][..]);
        assert!(matches!(decoder.next_bytes(&mut above), Err(FrameError::TooLarge { .. })));
        let too_large = send(vec![0; DEVICE_FRAME_BYTES_MAX]);
        let mut out = BytesMut::from(&b"kept"[..]);
        assert!(matches!(encode(&too_large, &mut out), Err(FrameError::TooLarge { .. })));
        assert_eq!(&out[..], b"kept");
    }

    #[test]
    fn over_long_varints_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0x81, 0x80, 0x00],
            &[0x80; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            let error = Decoder::new().next_bytes(&mut BytesMut::from(bytes)).unwrap_err();
            assert_eq!(error, FrameError::Length, "{bytes:x?}");
        }
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(matches!(
            Decoder::new().next_bytes(&mut BytesMut::from(&largest[..])),
            Err(FrameError::TooLarge { length: u64::MAX, .. })
        ));
    }

    #[test]
    fn a_frame_that_is_no_message_is_a_typed_error() {
        let mut buffer = BytesMut::from(&[2, 0x0a, 0x7f][..]);
        let error = Decoder::new().next::<ClientFrame>(&mut buffer).unwrap_err();
        assert!(matches!(error, FrameError::Message(_)));
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(1_usize..400, 1..60),
        ) {
            let frames: Vec<_> = bodies.into_iter().map(send).collect();
            let mut stream = BytesMut::new();
            for frame in &frames {
                encode(frame, &mut stream).unwrap();
            }
            let decoder = Decoder::new();
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            let mut cuts = cuts.into_iter().cycle();
            while !stream.is_empty() {
                let piece = stream.split_to(cuts.next().unwrap().min(stream.len()));
                buffer.extend_from_slice(&piece);
                while let Some(frame) = decoder.next::<ClientFrame>(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(decoder.finish(&buffer), Ok(()));
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn a_stream_cut_inside_a_frame_is_a_typed_error(
            body in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
        ) {
            let mut stream = BytesMut::new();
            encode(&send(body), &mut stream).unwrap();
            let length = stream.len();
            let kept = 1 + at.index(length - 1);
            stream.truncate(kept);
            let decoder = Decoder::new();
            prop_assert_eq!(decoder.next_bytes(&mut stream), Ok(None));
            let Err(FrameError::Cut { missing }) = decoder.finish(&stream) else {
                panic!("not seen as cut");
            };
            prop_assert!(missing >= 1 && missing <= length - kept);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let decoder = Decoder::new();
            while let Ok(Some(_)) = decoder.next::<ClientFrame>(&mut buffer) {}
            let _ = decoder.finish(&buffer);
        }
    }
}
