//! Reconciliation: compares the tails of mailboxes with what was delivered, so that a message whose
//! push was lost is found. A chat may die between storing a message and pushing it.
//!
//! It runs at its interval, and soon after a chat's stream broke, twice: what the chat had under way
//! may be stored a moment after the first look.

use std::{sync::Arc, time::Duration};

use switchboard_api::v1::{ItemStatus, stat_request};
use switchboard_sdk::Client;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use crate::{
    limits::{BATCH_ITEMS_MAX, RECONCILE_AGAIN, RECONCILE_SOON},
    meters::Meters,
    peers::{Peer, Peers},
};

pub(crate) async fn run(
    client: Client,
    peers: Arc<Peers>,
    meters: Arc<Meters>,
    broken: Arc<Notify>,
    interval: Duration,
) {
    let mut next = Instant::now() + interval;
    loop {
        tokio::select! {
            () = broken.notified() => {
                sleep(RECONCILE_SOON).await;
                compare(&client, &peers, &meters).await;
                sleep(RECONCILE_AGAIN).await;
            }
            () = sleep_until(next) => {}
        }
        compare(&client, &peers, &meters).await;
        next = Instant::now() + interval;
    }
}

/// One pass over all connections.
async fn compare(client: &Client, peers: &Peers, meters: &Meters) {
    let mut all = Vec::new();
    peers.for_each(|peer| {
        if peer.epoch() != 0 {
            all.push(peer.clone());
        }
    });
    for batch in all.chunks(BATCH_ITEMS_MAX) {
        let found = compare_batch(client, batch).await;
        meters.reconciled.increment(found);
    }
}

/// How many of these have something unheard of.
async fn compare_batch(client: &Client, batch: &[Arc<Peer>]) -> u64 {
    let item = |peer: &Arc<Peer>| {
        let device = Some(peer.device());
        stat_request::Item { device, ..stat_request::Item::default() }
    };
    let items = batch.iter().map(item).collect();
    let results = match client.stat(items).await {
        Ok(results) => results,
        Err(error) => {
            debug!(%error, "mailboxes could not be compared");
            return 0;
        }
    };
    let mut found = 0;
    for (peer, result) in batch.iter().zip(results) {
        if result.status() == ItemStatus::Ok && result.tail > peer.high() {
            found += 1;
            peer.heard(result.tail);
        }
    }
    found
}
