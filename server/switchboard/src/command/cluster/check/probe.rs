//! Asks each node what its disk and its ways to the others are like.

use std::time::Duration;

use serde::Serialize;
use switchboard_api::v1::{
    ProbeRequest, ProbeResponse, cluster_service_client::ClusterServiceClient, probe_response,
};
use switchboard_sdk::Client;
use tokio::time::timeout;

use crate::command::operator::{channel_to, failure};
use crate::output::Failure;

/// How long a node may take: a disk that needs half a second for a sync still gets through.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(60);

/// What one node measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Probed {
    pub(super) node_id: u64,
    pub(super) address: String,
    /// Why there is nothing; empty: there is.
    pub(super) fault: String,
    /// A write of 4 KiB and its sync.
    pub(super) sync_ms: Option<Times>,
    pub(super) peers: Vec<Peer>,
}

/// What one node measured of another.
#[derive(Debug, Default, Serialize)]
pub(super) struct Peer {
    pub(super) node_id: u64,
    /// A call and its answer; `None`: it did not answer.
    pub(super) round_trip_ms: Option<Times>,
    pub(super) clock_ahead_ms: i64,
}

/// Of many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Times {
    /// `None` without any.
    pub(super) fn of(us: &[u32]) -> Option<Times> {
        let mut sorted = us.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            let place =
                ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
            sorted.get(place).map(|us| f64::from(*us) / 1e3)
        };
        Some(Times { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

/// All nodes, one after the other: those that share a disk would disturb each other.
pub(super) async fn nodes(client: &Client) -> Result<Vec<Probed>, Failure> {
    let listed = client.list_nodes().await.map_err(|error| failure(&error))?;
    let mut probed = Vec::new();
    for info in listed.into_iter().filter_map(|node| node.node) {
        let asked = probe(&info.address).await;
        let one = match asked {
            Ok(answer) => Probed::of(info.address, answer),
            Err(fault) => {
                Probed { node_id: info.node_id, address: info.address, fault, ..Probed::default() }
            }
        };
        probed.push(one);
    }
    Ok(probed)
}

async fn probe(address: &str) -> Result<ProbeResponse, String> {
    let asked = async {
        let channel = channel_to(address).await.map_err(|failure| failure.message().to_owned())?;
        let answer = ClusterServiceClient::new(channel).probe(ProbeRequest::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    };
    let answered = timeout(PROBE_WAIT_MAX, asked).await;
    answered
        .unwrap_or_else(|_| Err(format!("it did not answer within {} s", PROBE_WAIT_MAX.as_secs())))
}

impl Probed {
    fn of(address: String, answer: ProbeResponse) -> Probed {
        let peer = |peer: probe_response::Peer| Peer {
            node_id: peer.node_id,
            round_trip_ms: Times::of(&peer.round_trip_us),
            clock_ahead_ms: peer.clock_ahead_ms,
        };
        Probed {
            node_id: answer.node_id,
            address,
            fault: String::new(),
            sync_ms: Times::of(&answer.sync_us),
            peers: answer.peers.into_iter().map(peer).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_their_quantiles() {
        let us: Vec<u32> = (1..=100).rev().map(|ms| ms * 1_000).collect();
        assert_eq!(Times::of(&us), Some(Times { p50: 51.0, p99: 100.0, max: 100.0 }));
        assert_eq!(Times::of(&[7]), Some(Times { p50: 0.007, p99: 0.007, max: 0.007 }));
        assert_eq!(Times::of(&[]), None);
    }
}
