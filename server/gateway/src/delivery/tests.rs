//! Tests of single rules of delivery.

use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard_api::v1::{DeviceRef, Message};

use super::*;
use crate::limits::RESEND_MAX;

const EPOCH: u64 = 5;

pub(super) fn message(seq: u64, prev_seq: u64) -> Message {
    Message {
        message_id: Bytes::copy_from_slice(&u128::from(seq).to_be_bytes()),
        from: Some(DeviceRef { user: Bytes::from_static(b"alice"), device: 1 }),
        seq,
        prev_seq,
        body: Bytes::from_static(b"hello"),
        ..Message::default()
    }
}

fn delivery(tail: u64, window: u32) -> Delivery {
    Delivery::new(Claimed { epoch: EPOCH, tail }, window, 1)
}

fn page(seqs: &[u64], more: bool, tail: u64) -> Page {
    Page { messages: seqs.iter().map(|seq| message(*seq, 0)).collect(), more, tail }
}

struct Driver {
    delivery: Delivery,
    now: Instant,
}

impl Driver {
    fn new(tail: u64, window: u32) -> Self {
        Self { delivery: delivery(tail, window), now: Instant::now() }
    }

    fn with(
        &mut self,
        input: impl FnOnce(&mut Delivery, Instant, &mut Vec<Action>),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        input(&mut self.delivery, self.now, &mut actions);
        self.delivery.poll(self.now, &mut actions);
        actions
    }

    fn poll(&mut self) -> Vec<Action> {
        self.with(|_, _, _| {})
    }

    fn push(&mut self, seq: u64, prev_seq: u64) -> Vec<Action> {
        self.with(|delivery, now, actions| delivery.push(message(seq, prev_seq), now, actions))
    }

    fn page(&mut self, id: u64, page: Page) -> Vec<Action> {
        self.with(|delivery, now, actions| delivery.page(id, page, now, actions))
    }

    fn acked(&mut self, up_to: u64, seqs: &[u64]) -> Vec<Action> {
        self.with(|delivery, now, actions| delivery.acked(up_to, seqs, now, actions))
    }
}

fn delivered(actions: &[Action]) -> Vec<u64> {
    let seq = |action: &Action| match action {
        Action::Deliver(message) => Some(message.seq),
        _ => None,
    };
    actions.iter().filter_map(seq).collect()
}

fn acknowledged(actions: &[Action]) -> Vec<u64> {
    let seqs = |action: &Action| match action {
        Action::Acknowledged(entries) => entries.iter().map(|entry| entry.seq).collect(),
        _ => Vec::new(),
    };
    actions.iter().flat_map(seqs).collect()
}

fn fetch(actions: &[Action]) -> FetchOrder {
    let orders = actions.iter().filter_map(|action| match action {
        Action::Fetch(order) => Some(*order),
        _ => None,
    });
    let orders: Vec<FetchOrder> = orders.collect();
    assert_eq!(orders.len(), 1, "{actions:?}");
    orders[0]
}

#[test]
fn an_empty_mailbox_is_drained_at_once_and_needs_no_fetch() {
    assert_eq!(Driver::new(0, 64).poll(), [Action::Drained]);
}

#[test]
fn the_backlog_is_fetched_after_the_claim_was_applied_and_then_drained() {
    let mut driver = Driver::new(20, 64);
    let order = fetch(&driver.poll());
    assert_eq!((order.after_seq, order.messages_max, order.min_position), (0, 64, 20));
    let actions = driver.page(order.id, page(&[10], true, 20));
    assert_eq!(delivered(&actions), [10]);
    assert!(!actions.contains(&Action::Drained));
    let order = fetch(&actions);
    assert_eq!(order.after_seq, 10);
    let actions = driver.page(order.id, page(&[20], false, 20));
    assert_eq!(delivered(&actions), [20]);
    assert_eq!(actions.last(), Some(&Action::Drained));
}

#[test]
fn a_push_that_fits_saves_a_fetch_and_any_other_makes_one() {
    let mut driver = Driver::new(0, 64);
    driver.poll();
    assert_eq!(delivered(&driver.push(10, 0)), [10]);
    assert_eq!(delivered(&driver.push(20, 10)), [20]);
    assert_eq!(driver.push(20, 10), []);
    // 30 is missing.
    let order = fetch(&driver.push(40, 30));
    assert_eq!((order.after_seq, order.min_position), (20, 40));
    assert_eq!(delivered(&driver.page(order.id, page(&[30, 40], false, 40))), [30, 40]);
    // Its predecessor is not known.
    assert_eq!(fetch(&driver.push(50, u64::MAX)).after_seq, 40);
}

