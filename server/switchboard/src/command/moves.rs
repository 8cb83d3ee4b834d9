//! Moves of replicas: how commands name them, and how they follow them to their end.
//!
//! Moves belong to the cluster, not to the command that began them. Whoever follows asks any node
//! again and again, so that a node that is restarted meanwhile, the one asked included, ends nothing.

mod show;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchboard_api::v1;
use switchboard_sdk::{Client, Error};
use tokio::time::Instant;

pub(super) use self::show::Show;
use super::operator::{failure, interrupted};
use crate::output::Failure;

/// How often it is looked how far moves are.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// How long no node may answer before the command gives up; the moves do not.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often in a row a move must be missing, and its replica not where it was going, before it is
/// taken for undone: nodes learn of both one after the other.
const MISSING_LOOKS: u32 = 4;

/// One replica goes from a node to another. 0: from none, to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    pub(super) shard: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// How moves have ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) done: Vec<Move>,
    pub(super) undone: Vec<Move>,
}

impl From<v1::ReplicaMove> for Move {
    fn from(wire: v1::ReplicaMove) -> Move {
        Move { shard: wire.shard, from: wire.from_node_id, to: wire.to_node_id }
    }
}

impl From<Move> for v1::ReplicaMove {
    fn from(one: Move) -> v1::ReplicaMove {
        v1::ReplicaMove { shard: one.shard, from_node_id: one.from, to_node_id: one.to }
    }
}

impl Move {
    pub(super) fn of(info: &v1::MoveInfo) -> Move {
        info.replica.unwrap_or_default().into()
    }

    /// `shard 3: 1 -> 4`.
    pub(super) fn words(self) -> String {
        format!("shard {}: {}", self.shard, self.way())
    }

    /// `1 -> 4`.
    pub(super) fn way(self) -> String {
        let node = |node: u64| if node == 0 { "none".to_owned() } else { node.to_string() };
        format!("{} -> {}", node(self.from), node(self.to))
    }

    /// Whether these replicas are what it wanted.
    fn is_done(self, replicas: &[u64]) -> bool {
        (self.to == 0 || replicas.contains(&self.to)) && !replicas.contains(&self.from)
    }
}

/// What a move is at, in one word.
pub(super) fn step(info: &v1::MoveInfo) -> &'static str {
    if info.aborting {
        return "being undone";
    }
    match info.step() {
        v1::MoveStep::MoveWaiting => "waiting",
        v1::MoveStep::MoveCatchingUp => "catching up",
        v1::MoveStep::MoveChanging => "changing voters",
        v1::MoveStep::MoveHandingOver => "handing over",
        v1::MoveStep::MoveRemoving => "removing",
    }
}

/// Why a command ends before the moves that it began.
fn left(why: &str) -> Failure {
    Failure::failed(format!("{why}; the moves go on without this command")).help(
        "`switchboard shard list` shows how far they are; `switchboard shard abort` takes back those \
         whose voters have not changed yet",
    )
}

/// Follows moves that have begun until all have ended, or somebody interrupts it.
pub(super) async fn follow(
    client: &Client,
    moves: &[Move],
    mut show: Show,
) -> Result<Ended, Failure> {
    let followed = tokio::select! {
        followed = follow_all(client, moves, &mut show) => followed,
        () = interrupted() => Err(left("interrupted")),
    };
    show.end();
    followed
}

