//! The binary form of a user and of the meta state, as checkpoints, exports and the state hash use it.
//!
//! A user is written with or without the places of its messages: places differ from replica to replica,
//! everything else may not. Reading checks every field, for the bytes come from a disk or a peer.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    mailbox::Mailbox,
    message::{Message, Place},
    meta::{ClusterInfo, FORMAT_FIRST, GatewayInfo, MetaState, NodeInfo},
    placement::{decode_placement, encode_placement},
    user::{Device, SessionRecord, User},
};
use crate::{
    PRIMARY_DEVICE,
    codec::{DecodeError, Reader, put_count, put_medium, put_short},
    command::GatewayKind,
    limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, PUSH_TOKEN_BYTES_MAX},
};

const SESSION: u8 = 1;
const TOKEN: u8 = 2;
const MESSAGES: u8 = 4;
/// The time last seen is not that of the session's beginning, so it is written.
const SEEN: u8 = 8;
/// Not the primary device alone: a count follows, then number and form of each device.
const SEVERAL: u8 = 0x80;

/// Whether the meta state has a cluster: none yet; one in the first format; one that was raised to another
/// format, which follows.
const NO_CLUSTER: u8 = 0;
const CLUSTER: u8 = 1;
const RAISED: u8 = 2;

/// Bytes of a session.
const SESSION_BYTES: usize = 4 * 8 + 4;
/// Bytes of a message's place.
const PLACE_BYTES: usize = 8;

/// Told of each message that was appended, and where its place stands.
pub(crate) type Placed<'a> = &'a mut dyn FnMut(&Message, usize);

/// Appends a user. With `placed`, messages have their places, as they are: the caller puts right those
/// that have no meaning on disk (see [`put_place`]).
pub(crate) fn encode_user(
    out: &mut BytesMut,
    name: &[u8],
    user: &User,
    mut placed: Option<Placed<'_>>,
) {
    put_short(out, name);
    if let [device] = user.devices()
        && device.number == PRIMARY_DEVICE
    {
        return encode_device(out, device, &mut placed);
    }
    out.put_u8(SEVERAL);
    put_count(out, user.devices().len());
    for device in user.devices() {
        out.put_u16_le(device.number);
        encode_device(out, device, &mut placed);
    }
}

fn encode_device(out: &mut BytesMut, device: &Device, placed: &mut Option<Placed<'_>>) {
    let begun_ms = device.session.map(|session| session.connected_at_ms);
    let has_seen = begun_ms != Some(device.last_seen_ms);
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    out.put_u8(
        flag(device.session.is_some(), SESSION)
            | flag(device.push_token.is_some(), TOKEN)
            | flag(!device.mailbox.is_empty(), MESSAGES)
            | flag(has_seen, SEEN),
    );
    if let Some(session) = &device.session {
        out.put_u64_le(session.epoch);
        out.put_u64_le(session.connection_id);
        out.put_u64_le(session.connected_at_ms);
        out.put_u64_le(session.incarnation);
        out.put_u32_le(session.gateway_id);
    }
    if has_seen {
        out.put_u64_le(device.last_seen_ms);
    }
    if let Some(token) = &device.push_token {
        put_medium(out, token);
    }
    if device.mailbox.is_empty() {
        return;
    }
    put_count(out, device.mailbox.len());
    for message in device.mailbox.iter() {
        encode_message(out, message);
        if let Some(placed) = placed {
            placed(message, out.len());
            encode_place(out, message.place());
        }
    }
}

fn encode_message(out: &mut BytesMut, message: &Message) {
    out.put_u64_le(message.seq);
    out.put_u64_le(message.prev_seq());
    out.put_u64_le(message.expires_at_ms());
    out.put_u32_le(message.ttl_ms);
    out.put_u32_le(message.crc);
    out.put_u32_le(message.shape());
}

fn encode_place(out: &mut BytesMut, place: Place) {
    let (file, offset) = match place {
        // A young place has no form on disk: a checkpoint moves what is young.
        Place::Young { .. } => (0, 0),
        Place::Old { file, offset } => (file, offset),
        Place::Gone => (u32::MAX, 0),
    };
    out.put_u32_le(file);
    out.put_u32_le(offset);
}

