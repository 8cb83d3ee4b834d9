//! Log time: the stamps that a leader writes on its entries, the only clock that `apply` knows.
//!
//! The clock meant here is the median of the nodes' [clocks](crate::clocks), or where too few of them are known,
//! of the group's members'; of a node alone, its own.
//!
//! A stamp is the larger of the last stamp and the clock, and never runs ahead of the monotonic
//! time that passed since the last stamp by more than a bound: a clock that leaps by an hour would
//! otherwise expire an hour of messages. Such a leap raises an alarm; from the stamp that found it on, log time
//! goes on at the pace of monotonic time and an eighth more, so that a leap that turns out to be true (the clock
//! was wrong before) is caught up with in time, while a false one costs little until somebody has
//! seen the alarm. A clock that steps back makes log time stand still, never go back.
//!
//! ```text
//!   log time
//!      │          ╱ clock, leapt
//!      │        ╱         ╱
//!      │        │     ╱╱   the leap + elapsed × 9/8
//!      │        │ ╱╱
//!      │       ╱      the last agreement + elapsed
//!      │    ╱
//!      └──────────────────── monotonic time
//! ```
//! A restart knows no monotonic time since the last stamp: the clock is believed once, and the
//! last applied stamp is the floor. So is a stamp that a replica hears of while it catches up: it may be of
//! yesterday, and says nothing of what time it is. A stamp is taken for one of now if it is near the clock, or
//! keeps to the pace of those before it for some seconds. One that is further than the pace allows refutes
//! what was agreed on: time passed that the monotonic clock did not count.
//!
//! While fewer than a majority of the clocks are known there is no median, and nothing is believed:
//! log time goes on at the monotonic pace. Where that is not known, as after a restart, nothing is stamped
//! until there is a median: by one wrong clock, or by the last stamp, which may be of yesterday, what is
//! stamped would expire as soon as the time is known.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clocks::{Clocks, millis};
use crate::limits::{CLOCK_DRIFT_MAX_PART, CLOCK_JUMP_MAX_MS, PACE_HEARD_MIN_MS};
use crate::planted::{self, PlantedBug};
use crate::types::NodeId;
use parking_lot::Mutex;

/// The stamps of one group.
pub(crate) struct LogTime {
    clocks: Arc<Clocks>,
    /// Of the group, as far as they are known. A lock, for they change; held to look at a few clocks.
    members: Mutex<BTreeSet<NodeId>>,
    /// Guards what changes together; held for arithmetic and a look at the clocks.
    state: Mutex<State>,
    alarms: AtomicU64,
}

#[derive(Clone, Copy)]
struct State {
    last_ms: u64,
    /// When log time was last known to be right; none after a start.
    agreed: Option<Moment>,
    /// While there is none: a stamp that may be old, and when it was heard.
    heard: Option<Moment>,
    /// While the clock is further ahead than time can have passed: when that was found.
    leap: Option<Moment>,
}

impl State {
    /// The last stamp is of now.
    fn agree(&mut self, now: Duration) {
        self.agreed = Some(Moment { ms: self.last_ms, at: now });
        self.heard = None;
    }
}

/// Log time at a monotonic time.
#[derive(Clone, Copy)]
struct Moment {
    ms: u64,
    at: Duration,
}

impl Moment {
    /// What log time is by now if nothing was wrong with the pace.
    fn pace_ms(self, now: Duration) -> u64 {
        self.ms.saturating_add(self.elapsed_ms(now))
    }

    /// Whether no clock that is right can show this by now.
    fn is_leapt_by(self, clock_ms: u64, now: Duration) -> bool {
        let drift_ms = self.elapsed_ms(now) / CLOCK_DRIFT_MAX_PART;
        let latest_ms = self.pace_ms(now).saturating_add(drift_ms);
        clock_ms > latest_ms.saturating_add(CLOCK_JUMP_MAX_MS)
    }

    /// The latest that log time may be by now, for it may have been catching up all the time.
    fn limit_ms(self, now: Duration) -> u64 {
        self.pace_ms(now).saturating_add(self.elapsed_ms(now) / 8)
    }

    /// Whether a stamp that is made now could follow on this one.
    fn is_followed_by(self, stamp_ms: u64, now: Duration) -> bool {
        let earliest_ms = self.pace_ms(now).saturating_sub(CLOCK_JUMP_MAX_MS);
        stamp_ms >= earliest_ms && !self.is_refuted_by(stamp_ms, now)
    }

