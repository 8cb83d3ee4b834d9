//! Values over time: panels below each other, each with one line and a scale from zero.

use super::svg::{Anchor, BAR, OURS, PEER, Svg};
use crate::table::number;

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 150.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const GAP: f64 = 40.0;

/// A level across a panel for part of the time.
#[derive(Clone, Debug)]
pub struct Line {
    /// From which second to which.
    pub seconds: (f64, f64),
    /// How high.
    pub value: f64,
}

/// One value over time.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it is, with its unit.
    pub title: String,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
    /// Levels to compare.
    pub lines: Vec<Line>,
}

/// Draws panels below each other, over the same seconds.
pub fn panels(title: &str, panels: &[Panel]) -> String {
    let height = TOP + panels.len() as f64 * (PANEL_HEIGHT + GAP);
    let mut svg = Svg::new(WIDTH, height);
    svg.text((20.0, 26.0), 17, Anchor::Start, title);
    let points = panels.iter().flat_map(|panel| &panel.points);
    let end = points.map(|point| point.0).fold(1.0, f64::max);
    for (nth, panel) in panels.iter().enumerate() {
        draw(&mut svg, TOP + nth as f64 * (PANEL_HEIGHT + GAP), end, panel);
    }
    svg.finish()
}

fn draw(svg: &mut Svg, top: f64, end: f64, panel: &Panel) {
    let values = panel.points.iter().map(|point| point.1);
    let highest = values.chain(panel.lines.iter().map(|line| line.value));
    let highest = highest.fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let bottom = top + 12.0 + PANEL_HEIGHT - 12.0;
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| bottom - value / highest * (PANEL_HEIGHT - 12.0);
    svg.text((LEFT, top + 6.0), 12, Anchor::Start, &panel.title);
    for value in [0.0, highest / 2.0, highest] {
        svg.line((LEFT, y(value)), (WIDTH - RIGHT, y(value)), PEER);
        svg.text((LEFT - 6.0, y(value) + 4.0), 11, Anchor::End, &number(value));
    }
    let points: Vec<(f64, f64)> = panel.points.iter().map(|(s, v)| (x(*s), y(*v))).collect();
    svg.polyline(&points, OURS);
    for Line { seconds, value } in &panel.lines {
        svg.line((x(seconds.0), y(*value)), (x(seconds.1), y(*value)), BAR);
    }
    svg.text((LEFT, bottom + 14.0), 11, Anchor::Start, "0 s");
    svg.text((WIDTH - RIGHT, bottom + 14.0), 11, Anchor::End, &format!("{end:.0} s"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_has_its_line() {
        let panel = Panel {
            title: "memory".to_owned(),
            points: vec![(0.0, 1.0), (1.0, 2.0)],
            lines: vec![Line { seconds: (0.0, 1.0), value: 2.2 }],
        };
        let svg = panels("soak", &[panel.clone(), panel]);
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    }
}
