//! Clients: each does one thing after the other to one of a few users, and asks whom it takes for
//! the leader.
//!
//! A refusal that says that nothing happened is followed by another attempt elsewhere. A lost answer
//! leaves the operation unknown, but for an enqueue, which is repeated with its id as devices do.

use bytes::Bytes;
use switchboard_engine::command::{Ack, Claim, Enqueue, Release};
use switchboard_engine::fs::sim::Random;
use switchboard_engine::{Command, DeviceId, GroupId, MessageKind, Reply, Status};
use switchboard_histories::{Action, History, Outcome};
use switchboard_raft::{Consistency, Node, NodeId, ProposeError};

use crate::net::{Letter, Net};

pub const USERS: usize = 3;
/// How long an attempt is waited for.
const ATTEMPT_MS_MAX: u64 = 400;
/// How long an operation is tried.
const OPERATION_MS_MAX: u64 = 3_000;

/// A request to a node.
#[derive(Clone, Debug)]
pub struct Ask {
    pub client: u64,
    pub attempt: u64,
    pub group: GroupId,
    pub user: usize,
    pub action: Action,
}

/// What the node says.
#[derive(Clone, Debug)]
pub struct Answer {
    pub client: u64,
    pub attempt: u64,
    pub said: Said,
}

#[derive(Clone, Debug)]
pub enum Said {
    Done(Outcome),
    /// Nothing happened; ask this one.
    NotHere(Option<NodeId>),
    Unknown,
}

/// The group of a user: the users of one group share its log, the groups of a node share the node's.
pub fn group_of(user: usize) -> GroupId {
    1 + (user % 2) as GroupId
}

pub fn device(user: usize) -> DeviceId {
    DeviceId::new(format!("user-{user}"), 1)
}

fn message_id(message: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&message.to_le_bytes());
    id
}

fn number(id: [u8; 16]) -> u64 {
    u64::from_le_bytes(id[..8].try_into().expect("eight bytes"))
}

pub struct Client {
    pub id: u64,
    random: Random,
    doing: Doing,
    next_number: u64,
    attempts: u64,
    guess: [NodeId; USERS],
    /// The last epoch that it claimed, and the last seq that it fetched, by user.
    epochs: [u64; USERS],
    fetched: [u64; USERS],
}

enum Doing {
    Nothing { until_ms: u64 },
    Waiting { operation: usize, started_ms: u64, asked_ms: u64, unknown: bool },
    Pausing { operation: usize, started_ms: u64, until_ms: u64, unknown: bool },
}

impl Client {
    pub fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            random: Random::new(seed),
            doing: Doing::Nothing { until_ms: 0 },
            next_number: 0,
            attempts: 0,
            guess: [1; USERS],
            epochs: [0; USERS],
            fetched: [0; USERS],
        }
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Nothing { .. })
    }

    /// What the client does by itself at a moment. `begin` says whether new operations may begin.
    pub fn step(&mut self, now_ms: u64, history: &mut History, net: &Net, nodes: u64, begin: bool) {
        match self.doing {
            Doing::Nothing { until_ms } if begin && now_ms >= until_ms => {
                let user = self.random.below(USERS as u64) as usize;
                let action = self.choose(user);
                let operation = history.invoke(user, action);
                self.ask(operation, now_ms, now_ms, false, history, net);
            }
            Doing::Waiting { operation, started_ms, asked_ms, .. }
                if now_ms >= asked_ms + ATTEMPT_MS_MAX =>
            {
                let user = history.operations[operation].user;
                self.guess[user] = 1 + self.random.below(nodes);
                self.lost(operation, started_ms, now_ms, history);
            }
            Doing::Pausing { operation, started_ms, until_ms, unknown } if now_ms >= until_ms => {
                if now_ms >= started_ms + OPERATION_MS_MAX {
                    let outcome = if unknown { Outcome::Unknown } else { Outcome::Nothing };
                    self.finish(operation, outcome, now_ms, history);
                } else {
                    self.ask(operation, started_ms, now_ms, unknown, history, net);
                }
            }
            _ => {}
        }
    }

    /// An answer came, maybe to an attempt that was given up.
    pub fn told(&mut self, answer: Answer, now_ms: u64, history: &mut History, nodes: u64) {
        let Doing::Waiting { operation, started_ms, unknown, .. } = self.doing else { return };
        if answer.attempt != self.attempts {
            return;
        }
        let user = history.operations[operation].user;
        match answer.said {
            Said::Done(outcome) => {
                match &outcome {
                    Outcome::Claimed { epoch, .. } => self.epochs[user] = *epoch,
                    Outcome::Fetched { messages } => {
                        self.fetched[user] = messages.last().map_or(0, |(seq, _)| *seq);
                    }
                    _ => {}
                }
                self.finish(operation, outcome, now_ms, history);
            }
            Said::NotHere(leader) => {
                self.guess[user] = leader.unwrap_or_else(|| 1 + self.random.below(nodes));
                let until_ms = now_ms + 10 + self.random.below(40);
                self.doing = Doing::Pausing { operation, started_ms, until_ms, unknown };
            }
            Said::Unknown => self.lost(operation, started_ms, now_ms, history),
        }
    }

    fn choose(&mut self, user: usize) -> Action {
        self.next_number += 1;
        let number = self.id << 32 | self.next_number;
        match self.random.below(20) {
            0..=7 => Action::Enqueue { message: number },
            8..=10 => Action::Claim { connection: number },
            11 if self.epochs[user] > 0 => Action::Release { epoch: self.epochs[user] },
            12..=14 if self.fetched[user] > 0 => {
                Action::Ack { epoch: 0, up_to_seq: self.fetched[user] }
            }
            15..=16 => Action::Locate,
            _ => Action::Fetch,
        }
    }

    fn ask(
        &mut self,
        operation: usize,
        started_ms: u64,
        now_ms: u64,
        unknown: bool,
        history: &History,
        net: &Net,
    ) {
        self.attempts += 1;
        let wanted = &history.operations[operation];
        let (client, attempt, user) = (self.id, self.attempts, wanted.user);
        let action = wanted.action.clone();
        let ask = Ask { client, attempt, group: group_of(user), user, action };
        net.send(Letter::Ask { to: self.guess[user], ask });
        self.doing = Doing::Waiting { operation, started_ms, asked_ms: now_ms, unknown };
    }

    /// An attempt whose outcome nobody knows.
    fn lost(&mut self, operation: usize, started_ms: u64, now_ms: u64, history: &mut History) {
        match history.operations[operation].action {
            Action::Enqueue { .. } => {
                let until_ms = now_ms + 20 + self.random.below(100);
                self.doing = Doing::Pausing { operation, started_ms, until_ms, unknown: true };
            }
            // Repeated, a claim would be another one.
            _ => self.finish(operation, Outcome::Unknown, now_ms, history),
        }
    }

    fn finish(&mut self, operation: usize, outcome: Outcome, now_ms: u64, history: &mut History) {
        history.finish(operation, outcome);
        self.doing = Doing::Nothing { until_ms: now_ms + 1 + self.random.below(120) };
    }
}

