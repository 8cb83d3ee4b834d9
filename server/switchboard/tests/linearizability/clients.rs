//! Clients: each does one thing after the other to one of a few users, and asks any node. Every call
//! is made once, without the SDK, so that what is recorded is what was asked and answered.
//!
//! A refusal that says that nothing happened is followed by another attempt, mostly elsewhere. Without
//! an answer the outcome is unknown, but for an enqueue, which is repeated with its id as devices do.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard_api::v1::{
    self, DeviceRef, ItemStatus, Read, SessionInfo, mailbox_service_client::MailboxServiceClient,
    session_service_client::SessionServiceClient,
};
use switchboard_histories::{Action, History, Outcome};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

pub(crate) const USERS: usize = 3;
const DEVICE: u32 = 1;
/// How long an attempt is waited for. Shorter than most stand-stills, so that requests are given up
/// which the node still answers when it goes on.
const ATTEMPT_MAX: Duration = Duration::from_millis(1_000);
/// How long an operation is tried.
const OPERATION_MAX: Duration = Duration::from_secs(4);
/// A pause before an operation, or before another attempt.
const PAUSE_MS: std::ops::Range<u64> = 0..20;

/// The gateway that sessions are claimed for.
#[derive(Clone, Copy)]
pub(crate) struct Gateway {
    pub(crate) id: u32,
    pub(crate) incarnation: u64,
}

/// How look-ups ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// As the history takes them: LEASE and LINEARIZABLE.
    Fresh,
    /// LOCAL: the bug that the checker must find.
    OfAnyReplica,
}

/// What an attempt came to.
enum Said {
    Done(Outcome),
    Nothing,
    Unknown,
}

struct Node {
    sessions: SessionServiceClient<Channel>,
    mailboxes: MailboxServiceClient<Channel>,
}

pub(crate) struct Client {
    round: u64,
    id: u64,
    random: StdRng,
    nodes: Vec<Node>,
    gateway: Gateway,
    reads: Reads,
    history: Arc<Mutex<History>>,
    next_number: u64,
    /// The last epoch that it claimed, and the last seq that it fetched, by user.
    epochs: [u64; USERS],
    fetched: [u64; USERS],
}

