//! An embedded store beside a reference that applies the same entries.
//!
//! One thread makes the calls, so each call is one entry and at most one entry is in doubt when the
//! machine goes down: after it the store must hash as the reference without that entry, or with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switchboard_engine::fs::Files;
use switchboard_engine::fs::sim::{Random, SimFiles};
use switchboard_engine::{
    Clock, Command, Enqueue, GroupId, Init, LogId, ManualClock, Options, Reply, Rules, Status,
    Store, StoreError, group_of_shard,
};

use crate::aim::Aim;
use crate::reference::{Reference, any_method, payload};
use crate::runs::{Failure, World};
use crate::workload::{Taste, Workload, devices, pause_ms};

const GROUP: GroupId = group_of_shard(0);
const START_MS: u64 = 1_700_000_000_000;

pub(crate) struct StoreWorld {
    disk: SimFiles,
    aim: Aim,
    random: Random,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    reference: Reference,
    applied: u64,
    /// The call whose outcome is open, and the stamp that it has.
    doubtful: Option<(u64, Vec<Command>)>,
    workload: Workload,
}

impl World for StoreWorld {
    fn new(seed: u64) -> Self {
        let disk = SimFiles::new(seed);
        let mut dedup_key = [0; 16];
        disk.fill_random(&mut dedup_key).expect("a disk that is up");
        disk.kill();
        let init = Command::Init(Init { generation: 0, dedup_key, rules: Rules::default() });
        Self {
            disk,
            aim: Aim::new(),
            random: Random::new(seed ^ 0x5eed),
            clock: Arc::new(ManualClock::at_unix_ms(START_MS)),
            store: None,
            reference: Reference::new(GROUP),
            applied: 0,
            doubtful: Some((START_MS, vec![init])),
            workload: Workload::default(),
        }
    }

    fn disk(&self) -> &SimFiles {
        &self.disk
    }

    fn aim(&self) -> &Aim {
        &self.aim
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn open(&mut self) -> Result<(), Failure> {
        let options = Options {
            rules: Rules::default(),
            log: any_method(&mut self.random),
            checkpoint_bytes: 24 * 1024,
            clock: self.clock.clone(),
            files: Arc::new(self.disk.clone()),
        };
        let opened = Store::open(Path::new("/store"), options);
        if self.disk.is_down() {
            return Err(Failure::Down);
        }
        let store = opened.map_err(|error| Failure::wrong(format!("does not open: {error}")))?;
        self.aim.opened();
        if self.doubtful.is_some() && store.state_hash() != self.reference.hash() {
            self.settle();
        }
        self.doubtful = None;
        if store.state_hash() != self.reference.hash() {
            let (found, expected) = (store.state_hash(), self.reference.hash());
            let what = format!("the state is {found:?}, of what was answered {expected:?} is left");
            return Err(Failure::wrong(what));
        }
        self.store = Some(store);
        self.check()
    }

    fn act(&mut self) -> Result<(), Failure> {
        self.clock.advance(Duration::from_millis(pause_ms(&mut self.random)));
        if self.random.one_in(24) {
            let taken = self.store().checkpoint();
            return taken.or_else(|error| self.unless_down(&error));
        }
        let commands =
            self.workload.commands(&self.reference.shard, Taste::Store, &mut self.random);
        self.doubtful = Some((self.clock.unix_ms(), commands.clone()));
        let answers = call(self.store(), &commands);
        match answers {
            Ok(answers) => {
                let expected = self.settle();
                same(&commands, &answers, &expected)
            }
            Err(StoreError::Refused { status }) => {
                let expected = self.settle();
                same(
                    &commands,
                    &[Reply::Done(status)],
                    &expected.iter().map(only_status).collect::<Vec<_>>(),
                )
            }
            Err(error) => self.unless_down(&error),
        }
    }
}

impl StoreWorld {
    fn store(&self) -> &Store {
        self.store.as_ref().expect("opened before it is used")
    }

