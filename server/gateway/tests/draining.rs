//! An operator empties a gateway: devices go to another one at a rate, and an abort takes them back.

mod support;

use std::time::Duration;

use support::{Messenger, Phone, any_gateway, soon};
use switchboard_api::v1::{DrainRequest, DrainResponse, drain_service_client::DrainServiceClient};
use tonic::{Code, Streaming};

async fn drain(messenger: &Messenger, rate_per_s: u32) -> Streaming<DrainResponse> {
    let address = messenger.gateway.socket("gateway-grpc");
    let mut gateway = DrainServiceClient::connect(format!("http://{address}")).await.unwrap();
    gateway.drain(DrainRequest { rate_per_s }).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_gateway_has_nobody_left_and_takes_nobody_in() {
    const PHONES: usize = 12;
    let messenger = Messenger::start().await;
    let other = any_gateway(messenger.store_address, "gateway-2").await;
    let mut phones: Vec<_> = (0..PHONES)
        .map(|n| Phone::start(&format!("user-{n}"), vec![messenger.gateway.tcp()]))
        .collect();
    for phone in &mut phones {
        phone.online().await;
    }
    let mut answers = drain(&messenger, 1_000).await;
    let last = soon("the end of the drain", async {
        loop {
            let answer = answers.message().await.unwrap().expect("an end that says so");
            assert_eq!(answer.connections, PHONES as u64);
            if answer.done {
                return answer;
            }
        }
    });
    assert_eq!(last.await.left, 0);
    assert!(soon("the end of the stream", answers.message()).await.unwrap().is_none());
    // Who only knows the drained one is sent away; who knows another is taken in there.
    let gateways = vec![messenger.gateway.tcp(), other.tcp()];
    let mut late = Phone::start("late", gateways);
    late.online().await;
    let address = messenger.gateway.socket("gateway-grpc");
    let mut gateway = DrainServiceClient::connect(format!("http://{address}")).await.unwrap();
    let again = gateway.drain(DrainRequest::default()).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    soon("the other gateway's shutdown", other.running.shutdown()).await;
    messenger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_whose_caller_goes_is_aborted() {
    let messenger = Messenger::start().await;
    let mut phones: Vec<_> =
        (0..3).map(|n| Phone::start(&format!("user-{n}"), vec![messenger.gateway.tcp()])).collect();
    for phone in &mut phones {
        phone.online().await;
    }
    // So slow that nobody has gone when it is aborted.
    let mut answers = drain(&messenger, 1).await;
    let first = soon("the first answer", answers.message()).await.unwrap().unwrap();
    assert!(!first.done);
    drop(answers);
    let mut late = Phone::start_with("late", vec![messenger.gateway.tcp()], |options| {
        options.backoff = (Duration::from_millis(5), Duration::from_millis(50));
    });
    late.online().await;
    messenger.shutdown().await;
}
