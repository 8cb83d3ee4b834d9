//! An entry from anywhere: decoded, encoded and decoded again.

use bytes::Bytes;
use switchboard_engine::{
    Command, DeviceId, EndIncarnation, EntryBuilder, EntryReader, GatewayKind, Init, InitCluster,
    Purge, PushError, RaiseFormat, RegisterGateway, Release, Rules, SetNode, SetPlacement, Sweep,
    Unregister,
    command::{DecodedCommand, ENTRY_HEAD_BYTES, RecordHead},
};

use crate::{
    Seed,
    world::{ack, claim, enqueue},
};

/// Entries that hold a command of each kind.
pub fn seeds() -> Vec<Seed> {
    vec![("shard", shard_entry()), ("meta", meta_entry())]
}

/// Checks one entry.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    // A record on its own, as an old file has it.
    let _ = RecordHead::split(payload.clone());
    let Ok(reader) = EntryReader::new(payload.clone()) else { return };
    let (stamp_ms, count) = (reader.stamp_ms(), reader.len());
    let Ok(decoded) = reader.collect::<Result<Vec<_>, _>>() else { return };
    assert_eq!(decoded.len(), count, "as many commands as the head says");

    let mut builder = EntryBuilder::new(stamp_ms);
    let mut encoded_len = ENTRY_HEAD_BYTES;
    for item in &decoded {
        check_record(&payload, item);
        match builder.push(&item.command) {
            Ok(()) => encoded_len += item.command.encoded_len(),
            // What no state can allow is decoded, so that `apply` can refuse it, but not encoded.
            Err(PushError::Refused(status)) => {
                assert_eq!(item.command.check(), Err(status));
                return;
            }
            Err(PushError::Full) => panic!("an entry of {} bytes decoded", data.len()),
        }
    }
    assert_eq!(builder.bytes(), encoded_len, "a command is as long as it says");
    let again = builder.finish();
    assert_eq!(again, payload, "there is one encoding of an entry");
}

/// The record that an enqueue names is where the reference says, and is that of the command.
fn check_record(payload: &Bytes, item: &DecodedCommand) {
    let Command::Enqueue(enqueue) = &item.command else {
        assert_eq!(item.record, None);
        return;
    };
    let found = item.record.expect("an enqueue has a record");
    let start = found.offset as usize;
    let record = payload.slice(start..start + found.len as usize);
    assert_eq!(crc32fast::hash(&record), found.crc);
    let (head, body) = RecordHead::split(record).expect("it was read before");
    assert_eq!((head.message_id, head.from), (enqueue.message_id, enqueue.from.clone()));
    assert_eq!((head.kind, body), (enqueue.kind, enqueue.body.clone()));
}

fn shard_entry() -> Vec<u8> {
    let device = DeviceId::new("ann", 2);
    let mut builder = EntryBuilder::new(1_700_000_000_000);
    let mut push = |command: Command| builder.push(&command).expect("it fits");
    push(Command::Init(Init { generation: 1, dedup_key: [3; 16], rules: Rules::default() }));
    push(Command::SetRules(Rules::default()));
    push(Command::Tick);
    push(claim(&device, 300, b"token"));
    push(Command::Release(Release { device: device.clone(), epoch: 77 }));
    push(Command::Unregister(Unregister { device: device.clone() }));
    let sweep = Sweep { gateway_id: 1, up_to_incarnation: 2, cursor: 3, sessions_max: 4 };
    push(Command::Sweep(sweep));
    push(Command::Enqueue(enqueue(&device, 300, &[5; 200])));
    push(ack(&device, 1 << 40, 1 << 50, vec![1, 300, 1 << 60]));
    push(Command::Purge(Purge { device, reason: Bytes::from_static(b"reason") }));
    builder.finish().to_vec()
}

fn meta_entry() -> Vec<u8> {
    let mut builder = EntryBuilder::new(1_700_000_000_000);
    let mut push = |command: Command| builder.push(&command).expect("it fits");
    push(Command::InitCluster(InitCluster { cluster_id: [1; 16], shards: 16, generation: 0 }));
    let address = "127.0.0.1:7400".to_owned();
    push(Command::SetNode(SetNode { node_id: 1, address: address.clone(), disk_id: [2; 16] }));
    push(Command::SetPlacement(SetPlacement { shard: 1, replicas: vec![1, 2, 3] }));
    let (kind, name) = (GatewayKind::Gateway, "gw".to_owned());
    push(Command::RegisterGateway(RegisterGateway { kind, name, address }));
    push(Command::EndIncarnation(EndIncarnation { gateway_id: 1, incarnation: 2 }));
    push(Command::RaiseFormat(RaiseFormat { to: 2 }));
    builder.finish().to_vec()
}
