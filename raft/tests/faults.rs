//! A node on a disk that crashes, tears, loses and refuses writes: nothing that was answered is
//! lost, and nothing that was damaged is served.

mod support;

use std::time::Duration;

use support::{bodies, claim, enqueue, open, options, sim};
use switchboard_engine::Command;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_raft::{Group, Node, NodeFailure, OverloadReason, Overloaded, ProposeError};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// What a client has been told.
#[derive(Default)]
struct Client {
    sent: u64,
    accepted: Vec<(String, String)>,
}

impl Client {
    /// Sends to one user after the other, several at once, until something fails.
    async fn send_until_failure(&mut self, node: &Node, messages_max: u64) {
        while self.sent < messages_max {
            let mut answers = Vec::new();
            let mut failed = false;
            for _ in 0..5 {
                self.sent += 1;
                let user = USERS[(self.sent % 3) as usize];
                let body = format!("message {}", self.sent);
                let Some(group) = node.shard_for(user.as_bytes()) else { return };
                // A disk that cannot say how much room it has counts as full.
                match group.propose(vec![enqueue(user, self.sent, &body)]) {
                    Ok(proposed) => answers.push((user, body, proposed)),
                    Err(Overloaded { reason: OverloadReason::DiskReserve, .. }) => failed = true,
                    Err(refused) => panic!("{refused}"),
                }
            }
            for (user, body, answer) in answers {
                match answer.await {
                    Ok(_) => self.accepted.push((user.to_owned(), body)),
                    Err(_) => failed = true,
                }
            }
            if failed {
                return;
            }
        }
    }

    /// Everything accepted is there, once, in the order in which it was sent; what was not
    /// answered may be there too.
    fn check(&self, node: &Node) {
        for user in USERS {
            let found = bodies(&node.shard_for(user.as_bytes()).expect("here"), user);
            let numbers: Vec<u64> = found
                .iter()
                .map(|body| body["message ".len()..].parse().expect("a number"))
                .collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{user}: {found:?}");
            for (_, body) in self.accepted.iter().filter(|(to, _)| to == user) {
                assert!(found.contains(body), "{user} lost {body:?}, has {found:?}");
            }
        }
    }
}

async fn opened_and_made(disk: &SimFiles) -> Option<Node> {
    let node = Node::open(options(disk)).await.ok()?;
    match node.initialize_single(2).await {
        Ok(()) => Some(node),
        Err(_) => {
            node.shutdown().await;
            None
        }
    }
}

/// What a node does in the life that ends.
#[derive(Clone, Copy)]
enum Life {
    Sending,
    /// Sending, and taking checkpoints meanwhile.
    Checkpointing,
}

async fn live(node: &Node, client: &mut Client, life: Life) {
    let checkpoints = async {
        for group in node.shards().iter().cycle().take(6) {
            // It fails when the disk does.
            let _ = group.checkpoint().await;
        }
    };
    match life {
        Life::Sending => client.send_until_failure(node, 300).await,
        Life::Checkpointing => {
            client.send_until_failure(node, 100).await;
            futures::join!(client.send_until_failure(node, 300), checkpoints);
        }
    }
}

/// One life of a node that ends at the given operation of the disk, and the next one.
async fn crash_and_return(seed: u64, operation: u64, life: Life) {
    let disk = sim(seed);
    disk.crash_at(operation);
    let mut client = Client::default();
    if let Some(node) = opened_and_made(&disk).await {
        live(&node, &mut client, life).await;
        node.shutdown().await;
    }
    disk.power_cut();
    let node = open(&disk).await;
    node.initialize_single(2).await.unwrap_or_else(|error| panic!("{seed} {operation}: {error}"));
    client.check(&node);
    // It goes on as if nothing had been.
    let before = client.accepted.len();
    client.send_until_failure(&node, client.sent + 10).await;
    assert!(client.accepted.len() >= before + 10);
    client.check(&node);
    node.shutdown().await;
}

