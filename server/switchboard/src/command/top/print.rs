//! One sample on standard output.

use comfy_table::Table;
use tokio::time::Instant;

use super::ask::look;
use super::rows::{Pane, bytes};
use super::sample::{Sample, Totals};
use crate::command::operator::StoreArgs;
use crate::output::{Failure, Output, print_line, table};

/// Asks once and prints what was told.
pub(super) async fn once(store: &StoreArgs, output: Output) -> Result<(), Failure> {
    let client = store.connect().await?;
    let sample = Sample::of(look(&client, Instant::now()).await);
    if let Some(why) = &sample.faults.store {
        return Err(Failure::failed(why.clone()));
    }
    output.print(&sample, |sample| totals(&sample.totals))?;
    if output == Output::Table {
        for pane in Pane::ALL {
            print_pane(pane, &sample)?;
        }
        for alarm in &sample.totals.alarms {
            print_line(&format!("alarm: {alarm}"))?;
        }
    }
    Ok(())
}

fn print_pane(pane: Pane, sample: &Sample) -> Result<(), Failure> {
    let rows = pane.rows(sample, None);
    // An empty table says less than nothing.
    if rows.rows.is_empty() {
        return Ok(());
    }
    let mut table = table::<0>([]);
    table.set_header(rows.header);
    for (_, cells) in rows.rows {
        table.add_row(cells);
    }
    print_line(&table.to_string())
}

fn totals(totals: &Totals) -> Table {
    let known = |value: Option<String>| value.unwrap_or_else(|| "not known".to_owned());
    let mut table = table([
        "nodes up",
        "shards led",
        "sessions",
        "messages",
        "bytes",
        "connections",
        "moves",
        "alarms",
    ]);
    table.add_row([
        format!("{}/{}", totals.nodes_up, totals.nodes),
        format!("{}/{}", totals.shards_with_leader, totals.shards),
        totals.sessions.to_string(),
        totals.messages.to_string(),
        bytes(totals.message_bytes),
        known(totals.connections.map(|count| count.to_string())),
        known(totals.moves.map(|count| count.to_string())),
        totals.alarms.len().to_string(),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Made, look};
    use super::*;

    #[test]
    fn totals_say_what_is_there_and_what_is_not_known() {
        let text = totals(&Sample::of(look(1, &[Made::new(1).applied(70)])).totals).to_string();
        assert!(text.contains("1/1") && text.contains("2/2"), "{text}");
        assert!(text.contains("140") && text.contains("35.0 KiB"), "{text}");
        let mut unknown = look(1, &[Made::new(1)]);
        unknown.moves = Err("no leader".to_owned());
        let text = totals(&Sample::of(unknown).totals).to_string();
        assert!(text.contains("not known"), "{text}");
    }
}