/// Serves a request on a node, as its service would.
pub async fn serve(node: Node, ask: Ask) -> Said {
    let Some(group) = node.group(ask.group) else { return Said::NotHere(None) };
    match ask.action {
        Action::Fetch | Action::Locate => {
            if group.barrier(Consistency::Linearizable).await.is_err() {
                return Said::NotHere(group.leader());
            }
            read(&group, &ask)
        }
        _ => write(&group, &ask).await,
    }
}

fn read(group: &switchboard_raft::Group, ask: &Ask) -> Said {
    let device = device(ask.user);
    if ask.action == Action::Locate {
        let located = group.shard().locate(&device.user);
        let session = located.sessions.first().map(|s| (s.epoch, s.connection_id));
        return Said::Done(Outcome::Located { session });
    }
    match group.shard().fetch(&device, 0, usize::MAX, usize::MAX) {
        Ok(page) if page.more => Said::Unknown,
        Ok(page) => {
            let messages = page.messages.iter().map(|m| (m.seq, number(m.message_id))).collect();
            Said::Done(Outcome::Fetched { messages })
        }
        // The disk has failed under it, or the message is damaged, which others notice.
        Err(_) => Said::Unknown,
    }
}

async fn write(group: &switchboard_raft::Group, ask: &Ask) -> Said {
    let Ok(proposed) = group.propose(vec![command(ask)]) else { return Said::NotHere(None) };
    let replies = match proposed.await {
        Ok(replies) => replies,
        Err(ProposeError::NotLeader { leader }) => return Said::NotHere(leader),
        Err(ProposeError::OutcomeUnknown) => return Said::Unknown,
        Err(ProposeError::Stopped | ProposeError::Refused { .. }) => return Said::NotHere(None),
    };
    let outcome = match &replies[0] {
        Reply::Enqueued(reply) if reply.status == Status::Ok => {
            let stored = reply.stored[0];
            let session = reply.sessions.first().map(|s| (s.epoch, s.connection_id));
            Outcome::Enqueued { seq: stored.seq, prev_seq: stored.prev_seq, session }
        }
        Reply::Enqueued(reply) if reply.status == Status::Duplicate => Outcome::Duplicate,
        Reply::Claimed(reply) => {
            Outcome::Claimed { epoch: reply.epoch, backlog: reply.backlog, tail: reply.tail }
        }
        Reply::Released(reply) => Outcome::Released { fenced: reply.status == Status::Fenced },
        Reply::Acked(reply) => Outcome::Acked { removed: Some(reply.removed.into()) },
        // The group has no `Init` yet: nothing was done.
        _ => return Said::NotHere(None),
    };
    Said::Done(outcome)
}

fn command(ask: &Ask) -> Command {
    let device = device(ask.user);
    match ask.action {
        Action::Enqueue { message } => Command::Enqueue(Enqueue {
            to_user: device.user,
            to_device: 1,
            message_id: message_id(message),
            from: DeviceId::new(format!("sender-{}", ask.client), 1),
            ttl_ms: 0,
            kind: MessageKind::Content,
            body: Bytes::from(vec![b'x'; 200]),
        }),
        Action::Claim { connection } => Command::Claim(Claim {
            device,
            gateway_id: 1,
            incarnation: 1,
            connection_id: connection,
            push_token: Bytes::new(),
        }),
        Action::Release { epoch } => Command::Release(Release { device, epoch }),
        Action::Ack { epoch, up_to_seq } => {
            Command::Ack(Ack { device, epoch, up_to_seq, seqs: Vec::new() })
        }
        Action::Fetch | Action::Locate | Action::Stat => Command::Tick,
    }
}
