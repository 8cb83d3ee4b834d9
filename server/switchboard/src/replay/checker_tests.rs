//! Each kind of fault is caught, and a clean run has none.

use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;

fn id(index: usize) -> MessageId {
    [index as u8 + 1; 16]
}

fn body(index: usize) -> Vec<u8> {
    vec![index as u8; index]
}

/// Alice writes 0, 1 and 2 to bob, who writes 3 to her. 2 and 3 stay unread.
fn checker() -> Checker {
    let message =
        |index: usize, from, to, read| Expected { from, to, body: body_hash(&body(index)), read };
    Checker::new(vec![
        message(0, ALICE, BOB, true),
        message(1, ALICE, BOB, true),
        message(2, ALICE, BOB, false),
        message(3, BOB, ALICE, false),
    ])
}

fn all_sent() -> Checker {
    let mut checker = checker();
    for index in 0..4 {
        checker.handed_over(index, id(index), 100);
        assert_eq!(checker.accepted(index, 130), Some(30));
    }
    checker
}

fn show(checker: &mut Checker, index: usize) {
    let (from, to) = if index == 3 { (BOB, ALICE) } else { (ALICE, BOB) };
    let shown = checker.shown(to, &id(index), Some(from), &body(index), 150).unwrap();
    assert_eq!((shown.index, shown.after_us), (index, 50));
}

fn receipt(checker: &mut Checker, index: usize, state: Receipt) {
    let (from, to) = if index == 3 { (BOB, ALICE) } else { (ALICE, BOB) };
    checker.receipt(from, &id(index), Some(to), state, 200);
}

fn all_done() -> Checker {
    let mut checker = all_sent();
    for index in 0..4 {
        show(&mut checker, index);
        receipt(&mut checker, index, Receipt::Delivered);
    }
    for index in 0..2 {
        receipt(&mut checker, index, Receipt::Read);
    }
    checker
}

fn faults(checker: Checker) -> Vec<(Fault, u64)> {
    checker.finish().into_iter().map(|(fault, tally)| (fault, tally.count)).collect()
}

#[test]
fn a_clean_run_has_no_fault() {
    let checker = all_done();
    assert!(checker.is_settled());
    let counts = checker.counts();
    assert_eq!((counts.accepted, counts.delivered), (4, 4));
    assert_eq!((counts.receipts_delivered, counts.receipts_read, counts.strangers), (4, 2, 0));
    assert_eq!(faults(checker), []);
}

#[test]
fn a_read_receipt_stands_for_the_delivered_one_that_it_was_merged_with() {
    let mut checker = all_sent();
    for index in 0..4 {
        show(&mut checker, index);
    }
    receipt(&mut checker, 0, Receipt::Read);
    receipt(&mut checker, 0, Receipt::Delivered);
    receipt(&mut checker, 0, Receipt::Read);
    receipt(&mut checker, 1, Receipt::Read);
    receipt(&mut checker, 2, Receipt::Delivered);
    assert!(!checker.is_settled(), "the receipt of 3 is missing");
    receipt(&mut checker, 3, Receipt::Delivered);
    assert!(checker.is_settled());
    assert_eq!(faults(checker), []);
}

#[test]
fn a_lost_message_is_caught() {
    let mut checker = all_sent();
    for index in [0, 2, 3] {
        show(&mut checker, index);
        receipt(&mut checker, index, Receipt::Delivered);
    }
    receipt(&mut checker, 0, Receipt::Read);
    assert!(!checker.is_settled());
    assert_eq!(faults(checker), [(Fault::Lost, 1)]);
}

#[test]
fn an_unaccepted_message_is_caught_and_one_never_handed_over_is_no_fault_of_the_system() {
    let mut checker = checker();
    checker.handed_over(0, id(0), 0);
    assert!(!checker.is_settled());
    assert_eq!(faults(checker), [(Fault::Unaccepted, 1)]);
}

#[test]
fn a_refusal_is_caught_and_not_waited_for() {
    let mut checker = checker();
    for index in 0..4 {
        checker.handed_over(index, id(index), 0);
        if index == 1 {
            checker.refused(index, "too large");
        } else {
            checker.accepted(index, 0);
            checker.shown(
                if index == 3 { ALICE } else { BOB },
                &id(index),
                Some(if index == 3 { BOB } else { ALICE }),
                &body(index),
                0,
            );
            receipt(&mut checker, index, Receipt::Delivered);
        }
    }
    receipt(&mut checker, 0, Receipt::Read);
    assert!(checker.is_settled());
    assert_eq!(faults(checker), [(Fault::Refused, 1)]);
}

