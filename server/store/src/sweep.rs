//! Removing the sessions of ended incarnations, some time after they were hidden.
//!
//! No look-up returns such a session from the commit on that ends its incarnation, so sweeping only
//! frees memory. It therefore goes slowly, one bounded command at a time, and what a restart cuts
//! short begins again.

use std::{collections::HashMap, sync::Arc};

use switchboard_engine::{Command, GatewayKind, Reply, Sweep};
use switchboard_raft::Group;

use crate::{limits, service::Service};

/// Sweeps until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    let token = service.shutdown.token();
    let mut applied = service.node.meta().watch_applied();
    let mut swept = HashMap::<u32, u64>::new();
    loop {
        applied.borrow_and_update();
        for (gateway_id, up_to) in ended(&service) {
            if swept.get(&gateway_id).is_some_and(|done| *done >= up_to) {
                continue;
            }
            let sweep = async {
                for group in service.node.shards().iter() {
                    sweep_shard(group, gateway_id, up_to).await;
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = sweep => { swept.insert(gateway_id, up_to); }
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}

/// The highest ended incarnation of each gateway; chat processes hold no sessions.
fn ended(service: &Service) -> Vec<(u32, u64)> {
    service.node.meta().shard().meta(|meta| {
        let gateways = meta.gateways().filter(|g| g.kind == GatewayKind::Gateway);
        let up_to = |live: bool, latest: u64| if live { latest.saturating_sub(1) } else { latest };
        gateways.map(|g| (g.gateway_id, up_to(g.live, g.incarnation))).collect()
    })
}

async fn sweep_shard(group: &Group, gateway_id: u32, up_to_incarnation: u64) {
    let mut cursor = 0;
    loop {
        // A shard without sessions has none to sweep; and only its leader can.
        if !group.is_leader() || group.shard().stats().sessions == 0 {
            return;
        }
        let sessions_max = limits::SWEEP_SESSIONS_MAX;
        let sweep = Sweep { gateway_id, up_to_incarnation, cursor, sessions_max };
        let proposed = match group.propose(vec![Command::Sweep(sweep)]) {
            Ok(proposed) => proposed,
            Err(overloaded) => {
                tokio::time::sleep(overloaded.retry_after).await;
                continue;
            }
        };
        // A failure means another leader, which sweeps itself, or the end of this node.
        let Ok(replies) = proposed.await else { return };
        let Some(Reply::Swept(swept)) = replies.into_iter().next() else { return };
        metrics::counter!("switchboard_store_swept_sessions_total")
            .increment(u64::from(swept.sessions));
        let Some(next) = swept.next_cursor else { return };
        cursor = next;
        tokio::time::sleep(limits::SWEEP_PAUSE).await;
    }
}
