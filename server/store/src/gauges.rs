//! Gauges for operators, brought up to date from time to time.

use std::sync::Arc;

use metrics::gauge;

use crate::{limits, service::Service};

/// Updates the gauges until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    let token = service.shutdown.token();
    let mut looks = tokio::time::interval(limits::GAUGE_INTERVAL);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = looks.tick() => update(&service),
        }
    }
}

fn update(service: &Service) {
    for group in service.shards_here().iter() {
        let (raft, state) = (group.status(), group.shard().stats());
        let shard = (group.id() - 1).to_string();
        let set = |name: &'static str, value: u64| {
            #[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
            gauge!(name, "shard" => shard.clone()).set(value as f64);
        };
        set("switchboard_store_sessions", state.sessions);
        set("switchboard_store_mailbox_messages", state.messages);
        set("switchboard_store_mailbox_bytes", state.message_bytes);
        set("switchboard_store_dedup_ids", state.dedup_ids);
        set("switchboard_store_dedup_horizon_milliseconds", state.dedup_horizon_ms);
        set("switchboard_store_log_retained_bytes", raft.log_bytes);
        set("switchboard_store_clock_alarms", raft.clock_alarms);
        set("switchboard_store_applied_index", raft.applied.map_or(0, |id| id.index));
        set("switchboard_store_checkpoint_index", raft.checkpoint.map_or(0, |id| id.index));
    }
    let live = service.node.meta().shard().meta(|meta| meta.gateways().filter(|g| g.live).count());
    #[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
    gauge!("switchboard_store_processes").set(live as f64);
}
