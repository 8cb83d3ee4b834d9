//! Asking the store. All calls of a look go out together, so that one that hangs delays no other.

use std::time::Duration;

use switchboard_api::v1::register_request::Kind;
use switchboard_api::v1::{self, list_nodes_response};
use switchboard_sdk::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::command::operator::failure;

/// How long nodes may take: a node that hangs is given up by the one asked after some 3 s.
pub(super) const NODES_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the registry and the mover may take. Shorter, so that nodes are shown while the meta group
/// has no leader.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(1);

/// What one look found: the store's own answers, or in words why there is none.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// When the answers were there, since the first look began.
    pub(super) at: Duration,
    pub(super) cluster: Result<Told, String>,
    pub(super) gateways: Result<Vec<v1::GatewayInfo>, String>,
    pub(super) moves: Result<Vec<v1::MoveInfo>, String>,
}

/// Every node's account of itself, and where replicas belong.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) nodes: Vec<list_nodes_response::Node>,
    pub(super) placement: Vec<v1::ShardInfo>,
}

/// Asks once.
pub(super) async fn look(client: &Client, begun: Instant) -> Look {
    let cluster = async {
        let (nodes, map) = tokio::try_join!(client.list_nodes(), client.shard_map())
            .map_err(|error| failure(&error).message().to_owned())?;
        Ok(Told { nodes, placement: map.placement })
    };
    let gateways = soon(async {
        let mut all = client.list_gateways(Kind::Gateway, false).await?;
        all.extend(client.list_gateways(Kind::Chat, false).await?);
        Ok(all)
    });
    let (cluster, gateways, moves) = tokio::join!(cluster, gateways, soon(client.list_moves()));
    Look { at: begun.elapsed(), cluster, gateways, moves }
}

/// Asks again and again, until nobody takes the answers any more.
pub(super) async fn forever(client: Client, every: Duration, looks: mpsc::Sender<Look>) {
    let begun = Instant::now();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if looks.send(look(&client, begun).await).await.is_err() {
            return;
        }
    }
}

async fn soon<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(OTHERS_WAIT_MAX, answer).await {
        Ok(answer) => answer.map_err(|error| failure(&error).message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", OTHERS_WAIT_MAX.as_secs())),
    }
}
