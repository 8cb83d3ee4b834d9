//! One wake-up request, as often as it takes: attempts, timeouts, backoff, and what an answer means.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri, body::Incoming, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use switchboard_sdk::Backoff;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::turns::Turns;
use crate::limits::{ANSWER_BYTES_MAX, IDLE_REQUEST_CONNECTIONS_MAX, RETRY_AFTER_HEEDED_MAX};

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Answered with success.
    Done,
    /// The device's subscription or token is no longer known to the push service.
    Gone,
    /// Answered with an error that a repeat would not change.
    Refused,
    /// No attempt succeeded.
    Failed,
}

/// How patiently requests are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) attempts_max: u32,
    pub(crate) timeout: Duration,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
}

/// Makes requests; connections are kept and shared.
#[derive(Clone)]
pub(crate) struct Requests {
    client: Https,
    patience: Patience,
    /// For requests to many origins.
    turns: Option<Arc<Turns>>,
    /// Once it is cancelled, nothing is attempted again.
    finishing: CancellationToken,
    retries: metrics::Counter,
}

/// What one attempt came to.
enum Attempt {
    Final(Sent),
    /// Worth another one, not before so long.
    Again(Duration),
}

impl Requests {
    pub(crate) fn new(
        tls: rustls::ClientConfig,
        patience: Patience,
        turns: Option<Arc<Turns>>,
        finishing: CancellationToken,
        retries: metrics::Counter,
    ) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_REQUEST_CONNECTIONS_MAX)
            .build(connector);
        Self { client, patience, turns, finishing, retries }
    }

    /// Posts to `uri` until there is a final answer or the attempts are used up. `headers` is asked
    /// anew for each, because a signature holds for a moment only.
    pub(crate) async fn post(
        &self,
        uri: &Uri,
        body: Bytes,
        headers: impl Fn() -> Option<HeaderMap>,
    ) -> Sent {
        let Patience { attempts_max, backoff, backoff_max, .. } = self.patience;
        let mut backoff = Backoff::new(backoff, backoff_max);
        let origin = self.turns.as_ref().map(|turns| turns.origin(uri));
        for attempt in 1..=attempts_max {
            let turn = match &origin {
                Some(origin) => origin.turn().await,
                None => None,
            };
            let Some(headers) = headers() else { return Sent::Refused };
            let attempted = self.attempt(uri, body.clone(), headers).await;
            // Whoever waits to try again takes no turn from others.
            drop(turn);
            match attempted {
                Attempt::Final(sent) => return sent,
                Attempt::Again(_) if attempt == attempts_max => break,
                Attempt::Again(at_least) => {
                    let wait = backoff.next().max(at_least);
                    if self.finishing.run_until_cancelled(sleep(wait)).await.is_none() {
                        break;
                    }
                    self.retries.increment(1);
                }
            }
        }
        Sent::Failed
    }

    async fn attempt(&self, uri: &Uri, body: Bytes, headers: HeaderMap) -> Attempt {
        let mut request = Request::post(uri.clone());
        if let Some(all) = request.headers_mut() {
            *all = headers;
        }
        let Ok(request) = request.body(Full::new(body)) else {
            return Attempt::Final(Sent::Refused);
        };
        // The path of a push endpoint is a secret of its device: only the host is logged.
        let host = uri.host().unwrap_or_default();
        match timeout(self.patience.timeout, self.answer(request)).await {
            Ok(Ok(response)) => judge(host, &response),
            Ok(Err(error)) => {
                debug!(host, %error, "a wake-up could not be sent");
                Attempt::Again(Duration::ZERO)
            }
            Err(_) => {
                debug!(host, "a wake-up was not answered in time");
                Attempt::Again(Duration::ZERO)
            }
        }
    }

    /// The answer, with its body read and thrown away so that the connection can be used again.
    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<()>, hyper_util::client::legacy::Error> {
        let (head, body) = self.client.request(request).await?.into_parts();
        discard(body).await;
        Ok(Response::from_parts(head, ()))
    }
}

async fn discard(body: Incoming) {
    // A body that breaks or is too long costs the connection, and says nothing about the wake-up.
    let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
}

fn judge(host: &str, response: &Response<()>) -> Attempt {
    let status = response.status();
    if status.is_success() {
        return Attempt::Final(Sent::Done);
    }
    debug!(host, %status, "a wake-up was not accepted");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Attempt::Final(Sent::Gone),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Attempt::Again(retry_after(response.headers()))
        }
        status if status.is_server_error() => Attempt::Again(retry_after(response.headers())),
        _ => Attempt::Final(Sent::Refused),
    }
}

/// What `Retry-After` asks for in seconds, within a bound. Its other form, a date, is not heeded.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds =
        headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(Duration::ZERO, Duration::from_secs).min(RETRY_AFTER_HEEDED_MAX)
}

/// What servers are trusted by: the machine's certificates, and those of `ca_pem`.
pub(crate) fn tls(
    extra: impl IntoIterator<Item = rustls::pki_types::CertificateDer<'static>>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        debug!(%error, "a certificate of the machine cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    for certificate in extra {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn final_of(status: u16) -> Option<Sent> {
        let response = Response::builder().status(status).body(()).unwrap();
        match judge("host", &response) {
            Attempt::Final(sent) => Some(sent),
            Attempt::Again(_) => None,
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [200, 201, 202, 204] {
            assert_eq!(final_of(status), Some(Sent::Done));
        }
        for status in [404, 410] {
            assert_eq!(final_of(status), Some(Sent::Gone));
        }
        for status in [301, 400, 401, 403, 413] {
            assert_eq!(final_of(status), Some(Sent::Refused));
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(final_of(status), None);
        }
    }

    #[tokio::test]
    async fn a_request_that_waits_to_be_tried_again_is_in_nobodys_way() {
        use axum::{Router, routing::post};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
        let down = async move || {
            tried.send(()).unwrap();
            StatusCode::SERVICE_UNAVAILABLE
        };
        let router = Router::new()
            .route("/down", post(down))
            .route("/up", post(async || StatusCode::CREATED));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let hour = Duration::from_secs(3_600);
        let patience =
            Patience { attempts_max: 2, timeout: hour, backoff: hour, backoff_max: hour };
        let (turns, finishing) = (Some(Turns::new(1, 1)), CancellationToken::new());
        let retries = metrics::Counter::noop();
        let tls = tls([]).unwrap();
        let requests = Requests::new(tls, patience, turns, finishing.clone(), retries);
        let to = |path: &str| format!("http://{address}{path}").parse::<Uri>().unwrap();
        let (waiting, uri) = (requests.clone(), to("/down"));
        let waiting = tokio::spawn(async move {
            waiting.post(&uri, Bytes::new(), || Some(HeaderMap::new())).await
        });
        tries.recv().await.unwrap();
        let sent = requests.post(&to("/up"), Bytes::new(), || Some(HeaderMap::new())).await;
        assert_eq!(sent, Sent::Done);
        finishing.cancel();
        assert_eq!(waiting.await.unwrap(), Sent::Failed);
    }

    #[test]
    fn a_time_to_retry_is_heeded_within_a_bound() {
        let after = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(after("7"), Duration::from_secs(7));
        assert_eq!(after("999999"), RETRY_AFTER_HEEDED_MAX);
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), Duration::ZERO);
        assert_eq!(retry_after(&HeaderMap::new()), Duration::ZERO);
    }
}
