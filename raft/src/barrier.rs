//! Reads that ask for more than what is applied here: one check of leadership for all reads that
//! arrived before it began.
//!
//! A check costs tens of microseconds in openraft (and a round trip to a majority, without a lease),
//! whatever the number of reads behind it. A read must not use a check that began before it
//! arrived, so reads that come during a check wait for the next one.

use std::sync::Arc;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::BarrierError;
use crate::group::GroupRaft;
use crate::planted::{self, PlantedBug};

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever this replica has applied.
    Local,
    /// Everything answered before the read began, as long as no node's clock runs away: the leader
    /// trusts its lease.
    Lease,
    /// Everything answered before the read began: the leader asks a majority.
    Linearizable,
}

type Answer = oneshot::Sender<Result<(), BarrierError>>;

/// The checks of one group and one kind.
pub(crate) struct Barrier {
    raft: GroupRaft,
    option: LinearizerOption,
    /// Guards who waits for the next check, and whether one is running; held to push or take.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: Vec<Answer>,
}

impl Barrier {
    /// Checks by the lease; a stale lease is renewed, which is waited for.
    pub(crate) fn lease(raft: GroupRaft) -> Arc<Self> {
        Self::new(raft, LinearizerOption::new(None, true))
    }

    /// Checks by asking a majority.
    pub(crate) fn read_index(raft: GroupRaft) -> Arc<Self> {
        Self::new(raft, LinearizerOption::new(Some(Duration::ZERO), true))
    }

    fn new(raft: GroupRaft, option: LinearizerOption) -> Arc<Self> {
        Arc::new(Self { raft, option, state: Mutex::default() })
    }

    /// Returns when a check that began after this call has succeeded and everything that it found
    /// committed is applied here.
    pub(crate) async fn pass(self: &Arc<Self>) -> Result<(), BarrierError> {
        if planted::is(PlantedBug::StaleRead) {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut state = self.state.lock();
            state.waiting.push(answer);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(self.clone().run());
        }
        answered.await.unwrap_or(Err(BarrierError::Stopped))
    }

    /// Checks as long as reads wait.
    async fn run(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                state.running = !state.waiting.is_empty();
                std::mem::take(&mut state.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let checked = self.check().await;
            for answer in waiting {
                // A reader that gave up needs no answer.
                let _ = answer.send(checked.clone());
            }
        }
    }

    async fn check(&self) -> Result<(), BarrierError> {
        let linearizer = self.raft.get_read_linearizer(self.option.clone()).await;
        let linearizer = linearizer.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                BarrierError::NotLeader { leader: forward.leader_id }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                BarrierError::NoQuorum
            }
            RaftError::Fatal(_) => BarrierError::Stopped,
        })?;
        let ready = linearizer.await_ready(&self.raft).await;
        ready.map(drop).map_err(|_| BarrierError::Stopped)
    }
}