    /// Applies the call in doubt to the reference.
    fn settle(&mut self) -> Vec<Reply> {
        let Some((stamp_ms, commands)) = self.doubtful.take() else { return Vec::new() };
        self.applied += 1;
        self.reference.apply(LogId::new(1, self.applied), &payload(stamp_ms, &commands))
    }

    fn unless_down(&self, error: &dyn std::error::Error) -> Result<(), Failure> {
        if self.disk.is_down() {
            return Err(Failure::Down);
        }
        Err(Failure::wrong(format!("a call fails though nothing happened: {error}")))
    }

    /// Everybody's sessions and messages, bodies included, as the reference has them.
    fn check(&mut self) -> Result<(), Failure> {
        for device in devices() {
            let (found, expected) =
                (self.store().locate(&device.user), self.reference.shard.locate(&device.user));
            if found != expected {
                let what = format!("{device:?}: {found:?} instead of {expected:?}");
                return Err(Failure::wrong(what));
            }
            // A read writes the time down first, if it is later and something may be due.
            let now_ms = self.clock.unix_ms();
            if now_ms.saturating_sub(self.reference.shard.log_time_ms()) >= 1_000 {
                self.doubtful = Some((now_ms, vec![Command::Tick]));
            }
            let page = match self.store().fetch(&device, 0, 1_024) {
                Ok(page) => page,
                Err(error) => return self.unless_down(&error),
            };
            if self.doubtful.is_some() && self.store().state_hash().0.index > self.applied {
                self.settle();
            }
            self.doubtful = None;
            let expected = self.reference.shard.fetch(&device, 0, 1_024, usize::MAX);
            let expected = expected.expect("the reference reads");
            if page != expected {
                let what = format!("{device:?} gets {page:#?} instead of {expected:#?}");
                return Err(Failure::wrong(what));
            }
        }
        Ok(())
    }
}

fn call(store: &Store, commands: &[Command]) -> Result<Vec<Reply>, StoreError> {
    let Some(first) = commands.first() else { return Ok(Vec::new()) };
    Ok(vec![match first {
        Command::Claim(c) => {
            Reply::Claimed(store.claim(&c.device, c.gateway_id, c.connection_id)?)
        }
        Command::Release(c) => {
            let status =
                if store.release(&c.device, c.epoch)? { Status::Ok } else { Status::Fenced };
            Reply::Done(status)
        }
        Command::Unregister(c) => Reply::Unregistered(store.unregister(&c.device)?),
        Command::Ack(c) => {
            Reply::Acked(store.ack_fenced(&c.device, c.epoch, c.up_to_seq, &c.seqs)?)
        }
        Command::Purge(c) => Reply::Purged(store.purge(&c.device, "crash")?),
        Command::SetRules(rules) => {
            store.set_rules(*rules)?;
            Reply::Done(Status::Ok)
        }
        _ => {
            let item = |command: &Command| match command {
                Command::Enqueue(item) => item.clone(),
                other => unreachable!("a store has no call for {other:?}"),
            };
            let items: Vec<Enqueue> = commands.iter().map(item).collect();
            return Ok(store.enqueue(&items)?.into_iter().map(Reply::Enqueued).collect());
        }
    }])
}

/// Of answers that a store gives as a mere status, no more than that is compared.
fn only_status(reply: &Reply) -> Reply {
    match reply {
        Reply::Released(released) => Reply::Done(released.status),
        Reply::Claimed(claimed) if claimed.status != Status::Ok => Reply::Done(claimed.status),
        other => other.clone(),
    }
}

fn same(commands: &[Command], answers: &[Reply], expected: &[Reply]) -> Result<(), Failure> {
    let expected: Vec<Reply> = expected.iter().map(only_status).collect();
    if *answers == expected {
        return Ok(());
    }
    Err(Failure::wrong(format!("{commands:?}: {answers:?} instead of {expected:?}")))
}
