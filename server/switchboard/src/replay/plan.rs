//! When things happen in a replay: starts and pauses of conversations, online and offline stretches
//! of users, and which messages are read. Pure and seeded: one seed gives one plan.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::corpus::{Conversation, Corpus};
use crate::limits::STRETCH_MIN;

/// Offline stretches longer than this many means come once in 500,000.
const SILENCE_MEANS: u32 = 13;

/// What the plan is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanOptions {
    /// Longest pause between two messages, before `speedup` divides it.
    pub(crate) pause_max: Duration,
    /// Pauses are divided by this.
    pub(crate) speedup: f64,
    /// Share of the time that each user is offline, 0.0 to 0.9.
    pub(crate) offline_fraction: f64,
    /// Mean length of an offline stretch.
    pub(crate) offline_mean: Duration,
    /// Seeds every draw.
    pub(crate) seed: u64,
}

impl PlanOptions {
    /// How long nothing at all may happen by plan: a pause, and time offline on top of it.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.pause_max.div_f64(self.speedup) + self.offline_mean.saturating_mul(SILENCE_MEANS)
    }
}

/// The timing of one conversation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timing {
    /// Wait before the first message.
    pub(crate) start: Duration,
    /// Wait before each message, counted from when the one before it was handed over; that of the
    /// first is zero.
    pub(crate) pauses: Vec<Duration>,
}

impl Timing {
    fn length(&self) -> Duration {
        self.pauses.iter().sum()
    }
}

/// The timing of all conversations, in the order of the corpus. The longest one starts at once; the
/// others start at a random time such that, without anybody offline, they would end before it does.
pub(crate) fn timings(corpus: &Corpus, options: &PlanOptions) -> Vec<Timing> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut timings: Vec<Timing> = corpus
        .conversations
        .iter()
        .map(|conversation| Timing { start: Duration::ZERO, pauses: pauses(conversation, options) })
        .collect();
    let longest = timings.iter().map(Timing::length).max().unwrap_or_default();
    for timing in &mut timings {
        let slack = longest.saturating_sub(timing.length());
        timing.start = slack.mul_f64(random.random_range(0.0..=1.0));
    }
    timings
}

fn pauses(conversation: &Conversation, options: &PlanOptions) -> Vec<Duration> {
    let messages = &conversation.messages;
    let first = messages.first().map(|_| Duration::ZERO);
    let later = messages.iter().zip(messages.iter().skip(1)).map(|(before, after)| {
        let seconds = u64::try_from(after.at.saturating_sub(before.at)).unwrap_or(0);
        Duration::from_secs(seconds).min(options.pause_max).div_f64(options.speedup)
    });
    first.into_iter().chain(later).collect()
}

/// Which messages of a conversation their recipient reads: those after which the recipient writes
/// something in the same conversation. Who answers has read; what nobody answered stays *delivered*.
pub(crate) fn read(conversation: &Conversation) -> Vec<bool> {
    let messages = &conversation.messages;
    let mut last_by = std::collections::HashMap::new();
    for (n, message) in messages.iter().enumerate() {
        last_by.insert(message.from, n);
    }
    messages
        .iter()
        .enumerate()
        .map(|(n, message)| last_by.get(&message.to).is_some_and(|last| *last > n))
        .collect()
}

/// How a stretch online ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// With Goodbye.
    Clean,
    /// The connection is dropped without a word.
    Abrupt,
}

/// A time online, followed by a time offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Time online; zero only in a user's first stretch, who then starts offline.
    pub(crate) online: Duration,
    /// How it ends.
    pub(crate) leave: Leave,
    /// Time offline.
    pub(crate) offline: Duration,
}

/// The endless sequence of a user's stretches: both kinds have exponentially distributed lengths
/// above a minimum, with means that give the wanted share of the time offline.
#[derive(Debug)]
pub(crate) struct Stretches {
    random: StdRng,
    offline_mean: Duration,
    online_mean: Duration,
    starts_offline: bool,
}