impl Client {
    pub(crate) fn new(
        round: u64,
        id: u64,
        seed: u64,
        at: &[String],
        gateway: Gateway,
        reads: Reads,
        history: Arc<Mutex<History>>,
    ) -> Self {
        let nodes = at.iter().map(|address| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
            let channel = endpoint.connect_timeout(ATTEMPT_MAX).tcp_nodelay(true).connect_lazy();
            Node {
                sessions: SessionServiceClient::new(channel.clone()),
                mailboxes: MailboxServiceClient::new(channel),
            }
        });
        Self {
            round,
            id,
            random: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(id)),
            nodes: nodes.collect(),
            gateway,
            reads,
            history,
            next_number: 0,
            epochs: [0; USERS],
            fetched: [0; USERS],
        }
    }

    /// Does one thing after the other until it is stopped.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let user = self.random.random_range(0..USERS);
            let action = self.choose(user);
            self.operate(user, action).await;
            self.pause().await;
        }
    }

    /// Does one thing and records it. False if it came to nothing that is known.
    pub(crate) async fn operate(&mut self, user: usize, action: Action) -> bool {
        let operation = self.history.lock().invoke(user, action.clone());
        let (started, mut unknown) = (Instant::now(), false);
        let outcome = loop {
            match self.attempt(user, &action).await {
                Said::Done(outcome) => break outcome,
                Said::Nothing => {}
                Said::Unknown if matches!(action, Action::Enqueue { .. }) => unknown = true,
                // Repeated, a claim would be another one.
                Said::Unknown => break Outcome::Unknown,
            }
            if started.elapsed() >= OPERATION_MAX {
                break if unknown { Outcome::Unknown } else { Outcome::Nothing };
            }
            self.pause().await;
        };
        match &outcome {
            Outcome::Claimed { epoch, .. } => self.epochs[user] = *epoch,
            Outcome::Fetched { messages } => {
                self.fetched[user] = messages.last().map_or(0, |(seq, _)| *seq);
            }
            _ => {}
        }
        let known = !matches!(outcome, Outcome::Unknown | Outcome::Nothing);
        self.history.lock().finish(operation, outcome);
        known
    }

    fn choose(&mut self, user: usize) -> Action {
        self.next_number += 1;
        let number = self.id << 32 | self.next_number;
        let epoch = self.epochs[user];
        match self.random.random_range(0..24) {
            0..=7 => Action::Enqueue { message: number },
            8..=9 => Action::Claim { connection: number },
            10 if epoch > 0 => Action::Release { epoch },
            11..=14 if self.fetched[user] > 0 => {
                let epoch = if self.random.random_bool(0.5) { epoch } else { 0 };
                Action::Ack { epoch, up_to_seq: self.fetched[user] }
            }
            15..=18 => Action::Locate,
            19..=20 => Action::Stat,
            _ => Action::Fetch,
        }
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.random.random_range(PAUSE_MS));
        tokio::time::sleep(pause).await;
    }

    async fn attempt(&mut self, user: usize, action: &Action) -> Said {
        let at = self.random.random_range(0..self.nodes.len());
        let device = self.device(user);
        match *action {
            Action::Enqueue { message } => self.enqueue(at, device, message).await,
            Action::Claim { connection } => self.claim(at, device, connection).await,
            Action::Release { epoch } => self.release(at, device, epoch).await,
            Action::Ack { epoch, up_to_seq } => self.ack(at, device, epoch, up_to_seq).await,
            Action::Fetch => self.fetch(at, device).await,
            Action::Locate => self.locate(at, device).await,
            Action::Stat => self.stat(at, device).await,
        }
    }

    /// Each round has users of its own.
    fn device(&self, user: usize) -> DeviceRef {
        let user = format!("user-{}-{user}", self.round).into();
        DeviceRef { user, device: DEVICE }
    }

    async fn enqueue(&self, at: usize, to: DeviceRef, message: u64) -> Said {
        let id = u128::from(self.round) << 64 | u128::from(message);
        let item = v1::enqueue_request::Item {
            to: Some(to),
            message_id: id.to_be_bytes().to_vec().into(),
            from: Some(DeviceRef { user: format!("sender-{}", self.id).into(), device: DEVICE }),
            body: vec![b'x'; 200].into(),
            ..Default::default()
        };
        let request = v1::EnqueueRequest { items: vec![item] };
        let mut mailboxes = self.nodes[at].mailboxes.clone();
        let answer = wait(mailboxes.enqueue(request)).await;
        item_of(
            answer,
            |response| response.results,
            |result| {
                let stored = result.stored.first().copied().unwrap_or_default();
                let outcome = match result.status() {
                    ItemStatus::Duplicate => Outcome::Duplicate,
                    _ => Outcome::Enqueued {
                        seq: stored.seq,
                        prev_seq: stored.prev_seq,
                        session: session(&result.sessions),
                    },
                };
                (result.status(), outcome)
            },
        )
    }

    async fn claim(&self, at: usize, device: DeviceRef, connection_id: u64) -> Said {
        let item = v1::claim_request::Item {
            device: Some(device),
            connection_id,
            push_token: String::new(),
        };
        let Gateway { id: gateway_id, incarnation } = self.gateway;
        let request = v1::ClaimRequest { items: vec![item], gateway_id, incarnation };
        let mut sessions = self.nodes[at].sessions.clone();
        let answer = wait(sessions.claim(request)).await;
        item_of(
            answer,
            |response| response.results,
            |result| {
                let v1::claim_response::Result { epoch, backlog, tail, .. } = *result;
                (result.status(), Outcome::Claimed { epoch, backlog, tail })
            },
        )
    }

    async fn release(&self, at: usize, device: DeviceRef, epoch: u64) -> Said {
        let item = v1::release_request::Item { device: Some(device), epoch };
        let request = v1::ReleaseRequest { items: vec![item] };
        let mut sessions = self.nodes[at].sessions.clone();
        let answer = wait(sessions.release(request)).await;
        item_of(
            answer,
            |response| response.results,
            |result| {
                let fenced = result.status() == ItemStatus::Fenced;
                (result.status(), Outcome::Released { fenced })
            },
        )
    }

    async fn ack(&self, at: usize, device: DeviceRef, epoch: u64, up_to_seq: u64) -> Said {
        let item =
            v1::ack_request::Item { device: Some(device), epoch, up_to_seq, seqs: Vec::new() };
        let request = v1::AckRequest { items: vec![item] };
        let mut mailboxes = self.nodes[at].mailboxes.clone();
        let answer = wait(mailboxes.ack(request)).await;
        item_of(
            answer,
            |response| response.results,
            |result| match result.status() {
                ItemStatus::Fenced => (ItemStatus::Fenced, Outcome::AckFenced),
                status => (status, Outcome::Acked { removed: None }),
            },
        )
    }

    async fn fetch(&self, at: usize, device: DeviceRef) -> Said {
        let request = v1::FetchRequest {
            device: Some(device),
            messages_max: 1_024,
            bytes_max: 4 << 20,
            ..Default::default()
        };
        let mut mailboxes = self.nodes[at].mailboxes.clone();
        match wait(mailboxes.fetch(request)).await {
            // A second page would be of a later moment.
            Ok(page) if page.more => Said::Nothing,
            Ok(page) => {
                let messages = page.messages.iter().map(|m| (m.seq, number(&m.message_id)));
                Said::Done(Outcome::Fetched { messages: messages.collect() })
            }
            Err(_) => Said::Nothing,
        }
    }

    async fn locate(&mut self, at: usize, device: DeviceRef) -> Said {
        let read = match self.reads {
            Reads::OfAnyReplica => Read::Local,
            Reads::Fresh if self.random.random_bool(0.5) => Read::Lease,
            Reads::Fresh => Read::Linearizable,
        };
        let request = v1::LocateRequest { users: vec![device.user], read: read.into() };
        let mut sessions = self.nodes[at].sessions.clone();
        let answer = wait(sessions.locate(request)).await;
        read_of(item_of(
            answer,
            |response| response.results,
            |result| (result.status(), Outcome::Located { session: session(&result.sessions) }),
        ))
    }

    async fn stat(&self, at: usize, device: DeviceRef) -> Said {
        let item = v1::stat_request::Item { device: Some(device), with_push_token: false };
        let request = v1::StatRequest { items: vec![item] };
        let mut mailboxes = self.nodes[at].mailboxes.clone();
        let answer = wait(mailboxes.stat(request)).await;
        read_of(item_of(
            answer,
            |response| response.results,
            |result| {
                let v1::stat_response::Result { messages, tail, .. } = *result;
                (result.status(), Outcome::Stat { messages, tail })
            },
        ))
    }
}

