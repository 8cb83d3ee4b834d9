//! One log on two shards that take checkpoints, restart and rewrite at different times: the same answers
//! and the same state hash at every index. Every family of commands is in it.

use bytes::Bytes;
use switchboard_engine::fs::sim::Random;
use switchboard_engine::{
    Ack, Claim, Command, DeviceId, EndIncarnation, Enqueue, GatewayKind, Init, InitCluster,
    META_GROUP, MessageKind, Purge, RegisterGateway, Release, Rules, SetNode, ShardOptions, Sweep,
    Unregister,
};

use crate::support::{Driver, Replica, id};

const STEPS: usize = 500;

#[test]
fn a_shard_is_what_its_log_says_whenever_it_takes_checkpoints() {
    for seed in 1..=6 {
        let options = ShardOptions { purge_after_checkpoint: true };
        let pair = (Replica::new(seed, options), Replica::new(seed + 100, options));
        run(seed, pair, any_command);
    }
}

#[test]
fn the_meta_group_is_what_its_log_says_whenever_it_takes_checkpoints() {
    for seed in 1..=3 {
        let pair = (Replica::of_group(seed, META_GROUP), Replica::of_group(seed + 100, META_GROUP));
        run(seed, pair, any_meta_command);
    }
}

fn run(seed: u64, pair: (Replica, Replica), command: fn(&mut Random) -> Command) {
    let (mut often, mut seldom) = pair;
    let (mut random, mut driver) = (Random::new(seed), Driver::new());
    for step in 0..STEPS {
        driver.now_ms += match random.below(20) {
            0 => random.below(86_400_000),
            1..=5 => random.below(60_000),
            _ => random.below(50),
        };
        let commands: Vec<Command> =
            (0..1 + random.below(4)).map(|_| command(&mut random)).collect();
        // That the answers are equal is checked here.
        driver.propose(&[&often, &seldom], &commands);
        match random.below(12) {
            0 => drop(often.shard.checkpoint().expect("checkpoint")),
            1 => often = often.reopened(),
            2 if step % 5 == 0 => drop(seldom.shard.checkpoint().expect("checkpoint")),
            3 if step % 7 == 0 => seldom = seldom.after_power_cut(),
            _ => {}
        }
        let hashes = (often.shard.state_hash(), seldom.shard.state_hash());
        assert_eq!(hashes.0, hashes.1, "seed {seed}, step {step}, after {commands:?}");
    }
}

fn any_device(random: &mut Random) -> DeviceId {
    DeviceId::new(format!("user-{}", random.below(6)), 1 + random.below(5) as u16)
}

fn rules(random: &mut Random) -> Rules {
    Rules {
        mailbox_messages_max: 10 + random.below(30) as u32,
        mailbox_bytes_max: 1_000 + random.below(100_000),
        devices_max: 1 + random.below(4) as u16,
        ttl_ms_max: 1 + random.below(2_000_000_000),
        dedup_horizon_ms: 1 + random.below(3_600_000),
        dedup_ids_max: 8 + random.below(100) as u32,
        ..Rules::default()
    }
}

fn any_command(random: &mut Random) -> Command {
    let device = any_device(random);
    match random.below(30) {
        0 => Command::Init(Init {
            generation: random.below(4) as u8,
            dedup_key: [7; 16],
            rules: Rules::default(),
        }),
        1 => Command::SetRules(rules(random)),
        2 => Command::Tick,
        3 => Command::Sweep(Sweep {
            gateway_id: random.below(3) as u32,
            up_to_incarnation: random.below(4),
            cursor: 0,
            sessions_max: 1 + random.below(4) as u32,
        }),
        4 => Command::Unregister(Unregister { device }),
        5 => Command::Purge(Purge { device, reason: Bytes::from_static(b"test") }),
        6 | 7 => Command::Release(Release { device, epoch: 0 }),
        8..=12 => Command::Claim(Claim {
            device,
            gateway_id: random.below(3) as u32,
            incarnation: random.below(4),
            connection_id: random.next(),
            push_token: Bytes::from(vec![1; random.below(9) as usize]),
        }),
        13..=17 => Command::Ack(Ack {
            device,
            epoch: 0,
            up_to_seq: if random.one_in(2) { u64::MAX } else { random.below(500) << 16 },
            seqs: (0..random.below(4)).map(|_| random.below(500) << 16).collect(),
        }),
        _ => Command::Enqueue(Enqueue {
            to_user: device.user,
            to_device: if random.one_in(2) { 0 } else { device.device },
            message_id: id(random.below(3_000)),
            from: DeviceId::new("sender", 1 + random.below(2) as u16),
            ttl_ms: random.below(3) * random.below(200_000_000),
            kind: if random.one_in(5) { MessageKind::Receipt } else { MessageKind::Content },
            body: Bytes::from(vec![3; random.below(400) as usize]),
        }),
    }
}

fn any_meta_command(random: &mut Random) -> Command {
    let number = random.below(5);
    match random.below(6) {
        0 => Command::InitCluster(InitCluster { cluster_id: [1; 16], shards: 16, generation: 0 }),
        1 => Command::SetNode(SetNode {
            node_id: number,
            address: format!("node-{}:1", random.below(9)),
            disk_id: [number as u8; 16],
        }),
        2 | 3 => Command::RegisterGateway(RegisterGateway {
            name: format!("name-{number}"),
            address: "host:1".to_owned(),
            kind: if random.one_in(2) { GatewayKind::Chat } else { GatewayKind::Gateway },
        }),
        4 => Command::EndIncarnation(EndIncarnation {
            gateway_id: number as u32,
            incarnation: random.below(100) << 16,
        }),
        _ => Command::Tick,
    }
}
