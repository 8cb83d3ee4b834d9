//! A round: clients at work for a while, faults beside them, and a last look at every user.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use switchboard_histories::{Action, History};

use crate::clients::{Client, Gateway, Reads, USERS};
use crate::faults::Faults;
use crate::support::{self, server::Server};

pub(crate) struct Round {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) clients: u64,
    pub(crate) length: Duration,
    /// Where the nodes are.
    pub(crate) at: Vec<String>,
    pub(crate) gateway: Gateway,
    pub(crate) reads: Reads,
}

impl Round {
    pub(crate) async fn run(self, stores: &mut Vec<Server>, faults: Option<Faults>) -> History {
        // A lock, because all clients write to it: the order of its holders is the order of moments.
        let history = Arc::new(Mutex::new(History::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let running: Vec<_> = (1..=self.clients)
            .map(|id| {
                let client = self.client(id, &history);
                tokio::spawn(client.run(stop.clone()))
            })
            .collect();
        match faults {
            None => tokio::time::sleep(self.length).await,
            Some(faults) => {
                let (mut own, until) = (std::mem::take(stores), Instant::now() + self.length);
                let making = tokio::task::spawn_blocking(move || {
                    faults.make(&mut own, until);
                    own
                });
                *stores = making.await.expect("the faults are healed");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for client in running {
            client.await.expect("a client ends in order");
        }
        self.last_look(&history).await;
        Arc::into_inner(history).expect("all clients have ended").into_inner()
    }

    fn client(&self, id: u64, history: &Arc<Mutex<History>>) -> Client {
        let history = history.clone();
        Client::new(self.number, id, self.seed, &self.at, self.gateway, self.reads, history)
    }

    /// Reads what is left of every user: a write of which nobody heard shows here if it was made.
    async fn last_look(&self, history: &Arc<Mutex<History>>) {
        let mut client = self.client(self.clients + 1, history);
        let deadline = Instant::now() + support::DEADLINE;
        for user in 0..USERS {
            for action in [Action::Fetch, Action::Locate] {
                while !client.operate(user, action.clone()).await {
                    assert!(Instant::now() < deadline, "user {user} cannot be read any more");
                }
            }
        }
    }
}

/// Writes a history that no order explains to a file, if there is a directory for it.
pub(crate) fn keep(history: &History, round: u64) -> String {
    let Some(dir) = std::env::var_os("SWITCHBOARD_TEST_LOGS") else { return String::new() };
    let path = Path::new(&dir).join(format!("history-{round}.txt"));
    let lines = history.operations.iter().map(|operation| format!("{operation:?}\n"));
    match std::fs::write(&path, lines.collect::<String>()) {
        Ok(()) => format!("\nthe history is in {}", path.display()),
        Err(error) => format!("\nthe history could not be kept: {error}"),
    }
}