/// An answer in time, or none.
async fn wait<R>(
    call: impl Future<Output = Result<tonic::Response<R>, Status>>,
) -> Result<R, Said> {
    match tokio::time::timeout(ATTEMPT_MAX, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        // Whoever says when to come back has done nothing.
        Ok(Err(status)) if status.get_details_retry_info().is_some() => Err(Said::Nothing),
        Ok(Err(_)) | Err(_) => Err(Said::Unknown),
    }
}

/// What the one item of a batch was told.
fn item_of<A, R>(
    answer: Result<A, Said>,
    results: impl FnOnce(A) -> Vec<R>,
    outcome: impl FnOnce(&R) -> (ItemStatus, Outcome),
) -> Said {
    let results = match answer {
        Ok(answer) => results(answer),
        Err(said) => return said,
    };
    let Some(result) = results.first() else { return Said::Unknown };
    match outcome(result) {
        (ItemStatus::Ok | ItemStatus::Duplicate | ItemStatus::Fenced, outcome) => {
            Said::Done(outcome)
        }
        (ItemStatus::Overloaded, _) => Said::Nothing,
        (ItemStatus::Unavailable, _) => Said::Unknown,
        (status, _) => panic!("nothing here is refused, but {status:?} came"),
    }
}

/// A read without an answer has done nothing.
fn read_of(said: Said) -> Said {
    if let Said::Unknown = said { Said::Nothing } else { said }
}

fn session(sessions: &[SessionInfo]) -> Option<(u64, u64)> {
    sessions.first().map(|session| (session.epoch, session.connection_id))
}

/// The number in a message's id.
fn number(message_id: &[u8]) -> u64 {
    message_id.last_chunk().map_or(0, |last| u64::from_be_bytes(*last))
}
