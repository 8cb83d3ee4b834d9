//! Bytes that break the protocol, over real sockets: each has its typed answer, the connection ends
//! where it must, and nobody else is disturbed.

mod support;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use support::{
    Messenger, Phone,
    raw::{Raw, hello},
    soon,
};
use switchboard_api::device::v1::{
    Ack, Hello, Ping, Send, ServerFrame, client_frame, error::Code, server_frame::Frame,
};
use switchboard_gateway::{Refusal, Verifier};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder};

fn send(message_id: &[u8], to: &str, body: usize) -> client_frame::Frame {
    client_frame::Frame::Send(Send {
        message_id: Bytes::copy_from_slice(message_id),
        to_user: Bytes::copy_from_slice(to.as_bytes()),
        body: vec![b'x'; body].into(),
        ..Send::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_break_the_protocol_have_their_answers_and_disturb_nobody() {
    let messenger = Messenger::start().await;
    let alice = Phone::start("alice", vec![messenger.gateway.tcp()]);
    let mut bob = Phone::start("bob", vec![messenger.gateway.tcp()]);
    bob.drained().await;

    // Before the Hello.
    let mut long = Raw::connect(&messenger).await;
    // A length of 2^40.
    long.bytes(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 2, 3]).await;
    long.closed_with(Code::TooLarge).await;
    let mut no_varint = Raw::connect(&messenger).await;
    no_varint.bytes(&[0xff; 40]).await;
    no_varint.closed_with(Code::Protocol).await;
    let mut garbage = Raw::connect(&messenger).await;
    garbage.bytes(b"\x10GET / HTTP/1.1\r\n\r\n").await;
    garbage.closed_with(Code::Protocol).await;
    let mut cut = Raw::connect(&messenger).await;
    cut.bytes(&[40, 1, 2, 3]).await;
    cut.stream.shutdown().await.unwrap();
    cut.closed_with(Code::Protocol).await;
    let mut early = Raw::connect(&messenger).await;
    early.frame(client_frame::Frame::Ping(Ping { nonce: 1 })).await;
    early.closed_with(Code::Protocol).await;
    for nobody in [
        Hello { user: Bytes::new(), ..hello("") },
        Hello { user: Bytes::from(vec![b'x'; 65]), ..hello("") },
        Hello { device: 0, ..hello("carol") },
        Hello { device: 65_536, ..hello("carol") },
    ] {
        let mut raw = Raw::connect(&messenger).await;
        raw.frame(client_frame::Frame::Hello(nobody)).await;
        raw.closed_with(Code::Invalid).await;
    }

    // After it: what is wrong with one send is told of that send.
    let mut carol = Raw::taken_in(&messenger, "carol").await;
    for (frame, code) in [
        (send(&[7; 15], "bob", 1), Code::Invalid),
        (send(&[7; 17], "bob", 1), Code::Invalid),
        (send(&[7; 16], "", 1), Code::Invalid),
        (send(&[7; 16], "bob", 64 * 1024 + 1), Code::TooLarge),
    ] {
        carol.frame(frame.clone()).await;
        let error = carol.error().await;
        let client_frame::Frame::Send(send) = frame else { unreachable!() };
        assert_eq!((error.code(), error.message_id), (code, send.message_id));
    }
    carol.frame(client_frame::Frame::Ack(Ack { up_to_seq: u64::MAX, seqs: vec![1, 2] })).await;
    // A field that is not known yet is passed over.
    carol.bytes(&[3, 0x7a, 1, 0]).await;
    carol.still_served().await;
    carol.frame(send(&[7; 16], "bob", 64 * 1024)).await;
    assert!(matches!(carol.next().await, Some(Frame::Accepted(_))));
    assert_eq!(bob.message().await.body.len(), 64 * 1024);
    // A frame of 129 KiB.
    carol.bytes(&[0x80, 0x88, 0x08]).await;
    carol.bytes(&[0; 4_096]).await;
    loop {
        match carol.next().await {
            // The receipts of what was delivered.
            Some(Frame::Receipt(_)) => {}
            Some(Frame::Error(error)) => break assert_eq!(error.code(), Code::TooLarge),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(carol.next().await, None);

    for again in [client_frame::Frame::Hello(hello("dave")), send(b"", "bob", 1)] {
        let mut dave = Raw::taken_in(&messenger, "dave").await;
        dave.frame(again).await;
        assert!(matches!(dave.error().await.code(), Code::Protocol | Code::Invalid));
        assert_eq!(dave.next().await, None);
    }

    // All the while, the others talked on.
    alice.say("bob", "undisturbed");
    assert_eq!(bob.message().await.body.as_ref(), b"undisturbed");
    assert_eq!((alice.device.stats().connects, bob.device.stats().connects), (1, 1));
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_web_sockets() {
    let messenger = Messenger::start().await;
    let url = messenger.gateway.web_socket().to_string();
    let connect = async |protocol: &str| {
        let request = ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol(protocol);
        let address = messenger.gateway.socket("gateway-ws");
        let stream = TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    let refused = connect("mqtt").await.unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(answer) if answer.status() == 400));

    let too_large = vec![0; 128 * 1024 + 1].into();
    for (message, code) in [
        (tungstenite::Message::text("hello"), Code::Protocol),
        (tungstenite::Message::Binary(vec![0xff; 9].into()), Code::Protocol),
        (tungstenite::Message::Binary(too_large), Code::TooLarge),
        (tungstenite::Message::Binary(Bytes::from_static(&[0x2a, 0])), Code::Protocol),
    ] {
        let (mut socket, _) = connect("other, switchboard.v1").await.unwrap();
        socket.send(message).await.unwrap();
        let error = loop {
            match soon("an error", socket.next()).await.unwrap().unwrap() {
                tungstenite::Message::Binary(bytes) => {
                    let frame = ServerFrame::decode(bytes).unwrap();
                    let Some(Frame::Error(error)) = frame.frame else { panic!("{frame:?}") };
                    break error;
                }
                tungstenite::Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.code(), code);
        let end = soon("the end", socket.next()).await;
        assert!(matches!(end, None | Some(Ok(tungstenite::Message::Close(_)) | Err(_))), "{end:?}");
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_no_hello_is_sent_away() {
    let messenger = Messenger::start_with(|config| config.hello_timeout_ms = 50).await;
    let mut silent = Raw::connect(&messenger).await;
    silent.closed_with(Code::HandshakeTimeout).await;
    let stream = TcpStream::connect(messenger.gateway.socket("gateway-ws")).await.unwrap();
    let url = messenger.gateway.web_socket().to_string();
    let request =
        ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol("switchboard.v1");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let answer = soon("an error", socket.next()).await.unwrap().unwrap();
    let frame = ServerFrame::decode(answer.into_data()).unwrap().frame;
    let Some(Frame::Error(error)) = frame else { panic!("{frame:?}") };
    assert_eq!(error.code(), Code::HandshakeTimeout);
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_token_is_refused_is_told_so() {
    let messenger = Messenger::start().await;
    let verifier = Verifier::new(|hello| match hello.token.as_str() {
        "good" => Ok(()),
        "old" => Err(Refusal::Expired),
        _ => Err(Refusal::Unauthenticated),
    });
    let config = support::gateway_config(messenger.store_address, "gateway-2");
    let strict = support::gateway_with(config, verifier).await;
    for (token, code) in [
        ("good", None),
        ("old", Some(Code::ExpiredToken)),
        ("", Some(Code::Unauthenticated)),
        ("guessed", Some(Code::Unauthenticated)),
    ] {
        let stream = TcpStream::connect(strict.socket("gateway-tcp")).await.unwrap();
        let mut raw = Raw::over(stream);
        let hello = Hello { token: token.to_owned(), ..hello("alice") };
        raw.frame(client_frame::Frame::Hello(hello)).await;
        match code {
            Some(code) => raw.closed_with(code).await,
            None => assert!(matches!(raw.next().await, Some(Frame::Welcome(_)))),
        }
    }
    soon("the shutdown", strict.running.shutdown()).await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_beyond_the_rate_are_told_to_wait_and_keep_their_order() {
    let messenger = Messenger::start_with(|config| {
        config.sends_per_second = 200;
        config.sends_burst = 5;
    })
    .await;
    let mut flood = Raw::taken_in(&messenger, "flood").await;
    for n in 0..20_u8 {
        flood.frame(send(&[n; 16], "bob", 1)).await;
    }
    let (mut accepted, mut limited) = (Vec::new(), Vec::new());
    while accepted.len() + limited.len() < 20 {
        match flood.next().await {
            Some(Frame::Accepted(answer)) => accepted.push(answer.message_id[0]),
            Some(Frame::Error(error)) => {
                assert_eq!(error.code(), Code::RateLimited);
                assert!(error.retry_after_ms > 0);
                limited.push(error.message_id[0]);
            }
            other => panic!("{other:?}"),
        }
    }
    // Nothing overtakes the first that was refused.
    assert!(!limited.is_empty());
    assert_eq!(accepted, (0..limited[0]).collect::<Vec<_>>());

    // The reference client waits and goes on.
    let alice = Phone::start("alice", vec![messenger.gateway.tcp()]);
    let mut carol = Phone::start("carol", vec![messenger.gateway.tcp()]);
    let ids: Vec<[u8; 16]> = (0..60).map(|n| alice.say("carol", &n.to_string())).collect();
    for id in ids {
        assert_eq!(carol.message().await.message_id, id);
    }
    assert!(alice.device.stats().resends > 0);
    messenger.shutdown().await;
}
