//! openraft's own storage suite against the real log store and state machine.

use std::path::Path;
use std::sync::Arc;

use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{ErrorSubject, ErrorVerb, StorageError, ToStorageResult};
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::{Log, LogOptions};
use switchboard_engine::{ManualClock, Shard, ShardOptions};

use crate::clocks::Clocks;
use crate::log_store::LogStore;
use crate::log_time::LogTime;
use crate::snapshot::SnapshotDir;
use crate::state_machine::{News, StateMachine};
use crate::types::TypeConfig;

/// A fresh disk in memory for each test of the suite.
struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let built = build().map_err(std::io::Error::other);
        let (store, machine) = built.sto_res(|| (ErrorSubject::Store, ErrorVerb::Read))?;
        Ok(((), store, machine))
    }
}

fn build() -> Result<(LogStore, StateMachine), Box<dyn std::error::Error + Send + Sync>> {
    let files = Arc::new(SimFiles::new(1));
    let dir = Path::new("/data");
    let small = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let log = Log::open(files.clone(), dir, small)?;
    let shard = Shard::open(log.clone(), files.clone(), dir, 1, ShardOptions::default())?;
    let clock = Arc::new(ManualClock::at_unix_ms(1_000));
    let log_time = Arc::new(LogTime::new(Arc::new(Clocks::alone(clock)), 0));
    let news = Arc::new(News::new(log_time, None, None));
    let snapshots = SnapshotDir::open(files, dir)?;
    Ok((LogStore::new(log, 1)?, StateMachine::new(Arc::new(shard), news, snapshots)))
}

#[tokio::test]
async fn openrafts_storage_suite() {
    Suite::test_all(Builder).await.expect("the suite passes");
}
