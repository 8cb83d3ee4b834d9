//! Names for the places at which a machine can go down: what was being done to which file.
//!
//! The engine knows nothing of them. A name is derived from what the simulated disk sees: the file's
//! name, the operation, and, where one file serves several purposes, the bytes: a frame of the log is
//! named after the rarest record in it, an old file after whether its records were in one before. A
//! sync is named after what was written since the sync before it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use switchboard_engine::fs::sim::{Touch, TouchKind};

/// Whether the store was being opened, or at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Open,
    Work,
}

/// Where a machine goes down: in which phase, at what, and in the midst of which operation.
pub(crate) type Point = (Phase, &'static str, &'static str);

/// Names operations as they come.
#[derive(Default)]
pub(crate) struct Namer {
    phase: Option<Phase>,
    /// What was written last to a file.
    written: HashMap<PathBuf, &'static str>,
    /// What changed last in a directory since the start.
    changed: HashMap<PathBuf, &'static str>,
    /// The frames that were written: segment, offset and CRC.
    frames: HashSet<(PathBuf, u64, [u8; 4])>,
    /// Ids of messages that an old file already had.
    moved: HashSet<[u8; 16]>,
}

impl Namer {
    /// A process begins, or has begun.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = Some(phase);
        if phase == Phase::Open {
            self.changed.clear();
        }
    }

    /// What is touched, and how.
    pub(crate) fn name(&mut self, touch: &Touch<'_>) -> Point {
        let Touch { kind, path, to, .. } = *touch;
        let what = match kind {
            TouchKind::Write => self.content(touch),
            TouchKind::Sync => self.written.get(path).copied().unwrap_or("nothing new"),
            // What a process before this one has changed is made durable at the start.
            TouchKind::SyncDir => self.changed.get(path).copied().unwrap_or_else(|| dir(path)),
            TouchKind::Rename if is_segment(path) => "recycled segment",
            TouchKind::Remove if is_segment(path) => "surplus segment",
            TouchKind::MakeDir => "directory",
            TouchKind::Create | TouchKind::Rename | TouchKind::Remove | TouchKind::SetSize => {
                file(path)
            }
        };
        match kind {
            TouchKind::Write => {
                self.written.insert(path.to_owned(), what);
            }
            TouchKind::Create | TouchKind::Rename | TouchKind::Remove => {
                let dir = to.unwrap_or(path).parent().unwrap_or(path);
                self.changed.insert(dir.to_owned(), what);
            }
            _ => {}
        }
        (self.phase.unwrap_or(Phase::Open), what, operation(kind))
    }

    fn content(&mut self, touch: &Touch<'_>) -> &'static str {
        let Touch { path, bytes, offset, .. } = *touch;
        if is_segment(path) {
            let crc = bytes.get(60..64).and_then(|crc| crc.try_into().ok()).unwrap_or_default();
            let is_new = self.frames.insert((path.to_owned(), offset, crc));
            let is_again = !is_new && self.phase == Some(Phase::Open);
            return if is_again { "last frame, again" } else { frame(bytes) };
        }
        if path.extension().is_some_and(|e| e == "old") {
            return if self.moves_again(bytes) {
                "old file, rewriting"
            } else {
                "old file, moving"
            };
        }
        file(path)
    }

    /// Whether any record of an old file was in an old file before.
    fn moves_again(&mut self, bytes: &[u8]) -> bool {
        const FILE_HEAD: usize = 24;
        let mut rest = bytes.get(FILE_HEAD..).unwrap_or_default();
        let mut again = false;
        while let Some((len, id)) = length(rest).zip(rest.get(9..25)) {
            again |= !self.moved.insert(id.try_into().unwrap_or_default());
            rest = rest.get(8 + len..).unwrap_or_default();
        }
        again
    }
}

