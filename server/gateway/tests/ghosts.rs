//! Sessions that no connection is left of, and connections whose session was taken by one that is gone.

mod support;

use std::time::Duration;

use support::{Messenger, Phone, raw::Raw, soon};
use switchboard_api::{
    device::v1::{redirect::Reason, server_frame::Frame},
    v1::{
        DeliverRequest, DeviceRef, SessionInfo, claim_request, deliver_request::Replaced,
        delivery_service_client::DeliveryServiceClient,
    },
};
use switchboard_sdk::{Client, ClientOptions};
use tokio::time::sleep;

async fn session(messenger: &Messenger, user: &str) -> SessionInfo {
    messenger.locate(user).await.pop().expect("a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_no_connection_is_left_of_ends_with_the_first_message() {
    let messenger = Messenger::start().await;
    let mut alice = Phone::start("alice", vec![messenger.gateway.tcp()]);
    alice.online().await;
    // A claim whose answer never reached the gateway.
    let gateway = session(&messenger, "alice").await;
    let stores = [messenger.store_address.to_string()];
    let client = Client::connect(&stores, ClientOptions::default()).unwrap();
    let claim = claim_request::Item {
        device: Some(DeviceRef { user: "ghost".into(), device: 1 }),
        connection_id: 1 << 40,
        push_token: String::new(),
    };
    client.claim(gateway.gateway_id, gateway.incarnation, vec![claim]).await.unwrap();
    assert_eq!(messenger.locate("ghost").await.len(), 1);
    alice.say("ghost", "are you there?");
    soon("the end of the session", async {
        while !messenger.locate("ghost").await.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(messenger.locate("alice").await, [gateway]);
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_replaced_by_a_connection_that_is_gone_is_told_to_come_again() {
    let messenger = Messenger::start().await;
    let address = messenger.gateway.socket("gateway-grpc");
    let mut gateway = DeliveryServiceClient::connect(format!("http://{address}")).await.unwrap();
    for (gone, reason) in [(true, Reason::LeaseLost), (false, Reason::Replaced)] {
        let mut bob = Raw::taken_in(&messenger, "bob").await;
        let SessionInfo { device, connection_id, epoch, .. } = session(&messenger, "bob").await;
        // What another gateway says after a claim.
        let replaced = vec![Replaced { device, connection_id, epoch, gone }];
        let notice = DeliverRequest { replaced, ..DeliverRequest::default() };
        gateway.deliver(tokio_stream::once(notice)).await.unwrap();
        let Some(Frame::Redirect(redirect)) = bob.next().await else { panic!("no redirect") };
        assert_eq!((redirect.reason(), redirect.retry_after_ms), (reason, 0));
    }
    messenger.shutdown().await;
}
