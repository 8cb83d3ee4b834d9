//! The binary form of a user and of the meta state, as checkpoints, exports and the state hash use it.
//!
//! A user is written with or without the places of its messages: places differ from replica to replica,
//! everything else may not. Reading checks every field, for the bytes come from a disk or a peer.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    dedup::{Dedup, IdHash, Slice},
    mailbox::Mailbox,
    message::{Message, Place},
    meta::{ClusterInfo, GatewayInfo, MetaState, NodeInfo},
    user::{Device, SessionRecord, User},
};
use crate::{
    codec::{DecodeError, Reader, put_count, put_medium, put_short},
    command::GatewayKind,
    limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, PUSH_TOKEN_BYTES_MAX},
};

const HAS_SESSION: u8 = 1;
const HAS_TOKEN: u8 = 2;
const OLD: u8 = 1;
const GONE: u8 = 2;

/// Appends a user. `place_of` says where a message lies; without it places are left out.
pub(crate) fn encode_user(
    out: &mut BytesMut,
    name: &[u8],
    user: &User,
    place_of: Option<&dyn Fn(&Message) -> Place>,
) {
    put_short(out, name);
    put_count(out, user.devices().len());
    for device in user.devices() {
        out.put_u16_le(device.number);
        let session = if device.session.is_some() { HAS_SESSION } else { 0 };
        let token = if device.push_token.is_some() { HAS_TOKEN } else { 0 };
        out.put_u8(session | token);
        out.put_u64_le(device.last_seen_ms);
        if let Some(session) = &device.session {
            out.put_u32_le(session.gateway_id);
            out.put_u64_le(session.incarnation);
            out.put_u64_le(session.connection_id);
            out.put_u64_le(session.epoch);
            out.put_u64_le(session.connected_at_ms);
        }
        if let Some(token) = &device.push_token {
            put_medium(out, token);
        }
        put_count(out, device.mailbox.iter().count());
        for message in device.mailbox.iter() {
            encode_message(out, message);
            if let Some(place_of) = place_of {
                encode_place(out, place_of(message));
            }
        }
    }
}

fn encode_message(out: &mut BytesMut, message: &Message) {
    out.put_u64_le(message.seq);
    out.put_u64_le(message.prev_seq);
    out.put_u64_le(message.expires_at_ms);
    out.put_u32_le(message.ttl_ms);
    out.put_u32_le(message.crc);
    out.put_u32_le(message.shape());
}

/// A young place has no form on disk: a checkpoint moves what is young.
fn encode_place(out: &mut BytesMut, place: Place) {
    debug_assert!(!matches!(place, Place::Young { .. }));
    if let Place::Old { file, offset } = place {
        out.put_u8(OLD);
        out.put_u32_le(file);
        out.put_u32_le(offset);
    } else {
        out.put_u8(GONE);
    }
}

/// Reads users until the bytes end. Messages without a place are `Gone` until they get one.
pub(crate) fn decode_users(
    bytes: Bytes,
    with_places: bool,
) -> Result<Vec<(Bytes, User)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut users = Vec::new();
    while reader.left() > 0 {
        users.push(decode_user(&mut reader, with_places)?);
    }
    Ok(users)
}

fn decode_user(reader: &mut Reader, with_places: bool) -> Result<(Bytes, User), DecodeError> {
    // A copy, so that a user does not keep the whole chunk that it was read from.
    let name = Bytes::copy_from_slice(&reader.short()?);
    let count = reader.count(2 + 1 + 8 + 4)?;
    let mut devices = SmallVec::new();
    for _ in 0..count {
        devices.push(decode_device(reader, with_places)?);
    }
    let user = User::from_devices(devices);
    let user = user.ok_or(DecodeError::Range { what: "devices", at: reader.at() })?;
    Ok((name, user))
}

