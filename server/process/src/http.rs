//! The HTTP side of a server: `/healthz` (the process runs), `/readyz` (it serves), `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::{Shutdown, bounded::Bounded, limits, metrics};

/// Whether a server can do its work now; what `/readyz` answers. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether the server is ready from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether the server is ready.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Serves `/healthz`, `/readyz`, `/metrics` and `routes` until the shutdown, in a task that the
/// shutdown waits for. Returns the address bound.
///
/// # Errors
/// When the listener does not know its address.
pub fn serve(
    listener: TcpListener,
    readiness: &Readiness,
    routes: Router,
    shutdown: &Shutdown,
) -> std::io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    metrics::recorder();
    let router = router(readiness.clone()).merge(routes);
    let token = shutdown.token();
    let served = axum::serve(Bounded::new(listener), router)
        .with_graceful_shutdown(async move { token.cancelled().await });
    shutdown.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    let token = shutdown.token();
    shutdown.spawn(async move {
        let mut interval = tokio::time::interval(limits::METRICS_UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = interval.tick() => metrics::recorder().run_upkeep(),
            }
        }
    });
    Ok(address)
}

fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || ready_answer(&readiness)))
        .route(
            "/metrics",
            get(async || {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], metrics::render()).into_response()
            }),
        )
}

fn ready_answer(readiness: &Readiness) -> (StatusCode, &'static str) {
    if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