    /// Whether no stamp that is made now could be so late.
    fn is_refuted_by(self, stamp_ms: u64, now: Duration) -> bool {
        stamp_ms > self.limit_ms(now).saturating_add(CLOCK_JUMP_MAX_MS)
    }

    fn elapsed_ms(self, now: Duration) -> u64 {
        millis(now.saturating_sub(self.at))
    }
}

/// What a stamp would be now, and whether the clock leaps.
struct Reading {
    stamp_ms: u64,
    state: State,
}

impl LogTime {
    /// `floor_ms` is the last applied stamp, 0 for a new group.
    pub(crate) fn new(clocks: Arc<Clocks>, floor_ms: u64) -> Self {
        let state = State { last_ms: floor_ms, agreed: None, heard: None, leap: None };
        let members = Mutex::default();
        Self { clocks, members, state: Mutex::new(state), alarms: AtomicU64::new(0) }
    }

    /// The stamp of the next entry.
    pub(crate) fn stamp(&self) -> u64 {
        let mut state = self.state.lock();
        let reading = self.read(*state);
        if reading.state.leap.is_some() && state.leap.is_none() {
            self.alarms.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                clock_ms = self.clock_of_most(),
                log_time_ms = reading.stamp_ms,
                "the clock leapt ahead of log time; entries are stamped at the monotonic pace"
            );
        }
        *state = reading.state;
        reading.stamp_ms
    }

    /// What [`Self::stamp`] would give, without giving it.
    pub(crate) fn now(&self) -> u64 {
        let state = *self.state.lock();
        self.read(state).stamp_ms
    }

    fn read(&self, state: State) -> Reading {
        let own = self.clocks.own();
        if planted::is(PlantedBug::OwnClock) {
            return read(State { agreed: None, ..state }, own.unix_ms(), own.monotonic());
        }
        match self.clock_of_most() {
            Some(clock_ms) => read(state, clock_ms, own.monotonic()),
            None => hold(state, own.monotonic()),
        }
    }

    /// An entry with this stamp was applied, maybe one of another leader, and maybe one of long ago.
    pub(crate) fn observe(&self, stamp_ms: u64) {
        let mut state = self.state.lock();
        if stamp_ms <= state.last_ms {
            return;
        }
        state.last_ms = stamp_ms;
        let now = self.clocks.own().monotonic();
        let clock_ms = self.clock_of_most();
        if clock_ms.is_some_and(|clock_ms| clock_ms.abs_diff(stamp_ms) <= CLOCK_JUMP_MAX_MS) {
            return state.agree(now);
        }
        if state.agreed.is_some_and(|agreed| agreed.is_refuted_by(stamp_ms, now)) {
            state.agreed = None;
        }
        let before = state.agreed.or(state.heard);
        let keeps_pace = before.is_some_and(|moment| moment.is_followed_by(stamp_ms, now));
        // While it catches up, a replica hears in an instant what was stamped over hours.
        if keeps_pace && before.is_some_and(|moment| moment.elapsed_ms(now) >= PACE_HEARD_MIN_MS) {
            state.agree(now);
        } else if !keeps_pace && state.agreed.is_none() {
            state.heard = Some(Moment { ms: stamp_ms, at: now });
        }
    }

    /// An entry with this stamp was applied that an earlier life of this node had in its log. It is a floor, and
    /// says nothing of what time it is now: since then the node may have been off for hours.
    pub(crate) fn remember(&self, stamp_ms: u64) {
        let mut state = self.state.lock();
        state.last_ms = state.last_ms.max(stamp_ms);
    }

    /// Whether there is a time to stamp with.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.lock().agreed.is_some() || self.clock_of_most().is_some()
    }

    /// Tells who the members of the group are.
    pub(crate) fn set_members(&self, members: &[NodeId]) {
        *self.members.lock() = members.iter().copied().collect();
    }

    /// What most clocks agree on; where too few are known, as when half of all nodes are away, most of the
    /// group's members. Whoever leads reaches a majority of these.
    fn clock_of_most(&self) -> Option<u64> {
        self.clocks.median_ms().or_else(|| self.clocks.median_among(&self.members.lock()))
    }

    /// What the clock of this node shows.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clocks.own().unix_ms()
    }

    /// How often the clock was seen to leap ahead, of log time or of the other nodes' clocks.
    pub(crate) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Relaxed) + self.clocks.alarms()
    }

    /// Whether the clock is ahead of log time, or apart from the other clocks, by more than the
    /// bound right now.
    pub(crate) fn is_leaping(&self) -> bool {
        self.state.lock().leap.is_some() || self.clocks.is_off()
    }
}

