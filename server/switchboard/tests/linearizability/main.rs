//! Concurrent clients of three store processes, each asking any of them, record what they did to three
//! users and what they were told, while nodes are killed, stand still for a while, are restarted in
//! order or are cut off. Afterwards there must be an order in which one server, doing one thing at a
//! time, could have told them so.
//!
//! How much is chosen by the environment (`scripts/linearizability` sets it): `SWITCHBOARD_TEST_ROUNDS`
//! (1), each with users and a history of its own; `SWITCHBOARD_TEST_ROUND_MS` (5,000);
//! `SWITCHBOARD_TEST_CLIENTS` (6); `SWITCHBOARD_TEST_NETNS` puts the nodes into network namespaces, so
//! that they can be cut off (as root). `PLANTED_BUG` reaches the stores: where it is set, a history
//! must be found that no order explains.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod faults;
mod round;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use support::server::{Server, addresses, cluster_with, environment};
use switchboard_api::v1::register_request::Kind;
use switchboard_histories::{History, Verdict, check};
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};

use clients::{Gateway, Reads, USERS};
use faults::Faults;
use round::Round;

const SHARDS: u32 = 4;

/// The gateway must stay the same one however long faults keep it from the stores: what becomes of the
/// sessions of an ended one is tested elsewhere.
const SETTINGS: &str = "lease_ms = 600000\n";

/// A gateway for the sessions to be at, kept up to date in the background.
async fn register(at: &[String]) -> (Registration, Gateway) {
    let client = Client::connect(at, ClientOptions::default()).expect("addresses");
    client.ready(support::DEADLINE).await.expect("a cluster");
    let registration =
        Registration::start(client, "gateway-1", "127.0.0.1:9", Kind::Gateway, Load::default)
            .expect("a sound name");
    let mut lease = registration.lease();
    let held = tokio::time::timeout(support::DEADLINE, lease.wait_for(Lease::is_held)).await;
    let held = *held.expect("a registration in time").expect("it goes on");
    (registration, Gateway { id: held.gateway_id, incarnation: held.incarnation })
}

/// The cluster and what its clients need.
struct World {
    seed: u64,
    stores: Vec<Server>,
    at: Vec<String>,
    registration: Registration,
    gateway: Gateway,
}

impl World {
    async fn start() -> (tempfile::TempDir, Self) {
        let seed = environment("SWITCHBOARD_TEST_SEED", u64::from(std::process::id()));
        eprintln!("seed {seed} (SWITCHBOARD_TEST_SEED)");
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_owned();
        let start = move || cluster_with(SETTINGS, &data, SHARDS, &mut StdRng::seed_from_u64(seed));
        let stores = tokio::task::spawn_blocking(start).await.expect("a cluster starts");
        let at: Vec<String> = addresses(&stores).split(',').map(str::to_owned).collect();
        let (registration, gateway) = register(&at).await;
        (dir, Self { seed, stores, at, registration, gateway })
    }

    async fn round(&mut self, number: u64, reads: Reads, faults: Option<Faults>) -> History {
        let round = Round {
            number,
            seed: self.seed.wrapping_add(number),
            clients: environment("SWITCHBOARD_TEST_CLIENTS", 6),
            length: Duration::from_millis(environment("SWITCHBOARD_TEST_ROUND_MS", 5_000)),
            at: self.at.clone(),
            gateway: self.gateway,
            reads,
        };
        let history = round.run(&mut self.stores, faults).await;
        let lease = *self.registration.lease().borrow();
        // Sessions at an ended incarnation are not shown, which the model knows nothing of.
        assert_eq!(lease.incarnation, self.gateway.incarnation, "the gateway's lease was lost");
        history
    }
}

/// What the histories of all users say; the undecided are counted.
fn verdict(history: &History) -> Result<usize, String> {
    let mut undecided = 0;
    for user in 0..USERS {
        match check(history, user) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Violated(how) => return Err(format!("user {user} {how}")),
        }
    }
    Ok(undecided)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_one_server_while_nodes_die_and_stand_still() {
    let rounds: u64 = environment("SWITCHBOARD_TEST_ROUNDS", 1);
    let planted = std::env::var_os("PLANTED_BUG").is_some();
    let (_dir, mut world) = World::start().await;
    let (mut operations, mut unknown, mut undecided) = (0, 0, 0);
    for number in 1..=rounds {
        let faults = Faults::new(world.seed.wrapping_add(number));
        let history = world.round(number, Reads::Fresh, Some(faults)).await;
        let verdict = match verdict(&history) {
            Ok(verdict) => verdict,
            Err(how) if planted => {
                eprintln!("round {number}: the planted bug was found: {how}");
                return;
            }
            Err(how) => {
                let kept = round::keep(&history, number);
                panic!("seed {}, round {number}: {how}{kept}", world.seed)
            }
        };
        operations += history.operations.len();
        unknown += history.unknown();
        undecided += verdict;
        eprintln!(
            "round {number}: {operations} operations, {unknown} unknown, {undecided} undecided"
        );
    }
    assert!(!planted, "the planted bug was not found in {operations} operations");
    eprintln!("{rounds} rounds: {operations} operations, {unknown} unknown, {undecided} undecided");
    assert!(undecided as u64 <= rounds / 10, "{undecided} histories were too hard to check");
}

/// The test of the test: what a replica that follows shows is no answer to who asked for the newest.
/// How far the followers are behind is chance, so that it goes on until one was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_any_replica_that_pass_for_fresh_ones_are_found() {
    let (_dir, mut world) = World::start().await;
    let started = Instant::now();
    let mut operations = 0;
    for number in 1.. {
        let history = world.round(number, Reads::OfAnyReplica, None).await;
        operations += history.operations.len();
        if let Err(how) = verdict(&history) {
            eprintln!("round {number}, {operations} operations: {how}");
            return;
        }
        let late = started.elapsed() > support::DEADLINE;
        assert!(!late, "{operations} operations and no stale read among them");
    }
}
