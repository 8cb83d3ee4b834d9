//! The map against a model of ordinary maps, and readers on other threads against a rule.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{
    SessionRecord,
    state::{Message, Place, encode_user},
};

fn session(gateway_id: u32, number: u64) -> SessionRecord {
    SessionRecord {
        gateway_id,
        incarnation: number % 3,
        connection_id: !number,
        epoch: number,
        connected_at_ms: number,
    }
}

fn form(user: &User) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode_user(&mut bytes, b"", user, None);
    bytes.to_vec()
}

/// Short names, the longest short one, and long ones; few enough to meet again.
fn name(number: u16) -> Vec<u8> {
    let length = [3, 16, 17, 36, 64][usize::from(number % 5)];
    let mut name = vec![b'-'; length];
    name[..2].copy_from_slice(&number.to_be_bytes());
    name
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u16, u16, u32),
    End(u16),
    Push(u16),
    Take(u16),
    Token(u16),
    Odd(u16, u64),
    Drop(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0_u16..400;
    prop_oneof![
        9 => (user.clone(), 1_u16..3, 1_u32..5).prop_map(|(u, d, g)| Step::Claim(u, 1 + d / 2, g)),
        2 => user.clone().prop_map(Step::End),
        4 => user.clone().prop_map(Step::Push),
        3 => user.clone().prop_map(Step::Take),
        1 => user.clone().prop_map(Step::Token),
        1 => (user.clone(), any::<u64>()).prop_map(|(user, ms)| Step::Odd(user, ms)),
        4 => user.prop_map(Step::Drop),
    ]
}

fn change(user: &mut User, step: &Step, number: u64) {
    match *step {
        Step::Claim(_, device, gateway) => {
            let device = user.ensure(device);
            device.session = Some(session(gateway, number));
            device.last_seen_ms = number;
        }
        Step::End(_) => user.devices_mut().iter_mut().for_each(|d| {
            d.end_session(number + 7);
        }),
        Step::Push(_) => {
            let mailbox = &mut user.ensure(1).mailbox;
            let seqs = (mailbox.tail() + 1, mailbox.tail());
            let place = Place::Old { file: 1, offset: 24 };
            mailbox.push(Message::from_parts(seqs, (9, 9), 0, 0, place).expect("a message"));
        }
        Step::Take(_) => {
            user.devices_mut().iter_mut().for_each(|d| {
                d.mailbox.clear();
            });
        }
        Step::Token(_) => user.ensure(1).push_token = Some([1, 2, 3].into()),
        Step::Odd(_, ms) => user.ensure(1).last_seen_ms = ms,
        Step::Drop(_) => *user = User::default(),
    }
}

impl Step {
    fn user(&self) -> u16 {
        match *self {
            Self::Claim(user, ..) | Self::Odd(user, _) => user,
            Self::End(user) | Self::Push(user) | Self::Take(user) => user,
            Self::Token(user) | Self::Drop(user) => user,
        }
    }
}

/// What the region says, with the lock where it says so.
fn primary(map: &UserMap, name: &[u8]) -> Option<SessionRecord> {
    match map.region().look_up(name) {
        Answer::Online(session) => Some(session),
        Answer::Offline => None,
        Answer::Ask => map.read(name, |user| user?.device(1)?.session),
    }
}

