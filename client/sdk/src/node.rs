//! One store node: its connections and its lanes.

use std::sync::Arc;

use switchboard_api::{
    limits::GRPC_MESSAGE_BYTES_MAX,
    v1::{
        cluster_service_client::ClusterServiceClient, gateway_service_client::GatewayServiceClient,
        mailbox_service_client::MailboxServiceClient, session_service_client::SessionServiceClient,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use crate::{
    ClientOptions, Error,
    calls::{Enqueue, Locate},
    health::Health,
    lane::{DriverOptions, Lane},
    retry::Backoff,
};

/// Window of HTTP/2 flow control on a stream, bytes: a full page without waiting.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The same on a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Two connections: one for the lanes, one for everything else, so that a large page does not hold
/// up the streams. Both are made when they are first used, and again whenever they break.
pub(crate) struct Node {
    pub(crate) health: Arc<Health>,
    pub(crate) enqueue: Lane<Enqueue>,
    pub(crate) locate: Lane<Locate>,
    calls: Channel,
    /// Ends the lanes with the node.
    _stop: DropGuard,
}

impl Node {
    /// `address` is `host:port`.
    pub(crate) fn new(
        address: &str,
        options: &ClientOptions,
        refresh: Arc<Notify>,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let endpoint = endpoint(address, options)?;
        let stop = stop.child_token();
        let health = Arc::new(Health::new(address.to_owned(), refresh));
        let streams = endpoint.connect_lazy();
        let driver = DriverOptions {
            stall_timeout: options.stall_timeout,
            backoff: Backoff::new(options.backoff_base, options.backoff_max),
            health: health.clone(),
            stop: stop.clone(),
        };
        Ok(Self {
            health,
            enqueue: Lane::start(streams.clone(), driver.clone()),
            locate: Lane::start(streams, driver),
            calls: endpoint.connect_lazy(),
            _stop: stop.drop_guard(),
        })
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.calls.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn mailboxes(&self) -> MailboxServiceClient<Channel> {
        MailboxServiceClient::new(self.calls.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn gateways(&self) -> GatewayServiceClient<Channel> {
        GatewayServiceClient::new(self.calls.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.calls.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }
}

fn endpoint(address: &str, options: &ClientOptions) -> Result<Endpoint, Error> {
    let malformed =
        || Error::rejected("ADDRESS", format!("`{address}` is no address: host:port is expected"));
    // The port is required: no default of HTTP's makes sense here.
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(malformed());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| malformed())?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let options = ClientOptions::default();
        for good in ["127.0.0.1:7400", "store-1.example:7400", "[::1]:7400", "localhost:1"] {
            assert!(endpoint(good, &options).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":7400", "127.0.0.1:", "host:70000", "a b:1", "http://a:1:x"] {
            assert!(endpoint(bad, &options).is_err(), "{bad}");
        }
    }
}
