//! One messenger over every transport: TCP, TLS, QUIC, WebSocket with and without TLS.

mod support;

use std::time::Duration;

use bytes::BytesMut;
use prost::Message as _;
use support::{Messenger, Phone, certificates::Certificates, gateway_config, soon};
use switchboard_api::{
    device::v1::{
        ClientFrame, Hello, Ping, ServerFrame, client_frame,
        error::Code,
        server_frame::{self, Frame},
    },
    frame,
};
use switchboard_device::{ConnectError, Connection, GatewayAddress};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const WITHIN: Duration = Duration::from_secs(30);

fn frame(frame: client_frame::Frame) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

fn hello(user: &str) -> ClientFrame {
    let user = user.to_owned().into();
    frame(client_frame::Frame::Hello(Hello { user, device: 1, ..Hello::default() }))
}

async fn next(connection: &mut Connection) -> Option<Frame> {
    soon("a frame", connection.next()).await.unwrap().and_then(|frame| frame.frame)
}

/// Taken in as `user`; with the epoch.
async fn taken_in(
    gateway: &GatewayAddress,
    certificates: &Certificates,
    user: &str,
) -> (Connection, u64) {
    let connecting = Connection::connect_with(gateway, Some(&certificates.trust), WITHIN);
    let mut connection = connecting.await.unwrap();
    connection.send(&hello(user)).await.unwrap();
    let Some(Frame::Welcome(welcome)) = next(&mut connection).await else { panic!("no welcome") };
    assert!(matches!(next(&mut connection).await, Some(Frame::Drained(_))));
    (connection, welcome.epoch)
}