impl Stretches {
    /// The stretches of the user with this index, or `None` if nobody ever goes offline.
    pub(crate) fn new(options: &PlanOptions, user: u64) -> Option<Stretches> {
        let fraction = options.offline_fraction;
        if fraction <= 0.0 {
            return None;
        }
        let mut random = StdRng::seed_from_u64(options.seed ^ user.wrapping_add(1).rotate_left(32));
        let starts_offline = random.random_bool(fraction.clamp(0.0, 1.0));
        let offline_mean = options.offline_mean.max(STRETCH_MIN);
        Some(Stretches {
            random,
            offline_mean,
            online_mean: offline_mean
                .mul_f64((1.0 - fraction).max(0.0) / fraction)
                .max(STRETCH_MIN),
            starts_offline,
        })
    }

    fn length(&mut self, mean: Duration) -> Duration {
        let above = mean.saturating_sub(STRETCH_MIN);
        let uniform: f64 = self.random.random_range(f64::MIN_POSITIVE..1.0);
        STRETCH_MIN + above.mul_f64(-uniform.ln())
    }
}

impl Iterator for Stretches {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        let online = if std::mem::take(&mut self.starts_offline) {
            Duration::ZERO
        } else {
            self.length(self.online_mean)
        };
        let leave = if self.random.random_bool(0.5) { Leave::Clean } else { Leave::Abrupt };
        Some(Stretch { online, leave, offline: self.length(self.offline_mean) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus::CorpusBuilder;
    use super::*;

    fn options() -> PlanOptions {
        PlanOptions {
            pause_max: Duration::from_secs(2),
            speedup: 4.0,
            offline_fraction: 0.3,
            offline_mean: Duration::from_secs(4),
            seed: 7,
        }
    }

    fn corpus() -> Corpus {
        let mut corpus = CorpusBuilder::default();
        for (at, from, to) in
            [(10, "a", "b"), (11, "a", "b"), (500, "b", "a"), (400, "b", "a"), (401, "a", "b")]
        {
            corpus.push("long", from, to, at, String::new());
        }
        corpus.push("short", "c", "a", 0, String::new());
        corpus.finish()
    }

    #[test]
    fn pauses_are_capped_scaled_and_never_negative() {
        let timings = timings(&corpus(), &options());
        let milliseconds: Vec<_> = timings[0].pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(milliseconds, [0, 250, 500, 0, 250]);
        assert_eq!(timings[0].start, Duration::ZERO, "the longest starts at once");
        assert!(timings[1].start <= Duration::from_secs(1));
        assert_eq!(timings, super::timings(&corpus(), &options()), "one seed, one plan");
    }

    #[test]
    fn what_was_answered_was_read() {
        assert_eq!(read(&corpus().conversations[0]), [true, true, true, true, false]);
        assert_eq!(read(&corpus().conversations[1]), [false]);
    }

    #[test]
    fn stretches_give_the_wanted_share_of_time_offline() {
        let (mut online, mut offline, mut clean, mut start_offline) = (0.0, 0.0, 0, 0);
        let users = 400;
        for user in 0..users {
            for (n, stretch) in Stretches::new(&options(), user).unwrap().take(50).enumerate() {
                assert!(stretch.offline >= STRETCH_MIN);
                assert!(stretch.online >= STRETCH_MIN || (n == 0 && stretch.online.is_zero()));
                start_offline += u32::from(stretch.online.is_zero());
                online += stretch.online.as_secs_f64();
                offline += stretch.offline.as_secs_f64();
                clean += u32::from(stretch.leave == Leave::Clean);
            }
        }
        let fraction = offline / (online + offline);
        assert!((0.28..0.32).contains(&fraction), "{fraction}");
        assert!((8_000..12_000).contains(&clean), "both ways of leaving: {clean}");
        assert!((80..160).contains(&start_offline), "{start_offline} of {users}");
    }

    #[test]
    fn nobody_goes_offline_at_fraction_zero() {
        assert!(Stretches::new(&PlanOptions { offline_fraction: 0.0, ..options() }, 1).is_none());
    }
}
