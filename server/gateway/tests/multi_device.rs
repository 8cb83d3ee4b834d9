//! Users with several devices, over the real gateway, chat and store.

mod support;

use std::collections::BTreeSet;

use support::{Messenger, Phone, outgoing, soon};
use switchboard_api::device::v1::error::Code;
use switchboard_device::{Event, Incoming, ReceiptState, SendError, new_message_id};

fn phone(user: &str, device: u16, messenger: &Messenger) -> Phone {
    Phone::start_with(user, vec![messenger.gateway.tcp()], |options| options.device = device)
}

async fn all_online(phones: &mut [&mut Phone]) {
    for phone in phones {
        phone.online().await;
    }
}

/// What a phone was brought, up to and including the message with this text.
async fn messages_until(phone: &mut Phone, text: &str) -> Vec<Incoming> {
    let mut messages = Vec::new();
    loop {
        messages.push(phone.message().await);
        if messages.last().is_some_and(|message| message.body == text) {
            return messages;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_reaches_every_device_of_both_users_and_each_sends_its_own_receipt() {
    let messenger = Messenger::start().await;
    let (mut alice1, mut alice2) = (phone("alice", 1, &messenger), phone("alice", 2, &messenger));
    let (mut bob1, mut bob2) = (phone("bob", 1, &messenger), phone("bob", 7, &messenger));
    all_online(&mut [&mut alice1, &mut alice2, &mut bob1, &mut bob2]).await;

    let ids = [new_message_id(), new_message_id()];
    for (n, id) in ids.iter().enumerate() {
        let send = outgoing(*id, "bob", &n.to_string());
        soon("Accepted", alice1.device.send_and_copy(send)).await.unwrap();
    }
    for phone in [&mut bob1, &mut bob2, &mut alice2] {
        for (n, id) in ids.iter().enumerate() {
            let message = phone.message().await;
            assert_eq!((message.message_id, message.body), (*id, n.to_string().into()));
            assert_eq!((message.from_user.as_ref(), message.from_device), (&b"alice"[..], 1));
        }
    }
    // The sender hears from each of the recipient's devices, and from none of its own.
    let mut receipts = BTreeSet::new();
    while receipts.len() < 4 {
        let receipt = alice1.until("a receipt", |event| match event {
            Event::Receipt { message_id, state, by_user, by_device, .. } => {
                assert_eq!((by_user.as_ref(), state), (&b"bob"[..], ReceiptState::Delivered));
                Some((message_id, by_device))
            }
            Event::Message(message) => panic!("its own copy: {message:?}"),
            _ => None,
        });
        receipts.insert(receipt.await);
    }
    let expected = ids.iter().flat_map(|id| [(*id, 1), (*id, 7)]).collect();
    assert_eq!(receipts, expected);
    // Read on one device: all devices of the sender learn of it, under the id that they know.
    bob2.device.read(&alice1.user, vec![ids[0]]);
    for phone in [&mut alice1, &mut alice2] {
        let read = phone.until("a read receipt", |event| match event {
            Event::Receipt { message_id, state: ReceiptState::Read, by_device, .. } => {
                Some((message_id, by_device))
            }
            _ => None,
        });
        assert_eq!(read.await, (ids[0], 7));
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_wait_for_an_own_device_that_is_offline_and_the_sender_never_sees_them() {
    let messenger = Messenger::start().await;
    let (mut alice1, mut alice2) = (phone("alice", 1, &messenger), phone("alice", 2, &messenger));
    all_online(&mut [&mut alice1, &mut alice2]).await;
    alice2.device.go_offline(switchboard_device::Offline::Goodbye).await;
    for n in 0..100 {
        let send = outgoing(new_message_id(), "bob", &n.to_string());
        soon("Accepted", alice1.device.send_and_copy(send)).await.unwrap();
    }
    alice2.device.go_online();
    let found = messages_until(&mut alice2, "99").await;
    let expected: Vec<_> = (0..100).map(|n: u32| n.to_string().into_bytes()).collect();
    assert_eq!(found.iter().map(|m| m.body.as_ref()).collect::<Vec<_>>(), expected);
    // Something else for both devices: nothing came before it to the one that sent.
    let bob = phone("bob", 1, &messenger);
    bob.say("alice", "the end");
    assert_eq!(messages_until(&mut alice1, "the end").await.len(), 1);
    assert_eq!(messages_until(&mut alice2, "the end").await.len(), 1);
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_oneself_arrives_or_is_refused_whatever_its_id() {
    let messenger = Messenger::start().await;
    let mut alice = phone("alice", 1, &messenger);
    all_online(&mut [&mut alice]).await;
    for version in 0..16_u8 {
        let id = [version << 4; 16];
        let sent = soon("an answer", alice.device.send(outgoing(id, "alice", "a note"))).await;
        match sent {
            // What looks like a copy of a message to somebody else would be passed over.
            Err(SendError::Refused { code: Code::Invalid, .. }) => assert_eq!(version, 15),
            sent => {
                sent.unwrap();
                assert_eq!(alice.message().await.message_id, id);
            }
        }
    }
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_device_whose_mailbox_is_full_holds_nobody_up() {
    const MESSAGES_MAX: u32 = 20;
    let messenger = Messenger::start_with_store(|config| {
        config.limits.mailbox_messages_max = MESSAGES_MAX;
    })
    .await;
    let mut alice = phone("alice", 1, &messenger);
    let (mut bob1, mut bob2) = (phone("bob", 1, &messenger), phone("bob", 2, &messenger));
    all_online(&mut [&mut alice, &mut bob1, &mut bob2]).await;
    bob2.device.go_offline(switchboard_device::Offline::Drop).await;
    for n in 0..3 * MESSAGES_MAX {
        alice.say("bob", &n.to_string());
        assert_eq!(bob1.message().await.body, n.to_string());
    }
    // It has what it had room for, from the oldest on.
    bob2.device.go_online();
    for n in 0..MESSAGES_MAX {
        assert_eq!(bob2.message().await.body, n.to_string());
    }
    messenger.shutdown().await;
}
