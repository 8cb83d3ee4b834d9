//! Bytes of a device on a stream, cut into reads of any length.

use bytes::BytesMut;
use switchboard_api::{
    device::v1::{Ack, ClientFrame, Hello, Ping, Send, client_frame::Frame},
    frame::{self, Decoder, FrameError},
    limits::DEVICE_FRAME_BYTES_MAX,
};

use crate::Seed;

/// Streams of ordinary frames, with the length of reads before them.
pub fn seeds() -> Vec<Seed> {
    let user = bytes::Bytes::from_static(b"alice");
    let hello = Hello { user: user.clone(), device: 1, window: 8, ..Hello::default() };
    let send = Send {
        message_id: vec![7; 16].into(),
        to_user: user,
        body: vec![b'x'; 300].into(),
        ..Send::default()
    };
    let ack = Ack { up_to_seq: 1 << 40, seqs: vec![1, 300, 1 << 50] };
    let frames = [Frame::Hello(hello), Frame::Send(send), Frame::Ack(ack)];
    let mut stream = BytesMut::from(&[3][..]);
    for frame in frames {
        encode(&ClientFrame { frame: Some(frame) }, &mut stream);
    }
    let mut ping = BytesMut::from(&[1][..]);
    encode(&ClientFrame { frame: Some(Frame::Ping(Ping { nonce: 300 })) }, &mut ping);
    vec![("frames", stream.to_vec()), ("ping", ping.to_vec())]
}

/// Checks one stream; its first byte says how long reads are.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let Some((reads, stream)) = data.split_first() else { return };
    let whole = decode(stream, stream.len().max(1));
    let pieces = decode(stream, usize::from(*reads).max(1));
    assert_eq!(whole, pieces, "how the stream is cut into reads changes nothing");
    for frame in &whole.0 {
        let mut again = BytesMut::new();
        encode(frame, &mut again);
        let decoded = Decoder::new().next::<ClientFrame>(&mut again).expect("it is a frame");
        assert_eq!(decoded.as_ref(), Some(frame));
        assert!(again.is_empty());
    }
}

/// All frames up to the end or the first error.
fn decode(stream: &[u8], read: usize) -> (Vec<ClientFrame>, Result<(), FrameError>) {
    let decoder = Decoder::new();
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(read) {
        buffer.extend_from_slice(piece);
        loop {
            let missing = decoder.missing(&buffer);
            match decoder.next::<ClientFrame>(&mut buffer) {
                Ok(Some(frame)) => {
                    assert_eq!(missing, Ok(0), "a whole frame misses nothing");
                    frames.push(frame);
                }
                Ok(None) => {
                    let missing = missing.expect("a frame that may become whole");
                    assert!(missing > 0 && missing <= DEVICE_FRAME_BYTES_MAX + 10);
                    break;
                }
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    let end = decoder.finish(&buffer);
    (frames, end)
}

fn encode(frame: &ClientFrame, out: &mut BytesMut) {
    frame::encode(frame, out).expect("what was decoded from a frame fits one");
}
