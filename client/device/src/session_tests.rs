//! Tests of the session: repeats, acknowledgement, refusal, resend.

use bytes::Bytes;
use switchboard_api::{
    device::v1::{self as proto, client_frame, server_frame},
    v1::{DeviceRef, Message},
};
use tokio::sync::oneshot;

use super::{session::*, *};
use std::time::{Duration, Instant};

fn session(manual_ack: bool) -> Session {
    let mut session = Session::new(manual_ack, 100);
    session.connected(1, 0, 0);
    assert!(matches!(session.take_event(), Some(Event::Online { .. })));
    session
}

fn server(frame: server_frame::Frame) -> proto::ServerFrame {
    proto::ServerFrame { frame: Some(frame) }
}

fn deliver(id: u8, seq: u64) -> proto::ServerFrame {
    let message = Message {
        message_id: Bytes::copy_from_slice(&[id; 16]),
        from: Some(DeviceRef { user: Bytes::from_static(b"bob"), device: 1 }),
        seq,
        ..Message::default()
    };
    server(server_frame::Frame::Deliver(proto::Deliver { message: Some(message), own_copy: false }))
}

fn error(code: Code, id: &[u8], retry_after_ms: u64) -> proto::ServerFrame {
    server(server_frame::Frame::Error(proto::Error {
        code: code.into(),
        message: "because".to_owned(),
        retry_after_ms,
        message_id: Bytes::copy_from_slice(id),
    }))
}

fn outgoing(id: u8) -> Outgoing {
    Outgoing {
        message_id: [id; 16],
        to_user: Bytes::from_static(b"bob"),
        to_device: 0,
        ttl_ms: 0,
        body: Bytes::new(),
    }
}

fn frames(session: &mut Session, now: Instant) -> Vec<client_frame::Frame> {
    std::iter::from_fn(|| session.next_frame(now).and_then(|frame| frame.frame)).collect()
}

fn ack(up_to_seq: u64) -> client_frame::Frame {
    client_frame::Frame::Ack(proto::Ack { up_to_seq, seqs: Vec::new() })
}

#[test]
fn a_message_is_an_event_once_and_acknowledged_after_its_hand_over() {
    let now = Instant::now();
    let mut session = session(false);
    session.frame(deliver(1, 10), now);
    session.frame(deliver(1, 10), now);
    assert_eq!(frames(&mut session, now), []);
    assert!(matches!(session.take_event(), Some(Event::Message(_))));
    assert!(!session.has_events());
    assert_eq!(frames(&mut session, now), [ack(10)]);
    session.frame(deliver(1, 11), now);
    assert_eq!(frames(&mut session, now), [ack(11)]);
    assert_eq!(session.stats().repeats_dropped, 2);
}

#[test]
fn a_repeat_after_a_reconnect_is_dropped_and_acknowledged() {
    let now = Instant::now();
    let mut session = session(false);
    session.frame(deliver(1, 10), now);
    session.take_event();
    session.connected(2, 1, 0);
    session.take_event();
    session.frame(deliver(1, 10), now);
    assert!(!session.has_events());
    assert_eq!(frames(&mut session, now), [ack(10)]);
}

#[test]
fn an_application_that_acknowledges_by_itself_is_waited_for() {
    let now = Instant::now();
    let mut session = session(true);
    session.frame(deliver(1, 10), now);
    session.frame(deliver(2, 20), now);
    session.take_event();
    session.take_event();
    assert_eq!(frames(&mut session, now), []);
    session.acknowledge(20);
    let named = proto::Ack { up_to_seq: 9, seqs: vec![20] };
    assert_eq!(frames(&mut session, now), [client_frame::Frame::Ack(named)]);
    session.acknowledge(10);
    assert_eq!(frames(&mut session, now), [ack(20)]);
}

#[test]
fn a_refusal_for_good_ends_the_wait_and_a_passing_one_does_not() {
    let now = Instant::now();
    let mut session = session(false);
    let (first, mut refused) = oneshot::channel();
    let (second, mut waiting) = oneshot::channel();
    session.send(outgoing(1), false, first);
    session.send(outgoing(2), false, second);
    assert_eq!(frames(&mut session, now).len(), 2);
    let verdict = session.frame(error(Code::MailboxFull, &[1; 16], 0), now);
    assert_eq!(verdict, Verdict::Continue);
    let answer = refused.try_recv().unwrap();
    assert!(matches!(answer, Err(SendError::Refused { code: Code::MailboxFull, .. })));
    assert!(matches!(session.take_event(), Some(Event::Refused { .. })));
    session.frame(error(Code::RateLimited, &[2; 16], 500), now);
    assert_eq!(frames(&mut session, now), []);
    assert_eq!(session.wake_at(), Some(now + Duration::from_millis(500)));
    assert_eq!(frames(&mut session, now + Duration::from_millis(500)).len(), 1);
    assert!(waiting.try_recv().is_err());
    let accepted =
        proto::Accepted { message_id: Bytes::copy_from_slice(&[2; 16]), at_ms: 7, duplicate: true };
    session.frame(server(server_frame::Frame::Accepted(accepted)), now);
    assert_eq!(waiting.try_recv().unwrap(), Ok(Accepted { at_ms: 7, duplicate: true }));
    let stats = session.stats();
    assert_eq!((stats.resends, stats.duplicates_answered, stats.outbox), (1, 1, 0));
}

#[test]
fn an_error_about_the_connection_ends_it_and_some_for_good() {
    let now = Instant::now();
    for (code, fatal) in [(Code::Unavailable, false), (Code::Unauthenticated, true)] {
        let Verdict::End(ending) = session(false).frame(error(code, b"", 250), now) else {
            panic!("goes on after {code:?}");
        };
        assert_eq!((ending.fatal, ending.code), (fatal, Some(code)));
        assert_eq!(ending.retry_after, Duration::from_millis(250));
    }
}

#[test]
fn being_replaced_is_told_apart_from_being_sent_away() {
    use proto::redirect::Reason;
    let now = Instant::now();
    for (reason, replaced) in [(Reason::Replaced, true), (Reason::Draining, false)] {
        let redirect = proto::Redirect {
            address: "other:1".to_owned(),
            retry_after_ms: 9,
            reason: reason.into(),
        };
        let frame = server(server_frame::Frame::Redirect(redirect));
        let Verdict::End(ending) = session(false).frame(frame, now) else {
            panic!("goes on after {reason:?}");
        };
        assert_eq!((ending.replaced, ending.address.as_str()), (replaced, "other:1"));
    }
}

#[test]
fn receipts_are_shown_once_and_acknowledged() {
    let now = Instant::now();
    let mut session = session(true);
    let receipt = proto::Receipt {
        message_id: Bytes::copy_from_slice(&[1; 16]),
        by_user: Bytes::from_static(b"bob"),
        by_device: 1,
        seq: 10,
        ..proto::Receipt::default()
    };
    for seq in [10, 11] {
        let receipt = proto::Receipt { seq, ..receipt.clone() };
        session.frame(server(server_frame::Frame::Receipt(receipt)), now);
    }
    assert!(matches!(session.take_event(), Some(Event::Receipt { .. })));
    assert!(!session.has_events());
    assert_eq!(frames(&mut session, now), [ack(11)]);
    assert_eq!(session.stats().receipt_repeats, 1);
}