#[test]
fn a_push_during_a_fetch_is_written_once() {
    let mut driver = Driver::new(10, 64);
    let order = fetch(&driver.poll());
    assert_eq!(driver.push(20, 10), []);
    let actions = driver.page(order.id, page(&[10], false, 10));
    assert_eq!(delivered(&actions), [10]);
    let order = fetch(&actions);
    assert_eq!(delivered(&driver.push(20, 10)), [20]);
    assert_eq!(delivered(&driver.page(order.id, page(&[20], false, 20))), [0_u64; 0]);
}

#[test]
fn the_window_holds_back_what_waits_in_the_mailbox() {
    let mut driver = Driver::new(0, 2);
    driver.poll();
    driver.push(10, 0);
    driver.push(20, 10);
    assert_eq!(driver.push(30, 20), []);
    assert_eq!(driver.push(40, 30), []);
    let actions = driver.acked(10, &[]);
    assert_eq!(acknowledged(&actions), [10]);
    let order = fetch(&actions);
    assert_eq!((order.after_seq, order.messages_max), (20, 1));
    assert_eq!(delivered(&driver.page(order.id, page(&[30], true, 40))), [30]);
    assert_eq!(fetch(&driver.acked(0, &[30])).after_seq, 30);
}

#[test]
fn a_full_write_queue_holds_back_too() {
    let mut driver = Driver::new(0, 64);
    driver.poll();
    driver.delivery.set_room(WRITE_QUEUE_BYTES_MAX, 100);
    assert_eq!(driver.push(10, 0), []);
    driver.delivery.set_room(0, 100);
    assert_eq!(fetch(&driver.poll()).after_seq, 0);
}

#[test]
fn what_the_device_has_from_before_is_settled_and_not_written() {
    let mut driver = Driver::new(40, 64);
    let order = fetch(&driver.poll());
    // Everything, as of now: not what will ever come.
    assert_eq!(driver.acked(u64::MAX, &[]), []);
    let actions = driver.page(order.id, page(&[10, 40], false, 40));
    assert_eq!((acknowledged(&actions), delivered(&actions)), (vec![10, 40], vec![]));
    assert_eq!(actions.last(), Some(&Action::Drained));
    assert_eq!(delivered(&driver.push(50, 40)), [50]);
}

#[test]
fn single_seqs_acknowledged_ahead_are_settled_among_others() {
    let mut driver = Driver::new(30, 64);
    let order = fetch(&driver.poll());
    driver.acked(0, &[20]);
    let actions = driver.page(order.id, page(&[10, 20, 30], false, 30));
    assert_eq!((acknowledged(&actions), delivered(&actions)), (vec![20], vec![10, 30]));
}

#[test]
fn what_is_not_acknowledged_is_sent_again_with_growing_pauses() {
    let mut driver = Driver::new(0, 64);
    driver.poll();
    driver.push(10, 0);
    driver.push(20, 10);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let at = driver.delivery.wake_at().unwrap();
        pauses.push(at - driver.now);
        driver.now = at;
        let order = fetch(&driver.poll());
        assert_eq!((order.after_seq, order.messages_max), (9, 2));
        let actions = driver.page(order.id, page(&[10, 20], false, 20));
        assert_eq!(delivered(&actions), [10, 20]);
    }
    assert!(pauses[0] >= Duration::from_secs(5) && pauses[4] > pauses[0], "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= RESEND_MAX));
    driver.acked(20, &[]);
    assert_eq!(driver.delivery.wake_at(), None);
}

#[test]
fn what_has_expired_at_the_store_frees_the_window() {
    let mut driver = Driver::new(0, 2);
    driver.poll();
    driver.push(10, 0);
    driver.push(20, 10);
    driver.push(30, 20);
    driver.now = driver.delivery.wake_at().unwrap();
    let order = fetch(&driver.poll());
    let actions = driver.page(order.id, page(&[20, 30], false, 30));
    assert_eq!(delivered(&actions), [20]);
    assert_eq!((driver.delivery.first_out(), fetch(&actions).after_seq), (Some(20), 20));
}

#[test]
fn a_failed_fetch_is_tried_again() {
    let mut driver = Driver::new(10, 64);
    let order = fetch(&driver.poll());
    assert_eq!(driver.with(|delivery, now, _| delivery.page_failed(order.id, now)), []);
    driver.now = driver.delivery.wake_at().unwrap();
    assert_ne!(fetch(&driver.poll()).id, order.id);
    // The answer to the first one comes too late.
    assert_eq!(driver.page(order.id, page(&[10], false, 10)), []);
}
