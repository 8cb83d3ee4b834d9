//! Gauges for operators, brought up to date from time to time.

use std::{sync::Arc, time::Duration};

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};

use crate::{limits, service::Service};

const GAUGES: &[(&str, &str)] = &[
    ("switchboard_store_sessions", "Sessions in a shard, those of ended gateways included."),
    ("switchboard_store_mailbox_messages", "Messages that wait in a shard."),
    ("switchboard_store_mailbox_bytes", "Bytes of their bodies."),
    ("switchboard_store_dedup_ids", "Message ids that a shard remembers."),
    ("switchboard_store_dedup_horizon_seconds", "How far back a repeated id is recognised."),
    ("switchboard_store_log_retained_bytes", "Bytes of log that a shard still needs."),
    ("switchboard_store_clock_alarms", "Times that the log time of a shard would have jumped."),
    ("switchboard_store_applied_index", "The last entry of a shard that is applied here."),
    ("switchboard_store_checkpoint_index", "The last entry that a checkpoint here holds."),
    ("switchboard_store_processes", "Live gateways and chats."),
];

const COUNTERS: &[(&str, &str)] = &[
    ("switchboard_store_swept_sessions_total", "Sessions of ended gateways that were removed."),
    ("switchboard_store_lapsed_leases_total", "Gateways and chats whose lease ran out."),
    ("switchboard_store_dropped_oldest_total", "Messages dropped from full mailboxes."),
    ("switchboard_store_rpc_errors_total", "Calls that failed as a whole."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("switchboard_store_commit_seconds", "From a proposal to its answer."),
    ("switchboard_store_rpc_seconds", "From a call to its answer, or to the first of a stream."),
];

/// Says in `/metrics` what each figure of a store is.
fn describe() {
    GAUGES.iter().for_each(|(name, text)| describe_gauge!(*name, *text));
    COUNTERS.iter().for_each(|(name, text)| describe_counter!(*name, *text));
    HISTOGRAMS.iter().for_each(|(name, text)| describe_histogram!(*name, *text));
}

/// Updates the gauges until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    switchboard_process::metrics::recorder();
    describe();
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
        let gauge = |name: &'static str| gauge!(name, "shard" => shard.clone());
        #[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
        let set = |name: &'static str, value: u64| gauge(name).set(value as f64);
        set("switchboard_store_sessions", state.sessions);
        set("switchboard_store_mailbox_messages", state.messages);
        set("switchboard_store_mailbox_bytes", state.message_bytes);
        set("switchboard_store_dedup_ids", state.dedup_ids);
        let horizon = Duration::from_millis(state.dedup_horizon_ms);
        gauge("switchboard_store_dedup_horizon_seconds").set(horizon.as_secs_f64());
        set("switchboard_store_log_retained_bytes", raft.log_bytes);
        set("switchboard_store_clock_alarms", raft.clock_alarms);
        set("switchboard_store_applied_index", raft.applied.map_or(0, |id| id.index));
        set("switchboard_store_checkpoint_index", raft.checkpoint.map_or(0, |id| id.index));
    }
    let live = service.node.meta().shard().meta(|meta| meta.gateways().filter(|g| g.live).count());
    #[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
    gauge!("switchboard_store_processes").set(live as f64);
}
