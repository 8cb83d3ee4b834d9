//! Random commands over a few users, so that they meet each other.

use bytes::Bytes;
use switchboard_engine::fs::sim::Random;
use switchboard_engine::{
    Ack, Claim, Command, DeviceId, Enqueue, MessageKind, Purge, Release, Rules, Shard, Sweep,
    Unregister,
};

const USERS: u64 = 5;
const DEVICES: u64 = 3;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Which commands may come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taste {
    /// What an embedded store has calls for.
    Store,
    /// All that a shard takes.
    Shard,
}

/// Makes commands; knows which message ids it has used.
#[derive(Default)]
pub(crate) struct Workload {
    next_message: u64,
}

impl Workload {
    /// What one call does: several messages, or one command of another kind.
    pub(crate) fn commands(
        &mut self,
        shard: &Shard,
        taste: Taste,
        random: &mut Random,
    ) -> Vec<Command> {
        let device = any_device(random);
        let one = match random.below(24) {
            0..=10 => {
                let count = 1 + random.below(3);
                return (0..count).map(|_| self.enqueue(random)).collect();
            }
            11..=15 => ack(shard, device, random),
            16..=18 => Command::Claim(Claim {
                device,
                gateway_id: 1 + random.below(2) as u32,
                incarnation: if taste == Taste::Store { 0 } else { random.below(3) },
                connection_id: random.below(100),
                push_token: if taste == Taste::Store { Bytes::new() } else { bytes(random, 20) },
            }),
            19 => {
                let located = shard.locate(&device.user);
                let session = located.sessions.iter().find(|s| s.device == device);
                let epoch = session.map_or(0, |session| session.epoch);
                Command::Release(Release {
                    device,
                    epoch: if random.one_in(4) { 7 } else { epoch },
                })
            }
            20 if random.one_in(2) => Command::Unregister(Unregister { device }),
            21 if random.one_in(2) => {
                Command::Purge(Purge { device, reason: Bytes::from_static(b"crash") })
            }
            22 if random.one_in(3) => Command::SetRules(Rules {
                mailbox_messages_max: 10 + random.below(40) as u32,
                dedup_horizon_ms: 1_000 * (1 + random.below(600)),
                dedup_ids_max: 8 + random.below(200) as u32,
                ..Rules::default()
            }),
            23 if taste == Taste::Shard => Command::Sweep(Sweep {
                gateway_id: 1,
                up_to_incarnation: random.below(3),
                cursor: 0,
                sessions_max: 2,
            }),
            _ => self.enqueue(random),
        };
        vec![one]
    }

    fn enqueue(&mut self, random: &mut Random) -> Command {
        let to = any_device(random);
        let is_repeat = self.next_message > 0 && random.one_in(8);
        let number = if is_repeat { random.below(self.next_message) } else { self.next_message };
        self.next_message = self.next_message.max(number + 1);
        let ttl_ms = match random.below(4) {
            0 => 1 + random.below(5_000),
            1 => DAY_MS + random.below(DAY_MS),
            _ => 0,
        };
        let bytes_max = if random.one_in(12) { 2_400 } else { 300 };
        let is_content = !random.one_in(6);
        Command::Enqueue(Enqueue {
            to_user: to.user,
            to_device: if random.one_in(3) { 0 } else { to.device },
            message_id: (u128::from(number) + 1).to_le_bytes(),
            from: DeviceId::new("sender", 1),
            ttl_ms,
            kind: if is_content { MessageKind::Content } else { MessageKind::Receipt },
            body: bytes(random, bytes_max),
        })
    }
}

fn ack(shard: &Shard, device: DeviceId, random: &mut Random) -> Command {
    let page = shard.fetch(&device, 0, 64, usize::MAX).expect("the reference reads");
    let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
    let any = |random: &mut Random| seqs.get(random.below(seqs.len() as u64) as usize).copied();
    let epoch = if random.one_in(8) { 3 } else { 0 };
    let (up_to_seq, named) = match random.below(4) {
        0 => (u64::MAX, Vec::new()),
        1 => (any(random).unwrap_or(0), Vec::new()),
        _ => (0, (0..3).filter_map(|_| any(random)).collect()),
    };
    Command::Ack(Ack { device, epoch, up_to_seq, seqs: named })
}

fn bytes(random: &mut Random, max: u64) -> Bytes {
    let len = random.below(max) as usize;
    Bytes::from(vec![random.next() as u8; len])
}

fn any_device(random: &mut Random) -> DeviceId {
    let user = format!("user-{}", random.below(USERS));
    DeviceId::new(user, 1 + random.below(DEVICES) as u16)
}

/// Every user and device that there can be.
pub(crate) fn devices() -> impl Iterator<Item = DeviceId> {
    (0..USERS).flat_map(|user| {
        (1..=DEVICES).map(move |device| DeviceId::new(format!("user-{user}"), device as u16))
    })
}

/// How far time moves between two calls: mostly little, sometimes over the end of a day.
pub(crate) fn pause_ms(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => DAY_MS / 2,
        1..=3 => random.below(60_000),
        4..=15 => random.below(1_500),
        _ => 0,
    }
}
