//! Which device is woken up when: a state machine without I/O or a clock.
//!
//! ```text
//!              note                 take
//!   (unknown) ──────▶ Ready ─────────────────▶ Quiet ──── the interval passes ──▶ (unknown)
//!                       ▲                        │ note
//!                       └── the interval passes ─┴──▶ Quiet, and again ◀── note later ── (unknown)
//! ```
//! The first message for a device wakes it up at once. However many follow within the interval cost
//! one more wake-up at its end. Every step is O(1): all intervals are equally long, so they end in
//! the order in which they began.
//!
//! Invariants: two `take`s of one device are at least an interval apart; a device noted is taken
//! later or was counted as dropped; at most `devices_max` are known.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use switchboard_api::v1::DeviceRef;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits to be taken.
    Ready,
    /// Was taken less than an interval ago; whether messages came since.
    Quiet { again: bool },
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The device can be taken now.
    Ready,
    /// It is covered by a wake-up that is still to come.
    Coalesced,
    /// Too many devices are known: nobody wakes it up on behalf of this message.
    Dropped,
}

/// The devices that were or will be woken up.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    devices_max: usize,
    phases: HashMap<DeviceRef, Phase>,
    /// Those that are `Ready`, the longest waiting first.
    ready: VecDeque<DeviceRef>,
    /// Those that are `Quiet`, with the end of their interval, ascending.
    quiet: VecDeque<(Instant, DeviceRef)>,
}

impl Schedule {
    pub(crate) fn new(interval: Duration, devices_max: usize) -> Self {
        let (phases, ready, quiet) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { interval, devices_max, phases, ready, quiet }
    }

    /// A message waits for a device that is not connected.
    pub(crate) fn note(&mut self, device: DeviceRef) -> Noted {
        if let Some(phase) = self.phases.get_mut(&device) {
            if let Phase::Quiet { again } = phase {
                *again = true;
            }
            return Noted::Coalesced;
        }
        if self.phases.len() >= self.devices_max {
            return Noted::Dropped;
        }
        self.phases.insert(device.clone(), Phase::Ready);
        self.ready.push_back(device);
        Noted::Ready
    }

    /// As [`Schedule::note`], but not before an interval has passed.
    pub(crate) fn note_later(&mut self, device: DeviceRef, now: Instant) -> Noted {
        if self.phases.contains_key(&device) || self.phases.len() >= self.devices_max {
            return self.note(device);
        }
        self.phases.insert(device.clone(), Phase::Quiet { again: true });
        self.quiet.push_back((now + self.interval, device));
        Noted::Coalesced
    }

    /// Up to `count` devices to wake up now. From here on each is quiet for an interval.
    pub(crate) fn take(&mut self, now: Instant, count: usize) -> Vec<DeviceRef> {
        self.end_intervals(now);
        let count = count.min(self.ready.len());
        let taken: Vec<_> = self.ready.drain(..count).collect();
        for device in &taken {
            self.phases.insert(device.clone(), Phase::Quiet { again: false });
            self.quiet.push_back((now + self.interval, device.clone()));
        }
        taken
    }

    /// Lets every interval end now: the process does.
    pub(crate) fn end_all_intervals(&mut self) {
        if let Some((end, _)) = self.quiet.back() {
            self.end_intervals(*end);
        }
    }

    /// When `take` is worth a call if nothing is noted before.
    pub(crate) fn next_at(&self, now: Instant) -> Option<Instant> {
        if self.ready.is_empty() { self.quiet.front().map(|(end, _)| *end) } else { Some(now) }
    }

    /// How many devices wait to be woken up, those in their interval included.
    pub(crate) fn len(&self) -> usize {
        self.phases.len()
    }

