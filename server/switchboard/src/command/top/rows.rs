//! The four parts as rows of text, the same for a terminal and for one sample that is printed.

use super::rates::Rates;
use super::sample::{Moving, Node, Process, Sample, Shard};
use crate::command::node::known;

/// A part of what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Nodes,
    Shards,
    Gateways,
    Moves,
}

/// What a row is like beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Something is wrong with it.
    Alarm,
    /// It did not answer: these are its last figures.
    Silent,
}

/// One part. Columns that matter most come first: narrow terminals cut off the others.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<(Tone, Vec<String>)>,
}

impl Pane {
    pub(super) const ALL: [Pane; 4] = [Pane::Nodes, Pane::Shards, Pane::Gateways, Pane::Moves];

    pub(super) fn title(self) -> &'static str {
        match self {
            Pane::Nodes => "nodes",
            Pane::Shards => "shards",
            Pane::Gateways => "gateways and chats",
            Pane::Moves => "moves",
        }
    }

    /// Its rows; without rates where there is one sample only.
    pub(super) fn rows(self, sample: &Sample, rates: Option<&Rates>) -> Rows {
        match self {
            Pane::Nodes => nodes(sample, rates),
            Pane::Shards => shards(sample, rates),
            Pane::Gateways => gateways(sample),
            Pane::Moves => moves(sample),
        }
    }
}

fn nodes(sample: &Sample, rates: Option<&Rates>) -> Rows {
    let mut header = vec!["node", "state", "leads", "replicas", "sessions led", "messages led"];
    header.extend(rates.map(|_| "entries/s"));
    header.extend(["log", "up", "zone", "address"]);
    let row = |node: &Node| {
        let mut cells = vec![
            node.node_id.to_string(),
            node.state_words(),
            node.leads.to_string(),
            node.replicas.to_string(),
            node.sessions_led.to_string(),
            node.messages_led.to_string(),
        ];
        cells.extend(rates.map(|rates| rate(rates.nodes.get(&node.node_id))));
        cells.extend([
            known(node.log_bytes.map(bytes)),
            known(node.uptime_ms.map(duration)),
            node.zone.clone(),
            node.address.clone(),
        ]);
        let tone = match (node.reachable, node.fault()) {
            (false, _) => Tone::Silent,
            (true, Some(_)) => Tone::Alarm,
            (true, None) => Tone::Plain,
        };
        (tone, cells)
    };
    Rows { header, rows: sample.nodes.iter().map(row).collect() }
}

fn shards(sample: &Sample, rates: Option<&Rates>) -> Rows {
    let mut header = vec!["shard", "leader", "term", "applied"];
    header.extend(rates.map(|_| "entries/s"));
    header.extend(["lag", "sessions", "messages", "bytes", "replicas"]);
    let row = |shard: &Shard| {
        let leader = match shard.leader {
            0 => "none".to_owned(),
            node => node.to_string(),
        };
        let mut cells = vec![
            shard.shard.to_string(),
            leader,
            shard.term.to_string(),
            shard.applied_index.to_string(),
        ];
        cells.extend(rates.map(|rates| rate(rates.shards.get(&shard.shard))));
        cells.extend([
            shard.lag.to_string(),
            shard.sessions.to_string(),
            shard.messages.to_string(),
            bytes(shard.message_bytes),
            format!("{}/{}", shard.replicas_reachable, shard.replicas),
        ]);
        let tone = match (shard.replicas_reachable, shard.leader) {
            (0, _) => Tone::Silent,
            (_, 0) => Tone::Alarm,
            (_, _) => Tone::Plain,
        };
        (tone, cells)
    };
    Rows { header, rows: sample.shards.iter().map(row).collect() }
}

fn gateways(sample: &Sample) -> Rows {
    let tone = if sample.faults.gateways.is_some() { Tone::Silent } else { Tone::Plain };
    let row = |process: &Process| {
        let cells = vec![
            process.name.clone(),
            process.kind.to_owned(),
            process.connections.to_string(),
            format!("{:.0} %", process.load * 100.0),
            format!("{:.1} s", process.lease_ms_left as f64 / 1e3),
            process.address.clone(),
        ];
        (tone, cells)
    };
    let rows = sample.gateways.iter().flatten().map(row).collect();
    Rows { header: vec!["name", "kind", "connections", "load", "lease", "address"], rows }
}

fn moves(sample: &Sample) -> Rows {
    let row = |one: &Moving| {
        let tone = match (&sample.faults.moves, one.stalled.as_str()) {
            (Some(_), _) => Tone::Silent,
            (None, "") => Tone::Plain,
            (None, _) => Tone::Alarm,
        };
        let way = one.replica.way();
        let far = match one.last_index {
            0 => String::new(),
            last => format!("{} of {last}", one.matched_index),
        };
        let sent = bytes(one.snapshot_bytes);
        let shard = one.replica.shard.to_string();
        (tone, vec![shard, way, one.step.to_owned(), far, sent, one.stalled.clone()])
    };
    let rows = sample.moves.iter().flatten().map(row).collect();
    Rows { header: vec!["shard", "from -> to", "step", "entry", "snapshot", "stalled"], rows }
}

/// Entries a second; a dash where it cannot be told.
pub(super) fn rate(rate: Option<&f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if *rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// Bytes in the largest unit that leaves something before the point.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// The two largest units of a time.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!((bytes(0), bytes(1_023)), ("0 B".to_owned(), "1023 B".to_owned()));
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(duration(59_999), "59 s");
        assert_eq!(duration(3_599_000), "59 min 59 s");
        assert_eq!(duration(3_600_000), "1 h 0 min");
        assert_eq!(duration(90_000_000), "1 d 1 h");
        assert_eq!([rate(None), rate(Some(&0.26)), rate(Some(&12.6))], ["-", "0.3", "13"]);
    }

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        use super::super::fixtures::{Made, look};
        let sample = Sample::of(look(1, &[Made::new(1), Made::new(2).silent()]));
        for pane in Pane::ALL {
            for rates in [None, Some(&Rates::default())] {
                let Rows { header, rows } = pane.rows(&sample, rates);
                assert!(!rows.is_empty(), "{pane:?}");
                assert!(rows.iter().all(|(_, cells)| cells.len() == header.len()), "{pane:?}");
            }
        }
    }
}
