//! The store: the engine's own shard and meta group on one log, on simulated files, stepped by hand.

use std::{path::Path, sync::Arc};

use switchboard_api::v1::{self, DeviceRef, SessionInfo};
use switchboard_engine::{
    Command, DeviceId, EndIncarnation, EntryBuilder, EntryPayload, GatewayKind, GroupId, Init,
    InitCluster, LogId, META_GROUP, MessageKind, RegisterGateway, Reply, Rules, Session, Shard,
    ShardOptions,
    fs::sim::SimFiles,
    group_of_shard,
    log::{Log, LogOptions, Record, WriterMode},
};

const SHARD: GroupId = group_of_shard(0);
const SEGMENT_BYTES: u64 = 1 << 20;

pub(super) struct Store {
    log: Log,
    pub(super) shard: Shard,
    pub(super) meta: Shard,
    last: [u64; 2],
    stamp_ms: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        let files: Arc<SimFiles> = Arc::new(SimFiles::new(1));
        let dir = Path::new("/data");
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: SEGMENT_BYTES,
            writer: WriterMode::Stepped,
            ..LogOptions::default()
        };
        let log = Log::open(files.clone(), dir, options).expect("a log");
        let open = |group| {
            let options = ShardOptions::default();
            Shard::open(log.clone(), files.clone(), dir, group, options).expect("a shard")
        };
        let (shard, meta) = (open(SHARD), open(META_GROUP));
        let mut store = Self { log, shard, meta, last: [0, 0], stamp_ms: 1_000_000 };
        let cluster = InitCluster { cluster_id: [1; 16], shards: 1, generation: 0 };
        store.change_meta(&Command::InitCluster(cluster));
        let init = Init { generation: 0, dedup_key: [2; 16], rules: Rules::default() };
        store.change(&Command::Init(init));
        store
    }

    /// Commits one command to the shard and applies it.
    pub(super) fn change(&mut self, command: &Command) -> Reply {
        self.commit(SHARD, command)
    }

    pub(super) fn change_meta(&mut self, command: &Command) -> Reply {
        self.commit(META_GROUP, command)
    }

    /// Gives a gateway its id and a new incarnation.
    pub(super) fn register(&mut self, name: &str) -> (u32, u64) {
        let command = RegisterGateway {
            name: name.to_owned(),
            address: "gateway:1".to_owned(),
            kind: GatewayKind::Gateway,
        };
        match self.change_meta(&Command::RegisterGateway(command)) {
            Reply::Registered(registered) => (registered.gateway_id, registered.incarnation),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn end(&mut self, gateway_id: u32, incarnation: u64) {
        self.change_meta(&Command::EndIncarnation(EndIncarnation { gateway_id, incarnation }));
    }

    /// What a store node does with sessions before it shows them.
    pub(super) fn has_ended(&self, gateway_id: u32, incarnation: u64) -> bool {
        self.meta.meta(|meta| meta.has_ended(gateway_id, incarnation))
    }

    fn commit(&mut self, group: GroupId, command: &Command) -> Reply {
        let last = &mut self.last[usize::from(group == META_GROUP)];
        *last += 1;
        self.stamp_ms += 1;
        let at = LogId { term: 1, index: *last };
        let mut entry = EntryBuilder::new(self.stamp_ms);
        entry.push(command).expect("an entry has room for one command");
        let payload = EntryPayload::Commands(entry.finish());
        let entry = Record::Entry { group, log_id: at, payload: payload.clone() };
        self.log
            .append_wait(vec![entry, Record::Committed { group, log_id: at }])
            .expect("an append");
        let shard = if group == META_GROUP { &self.meta } else { &self.shard };
        shard.apply(at, &payload).expect("an apply").pop().expect("a reply")
    }

    pub(super) fn fetch(&self, device: &DeviceId, request: &v1::FetchRequest) -> v1::FetchResponse {
        let page = self
            .shard
            .fetch(
                device,
                request.after_seq,
                usize::try_from(request.messages_max).expect("a count"),
                usize::try_from(request.bytes_max).expect("a size"),
            )
            .expect("a page");
        let message = |stored: switchboard_engine::StoredMessage| v1::Message {
            message_id: stored.message_id.to_vec().into(),
            from: Some(device_ref(&stored.from)),
            seq: stored.seq,
            enqueued_at_ms: stored.enqueued_at_ms,
            expires_at_ms: stored.expires_at_ms,
            kind: match stored.kind {
                MessageKind::Content => v1::message::Kind::Content.into(),
                MessageKind::Receipt => v1::message::Kind::Receipt.into(),
            },
            body: stored.body,
            prev_seq: stored.prev_seq,
        };
        let messages = page.messages.into_iter().map(message).collect();
        v1::FetchResponse { messages, more: page.more, tail: page.tail }
    }

    /// The seqs that wait.
    pub(super) fn waiting(&self, device: &DeviceId) -> Vec<u64> {
        let page = self.shard.fetch(device, 0, 1_024, usize::MAX).expect("a page");
        page.messages.iter().map(|message| message.seq).collect()
    }
}

pub(super) fn device_ref(device: &DeviceId) -> DeviceRef {
    DeviceRef { user: device.user.clone(), device: device.device.into() }
}

pub(super) fn session_info(session: &Session) -> SessionInfo {
    SessionInfo {
        device: Some(device_ref(&session.device)),
        gateway_id: session.gateway_id,
        incarnation: session.incarnation,
        connection_id: session.connection_id,
        epoch: session.epoch,
        connected_at_ms: session.connected_at_ms,
    }
}