    fn end_intervals(&mut self, now: Instant) {
        while self.quiet.front().is_some_and(|(end, _)| *end <= now) {
            let Some((_, device)) = self.quiet.pop_front() else { return };
            match self.phases.get_mut(&device) {
                Some(phase @ Phase::Quiet { again: true }) => {
                    *phase = Phase::Ready;
                    self.ready.push_back(device);
                }
                Some(_) | None => {
                    self.phases.remove(&device);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn device(n: u32) -> DeviceRef {
        DeviceRef { user: Bytes::from_static(b"bob"), device: n }
    }

    #[test]
    fn a_burst_is_one_wake_up_now_and_one_at_the_end_of_the_interval() {
        let mut schedule = Schedule::new(INTERVAL, 10);
        let start = Instant::now();
        assert_eq!(schedule.note(device(1)), Noted::Ready);
        assert_eq!(schedule.note(device(1)), Noted::Coalesced);
        assert_eq!(schedule.take(start, 10), [device(1)]);
        for second in 1..30 {
            assert_eq!(schedule.note(device(1)), Noted::Coalesced);
            assert!(schedule.take(start + Duration::from_secs(second), 10).is_empty());
        }
        assert_eq!(schedule.next_at(start), Some(start + INTERVAL));
        assert_eq!(schedule.take(start + INTERVAL, 10), [device(1)]);
        assert!(schedule.take(start + 2 * INTERVAL, 10).is_empty());
        assert_eq!((schedule.len(), schedule.next_at(start)), (0, None));
    }

    #[test]
    fn a_device_that_is_noted_for_later_waits_for_an_interval() {
        let mut schedule = Schedule::new(INTERVAL, 2);
        let start = Instant::now();
        assert_eq!(schedule.note_later(device(1), start), Noted::Coalesced);
        assert_eq!(schedule.note(device(1)), Noted::Coalesced);
        assert_eq!(schedule.note(device(2)), Noted::Ready);
        assert_eq!(schedule.note_later(device(3), start), Noted::Dropped);
        assert_eq!(schedule.note_later(device(2), start), Noted::Coalesced);
        assert_eq!(schedule.take(start, 10), [device(2)]);
        assert_eq!(schedule.next_at(start), Some(start + INTERVAL));
        assert_eq!(schedule.take(start + INTERVAL, 10), [device(1)]);
    }

    #[test]
    fn a_device_that_finds_no_room_is_counted_and_the_others_stay() {
        let mut schedule = Schedule::new(INTERVAL, 2);
        let start = Instant::now();
        assert_eq!(schedule.note(device(1)), Noted::Ready);
        assert_eq!(schedule.note(device(2)), Noted::Ready);
        assert_eq!(schedule.note(device(3)), Noted::Dropped);
        assert_eq!(schedule.take(start, 1), [device(1)]);
        assert_eq!(schedule.take(start, 1), [device(2)]);
        assert_eq!(schedule.note(device(3)), Noted::Dropped);
        assert!(schedule.take(start + INTERVAL, 1).is_empty());
        assert_eq!(schedule.note(device(3)), Noted::Ready);
    }

    #[test]
    fn at_the_end_of_the_process_who_is_owed_a_wake_up_gets_it() {
        let mut schedule = Schedule::new(INTERVAL, 10);
        let start = Instant::now();
        schedule.note(device(1));
        schedule.note(device(2));
        assert_eq!(schedule.take(start, 10).len(), 2);
        schedule.note(device(2));
        schedule.end_all_intervals();
        assert_eq!(schedule.take(start, 10), [device(2)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Note(u32),
        NoteLater(u32),
        Take(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6_u32).prop_map(Step::Note),
            (0..6_u32).prop_map(Step::NoteLater),
            (0..4_usize).prop_map(Step::Take),
            (0..40_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn wake_ups_are_an_interval_apart_and_no_noted_device_is_forgotten(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut schedule = Schedule::new(INTERVAL, 4);
            let mut now = Instant::now();
            // When each was taken last, and whether a note since then waits for its take.
            let mut last = HashMap::<u32, Instant>::new();
            let mut owed = HashMap::<u32, bool>::new();
            for step in steps {
                match step {
                    Step::Note(n) => {
                        let noted = schedule.note(device(n)) != Noted::Dropped;
                        let owes = owed.entry(n).or_default();
                        *owes |= noted;
                    }
                    Step::NoteLater(n) => {
                        let noted = schedule.note_later(device(n), now) != Noted::Dropped;
                        let owes = owed.entry(n).or_default();
                        *owes |= noted;
                    }
                    Step::Take(count) => for taken in schedule.take(now, count) {
                        let before = last.insert(taken.device, now);
                        prop_assert!(before.is_none_or(|before| now >= before + INTERVAL));
                        prop_assert_eq!(owed.insert(taken.device, false), Some(true));
                    }
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                prop_assert!(schedule.len() <= 4);
                prop_assert!(schedule.quiet.len() + schedule.ready.len() == schedule.len());
            }
            now += INTERVAL;
            for taken in schedule.take(now, usize::MAX) {
                owed.insert(taken.device, false);
            }
            prop_assert!(owed.values().all(|owes| !owes));
        }
    }
}