/// Writes the place of the message of which [`encode_user`] said that it stands `at` there.
pub(crate) fn put_place(bytes: &mut BytesMut, at: usize, place: Place) {
    let mut encoded = BytesMut::with_capacity(PLACE_BYTES);
    encode_place(&mut encoded, place);
    if let Some(bytes) = bytes.get_mut(at..at + PLACE_BYTES) {
        bytes.copy_from_slice(&encoded);
    }
}

/// What is expected of users beyond what their bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Messages have places; without one they are `Gone` until they get one.
    pub(crate) with_places: bool,
    /// No epoch and no seq is above this position.
    pub(crate) last_position: u64,
}

/// A user as a file has it.
#[derive(Debug)]
pub(crate) enum Described {
    /// The usual one: a session of the primary device, last seen when it began, and nothing else.
    Online(SessionRecord),
    /// Any other.
    Other(User),
}

impl Described {
    pub(crate) fn into_user(self) -> User {
        match self {
            Self::Online(session) => User::of_session(session),
            Self::Other(user) => user,
        }
    }
}

/// Reads users until the bytes end, and hands out each.
pub(crate) fn each_user(
    bytes: &Bytes,
    expected: Expected,
    mut each: impl FnMut(&[u8], Described),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes.clone());
    while reader.left() > 0 {
        let name = reader.short_range()?;
        let user = match reader.u8()? {
            SESSION => Described::Online(decode_session(&mut reader, expected)?),
            form => Described::Other(decode_user(&mut reader, form, expected)?),
        };
        each(bytes.get(name).unwrap_or(&[]), user);
    }
    Ok(())
}

fn decode_session(reader: &mut Reader, expected: Expected) -> Result<SessionRecord, DecodeError> {
    let bytes: [u8; SESSION_BYTES] = reader.array()?;
    let (words, gateway) = bytes.as_chunks::<8>();
    let word = |at: usize| words.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let session = SessionRecord {
        epoch: word(0),
        connection_id: word(1),
        connected_at_ms: word(2),
        incarnation: word(3),
        gateway_id: gateway.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    };
    if session.epoch > expected.last_position {
        return Err(DecodeError::Range { what: "epoch", at: reader.at() });
    }
    Ok(session)
}

fn decode_user(reader: &mut Reader, form: u8, expected: Expected) -> Result<User, DecodeError> {
    let mut devices = SmallVec::new();
    if form == SEVERAL {
        for _ in 0..reader.count(2 + 1)? {
            let number = reader.u16()?;
            let form = reader.u8()?;
            devices.push(decode_device(reader, number, form, expected)?);
        }
    } else {
        devices.push(decode_device(reader, PRIMARY_DEVICE, form, expected)?);
    }
    let user = User::from_devices(devices);
    user.ok_or(DecodeError::Range { what: "devices", at: reader.at() })
}

fn decode_device(
    reader: &mut Reader,
    number: u16,
    form: u8,
    expected: Expected,
) -> Result<Device, DecodeError> {
    if form & !(SESSION | TOKEN | MESSAGES | SEEN) != 0 {
        let at = reader.at().saturating_sub(1);
        return Err(DecodeError::Tag { what: "form of a device", tag: form, at });
    }
    let mut device = Device::new(number);
    if form & SESSION != 0 {
        let session = decode_session(reader, expected)?;
        device.last_seen_ms = session.connected_at_ms;
        device.session = Some(session);
    }
    if form & SEEN != 0 {
        device.last_seen_ms = reader.u64()?;
    }
    if form & TOKEN != 0 {
        let token = reader.medium("push token", PUSH_TOKEN_BYTES_MAX)?;
        device.push_token = Some(token.as_ref().into());
    }
    if form & MESSAGES != 0 {
        device.mailbox = decode_mailbox(reader, expected)?;
    }
    Ok(device)
}

fn decode_mailbox(reader: &mut Reader, expected: Expected) -> Result<Mailbox, DecodeError> {
    let count = reader.count(8 + 8 + 8 + 4 + 4 + 4)?;
    let mut mailbox = Mailbox::default();
    for number in 0..count {
        let seqs = (reader.u64()?, reader.u64()?);
        let times = (reader.u64()?, reader.u32()?);
        let crc = reader.u32()?;
        let shape = reader.u32()?;
        let place = if expected.with_places { decode_place(reader)? } else { Place::Gone };
        let message = Message::from_parts(seqs, times, crc, shape, place);
        let message = message.filter(|m| m.seq > mailbox.tail() && m.seq <= expected.last_position);
        let range = DecodeError::Range { what: "message", at: reader.at() };
        mailbox.push(message.ok_or(range)?);
        if number == 1 {
            mailbox.reserve(count - 2);
        }
    }
    Ok(mailbox)
}

