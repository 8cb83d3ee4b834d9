//! The totals, and what is wrong.

use std::time::Duration;

use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span, Text};

use super::View;
use crate::command::top::rows::{bytes, duration, rate};
use crate::command::top::sample::Totals;

/// Three lines: the cluster, what it holds, what is wrong. Figures that have no room are left out.
pub(super) fn header(view: &View, now: Duration, width: u16) -> Text<'static> {
    let totals = &view.sample.totals;
    let is_old = view.sample.faults.store.is_some();
    let style = if is_old { Style::new().dim() } else { Style::new() };
    let cluster = [
        figure("nodes up ", format!("{}/{}", totals.nodes_up, totals.nodes)),
        figure("  shards led ", format!("{}/{}", totals.shards_with_leader, totals.shards)),
        figure("  entries/s ", entries(view)),
        figure("  moves ", known(totals.moves.map(|count| count as u64))),
        figure("  alarms ", totals.alarms.len().to_string()),
        Span::raw(if view.paused { "  paused" } else { "" }).bold(),
    ];
    let holds = [
        figure("sessions ", totals.sessions.to_string()),
        figure("  messages queued ", totals.messages.to_string()),
        figure("  bytes ", bytes(totals.message_bytes)),
        figure("  connections ", known(totals.connections)),
    ];
    let (cluster, holds) = (whole(cluster, width).style(style), whole(holds, width).style(style));
    Text::from(vec![cluster, holds, wrong(view, totals, now)])
}

/// Entries a second over all shards; a lower bound where one of them has no rate.
fn entries(view: &View) -> String {
    let rates = &view.rates.shards;
    let sum = (!rates.is_empty()).then(|| rates.values().sum::<f64>());
    let bound = if sum.is_some() && rates.len() < view.sample.shards.len() { "≥ " } else { "" };
    format!("{bound}{}", rate(sum.as_ref()))
}

fn wrong(view: &View, totals: &Totals, now: Duration) -> Line<'static> {
    if let Some(why) = &view.sample.faults.store {
        let age = match view.answered {
            Some(answered) => {
                let age = now.saturating_sub(answered).as_millis();
                format!("figures are {} old", duration(u64::try_from(age).unwrap_or(u64::MAX)))
            }
            None => "trying again".to_owned(),
        };
        return Line::from(format!("error: no answer from {}, {age}: {why}", view.store)).red();
    }
    match totals.alarms.as_slice() {
        _ if !view.looked => Line::from(format!("asking {}", view.store)).dim(),
        [] => Line::from("all is well").green(),
        [one] => Line::from(format!("alarm: {one}")).yellow(),
        [first, others @ ..] => {
            Line::from(format!("alarm: {first} (and {} more)", others.len())).yellow()
        }
    }
}

/// Those that fit: a figure that lost digits would be a wrong one.
fn whole<const N: usize>(figures: [Span<'static>; N], room: u16) -> Line<'static> {
    let mut taken = 0;
    let fit = figures.into_iter().take_while(|figure| {
        taken += figure.width();
        taken <= usize::from(room)
    });
    Line::from_iter(fit)
}

fn figure(name: &str, mut value: String) -> Span<'static> {
    value.insert_str(0, name);
    Span::raw(value)
}

fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}