async fn follow_all(client: &Client, moves: &[Move], show: &mut Show) -> Result<Ended, Failure> {
    let mut open: BTreeMap<Move, u32> = moves.iter().map(|one| (*one, 0)).collect();
    let mut ended = Ended::default();
    let mut patience = Patience::new();
    loop {
        let looked = look(client).await;
        if let Some((infos, replicas)) = patience.take(looked)? {
            show.moves(infos.iter().filter(|info| open.contains_key(&Move::of(info))))?;
            for (one, missing) in std::mem::take(&mut open) {
                let is_under_way = infos.iter().any(|info| Move::of(info) == one);
                let is_done = replicas.get(&one.shard).is_some_and(|nodes| one.is_done(nodes));
                let missing = if is_under_way { 0 } else { missing + 1 };
                if is_done && !is_under_way {
                    show.ended(one, "done")?;
                    ended.done.push(one);
                } else if missing > MISSING_LOOKS {
                    show.ended(one, "undone")?;
                    ended.undone.push(one);
                } else {
                    open.insert(one, missing);
                }
            }
            if open.is_empty() {
                return Ok(ended);
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Replicas by shard.
type Replicas = BTreeMap<u32, Vec<u64>>;

async fn look(client: &Client) -> Result<(Vec<v1::MoveInfo>, Replicas), Error> {
    let moves = client.list_moves().await?;
    let map = client.shard_map().await?;
    let replicas = map.placement.into_iter().map(|one| (one.shard, one.replica_node_ids));
    Ok((moves, replicas.collect()))
}

/// Bears failures for a while: a leader may be elected, a node restarted.
struct Patience {
    answered: Instant,
}

impl Patience {
    fn new() -> Patience {
        Patience { answered: Instant::now() }
    }

    /// The answer, if there is one; fails when there was none for too long.
    fn take<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Failure> {
        match answer {
            Ok(answer) => {
                self.answered = Instant::now();
                Ok(Some(answer))
            }
            Err(error @ Error::Rejected { .. }) => Err(failure(&error)),
            Err(error) if self.answered.elapsed() > SILENCE_MAX => {
                let seconds = SILENCE_MAX.as_secs();
                Err(left(&format!("no node has answered for {seconds} s ({error})")))
            }
            Err(_) => Ok(None),
        }
    }
}

/// Follows a node that is drained until it has no replica, or somebody interrupts it; how many it had.
pub(super) async fn follow_drain(
    client: &Client,
    node_id: u64,
    mut show: Show,
) -> Result<usize, Failure> {
    let followed = tokio::select! {
        followed = drain(client, node_id, &mut show) => followed,
        () = interrupted() => Err(Failure::failed(format!(
            "interrupted; node {node_id} goes on being emptied without this command"
        ))
        .help(format!(
            "`switchboard node list` shows how far it is; `switchboard node drain {node_id} --undo` \
             takes it back"
        ))),
    };
    show.end();
    followed
}

async fn drain(client: &Client, node_id: u64, show: &mut Show) -> Result<usize, Failure> {
    let mut patience = Patience::new();
    let mut moving = BTreeMap::new();
    let mut had = None;
    loop {
        let looked = look_at_node(client, node_id).await;
        if let Some((infos, shards, state)) = patience.take(looked)? {
            let had = *had.get_or_insert(shards.len());
            show.left_of(shards.len(), had);
            show.moves(infos.iter())?;
            for info in &infos {
                moving.insert(info.replica.unwrap_or_default().shard, Move::of(info));
            }
            let gone = moving.iter().filter(|(shard, _)| !shards.contains(shard));
            for (shard, one) in gone.map(|(shard, one)| (*shard, *one)).collect::<Vec<_>>() {
                moving.remove(&shard);
                show.ended(one, "done")?;
            }
            if shards.is_empty() {
                return Ok(had);
            }
            if state != v1::NodeState::NodeDraining {
                return Err(Failure::failed(format!(
                    "node {node_id} is not drained any more: somebody has taken it back; {} of its \
                     replicas are still there",
                    shards.len()
                )));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The moves away from a node, the shards that it has a replica of, and whether it is drained.
async fn look_at_node(
    client: &Client,
    node_id: u64,
) -> Result<(Vec<v1::MoveInfo>, Vec<u32>, v1::NodeState), Error> {
    let (moves, replicas) = look(client).await?;
    let nodes = client.list_nodes().await?;
    let is_it = |node: &&v1::list_nodes_response::Node| {
        node.node.as_ref().is_some_and(|info| info.node_id == node_id)
    };
    let state = nodes.iter().find(is_it).map_or(v1::NodeState::NodeRemoved, |node| node.state());
    let away = moves.into_iter().filter(|info| Move::of(info).from == node_id).collect();
    let on_it = replicas.into_iter().filter(|(_, nodes)| nodes.contains(&node_id));
    Ok((away, on_it.map(|(shard, _)| shard).collect(), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_done_when_the_replica_is_there_and_the_old_one_gone() {
        let one = Move { shard: 3, from: 1, to: 4 };
        assert!(one.is_done(&[2, 3, 4]));
        assert!(!one.is_done(&[1, 2, 3, 4]));
        assert!(!one.is_done(&[1, 2, 3]));
        assert!(Move { from: 0, ..one }.is_done(&[1, 2, 4]), "one more");
        assert!(Move { to: 0, ..one }.is_done(&[2, 3]), "one less");
        assert_eq!(one.words(), "shard 3: 1 -> 4");
        assert_eq!(Move { to: 0, ..one }.way(), "1 -> none");
    }

    #[test]
    fn silence_is_borne_and_a_refusal_is_not() {
        let mut patience = Patience::new();
        let silent = Error::OutcomeUnknown { message: "broken pipe".into() };
        assert!(patience.take::<()>(Err(silent)).is_ok_and(|answer| answer.is_none()));
        let refused = Error::Rejected { reason: "X".into(), message: "no".into() };
        assert!(patience.take::<()>(Err(refused)).is_err());
    }
}
