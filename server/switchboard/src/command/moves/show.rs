//! Shows how far moves are: bars on a terminal, lines on standard error elsewhere, an object an event
//! on standard output for programs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use switchboard_api::v1::{self, MoveInfo, MoveStep};
use switchboard_sdk::Client;

use super::{Move, step};
use crate::output::{Failure, Output, print_event};

/// Between two lines about one move that is at the same step.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Where the progress of moves goes.
pub(in crate::command) struct Show {
    out: Out,
    total: usize,
    ended: usize,
    /// Bytes of messages by shard, for how long is left.
    bytes: BTreeMap<u32, u64>,
}

enum Out {
    Bars { all: MultiProgress, sum: ProgressBar, moves: BTreeMap<Move, ProgressBar> },
    Lines { said: BTreeMap<Move, Said> },
    Events { said: BTreeMap<Move, Event> },
}

/// What was last said of a move.
struct Said {
    words: String,
    at: Instant,
}

/// One progress event, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Event {
    event: &'static str,
    shard: u32,
    from: u64,
    to: u64,
    step: &'static str,
    /// Why it does not go on; empty: it does.
    stalled: String,
    matched_index: u64,
    last_index: u64,
    snapshot_bytes: u64,
    /// About how many bytes there are to send.
    bytes_total: u64,
}

/// The end of one move, as JSON.
#[derive(Debug, Serialize)]
struct EndEvent {
    event: &'static str,
    shard: u32,
    from: u64,
    to: u64,
    outcome: &'static str,
    ended: usize,
    total: usize,
}

impl Show {
    /// For so many moves.
    pub(in crate::command) async fn new(client: &Client, output: Output, total: usize) -> Show {
        let out = match output {
            Output::Json => Out::Events { said: BTreeMap::new() },
            Output::Table if std::io::stderr().is_terminal() => Out::bars(total),
            Output::Table => Out::Lines { said: BTreeMap::new() },
        };
        // Only for the estimate: without an answer there is none.
        let nodes = client.list_nodes().await.unwrap_or_default();
        Show { out, total, ended: 0, bytes: bytes_by_shard(&nodes) }
    }

    /// So many of a node's replicas are left of those that it had.
    pub(super) fn left_of(&mut self, left: usize, had: usize) {
        self.total = had;
        if let Out::Bars { sum, .. } = &self.out {
            sum.set_length(had as u64);
            sum.set_position(had.saturating_sub(left) as u64);
        }
    }

    /// These moves are under way.
    pub(super) fn moves<'a>(
        &mut self,
        moves: impl Iterator<Item = &'a MoveInfo>,
    ) -> Result<(), Failure> {
        for info in moves {
            let total = self.bytes.get(&Move::of(info).shard).copied().unwrap_or(0);
            self.out.show(info, total)?;
        }
        Ok(())
    }

    /// A move has ended.
    pub(super) fn ended(&mut self, one: Move, outcome: &'static str) -> Result<(), Failure> {
        self.ended += 1;
        let (ended, total) = (self.ended, self.total.max(self.ended));
        match &mut self.out {
            Out::Bars { sum, moves, .. } => {
                if let Some(bar) = moves.remove(&one) {
                    bar.finish_and_clear();
                }
                sum.set_position(ended as u64);
            }
            Out::Lines { said } => {
                said.remove(&one);
                eprintln!("{}: {outcome} ({ended} of {total})", one.words());
            }
            Out::Events { said } => {
                said.remove(&one);
                let Move { shard, from, to } = one;
                let event = EndEvent { event: "ended", shard, from, to, outcome, ended, total };
                print_event(&event)?;
            }
        }
        Ok(())
    }

    /// Takes the bars away: the result follows.
    pub(super) fn end(&self) {
        if let Out::Bars { sum, moves, .. } = &self.out {
            moves.values().for_each(ProgressBar::finish_and_clear);
            sum.finish_and_clear();
        }
    }
}

impl Out {
    fn bars(total: usize) -> Out {
        let all = MultiProgress::new();
        let style =
            ProgressStyle::with_template("{pos} of {len} replicas moved, {elapsed_precise}");
        let sum = all.add(ProgressBar::new(total as u64));
        sum.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        sum.enable_steady_tick(Duration::from_millis(500));
        Out::Bars { all, sum, moves: BTreeMap::new() }
    }