fn decode_device(reader: &mut Reader, with_places: bool) -> Result<Device, DecodeError> {
    let mut device = Device::new(reader.u16()?);
    let at = reader.at();
    let flags = reader.u8()?;
    if flags & !(HAS_SESSION | HAS_TOKEN) != 0 {
        return Err(DecodeError::Tag { what: "flags of a device", tag: flags, at });
    }
    device.last_seen_ms = reader.u64()?;
    if flags & HAS_SESSION != 0 {
        device.session = Some(SessionRecord {
            gateway_id: reader.u32()?,
            incarnation: reader.u64()?,
            connection_id: reader.u64()?,
            epoch: reader.u64()?,
            connected_at_ms: reader.u64()?,
        });
    }
    if flags & HAS_TOKEN != 0 {
        let token = reader.medium("push token", PUSH_TOKEN_BYTES_MAX)?;
        device.push_token = Some(token.as_ref().into());
    }
    device.mailbox = decode_mailbox(reader, with_places)?;
    Ok(device)
}

fn decode_mailbox(reader: &mut Reader, with_places: bool) -> Result<Mailbox, DecodeError> {
    let count = reader.count(8 + 8 + 8 + 4 + 4 + 4)?;
    let mut mailbox = Mailbox::with_capacity(count);
    for _ in 0..count {
        let seqs = (reader.u64()?, reader.u64()?);
        let times = (reader.u64()?, reader.u32()?);
        let crc = reader.u32()?;
        let shape = reader.u32()?;
        let place = if with_places { decode_place(reader)? } else { Place::Gone };
        let message = Message::from_parts(seqs, times, crc, shape, place);
        let message = message.filter(|m| m.seq > mailbox.tail() && m.seq >> 63 == 0);
        let range = DecodeError::Range { what: "message", at: reader.at() };
        mailbox.push(message.ok_or(range)?);
    }
    Ok(mailbox)
}

fn decode_place(reader: &mut Reader) -> Result<Place, DecodeError> {
    let at = reader.at();
    match reader.u8()? {
        OLD => Ok(Place::Old { file: reader.u32()?, offset: reader.u32()? }),
        GONE => Ok(Place::Gone),
        tag => Err(DecodeError::Tag { what: "place", tag, at }),
    }
}

/// Appends the remembered ids: all slices, ids in ascending order.
pub(crate) fn encode_dedup(out: &mut BytesMut, dedup: &Dedup) {
    out.put_u64_le(dedup.forgot_ms());
    for slice in dedup.slices() {
        out.put_u64_le(slice.opened_ms);
        out.put_u64_le(slice.last_ms);
        put_count(out, slice.ids.len());
        let mut ids: Vec<(IdHash, u64)> = slice.ids.iter().map(|(id, seq)| (*id, *seq)).collect();
        ids.sort_unstable();
        for (IdHash(first, second), seq) in ids {
            out.put_u64_le(first);
            out.put_u64_le(second);
            out.put_u64_le(seq);
        }
    }
}

/// Reads what [`encode_dedup`] wrote.
pub(crate) fn decode_dedup(bytes: Bytes) -> Result<Dedup, DecodeError> {
    let mut reader = Reader::new(bytes);
    let forgot_ms = reader.u64()?;
    let mut slices = Vec::new();
    while reader.left() > 0 {
        let (opened_ms, last_ms) = (reader.u64()?, reader.u64()?);
        let mut slice = Slice { opened_ms, last_ms, ..Slice::default() };
        let count = reader.count(24)?;
        slice.ids.reserve(count);
        for _ in 0..count {
            let id = IdHash(reader.u64()?, reader.u64()?);
            slice.ids.insert(id, reader.u64()?);
        }
        slices.push(slice);
    }
    Ok(Dedup::from_slices(slices, forgot_ms))
}

/// Appends the meta state.
pub(crate) fn encode_meta(out: &mut BytesMut, meta: &MetaState) {
    out.put_u8(u8::from(meta.cluster.is_some()));
    if let Some(cluster) = &meta.cluster {
        out.put_slice(&cluster.cluster_id);
        out.put_u32_le(cluster.shards);
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
}

/// Reads what [`encode_meta`] wrote.
pub(crate) fn decode_meta(bytes: Bytes) -> Result<MetaState, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut meta = MetaState::default();
    if reader.bool("presence of the cluster")? {
        meta.cluster = Some(ClusterInfo { cluster_id: reader.array()?, shards: reader.u32()? });
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