#[test]
fn an_inversion_is_caught_once() {
    let mut checker = all_sent();
    for index in [0, 2, 1, 3] {
        show(&mut checker, index);
    }
    let faults = faults(checker);
    assert!(faults.contains(&(Fault::OutOfOrder, 1)), "{faults:?}");
}

#[test]
fn order_follows_the_hand_over_and_not_the_plan() {
    let mut checker = checker();
    for index in [1, 0, 2, 3] {
        checker.handed_over(index, id(index), 100);
        checker.accepted(index, 100);
    }
    for index in [1, 0, 2, 3] {
        show(&mut checker, index);
    }
    assert!(faults(checker).iter().all(|(fault, _)| *fault != Fault::OutOfOrder));
}

#[test]
fn a_message_shown_twice_is_caught_and_not_read_twice() {
    let mut checker = all_done();
    let again = checker.shown(BOB, &id(0), Some(ALICE), &body(0), 9).unwrap();
    assert!(!again.read);
    assert_eq!(checker.counts().delivered, 4);
    assert_eq!(faults(checker), [(Fault::ShownTwice, 1)]);
}

#[test]
fn another_body_and_another_sender_are_caught() {
    let mut checker = all_sent();
    checker.shown(BOB, &id(0), Some(ALICE), &body(1), 9);
    checker.shown(BOB, &id(1), Some(BOB), &body(1), 9);
    checker.shown(BOB, &id(2), None, &body(2), 9);
    let faults = faults(checker);
    assert!(faults.contains(&(Fault::BodyMismatch, 3)), "{faults:?}");
}

#[test]
fn a_message_at_the_wrong_user_is_caught_and_still_counts_as_lost() {
    let mut checker = all_done();
    assert_eq!(checker.shown(ALICE, &id(0), Some(ALICE), &body(0), 9), None);
    assert_eq!(faults(checker), [(Fault::Misdelivered, 1)]);

    let mut checker = all_sent();
    checker.shown(ALICE, &id(0), Some(ALICE), &body(0), 9);
    assert!(faults(checker).contains(&(Fault::Lost, 4)));
}

#[test]
fn missing_receipts_are_caught() {
    let mut checker = all_sent();
    for index in 0..4 {
        show(&mut checker, index);
    }
    receipt(&mut checker, 0, Receipt::Read);
    receipt(&mut checker, 1, Receipt::Delivered);
    receipt(&mut checker, 3, Receipt::Delivered);
    assert!(!checker.is_settled());
    assert_eq!(faults(checker), [(Fault::DeliveredMissing, 1), (Fault::ReadMissing, 1)]);
}

#[test]
fn receipts_that_were_not_earned_are_caught() {
    let mut checker = all_sent();
    receipt(&mut checker, 0, Receipt::Delivered); // not shown yet
    show(&mut checker, 2);
    receipt(&mut checker, 2, Receipt::Read); // nobody read it
    checker.receipt(BOB, &id(2), Some(BOB), Receipt::Delivered, 9); // not its sender
    checker.receipt(ALICE, &id(2), Some(ALICE), Receipt::Delivered, 9); // not by its recipient
    assert_eq!(checker.counts().receipts_delivered, 0);
    assert!(faults(checker).contains(&(Fault::ReceiptWrong, 4)));
}

#[test]
fn ids_of_something_else_are_counted_apart() {
    let mut checker = all_done();
    assert_eq!(checker.shown(BOB, &[0xff; 16], Some(ALICE), b"", 9), None);
    checker.receipt(ALICE, &[0xff; 16], Some(BOB), Receipt::Read, 9);
    assert_eq!(checker.counts().strangers, 2);
    assert_eq!(faults(checker), []);
}

#[test]
fn examples_are_bounded() {
    let mut checker = all_done();
    for _ in 0..100 {
        checker.shown(BOB, &id(0), Some(ALICE), &body(0), 9);
    }
    let faults = checker.finish();
    assert_eq!(faults[0].1.count, 100);
    assert_eq!(faults[0].1.examples.len(), FAULT_EXAMPLES_MAX);
}
