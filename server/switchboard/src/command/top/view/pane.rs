//! One pane: a title, the names of the columns, and the rows that have room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Row, Table};

use super::Scroll;
use crate::command::top::rows::{Pane, Rows, Tone};
use crate::command::top::sample::Sample;

/// Columns between two columns.
const GAP: u16 = 2;
/// Fewest letters that a column is cut down to.
const CUT_MIN: u16 = 4;

/// How a pane is shown.
pub(super) struct Shown {
    pub(super) title: &'static str,
    /// The keys go to it.
    pub(super) chosen: bool,
    /// The store does not answer.
    pub(super) is_old: bool,
    /// What is said instead of rows.
    pub(super) empty: String,
}

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, rows: &Rows, scroll: Scroll, shown: &Shown) {
    let seen: Vec<_> = rows.rows.iter().skip(scroll.first).take(scroll.room).collect();
    let style = if shown.chosen { Style::new().bold() } else { Style::new().dim() };
    let title = Line::styled(title(shown.title, rows.rows.len(), scroll.first, seen.len()), style);
    let block = Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(title);
    if rows.rows.is_empty() {
        let said = Line::styled(shown.empty.clone(), Style::new().dim());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        frame.render_widget(said, inner);
        return;
    }
    let widths = fitting(widths(rows), area.width);
    // Ratatui would cut off digits without a word.
    let names = rows.header.iter().zip(&widths).map(|(name, width)| cut(name, *width));
    let names = Row::new(names).style(Style::new().underlined());
    let cells = |tone: Tone, cells: &[String]| {
        let style = match tone {
            _ if shown.is_old => Style::new().dim(),
            Tone::Plain => Style::new(),
            Tone::Alarm => Style::new().yellow(),
            Tone::Silent => Style::new().dim(),
        };
        let cells = cells.iter().zip(&widths).map(|(cell, width)| cut(cell, *width));
        Row::new(cells).style(style)
    };
    let seen: Vec<_> = seen.into_iter().map(|(tone, row)| cells(*tone, row)).collect();
    let table = Table::new(seen, widths.iter().map(|width| Constraint::Length(*width)))
        .column_spacing(GAP)
        .header(names)
        .block(block);
    frame.render_widget(table, area);
}

/// What an empty pane says.
pub(super) fn nothing(pane: Pane, sample: &Sample) -> String {
    let fault = match pane {
        Pane::Nodes | Pane::Shards => &sample.faults.store,
        Pane::Gateways => &sample.faults.gateways,
        Pane::Moves => &sample.faults.moves,
    };
    match fault {
        Some(why) => format!("not known: {why}"),
        None => "none".to_owned(),
    }
}

fn title(title: &str, all: usize, first: usize, seen: usize) -> String {
    match seen == all {
        true => format!("{title} ({all})"),
        false => format!("{title} ({}-{} of {all})", (first + 1).min(first + seen), first + seen),
    }
}

/// The widest cell of each column.
fn widths(rows: &Rows) -> Vec<u16> {
    let width = |text: &str| u16::try_from(Line::raw(text).width()).unwrap_or(u16::MAX);
    let column = |(index, name): (usize, &&str)| {
        let cells = rows.rows.iter().filter_map(|(_, cells)| cells.get(index));
        cells.map(|cell| width(cell)).max().unwrap_or(0).max(width(name))
    };
    rows.header.iter().enumerate().map(column).collect()
}

/// The columns that have room. Only the last of them may be cut off, to no less than says something.
fn fitting(widths: Vec<u16>, room: u16) -> Vec<u16> {
    let mut begins: u16 = 0;
    let fit = widths.into_iter().map_while(|width| {
        let left = room.checked_sub(begins).filter(|left| *left >= width.min(CUT_MIN))?;
        begins = begins.saturating_add(width).saturating_add(GAP);
        Some(width.min(left))
    });
    fit.collect()
}

/// A text that fits, and shows it where it lost its end.
fn cut(text: &str, room: u16) -> String {
    let room = usize::from(room);
    if Line::raw(text).width() <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for letter in text.chars() {
        short.push(letter);
        if Line::raw(short.as_str()).width() >= room {
            short.pop();
            break;
        }
    }
    if room > 0 {
        short.push('…');
    }
    short
}
