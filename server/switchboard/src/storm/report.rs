//! What a storm did, as a table and as JSON.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde::Serialize;

use super::crowd::End;
use super::others::Sample;
use crate::output::table;

/// The crowd's return is counted in steps of so many milliseconds.
pub(crate) const STEP_MS: u64 = 100;
/// The latency of others is told in steps of so many.
pub(crate) const OTHERS_STEP_MS: u64 = 500;

/// The report of a storm. Its fields are those of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) devices: usize,
    /// That died; as many others took over.
    pub(crate) gateways: usize,
    pub(crate) worker_processes: usize,
    /// Logins of the whole crowd before the storm.
    pub(crate) logins_per_s: f64,
    pub(crate) calm_seconds: f64,
    /// From the kill until each device was taken in again.
    pub(crate) back_ms: Times,
    pub(crate) back: usize,
    /// Devices that did not come back in time.
    pub(crate) missing: usize,
    pub(crate) step_ms: u64,
    /// How many came back in each step after the kill.
    pub(crate) back_by_step: Vec<u64>,
    /// Attempts that failed meanwhile, by what was said.
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) lookups: Compared,
    pub(crate) messages: Compared,
    pub(crate) others_step_ms: u64,
    /// Look-ups and messages of others in each step; the kill is at 0.
    pub(crate) others_by_step: Vec<Step>,
    /// Look-ups of some of the crowd while it came back: those that named a dead gateway.
    pub(crate) ghosts_by_time: Vec<Ghosts>,
    /// From the kill until no look-up named a dead gateway any more.
    pub(crate) ghosts_gone_ms: Option<u64>,
    /// Sessions on dead gateways once all were back; looked for among the whole crowd.
    pub(crate) ghosts: usize,
    /// Devices that look-ups found once all were back.
    pub(crate) found: usize,
    /// Messages to the crowd that were safe, before the kill and after.
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    pub(crate) repeats_dropped: u64,
    /// Shown to the application twice.
    pub(crate) shown_twice: usize,
}

/// Times in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) failed: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Calls of others before the kill, and from it until all were back.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) calm_ms: Times,
    pub(crate) storm_ms: Times,
    /// How many times longer the slowest hundredth took.
    pub(crate) p99_ratio: Option<f64>,
}

/// Calls of others in one step.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) at_ms: i64,
    pub(crate) lookup_p99_ms: Option<f64>,
    pub(crate) message_p99_ms: Option<f64>,
}

/// What one look at some of the crowd found.
#[derive(Debug, Serialize)]
pub(crate) struct Ghosts {
    pub(crate) at_ms: u64,
    pub(crate) asked: usize,
    pub(crate) ghosts: usize,
    pub(crate) live: usize,
}

impl Times {
    /// Of milliseconds in any order.
    fn of(mut ms: Vec<f64>, failed: usize) -> Times {
        ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = ms.len().saturating_sub(1) as f64;
            ms.get((last * share) as usize).copied().unwrap_or_default()
        };
        Times { count: ms.len(), failed, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }

    fn of_samples<'a>(samples: impl Iterator<Item = &'a Sample>) -> Times {
        let (mut ms, mut failed) = (Vec::new(), 0);
        for sample in samples {
            // What failed took that long, too: it is no fast call.
            ms.push(sample.us as f64 / 1e3);
            failed += usize::from(!sample.is_done);
        }
        Times::of(ms, failed)
    }

    fn words(&self) -> String {
        let Times { count, failed, p50, p90, p99, max } = self;
        let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!("p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  max {max:.2}  ({count}{failed})")
    }
}

impl Compared {
    /// Of samples of a time around the kill.
    pub(crate) fn of(samples: &[Sample], killed: Instant, all_back: Instant) -> Compared {
        let calm_ms = Times::of_samples(samples.iter().filter(|sample| sample.due < killed));
        let is_of_storm = |sample: &&Sample| (killed..all_back).contains(&sample.due);
        let storm_ms = Times::of_samples(samples.iter().filter(is_of_storm));
        let p99_ratio = (calm_ms.p99 > 0.0).then(|| storm_ms.p99 / calm_ms.p99);
        Compared { calm_ms, storm_ms, p99_ratio }
    }
}

/// The slowest hundredth of look-ups and messages in each step.
pub(crate) fn steps(lookups: &[Sample], messages: &[Sample], killed: Instant) -> Vec<Step> {
    let by_step = |samples: &[Sample]| {
        let mut steps: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for Sample { due, us, .. } in samples {
            let ms = match due.checked_duration_since(killed) {
                Some(after) => after.as_millis() as i64,
                None => -(killed.duration_since(*due).as_millis() as i64) - 1,
            };
            steps.entry(ms.div_euclid(OTHERS_STEP_MS as i64)).or_default().push(*us as f64 / 1e3);
        }
        steps
    };
    let (mut lookups, mut messages) = (by_step(lookups), by_step(messages));
    let all: std::collections::BTreeSet<i64> =
        lookups.keys().chain(messages.keys()).copied().collect();
    let p99 =
        |steps: &mut BTreeMap<i64, Vec<f64>>, at| steps.remove(&at).map(|ms| Times::of(ms, 0).p99);
    all.into_iter()
        .map(|at| Step {
            at_ms: at * OTHERS_STEP_MS as i64,
            lookup_p99_ms: p99(&mut lookups, at),
            message_p99_ms: p99(&mut messages, at),
        })
        .collect()
}

