//! Between the wire's types and the engine's. Nothing here decides anything.

use bytes::Bytes;
use switchboard_api::v1::{self, DeviceRef, SessionInfo, message, register_request};
use switchboard_engine::{DeviceId, GatewayKind, MessageKind, Session};

use crate::errors;

/// A device reference that was validated. A missing one or a number out of range, which validation
/// has refused, becomes device 0, which the engine refuses again.
pub(crate) fn device_id(device: Option<DeviceRef>) -> DeviceId {
    let DeviceRef { user, device } = device.unwrap_or_default();
    DeviceId { user, device: u16::try_from(device).unwrap_or(0) }
}

/// The other way.
pub(crate) fn device_ref(device: DeviceId) -> DeviceRef {
    DeviceRef { user: device.user, device: u32::from(device.device) }
}

/// A session as clients see it.
pub(crate) fn session_info(session: Session) -> SessionInfo {
    SessionInfo {
        device: Some(device_ref(session.device)),
        gateway_id: session.gateway_id,
        incarnation: session.incarnation,
        connection_id: session.connection_id,
        epoch: session.epoch,
        connected_at_ms: session.connected_at_ms,
    }
}

/// The same back, as another node passed it on.
pub(crate) fn session(info: SessionInfo) -> Session {
    Session {
        device: device_id(info.device),
        gateway_id: info.gateway_id,
        incarnation: info.incarnation,
        connection_id: info.connection_id,
        epoch: info.epoch,
        connected_at_ms: info.connected_at_ms,
    }
}

/// A kind that was validated.
pub(crate) fn message_kind(kind: i32) -> MessageKind {
    match message::Kind::try_from(kind) {
        Ok(message::Kind::Receipt) => MessageKind::Receipt,
        Ok(message::Kind::Content) | Err(_) => MessageKind::Content,
    }
}

/// A stored message as clients see it.
pub(crate) fn message(stored: switchboard_engine::StoredMessage) -> v1::Message {
    let kind = match stored.kind {
        MessageKind::Content => message::Kind::Content,
        MessageKind::Receipt => message::Kind::Receipt,
    };
    v1::Message {
        message_id: Bytes::copy_from_slice(&stored.message_id),
        from: Some(device_ref(stored.from)),
        seq: stored.seq,
        enqueued_at_ms: stored.enqueued_at_ms,
        expires_at_ms: stored.expires_at_ms,
        kind: kind.into(),
        body: stored.body,
        prev_seq: stored.prev_seq,
    }
}

/// What one enqueue answered; `sessions` are those that live.
pub(crate) fn enqueued(
    reply: switchboard_engine::Enqueued,
    is_live: impl Fn(&Session) -> bool,
) -> v1::enqueue_response::Result {
    if reply.dropped > 0 {
        metrics::counter!("switchboard_store_dropped_oldest_total").increment(reply.dropped.into());
    }
    let stored = reply.stored.iter().map(|stored| v1::enqueue_response::Stored {
        device: u32::from(stored.device),
        seq: stored.seq,
        prev_seq: stored.prev_seq,
        status: errors::item(stored.status).into(),
    });
    v1::enqueue_response::Result {
        status: errors::item(reply.status).into(),
        stored: stored.collect(),
        sessions: reply.sessions.into_iter().filter(is_live).map(session_info).collect(),
        enqueued_at_ms: reply.enqueued_at_ms,
        expires_at_ms: reply.expires_at_ms,
    }
}

/// A kind of process, the engine's way.
pub(crate) fn gateway_kind(kind: register_request::Kind) -> GatewayKind {
    match kind {
        register_request::Kind::Gateway => GatewayKind::Gateway,
        register_request::Kind::Chat => GatewayKind::Chat,
    }
}

/// A kind of process, the wire's way.
pub(crate) fn wire_kind(kind: GatewayKind) -> register_request::Kind {
    match kind {
        GatewayKind::Gateway => register_request::Kind::Gateway,
        GatewayKind::Chat => register_request::Kind::Chat,
    }
}
