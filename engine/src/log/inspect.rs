//! Looks at a log offline: every segment, frame and record, also of a log that does not open, and
//! where and why it doesn't. Takes no lock and changes nothing; on a log that is in use it shows some
//! moment of it.
//!
//! ```
//! use std::sync::Arc;
//! use switchboard_engine::fs::RealFiles;
//! use switchboard_engine::log::{Log, LogOptions, inspect};
//!
//! # let dir = tempfile::tempdir()?;
//! # let options = LogOptions { segment_bytes: 64 * 1024, ..LogOptions::default() };
//! drop(Log::open(Arc::new(RealFiles), dir.path(), options)?);
//! let report = inspect::inspect(&RealFiles, dir.path())?;
//! assert!(report.refused.is_none());
//! assert_eq!(report.segments[0].sequence, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::LogOpenError;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, FrameKind, LogPlace, Looked, seed_of};
use super::header::{self, SegmentHeader};
use super::opening::read_disk_id;
use super::record::{Found, HEAD_BYTES, Kind, field};
use super::recovery::Recovery;
use super::scan::{Scanner, Step};
use super::segment::{file_name, sequence_of};
use super::{Fault, GroupState};
use crate::fs::{Files, OpenMode};
use crate::{GroupId, LogId};

/// What there is in the directory of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The disk id, from its file or else from a segment.
    pub disk_id: Option<[u8; 16]>,
    /// All segment files, by ascending sequence.
    pub segments: Vec<SegmentReport>,
    /// What is known of each group, if the log opens.
    pub groups: Vec<(GroupId, GroupState)>,
    /// What opening the log would say, if it would refuse.
    pub refused: Option<String>,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its sequence.
    pub sequence: u64,
    /// Its name.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether it begins with a header; without one it is being prepared, or damaged.
    pub has_header: bool,
    /// Whole frames, the header included.
    pub frames: u64,
    /// Records in them, but for those of the header.
    pub records: u64,
    /// Bytes up to the end of the last whole frame.
    pub used_bytes: u64,
    /// The highest place that a frame says is durable.
    pub durable: LogPlace,
    /// What is wrong with it. The last segment may have one that was never durable: a write that a
    /// crash interrupted.
    pub problems: Vec<Problem>,
}

/// Something wrong in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes.
    pub offset: u64,
    /// What.
    pub what: String,
    /// A frame of the segment says that this was durable once.
    pub was_durable: bool,
}

