//! Reads a log back: which segments there are, what they say, where the log ends. Writes nothing.
//!
//! 1. *The newest segment* is the one of the highest sequence with a whole header. Above it there
//!    may be one more file, which was being prepared, or whose header never got synced.
//! 2. Downwards from it, as long as the sequences are unbroken, segments belong to the log. What is
//!    older than a missing one was retired: a segment is retired only when all older ones are.
//! 3. Replay begins with the state in the oldest header and goes through all frames. Each later
//!    header must say exactly what replay gives. A sealed segment ends where the header after it
//!    says that all was durable; a bad frame before that is corruption.
//! 4. The newest segment ends at the first place without a whole frame. If a frame behind that place
//!    says that something there was durable, it is corruption; else it is the write that a crash
//!    interrupted, and is cut. So is a newest segment whose file is shorter than its header says;
//!    that no crash does, so it is reported.
//! 5. Every entry that a group has must have been met.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{Fault, LogOpenError};
use super::frame::{FrameHead, VERSION};
use super::header::{self, SegmentHeader};
use super::index::Index;
use super::limits::{RECOVERY_THREADS_MAX, SEGMENT_BYTES_MAX};
use super::scan::{BadFrame, Beyond, Scanner, Step};
use super::segment::{SegmentFile, file_name, sequence_of};
use super::written::Written;
use crate::fs::{Files, OpenMode};

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) written: Written,
    /// The segments of the log but the newest, oldest first.
    pub(super) sealed: Vec<SegmentFile>,
    pub(super) active: SegmentFile,
    /// The size that the newest segment's file should have, if somebody has cut it.
    pub(super) cut_from: Option<u64>,
    pub(super) end: LogEnd,
    /// A file above the newest segment, unfinished.
    pub(super) unfinished: Option<SegmentFile>,
    /// Files of segments that nobody needs.
    pub(super) retired: Vec<SegmentFile>,
}

/// Where the log ends.
#[derive(Clone, Debug)]
pub(super) struct LogEnd {
    /// In the newest segment.
    pub(super) offset: u64,
    /// The CRC of the last frame.
    pub(super) chain: u32,
    /// What follows the end is the rest of a frame that was never durable.
    pub(super) torn: bool,
    /// Offset and header of the last frame: no later frame says that it is durable.
    pub(super) last_frame: (u64, FrameHead),
}

/// A segment whose header was read.
pub(super) struct Opened {
    pub(super) file: SegmentFile,
    pub(super) head: FrameHead,
    header: SegmentHeader,
    pub(super) chain: u32,
}

impl Opened {
    /// The size that the file should have, if it is shorter.
    fn cut_from(&self) -> Option<u64> {
        let bytes = self.header.segment_bytes;
        (self.file.bytes < bytes).then_some(bytes)
    }
}

enum Opening {
    Whole(Opened),
    /// No header that ever was durable.
    Unfinished(SegmentFile),
}

