//! Finds the connections on which nothing has been heard for too long. One task looks at all of
//! them: a timer for each would be a tenth of what an idle connection costs.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{gateway::Gateway, limits::SILENCE_IN_TENTHS_OF_KEEPALIVE, peers::Event};

/// Looks ten times a keepalive; does not end.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let keepalive = gateway.keepalive();
    let silence = keepalive * SILENCE_IN_TENTHS_OF_KEEPALIVE / 10;
    loop {
        sleep(keepalive / 10).await;
        tell(&gateway, silence);
    }
}

fn tell(gateway: &Gateway, silence: Duration) {
    let now = gateway.peers.moment();
    gateway.peers.for_each(|peer| {
        if peer.silent_for(now) >= silence {
            peer.tell(Event::Silent);
        }
    });
}
