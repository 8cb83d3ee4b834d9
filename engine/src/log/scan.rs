//! Walks over the frames of one segment, for recovery and for inspection. Changes nothing.

use std::io;

use super::frame::{FRAME_HEAD_BYTES, FrameHead, FrameKind, LogPlace, Looked};
use super::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, SCAN_BYTES};
use super::record::{BadRecord, Found};
use crate::fs::FileHandle;

/// What stands where the next frame should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole frame: its records are at [`Scanner::records`].
    Frame(FrameHead),
    /// No frame of this segment: the end, if nothing durable is missing.
    End,
    /// A frame of this segment, but not a whole or not the right one.
    Bad(BadFrame),
}

/// What is behind a place, and speaks against its being the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// A frame of this version, which a newer build has written: what it makes of the place is not
    /// known here, so the log must not be cut there.
    Newer(u8),
    /// A frame at this offset says that all before this place was durable.
    Durable(u64, LogPlace),
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("the CRC of a frame header is wrong")]
    Head,
    #[error("a frame of format version {0}")]
    Version(u8),
    #[error("a frame that belongs elsewhere")]
    Place,
    #[error("a frame that does not follow the one before it")]
    Chain,
    #[error("a frame longer than its segment or than any frame may be")]
    Length,
    #[error("a frame of the wrong kind")]
    Kind,
    #[error("a frame whose records don't match its header")]
    Records,
    #[error("a frame with a bad record: {0}")]
    Record(#[from] BadRecord),
}

pub(super) struct Scanner<'a> {
    file: &'a dyn FileHandle,
    segment: u64,
    seed: u32,
    size: u64,
    /// Where the next frame should begin.
    at: u64,
    /// The CRC of the frame before, if it is known.
    chain: Option<u32>,
    /// A piece of the file, from `window_at`.
    window: Vec<u8>,
    window_at: u64,
    records: std::ops::Range<usize>,
}

impl<'a> Scanner<'a> {
    /// `window` is a buffer that is used again from segment to segment.
    pub(super) fn new(
        file: &'a dyn FileHandle,
        segment: u64,
        seed: u32,
        window: Vec<u8>,
    ) -> io::Result<Self> {
        let (size, mut window) = (file.size()?, window);
        window.clear();
        let (at, window_at, records) = (0, 0, 0..0);
        Ok(Self { file, segment, seed, size, at, chain: None, window, window_at, records })
    }

    /// Offset of the next frame.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// CRC of the frame before the next.
    pub(super) fn chain(&self) -> Option<u32> {
        self.chain
    }

    pub(super) fn into_window(self) -> Vec<u8> {
        self.window
    }

    /// The records of the frame that was found last.
    pub(super) fn records(&self) -> &[u8] {
        self.window.get(self.records.clone()).unwrap_or_default()
    }

    /// Looks at the next frame and, if it is whole, goes past it.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let (at, segment, seed) = (self.at, self.segment, self.seed);
        let head_bytes = self.bytes(at, FRAME_HEAD_BYTES)?;
        let (head, crc) = match FrameHead::look(head_bytes, segment, seed) {
            Looked::Head(head, crc) => (head, crc),
            Looked::Other => return Ok(Step::End),
            Looked::Torn => return Ok(Step::Bad(BadFrame::Head)),
            Looked::NewerVersion(version) => return Ok(Step::Bad(BadFrame::Version(version))),
        };
        if let Err(bad) = self.check_head(&head) {
            return Ok(Step::Bad(bad));
        }
        let len = FRAME_HEAD_BYTES.saturating_add(head.records_bytes as usize);
        let frame = self.bytes(at, len)?;
        if let Err(bad) = check_records(&head, frame.get(FRAME_HEAD_BYTES..).unwrap_or_default()) {
            return Ok(Step::Bad(bad));
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        self.records = start.saturating_add(FRAME_HEAD_BYTES)..start.saturating_add(len);
        self.at = at.saturating_add(head.total_bytes());
        self.chain = Some(crc);
        Ok(Step::Frame(head))
    }

