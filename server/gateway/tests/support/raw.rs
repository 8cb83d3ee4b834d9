//! A device by hand: a socket that writes whatever it likes, and reads frames.

use bytes::{Bytes, BytesMut};
use switchboard_api::{
    device::v1::{
        ClientFrame, Error, Hello, Ping, ServerFrame, client_frame, error::Code,
        server_frame::Frame,
    },
    frame::{self, Decoder},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{Messenger, soon};

/// A device that writes whatever it likes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) read: BytesMut,
}

impl Raw {
    pub(crate) async fn connect(messenger: &Messenger) -> Self {
        let address = messenger.gateway.socket("gateway-tcp");
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream)
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// With a buffer for receiving of about so many bytes.
    pub(crate) async fn with_receive_buffer(messenger: &Messenger, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        let address = messenger.gateway.socket("gateway-tcp");
        Self::over(socket.connect(address).await.unwrap())
    }

    /// Says Hello; Welcome and Drained come back.
    pub(crate) async fn hello(&mut self, user: &str) {
        self.frame(client_frame::Frame::Hello(hello(user))).await;
        assert!(matches!(self.next().await, Some(Frame::Welcome(_))));
        assert!(matches!(self.next().await, Some(Frame::Drained(_))));
    }

    /// Connected, and taken in as this user.
    pub(crate) async fn taken_in(messenger: &Messenger, user: &str) -> Self {
        let mut raw = Self::connect(messenger).await;
        raw.hello(user).await;
        raw
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn frame(&mut self, frame: client_frame::Frame) {
        let mut out = BytesMut::new();
        frame::encode(&ClientFrame { frame: Some(frame) }, &mut out).unwrap();
        self.bytes(&out).await;
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        soon("a frame or the end", async {
            loop {
                if let Some(frame) = Decoder::new().next::<ServerFrame>(&mut self.read).unwrap() {
                    return frame.frame;
                }
                if self.stream.read_buf(&mut self.read).await.unwrap() == 0 {
                    assert!(self.read.is_empty(), "cut inside a frame");
                    return None;
                }
            }
        })
        .await
    }

    pub(crate) async fn error(&mut self) -> Error {
        match self.next().await {
            Some(Frame::Error(error)) => error,
            other => panic!("{other:?} instead of an error"),
        }
    }

    /// An error about the connection, and its end.
    pub(crate) async fn closed_with(&mut self, code: Code) {
        let error = self.error().await;
        assert_eq!((error.code(), error.message_id.as_ref()), (code, &b""[..]), "{error:?}");
        assert!(!error.message.is_empty());
        assert_eq!(self.next().await, None);
    }

    pub(crate) async fn still_served(&mut self) {
        self.frame(client_frame::Frame::Ping(Ping { nonce: 77 })).await;
        assert!(matches!(self.next().await, Some(Frame::Pong(pong)) if pong.nonce == 77));
    }
}

pub(crate) fn hello(user: &str) -> Hello {
    Hello { user: Bytes::copy_from_slice(user.as_bytes()), device: 1, ..Hello::default() }
}
