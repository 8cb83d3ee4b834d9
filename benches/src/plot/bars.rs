//! One row of a report: a group of bars a figure, ours over the peer's, with the bar as a line.

use super::svg::{Anchor, BAR, OURS, PEER, Svg};
use crate::{entry::Entry, table::number};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 20.0;
const BAR_HEIGHT: f64 = 14.0;
const GROUP_GAP: f64 = 22.0;
const TITLE_HEIGHT: f64 = 40.0;
/// Room behind the longest bar for its figure.
const FIGURE_WIDTH: f64 = 330.0;

/// Draws entries below each other. Each group has a scale of its own, since their units differ.
pub fn figure(title: &str, entries: &[&Entry]) -> String {
    let height_of = |entry: &&Entry| {
        let bars = if entry.peer_value.is_some() { 2.0 } else { 1.0 };
        16.0 + bars * (BAR_HEIGHT + 2.0) + GROUP_GAP
    };
    let height = TITLE_HEIGHT + entries.iter().map(height_of).sum::<f64>() + MARGIN;
    let mut svg = Svg::new(WIDTH, height);
    svg.text((MARGIN, 26.0), 17, Anchor::Start, title);
    let mut y = TITLE_HEIGHT;
    for entry in entries {
        group(&mut svg, y, entry);
        y += height_of(entry);
    }
    svg.finish()
}

fn group(svg: &mut Svg, y: f64, entry: &Entry) {
    let room = WIDTH - 2.0 * MARGIN - FIGURE_WIDTH;
    let values = [Some(entry.value), entry.peer_value, entry.bar_value];
    let longest = values.into_iter().flatten().fold(f64::MIN_POSITIVE, f64::max);
    let length = |value: f64| (value / longest * room).max(1.0);
    let verdict = match entry.pass {
        Some(true) => ", reached",
        Some(false) => ", missed",
        None => "",
    };
    let bar = entry.bar.as_ref().map(|bar| format!("   bar {bar}{verdict}")).unwrap_or_default();
    let what = format!("{}: {}, {}{bar}", entry.id, entry.what, entry.unit);
    svg.text((MARGIN, y + 11.0), 12, Anchor::Start, &what);
    let mut at = y + 16.0;
    let mut draw = |svg: &mut Svg, value: f64, label: &str, fill: &str| {
        let length = length(value);
        svg.rect(MARGIN, at, length, BAR_HEIGHT, fill);
        let end = (MARGIN + length + 6.0, at + 11.0);
        svg.text(end, 12, Anchor::Start, &format!("{} {label}", number(value)));
        at += BAR_HEIGHT + 2.0;
    };
    draw(svg, entry.value, "Switchboard", OURS);
    if let Some(value) = entry.peer_value {
        draw(svg, value, entry.peer.as_deref().unwrap_or_default(), PEER);
    }
    if let Some(value) = entry.bar_value {
        let x = MARGIN + length(value);
        svg.line((x, y + 14.0), (x, at), BAR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Bar, Better};

    #[test]
    fn a_figure_shows_ours_the_peer_and_the_bar() {
        let entry = Entry::new("C0.cost", "cost < all", 50.0, "ns", Better::Less)
            .bar(Bar::AtMost(60.0))
            .peer("peer", Some(100.0));
        let svg = figure("C0", &[&entry]);
        assert_eq!(svg.matches("<rect").count(), 3, "background and two bars: {svg}");
        assert_eq!(svg.matches("<line").count(), 1, "{svg}");
        assert!(svg.contains("cost &lt; all") && svg.contains("reached"), "{svg}");
    }
}
