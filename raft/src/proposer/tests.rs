//! The proposer against a sink that is held back, refuses and loses entries at will.

use std::sync::atomic::AtomicUsize;

use switchboard_engine::command::{Ack, Enqueue};
use switchboard_engine::{Acked, DeviceId, EntryReader, ManualClock, MessageKind, Status};
use tokio::sync::Semaphore;

use super::*;
use crate::clocks::Clocks;

/// Applies an entry by answering each command with its own number; takes a permit per commit.
#[derive(Clone)]
struct TestSink {
    commits: Arc<Semaphore>,
    entries: Arc<Mutex<Vec<Vec<u64>>>>,
    stamps: Arc<Mutex<Vec<u64>>>,
    refusals: Arc<AtomicUsize>,
    /// Entries from this number on are refused for good.
    not_leader_from: Arc<AtomicUsize>,
}

impl TestSink {
    fn new(permits: usize) -> Self {
        Self {
            commits: Arc::new(Semaphore::new(permits)),
            entries: Arc::default(),
            stamps: Arc::default(),
            refusals: Arc::default(),
            not_leader_from: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    fn entry_sizes(&self) -> Vec<usize> {
        self.entries.lock().iter().map(Vec::len).collect()
    }
}

impl Sink for TestSink {
    async fn hand_over(&self, entry: Bytes) -> UnderWay {
        let refused = |outcome| UnderWay {
            committed: Box::pin(async { Err(()) }),
            outcome: Box::pin(async move { outcome }),
        };
        let refuse = |left: usize| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
            return refused(Outcome::LeaseExpired);
        }
        if self.entries.lock().len() >= self.not_leader_from.load(Ordering::SeqCst) {
            return refused(Outcome::NotLeader(Some(7)));
        }
        let reader = EntryReader::new(entry).expect("an entry");
        self.stamps.lock().push(reader.stamp_ms());
        let numbers: Vec<u64> =
            reader.map(|decoded| number(&decoded.expect("a command").command)).collect();
        let replies = numbers.iter().map(|number| reply(*number)).collect();
        self.entries.lock().push(numbers);
        let commits = self.commits.clone();
        UnderWay {
            committed: Box::pin(async move {
                commits.acquire().await.expect("open").forget();
                Ok(())
            }),
            outcome: Box::pin(async move { Outcome::Applied(replies) }),
        }
    }
}

fn command(number: u64) -> Command {
    Command::Ack(Ack {
        device: DeviceId::new("alice", 1),
        epoch: 0,
        up_to_seq: number,
        seqs: Vec::new(),
    })
}

fn large(bytes: usize) -> Command {
    Command::Enqueue(Enqueue {
        to_user: Bytes::from_static(b"bob"),
        to_device: 1,
        message_id: [0; 16],
        from: DeviceId::new("alice", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::from(vec![0; bytes]),
    })
}

fn number(command: &Command) -> u64 {
    match command {
        Command::Ack(ack) => ack.up_to_seq,
        _ => 0,
    }
}

fn reply(number: u64) -> Reply {
    Reply::Acked(Acked { status: Status::Ok, ack_floor: number, removed: 0 })
}

fn floors(replies: &[Reply]) -> Vec<u64> {
    replies
        .iter()
        .map(|reply| match reply {
            Reply::Acked(acked) => acked.ack_floor,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// A proposer of a group whose last stamp is this, on a node that just started and knows no other clock than
/// its own.
fn unsettled(clock: &Arc<ManualClock>, floor_ms: u64) -> (Arc<Proposer>, Arc<Clocks>) {
    let clocks = Arc::new(Clocks::new(clock.clone()));
    let log_time = Arc::new(LogTime::new(clocks.clone(), floor_ms));
    (Arc::new(Proposer::new(log_time, BOUNDS)), clocks)
}

const BOUNDS: Bounds = Bounds { items_max: 1_000, bytes_max: 8 << 20 };

fn proposer(bounds: Bounds) -> Arc<Proposer> {
    let clock = Arc::new(ManualClock::at_unix_ms(1_000));
    Arc::new(Proposer::new(
        Arc::new(LogTime::new(Arc::new(crate::clocks::Clocks::alone(clock)), 0)),
        bounds,
    ))
}

#[tokio::test]
async fn what_arrives_while_an_entry_is_under_way_becomes_one_entry() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(0));
    let first = proposer.propose(vec![command(0)]).expect("room");
    let run = tokio::spawn(proposer.clone().run(sink.clone()));
    while sink.entries.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let rest: Vec<_> =
        (1..=100).map(|n| proposer.propose(vec![command(n)]).expect("room")).collect();
    sink.commits.add_permits(2);
    assert_eq!(floors(&first.await.expect("applied")), [0]);
    for (proposed, n) in rest.into_iter().zip(1..) {
        assert_eq!(floors(&proposed.await.expect("applied")), [n]);
    }
    assert_eq!(sink.entry_sizes(), [1, 100]);
    assert_eq!((proposer.stats().entries, proposer.stats().commands), (2, 101));
    proposer.close();
    run.await.expect("ends");
}

#[tokio::test]
async fn the_order_of_calls_is_the_order_in_the_log() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10_000));
    tokio::spawn(proposer.clone().run(sink.clone()));
    let mut answers = Vec::new();
    for n in 0..500u64 {
        answers.push(proposer.propose(vec![command(2 * n), command(2 * n + 1)]).expect("room"));
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for (answer, n) in answers.into_iter().zip(0..) {
        assert_eq!(floors(&answer.await.expect("applied")), [2 * n, 2 * n + 1]);
    }
    let logged: Vec<u64> = sink.entries.lock().concat();
    assert_eq!(logged, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn too_much_waiting_is_refused_as_a_whole_with_a_time() {
    let bounds = Bounds { items_max: 10, bytes_max: 1 << 20 };
    let proposer = proposer(bounds);
    let _first = proposer.propose((0..8).map(command).collect()).expect("room");
    let refused = proposer.propose((8..11).map(command).collect()).expect_err("11 > 10");
    assert!(matches!(refused.reason, OverloadReason::Waiting { items: 8, .. }), "{refused}");
    assert!(refused.retry_after >= limits::OVERLOADED_RETRY_MIN);
    assert!(refused.retry_after <= limits::OVERLOADED_RETRY_MAX);
    let _fits = proposer.propose((8..10).map(command).collect()).expect("10 fit");
    assert_eq!((proposer.stats().waiting_items, proposer.stats().overloaded), (10, 1));

    let proposer = self::proposer(Bounds { items_max: 10, bytes_max: 100_000 });
    let _first = proposer.propose(vec![large(60_000)]).expect("room");
    proposer.propose(vec![large(60_000)]).expect_err("too many bytes");
}

#[tokio::test]
async fn room_is_made_by_proposing() {
    let bounds = Bounds { items_max: 2, bytes_max: 1 << 20 };
    let (proposer, sink) = (proposer(bounds), TestSink::new(10));
    let first = proposer.propose(vec![command(0), command(1)]).expect("room");
    proposer.propose(vec![command(2)]).expect_err("full");
    tokio::spawn(proposer.clone().run(sink));
    first.await.expect("applied");
    assert_eq!(proposer.stats().waiting_items, 0);
    proposer.propose(vec![command(2)]).expect("room again").await.expect("applied");
}

#[tokio::test]
async fn a_fresh_leaders_refusals_are_tried_again_inside() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    sink.refusals.store(3, Ordering::SeqCst);
    tokio::spawn(proposer.clone().run(sink.clone()));
    let proposed = proposer.propose(vec![command(5)]).expect("room");
    assert_eq!(floors(&proposed.await.expect("applied")), [5]);
    assert_eq!(proposer.stats().lease_retries, 3);
    assert_eq!(sink.entry_sizes(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_lease_for_long_is_none() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    sink.refusals.store(usize::MAX, Ordering::SeqCst);
    tokio::spawn(proposer.clone().run(sink));
    let proposed = proposer.propose(vec![command(5)]).expect("room");
    assert_eq!(proposed.await, Err(ProposeError::NotLeader { leader: None }));
}

#[tokio::test]
async fn a_large_proposal_spans_entries_and_is_answered_as_one() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    let mut commands: Vec<Command> = (0..40).map(|_| large(60_000)).collect();
    commands.extend((1..=3).map(command));
    let proposed = proposer.propose(commands).expect("room");
    let small = proposer.propose(vec![command(9)]).expect("room");
    tokio::spawn(proposer.clone().run(sink.clone()));
    let replies = proposed.await.expect("applied");
    assert_eq!(floors(&replies[40..]), [1, 2, 3]);
    assert_eq!(floors(&small.await.expect("applied")), [9]);
    assert_eq!(sink.entry_sizes(), [17, 17, 10]);
    assert_eq!(proposer.stats().waiting_bytes, 0);
}

/// The next entry commits while the one before is applied, and each is answered by a task of its own.
#[test]
fn parts_that_are_answered_out_of_order_are_put_in_order() {
    let (sender, mut receiver) = oneshot::channel();
    let commands = [vec![command(1)], vec![large(60_000); 20], vec![command(2)]].concat();
    let mut waiting = VecDeque::from([Waiting::new(commands, sender)]);
    let entry = || fill(&mut waiting, EntryBuilder::new(1)).0;
    let entries: Vec<Filled> = std::iter::from_fn(entry).collect();
    assert_eq!(entries.iter().map(|entry| entry.commands).collect::<Vec<_>>(), [18, 4]);
    let mut numbers = 0..22;
    let outcome = |entry: &Filled| numbers.by_ref().take(entry.commands).map(reply).collect();
    let outcomes: Vec<Vec<Reply>> = entries.iter().map(outcome).collect();
    for (entry, outcome) in entries.into_iter().zip(outcomes).rev() {
        assert!(receiver.try_recv().is_err());
        answer(entry.parts, Outcome::Applied(outcome));
    }
    let replies = receiver.try_recv().expect("both are answered").expect("applied");
    assert_eq!(floors(&replies), (0..22).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_of_a_proposal_is_applied_behind_its_failed_part() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    sink.not_leader_from.store(1, Ordering::SeqCst);
    let proposed = proposer.propose((0..60).map(|_| large(60_000)).collect()).expect("room");
    let behind = proposer.propose(vec![command(9)]).expect("room");
    tokio::spawn(proposer.clone().run(sink.clone()));
    // One entry of it was applied, so the answer must not claim that nothing was.
    assert_eq!(proposed.await, Err(ProposeError::OutcomeUnknown));
    assert_eq!(behind.await, Err(ProposeError::NotLeader { leader: Some(7) }));
    assert_eq!(sink.entry_sizes(), [17]);
    assert_eq!(proposer.stats().waiting_items, 0);
}

#[tokio::test]
async fn a_command_beyond_its_limits_refuses_its_proposal_alone() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    let proposed = proposer.propose(vec![command(1), large(2 << 20)]).expect("answered");
    let behind = proposer.propose(vec![command(9)]).expect("room");
    tokio::spawn(proposer.clone().run(sink.clone()));
    let refused = proposed.await;
    assert!(matches!(refused, Err(ProposeError::Refused { index: 1, .. })), "{refused:?}");
    assert_eq!(floors(&behind.await.expect("applied")), [9]);
    assert_eq!(sink.entry_sizes(), [1]);
    assert_eq!(proposer.stats().waiting_bytes, 0);
}

#[tokio::test]
async fn closing_answers_what_waits() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(10));
    let waiting = proposer.propose(vec![command(1)]).expect("room");
    proposer.close();
    proposer.clone().run(sink).await;
    assert_eq!(waiting.await, Err(ProposeError::Stopped));
    let late = proposer.propose(vec![command(2)]).expect("taken");
    assert_eq!(late.await, Err(ProposeError::Stopped));
    assert_eq!(proposer.propose(Vec::new()).expect("empty").await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_stamps_nothing_of_a_new_group() {
    const NOON: u64 = 1_700_000_000_000;
    let clock = Arc::new(ManualClock::at_unix_ms(NOON + 3_600_000));
    let (proposer, clocks) = unsettled(&clock, 0);
    let sink = TestSink::new(1);
    tokio::spawn(proposer.clone().run(sink.clone()));
    let refused = proposer.propose(vec![command(0)]).expect("room").await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
    assert!(sink.stamps.lock().is_empty());

    // What was refused left no trace of that time behind.
    clock.set_unix_ms(NOON);
    clocks.set_peers(Some(&std::collections::BTreeSet::new()));
    proposer.propose(vec![command(1)]).expect("room").await.expect("applied");
    assert_eq!(*sink.stamps.lock(), [NOON]);
}

/// Stamped at the last stamp, a message would look eight hours old a moment later.
#[tokio::test(start_paused = true)]
async fn a_group_that_was_off_for_a_night_stamps_nothing_before_the_time_is_known() {
    const MORNING: u64 = 1_700_000_000_000;
    let clock = Arc::new(ManualClock::at_unix_ms(MORNING));
    let (proposer, clocks) = unsettled(&clock, MORNING - 8 * 3_600_000);
    let sink = TestSink::new(1);
    tokio::spawn(proposer.clone().run(sink.clone()));
    let waiting = proposer.propose(vec![command(0)]).expect("room");
    tokio::time::sleep(limits::LEASE_RETRY_PAUSE).await;
    clocks.set_peers(Some(&std::collections::BTreeSet::new()));
    waiting.await.expect("applied");
    assert_eq!(*sink.stamps.lock(), [MORNING]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_quorum_that_is_gone() {
    let (proposer, sink) = (proposer(BOUNDS), TestSink::new(0));
    tokio::spawn(proposer.clone().run(sink.clone()));
    let under_way = proposer.propose(vec![command(1)]).unwrap();
    // Until it is handed over, so that the next one is behind it.
    while sink.entry_sizes().is_empty() {
        tokio::task::yield_now().await;
    }
    let behind = proposer.propose(vec![command(2)]).unwrap();
    assert_eq!(under_way.await, Err(ProposeError::OutcomeUnknown));
    assert_eq!(behind.await, Err(ProposeError::NotLeader { leader: None }));
    let later = proposer.propose(vec![command(3)]).unwrap();
    assert_eq!(later.await, Err(ProposeError::NotLeader { leader: None }));
    assert_eq!((proposer.stats().waiting_items, proposer.stats().waiting_bytes), (0, 0));
    // The quorum is back: the entry commits, and whoever comes from then on is served.
    sink.commits.add_permits(10);
    let served = async {
        loop {
            match proposer.propose(vec![command(4)]).unwrap().await {
                Ok(replies) => return replies,
                Err(error) => assert_eq!(error, ProposeError::NotLeader { leader: None }),
            }
        }
    };
    assert_eq!(floors(&served.await), [4]);
    assert_eq!(sink.entries.lock().concat(), [1, 4]);
    proposer.close();
}