fn operation(kind: TouchKind) -> &'static str {
    match kind {
        TouchKind::MakeDir => "make",
        TouchKind::Create => "create",
        TouchKind::Rename => "rename",
        TouchKind::Remove => "remove",
        TouchKind::Write => "write",
        TouchKind::SetSize => "resize",
        TouchKind::Sync => "sync",
        TouchKind::SyncDir => "sync directory",
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "log")
}

fn dir(path: &Path) -> &'static str {
    let has = |part: &str| path.components().any(|component| component.as_os_str() == part);
    if has("checkpoints") {
        "directory of checkpoints"
    } else if has("bodies") {
        "directory of old files"
    } else if has("ids") {
        "directory of id files"
    } else {
        "directory of the log"
    }
}

fn file(path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "lock" => "lock",
        "spare.tmp" => "new segment",
        "disk-id" | "disk-id.tmp" => "disk id",
        _ if name.ends_with(".ckpt") => "older checkpoint",
        _ if name.ends_with(".ckpt.tmp") => "checkpoint",
        _ if name.ends_with(".old") => "old file",
        _ if name.ends_with(".ids") => "id file",
        _ => "a file of no known kind",
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    usize::try_from(len).ok()
}

/// A frame by its rarest record (see `docs/file-format.md`).
fn frame(bytes: &[u8]) -> &'static str {
    const FRAME_HEAD: usize = 64;
    const RECORD_HEAD: usize = 36;
    if bytes.get(5) == Some(&2) {
        return "segment header";
    }
    let records = bytes.get(40..).and_then(length).unwrap_or(0);
    let mut rest = bytes.get(FRAME_HEAD..FRAME_HEAD + records).unwrap_or_default();
    let mut rarest = 0;
    while let Some((len, kind)) = length(rest).zip(rest.get(32)) {
        rarest = rarest.max(match kind {
            3 => 1,
            1 => 2,
            2 => 3,
            6 => 4,
            5 => 5,
            4 => 6,
            7 => 7,
            _ => 8,
        });
        rest = rest.get(RECORD_HEAD + len..).unwrap_or_default();
    }
    [
        "silence frame",
        "frame of commits alone",
        "frame of entries",
        "frame with a vote",
        "frame with a checkpoint mark",
        "frame with a purge",
        "frame with a truncation",
        "frame with a drop",
        "frame of no known kind",
    ][rarest]
}

/// How often the machine went down at each point, and which points there are.
#[derive(Default)]
pub(crate) struct Hits {
    hits: BTreeMap<Point, u64>,
    seen: BTreeSet<Point>,
}

impl Hits {
    pub(crate) fn add(&mut self, hit: Option<Point>, seen: BTreeSet<Point>) {
        if let Some(point) = hit {
            *self.hits.entry(point).or_default() += 1;
        }
        self.seen.extend(seen);
    }

    /// Points that the list lacks, in a form that can be put into it.
    pub(crate) fn unlisted(&self, points: &[Point]) -> Vec<String> {
        let new = self.seen.iter().filter(|point| !points.contains(point));
        new.map(|(phase, what, how)| format!("({phase:?}, {what:?}, {how:?}),")).collect()
    }

    /// Points of the list that were hit less than `wanted` times.
    pub(crate) fn rare(&self, points: &[Point], wanted: u64) -> Vec<(Point, u64)> {
        let hits = points.iter().map(|point| (*point, self.hits.get(point).copied().unwrap_or(0)));
        hits.filter(|(_, hits)| *hits < wanted).collect()
    }

    pub(crate) fn print(&self, title: &str) {
        println!(
            "\n{title}: crashes at each point\n{:<30} {:<15} {:>8} {:>8}",
            "", "", "open", "work"
        );
        let rows: BTreeMap<(&str, &str), [u64; 2]> =
            self.hits.iter().fold(BTreeMap::new(), |mut rows, ((phase, what, how), hits)| {
                rows.entry((*what, *how)).or_default()[*phase as usize] += hits;
                rows
            });
        for ((what, how), [open, work]) in rows {
            println!("{what:<30} {how:<15} {open:>8} {work:>8}");
        }
    }
}