/// One whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameReport {
    /// Where it stands.
    pub place: LogPlace,
    /// Whether it is the header of its segment.
    pub is_header: bool,
    /// Bytes with padding.
    pub bytes: u64,
    /// What it says is durable.
    pub durable: LogPlace,
    /// Its records.
    pub records: Vec<RecordReport>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordReport {
    /// Offset in the segment.
    pub offset: u64,
    /// Its kind: `entry`, `vote`, `committed`, `truncate`, `purge`, `checkpoint`, `drop`; in a
    /// header `origin`, `group-state`.
    pub kind: &'static str,
    /// Its group.
    pub group: GroupId,
    /// The life of the group.
    pub life: u32,
    /// The log id it speaks of, if it does.
    pub log_id: Option<LogId>,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

/// Looks at the whole log.
pub fn inspect(files: &dyn Files, dir: &Path) -> Result<LogReport, Fault> {
    let sequences = sequences(files, dir)?;
    let found = read_disk_id(files, dir);
    let mut refused = found.as_ref().err().map(ToString::to_string);
    let disk_id = match found {
        Ok(Some(id)) => Some(id),
        _ => sequences.iter().find_map(|sequence| disk_id_in(files, dir, *sequence)),
    };
    let mut report = LogReport { disk_id, segments: Vec::new(), groups: Vec::new(), refused: None };
    for sequence in sequences {
        report.segments.push(scan_segment(files, dir, sequence, disk_id, None)?);
    }
    if let Some(id) = disk_id.filter(|_| refused.is_none()) {
        match Recovery::new(files, dir, id).read_only().run() {
            Ok(recovered) => {
                let state = |(id, group): (GroupId, &super::index::Group)| {
                    (id, GroupState::from(&group.core))
                };
                report.groups = recovered.index.groups().map(state).collect();
            }
            Err(error) => refused = Some(error.to_string()),
        }
    }
    report.refused = refused;
    Ok(report)
}

/// Goes through the frames of one segment, or of all, in order. Behind a bad frame it goes on with
/// the next whole one. Returns what it found wrong, by segment.
pub fn frames(
    files: &dyn Files,
    dir: &Path,
    sequence: Option<u64>,
    visit: &mut dyn FnMut(FrameReport),
) -> Result<Vec<SegmentReport>, Fault> {
    let (sequences, disk_id) = (sequences(files, dir)?, disk_id(files, dir)?);
    let wanted = sequences.into_iter().filter(|found| sequence.is_none_or(|asked| asked == *found));
    wanted.map(|sequence| scan_segment(files, dir, sequence, disk_id, Some(visit))).collect()
}

/// The sequence and the name of every segment file, ascending.
pub(crate) fn segments(files: &dyn Files, dir: &Path) -> Result<Vec<(u64, String)>, Fault> {
    let named = |sequence| (sequence, file_name(sequence));
    Ok(sequences(files, dir)?.into_iter().map(named).collect())
}

/// The groups that the headers of segments name; a damaged header names none.
pub(crate) fn groups(files: &dyn Files, dir: &Path) -> Result<Vec<GroupId>, Fault> {
    let mut groups = BTreeSet::new();
    for (_, header) in headers(files, dir)? {
        groups.extend(header.groups.into_keys());
    }
    Ok(groups.into_iter().collect())
}

/// Where each sealed segment ends, as the header of the one after it says.
pub(crate) fn segment_ends(files: &dyn Files, dir: &Path) -> Result<BTreeMap<u64, u64>, Fault> {
    let ends = headers(files, dir)?.into_iter().filter_map(|(head, _)| {
        let LogPlace { segment, offset } = head.durable;
        (segment.checked_add(1) == Some(head.place.segment)).then_some((segment, offset))
    });
    Ok(ends.collect())
}

fn headers(files: &dyn Files, dir: &Path) -> Result<Vec<(FrameHead, SegmentHeader)>, Fault> {
    let (sequences, disk_id) = (sequences(files, dir)?, disk_id(files, dir)?);
    let seed = seed_of(&disk_id.unwrap_or_default());
    let mut headers = Vec::new();
    for sequence in sequences {
        let path = dir.join(file_name(sequence));
        let fault = |e| Fault::new("read", &path, e);
        let file = files.open(&path, OpenMode::Read).map_err(fault)?;
        let mut scanner = Scanner::new(&*file, sequence, seed, Vec::new()).map_err(fault)?;
        if let Step::Frame(head) = scanner.step().map_err(fault)?
            && let Ok(header) = header::decode(scanner.records())
        {
            headers.push((head, header));
        }
    }
    Ok(headers)
}

/// Everything that is wrong in one segment: at or below where it ends, or where a frame of it says
/// that all was durable. A write that a crash interrupted is no fault.
pub(crate) fn check_segment(
    files: &dyn Files,
    dir: &Path,
    sequence: u64,
    ends: &BTreeMap<u64, u64>,
) -> Result<Vec<(u64, String)>, Fault> {
    let report = scan_segment(files, dir, sequence, disk_id(files, dir)?, None)?;
    let end = ends.get(&sequence).copied().unwrap_or(0);
    let mut faults: Vec<(u64, String)> = Vec::new();
    for problem in report.problems {
        if problem.was_durable || problem.offset < end {
            faults.push((problem.offset, problem.what));
        }
    }
    if faults.is_empty() && report.used_bytes < end {
        faults.push((report.used_bytes, "a frame that was durable is gone".to_owned()));
    }
    Ok(faults)
}

/// Why the log would not open.
pub(crate) fn refusal(files: &dyn Files, dir: &Path) -> Option<LogOpenError> {
    match read_disk_id(files, dir) {
        Err(error) => Some(error),
        Ok(Some(id)) => Recovery::new(files, dir, id).read_only().parallel().run().err(),
        Ok(None) => None,
    }
}

fn disk_id(files: &dyn Files, dir: &Path) -> Result<Option<[u8; 16]>, Fault> {
    if let Ok(Some(id)) = read_disk_id(files, dir) {
        return Ok(Some(id));
    }
    Ok(sequences(files, dir)?.iter().find_map(|sequence| disk_id_in(files, dir, *sequence)))
}

fn sequences(files: &dyn Files, dir: &Path) -> Result<Vec<u64>, Fault> {
    let names = files.list(dir).map_err(|e| Fault::new("list", dir, e))?;
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// The disk id in the header of a segment, if the CRC of the header confirms it.
fn disk_id_in(files: &dyn Files, dir: &Path, sequence: u64) -> Option<[u8; 16]> {
    let file = files.open(&dir.join(file_name(sequence)), OpenMode::Read).ok()?;
    let mut bytes = [0; FRAME_HEAD_BYTES + HEAD_BYTES + 16];
    file.read_at(&mut bytes, 0).ok()?;
    let disk_id = field(&bytes, FRAME_HEAD_BYTES + HEAD_BYTES);
    let confirmed = FrameHead::look(&bytes, sequence, seed_of(&disk_id));
    matches!(confirmed, Looked::Head(..)).then_some(disk_id)
}

fn scan_segment(
    files: &dyn Files,
    dir: &Path,
    sequence: u64,
    disk_id: Option<[u8; 16]>,
    mut visit: Option<&mut dyn FnMut(FrameReport)>,
) -> Result<SegmentReport, Fault> {
    let name = file_name(sequence);
    let path = dir.join(&name);
    let fault = |e| Fault::new("read", &path, e);
    let file = files.open(&path, OpenMode::Read).map_err(fault)?;
    let seed = seed_of(&disk_id.unwrap_or_default());
    let mut scanner = Scanner::new(&*file, sequence, seed, Vec::new()).map_err(fault)?;
    let mut report = SegmentReport {
        sequence,
        file: name,
        bytes: file.size().map_err(fault)?,
        has_header: false,
        frames: 0,
        records: 0,
        used_bytes: 0,
        durable: LogPlace::default(),
        problems: Vec::new(),
    };
    loop {
        let at = scanner.at();
        let step = scanner.step().map_err(fault)?;
        if let Step::Frame(head) = step {
            report.note(&head, scanner.at());
            if let Some(visit) = &mut visit {
                visit(frame_report(at, &head, scanner.records()));
            }
            continue;
        }
        let beyond = scanner.next_head().map_err(fault)?;
        let durable = beyond
            .is_some_and(|(_, head)| head.durable > LogPlace { segment: sequence, offset: at });
        match (step, beyond) {
            (Step::Bad(bad), _) => report.problem(at, bad.to_string(), durable),
            (_, Some(_)) => report.problem(at, "there is no frame".to_owned(), durable),
            (_, None) => {}
        }
        match beyond {
            Some((next, _)) => scanner.skip_to(next),
            None => return Ok(report),
        }
    }
}

impl SegmentReport {
    fn note(&mut self, head: &FrameHead, end: u64) {
        self.frames += 1;
        match head.kind {
            FrameKind::SegmentHeader => self.has_header = true,
            FrameKind::Records => self.records += u64::from(head.records),
        }
        self.used_bytes = end;
        self.durable = self.durable.max(head.durable);
    }

    fn problem(&mut self, offset: u64, what: String, was_durable: bool) {
        self.problems.push(Problem { offset, what, was_durable });
    }
}

fn frame_report(at: u64, head: &FrameHead, mut records: &[u8]) -> FrameReport {
    let mut reports = Vec::new();
    let mut offset = at.saturating_add(FRAME_HEAD_BYTES as u64);
    // The scanner has checked the records, so this goes through to their end.
    while let Some((found, rest)) =
        Some(records).filter(|r| !r.is_empty()).and_then(|r| Found::first_checked(r).ok())
    {
        records = rest;
        let known = Kind::of(found.head.kind);
        let no_id =
            matches!(known, Some(Kind::Vote | Kind::Drop | Kind::Origin | Kind::GroupState));
        let no_id = no_id || (known == Some(Kind::Truncate) && found.head.detail == 0);
        reports.push(RecordReport {
            offset,
            kind: known.map_or("unknown", Kind::name),
            group: found.head.group,
            life: found.head.life,
            log_id: (!no_id).then_some(found.head.id),
            payload_bytes: found.head.len,
        });
        offset = offset.saturating_add((HEAD_BYTES + found.payload.len()) as u64);
    }
    FrameReport {
        place: head.place,
        is_header: head.kind == FrameKind::SegmentHeader,
        bytes: head.total_bytes(),
        durable: head.durable,
        records: reports,
    }
}
