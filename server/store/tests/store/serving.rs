//! Health, reflection, HTTP, and a graceful end.

use switchboard_api::v1;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb;

use crate::harness::{address, assert_error, assert_status, message, start};

const SERVICES: [&str; 6] = [
    "grpc.health.v1.Health",
    "switchboard.v1.ClusterService",
    "switchboard.v1.GatewayService",
    "switchboard.v1.MailboxService",
    "switchboard.v1.SessionService",
    "switchboard.v1.ChatService",
];

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions() {
    use pb::v1::{
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let request = pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client =
        pb::v1::server_reflection_client::ServerReflectionClient::new(store.channel.clone());
    let stream = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in &SERVICES[..5] {
        assert!(names.iter().any(|name| name == service), "{service} of {names:?}");
    }

    use pb::v1alpha::server_reflection_request::MessageRequest as AlphaRequest;
    use pb::v1alpha::server_reflection_response::MessageResponse as AlphaResponse;
    let symbol = "switchboard.v1.MailboxService".to_owned();
    let request = pb::v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(AlphaRequest::FileContainingSymbol(symbol)),
    };
    let mut client =
        pb::v1alpha::server_reflection_client::ServerReflectionClient::new(store.channel.clone());
    let stream = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(AlphaResponse::FileDescriptorResponse(_))), "{answer:?}");
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_healthy_until_the_store_stops() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let mut health = HealthClient::new(store.channel.clone());
    for service in ["", SERVICES[1], SERVICES[2], SERVICES[3], SERVICES[4]] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: SERVICES[3].to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(store.running.shutdown());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, health, store.sessions, store.mailboxes, store.gateways, store.cluster));
    drop(store.channel);
    stopping.await.unwrap();
}

/// What was handed over is answered before the stream ends, and the end says to try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_what_is_under_way_and_ends_streams_retryably() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let (requests, receiver) = mpsc::channel(8);
    let stream = ReceiverStream::new(receiver);
    let mut answers = store.mailboxes.enqueue_stream(stream).await.unwrap().into_inner();
    let items = vec![message("alice", "bob", 1, b"x")];
    let request = v1::EnqueueStreamRequest { id: 1, request: Some(v1::EnqueueRequest { items }) };
    requests.send(request).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_status(answer.response.unwrap().results[0].status, v1::ItemStatus::Ok);
    store.running.shutdown().await;
    assert_error(&answers.message().await.unwrap_err(), Code::Unavailable, "STOPPING", true);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_tells_health_metrics_and_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    store.enqueue(message("alice", "bob", 1, b"x")).await;
    let http = address(&store.running, "store-http");
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for path in ["/healthz", "/readyz"] {
        assert!(get(path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let metrics = get("/metrics").await;
    for name in ["switchboard_store_commit_seconds", "switchboard_store_rpc_seconds", "process_"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let page = get("/").await;
    assert!(page.contains("Node 1") && page.contains("</table>"), "{page}");
    store.running.shutdown().await;
}