    fn show(&mut self, info: &MoveInfo, bytes_total: u64) -> Result<(), Failure> {
        let one = Move::of(info);
        match self {
            Out::Bars { .. } if info.step() == MoveStep::MoveWaiting => {}
            Out::Bars { all, moves, .. } => {
                let bar = moves.entry(one).or_insert_with(|| all.add(bar()));
                let sent = info.snapshot_bytes.max(bar.position());
                bar.set_length(bytes_total.max(sent));
                bar.set_position(if info.step() > MoveStep::MoveCatchingUp {
                    bytes_total.max(sent)
                } else {
                    sent
                });
                bar.set_message(words(info));
            }
            Out::Lines { said } => {
                let words = words(info);
                let due = said.get(&one).is_none_or(|said| {
                    step_part(&said.words) != step_part(&words)
                        || (said.words != words && said.at.elapsed() >= LINE_INTERVAL)
                });
                if due {
                    eprintln!("{words}");
                    said.insert(one, Said { words, at: Instant::now() });
                }
            }
            Out::Events { said } => {
                let event = event(info, bytes_total);
                if said.get(&one) != Some(&event) {
                    print_event(&event)?;
                    said.insert(one, event);
                }
            }
        }
        Ok(())
    }
}

fn bar() -> ProgressBar {
    let template = "  {msg} {bar:20} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn event(info: &MoveInfo, bytes_total: u64) -> Event {
    let Move { shard, from, to } = Move::of(info);
    Event {
        event: "move",
        shard,
        from,
        to,
        step: step(info),
        stalled: info.stalled.clone(),
        matched_index: info.matched_index,
        last_index: info.last_index,
        snapshot_bytes: info.snapshot_bytes,
        bytes_total,
    }
}

/// What a line says of a move; what comes after a comma changes all the time.
fn words(info: &MoveInfo) -> String {
    let mut words = format!("{}: {}", Move::of(info).words(), step(info));
    if !info.stalled.is_empty() {
        words += &format!(" (stalled: {})", info.stalled);
    }
    if info.step() == MoveStep::MoveCatchingUp && info.last_index > 0 {
        words += &format!(", entry {} of {}", info.matched_index, info.last_index);
    }
    if info.snapshot_bytes > 0 {
        words += &format!(", {:.1} MiB sent", info.snapshot_bytes as f64 / f64::from(1 << 20));
    }
    words
}

fn step_part(words: &str) -> &str {
    words.split_once(", ").map_or(words, |(step, _)| step)
}

/// What each shard holds, as the replica says that holds most.
fn bytes_by_shard(nodes: &[v1::list_nodes_response::Node]) -> BTreeMap<u32, u64> {
    let mut bytes = BTreeMap::new();
    for status in nodes.iter().filter_map(|node| node.status.as_ref()) {
        for shard in &status.shards {
            let most = bytes.entry(shard.shard).or_insert(0);
            *most = shard.message_bytes.max(*most);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> MoveInfo {
        MoveInfo {
            replica: Some(Move { shard: 3, from: 1, to: 4 }.into()),
            step: MoveStep::MoveCatchingUp.into(),
            matched_index: 5,
            last_index: 90,
            snapshot_bytes: 3 << 20,
            ..MoveInfo::default()
        }
    }

    #[test]
    fn a_line_says_how_far_a_move_is_and_why_it_does_not_go_on() {
        let mut info = info();
        let line = "shard 3: 1 -> 4: catching up, entry 5 of 90, 3.0 MiB sent";
        assert_eq!(words(&info), line);
        assert_eq!(step_part(line), "shard 3: 1 -> 4: catching up");
        info.stalled = "node 4 does not answer".to_owned();
        assert!(words(&info).contains("(stalled: node 4 does not answer)"));
        info.aborting = true;
        assert!(words(&info).contains("being undone"));
    }

    #[test]
    fn an_event_is_one_object() {
        let json = serde_json::to_value(event(&info(), 9 << 20)).unwrap();
        assert_eq!(json["event"], "move");
        assert_eq!(json["step"], "catching up");
        assert_eq!(json["bytes_total"], 9 << 20);
    }
}
