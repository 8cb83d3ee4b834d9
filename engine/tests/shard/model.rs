//! Random commands against a model of ordinary maps, on two replicas that checkpoint at different
//! times. A failure names the seed that repeats it.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_engine::{Command, DeviceId, Purge, Reply, Rules, ShardOptions, Status};

use crate::support::{Driver, Replica, ack, claim, claimed, device, enqueue, enqueued, release};

const USERS: u64 = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 12;
const TTL_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// xorshift64*: enough to choose what happens.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

#[derive(Clone)]
struct Waiting {
    seq: u64,
    number: u64,
    expires_at_ms: u64,
}

#[derive(Default)]
struct Model {
    mailboxes: BTreeMap<DeviceId, Vec<Waiting>>,
    sessions: BTreeMap<DeviceId, u64>,
    devices: BTreeMap<String, BTreeSet<u16>>,
    seen: BTreeSet<u64>,
}

impl Model {
    fn devices_of(&self, user: &str) -> BTreeSet<u16> {
        let mut devices = self.devices.get(user).cloned().unwrap_or_default();
        devices.insert(1);
        devices
    }

    fn check(&self, replica: &Replica, now_ms: u64) {
        for user in (0..USERS).map(|n| format!("user-{n}")) {
            let located = replica.shard.locate(user.as_bytes());
            let devices: BTreeSet<u16> = located.devices.iter().copied().collect();
            assert_eq!(devices, self.devices_of(&user));
            for number in devices {
                let device = device(&user, number);
                let session = located.sessions.iter().find(|s| s.device == device);
                assert_eq!(session.map(|s| s.epoch), self.sessions.get(&device).copied());
                self.check_mailbox(replica, &device, now_ms);
            }
        }
    }

    fn check_mailbox(&self, replica: &Replica, device: &DeviceId, now_ms: u64) {
        let waiting = self.mailboxes.get(device).cloned().unwrap_or_default();
        let live: Vec<_> = waiting.iter().filter(|w| w.expires_at_ms > now_ms).collect();
        let page = replica.fetch(device);
        let found: Vec<_> = page.messages.iter().map(|m| (m.seq, m.body.clone())).collect();
        let expected: Vec<_> = live.iter().map(|w| (w.seq, body(w.number))).collect();
        assert_eq!(found, expected, "{device:?}");
        let stat = replica.shard.stat(device);
        let bytes: u64 = expected.iter().map(|(_, body)| body.len() as u64).sum();
        assert_eq!((stat.messages, stat.bytes), (live.len() as u64, bytes));
        assert_eq!(stat.tail, live.last().map_or(0, |w| w.seq));
        assert_eq!(page.tail, stat.tail);
    }
}

fn body(number: u64) -> bytes::Bytes {
    format!("body of {number}").repeat(1 + number as usize % 5).into()
}

#[test]
fn two_replicas_and_a_model_agree_at_every_step() {
    for seed in 1..=SEEDS {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "failed with seed {seed}: run({seed}) repeats it");
    }
}

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let options = ShardOptions { purge_after_checkpoint: true };
    let mut one = Replica::new(seed, options);
    let mut two = Replica::new(seed + 1_000, options);
    // Ids are remembered for the whole run, so that the model needs no clock for them.
    let rules = Rules { dedup_horizon_ms: 365 * TTL_MS, ..Rules::default() };
    let mut driver = Driver::begin(&[&one, &two], rules);
    let mut model = Model::default();
    let mut next_number = 0;
    for _ in 0..STEPS {
        step(&mut random, &mut driver, &[&one, &two], &mut model, &mut next_number);
        match random.below(40) {
            0 => drop(one.shard.checkpoint().expect("checkpoint")),
            1 => one = one.reopened(),
            2 => two = two.reopened(),
            3 if seed.is_multiple_of(2) => drop(two.shard.checkpoint().expect("checkpoint")),
            _ => {}
        }
        assert_eq!(one.shard.state_hash(), two.shard.state_hash());
        model.check(&one, driver.now_ms);
    }
    model.check(&two, driver.now_ms);
}

fn step(
    random: &mut Random,
    driver: &mut Driver,
    replicas: &[&Replica],
    model: &mut Model,
    next_number: &mut u64,
) {
    let user = format!("user-{}", random.below(USERS));
    let devices: Vec<u16> = model.devices_of(&user).into_iter().collect();
    let known = device(&user, devices[random.below(devices.len() as u64) as usize]);
    match random.below(20) {
        0..=8 => {
            let is_repeat = *next_number > 0 && random.below(6) == 0;
            let number = if is_repeat { random.below(*next_number) } else { *next_number };
            *next_number = (*next_number).max(number + 1);
            let to_all = random.below(2) == 0;
            let to_device = if to_all { 0 } else { known.device };
            let command = enqueue(&user, to_device, number, body(number));
            let reply = enqueued(driver.one(replicas, command));
            if !model.seen.insert(number) {
                assert_eq!(reply.status, Status::Duplicate);
                return;
            }
            assert_eq!(reply.status, Status::Ok);
            let targets = if to_all { devices } else { vec![known.device] };
            assert_eq!(reply.stored.iter().map(|s| s.device).collect::<Vec<_>>(), targets);
            for stored in &reply.stored {
                let expires_at_ms = driver.now_ms + TTL_MS;
                let mailbox = model.mailboxes.entry(device(&user, stored.device)).or_default();
                mailbox.retain(|w| w.expires_at_ms > driver.now_ms);
                assert_eq!(stored.prev_seq, mailbox.last().map_or(0, |w| w.seq));
                mailbox.push(Waiting { seq: stored.seq, number, expires_at_ms });
            }
        }
        9..=11 => {
            let claiming = device(&user, 1 + random.below(4) as u16);
            let reply = claimed(driver.one(replicas, claim(&claiming, 1)));
            model.devices.entry(user).or_default().insert(claiming.device);
            let replaced = model.sessions.insert(claiming, reply.epoch);
            assert_eq!(reply.replaced.map(|s| s.epoch), replaced);
        }
        12 => {
            let epoch = model.sessions.get(&known).copied().unwrap_or(1);
            let stale = random.below(3) == 0;
            driver.one(replicas, release(&known, if stale { epoch - 1 } else { epoch }));
            if !stale {
                model.sessions.remove(&known);
            }
        }
        13..=16 => {
            let mailbox = model.mailboxes.entry(known.clone()).or_default();
            let upto = match random.below(3) {
                0 => u64::MAX,
                _ if mailbox.is_empty() => 1,
                _ => mailbox[random.below(mailbox.len() as u64) as usize].seq,
            };
            mailbox.retain(|w| w.seq > upto);
            driver.one(replicas, ack(&known, 0, upto));
        }
        17 => {
            let command = Command::Purge(Purge { device: known.clone(), reason: "test".into() });
            let Reply::Purged(purged) = driver.one(replicas, command) else { panic!("a purge") };
            assert_eq!(purged.status, Status::Ok);
            model.mailboxes.remove(&known);
        }
        _ => {
            driver.now_ms += random.below(TTL_MS / 20);
            driver.one(replicas, Command::Tick);
        }
    }
}
