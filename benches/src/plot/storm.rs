//! A reconnect storm over time, from what `switchboard bench storm --json` writes.

use serde::Deserialize;

use super::{Panel, panels};

/// The report of a storm, as far as it is drawn.
#[derive(Debug, Deserialize)]
pub struct Storm {
    devices: u64,
    gateways: u64,
    step_ms: f64,
    back_by_step: Vec<u64>,
    calm_seconds: f64,
    others_by_step: Vec<Step>,
    ghosts_by_time: Vec<Ghosts>,
}

#[derive(Debug, Deserialize)]
struct Step {
    at_ms: f64,
    lookup_p99_ms: Option<f64>,
    message_p99_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Ghosts {
    at_ms: f64,
    asked: u64,
    ghosts: u64,
}

/// Draws it; the time begins with the calm before the kill.
pub fn storm(storm: &Storm) -> String {
    let killed = storm.calm_seconds;
    let mut all = 0;
    let (mut rate, mut back) = (vec![(killed, 0.0)], vec![(0.0, 0.0), (killed, 0.0)]);
    for (step, came) in storm.back_by_step.iter().enumerate() {
        let at = killed + (step as f64 + 1.0) * storm.step_ms / 1e3;
        all += came;
        rate.push((at, *came as f64 * 1e3 / storm.step_ms));
        back.push((at, all as f64));
    }
    let others = |of: fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        let steps = storm.others_by_step.iter();
        // Calls that were due before the calm began, or long after all were back, tell nothing.
        steps
            .filter_map(|step| Some((killed + step.at_ms / 1e3, of(step)?)))
            .filter(|(at, _)| *at >= 0.0)
            .collect()
    };
    let dead = storm.ghosts_by_time.iter();
    let dead = dead.map(|look| (killed + look.at_ms / 1e3, share(look.ghosts, look.asked)));
    let panel = |title: &str, points| Panel { title: title.to_owned(), points, lines: Vec::new() };
    let title =
        format!("{} devices, {} gateways killed at {killed:.0} s", storm.devices, storm.gateways);
    panels(
        &title,
        &[
            panel("devices taken in again, 1/s", rate),
            panel("devices back", back),
            panel("look-ups of others, p99 of each half second, ms", others(|s| s.lookup_p99_ms)),
            panel("messages of others, p99 of each half second, ms", others(|s| s.message_p99_ms)),
            panel("share of look-ups of the crowd that name a dead gateway", dead.collect()),
        ],
    )
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_drawn_from_its_report() {
        let report = r#"{"devices": 10, "gateways": 1, "step_ms": 100, "back_by_step": [0, 4, 6],
            "calm_seconds": 5.0, "others_by_step": [{"at_ms": -500, "lookup_p99_ms": 1.0,
            "message_p99_ms": null}], "ghosts_by_time": [{"at_ms": 10, "asked": 4, "ghosts": 2}]}"#;
        let svg = storm(&serde_json::from_str(report).expect("a report"));
        assert_eq!(svg.matches("<polyline").count(), 5, "{svg}");
    }
}
