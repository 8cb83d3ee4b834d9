//! Entries as a table for people.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use crate::entry::Entry;

/// The table of a report.
pub fn render(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "what", "value", "unit", "bar", "", "peer", "its value", "ratio"]);
    for column in [2, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for entry in entries {
        let (verdict, color) = match entry.pass {
            Some(true) => ("ok", Color::Green),
            Some(false) => ("MISSED", Color::Red),
            None => ("", Color::Reset),
        };
        let peer = entry.peer.as_deref().unwrap_or_default();
        table.add_row([
            Cell::new(&entry.id),
            Cell::new(&entry.what),
            Cell::new(number(entry.value)),
            Cell::new(&entry.unit),
            Cell::new(entry.bar.as_deref().unwrap_or_default()),
            Cell::new(verdict).fg(color),
            Cell::new(peer),
            Cell::new(entry.peer_value.map(number).unwrap_or_default()),
            Cell::new(entry.ratio.map(|r| format!("{r:.2} x")).unwrap_or_default()),
        ]);
    }
    table.to_string()
}

/// Four significant digits, or whole numbers with thousands apart.
pub fn number(value: f64) -> String {
    if value.abs() < 1000.0 {
        let whole = value.abs().max(1.0).log10().floor() as usize;
        return format!("{value:.*}", 3_usize.saturating_sub(whole));
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits_or_are_whole() {
        let shown: Vec<String> =
            [0.0, 0.07, 9.994, 48.0, 287.4, 1_000.0, 2_200_000.4].map(number).to_vec();
        assert_eq!(shown, ["0.000", "0.070", "9.994", "48.00", "287.4", "1 000", "2 200 000"]);
    }
}
