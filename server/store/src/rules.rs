//! The configured limits that are part of replicated state: each shard's leader proposes its own
//! where they differ.
//!
//! So a change takes effect when the leaders have it. While nodes are restarted one by one with a
//! changed configuration, a shard may follow whoever leads it; when all nodes agree, so do all shards.

use std::sync::Arc;

use switchboard_engine::{Command, command::Rules};
use switchboard_raft::{Group, ProposeError};

use crate::{limits, service::Service};

/// Why limits were not set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetRulesError {
    /// Too much waits; a later try helps.
    #[error("the shard takes no command now: {0}")]
    Overloaded(#[from] switchboard_raft::Overloaded),
    /// Not led here any more, or the node ends.
    #[error("the shard refused it: {0}")]
    Propose(#[from] ProposeError),
}

/// Looks after the limits of the shards that are led here, until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    let token = service.shutdown.token();
    let mut looks = tokio::time::interval(limits::RULES_LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = looks.tick() => {}
        }
        for group in service.shards_here().iter().filter(|group| group.is_leader()) {
            let set = set(group, &service.node.options().rules);
            match token.run_until_cancelled(set).await {
                Some(Ok(())) => {}
                // The next look tries again, if the shard is still led here.
                Some(Err(error)) => tracing::debug!(group = group.id(), %error, "limits not set"),
                None => return,
            }
        }
    }
}

/// Sees to it that a shard has these limits.
pub(crate) async fn set(group: &Group, rules: &Rules) -> Result<(), SetRulesError> {
    if group.shard().rules() == *rules {
        return Ok(());
    }
    tracing::info!(group = group.id(), ?rules, "the configured limits differ: proposing them");
    group.propose(vec![Command::SetRules(*rules)])?.await?;
    Ok(())
}