fn decode_place(reader: &mut Reader) -> Result<Place, DecodeError> {
    let at = reader.at();
    match (reader.u32()?, reader.u32()?) {
        (0, _) => Err(DecodeError::Range { what: "place", at }),
        (u32::MAX, _) => Ok(Place::Gone),
        (file, offset) => Ok(Place::Old { file, offset }),
    }
}

/// Appends how many users there are.
pub(crate) fn encode_counts(out: &mut BytesMut, users: u64) {
    out.put_u64_le(users);
}

/// Reads what [`encode_counts`] wrote.
pub(crate) fn decode_counts(bytes: Bytes) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(bytes);
    let users = reader.u64()?;
    reader.finish()?;
    Ok(users)
}

/// Appends the meta state.
pub(crate) fn encode_meta(out: &mut BytesMut, meta: &MetaState) {
    let is_raised = meta.format != FORMAT_FIRST;
    let cluster = meta.cluster.as_ref();
    out.put_u8(cluster.map_or(NO_CLUSTER, |_| if is_raised { RAISED } else { CLUSTER }));
    if let Some(cluster) = cluster {
        out.put_slice(&cluster.cluster_id);
        out.put_u32_le(cluster.shards);
        if is_raised {
            out.put_u32_le(meta.format);
        }
    }
    out.put_u64_le(meta.version);
    out.put_u32_le(meta.gateway_id_last);
    put_count(out, meta.nodes.len());
    for node in meta.nodes.values() {
        out.put_u64_le(node.node_id);
        put_medium(out, node.address.as_bytes());
        out.put_slice(&node.disk_id);
    }
    put_count(out, meta.gateways.len());
    for gateway in meta.gateways.values() {
        out.put_u32_le(gateway.gateway_id);
        out.put_u64_le(gateway.incarnation);
        put_medium(out, gateway.name.as_bytes());
        put_medium(out, gateway.address.as_bytes());
        out.put_u8(gateway.kind.to_u8());
        out.put_u8(u8::from(gateway.live));
        out.put_u64_le(gateway.registered_at_ms);
    }
    encode_placement(out, &meta.placement);
}

/// Reads what [`encode_meta`] wrote.
pub(crate) fn decode_meta(bytes: Bytes) -> Result<MetaState, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut meta = MetaState::default();
    let at = reader.at();
    let form = reader.u8()?;
    if form > RAISED {
        return Err(DecodeError::Tag { what: "presence of the cluster", tag: form, at });
    }
    if form != NO_CLUSTER {
        meta.cluster = Some(ClusterInfo { cluster_id: reader.array()?, shards: reader.u32()? });
    }
    if form == RAISED {
        meta.format = reader.u32()?;
        if meta.format <= FORMAT_FIRST {
            return Err(DecodeError::Range { what: "format", at });
        }
    }
    meta.version = reader.u64()?;
    meta.gateway_id_last = reader.u32()?;
    for _ in 0..reader.count(8 + 2 + 16)? {
        let node_id = reader.u64()?;
        let address = reader.text("address", ADDRESS_BYTES_MAX)?;
        meta.nodes.insert(node_id, NodeInfo { node_id, address, disk_id: reader.array()? });
    }
    for _ in 0..reader.count(4 + 8 + 2 + 2 + 2 + 8)? {
        let gateway = decode_gateway(&mut reader)?;
        meta.gateways.insert(gateway.gateway_id, gateway);
    }
    meta.placement = decode_placement(&mut reader)?;
    reader.finish()?;
    Ok(meta)
}

fn decode_gateway(reader: &mut Reader) -> Result<GatewayInfo, DecodeError> {
    let gateway_id = reader.u32()?;
    let incarnation = reader.u64()?;
    let name = reader.text("name", NAME_BYTES_MAX)?;
    let address = reader.text("address", ADDRESS_BYTES_MAX)?;
    let at = reader.at();
    let kind = GatewayKind::from_u8(reader.u8()?, at)?;
    let live = reader.bool("life of a gateway")?;
    let registered_at_ms = reader.u64()?;
    Ok(GatewayInfo { gateway_id, incarnation, name, address, kind, live, registered_at_ms })
}
