//! A webhook for tests: a real HTTP server that answers as it is told and keeps what it got.

#![allow(dead_code, reason = "each test uses a part")]

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::mpsc};

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Now(u16),
    /// Not before so long.
    Late(Duration),
}

/// A request that came in.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) got: mpsc::UnboundedReceiver<Got>,
    /// Answers to the next requests; afterwards each is answered with 200.
    pub(crate) script: Arc<Mutex<VecDeque<Answer>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = mpsc::unbounded_channel();
        let script = Arc::<Mutex<VecDeque<Answer>>>::default();
        let answers = script.clone();
        let handler = async move |headers: HeaderMap, body: Bytes| {
            let _ = sender.send(Got { headers, body });
            let answer = answers.lock().pop_front();
            match answer.unwrap_or(Answer::Now(200)) {
                Answer::Now(status) => StatusCode::from_u16(status).unwrap(),
                Answer::Late(wait) => {
                    tokio::time::sleep(wait).await;
                    StatusCode::OK
                }
            }
        };
        let router = Router::new().route("/wake", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, got, script }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/wake", self.address)
    }

    pub(crate) fn answers(&self, script: impl IntoIterator<Item = Answer>) {
        self.script.lock().extend(script);
    }

    pub(crate) async fn next(&mut self) -> Got {
        let next = tokio::time::timeout(Duration::from_secs(60), self.got.recv()).await;
        next.expect("a request in time").expect("the receiver runs")
    }

    /// Nothing else has come in.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}
