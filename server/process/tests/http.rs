//! The HTTP side over a real socket.

use std::{net::SocketAddr, time::Duration};

use switchboard_process::{Readiness, Shutdown, bind, http};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_readiness_metrics_and_further_routes() {
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    let listener = bind("http", "127.0.0.1:0".parse().unwrap()).unwrap();
    let routes = axum::Router::new().route("/", axum::routing::get(async || "console"));
    let address = http::serve(listener, &readiness, routes, &shutdown).unwrap();

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    readiness.set(true);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    metrics::counter!("switchboard_http_test_total").increment(1);
    assert!(get(address, "/metrics").await.contains("switchboard_http_test_total 1"));
    assert!(get(address, "/").await.ends_with("console"));
    assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

    shutdown.trigger();
    assert!(shutdown.drain(Duration::from_secs(60)).await);
    assert!(TcpStream::connect(address).await.is_err());
}
