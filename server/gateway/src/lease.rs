//! Self-fencing: a gateway that may no longer act under its incarnation sends all its devices away
//! before the store lets others find that it is gone.

use std::sync::Arc;

use switchboard_api::device::v1::redirect::Reason;
use switchboard_process::Readiness;
use tracing::{info, warn};

use crate::gateway::Gateway;

/// Follows the lease for as long as the registration lives.
pub(crate) async fn follow(gateway: Arc<Gateway>, readiness: Readiness) {
    let mut lease = gateway.lease.clone();
    // 0: none is held.
    let mut held = 0;
    loop {
        let current = *lease.borrow_and_update();
        let holds = if current.is_held() { current.incarnation } else { 0 };
        if held != 0 && holds != held {
            // Who leaves by itself has sent its devices away already.
            if !gateway.draining.is_cancelled() {
                let connections = gateway.peers.len();
                warn!(incarnation = held, connections, "the lease was lost");
            }
            gateway.send_away(Reason::LeaseLost, |incarnation| incarnation != holds);
        }
        if holds != 0 && holds != held {
            info!(gateway_id = current.gateway_id, incarnation = holds, "registered");
        }
        held = holds;
        // A drain that begins or is aborted counts from the next renewal on, some seconds later.
        let drains = gateway.draining.is_cancelled() || gateway.drained.is_on();
        readiness.set(held != 0 && !drains);
        if lease.changed().await.is_err() {
            return;
        }
    }
}
