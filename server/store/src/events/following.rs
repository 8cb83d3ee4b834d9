//! Where events come from: what is applied here, and for shards without a replica here what a node that
//! has one applies.
//!
//! ```text
//!  shard ─┬▶ here: its applied entries, until the replica is dropped ──────┐
//!         └▶ elsewhere: a stream from a node that has it, until it ends ──┴▶ compact, begin again
//! ```
//! What happened between two of these is not known, so watchers start over.

use std::sync::Arc;

use bytes::Bytes;
use switchboard_api::v1::{WatchResponse, watch_response::Change};
use switchboard_engine::{Command, DeviceId, META_GROUP, Reply, Session, group_of_shard};
use switchboard_raft::{Applied, Group};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    mpsc,
};
use tonic::Status;

use super::Event;
use crate::{convert, errors, limits, service::Service};

type Entries = Receiver<Arc<Applied>>;

/// Follows the meta group and every shard from now on.
pub(super) fn start(service: &Arc<Service>) {
    let meta = service.node.meta().applied_events();
    spawn(service, follow_entries(service.clone(), meta));
    // Of what is here nothing is missed, for it is listened to before the first watcher reads.
    let table = service.node.shard_table();
    for (group, shard) in table.iter().zip(0..) {
        let entries = group.as_deref().and_then(readable).map(Group::applied_events);
        spawn(service, follow_shard(service.clone(), shard, entries));
    }
    if table.is_empty() {
        let service = service.clone();
        spawn(&service.clone(), async move { start_when_founded(service).await });
    }
}

fn spawn(service: &Arc<Service>, following: impl Future<Output = ()> + Send + 'static) {
    let token = service.shutdown.token();
    service.shutdown.spawn(async move {
        // Nobody watches any more.
        let _ = token.run_until_cancelled(following).await;
    });
}

/// Before there is a cluster, there is nothing to be missed.
async fn start_when_founded(service: Arc<Service>) {
    while service.node.shard_table().is_empty() {
        tokio::time::sleep(limits::EVENTS_RETRY_PAUSE).await;
    }
    for shard in 0..service.node.shard_count().unwrap_or(0) {
        spawn(&service, follow_shard(service.clone(), shard, None));
    }
}

/// A replica that still catches up applies what happened long ago.
fn readable(group: &Group) -> Option<&Group> {
    (!group.is_learner()).then_some(group)
}

/// Follows a shard wherever it is, beginning with what was listened to already.
async fn follow_shard(service: Arc<Service>, shard: u32, mut entries: Option<Entries>) {
    loop {
        let here = || {
            let group = service.node.group(group_of_shard(shard))?;
            let entries = readable(&group)?.applied_events();
            service.events.compact();
            Some(entries)
        };
        match entries.take().or_else(here) {
            Some(entries) => follow_entries(service.clone(), entries).await,
            None => {
                if let Err(status) = follow_elsewhere(&service, shard).await {
                    tracing::debug!(shard, %status, "a shard is not followed for a moment");
                }
            }
        }
        tokio::time::sleep(limits::EVENTS_RETRY_PAUSE).await;
    }
}

/// Follows a group that is here until its replica is dropped.
async fn follow_entries(service: Arc<Service>, mut entries: Entries) {
    loop {
        match entries.recv().await {
            Ok(entry) => service.events.push(events_of(&entry)),
            Err(RecvError::Lagged(_)) => service.events.compact(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Follows a shard on a node that has a replica of it, until the stream ends.
async fn follow_elsewhere(service: &Service, shard: u32) -> Result<(), Status> {
    let node = service.leader_elsewhere(shard, None).ok_or_else(|| errors::no_leader(shard))?;
    let mut events = service.peers.watch_shard(node, shard).await?;
    // It tells of what happens from now on.
    service.events.compact();
    while let Some(WatchResponse { change, session, .. }) = events.message().await? {
        let session = convert::session(session.unwrap_or_default());
        let change = Change::try_from(change).map_err(|error| errors::peer_nonsense(&error))?;
        if change == Change::Compacted {
            service.events.compact();
        } else {
            service.events.push([Event { change, session }]);
        }
    }
    Ok(())
}

/// Tells another node of the changes of sessions in a shard that is here, until the replica is dropped or
/// nobody listens.
pub(crate) fn serve_shard(
    service: &Arc<Service>,
    shard: u32,
) -> Result<mpsc::Receiver<Result<WatchResponse, Status>>, Status> {
    let group = service.node.group(group_of_shard(shard));
    let group = group.filter(|group| group.id() != META_GROUP && readable(group).is_some());
    let mut entries = group.ok_or_else(|| errors::no_leader(shard))?.applied_events();
    let (answers, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
    spawn(service, async move {
        loop {
            let events = tokio::select! {
                () = answers.closed() => return,
                received = entries.recv() => match received {
                    Ok(entry) => events_of(&entry).into_iter().map(wire).collect(),
                    Err(RecvError::Lagged(_)) => vec![compacted()],
                    Err(RecvError::Closed) => return,
                },
            };
            for event in events {
                if answers.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

fn wire(event: Event) -> WatchResponse {
    let session = Some(convert::session_info(event.session));
    WatchResponse { change: event.change.into(), session, ..Default::default() }
}

fn compacted() -> WatchResponse {
    WatchResponse { change: Change::Compacted.into(), ..Default::default() }
}

/// What an applied entry changed.
fn events_of(entry: &Applied) -> Vec<Event> {
    let mut events = Vec::new();
    for (command, reply) in entry.items() {
        match (command, reply) {
            (Command::Claim(claim), Reply::Claimed(claimed)) if claimed.epoch > 0 => {
                let replaced = claimed.replaced.clone();
                events.extend(replaced.map(|session| Event { change: Change::Released, session }));
                let session = Session {
                    device: claim.device,
                    gateway_id: claim.gateway_id,
                    incarnation: claim.incarnation,
                    connection_id: claim.connection_id,
                    epoch: claimed.epoch,
                    connected_at_ms: claimed.connected_at_ms,
                };
                events.push(Event { change: Change::Claimed, session });
            }
            (_, Reply::Released(released)) => {
                let session = released.session.clone();
                events.extend(session.map(|session| Event { change: Change::Released, session }));
            }
            (_, Reply::Unregistered(unregistered)) => {
                let session = unregistered.session.clone();
                events.extend(session.map(|session| Event { change: Change::Released, session }));
            }
            (Command::EndIncarnation(end), Reply::Ended(switchboard_engine::Status::Ok)) => {
                events.push(ended(end.gateway_id, end.incarnation));
            }
            // A new incarnation ends the one before, whichever that was.
            (Command::RegisterGateway(_), Reply::Registered(registered))
                if registered.incarnation > 0 =>
            {
                let before = registered.incarnation - 1;
                events.push(ended(registered.gateway_id, before));
            }
            _ => {}
        }
    }
    events
}

/// The end of every incarnation of a gateway up to this one.
pub(super) fn ended(gateway_id: u32, incarnation: u64) -> Event {
    let session = Session {
        device: DeviceId::new(Bytes::new(), 0),
        gateway_id,
        incarnation,
        connection_id: 0,
        epoch: 0,
        connected_at_ms: 0,
    };
    Event { change: Change::Expired, session }
}
