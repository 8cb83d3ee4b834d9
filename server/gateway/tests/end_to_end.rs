//! Messages from device to device through the real gateway, chat and store in one process.

mod support;

use std::collections::HashSet;

use support::{Messenger, Phone, outgoing, soon};
use switchboard_device::{Event, Offline, ReceiptState, new_message_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_crosses_and_its_receipts_come_back() {
    let messenger = Messenger::start().await;
    let mut alice = Phone::start("alice", vec![messenger.gateway.tcp()]);
    let mut bob = Phone::start("bob", vec![messenger.gateway.web_socket()]);
    assert_eq!(alice.online().await.1, 0);
    alice.drained().await;
    bob.drained().await;

    let id = new_message_id();
    let accepted = soon("Accepted", alice.device.send(outgoing(id, "bob", "hello"))).await.unwrap();
    assert!(!accepted.duplicate && accepted.at_ms > 0);
    let message = bob.message().await;
    assert_eq!((message.message_id, message.from_user.as_ref()), (id, &b"alice"[..]));
    assert_eq!(message.body.as_ref(), b"hello");

    let receipt = |wanted: ReceiptState| {
        move |event| match event {
            Event::Receipt { message_id, state, by_user, .. } if state == wanted => {
                Some((message_id, by_user))
            }
            _ => None,
        }
    };
    let delivered = alice.until("a delivered receipt", receipt(ReceiptState::Delivered)).await;
    assert_eq!(delivered, (id, bob.user.clone()));
    bob.device.read(&alice.user, vec![id]);
    let read = alice.until("a read receipt", receipt(ReceiptState::Read)).await;
    assert_eq!(read, (id, bob.user.clone()));
    let ids = bob
        .until("ReadAccepted", |event| match event {
            Event::ReadAccepted { ids } => Some(ids),
            _ => None,
        })
        .await;

    assert_eq!(ids, [id]);
    // A resend of the same id is not stored again.
    let again = soon("Accepted", alice.device.send(outgoing(id, "bob", "hello"))).await.unwrap();
    assert!(again.duplicate);
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_to_an_offline_device_comes_first_and_in_order() {
    let messenger = Messenger::start().await;
    let gateways = vec![messenger.gateway.tcp()];
    let alice = Phone::start("alice", gateways.clone());
    let mut sends = Vec::new();
    for n in 0..300 {
        let text = n.to_string();
        sends.push(alice.device.send(outgoing(new_message_id(), "bob", &text)));
    }
    for send in sends {
        soon("Accepted", send).await.unwrap();
    }
    let mut bob = Phone::start_with("bob", gateways, |options| options.window = 7);
    assert_eq!(bob.online().await.1, 300);
    for n in 0..300 {
        let Event::Message(message) = bob.event().await else { panic!("Drained too early") };
        assert_eq!(message.body, n.to_string());
    }
    assert_eq!(bob.event().await, Event::Drained);
    alice.say("bob", "live");
    assert_eq!(bob.message().await.body.as_ref(), b"live");

    // All of it is acknowledged; what was not yet when the device left comes again and is dropped.
    loop {
        bob.device.go_offline(Offline::Goodbye).await;
        bob.device.go_online();
        if bob.online().await.1 == 0 {
            break;
        }
        bob.drained().await;
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_connection_of_a_device_wins() {
    let messenger = Messenger::start().await;
    let other =
        support::gateway(support::gateway_config(messenger.store_address, "gateway-2")).await;
    let mut first = Phone::start("bob", vec![messenger.gateway.tcp()]);
    let (first_epoch, _) = first.online().await;
    for gateway in [&other, &messenger.gateway, &messenger.gateway] {
        let mut second = Phone::start("bob", vec![gateway.tcp()]);
        let (second_epoch, _) = second.online().await;
        assert!(second_epoch > first_epoch);
        let replaced = first.until("being replaced", |event| match event {
            Event::Offline { replaced, .. } => Some(replaced),
            _ => None,
        });
        assert!(replaced.await);
        first = second;
    }
    soon("the shutdown", other.running.shutdown()).await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_survive_lost_connections_without_loss_repeat_or_disorder() {
    const MESSAGES: usize = 400;
    let messenger = Messenger::start().await;
    let gateways = vec![messenger.gateway.tcp(), messenger.gateway.web_socket()];
    let mut alice = Phone::start("alice", gateways.clone());
    let mut bob = Phone::start("bob", gateways);
    let ids: Vec<[u8; 16]> = (0..MESSAGES).map(|n| alice.say("bob", &n.to_string())).collect();
    let (mut seen, mut delivered) = (Vec::new(), HashSet::new());
    soon("all messages and receipts", async {
        while seen.len() < MESSAGES || delivered.len() < MESSAGES {
            tokio::select! {
                event = bob.events.recv() => if let Some(Event::Message(message)) = event {
                    seen.push(message.message_id);
                    if seen.len() % 50 == 25 {
                        bob.device.go_offline(Offline::Drop).await;
                        bob.device.go_online();
                    }
                },
                event = alice.events.recv() => {
                    if let Some(Event::Receipt { message_id, .. }) = event {
                        delivered.insert(message_id);
                        if delivered.len() % 90 == 45 {
                            alice.device.go_offline(Offline::Drop).await;
                            alice.device.go_online();
                        }
                    }
                },
            }
        }
    })
    .await;
    assert_eq!(seen, ids);
    assert!(alice.device.stats().connects > 2 && bob.device.stats().connects > 4);
    messenger.shutdown().await;
}
