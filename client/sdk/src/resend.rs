//! Sending items of an enqueue again that nobody answered: a shard without a leader takes none, for a
//! moment. They are sent when the shard map tells of a change, or after a pause.
//!
//! It is harmless, because a message has an id: one that was stored after all is answered DUPLICATE.
//! The items of one call for one shard are stored together or not at all, so that they keep their
//! order, too. Calls of one sender do not: a later one may be stored before an earlier one is sent
//! again. Whoever keeps several under way decides that himself; see `Client::enqueue_then`.

use std::{future::Future, time::Duration};

use switchboard_api::v1::{ItemStatus, enqueue_request::Item, enqueue_response::Result as Answer};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    ClientOptions, Error,
    limits::RESEND_PAUSE_MAX,
    retry::{Backoff, Budget},
};

/// Sends items, and those that are answered UNAVAILABLE again, until the deadline or until the budget
/// is spent. What is unanswered then is UNAVAILABLE. `map` tells when leaders may have changed.
pub(crate) async fn enqueue<F, M>(
    items: Vec<Item>,
    options: &ClientOptions,
    budget: &Budget,
    mut map: watch::Receiver<M>,
    mut send: impl FnMut(Vec<Item>) -> F,
) -> Result<Vec<Answer>, Error>
where
    F: Future<Output = Result<Vec<Answer>, Error>>,
{
    let deadline = Instant::now() + options.deadline;
    let mut backoff = Backoff::new(options.backoff_base, RESEND_PAUSE_MAX);
    map.mark_unchanged();
    let mut answers = send(items.clone()).await?;
    loop {
        let open: Vec<usize> = unanswered(&answers).collect();
        if open.is_empty() {
            budget.earn();
            return Ok(answers);
        }
        let pause = backoff.next();
        if Instant::now() + pause >= deadline || !budget.spend() {
            return Ok(answers);
        }
        wait(pause, &mut map).await;
        map.mark_unchanged();
        let again = open.iter().filter_map(|at| items.get(*at).cloned()).collect();
        let Ok(answered) = timeout_at(deadline, send(again)).await else { return Ok(answers) };
        for (at, answer) in open.into_iter().zip(answered?) {
            if let Some(place) = answers.get_mut(at) {
                *place = answer;
            }
        }
    }
}

/// Waits for news of the map, but not for longer. Without a map there is none.
async fn wait<M>(pause: Duration, map: &mut watch::Receiver<M>) {
    let until = Instant::now() + pause;
    if let Ok(Err(_)) = timeout_at(until, map.changed()).await {
        sleep_until(until).await;
    }
}

fn unanswered(answers: &[Answer]) -> impl Iterator<Item = usize> {
    let places = answers.iter().enumerate();
    places.filter(|(_, answer)| answer.status() == ItemStatus::Unavailable).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::ready};

    use bytes::Bytes;

    use super::*;

    fn items(count: u8) -> Vec<Item> {
        let item = |n| Item { message_id: Bytes::copy_from_slice(&[n; 16]), ..Item::default() };
        (0..count).map(item).collect()
    }

    fn answer(status: ItemStatus) -> Answer {
        Answer { status: status.into(), ..Answer::default() }
    }

    /// Sends against a store that answers as told, call by call; what each call carried.
    async fn run(script: &[&[ItemStatus]], budget: &Budget) -> (Vec<ItemStatus>, Vec<Vec<u8>>) {
        let sent = RefCell::new(Vec::new());
        let send = |items: Vec<Item>| {
            let call = sent.borrow().len();
            sent.borrow_mut().push(items.iter().map(|item| item.message_id[0]).collect());
            let said = script.get(call).copied().unwrap_or(&[ItemStatus::Unavailable; 9]);
            ready(Ok(said.iter().copied().map(answer).take(items.len()).collect()))
        };
        let count = script[0].len() as u8;
        let map = watch::Sender::new(()).subscribe();
        let answers = enqueue(items(count), &ClientOptions::default(), budget, map, send).await;
        let statuses = answers.unwrap().iter().map(Answer::status).collect();
        (statuses, sent.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_unanswered_is_sent_again_and_in_its_order() {
        use ItemStatus::{Duplicate, MailboxFull, Ok, Unavailable};
        let script: &[&[ItemStatus]] = &[
            &[Ok, Unavailable, MailboxFull, Unavailable, Unavailable],
            &[Ok, Unavailable, Unavailable],
            &[Duplicate, Ok],
        ];
        let (statuses, sent) = run(script, &Budget::new()).await;
        assert_eq!(statuses, [Ok, Ok, MailboxFull, Duplicate, Ok]);
        assert_eq!(sent, [vec![0, 1, 2, 3, 4], vec![1, 3, 4], vec![3, 4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_asked_until_the_deadline() {
        let started = Instant::now();
        let (statuses, sent) = run(&[&[ItemStatus::Unavailable]], &Budget::new()).await;
        assert_eq!(statuses, [ItemStatus::Unavailable]);
        let deadline = ClientOptions::default().deadline;
        let took = started.elapsed();
        assert!(took <= deadline && took + RESEND_PAUSE_MAX >= deadline, "{took:?}");
        let fewest = deadline.as_millis() / RESEND_PAUSE_MAX.as_millis();
        assert!(sent.len() as u128 > fewest, "{} calls", sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_the_shard_map_ends_the_wait() {
        let (map, started) = (watch::Sender::new(0), Instant::now());
        let calls = RefCell::new(0);
        let send = |_| {
            *calls.borrow_mut() += 1;
            let status = match *calls.borrow() {
                1 => ItemStatus::Unavailable,
                _ => ItemStatus::Ok,
            };
            // Told while the call is under way: what it hears may be of before.
            map.send_replace(1);
            ready(Ok(vec![answer(status)]))
        };
        let options = ClientOptions::default();
        enqueue(items(1), &options, &Budget::new(), map.subscribe(), send).await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nothing_is_sent_again() {
        let budget = Budget::new();
        while budget.spend() {}
        let started = Instant::now();
        let (statuses, sent) = run(&[&[ItemStatus::Unavailable]], &budget).await;
        assert_eq!((statuses, sent.len()), (vec![ItemStatus::Unavailable], 1));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
