//! The binary form of entries: fixed by golden bytes, inverse of itself, and never a panic.

use bytes::Bytes;
use proptest::prelude::*;
use switchboard_engine::{
    Ack, BeginMoves, Claim, Command, DeviceId, EndIncarnation, EndMove, Enqueue, EntryBuilder,
    EntryReader, GatewayKind, Init, InitCluster, MessageKind, MoveEnd, MoveStep, NodeState,
    NoteMove, Purge, RaiseFormat, ReadmitNode, RegisterGateway, Release, ReplicaMove, Rules,
    SetNode, SetNodeState, SetPlacement, Sweep, Unregister,
};

fn device() -> impl Strategy<Value = DeviceId> {
    (proptest::collection::vec(any::<u8>(), 1..=64), 1_u16..)
        .prop_map(|(user, device)| DeviceId::new(user, device))
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9:.-]{1,40}"
}

fn command() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![Just(MessageKind::Content), Just(MessageKind::Receipt)];
    prop_oneof![
        (any::<[u8; 16]>(), 0_u8..=127).prop_map(|(dedup_key, generation)| {
            Command::Init(Init { generation, dedup_key, rules: Rules::default() })
        }),
        Just(Command::SetRules(Rules::default())),
        Just(Command::Tick),
        (device(), any::<u32>(), any::<u64>(), any::<u64>(), bytes(512)).prop_map(
            |(device, gateway_id, incarnation, connection_id, push_token)| {
                Command::Claim(Claim { device, gateway_id, incarnation, connection_id, push_token })
            }
        ),
        (device(), any::<u64>())
            .prop_map(|(device, epoch)| Command::Release(Release { device, epoch })),
        device().prop_map(|device| Command::Unregister(Unregister { device })),
        (any::<u32>(), any::<u64>(), any::<u32>(), 1_u32..10_000).prop_map(
            |(gateway_id, up_to_incarnation, cursor, sessions_max)| {
                Command::Sweep(Sweep { gateway_id, up_to_incarnation, cursor, sessions_max })
            }
        ),
        (device(), 0_u16.., any::<[u8; 16]>(), device(), any::<u64>(), kind, bytes(2_000))
            .prop_map(|(to, to_device, message_id, from, ttl_ms, kind, body)| {
                let to_user = to.user;
                Command::Enqueue(Enqueue {
                    to_user,
                    to_device,
                    message_id,
                    from,
                    ttl_ms,
                    kind,
                    body,
                })
            }),
        (device(), any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u64>(), 0..20))
            .prop_map(|(device, epoch, up_to_seq, seqs)| {
                Command::Ack(Ack { device, epoch, up_to_seq, seqs })
            }),
        (device(), bytes(200))
            .prop_map(|(device, reason)| Command::Purge(Purge { device, reason })),
        (any::<[u8; 16]>(), 0_u32..12).prop_map(|(cluster_id, log2)| {
            Command::InitCluster(InitCluster { cluster_id, shards: 1 << log2, generation: 0 })
        }),
        (any::<u64>(), text(), any::<[u8; 16]>()).prop_map(|(node_id, address, disk_id)| {
            Command::SetNode(SetNode { node_id, address, disk_id })
        }),
        (text(), text(), any::<bool>()).prop_map(|(name, address, is_chat)| {
            let kind = if is_chat { GatewayKind::Chat } else { GatewayKind::Gateway };
            Command::RegisterGateway(RegisterGateway { name, address, kind })
        }),
        (any::<u32>(), any::<u64>()).prop_map(|(gateway_id, incarnation)| {
            Command::EndIncarnation(EndIncarnation { gateway_id, incarnation })
        }),
        any::<u32>().prop_map(|to| Command::RaiseFormat(RaiseFormat { to })),
        placement_command(),
    ]
}

