//! The bookkeeping of a lane against what its callers were promised.

use std::sync::mpsc;

use proptest::prelude::*;
use tonic::{Status, Streaming, transport::Channel};

use super::{super::Outbound, *};

/// Numbers that are answered by themselves; a number above 1,000,000 stands for a large item.
struct Echo;

#[derive(Debug, PartialEq)]
enum Answer {
    Echoed(usize),
    Refused(ItemStatus),
}

impl Call for Echo {
    const NAME: &'static str = "echo";
    type Item = usize;
    type Answer = Answer;
    type Class = u8;
    type Request = (u64, u8, Vec<usize>);
    type Response = (u64, Vec<usize>);

    fn item_bytes(item: &usize) -> usize {
        if *item > 1_000_000 { COALESCED_BYTES_MAX / 2 } else { 8 }
    }
    fn request(id: u64, class: u8, items: Vec<usize>) -> Self::Request {
        (id, class, items)
    }
    fn response((id, items): Self::Response) -> (u64, Answers<Answer>) {
        (id, echoed(&items))
    }
    fn refused(status: ItemStatus) -> Answer {
        Answer::Refused(status)
    }
    async fn open(_: Channel, _: Outbound<Self>) -> Result<Streaming<Self::Response>, Status> {
        Err(Status::unimplemented("no transport in this test"))
    }
}

fn echoed(items: &[usize]) -> Answers<Answer> {
    let answers = items.iter().map(|n| Answer::Echoed(*n)).collect();
    Answers { answers, staleness_ms: 0 }
}

struct Lane {
    queue: Queue<Echo>,
    done: mpsc::Sender<(usize, Vec<Answer>)>,
    answered: mpsc::Receiver<(usize, Vec<Answer>)>,
    calls: usize,
}

impl Lane {
    fn new() -> Self {
        let (done, answered) = mpsc::channel();
        Self { queue: Queue::new(), done, answered, calls: 0 }
    }
    /// Whether the lane took the call; its answers come with its number.
    fn push(&mut self, class: u8, items: Vec<usize>) -> bool {
        let (call, done) = (self.calls, self.done.clone());
        self.calls += 1;
        let done = Box::new(move |a: Answers<Answer>| done.send((call, a.answers)).unwrap());
        self.queue.push(class, items, done).is_ok()
    }
    fn take(&mut self) -> Option<(u64, u8, Vec<usize>)> {
        self.queue.take(Instant::now())
    }
    fn finish(&mut self, answered: Vec<Answered<Echo>>) -> Vec<(usize, Vec<Answer>)> {
        for (done, answers) in answered {
            done(answers);
        }
        self.answered.try_iter().collect()
    }
}

#[tokio::test]
async fn what_waits_goes_out_as_one_message_and_each_caller_gets_its_part() {
    let mut lane = Lane::new();
    assert!(lane.push(0, vec![1, 2]));
    assert!(lane.push(0, vec![]));
    assert!(lane.push(0, vec![3]));
    let (id, _, items) = lane.take().unwrap();
    assert_eq!(items, [1, 2, 3]);
    assert!(lane.take().is_none());
    let answered = lane.queue.answer(id, echoed(&items)).unwrap();
    let all = lane.finish(answered);
    assert_eq!(
        all,
        [
            (0, vec![Answer::Echoed(1), Answer::Echoed(2)]),
            (1, vec![]),
            (2, vec![Answer::Echoed(3)]),
        ]
    );
    assert!(lane.queue.answer(id, echoed(&[])).is_none(), "answered twice");
}

#[tokio::test]
async fn classes_and_large_calls_get_messages_of_their_own() {
    let mut lane = Lane::new();
    let large = 2_000_000;
    for (class, items) in
        [(0, vec![1]), (1, vec![2]), (1, vec![large]), (1, vec![large]), (1, vec![3])]
    {
        assert!(lane.push(class, items));
    }
    let messages: Vec<_> = std::iter::from_fn(|| lane.take()).map(|(_, c, i)| (c, i)).collect();
    assert_eq!(messages, [(0, vec![1]), (1, vec![2, large]), (1, vec![large, 3])]);
}