/// The pure step: the state and two clocks in, the stamp and the next state out.
fn read(mut state: State, clock_ms: u64, monotonic: Duration) -> Reading {
    if let Some(agreed) = state.agreed
        && agreed.is_leapt_by(clock_ms, monotonic)
    {
        let found = Moment { ms: state.last_ms.max(agreed.pace_ms(monotonic)), at: monotonic };
        let limit_ms = state.leap.get_or_insert(found).limit_ms(monotonic);
        if clock_ms > limit_ms.saturating_add(CLOCK_JUMP_MAX_MS) {
            state.last_ms = state.last_ms.max(limit_ms);
            return Reading { stamp_ms: state.last_ms, state };
        }
    }
    state.leap = None;
    // A clock that is behind is not believed, so the last agreement stays: when it is
    // set right again, the time that passed since then is no leap.
    if clock_ms >= state.last_ms || state.agreed.is_none() {
        state.last_ms = state.last_ms.max(clock_ms);
        state.agree(monotonic);
    }
    Reading { stamp_ms: state.last_ms, state }
}

/// The same without a clock to go by: log time goes on at the monotonic pace.
fn hold(mut state: State, monotonic: Duration) -> Reading {
    if let Some(agreed) = state.agreed {
        state.last_ms = state.last_ms.max(agreed.pace_ms(monotonic));
    }
    Reading { stamp_ms: state.last_ms, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: State = State { last_ms: 1_000_000, agreed: None, heard: None, leap: None };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stamp_of_an_earlier_life_is_a_floor_and_not_the_time() {
        let off_ms = 8 * 3_600_000;
        let clock = || Arc::new(switchboard_engine::ManualClock::at_unix_ms(1_000_000 + off_ms));
        let log_time = LogTime::new(Arc::new(Clocks::alone(clock())), 0);
        log_time.remember(1_000_000);
        assert_eq!((log_time.stamp(), log_time.alarms()), (1_000_000 + off_ms, 0));
    }

    /// What a replica hears while it catches up is of any age.
    #[test]
    fn a_stamp_of_yesterday_is_a_floor_and_not_the_time() {
        let now_ms = 1_000_000 + 86_400_000;
        let clock = Arc::new(switchboard_engine::ManualClock::at_unix_ms(now_ms));
        let log_time = LogTime::new(Arc::new(Clocks::alone(clock.clone())), 0);
        for entry in 0..100 {
            log_time.observe(1_000_000 + entry * 60_000);
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!((log_time.stamp(), log_time.alarms()), (now_ms + 100, 0));
    }

    #[test]
    fn stamps_that_keep_to_the_pace_say_what_time_it_is_whatever_the_clock_shows() {
        let clock = Arc::new(switchboard_engine::ManualClock::at_unix_ms(3_600_000 + 1_000_000));
        let log_time = LogTime::new(Arc::new(Clocks::alone(clock.clone())), 0);
        for entry in 0..=60 {
            log_time.observe(1_000_000 + entry * 100);
            clock.advance(Duration::from_millis(100));
        }
        let stamp_ms = log_time.stamp();
        assert!((1_006_100..=1_006_300).contains(&stamp_ms), "{stamp_ms}");
        assert_eq!(log_time.alarms(), 1);
    }

    /// As when a machine stands still and its monotonic clock with it.
    #[test]
    fn a_log_that_is_ahead_of_the_pace_refutes_it() {
        const NIGHT_MS: u64 = 8 * 3_600_000;
        let clock = Arc::new(switchboard_engine::ManualClock::at_unix_ms(1_000_000));
        let log_time = LogTime::new(Arc::new(Clocks::alone(clock.clone())), 0);
        assert_eq!(log_time.stamp(), 1_000_000);
        clock.set_unix_ms(1_000_000 + NIGHT_MS);
        for entry in 1..=100 {
            log_time.observe(1_000_000 + entry * 100_000);
        }
        assert_eq!((log_time.stamp(), log_time.alarms()), (1_000_000 + NIGHT_MS, 0));
    }

    #[test]
    fn the_clock_is_believed_once_after_a_start() {
        let reading = read(START, 90_000_000, at(5));
        assert_eq!(reading.stamp_ms, 90_000_000);
        assert!(reading.state.leap.is_none());
    }

    #[test]
    fn a_restart_never_goes_below_the_last_applied_stamp() {
        assert_eq!(read(START, 10, at(5)).stamp_ms, 1_000_000);
    }

    #[test]
    fn a_clock_that_steps_back_makes_log_time_stand_still() {
        let before = read(START, 2_000_000, at(10));
        let back = read(before.state, 1_500_000, at(11));
        assert_eq!(back.stamp_ms, 2_000_000);
        // Set right after ten minutes: what passed since the last agreement is no leap.
        let right = read(back.state, 2_600_000, at(610));
        assert_eq!(right.stamp_ms, 2_600_000);
        assert!(right.state.leap.is_none());
    }

    #[test]
    fn a_leap_of_an_hour_is_followed_at_the_monotonic_pace_only() {
        let before = read(START, 2_000_000, at(10));
        let leapt = read(before.state, 2_000_000 + 3_600_000, at(18));
        assert_eq!(leapt.stamp_ms, 2_000_000 + 8_000);
        assert!(leapt.state.leap.is_some());
        let later = read(leapt.state, 2_000_000 + 3_600_000 + 16_000, at(34));
        assert_eq!(later.stamp_ms, 2_000_000 + 8_000 + 16_000 + 2_000);
        // The clock is set right again: log time waits for it without going back.
        let right = read(later.state, 2_000_000 + 24_100, at(34));
        assert_eq!(right.stamp_ms, later.stamp_ms);
        assert!(right.state.leap.is_none());
    }

    #[test]
    fn a_true_leap_is_caught_up_with() {
        let mut state = read(START, 2_000_000, at(0)).state;
        // Ten seconds ahead for good: an eighth more than the pace needs 76 s (and the bound).
        for second in 1..=80 {
            state = read(state, 2_010_000 + second * 1_000, at(second)).state;
        }
        assert!(state.leap.is_none());
        assert_eq!(state.last_ms, 2_010_000 + 80_000);
    }

    #[test]
    fn without_a_median_time_goes_on_and_nothing_is_believed() {
        assert_eq!(hold(START, at(5)).stamp_ms, 1_000_000, "a restart stands still");
        let before = read(START, 2_000_000, at(10));
        let held = hold(before.state, at(18));
        assert_eq!(held.stamp_ms, 2_008_000);
        // The median is known again, and was right all the time.
        let known = read(held.state, 2_008_050, at(18));
        assert_eq!((known.stamp_ms, known.state.leap.is_some()), (2_008_050, false));
    }

    #[test]
    fn idle_hours_are_no_leap() {
        let before = read(START, 2_000_000, at(10));
        let later = read(before.state, 2_000_000 + 7_200_000, at(10 + 7_200));
        assert_eq!(later.stamp_ms, 9_200_000);
        assert!(later.state.leap.is_none());
    }

    #[test]
    fn a_leap_after_idle_hours_is_found_and_a_clock_that_drifts_is_not_one() {
        let before = read(START, 2_000_000, at(10));
        let night_ms = 8 * 3_600_000;
        let morning = at(10 + 8 * 3_600);
        let drifted = read(before.state, 2_000_000 + night_ms + 14_000, morning);
        assert!(drifted.state.leap.is_none());
        assert_eq!(drifted.stamp_ms, 2_000_000 + night_ms + 14_000);
        let leapt = read(before.state, 2_000_000 + night_ms + 60_000, morning);
        assert!(leapt.state.leap.is_some());
        assert_eq!(leapt.stamp_ms, 2_000_000 + night_ms);
    }

    #[test]
    fn stamps_never_go_back_under_any_clock() {
        let mut state = START;
        let mut last = 0;
        let mut seed = 88_172_645_463_325_252_u64;
        for step in 0..10_000u64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let reading = read(state, seed % 10_000_000, Duration::from_millis(step * 7));
            assert!(reading.stamp_ms >= last);
            last = reading.stamp_ms;
            state = reading.state;
        }
    }
}