fn check(map: &UserMap, model: &BTreeMap<Vec<u8>, User>) {
    let mut seen = BTreeMap::new();
    let (mut totals, mut expected) = (Default::default(), Default::default());
    for index in 0..USER_BUCKETS {
        map.read_bucket(index, |bucket| {
            bucket.each(|name, user| drop(seen.insert(name.to_vec(), form(user))));
            totals = super::super::user::Totals::plus(totals, bucket.totals());
        });
        assert!(map.region().table(index).is_sorted());
    }
    let forms: BTreeMap<_, _> =
        model.iter().map(|(name, user)| (name.clone(), form(user))).collect();
    assert_eq!(seen, forms);
    model.values().for_each(|user| {
        expected = super::super::user::Totals::plus(expected, user.totals());
    });
    assert_eq!(totals, expected);
    assert_eq!(map.totals(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_keeps_users_as_an_ordinary_map_would(
        steps in proptest::collection::vec(step(), 0..1_200),
    ) {
        let (map, mut model) = (UserMap::new(&[3; 16]), BTreeMap::<Vec<u8>, User>::new());
        for (number, step) in steps.iter().enumerate() {
            let (name, number) = (name(step.user()), number as u64 + 1);
            let mut user = model.remove(&name).unwrap_or_default();
            change(&mut user, step, number);
            if !user.prune() {
                model.insert(name.clone(), user);
            }
            map.write(&name, |user| change(user, step, number));
            let kept = model.get(&name);
            prop_assert_eq!(map.read(&name, |user| user.map(form)), kept.map(form));
            let connected = kept.and_then(|user| user.device(1)?.session);
            prop_assert_eq!(primary(&map, &name), connected);
        }
        check(&map, &model);
        let names: Vec<Vec<u8>> = (0..400).map(name).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let mut batch = Vec::new();
        map.region().look_up_batch(&names, |name, answer| batch.push((name.to_vec(), answer)));
        for (name, answer) in batch {
            prop_assert_eq!(answer, map.region().look_up(&name));
        }
    }
}

fn claim(map: &UserMap, name: &[u8], number: u64) {
    map.write(name, |user| {
        let device = user.ensure(1);
        device.session = Some(session(1, number));
        device.last_seen_ms = number;
    });
}

#[test]
fn a_bucket_grows_through_both_sizes_of_blocks_and_gives_them_back() {
    let map = UserMap::new(&[3; 16]);
    let in_first = |n: &u64| map.region().key(&n.to_be_bytes()).bucket == 0;
    let names: Vec<u64> = (0..6_000_000).filter(in_first).collect();
    assert!(names.len() > 5_000);
    names.iter().for_each(|n| claim(&map, &n.to_be_bytes(), *n));
    assert!(map.region().table(0).is_sorted());
    assert!(names.iter().all(|n| primary(&map, &n.to_be_bytes()) == Some(session(1, *n))));
    for n in &names {
        map.write(&n.to_be_bytes(), |user| *user = User::default());
        assert_eq!(primary(&map, &n.to_be_bytes()), None);
    }
    assert_eq!(map.region().table(0).used().count(), 0);
    assert!(map.buckets[0].lock().is_none());
}

/// Every session is written so that its parts belong together, and gateways are replaced all the time.
#[test]
fn readers_never_see_parts_of_two_sessions_while_users_come_and_go() {
    const USERS: u64 = 4_000;
    const ROUNDS: u64 = 12;
    let map = UserMap::new(&[3; 16]);
    let name = |n: u64| [n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes(), n.to_be_bytes()];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (map, is_over) = (&map, &is_over);
            scope.spawn(move || {
                let mut n = thread;
                while !is_over.load(Relaxed) {
                    n = (n + 7) % USERS;
                    let name = name(n);
                    if let Some(found) = primary(map, name.as_flattened()) {
                        assert_eq!(found.connection_id % USERS, n, "of somebody else");
                        let round = found.connection_id / USERS;
                        let parts = (found.epoch, found.connected_at_ms, found.incarnation);
                        assert_eq!(parts, (round + n, round, round), "torn");
                        assert_eq!(u64::from(found.gateway_id), n % 16 + round);
                    }
                }
            });
        }
        for round in 1..=ROUNDS {
            for n in 0..USERS {
                let gone = (n + USERS / 2) % USERS;
                map.write(name(gone).as_flattened(), |user| *user = User::default());
                map.write(name(n).as_flattened(), |user| {
                    let device = user.ensure(1);
                    device.last_seen_ms = round;
                    device.session = Some(SessionRecord {
                        gateway_id: (n % 16 + round) as u32,
                        incarnation: round,
                        connection_id: round * USERS + n,
                        epoch: round + n,
                        connected_at_ms: round,
                    });
                });
            }
        }
        is_over.store(true, Relaxed);
    });
}
