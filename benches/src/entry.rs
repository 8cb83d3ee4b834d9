//! One measured figure with its bar and its peer.

use serde::{Deserialize, Serialize};

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so many times what the peer has.
    AtMostTimesPeer(f64),
    /// At least so many times what the peer has.
    AtLeastTimesPeer(f64),
}

impl Bar {
    fn text(self) -> String {
        match self {
            Self::AtMost(bar) => format!("<= {bar}"),
            Self::AtLeast(bar) => format!(">= {bar}"),
            Self::AtMostTimesPeer(times) => format!("<= {times} x peer"),
            Self::AtLeastTimesPeer(times) => format!(">= {times} x peer"),
        }
    }

    /// Whether `value` reaches it; `None` when the peer is needed and was not measured.
    fn is_reached(self, value: f64, peer: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(bar) => Some(value <= bar),
            Self::AtLeast(bar) => Some(value >= bar),
            Self::AtMostTimesPeer(times) => peer.map(|peer| value <= times * peer),
            Self::AtLeastTimesPeer(times) => peer.map(|peer| value >= times * peer),
        }
    }

    /// The bar as a number in the unit of the figure, for plots.
    pub fn value(self, peer: Option<f64>) -> Option<f64> {
        match self {
            Self::AtMost(bar) | Self::AtLeast(bar) => Some(bar),
            Self::AtMostTimesPeer(times) | Self::AtLeastTimesPeer(times) => {
                peer.map(|peer| times * peer)
            }
        }
    }
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs: time, bytes.
    Less,
    /// Throughput.
    More,
}

/// A line of the report. Its fields are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Row and figure: `C1.lookup`.
    pub id: String,
    /// What was measured, in words.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it has to reach, as text; `null`: nothing, it stands for information.
    pub bar: Option<String>,
    /// The bar as a number in the unit of the figure.
    pub bar_value: Option<f64>,
    /// Whether it reaches it; `null`: no bar, or a bar against a peer that is not there.
    pub pass: Option<bool>,
    /// Who else was measured in the same run, in the same way.
    pub peer: Option<String>,
    /// The peer's figure; `null`: the peer is not installed.
    pub peer_value: Option<f64>,
    /// How many times better than the peer; below 1 the peer is better.
    pub ratio: Option<f64>,
    /// The limit that is known, or what the bar is based on.
    pub limit: Option<String>,
    /// What measures it again.
    pub command: String,
    #[serde(skip)]
    better: Option<Better>,
    #[serde(skip)]
    wants: Option<Bar>,
}

impl Entry {
    /// A figure.
    pub fn new(id: &str, what: impl Into<String>, value: f64, unit: &str, better: Better) -> Self {
        let row = id.split('.').next().unwrap_or(id);
        Self {
            id: id.to_owned(),
            what: what.into(),
            value,
            unit: unit.to_owned(),
            bar: None,
            bar_value: None,
            pass: None,
            peer: None,
            peer_value: None,
            ratio: None,
            limit: None,
            command: format!("cargo run --release -p switchboard-benches -- report --only {row}"),
            better: Some(better),
            wants: None,
        }
    }

    /// With what it has to reach.
    #[must_use]
    pub fn bar(mut self, bar: Bar) -> Self {
        self.wants = Some(bar);
        self.judge()
    }

    /// Beside a peer; without a figure when the peer is not there.
    #[must_use]
    pub fn peer(mut self, name: &str, value: Option<f64>) -> Self {
        let missing = if value.is_none() { " (not installed)" } else { "" };
        self.peer = Some(format!("{name}{missing}"));
        self.peer_value = value;
        self.judge()
    }

    /// With the limit that is known.
    #[must_use]
    pub fn limit(mut self, limit: &str) -> Self {
        self.limit = Some(limit.to_owned());
        self
    }

    fn judge(mut self) -> Self {
        let peer = self.peer_value;
        self.bar = self.wants.map(Bar::text);
        self.bar_value = self.wants.and_then(|bar| bar.value(peer));
        self.pass = self.wants.and_then(|bar| bar.is_reached(self.value, peer));
        self.ratio = peer.map(|peer| match self.better {
            Some(Better::More) => self.value / peer,
            _ => peer / self.value,
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_our_favour_whichever_way_is_good() {
        let cost = Entry::new("C0.cost", "", 50.0, "ns", Better::Less).peer("peer", Some(100.0));
        let rate = Entry::new("C0.rate", "", 100.0, "1/s", Better::More).peer("peer", Some(50.0));
        assert_eq!((cost.ratio, rate.ratio), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn a_bar_against_a_peer_that_is_not_there_is_neither_reached_nor_missed() {
        let entry = Entry::new("C0.rate", "", 100.0, "1/s", Better::More);
        let entry = entry.bar(Bar::AtLeastTimesPeer(2.0)).peer("peer", None);
        assert_eq!(entry.pass, None);
        assert_eq!(entry.peer.as_deref(), Some("peer (not installed)"));
        let entry = entry.peer("peer", Some(60.0));
        assert_eq!((entry.pass, entry.bar_value), (Some(false), Some(120.0)));
    }

    #[test]
    fn the_fields_of_the_json_are_those_that_are_documented() {
        let entry = Entry::new("C0.rate", "", 100.0, "1/s", Better::More);
        let json = serde_json::to_value(entry).expect("an object");
        let mut fields: Vec<_> = json.as_object().expect("an object").keys().cloned().collect();
        fields.sort_unstable();
        let documented =
            "bar bar_value command id limit pass peer peer_value ratio unit value what";
        assert_eq!(fields.join(" "), documented);
    }
}