pub(super) struct Recovery<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    disk_id: [u8; 16],
    pub(super) seed: u32,
    mode: OpenMode,
    /// Threads that check segments.
    pub(super) threads: usize,
    window: Vec<u8>,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(files: &'a dyn Files, dir: &'a Path, disk_id: [u8; 16]) -> Self {
        let seed = super::frame::seed_of(&disk_id);
        let (mode, window) = (OpenMode::Write, Vec::new());
        Self { files, dir, disk_id, seed, mode, threads: 1, window }
    }

    /// Checks segments on several threads, if the machine has them.
    pub(super) fn parallel(self) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: threads.min(RECOVERY_THREADS_MAX), ..self }
    }

    /// Opens the files for reading only.
    pub(super) fn read_only(self) -> Self {
        Self { mode: OpenMode::Read, ..self }
    }

    pub(super) fn run(mut self) -> Result<Recovered, LogOpenError> {
        let mut sequences = self.sequences()?;
        let (newest, unfinished) = self.newest(&mut sequences)?;
        // Segments of the log, newest first.
        let mut row = vec![newest];
        while let Some(below) = row.last().and_then(|s| s.file.sequence.checked_sub(1))
            && sequences.last() == Some(&below)
        {
            sequences.pop();
            match self.open(below)? {
                Opening::Whole(opened) => {
                    if let Some(bytes) = opened.cut_from() {
                        let what = format!("its header says that it has {bytes} bytes");
                        return Err(self.corrupt(&opened.file.path, opened.file.bytes, what));
                    }
                    row.push(opened);
                }
                Opening::Unfinished(file) => {
                    return Err(self.corrupt(&file.path, 0, "the segment has no header"));
                }
            }
        }
        row.reverse();
        let (index, written, end) = self.replay(&row)?;
        let cut_from = row.last().and_then(Opened::cut_from);
        let mut files: Vec<SegmentFile> = row.into_iter().map(|opened| opened.file).collect();
        let Some(active) = files.pop() else { return Err(self.no_segment()) };
        let retired: Result<Vec<_>, _> = sequences.iter().map(|s| self.open_file(*s)).collect();
        let (sealed, retired) = (files, retired?);
        Ok(Recovered { index, written, sealed, active, cut_from, end, unfinished, retired })
    }

    /// The sequences of the segment files, ascending.
    fn sequences(&self) -> Result<Vec<u64>, LogOpenError> {
        let names = self.files.list(self.dir).map_err(|e| Fault::new("list", self.dir, e))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    fn newest(
        &mut self,
        sequences: &mut Vec<u64>,
    ) -> Result<(Opened, Option<SegmentFile>), LogOpenError> {
        let mut unfinished: Option<SegmentFile> = None;
        while let Some(sequence) = sequences.pop() {
            match (self.open(sequence)?, &unfinished) {
                (Opening::Whole(opened), Some(above)) if above.sequence != sequence + 1 => {
                    let what = "it is gone, but the segment after it was prepared".to_owned();
                    let file = self.dir.join(file_name(opened.file.sequence + 1));
                    return Err(LogOpenError::Missing { dir: self.dir.to_path_buf(), file, what });
                }
                (Opening::Whole(opened), _) => return Ok((opened, unfinished)),
                (Opening::Unfinished(file), None) => unfinished = Some(file),
                (Opening::Unfinished(file), Some(_)) => {
                    return Err(self.corrupt(&file.path, 0, "the segment has no header"));
                }
            }
        }
        Err(self.no_segment())
    }

    fn open_file(&self, sequence: u64) -> Result<SegmentFile, LogOpenError> {
        let path = self.dir.join(file_name(sequence));
        let file = self.files.open(&path, self.mode).map_err(|e| Fault::new("open", &path, e))?;
        let bytes = file.size().map_err(|e| Fault::new("stat", &path, e))?;
        if bytes > SEGMENT_BYTES_MAX {
            return Err(self.corrupt(&path, SEGMENT_BYTES_MAX, "it is longer than any segment"));
        }
        Ok(SegmentFile::new(self.dir, sequence, file, bytes))
    }

    fn open(&mut self, sequence: u64) -> Result<Opening, LogOpenError> {
        let file = self.open_file(sequence)?;
        let path = file.path.clone();
        let fault = |e| Fault::new("read", &path, e);
        let window = std::mem::take(&mut self.window);
        let mut scanner = Scanner::new(&*file.file, sequence, self.seed, window).map_err(fault)?;
        let step = scanner.step().map_err(fault)?;
        let opened = match step {
            Step::Frame(head) => {
                let header = header::decode(scanner.records())
                    .map_err(|bad| self.corrupt(&path, 0, bad.to_string()))?;
                let chain = scanner.chain().unwrap_or_default();
                Some((head, header, chain))
            }
            Step::Bad(BadFrame::Version(found)) => return Err(self.version(&path, found)),
            Step::End | Step::Bad(_) => {
                if let Some(beyond) = scanner.beyond().map_err(fault)? {
                    return Err(self.no_end(&path, 0, beyond, step));
                }
                None
            }
        };
        self.window = scanner.into_window();
        let Some((head, header, chain)) = opened else { return Ok(Opening::Unfinished(file)) };
        if header.disk_id != self.disk_id {
            return Err(LogOpenError::DiskId { dir: self.dir.to_path_buf() });
        }
        if header.segment_bytes < file.bytes {
            let what = format!("its header says that it has {} bytes", header.segment_bytes);
            return Err(self.corrupt(&path, header.segment_bytes, what));
        }
        Ok(Opening::Whole(Opened { file, head, header, chain }))
    }

    fn replay(&self, row: &[Opened]) -> Result<(Index, Written, LogEnd), LogOpenError> {
        let (mut index, mut written) = (Index::default(), Written::default());
        let Some(oldest) = row.first() else { return Err(self.no_segment()) };
        for (group, core) in &oldest.header.groups {
            index.start(*group, core.clone());
            written.start(*group, core.clone());
        }
        let mut before: Option<LogEnd> = None;
        self.check_segments(row, &mut |opened, checked| {
            self.check_states(opened, &written)?;
            if before.as_ref().is_some_and(|end| end.chain != opened.head.previous) {
                let what = "the segment does not follow the one before it";
                return Err(self.corrupt(&opened.file.path, 0, what));
            }
            checked
                .apply(opened.file.sequence, &mut index, &mut written)
                .map_err(|(at, what)| self.corrupt(&opened.file.path, at, what.to_string()))?;
            before = Some(checked.end.clone());
            Ok(())
        })?;
        let Some(end) = before else { return Err(self.no_segment()) };
        if let Some((group, first)) = index.gap() {
            let what = format!("it holds entry {first} of group {group}");
            let file = self.dir.join("*.log");
            return Err(LogOpenError::Missing { dir: self.dir.to_path_buf(), file, what });
        }
        Ok((index, written, end))
    }

    fn check_states(&self, segment: &Opened, written: &Written) -> Result<(), LogOpenError> {
        let states: BTreeMap<_, _> = written.cores().map(|(g, core)| (g, core.clone())).collect();
        if states == segment.header.groups {
            return Ok(());
        }
        let what = "its header says something else than the segments before it";
        Err(self.corrupt(&segment.file.path, 0, what))
    }

    pub(super) fn corrupt(
        &self,
        file: &Path,
        offset: u64,
        what: impl Into<String>,
    ) -> LogOpenError {
        let (dir, file) = (self.dir.to_path_buf(), file.to_path_buf());
        LogOpenError::Corrupt { dir, file, offset, what: what.into() }
    }

    /// A place without a whole frame that is not the end of the log.
    pub(super) fn no_end(
        &self,
        file: &Path,
        offset: u64,
        beyond: Beyond,
        step: Step,
    ) -> LogOpenError {
        let (by, durable) = match beyond {
            Beyond::Newer(version) => return self.version(file, version),
            Beyond::Durable(by, durable) => (by, durable),
        };
        let bad = match step {
            Step::Bad(bad) => bad.to_string(),
            _ => "there is no frame".to_owned(),
        };
        let what = format!(
            "{bad}, although the frame at offset {by} says that all was durable up to offset {}",
            durable.offset
        );
        self.corrupt(file, offset, what)
    }

    pub(super) fn version(&self, file: &Path, found: u8) -> LogOpenError {
        LogOpenError::Version { file: file.to_path_buf(), found, known: VERSION }
    }

    fn no_segment(&self) -> LogOpenError {
        LogOpenError::Missing {
            dir: self.dir.to_path_buf(),
            file: self.dir.join("*.log"),
            what: "the directory has a disk id, so it had a log, but no segment with a header"
                .to_owned(),
        }
    }
}
