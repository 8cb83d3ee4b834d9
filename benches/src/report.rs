//! A whole report: measures the rows asked for, prints them, writes them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{
    entry::Entry,
    plot,
    rows::{ROWS, Row},
    run::Run,
    table,
};

/// Measures rows (all, if none is named) and prints them; what could be measured is printed and
/// written even when a row fails.
pub fn report(run: &Run, only: &[String], json: Option<&Path>, plots: Option<&Path>) -> Result<()> {
    let rows = chosen(only)?;
    let mut entries = Vec::new();
    let mut failures = Vec::new();
    for row in &rows {
        run.say(format_args!("{}: {}", row.id, row.title));
        match (row.measure)(run) {
            Ok(measured) => entries.extend(measured),
            Err(error) => failures.push(format!("{}: {error:#}", row.id)),
        }
    }
    run.say("done");
    println!("{}", table::render(&entries));
    if let Some(path) = json {
        write(path, &(serde_json::to_string_pretty(&entries)? + "\n"))?;
    }
    if let Some(dir) = plots {
        draw(dir, &rows, &entries)?;
    }
    if !failures.is_empty() {
        bail!("not measured: {}", failures.join("; "));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A file a row: `c1.svg`.
fn draw(dir: &Path, rows: &[&Row], entries: &[Entry]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for row in rows {
        let is_of_row = |entry: &&Entry| entry.id.split('.').next() == Some(row.id);
        let of_row: Vec<&Entry> = entries.iter().filter(is_of_row).collect();
        if !of_row.is_empty() {
            let figure = plot::figure(&format!("{} {}", row.id, row.title), &of_row);
            write(&dir.join(format!("{}.svg", row.id.to_lowercase())), &figure)?;
        }
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>> {
    let find = |id: &String| {
        let row = ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(id));
        row.with_context(|| {
            let known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
            format!("there is no row {id}; there are {}", known.join(", "))
        })
    };
    if only.is_empty() { Ok(ROWS.iter().collect()) } else { only.iter().map(find).collect() }
}