#[tokio::test]
async fn missing_answers_count_as_unavailable() {
    let mut lane = Lane::new();
    lane.push(0, vec![1, 2]);
    let (id, ..) = lane.take().unwrap();
    let answered = lane.queue.answer(id, echoed(&[1])).unwrap();
    let unavailable = Answer::Refused(ItemStatus::Unavailable);
    assert_eq!(lane.finish(answered), [(0, vec![Answer::Echoed(1), unavailable])]);
}

#[tokio::test]
async fn a_full_lane_refuses_and_has_room_again_after_answers() {
    let mut lane = Lane::new();
    while lane.push(0, vec![0; ITEMS_PER_BATCH_MAX]) {}
    assert_eq!(lane.queue.items, LANE_ITEMS_MAX);
    let (id, _, items) = lane.take().unwrap();
    assert!(!lane.push(0, vec![0]));
    let answered = lane.queue.answer(id, echoed(&items)).unwrap();
    lane.finish(answered);
    assert!(lane.push(0, vec![0]));
}

#[tokio::test]
async fn so_many_messages_are_under_way_and_the_rest_gathers() {
    let mut lane = Lane::new();
    for n in 0..MESSAGES_UNDER_WAY_MAX {
        lane.push(0, vec![n]);
        assert!(lane.take().is_some());
    }
    lane.push(0, vec![7]);
    lane.push(0, vec![8]);
    assert!(lane.take().is_none());
    let answered = lane.queue.answer(3, echoed(&[2])).unwrap();
    lane.finish(answered);
    assert_eq!(lane.take().unwrap().2, [7, 8]);
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, usize),
    Take,
    /// Answers one of those under way.
    Answer(prop::sample::Index),
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, 0..40_usize).prop_map(|(class, count)| Step::Push(class, count)),
        3 => Just(Step::Take),
        3 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => Just(Step::Break),
    ]
}

proptest! {
    /// Every call is answered exactly once, with as many answers as items; items go out in the
    /// order of handing over; after a break nothing that was handed over before goes out.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(step(), 0..200)) {
        let mut lane = Lane::new();
        let (mut next, mut sent_up_to) = (0, 0);
        let (mut counts, mut answered) = (Vec::new(), Vec::new());
        let mut under_way: Vec<(u64, Vec<usize>)> = Vec::new();
        for step in steps.into_iter().chain([Step::Break]) {
            match step {
                Step::Push(class, count) => {
                    counts.push(count);
                    prop_assert!(lane.push(class, (next..next + count).collect()));
                    next += count;
                }
                Step::Take => {
                    let Some((id, _, items)) = lane.take() else { continue };
                    for item in &items {
                        prop_assert!(*item >= sent_up_to);
                        sent_up_to = *item + 1;
                    }
                    under_way.push((id, items));
                }
                Step::Answer(which) if !under_way.is_empty() => {
                    let (id, items) = under_way.remove(which.index(under_way.len()));
                    let dealt = lane.queue.answer(id, echoed(&items)).unwrap();
                    answered.extend(lane.finish(dealt));
                }
                Step::Answer(_) => {}
                Step::Break => {
                    let failed = lane.queue.fail_all(ItemStatus::Unavailable);
                    let failed = lane.finish(failed);
                    prop_assert!(failed.is_sorted_by_key(|(call, _)| *call));
                    answered.extend(failed);
                    under_way.clear();
                    sent_up_to = next;
                    prop_assert_eq!((lane.queue.items, lane.queue.bytes), (0, 0));
                }
            }
        }
        answered.sort_by_key(|(call, _)| *call);
        let seen: Vec<_> = answered.iter().map(|(call, a)| (*call, a.len())).collect();
        let expected: Vec<_> = counts.into_iter().enumerate().collect();
        prop_assert_eq!(seen, expected);
    }
}
