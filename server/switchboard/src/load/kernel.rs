//! Memory that the kernel keeps for connections: slab caches, by name.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// How many caches a report names.
const NAMED_MAX: usize = 12;

/// What the kernel keeps at one moment. Empty where `/proc/slabinfo` may not be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slabs {
    bytes: BTreeMap<String, u64>,
}

/// How a cache has grown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Growth {
    pub(crate) cache: String,
    pub(crate) bytes: u64,
}

/// What the kernel keeps now.
pub(crate) fn slabs() -> Slabs {
    fs::read_to_string("/proc/slabinfo").map(|text| parse(&text)).unwrap_or_default()
}

/// Memory that the system could give away now.
pub(crate) fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

impl Slabs {
    /// The caches that have grown most since `before`, and how much all have, those that shrank
    /// included.
    pub(crate) fn since(&self, before: &Slabs) -> (i64, Vec<Growth>) {
        let sum = |slabs: &Slabs| slabs.bytes.values().sum::<u64>() as i64;
        let mut grown: Vec<Growth> = self
            .bytes
            .iter()
            .map(|(cache, bytes)| {
                let was = before.bytes.get(cache).copied().unwrap_or(0);
                Growth { cache: cache.clone(), bytes: bytes.saturating_sub(was) }
            })
            .filter(|growth| growth.bytes > 0)
            .collect();
        grown.sort_by_key(|growth| std::cmp::Reverse(growth.bytes));
        grown.truncate(NAMED_MAX);
        (sum(self) - sum(before), grown)
    }
}

/// Lines of: name, active objects, objects, bytes of an object, objects a slab, pages a slab.
fn parse(text: &str) -> Slabs {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next().filter(|name| !name.starts_with('#'))?.to_owned();
        let objects: u64 = fields.nth(1)?.parse().ok()?;
        let size: u64 = fields.next()?.parse().ok()?;
        Some((name, objects * size))
    };
    Slabs { bytes: text.lines().skip(1).filter_map(of_line).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_is_named_the_largest_first() {
        let head = "slabinfo - version: 2.1\n# name <active_objs> ...\n";
        let before = parse(&format!("{head}TCP 10 16 2048 16 8 : tunables\nfilp 5 5 256 1 1 :\n"));
        let after =
            parse(&format!("{head}TCP 90 96 2048 16 8 : t\nfilp 4 4 256 1 1 :\nnew 1 1 8 1 1\n"));
        let (all, grown) = after.since(&before);
        assert_eq!(all, 80 * 2048 - 256 + 8);
        let named: Vec<&str> = grown.iter().map(|growth| growth.cache.as_str()).collect();
        assert_eq!((named.as_slice(), grown[0].bytes), (["TCP", "new"].as_slice(), 80 * 2048));
    }
}