async fn still_served(connection: &mut Connection) {
    let ping = frame(client_frame::Frame::Ping(Ping { nonce: 9 }));
    connection.send(&ping).await.unwrap();
    assert!(matches!(next(connection).await, Some(Frame::Pong(pong)) if pong.nonce == 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_talk_to_each_other_over_every_transport() {
    let certificates = Certificates::new();
    let messenger = Messenger::start_with(|config| certificates.configure(config)).await;
    let gateway = &messenger.gateway;
    let ways = [
        ("tcp", gateway.tcp()),
        ("tls", gateway.secure("tls")),
        ("quic", gateway.secure("quic")),
        ("ws", gateway.web_socket()),
        ("wss", gateway.secure("wss")),
    ];
    let mut phones: Vec<Phone> = ways
        .iter()
        .map(|(user, way)| {
            let trust = certificates.trust.clone();
            Phone::start_with(user, vec![way.clone()], |options| options.trust = Some(trust))
        })
        .collect();
    for phone in &mut phones {
        phone.drained().await;
    }
    // A body that takes many records and packets, and a small one after it.
    let large = "x".repeat(60_000);
    for (from, (_, way)) in ways.iter().enumerate() {
        let to = (from + 1) % ways.len();
        let ids = [phones[from].say(ways[to].0, &large), phones[from].say(ways[to].0, "small")];
        for (id, length) in ids.into_iter().zip([large.len(), 5]) {
            let message = phones[to].message().await;
            assert_eq!((message.message_id, message.body.len()), (id, length), "{way}");
        }
    }
    for phone in &phones {
        assert_eq!(phone.device.stats().connects, 1);
        soon("a goodbye", phone.device.shutdown()).await;
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quic_connection_goes_on_when_the_device_changes_its_address() {
    let certificates = Certificates::new();
    let messenger = Messenger::start_with(|config| certificates.configure(config)).await;
    let way = messenger.gateway.secure("quic");
    let (mut bob, epoch) = taken_in(&way, &certificates, "bob").await;
    let alice = Phone::start("alice", vec![messenger.gateway.tcp()]);

    let mut addresses = vec![bob.quic_address().unwrap()];
    for round in 0..3_u64 {
        assert!(bob.rebind().unwrap());
        let address = bob.quic_address().unwrap();
        assert!(!addresses.contains(&address));
        addresses.push(address);
        // The device is the first to speak from its new address: the gateway learns it by that.
        still_served(&mut bob).await;
        alice.say("bob", &round.to_string());
        let Some(Frame::Deliver(deliver)) = next(&mut bob).await else { panic!("no message") };
        let message = deliver.message.unwrap();
        assert_eq!(message.body, round.to_string());
        assert!(message.seq > epoch);
        let ack = switchboard_api::device::v1::Ack { up_to_seq: message.seq, seqs: vec![] };
        bob.send(&frame(client_frame::Frame::Ack(ack))).await.unwrap();
    }

    // By the library: one connection, one Hello, as before.
    let mut carol = Phone::start_with("carol", vec![way], |options| {
        options.trust = Some(certificates.trust.clone());
    });
    carol.drained().await;
    carol.device.network_changed();
    alice.say("carol", "and on");
    assert_eq!(carol.message().await.body, "and on");
    assert_eq!(carol.device.stats().connects, 1);
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_connects_again_resumes_its_session_of_tls() {
    let certificates = Certificates::new();
    let messenger = Messenger::start_with(|config| certificates.configure(config)).await;
    for scheme in ["tls", "wss"] {
        let way = messenger.gateway.secure(scheme);
        let (first, _) = taken_in(&way, &certificates, "alice").await;
        assert!(!first.is_resumed(), "{scheme}");
        drop(first);
        for _ in 0..3 {
            let (mut again, _) = taken_in(&way, &certificates, "alice").await;
            assert!(again.is_resumed(), "{scheme}");
            still_served(&mut again).await;
        }
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_without_a_restart_and_drops_nobody() {
    let certificates = Certificates::new();
    let messenger = Messenger::start_with(|config| certificates.configure(config)).await;
    let ways = ["tls", "quic"].map(|scheme| messenger.gateway.secure(scheme));
    let mut open = Vec::new();
    for (way, user) in ways.iter().zip(["alice", "bob"]) {
        open.push(taken_in(way, &certificates, user).await.0);
    }
    // Signed by another authority, so that it can be told from the old one.
    let others = certificates.replaced_by_another_authority();
    let connect = async |way: &GatewayAddress, certificates: &Certificates| {
        Connection::connect_with(way, Some(&certificates.trust), WITHIN).await
    };
    for way in &ways {
        soon("the new certificate", async {
            while connect(way, &others).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    for connection in &mut open {
        still_served(connection).await;
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_an_unknown_authority_is_not_believed() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let messenger = Messenger::start_with(|config| certificates.configure(config)).await;
    for scheme in ["tls", "wss", "quic"] {
        let way = messenger.gateway.secure(scheme);
        let refused = Connection::connect_with(&way, Some(&others.trust), WITHIN).await;
        assert!(matches!(refused, Err(ConnectError::Io(_) | ConnectError::Quic(_))), "{refused:?}");
        let nobody = Connection::connect_with(&way, None, WITHIN).await;
        assert!(matches!(nobody, Err(ConnectError::NoTrust)), "{nobody:?}");
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_silence_and_replayed_bytes_get_nowhere_on_tls() {
    let certificates = Certificates::new();
    let messenger = Messenger::start_with(|config| {
        certificates.configure(config);
        config.hello_timeout_ms = 1_000;
    })
    .await;
    let address = messenger.gateway.socket("gateway-tls");

    // No TLS at all: an alert (its record's type is 21), and the end.
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[0x55; 64]).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", garbage.read_to_end(&mut answer)).await;
    assert_eq!(answer.first(), Some(&21), "{answer:?}");

    // A handshake that never goes on is cut.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    assert_eq!(soon("the end", silent.read(&mut [0; 8])).await.unwrap_or(0), 0);

    // A handshake and then silence, or no WebSocket after all.
    let way = messenger.gateway.secure("tls");
    let mut mute = Connection::connect_with(&way, Some(&certificates.trust), WITHIN).await.unwrap();
    let Some(Frame::Error(error)) = next(&mut mute).await else { panic!("no error") };
    assert_eq!(error.code(), Code::HandshakeTimeout);
    let quic = messenger.gateway.secure("quic");
    let mut mute =
        Connection::connect_with(&quic, Some(&certificates.trust), WITHIN).await.unwrap();
    let ended = soon("the end", mute.next()).await.unwrap_err();
    assert!(ended.to_string().contains("HANDSHAKE_TIMEOUT"), "{ended}");

    // What alice wrote, recorded on its way and played again, is worth nothing.
    let (recorded, recorder) = record(address).await;
    let through = GatewayAddress::Tls(recorded);
    let (mut alice, _) = taken_in(&through, &certificates, "alice").await;
    still_served(&mut alice).await;
    let bytes = recorder.await.unwrap();
    let mut thief = TcpStream::connect(address).await.unwrap();
    thief.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", thief.read_to_end(&mut answer)).await;
    still_served(&mut alice).await;
    messenger.shutdown().await;
}

/// A relay to `address` on an address of its own, which gives the first bytes that it passed on.
async fn record(address: std::net::SocketAddr) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let recorder = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) =
            TcpStream::connect(address).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut seen = Vec::new();
        // The handshake, the Hello and the Ping.
        let mut chunk = [0; 4_096];
        while seen.len() < 300 {
            let count = from_client.read(&mut chunk).await.unwrap();
            seen.extend_from_slice(&chunk[..count]);
            to_server.write_all(&chunk[..count]).await.unwrap();
        }
        let passed = seen.clone();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        passed
    });
    (here, recorder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_can_be_reached_by_quic_alone() {
    let certificates = Certificates::new();
    let messenger = Messenger::start().await;
    let mut config = gateway_config(messenger.store_address, "gateway-2");
    certificates.configure(&mut config);
    (config.listen_tcp, config.listen_ws, config.listen_tls) = (None, None, None);
    let second = support::gateway(config).await;
    let (mut alice, _) = taken_in(&second.secure("quic"), &certificates, "alice").await;
    still_served(&mut alice).await;
    soon("the shutdown", second.running.shutdown()).await;
    // Told to go elsewhere before the end.
    let Some(server_frame::Frame::Redirect(_)) = next(&mut alice).await else {
        panic!("no redirect")
    };
    messenger.shutdown().await;
}

#[test]
fn no_frame_begins_as_a_websocket_does() {
    // Told apart by two bytes: a length of 71, and then a field that there is not.
    let mut out = BytesMut::new();
    for user in 1..64 {
        for token in 0..64 {
            let hello = Hello {
                user: vec![b'u'; user].into(),
                device: 1,
                token: "t".repeat(token),
                ..Hello::default()
            };
            out.clear();
            frame::encode(&frame(client_frame::Frame::Hello(hello)), &mut out).unwrap();
            assert!(!out.starts_with(b"GE"));
        }
    }
    assert!(ServerFrame::decode(&b"ET "[..]).is_err());
}
