//! One node as a process on a machine: a disk and a clock that stay, and a life that ends at any
//! moment.
//!
//! Each life has a runtime of its own, on the world's one thread, with paused time that moves only
//! when the world steps it. Ending a life drops the runtime: every task is gone, wherever it stood,
//! and none of them can touch the disk any more.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use switchboard_engine::GroupId;
use switchboard_engine::fs::Files;
use switchboard_engine::fs::sim::{Random, SimFiles};
use switchboard_engine::log::{Log, LogStep, WriterMode};
use switchboard_raft::simulation::hands;
use switchboard_raft::{Node, NodeId, NodeOptions};
use tokio::runtime::{Builder, Runtime};

use crate::clock::{NodeClock, Time};
use crate::net::{Net, SimTransport};

/// How much a step moves time on.
pub const STEP_MS: u64 = 1;

const DATA_DIR: &str = "/data";

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process dies; what it wrote stays in the page cache.
    Kill,
    /// The machine loses power: what was not synced is lost, torn or kept by chance.
    PowerCut,
}

/// What becomes of opening a node.
type Opened = Arc<Mutex<Option<Result<Node, String>>>>;

pub struct Process {
    pub id: NodeId,
    pub clock: NodeClock,
    pub disk: SimFiles,
    /// Milliseconds that the slowest sync takes.
    pub sync_ms_max: Arc<Mutex<u64>>,
    /// When to start again, while it is down.
    pub starts_at_ms: Option<u64>,
    pub lives: u64,
    groups: Vec<GroupId>,
    net: Net,
    seed: u64,
    life: Option<Life>,
}

struct Life {
    runtime: Runtime,
    opened: Opened,
}

impl Process {
    pub fn new(id: NodeId, seed: u64, time: &Time, net: &Net, groups: &[GroupId]) -> Self {
        Self {
            id,
            clock: NodeClock::new(time.clone()),
            disk: SimFiles::new(seed),
            sync_ms_max: Arc::new(Mutex::new(2)),
            starts_at_ms: Some(0),
            lives: 0,
            groups: groups.to_vec(),
            net: net.clone(),
            seed,
            life: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// The node, once it is open.
    pub fn node(&self) -> Option<Node> {
        self.life.as_ref()?.opened.lock().as_ref()?.as_ref().ok().cloned()
    }

    /// Why the node could not be opened, on a disk that works.
    pub fn refusal(&self) -> Option<String> {
        let refused = self.life.as_ref()?.opened.lock().as_ref()?.as_ref().err().cloned();
        refused.filter(|_| !self.disk.is_down())
    }

    fn options(&self) -> NodeOptions {
        let mut options = NodeOptions::new(DATA_DIR, self.id, format!("node-{}", self.id));
        options.files = Arc::new(self.disk.clone());
        options.clock = Arc::new(self.clock.clone());
        options.transport = Arc::new(SimTransport { net: self.net.clone(), from: self.id });
        options.log.segment_bytes = switchboard_raft::limits::SEGMENT_BYTES_MIN;
        options.log.writer = WriterMode::Stepped;
        // Small, so that the checkpointer has something to do.
        options.checkpoint_bytes = 256 << 10;
        options
    }

    pub fn start(&mut self) {
        self.starts_at_ms = None;
        self.lives += 1;
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads or sockets");
        let opened = Opened::default();
        let writer = (Random::new(self.seed ^ self.lives << 32), self.sync_ms_max.clone());
        let (options, groups) = (self.options(), self.groups.clone());
        let slot = opened.clone();
        runtime.spawn(async move {
            let node = Node::open(options).await.map_err(|error| format!("{error:?}"));
            if let Ok(node) = &node {
                for group in groups {
                    // It fails when the disk does, which ends this life.
                    let _ = hands::open_group(node, group).await;
                }
                tokio::spawn(write(node.log().clone(), writer.0, writer.1));
            }
            *slot.lock() = Some(node);
        });
        self.life = Some(Life { runtime, opened });
    }

    /// Lets the node run for a step.
    pub fn step(&self) {
        let Some(life) = &self.life else { return };
        let step = async { tokio::time::sleep(Duration::from_millis(STEP_MS)).await };
        life.runtime.block_on(step);
    }

    /// Runs something in the process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(life) = &self.life {
            life.runtime.spawn(task);
        }
    }

    /// Ends this life, to begin the next one at a time.
    pub fn end(&mut self, end: End, starts_at_ms: u64) {
        self.starts_at_ms = Some(starts_at_ms);
        let Some(life) = self.life.take() else { return };
        if !self.disk.is_down() {
            // The disk goes first: no destructor of a dead process may tidy up.
            self.disk.crash_at(self.disk.operations() + 1);
            let _ = self.disk.sync_dir(Path::new(DATA_DIR));
        }
        drop(life.runtime);
        drop(life.opened);
        match end {
            End::Kill => self.disk.kill(),
            End::PowerCut => self.disk.power_cut(),
        }
    }
}

/// The log's writer: it lets a while pass before each sync, so that a crash finds entries that other
/// nodes have and the own disk has not.
async fn write(log: Log, mut random: Random, sync_ms_max: Arc<Mutex<u64>>) {
    let mut idle = 0;
    loop {
        let pause = 1 + random.below(*sync_ms_max.lock());
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match log.step() {
            LogStep::Wrote => idle = 0,
            LogStep::Idle => idle += 1,
            LogStep::Stalled => {}
            LogStep::Closed => return,
        }
        if idle == 5 {
            log.step_silence();
        }
    }
}
