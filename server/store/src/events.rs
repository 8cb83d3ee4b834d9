//! Changes of sessions, for watchers: a bounded ring of events with versions.
//!
//! ```text
//!  shards ──applied──▶ following.rs (one task a shard, from the first watcher on)
//!                          │ push
//!                          ▼
//!            ring: [first … last]  ◀── each watcher reads from its own version
//! ```
//! A watcher that is behind the ring's first event is told COMPACTED and goes on from the newest.
//! Versions start above those of every earlier run of the node (they begin at the start time), so a
//! version of an earlier run is behind as well.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_api::v1::{
    LocateRequest, Read, SessionInfo, WatchRequest, WatchResponse, watch_response::Change,
};
use switchboard_engine::{DeviceId, Session};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::{convert, errors, limits, service::Service};

mod following;

pub(crate) use following::serve_shard;

/// How many low bits of a version count events within a millisecond of the start.
const VERSION_SHIFT: u32 = 20;

/// One change. An incarnation's end is one event, whose session names no device.
#[derive(Clone, Debug)]
struct Event {
    change: Change,
    session: Session,
}

impl Event {
    /// Whether it is the end of an incarnation, which only such an event is without a device.
    fn is_end(&self) -> bool {
        self.session.device.user.is_empty()
    }
}

struct Ring {
    events: VecDeque<Event>,
    /// The version of the newest event, or where versions start.
    last: u64,
}

impl Ring {
    /// The version before the oldest event that is kept.
    fn floor(&self) -> u64 {
        self.last - self.events.len() as u64
    }

    /// Up to `max` events after `version`, each with its own; none when it is behind the ring.
    fn after(&self, version: u64, max: usize) -> Option<Vec<(u64, Event)>> {
        let skip = usize::try_from(version.checked_sub(self.floor())?).ok()?;
        let versions = version.saturating_add(1)..;
        Some(versions.zip(self.events.iter().skip(skip).take(max).cloned()).collect())
    }
}

/// The events of a node.
pub(crate) struct SessionEvents {
    /// A lock, held to push or copy a bounded number of events.
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    following: OnceLock<()>,
}

impl SessionEvents {
    /// An empty ring of a node that started at this Unix time.
    pub(crate) fn new(started_ms: u64) -> Self {
        let last = started_ms << VERSION_SHIFT;
        let ring = Mutex::new(Ring { events: VecDeque::new(), last });
        Self { ring, newest: watch::Sender::new(last), following: OnceLock::new() }
    }

    fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut ring = self.ring.lock();
        for event in events {
            if ring.events.len() == limits::SESSION_EVENTS_MAX {
                ring.events.pop_front();
            }
            ring.events.push_back(event);
            ring.last += 1;
        }
        let last = ring.last;
        drop(ring);
        self.newest.send_replace(last);
    }

    /// Drops everything: some events were missed.
    fn compact(&self) {
        let mut ring = self.ring.lock();
        ring.events.clear();
        ring.last += 1;
        let last = ring.last;
        drop(ring);
        self.newest.send_replace(last);
    }

    /// Whether an incarnation ended after `version`, as far as the ring goes back.
    fn ended_after(&self, version: u64) -> bool {
        let ring = self.ring.lock();
        let Some(after) = ring.after(version, usize::MAX) else { return false };
        after.iter().any(|(_, event)| event.is_end())
    }

    /// Serves one watcher until it goes or the node stops.
    pub(crate) async fn serve(
        &self,
        service: &Arc<Service>,
        request: WatchRequest,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
    ) {
        self.following.get_or_init(|| following::start(service));
        let mut newest = self.newest.subscribe();
        let mut version = match request.resume_version {
            0 => *newest.borrow_and_update(),
            resumed => resumed,
        };
        let mut watcher = Watcher::new(request);
        if watcher.send(&answers, version, Change::Started, None).await.is_err() {
            return;
        }
        // The sessions that an end in between concerned may have been swept since: start over.
        let mut is_behind = self.ended_after(version);
        watcher.look(service).await;
        let token = service.shutdown.token();
        loop {
            let batch = self.ring.lock().after(version, limits::WATCH_BATCH_MAX);
            let Some(batch) = batch.filter(|_| !is_behind) else {
                is_behind = false;
                version = *newest.borrow_and_update();
                watcher.look(service).await;
                if watcher.send(&answers, version, Change::Compacted, None).await.is_err() {
                    return;
                }
                continue;
            };
            if batch.is_empty() {
                tokio::select! {
                    () = token.cancelled() => {
                        // The watcher may be gone already.
                        let _ = answers.send(Err(errors::stopping())).await;
                        return;
                    }
                    () = answers.closed() => return,
                    changed = newest.changed() => if changed.is_err() { return },
                }
            }
            for (at, event) in batch {
                version = at;
                for (change, session) in watcher.concerns(event) {
                    if watcher.send(&answers, at, change, Some(session)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// What one watcher wants to know, and what it has been told.
struct Watcher {
    users: HashSet<Bytes>,
    gateway_id: u32,
    /// The live sessions of the users watched, so that the end of an incarnation, which is one event,
    /// is told session by session. Bounded by the users of a request and the devices of a user.
    known: BTreeMap<DeviceId, Session>,
}

impl Watcher {
    fn new(request: WatchRequest) -> Self {
        let users = request.users.into_iter().collect();
        Self { users, gateway_id: request.gateway_id, known: BTreeMap::new() }
    }

    /// Reads the sessions as they are now, here or where the users are.
    async fn look(&mut self, service: &Service) {
        self.known.clear();
        let users = self.users.iter().cloned().collect();
        let located = service.locate(LocateRequest { users, read: Read::Local.into() }).await;
        let sessions = located.results.into_iter().flat_map(|result| result.sessions);
        let sessions = sessions.map(convert::session);
        self.known.extend(sessions.map(|session| (session.device.clone(), session)));
    }

    /// What an event means to this watcher. The end of an incarnation is told to a gateway's watcher
    /// as one change whose session names no device.
    fn concerns(&mut self, event: Event) -> Vec<(Change, Session)> {
        let Event { change, session } = event;
        if self.users.is_empty() {
            let is_wanted = session.gateway_id == self.gateway_id;
            return is_wanted.then_some((change, session)).into_iter().collect();
        }
        if change == Change::Expired {
            let ended = |known: &Session| {
                known.gateway_id == session.gateway_id && known.incarnation <= session.incarnation
            };
            let gone: Vec<_> = self.known.values().filter(|known| ended(known)).cloned().collect();
            gone.iter().for_each(|session| drop(self.known.remove(&session.device)));
            return gone.into_iter().map(|session| (Change::Expired, session)).collect();
        }
        if !self.users.contains(&session.device.user) {
            return Vec::new();
        }
        match self.known.get(&session.device) {
            // An older one than is known: seen in the look already, or replaced since.
            Some(known) if known.epoch > session.epoch => return Vec::new(),
            _ if change == Change::Claimed => {
                self.known.insert(session.device.clone(), session.clone());
            }
            _ => drop(self.known.remove(&session.device)),
        }
        vec![(change, session)]
    }

    async fn send(
        &self,
        answers: &mpsc::Sender<Result<WatchResponse, Status>>,
        version: u64,
        change: Change,
        session: Option<Session>,
    ) -> Result<(), ()> {
        let info = session.map(|session| {
            let has_device = !session.device.user.is_empty();
            let info = convert::session_info(session);
            let device = info.device.filter(|_| has_device);
            SessionInfo { device, ..info }
        });
        let answer = WatchResponse { version, change: change.into(), session: info };
        answers.send(Ok(answer)).await.map_err(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{following::ended, *};

    #[test]
    fn a_watcher_behind_the_ring_is_told_so_and_one_within_it_misses_nothing() {
        let events = SessionEvents::new(1_000);
        let start = 1_000 << VERSION_SHIFT;
        events.push((0..3).map(|n| ended(n, 1)));
        let ring = events.ring.lock();
        let all = ring.after(start, 10).expect("within the ring");
        assert_eq!(all.iter().map(|(v, _)| v - start).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(ring.after(start + 2, 10).expect("within the ring").len(), 1);
        assert!(ring.after(start + 3, 10).expect("at its end").is_empty());
        assert!(ring.after(start - 1, 10).is_none(), "a version of an earlier run");
    }

    #[test]
    fn the_ring_is_bounded() {
        let events = SessionEvents::new(1);
        let extra = 5_u32;
        let count = u32::try_from(limits::SESSION_EVENTS_MAX).expect("fits") + extra;
        events.push((0..count).map(|n| ended(n, 1)));
        let ring = events.ring.lock();
        assert_eq!(ring.events.len(), limits::SESSION_EVENTS_MAX);
        assert_eq!(ring.floor(), (1 << VERSION_SHIFT) + u64::from(extra));
    }
}
