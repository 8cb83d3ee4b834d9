//! Around each gRPC service: what is counted of every call, that a shutdown waits for it, and requests
//! too large to decode.
//!
//! tonic refuses a message beyond the decoder's bound with OUT_OF_RANGE, before any code of ours
//! sees it. The contract says INVALID_ARGUMENT with a reason, so that answer is replaced here. No
//! service of ours answers OUT_OF_RANGE itself.

use std::{convert::Infallible, time::Instant};

use switchboard_process::Shutdown;
use tonic::{
    Code,
    body::Body,
    codegen::{BoxFuture, Context, Poll, Service, http},
    server::NamedService,
};

use crate::errors;

/// A service with that around it.
#[derive(Clone, Debug)]
pub(crate) struct Rpc<S>(pub(crate) S, pub(crate) Shutdown);

impl<S: NamedService> NamedService for Rpc<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Rpc<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let answered = self.0.call(request);
        // A call that goes on as a stream is a task, which is waited for by itself.
        let held = self.1.hold();
        Box::pin(async move {
            let response = answered.await?;
            drop(held);
            let status = response.headers().get("grpc-status");
            // Absent: the call goes on, and its status comes in the trailers.
            let code = status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
            if code == Code::Unimplemented {
                // The path is not one of ours, and must not become a label.
                return Ok(response);
            }
            let rpc = path.rsplit('/').next().unwrap_or_default().to_owned();
            if code != Code::Ok {
                let code = format!("{code:?}");
                metrics::counter!("switchboard_store_rpc_errors_total", "rpc" => rpc.clone(), "code" => code)
                    .increment(1);
            }
            metrics::histogram!("switchboard_store_rpc_seconds", "rpc" => rpc)
                .record(started.elapsed());
            if code == Code::OutOfRange {
                return Ok(errors::request_too_large().into_http());
            }
            Ok(response)
        })
    }
}