/// How many operations on the disk such a life takes.
async fn operations_of(life: Life) -> u64 {
    let disk = sim(0);
    let node = opened_and_made(&disk).await.expect("a sound disk");
    live(&node, &mut Client::default(), life).await;
    node.shutdown().await;
    disk.operations()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_operation_loses_nothing_that_was_answered() {
    let operations = operations_of(Life::Sending).await;
    // Every early operation, where files are made, and a spread of the later ones.
    let later = (21..operations).step_by((operations / 30).max(1) as usize);
    for (seed, operation) in (1..=20).chain(later).enumerate() {
        crash_and_return(seed as u64, operation, Life::Sending).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_amid_checkpoints_loses_nothing_that_was_answered() {
    let operations = operations_of(Life::Checkpointing).await;
    let spread = (40..operations).step_by((operations / 50).max(1) as usize);
    for (seed, operation) in spread.enumerate() {
        crash_and_return(seed as u64, operation, Life::Checkpointing).await;
    }
}

/// The process dies; the machine does not. Entries may be written and not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_write_and_sync_loses_nothing_that_was_answered() {
    for operation in [40, 45, 50, 61, 72, 83, 94] {
        let disk = sim(operation);
        disk.crash_at(operation);
        let mut client = Client::default();
        if let Some(node) = opened_and_made(&disk).await {
            client.send_until_failure(&node, 300).await;
            node.shutdown().await;
        }
        disk.kill();
        let node = open(&disk).await;
        node.initialize_single(2).await.expect("made, or made again");
        client.check(&node);
        node.shutdown().await;
        drop(node);
        // What it served after the kill it also serves after a power cut: nothing was only cached.
        disk.power_cut();
        let node = open(&disk).await;
        node.initialize_single(2).await.expect("is made");
        client.check(&node);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_node_and_answers_nothing_falsely() {
    let disk = sim(5);
    let node = opened_and_made(&disk).await.expect("a sound disk");
    let mut client = Client::default();
    client.send_until_failure(&node, 20).await;
    disk.fail_sync_at(disk.operations() + 1);
    client.send_until_failure(&node, 100).await;
    assert!(client.sent < 100, "the failure was felt");
    let failure = node.failed();
    let failure = tokio::time::timeout(Duration::from_secs(20), failure).await.expect("is told");
    let group = match failure {
        NodeFailure::Group { group, .. } => node.group(group).expect("one of its groups"),
        NodeFailure::Log => node.shard_for(USERS[0].as_bytes()).expect("here"),
        NodeFailure::Format { .. } => panic!("{failure}"),
    };
    let refused = group.propose(vec![Command::Tick]).expect("answered").await;
    assert!(matches!(refused, Err(ProposeError::Stopped | ProposeError::OutcomeUnknown)));
    node.shutdown().await;
    drop((node, group));

    disk.power_cut();
    let node = open(&disk).await;
    node.initialize_single(2).await.expect("is made");
    client.check(&node);
    node.shutdown().await;
}

/// A second start of a node whose first one was cut anywhere inside initialization.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_cut_short_is_finished_by_the_next() {
    for operation in 1..60 {
        let disk = sim(operation);
        disk.crash_at(operation);
        if let Some(node) = opened_and_made(&disk).await {
            node.shutdown().await;
        }
        disk.power_cut();
        let node = opened_and_made(&disk).await;
        let node = node.unwrap_or_else(|| panic!("crash at {operation}: not made"));
        let group = node.shard_for(b"alice").expect("here");
        group.propose(vec![claim("alice", 1)]).expect("room").await.expect("applied");
        node.shutdown().await;
    }
}

/// Polls a proposal until it is taken or refused as wanted, and returns what was refused.
async fn until_refused(group: &Group, refused: bool, first: u64) -> Option<Overloaded> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    for number in first.. {
        match (group.propose(vec![enqueue("alice", number, "one more")]), refused) {
            (Err(overloaded), true) => return Some(overloaded),
            (Ok(answer), false) => {
                answer.await.expect("applied");
                return None;
            }
            (Ok(answer), true) => drop(answer.await),
            (Err(_), false) => {}
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_almost_full_disk_refuses_messages_and_takes_what_frees_space() {
    let disk = sim(6);
    let mut options = options(&disk);
    options.log.reserve_bytes = 16 << 20;
    let node = Node::open(options).await.expect("opens");
    node.initialize_single(1).await.expect("made");
    let group = node.shards()[0].clone();
    group.propose(vec![enqueue("alice", 1, "kept")]).expect("room").await.expect("applied");

    disk.set_capacity(Some(disk.used() + (8 << 20)));
    let overloaded = until_refused(&group, true, 1_000).await.expect("refused");
    assert_eq!(overloaded.reason, OverloadReason::DiskReserve);
    let seqs = support::seqs(&group, "alice");
    let ack = support::ack("alice", *seqs.last().expect("one at least"));
    group.propose(vec![ack]).expect("taken into the reserve").await.expect("applied");
    assert!(bodies(&group, "alice").is_empty());

    disk.set_capacity(None);
    until_refused(&group, false, 1_000_000).await;
    assert_eq!(bodies(&group, "alice").len(), 1);
    node.shutdown().await;
}