/// When devices came back, by step and as times.
pub(crate) fn returns(end: &End, killed_ms: u64) -> (Vec<u64>, Times) {
    let after: Vec<u64> = end.back_at_ms.iter().map(|at| at.saturating_sub(killed_ms)).collect();
    let steps = after.iter().max().map_or(0, |last| last / STEP_MS + 1);
    let mut by_step = vec![0; usize::try_from(steps).unwrap_or(0)];
    for ms in &after {
        if let Some(step) = by_step.get_mut((ms / STEP_MS) as usize) {
            *step += 1;
        }
    }
    (by_step, Times::of(after.into_iter().map(|ms| ms as f64).collect(), 0))
}

/// Messages that were safe and never came, and those that came more than once.
pub(crate) fn lost_and_repeated(sent: &[u64], received: &[u64]) -> (usize, usize) {
    let came: HashSet<u64> = received.iter().copied().collect();
    let lost = sent.iter().filter(|number| !came.contains(number)).count();
    (lost, received.len() - came.len())
}

impl Report {
    /// What must not happen and did, in words.
    pub(crate) fn faults(&self) -> Option<String> {
        let faults = [
            (self.missing, "devices did not come back"),
            (self.ghosts, "sessions name a dead gateway"),
            (self.lost, "messages were lost"),
            (self.shown_twice, "messages were shown twice"),
            (self.devices.saturating_sub(self.found), "devices are not found"),
        ];
        let faults: Vec<String> = faults
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }

    /// The report for people.
    pub(crate) fn table(&self) -> Table {
        let mut table = table(["", "storm"]);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        let (devices, gateways) = (self.devices, self.gateways);
        row("crowd", format!("{devices} devices on {gateways} gateways, all killed at once"));
        row("logins a second before", format!("{:.0}", self.logins_per_s));
        row("back after, ms", self.back_ms.words());
        row("most in a second", format!("{:.0}", self.most_per_s()));
        for (what, compared) in [("look-ups", &self.lookups), ("messages", &self.messages)] {
            row(&format!("{what} of others, calm, ms"), compared.calm_ms.words());
            row(&format!("{what} of others, storm, ms"), compared.storm_ms.words());
        }
        let gone = self.ghosts_gone_ms.map_or("never".to_owned(), |ms| format!("after {ms} ms"));
        row("dead gateways out of look-ups", gone);
        row("sessions on dead gateways", self.ghosts.to_string());
        row("messages to the crowd", format!("{} safe, {} lost", self.sent, self.lost));
        for (why, times) in &self.refusals {
            row(&format!("attempts answered {why}"), times.to_string());
        }
        table
    }

    fn most_per_s(&self) -> f64 {
        let steps = Duration::from_secs(1).as_millis() as usize / STEP_MS as usize;
        let sums = self.back_by_step.windows(steps.min(self.back_by_step.len()).max(1));
        sums.map(|window| window.iter().sum::<u64>()).max().unwrap_or(0) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_counted_from_the_kill() {
        let end = End { back_at_ms: vec![1_050, 1_060, 1_350], ..End::default() };
        let (by_step, times) = returns(&end, 1_000);
        assert_eq!(by_step, [2, 0, 0, 1]);
        assert_eq!((times.count, times.p50, times.max), (3, 60.0, 350.0));
        assert!(returns(&End::default(), 1_000).0.is_empty());
    }

    #[test]
    fn a_message_that_was_safe_and_never_came_is_lost() {
        assert_eq!(lost_and_repeated(&[1, 2, 3], &[1, 3, 3, 9]), (1, 1));
    }

    #[test]
    fn calls_are_compared_before_and_after_the_kill() {
        let killed = Instant::now() + Duration::from_secs(10);
        let sample = |before: u64, us| Sample {
            due: killed + Duration::from_secs(5) - Duration::from_secs(before),
            us,
            is_done: true,
        };
        let samples = [sample(7, 1_000), sample(6, 1_000), sample(4, 3_000), sample(0, 90_000)];
        let all_back = killed + Duration::from_secs(4);
        let compared = Compared::of(&samples, killed, all_back);
        assert_eq!((compared.calm_ms.count, compared.storm_ms.count), (2, 1));
        assert_eq!(compared.p99_ratio, Some(3.0));
        let steps = steps(&samples, &[], killed);
        let at: Vec<i64> = steps.iter().map(|step| step.at_ms).collect();
        assert_eq!(at, [-2_500, -1_500, 1_000, 5_000]);
    }
}