fn placement_command() -> impl Strategy<Value = Command> {
    let state =
        prop_oneof![Just(NodeState::Active), Just(NodeState::Draining), Just(NodeState::Removed)];
    let moving = (any::<u32>(), any::<u64>(), any::<u64>())
        .prop_map(|(shard, from, to)| ReplicaMove { shard, from, to });
    prop_oneof![
        (any::<u64>(), state, "[a-z]{0,64}").prop_map(|(node_id, state, zone)| {
            Command::SetNodeState(SetNodeState { node_id, state, zone })
        }),
        (any::<u32>(), proptest::collection::vec(any::<u64>(), 0..9))
            .prop_map(|(shard, replicas)| Command::SetPlacement(SetPlacement { shard, replicas })),
        (any::<u64>(), proptest::collection::vec(moving, 0..9)).prop_map(
            |(placement_version, moves)| {
                Command::BeginMoves(BeginMoves { placement_version, moves })
            }
        ),
        (any::<u32>(), any::<u64>(), "[a-z]{0,99}").prop_map(|(shard, id, stalled)| {
            Command::NoteMove(NoteMove { shard, id, step: MoveStep::Changing, stalled })
        }),
        (any::<u64>(), any::<[u8; 16]>(), any::<bool>()).prop_map(
            |(node_id, disk_id, is_forgotten)| {
                Command::ReadmitNode(ReadmitNode { node_id, disk_id, is_forgotten })
            }
        ),
        (any::<u32>(), any::<u64>()).prop_map(|(shard, id)| {
            Command::EndMove(EndMove { shard, id, end: MoveEnd::Aborted })
        }),
    ]
}

fn read(payload: Bytes) -> Vec<Command> {
    let reader = EntryReader::new(payload).expect("an entry");
    reader.map(|decoded| decoded.expect("a command").command).collect()
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_written(commands in proptest::collection::vec(command(), 1..20)) {
        let mut builder = EntryBuilder::new(1_700_000_000_000);
        for command in &commands {
            let before = builder.bytes();
            builder.push(command).expect("fits");
            prop_assert_eq!(builder.bytes() - before, command.encoded_len());
        }
        prop_assert_eq!(read(builder.finish()), commands);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_never_a_panic(junk in bytes(300)) {
        if let Ok(reader) = EntryReader::new(junk) {
            let _ = reader.collect::<Result<Vec<_>, _>>();
        }
    }

    #[test]
    fn a_damaged_entry_never_panics(
        commands in proptest::collection::vec(command(), 1..5),
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let mut builder = EntryBuilder::new(1);
        for command in &commands {
            builder.push(command).expect("fits");
        }
        let mut damaged = builder.finish().to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= mask;
        if let Ok(reader) = EntryReader::new(damaged.into()) {
            let _ = reader.collect::<Result<Vec<_>, _>>();
        }
    }
}

#[test]
fn an_entry_without_commands_ends_after_its_head() {
    let mut bytes = EntryBuilder::new(1).finish().to_vec();
    assert!(EntryReader::new(bytes.clone().into()).is_ok());
    bytes.push(0);
    assert!(EntryReader::new(bytes.into()).is_err(), "a byte is left over");
}

#[test]
fn version_one_is_these_bytes() {
    let bob = DeviceId::new("bob", 2);
    let commands = [
        Command::Claim(Claim {
            device: bob.clone(),
            gateway_id: 3,
            incarnation: 4,
            connection_id: 5,
            push_token: "t".into(),
        }),
        Command::Enqueue(Enqueue {
            to_user: "bob".into(),
            to_device: 0,
            message_id: [0xAB; 16],
            from: DeviceId::new("al", 1),
            ttl_ms: 6,
            kind: MessageKind::Receipt,
            body: "hi".into(),
        }),
        Command::Ack(Ack { device: bob, epoch: 7, up_to_seq: 8, seqs: vec![9] }),
        Command::Tick,
    ];
    let mut builder = EntryBuilder::new(0x0102_0304);
    for command in &commands {
        builder.push(command).expect("fits");
    }
    let payload = builder.finish();
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = concat!(
        "01",
        "0403020100000000",
        "0400",
        "10",
        "02",
        "03626f62",
        "03000000",
        "0400000000000000",
        "0500000000000000",
        "010074",
        "20",
        "00",
        "03626f62",
        "06",
        "17",
        "01",
        "abababababababababababababababab",
        "01",
        "02616c",
        "6869",
        "21",
        "02",
        "03626f62",
        "07",
        "08",
        "01",
        "09",
        "03",
    );
    assert_eq!(hex, golden);
    assert_eq!(read(payload), commands);
}