    fn check_head(&self, head: &FrameHead) -> Result<(), BadFrame> {
        let place = LogPlace { segment: self.segment, offset: self.at };
        if head.place != place {
            return Err(BadFrame::Place);
        }
        if self.chain.is_some_and(|chain| chain != head.previous) {
            return Err(BadFrame::Chain);
        }
        if (head.kind == FrameKind::SegmentHeader) != (self.at == 0) {
            return Err(BadFrame::Kind);
        }
        let end = self.at.saturating_add(head.total_bytes());
        // A segment header full of groups may be longer than a frame of records.
        if end > self.size || head.total_bytes() > FRAME_BYTES_MAX.max(self.size / 4) {
            return Err(BadFrame::Length);
        }
        Ok(())
    }

    /// What behind the next frame's place forbids to take that place for the end of the log.
    ///
    /// A frame is written only when the one before it is synced. So if the next frame is bad and
    /// there is a header that says that something at or behind its place was durable, it is no torn
    /// write: it was durable once.
    pub(super) fn beyond(&mut self) -> io::Result<Option<Beyond>> {
        let (segment, offset) = (self.segment, self.at);
        self.look_beyond(|at, looked| match looked {
            Looked::NewerVersion(version) => Some(Beyond::Newer(version)),
            Looked::Head(head, _)
                if head.place == (LogPlace { segment, offset: at })
                    && head.durable > (LogPlace { segment, offset }) =>
            {
                Some(Beyond::Durable(at, head.durable))
            }
            _ => None,
        })
    }

    /// The first frame header behind the next frame's place.
    pub(super) fn next_head(&mut self) -> io::Result<Option<(u64, FrameHead)>> {
        let segment = self.segment;
        self.look_beyond(|at, looked| match looked {
            Looked::Head(head, _) if head.place == (LogPlace { segment, offset: at }) => {
                Some((at, head))
            }
            _ => None,
        })
    }

    /// Looks at every place behind the next frame's where a frame could begin, until `found`.
    fn look_beyond<T>(
        &mut self,
        found: impl Fn(u64, Looked) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let (segment, seed) = (self.segment, self.seed);
        let mut at = self.at.saturating_add(BLOCK_BYTES);
        while at < self.size {
            let bytes = self.bytes(at, FRAME_HEAD_BYTES)?;
            if let Some(found) = found(at, FrameHead::look(bytes, segment, seed)) {
                return Ok(Some(found));
            }
            at = at.saturating_add(BLOCK_BYTES);
        }
        Ok(None)
    }

    /// Goes on at `at`, whatever is before it.
    pub(super) fn skip_to(&mut self, at: u64) {
        self.at = at;
        self.chain = None;
    }

    /// `len` bytes of the file at `at`, or what there is of them.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let end = at.saturating_add(len as u64).min(self.size);
        let window_end = self.window_at.saturating_add(self.window.len() as u64);
        if at < self.window_at || end > window_end {
            let left = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
            self.window.resize(len.max(SCAN_BYTES).min(left), 0);
            let read = self.file.read_at(&mut self.window, at)?;
            self.window.truncate(read);
            self.window_at = at;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let end = start.saturating_add(len).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
}

fn check_records(head: &FrameHead, mut records: &[u8]) -> Result<(), BadFrame> {
    if records.len() as u64 != u64::from(head.records_bytes) {
        return Err(BadFrame::Length);
    }
    let mut crc = crc32fast::Hasher::new();
    let mut count = 0_u32;
    while !records.is_empty() {
        crc.update(records.get(..8).unwrap_or_default());
        let (_, rest) = Found::first(records)?;
        records = rest;
        count = count.wrapping_add(1);
    }
    if count != head.records || crc.finalize() != head.records_crc {
        return Err(BadFrame::Records);
    }
    Ok(())
}
