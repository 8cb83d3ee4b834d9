//! Devices that behave badly for as long as they can, over real sockets, beside two that talk: each
//! is told or cut for a reason, and the two notice nothing.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Messenger, PATIENCE, Phone, raw::Raw, soon};
use switchboard_api::device::v1::{Ack, Send, client_frame, error::Code, server_frame::Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Two that talk to each other all the while.
struct Friends {
    ann: Phone,
    ben: Phone,
    said: u32,
}

impl Friends {
    async fn meet(messenger: &Messenger) -> Self {
        let gateways = vec![messenger.gateway.tcp()];
        let mut friends = Self {
            ann: Phone::start("ann", gateways.clone()),
            ben: Phone::start("ben", gateways),
            said: 0,
        };
        friends.ann.drained().await;
        friends.ben.drained().await;
        friends
    }

    /// A message there and one back, on the connections that they have had from the start.
    async fn talk(&mut self) {
        self.said += 1;
        let text = self.said.to_string();
        self.ann.say("ben", &text);
        assert_eq!(self.ben.message().await.body, text);
        self.ben.say("ann", &text);
        assert_eq!(self.ann.message().await.body, text);
        assert_eq!((self.ann.device.stats().connects, self.ben.device.stats().connects), (1, 1));
    }
}

fn send(n: u128, to: &str, body: usize) -> client_frame::Frame {
    client_frame::Frame::Send(Send {
        message_id: Bytes::copy_from_slice(&n.to_be_bytes()),
        to_user: Bytes::copy_from_slice(to.as_bytes()),
        body: vec![b'x'; body].into(),
        ..Send::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_byte_at_a_time_is_cut_within_bounds() {
    let messenger = Messenger::start_with(|config| {
        config.write_stall_ms = 1_500;
        // So much goes out to it that no buffer of the system holds it.
        config.window_default = 1_024;
        config.sends_per_second = 100_000;
    })
    .await;
    let mut friends = Friends::meet(&messenger).await;
    // It asks for a small buffer, as a device on a bad network has.
    let mut slow = Raw::with_receive_buffer(&messenger, 4 * 1024).await;
    slow.hello("slow").await;
    let gateways = vec![messenger.gateway.tcp()];
    let fan = Phone::start("fan", gateways);
    let body = "x".repeat(60_000);
    for _ in 0..200 {
        fan.say("slow", &body);
    }
    let started = tokio::time::Instant::now();
    let mut byte = [0];
    let mut read = 0_u64;
    loop {
        assert!(started.elapsed() < PATIENCE, "it was never cut");
        tokio::time::sleep(Duration::from_millis(50)).await;
        friends.talk().await;
        match soon("a byte or the end", slow.stream.read(&mut byte)).await {
            Ok(0) | Err(_) => break,
            Ok(count) => read += count as u64,
        }
        // What is left of it is in the buffers of the system; the gateway has let go.
        if messenger.locate("slow").await.is_empty() {
            break;
        }
    }
    assert!(read < 4_096, "{read}");
    // Nothing is lost: it comes back and takes it all.
    let mut back = Phone::start("slow", vec![messenger.gateway.tcp()]);
    for _ in 0..200 {
        assert_eq!(back.message().await.body.len(), body.len());
    }
    friends.talk().await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_acknowledges_gets_a_window_and_no_more() {
    let messenger = Messenger::start().await;
    let mut friends = Friends::meet(&messenger).await;
    let mut greedy = Raw::connect(&messenger).await;
    greedy.hello("greedy").await;
    let fan = Phone::start("fan", vec![messenger.gateway.tcp()]);
    for n in 0..200 {
        fan.say("greedy", &n.to_string());
    }
    for n in 0..64 {
        let Some(Frame::Deliver(deliver)) = greedy.next().await else { panic!("no message") };
        assert_eq!(deliver.message.unwrap().body, n.to_string());
    }
    for _ in 0..20 {
        friends.talk().await;
    }
    // The answer to a Ping comes right after the window: nothing else was on its way.
    greedy.still_served().await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_two_thousand_connections_is_held_to_its_limit() {
    const LIMIT: u32 = 200;
    let messenger = Messenger::start().await;
    let mut friends = Friends::meet(&messenger).await;
    let mut config = support::gateway_config(messenger.store_address, "gateway-2");
    config.connections_per_address_max = LIMIT;
    config.limit_loopback = true;
    let second = support::gateway(config).await;
    let address = second.socket("gateway-tcp");
    let (mut open, mut refused) = (Vec::new(), 0);
    for n in 0..2_000_u32 {
        let mut raw = Raw::over(tokio::net::TcpStream::connect(address).await.unwrap());
        if n < LIMIT {
            raw.hello(&format!("many-{n}")).await;
            open.push(raw);
            continue;
        }
        raw.closed_with(Code::TooManyConnections).await;
        refused += 1;
        if n % 200 == 0 {
            friends.talk().await;
        }
    }
    assert_eq!(refused, 2_000 - LIMIT);
    for raw in &mut open {
        raw.still_served().await;
    }
    // Places are given back.
    drop(open);
    soon("a place", async {
        loop {
            let mut raw = Raw::over(tokio::net::TcpStream::connect(address).await.unwrap());
            raw.frame(client_frame::Frame::Hello(support::raw::hello("late"))).await;
            if matches!(raw.next().await, Some(Frame::Welcome(_))) {
                return;
            }
        }
    })
    .await;
    soon("the shutdown", second.running.shutdown()).await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_disturbs_nobody() {
    let messenger = Messenger::start().await;
    let mut friends = Friends::meet(&messenger).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..100 {
        let mut raw = Raw::connect(&messenger).await;
        let garbage: Vec<u8> = (0..4_096)
            .map(|_| {
                // Xorshift64 (Marsaglia 2003).
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect();
        // It may be cut before it has said all.
        let _ = raw.stream.write_all(&garbage).await;
        let _ = raw.stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon("the end", raw.stream.read_to_end(&mut answer)).await;
        if round % 20 == 0 {
            friends.talk().await;
        }
    }
    friends.talk().await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_frames_of_another_are_worth_nothing() {
    let messenger = Messenger::start().await;
    let mut friends = Friends::meet(&messenger).await;
    let mut ben = Raw::taken_in(&messenger, "bert").await;

    // Mallory has seen what alice is about to send, and is first.
    let mut mallory = Raw::taken_in(&messenger, "mallory").await;
    mallory.frame(send(1, "bert", 5)).await;
    assert!(matches!(mallory.next().await, Some(Frame::Accepted(a)) if !a.duplicate));
    let mut alice = Raw::taken_in(&messenger, "alice").await;
    alice.frame(send(1, "bert", 5)).await;
    // An id counts for its sender only: hers is no repeat.
    assert!(matches!(alice.next().await, Some(Frame::Accepted(a)) if !a.duplicate));
    let mut seqs = Vec::new();
    for from in ["mallory", "alice"] {
        let Some(Frame::Deliver(deliver)) = ben.next().await else { panic!("no message") };
        let message = deliver.message.unwrap();
        assert_eq!(message.from.unwrap().user, from);
        seqs.push(message.seq);
    }

    // Bert's acknowledgement, from mallory's connection, is about mallory's mailbox.
    let ack = client_frame::Frame::Ack(Ack { up_to_seq: u64::MAX, seqs: seqs.clone() });
    mallory.frame(ack).await;
    mallory.still_served().await;
    drop(ben);
    let mut back = Raw::connect(&messenger).await;
    back.frame(client_frame::Frame::Hello(support::raw::hello("bert"))).await;
    let Some(Frame::Welcome(welcome)) = back.next().await else { panic!("no welcome") };
    assert_eq!(welcome.backlog, 2, "nothing was taken out of bert's mailbox");

    // Another's Hello in the middle of a connection.
    mallory.frame(client_frame::Frame::Hello(support::raw::hello("alice"))).await;
    mallory.closed_with(Code::Protocol).await;
    alice.still_served().await;
    friends.talk().await;
    messenger.shutdown().await;
}
