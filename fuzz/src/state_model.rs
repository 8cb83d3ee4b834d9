//! Commands of every kind on a shard and on a model of ordinary maps, through checkpoints, restarts,
//! power cuts and moves to another disk.

use bytes::Bytes;
use switchboard_engine::{
    Claim, Command, DeviceId, Enqueue, EntryPayload, Init, LogId, MessageKind, Position, Purge,
    Release, Reply, Rules, Session, Status, Sweep, Unregister,
};

use crate::{
    Seed,
    input::Input,
    model::{Connected, Expected, Model, Waiting},
    world::{START_MS, World, ack, enqueue},
};

const USERS: [&str; 3] = ["ann", "bob", "a user whose name fits no slot that a map has in place"];
const DEVICES: u8 = 4;
const STEPS_MAX: usize = 100;
const CONNECTIONS: u8 = 5;

/// Small limits, so that few bytes reach them.
fn rules(is_tight: bool, drop_oldest: bool) -> Rules {
    Rules {
        mailbox_messages_max: if is_tight { 10 } else { 20 },
        mailbox_bytes_max: if is_tight { 1_000 } else { 4_000 },
        devices_max: 3,
        device_idle_ms: 120_000,
        ttl_ms_max: 100_000,
        dedup_horizon_ms: 8_000,
        dedup_ids_max: 1_000_000,
        drop_oldest,
    }
}

/// Every step once and again, for each user.
pub fn seeds() -> Vec<Seed> {
    let every = |steps: u8| (0..steps).flat_map(|n| [n, n, n / 3, n / 2, n, n % 7]).collect();
    let claims = (0..120_u8).flat_map(|n| [4, n % 3, n % 4, n]).collect();
    vec![("every", every(240)), ("few", every(30)), ("claims", claims)]
}

/// Runs the commands.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::begin(rules(false, false));
    let mut model = Model::new(rules(false, false), START_MS);
    let mut now_ms = START_MS;
    let mut left = STEPS_MAX;
    while !input.is_done() && left > 0 {
        left -= 1;
        let kind = input.u8() % 32;
        match kind {
            0..=24 => {
                world.now_ms = now_ms;
                step(&mut world, &mut model, kind, &mut input);
            }
            25..=27 => now_ms += u64::from(input.u8()) * [10, 100, 1_000][usize::from(kind - 25)],
            28 => drop(world.shard.checkpoint().expect("a checkpoint")),
            29 => {
                let hash = world.shard.state_hash();
                world = world.reopened(input.u8() % 2 == 1).expect("a disk that works");
                assert_eq!(world.shard.state_hash(), hash, "a restart changes nothing");
            }
            30 => world = moved(&world),
            _ => {
                let at = world.shard.applied().expect("it has begun");
                let next = LogId::new(at.term, at.index + 1);
                let payload = EntryPayload::Membership(Bytes::from_static(b"members"));
                world.append(next, payload).expect("a membership");
            }
        }
        check(&world, &model);
        if kind >= 28 {
            check_sums(&world, &model);
        }
    }
    check_sums(&world, &model);
}

/// The same shard on another disk.
fn moved(world: &World) -> World {
    let export = world.export().expect("an export");
    let other = World::begin(rules(true, false));
    other.import(&export).expect("a whole export");
    assert_eq!(other.shard.state_hash(), world.shard.state_hash(), "a move changes nothing");
    other
}

/// One entry of up to three commands.
fn step(world: &mut World, model: &mut Model, kind: u8, input: &mut Input<'_>) {
    let count = 1 + usize::from(kind % 3);
    let commands: Vec<Command> = (0..count).map(|_| command(model, kind, input)).collect();
    let replies = world.propose(&commands);
    assert_eq!(replies.len(), commands.len());
    model.at(world.now_ms);
    let index = world.shard.applied().expect("an entry was applied").index;
    for (place, (command, reply)) in commands.iter().zip(&replies).enumerate() {
        let place = u16::try_from(place).expect("few commands");
        let position = Position::new(model.generation, index, place).expect("small numbers");
        compare(model, position.get(), command, reply);
    }
}

fn command(model: &Model, kind: u8, input: &mut Input<'_>) -> Command {
    let user = USERS[usize::from(input.below(3))];
    let device = DeviceId::new(user, 1 + u16::from(input.below(DEVICES)));
    let known = model.device(&device);
    let choice = input.u8();
    let epoch = match (choice % 4, known.session) {
        (0, _) => 0,
        (1, _) => 1 << 20,
        (_, session) => session.map_or(1, |session| session.epoch),
    };
    let seq = |n: u8| known.mailbox.get(usize::from(n)).map_or(u64::from(n), |w| w.seq);
    match kind {
        0..=9 => {
            let to_all = kind < 3;
            let to = if to_all { DeviceId { device: 0, ..device } } else { device };
            let body = vec![choice; usize::from(input.u8()) * usize::from(1 + kind % 2)];
            let message_kind = if kind == 9 { MessageKind::Receipt } else { MessageKind::Content };
            let ttl_ms = u64::from(input.u8()) * 500;
            let message = enqueue(&to, u64::from(choice), &body);
            Command::Enqueue(Enqueue { ttl_ms, kind: message_kind, ..message })
        }
        10..=14 => Command::Claim(Claim {
            device,
            gateway_id: 1,
            // So that a sweep up to an incarnation ends some of them.
            incarnation: u64::from(choice % CONNECTIONS),
            connection_id: u64::from(choice % CONNECTIONS),
            push_token: Bytes::new(),
        }),
        15..=16 => Command::Release(Release { device, epoch }),
        17 => Command::Unregister(Unregister { device }),
        18..=20 => {
            let up_to_seq = if choice >= 250 { u64::MAX } else { seq(choice / 8) };
            let named = (0..choice % 3).map(|_| seq(input.u8() % 16)).collect();
            ack(&device, epoch, if kind == 20 { 0 } else { up_to_seq }, named)
        }
        21 => Command::Purge(Purge { device, reason: Bytes::from_static(b"fuzz") }),
        22 => Command::Sweep(Sweep {
            gateway_id: 1,
            up_to_incarnation: u64::from(choice % CONNECTIONS),
            cursor: 0,
            sessions_max: 10_000,
        }),
        23 => Command::SetRules(rules(choice % 2 == 1, choice % 4 > 1)),
        _ => {
            let generation = model.generation + u8::from(choice % 4 == 3 && model.generation < 100);
            Command::Init(Init { generation, dedup_key: [1; 16], rules: rules(true, false) })
        }
    }
}

