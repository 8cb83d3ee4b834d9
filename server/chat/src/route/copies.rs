//! Copies of sends for the sender's own devices: which there are, and what they mean for the answer.
//!
//! A copy is stored only after its message is, so no device shows as sent what was refused. The
//! sender is told *sent* only once the copy is durable, too, or was refused for good, as when all
//! its devices' mailboxes are full: that is no reason to withhold the message.

use bytes::Bytes;
use switchboard_api::{
    own_copy,
    v1::{DeviceRef, enqueue_request, enqueue_response},
};

use super::pairs::{Outcome, Outgoing, is_retryable};

/// The copies that a call's sends ask for, and the places of these sends in the call.
pub(super) fn copies(
    call: &[Outgoing],
    outcomes: &[Outcome],
) -> (Vec<usize>, Vec<enqueue_request::Item>) {
    let asked = call
        .iter()
        .zip(outcomes)
        .enumerate()
        .filter(|(_, (sent, outcome))| sent.to_own_devices && outcome.is_durable());
    asked.filter_map(|(place, (sent, _))| Some((place, copy(&sent.item)?))).unzip()
}

fn copy(item: &enqueue_request::Item) -> Option<enqueue_request::Item> {
    let user = item.from.as_ref()?.user.clone();
    // A send without a copy's id was refused before.
    let message_id = Bytes::copy_from_slice(&own_copy::id(&item.message_id)?);
    let to = Some(DeviceRef { user, device: 0 });
    Some(enqueue_request::Item { to, message_id, ..item.clone() })
}

/// Puts the answers to the copies into the outcomes of their sends.
pub(super) fn unite(
    outcomes: &mut [Outcome],
    places: &[usize],
    results: &[enqueue_response::Result],
) {
    for (place, result) in places.iter().zip(results) {
        if is_retryable(result.status())
            && let Some(outcome) = outcomes.get_mut(*place)
        {
            *outcome = Outcome { status: result.status(), at_ms: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::{ItemStatus, route_request::Send};

    use super::*;
    use crate::route::pairs::Pairs;

    fn call(to_own_devices: bool) -> Vec<Outgoing> {
        let device =
            |user: &'static [u8]| Some(DeviceRef { user: Bytes::from_static(user), device: 1 });
        let send = Send {
            id: 1,
            from: device(b"alice"),
            to: device(b"bob"),
            message_id: Bytes::from_static(&[0x70; 16]),
            body: Bytes::from_static(b"hello"),
            to_own_devices,
            ..Send::default()
        };
        Pairs::default().accept(vec![send], 0).calls.remove(0)
    }

    fn outcome(status: ItemStatus) -> Outcome {
        Outcome { status, at_ms: 7 }
    }

    #[test]
    fn what_is_stored_and_asked_for_is_copied_to_all_own_devices() {
        let (places, items) = copies(&call(true), &[outcome(ItemStatus::Ok)]);
        assert_eq!(places, [0]);
        let to = items[0].to.clone().unwrap();
        assert_eq!((to.user.as_ref(), to.device), (&b"alice"[..], 0));
        assert_eq!(items[0].body, "hello");
        assert_eq!(own_copy::original(&items[0].message_id), Some([0x70; 16]));
        assert_eq!(copies(&call(true), &[outcome(ItemStatus::Duplicate)]).0, [0]);
        assert!(copies(&call(true), &[outcome(ItemStatus::MailboxFull)]).0.is_empty());
        assert!(copies(&call(false), &[outcome(ItemStatus::Ok)]).0.is_empty());
    }

    #[test]
    fn a_copy_that_must_be_tried_again_holds_the_answer_back_and_a_refused_one_does_not() {
        let result = |status: ItemStatus| enqueue_response::Result {
            status: status.into(),
            ..Default::default()
        };
        let cases = [
            (ItemStatus::Ok, ItemStatus::Ok),
            (ItemStatus::MailboxFull, ItemStatus::Ok),
            (ItemStatus::Unavailable, ItemStatus::Unavailable),
            (ItemStatus::Overloaded, ItemStatus::Overloaded),
        ];
        for (copied, expected) in cases {
            let mut outcomes = [outcome(ItemStatus::Ok)];
            unite(&mut outcomes, &[0], &[result(copied)]);
            assert_eq!(outcomes[0].status, expected);
        }
    }
}
