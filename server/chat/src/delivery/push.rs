//! From the store's answer to pushes: a function.

use switchboard_api::v1::{
    ItemStatus, Message, deliver_request::Push, enqueue_request, enqueue_response,
};

/// A gateway in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GatewayKey {
    pub(crate) gateway_id: u32,
    pub(crate) incarnation: u64,
}

/// The pushes that a stored item asks for: one per session whose device has the message queued.
///
/// The `prev_seq` of a duplicate is not known. Its place is taken by the message's own seq, which
/// fits after nothing, so that the gateway fetches instead of leaving a gap.
pub(crate) fn pushes<'a>(
    item: &'a enqueue_request::Item,
    result: &'a enqueue_response::Result,
) -> impl Iterator<Item = (GatewayKey, Push)> + 'a {
    result.sessions.iter().filter_map(move |session| {
        let device = session.device.as_ref()?;
        let stored = result.stored.iter().find(|stored| stored.device == device.device)?;
        let prev_seq = match stored.status() {
            ItemStatus::Ok if result.status() == ItemStatus::Ok => stored.prev_seq,
            ItemStatus::Ok | ItemStatus::Duplicate => stored.seq,
            _ => return None,
        };
        if stored.seq == 0 {
            return None;
        }
        let message = Message {
            message_id: item.message_id.clone(),
            from: item.from.clone(),
            seq: stored.seq,
            enqueued_at_ms: result.enqueued_at_ms,
            expires_at_ms: result.expires_at_ms,
            kind: item.kind,
            body: item.body.clone(),
            prev_seq,
        };
        let gateway =
            GatewayKey { gateway_id: session.gateway_id, incarnation: session.incarnation };
        let push = Push {
            device: session.device.clone(),
            connection_id: session.connection_id,
            epoch: session.epoch,
            message: Some(message),
        };
        Some((gateway, push))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use switchboard_api::v1::{DeviceRef, SessionInfo, enqueue_response::Stored};

    use super::*;

    fn session(device: u32, gateway_id: u32) -> SessionInfo {
        SessionInfo {
            device: Some(DeviceRef { user: Bytes::from_static(b"bob"), device }),
            gateway_id,
            incarnation: 3,
            connection_id: 40 + u64::from(device),
            epoch: 50 + u64::from(device),
            connected_at_ms: 1,
        }
    }

    fn stored(device: u32, seq: u64, status: ItemStatus) -> Stored {
        Stored { device, seq, prev_seq: seq - 1, status: status.into() }
    }

    fn result(status: ItemStatus, stored: Vec<Stored>) -> enqueue_response::Result {
        enqueue_response::Result {
            status: status.into(),
            stored,
            sessions: vec![session(1, 7), session(2, 8), session(3, 9)],
            enqueued_at_ms: 100,
            expires_at_ms: 200,
        }
    }

    fn item() -> enqueue_request::Item {
        enqueue_request::Item {
            message_id: Bytes::from_static(&[1; 16]),
            body: Bytes::from_static(b"hello"),
            ..Default::default()
        }
    }

    #[test]
    fn each_session_gets_its_own_seq_and_a_device_that_refused_gets_nothing() {
        let result = result(
            ItemStatus::Ok,
            vec![
                stored(2, 20, ItemStatus::Ok),
                stored(1, 10, ItemStatus::Ok),
                stored(3, 30, ItemStatus::MailboxFull),
            ],
        );
        let item = item();
        let pushes: Vec<_> = pushes(&item, &result).collect();
        assert_eq!(pushes.len(), 2);
        let (gateway, push) = &pushes[0];
        assert_eq!((gateway.gateway_id, gateway.incarnation), (7, 3));
        assert_eq!((push.connection_id, push.epoch), (41, 51));
        let message = push.message.as_ref().unwrap();
        assert_eq!((message.seq, message.prev_seq, message.enqueued_at_ms), (10, 9, 100));
        assert_eq!(message.body, "hello");
        assert_eq!(pushes[1].1.message.as_ref().unwrap().seq, 20);
    }

    #[test]
    fn a_duplicate_fits_after_nothing() {
        let result = result(ItemStatus::Duplicate, vec![stored(1, 10, ItemStatus::Duplicate)]);
        let item = item();
        let pushes: Vec<_> = pushes(&item, &result).collect();
        assert_eq!(pushes.len(), 1);
        let message = pushes[0].1.message.as_ref().unwrap();
        assert_eq!((message.seq, message.prev_seq), (10, 10));
    }

    #[test]
    fn what_was_acknowledged_meanwhile_is_not_pushed() {
        let item = item();
        assert_eq!(pushes(&item, &result(ItemStatus::Duplicate, Vec::new())).count(), 0);
        assert_eq!(pushes(&item, &result(ItemStatus::Unavailable, Vec::new())).count(), 0);
    }
}