fn compare(model: &mut Model, position: u64, command: &Command, reply: &Reply) {
    match (command, reply) {
        (Command::Enqueue(c), Reply::Enqueued(reply)) => {
            let was_duplicate = reply.status == Status::Duplicate;
            let (status, stored) = match model.enqueue(c, position, was_duplicate) {
                Expected::New(status, stored) => (status, stored),
                Expected::Duplicate(stored) => (Status::Duplicate, stored),
            };
            assert_eq!((reply.status, reply.stored.to_vec()), (status, stored), "{c:?}");
        }
        (Command::Claim(c), Reply::Claimed(reply)) => {
            let expected = model.claim(&c.device, position, c.connection_id);
            let Some((replaced, evicted)) = expected else {
                return assert_eq!(reply.status, Status::Invalid);
            };
            let device = model.device(&c.device);
            assert_eq!((reply.status, reply.epoch), (Status::Ok, position));
            assert_eq!(reply.replaced.as_ref().map(connected), replaced);
            assert_eq!(reply.evicted_device, evicted);
            assert_eq!((reply.tail, reply.backlog), (device.tail(), device.mailbox.len() as u64));
        }
        (Command::Release(c), Reply::Released(reply)) => {
            let ended = model.release(&c.device, c.epoch);
            assert_eq!(reply.session.as_ref().map(connected), ended);
            let is_fenced = ended.is_none() && c.epoch != 0;
            assert_eq!(reply.status == Status::Fenced, is_fenced);
        }
        (Command::Unregister(c), Reply::Unregistered(reply)) => {
            let (session, messages) = model.unregister(&c.device);
            assert_eq!(reply.session.as_ref().map(connected), session);
            // What has expired may be counted until it is dropped.
            assert!(reply.messages >= messages as u64);
        }
        (Command::Ack(c), Reply::Acked(reply)) => {
            let expected = model.ack(&c.device, c.epoch, c.up_to_seq, &c.seqs);
            let answered = (reply.status != Status::Fenced)
                .then_some((reply.removed as usize, reply.ack_floor));
            assert_eq!(answered, expected, "{c:?}");
        }
        (Command::Purge(c), Reply::Purged(reply)) => {
            assert_eq!((reply.messages, reply.bytes), model.purge(&c.device));
        }
        (Command::Sweep(c), Reply::Swept(reply)) => {
            assert_eq!(reply.sessions, model.sweep(c.up_to_incarnation));
            assert_eq!(reply.next_cursor, None);
        }
        (Command::SetRules(rules), Reply::Done(Status::Ok)) => model.rules = *rules,
        (Command::Init(c), Reply::Done(Status::Ok)) => model.generation = c.generation,
        _ => panic!("{reply:?} to {command:?}"),
    }
}

fn connected(session: &Session) -> Connected {
    Connected { epoch: session.epoch, connection_id: session.connection_id }
}

/// A link that reaches back further than all positions of one generation is kept as that long.
fn as_kept(waiting: Waiting) -> Waiting {
    let prev_seq = match waiting.prev_seq {
        0 => 0,
        prev_seq => prev_seq.max(waiting.seq.saturating_sub((1 << 56) - 1)),
    };
    Waiting { prev_seq, ..waiting }
}

/// All that can be read is as the model has it.
fn check(world: &World, model: &Model) {
    for user in USERS {
        let located = world.shard.locate(user.as_bytes());
        assert_eq!(located.devices.to_vec(), model.numbers(&Bytes::from_static(user.as_bytes())));
        for number in 1..=u16::from(DEVICES) {
            let id = DeviceId::new(user, number);
            let expected = model.device(&id);
            let session = located.sessions.iter().find(|session| session.device == id);
            assert_eq!(session.map(connected), expected.session, "{id:?}");
            let page = world.shard.fetch(&id, 0, 1_024, usize::MAX).expect("bodies are there");
            let found = page.messages.iter().map(|m| Waiting {
                seq: m.seq,
                prev_seq: m.prev_seq,
                message_id: m.message_id,
                body: m.body.clone(),
                is_receipt: m.kind == MessageKind::Receipt,
                enqueued_at_ms: m.enqueued_at_ms,
                expires_at_ms: m.expires_at_ms,
            });
            let mailbox = expected.mailbox.iter().cloned().map(as_kept);
            assert_eq!(found.collect::<Vec<_>>(), mailbox.collect::<Vec<_>>(), "{id:?}");
            assert_eq!(page.tail, expected.tail());
            let stat = world.shard.stat(&id);
            assert_eq!((stat.messages, stat.tail), (page.messages.len() as u64, page.tail));
        }
    }
}

/// The sums agree; apart from the rest, because they visit every bucket.
fn check_sums(world: &World, model: &Model) {
    let stats = world.shard.stats();
    assert_eq!(stats.sessions, model.sessions() as u64);
    assert!(stats.messages >= model.messages() as u64);
}
