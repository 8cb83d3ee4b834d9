//! A whole report: measures the rows asked for, prints them, writes them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{
    entry::Entry,
    rows::{ROWS, Row},
    run::Run,
    table,
};

/// Measures rows (all, if none is named) and prints them; what could be measured is printed and
/// written even when a row fails.
pub fn report(run: &Run, only: &[String], json: Option<&Path>) -> Result<Vec<Entry>> {
    let rows = chosen(only)?;
    let mut entries = Vec::new();
    let mut failures = Vec::new();
    for row in rows {
        run.say(format_args!("{}: {}", row.id, row.title));
        match (row.measure)(run) {
            Ok(measured) => entries.extend(measured),
            Err(error) => failures.push(format!("{}: {error:#}", row.id)),
        }
    }
    run.say("done");
    println!("{}", table::render(&entries));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&entries)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !failures.is_empty() {
        bail!("not measured: {}", failures.join("; "));
    }
    Ok(entries)
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
