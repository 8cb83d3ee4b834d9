//! Removing the sessions of ended incarnations, some time after they were hidden.
//!
//! No look-up returns such a session from the commit on that ends its incarnation, so sweeping only
//! frees memory. It therefore goes slowly, one bounded command at a time. Each shard is swept by its
//! leader, and what a restart or a change of leaders cuts short begins again.

use std::{collections::HashMap, sync::Arc};

use switchboard_engine::{Command, GatewayKind, GroupId, Reply, Sweep};
use switchboard_raft::Group;
use tokio::time::MissedTickBehavior;

use crate::{limits, service::Service};

/// Up to which incarnation of a gateway a shard was swept from here. What another leader swept is
/// swept once more by the next one, which finds nothing.
type Swept = HashMap<(GroupId, u32), u64>;

/// Sweeps until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    let token = service.shutdown.token();
    let mut applied = service.node.meta().watch_applied();
    // A shard whose leader went in the midst of a sweep is swept to the end by the next one.
    let mut looks = tokio::time::interval(limits::SWEEP_LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Swept::new();
    loop {
        applied.borrow_and_update();
        if token.run_until_cancelled(sweep_led(&service, &mut swept)).await.is_none() {
            return;
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
        }
    }
}

/// Sweeps what is to be swept in the shards that this node leads.
async fn sweep_led(service: &Service, swept: &mut Swept) {
    let ended = ended(service);
    for group in service.shards_here().iter().filter(|group| group.is_leader()) {
        for &(gateway_id, up_to) in &ended {
            let done = swept.entry((group.id(), gateway_id)).or_default();
            if *done < up_to && sweep_shard(group, gateway_id, up_to).await {
                *done = up_to;
            }
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

/// Whether the shard was swept to its end. Otherwise it is led by another node, which sweeps itself,
/// or this node ends.
async fn sweep_shard(group: &Group, gateway_id: u32, up_to_incarnation: u64) -> bool {
    if !group.is_leader() {
        return false;
    }
    if group.shard().stats().sessions == 0 {
        return true;
    }
    let mut cursor = 0;
    loop {
        if !group.is_leader() {
            return false;
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
        let Ok(replies) = proposed.await else { return false };
        let Some(Reply::Swept(swept)) = replies.into_iter().next() else { return false };
        metrics::counter!("switchboard_store_swept_sessions_total")
            .increment(u64::from(swept.sessions));
        let Some(next) = swept.next_cursor else { return true };
        cursor = next;
        tokio::time::sleep(limits::SWEEP_PAUSE).await;
    }
}
