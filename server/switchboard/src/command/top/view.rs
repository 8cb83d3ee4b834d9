//! What the terminal shows and what keys do. No terminal is needed: it is drawn into a frame of any
//! size, and what does not fit is left out.
//!
//! ```text
//!  header   two lines of totals, one of what is wrong
//!  panes    the chosen one gets the rows that it needs, the others what is left
//!  footer   the keys
//! ```

mod header;
mod pane;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::text::Line;

use super::ask::Look;
use super::rates::{Rates, rates};
use super::rows::Pane;
use super::sample::Sample;

/// Lines of the header.
const HEADER_LINES: u16 = 3;
/// A pane's title and the names of its columns.
const PANE_LINES: u16 = 2;

/// Whether the view goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    End,
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct View {
    /// The addresses asked, for when nothing answers.
    store: String,
    sample: Sample,
    rates: Rates,
    /// When nodes last answered; none: never yet.
    answered: Option<Duration>,
    /// Whether anything was looked at.
    looked: bool,
    paused: bool,
    chosen: usize,
    /// By pane: rows that are scrolled away, and rows that had room when it was last drawn.
    scrolled: [Scroll; Pane::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct Scroll {
    first: usize,
    room: usize,
}

impl View {
    /// Before the first answer.
    pub(super) fn new(store: String) -> View {
        View {
            store,
            sample: Sample::default(),
            rates: Rates::default(),
            answered: None,
            looked: false,
            paused: false,
            chosen: 0,
            scrolled: Default::default(),
        }
    }

    /// Takes what was found at `now`, unless it is paused.
    pub(super) fn take(&mut self, look: Look, now: Duration) {
        if self.paused {
            return;
        }
        let next = self.sample.then(look);
        if next.faults.store.is_none() {
            self.answered = Some(now);
        }
        self.rates = rates(&self.sample, &next);
        self.sample = next;
        self.looked = true;
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::Go;
        }
        let scroll = &mut self.scrolled[self.chosen];
        // What is beyond the end is taken back when it is drawn: only then the rows are counted.
        let page = scroll.room.max(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Flow::End;
            }
            KeyCode::Char('q') | KeyCode::Esc => return Flow::End,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('n') => self.chosen = 0,
            KeyCode::Char('s') => self.chosen = 1,
            KeyCode::Char('g') => self.chosen = 2,
            KeyCode::Char('m') => self.chosen = 3,
            KeyCode::Tab => self.chosen = (self.chosen + 1) % Pane::ALL.len(),
            KeyCode::BackTab => {
                self.chosen = self.chosen.checked_sub(1).unwrap_or(Pane::ALL.len() - 1)
            }
            KeyCode::Up => scroll.first = scroll.first.saturating_sub(1),
            KeyCode::Down => scroll.first = scroll.first.saturating_add(1),
            KeyCode::PageUp => scroll.first = scroll.first.saturating_sub(page),
            KeyCode::PageDown => scroll.first = scroll.first.saturating_add(page),
            KeyCode::Home => scroll.first = 0,
            KeyCode::End => scroll.first = usize::MAX,
            _ => {}
        }
        Flow::Go
    }

    /// Draws all of it, as it is at `now`.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Duration) {
        let parts = [Constraint::Length(HEADER_LINES), Constraint::Fill(1), Constraint::Length(1)];
        let [header, middle, footer] = frame.area().layout(&Layout::vertical(parts));
        frame.render_widget(header::header(self, now, header.width), header);
        let all = Pane::ALL.map(|pane| pane.rows(&self.sample, Some(&self.rates)));
        let wanted = all.each_ref().map(|rows| {
            u16::try_from(rows.rows.len().max(1)).unwrap_or(u16::MAX).saturating_add(PANE_LINES)
        });
        let heights = heights(middle.height, wanted, self.chosen);
        let areas = middle
            .layout::<{ Pane::ALL.len() }>(&Layout::vertical(heights.map(Constraint::Length)));
        let is_old = self.sample.faults.store.is_some();
        for (index, (rows, area)) in all.into_iter().zip(areas).enumerate() {
            let (scroll, chosen) = (&mut self.scrolled[index], index == self.chosen);
            scroll.room = usize::from(area.height.saturating_sub(PANE_LINES));
            scroll.first = scroll.first.min(rows.rows.len().saturating_sub(scroll.room));
            if area.height > 0 {
                let empty = pane::nothing(Pane::ALL[index], &self.sample);
                let shown = pane::Shown { title: Pane::ALL[index].title(), chosen, is_old, empty };
                pane::draw(frame, area, &rows, *scroll, &shown);
            }
        }
        frame.render_widget(self.footer(), footer);
    }

    fn footer(&self) -> Line<'static> {
        let space = if self.paused { "go on" } else { "pause" };
        let panes = "n nodes  s shards  g gateways  m moves";
        let keys = format!("q quit  space {space}  {panes}  Tab  ↑↓ PgUp PgDn");
        Line::styled(keys, Style::new().dim())
    }
}

/// How many lines each pane gets. The chosen one gets what it wants, as far as there is room; then the
/// others, in their order, and none of them less than its title, names and one row.
fn heights<const N: usize>(room: u16, wanted: [u16; N], chosen: usize) -> [u16; N] {
    let mut given = [0; N];
    let mut left = room;
    for index in std::iter::once(chosen).chain((0..N).filter(|index| *index != chosen)) {
        let height = wanted[index].min(left);
        if index == chosen || height > PANE_LINES {
            given[index] = height;
            left -= height;
        }
    }
    given
}
