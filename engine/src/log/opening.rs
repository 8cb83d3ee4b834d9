//! Opens a log: takes the directory, reads back what is there, makes the end sure, starts writing.
//!
//! A new directory gets, in this order: its first segment with a header, then the disk id. So where
//! there is a disk id there was a log, and one whose segments are gone is refused, not started anew:
//! a node that has forgotten its votes must not vote.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};

use super::buffer::FrameBuffer;
use super::error::{Fault, LogOpenError};
use super::frame::LogPlace;
use super::keeper::Keeper;
use super::limits::BLOCK_BYTES;
use super::method::{self, Output};
use super::options::{LogOptions, WriterMode};
use super::queue::Queue;
use super::recovery::{LogEnd, Recovered, Recovery};
use super::segment::{Segment, SegmentFile, file_name, sequence_of};
use super::shared::{Counters, Shared};
use super::writer::{Writer, write_header};
use super::written::Written;
use crate::fs::{FileLock, Files, OpenMode, read_whole, write_whole};
use crate::planted::{self, Bug};

const LOCK_NAME: &str = "lock";
const DISK_ID_NAME: &str = "disk-id";
const DISK_ID_TITLE: &str = "switchboard disk id v1";
const DISK_ID_BYTES_MAX: usize = 256;

/// Whether nobody holds the lock of `dir`.
pub(super) fn is_free(files: &dyn Files, dir: &Path) -> bool {
    files.lock(&dir.join(LOCK_NAME)).is_ok()
}

/// Opens the log in `dir`.
pub(super) fn open(
    files: Arc<dyn Files>,
    dir: &Path,
    options: LogOptions,
) -> Result<(Arc<Shared>, Writer), LogOpenError> {
    options.validate()?;
    files.create_dir_all(dir).map_err(|e| Fault::new("create", dir, e))?;
    let lock = files.lock(&dir.join(LOCK_NAME)).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => LogOpenError::InUse { dir: dir.to_path_buf() },
        _ => Fault::new("lock", dir, e).into(),
    })?;
    let leave_bytes = options.reserve_bytes / 2;
    let keeper = Keeper::new(files.clone(), dir, options.segment_bytes, leave_bytes);
    let disk_id = match read_disk_id(&*files, dir)? {
        Some(id) if options.disk_id.is_some_and(|asked| asked != id) => {
            return Err(LogOpenError::DiskId { dir: dir.to_path_buf() });
        }
        Some(id) => id,
        None => create(&*files, dir, &options, &keeper)?,
    };
    let mut recovery = Recovery::new(&*files, dir, disk_id);
    if options.writer == WriterMode::Thread {
        recovery = recovery.parallel();
    }
    let recovered = recovery.run()?;
    start(files, dir, options, disk_id, keeper, lock, recovered)
}

/// The disk id in a directory, if it has one.
pub(super) fn read_disk_id(
    files: &dyn Files,
    dir: &Path,
) -> Result<Option<[u8; 16]>, LogOpenError> {
    let path = dir.join(DISK_ID_NAME);
    let bytes = match read_whole(files, &path, DISK_ID_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::new("read", path, e).into()),
    };
    parse_disk_id(&bytes).map(Some).ok_or_else(|| LogOpenError::Corrupt {
        dir: dir.to_path_buf(),
        file: path,
        offset: 0,
        what: "it holds no disk id".to_owned(),
    })
}

fn parse_disk_id(bytes: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    if lines.next()? != DISK_ID_TITLE {
        return None;
    }
    let hex = lines.next().filter(|hex| hex.len() == 32)?;
    Some(u128::from_str_radix(hex, 16).ok()?.to_be_bytes())
}

/// Makes the first segment, then the disk id.
fn create(
    files: &dyn Files,
    dir: &Path,
    options: &LogOptions,
    keeper: &Keeper,
) -> Result<[u8; 16], LogOpenError> {
    remove_unfinished(files, dir)?;
    let disk_id = match options.disk_id {
        Some(id) => id,
        None => {
            let mut id = [0; 16];
            files.fill_random(&mut id).map_err(|e| Fault::new("draw a disk id for", dir, e))?;
            id
        }
    };
    let first = keeper.prepare(1, 0)?;
    let (nothing, nowhere) = (Written::default(), LogPlace::default());
    let output = Output::open(files, &first, false)?;
    let mut buffer = FrameBuffer::default();
    write_header(&first, &output, &disk_id, &nothing, nowhere, 0, &mut buffer)?;
    let text = format!("{DISK_ID_TITLE}\n{:032x}\n", u128::from_be_bytes(disk_id));
    let written = write_whole(files, dir, DISK_ID_NAME, text.as_bytes());
    written.map_err(|e| Fault::new("write", dir.join(DISK_ID_NAME), e))?;
    Ok(disk_id)
}

/// A directory without a disk id may hold the beginnings of a first segment, but no frames.
fn remove_unfinished(files: &dyn Files, dir: &Path) -> Result<(), LogOpenError> {
    let names = files.list(dir).map_err(|e| Fault::new("list", dir, e))?;
    for sequence in names.iter().filter_map(|name| sequence_of(name)) {
        let path = dir.join(file_name(sequence));
        let fault = |e| Fault::new("read", &path, e);
        let file = files.open(&path, OpenMode::Read).map_err(fault)?;
        let mut block = vec![0; BLOCK_BYTES as usize];
        file.read_at(&mut block, BLOCK_BYTES).map_err(fault)?;
        if sequence != 1 || block.iter().any(|byte| *byte != 0) {
            return Err(LogOpenError::Missing {
                dir: dir.to_path_buf(),
                file: dir.join(DISK_ID_NAME),
                what: format!("{} holds records", path.display()),
            });
        }
        files.remove(&path).map_err(|e| Fault::new("remove", &path, e))?;
    }
    Ok(())
}

fn start(
    files: Arc<dyn Files>,
    dir: &Path,
    options: LogOptions,
    disk_id: [u8; 16],
    keeper: Keeper,
    lock: FileLock,
    recovered: Recovered,
) -> Result<(Arc<Shared>, Writer), LogOpenError> {
    let Recovered { mut index, written, sealed, mut active, cut_from, end, unfinished, retired } =
        recovered;
    let cut_at_open = cut_from.map(|_| active.bytes);
    if let Some(bytes) = cut_from {
        // Its size was durable before it was used, so somebody cut it: it gets its zeros back.
        let restored = active.file.set_size(bytes).and_then(|()| active.file.sync_data());
        restored.map_err(|e| Fault::new("restore the size of", &active.path, e))?;
        active.bytes = bytes;
    }
    // What a process before this one wrote or named, but did not sync, is seen and may yet be lost.
    files.sync_dir(dir).map_err(|e| Fault::new("sync", dir, e))?;
    secure_last_frame(&active, &end)?;
    // Behind a torn end is what shows that it is torn: nothing is tried there.
    let free_from = if end.torn { active.bytes } else { end.offset };
    let writes_direct = method::choose(&*files, &options, &active, free_from)?;
    let output = Output::open(&*files, &active, writes_direct)?;
    for file in sealed {
        index.segments.insert(file.sequence, Segment::new(file, true));
    }
    let active = Segment::new(active, false);
    index.segments.insert(active.file.sequence, active.clone());
    keeper.retire(retired.into_iter().map(Arc::new));
    let writer = Writer::new(active, output, end.offset, end.chain, written);
    let shared = Shared {
        files,
        dir: dir.to_path_buf(),
        disk_id,
        index: RwLock::new(index),
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
        keeper,
        cut_at_open,
        writes_direct,
        counters: Counters::default(),
        options,
        _lock: lock,
    };
    let writer = begin(&shared, writer, end.torn, unfinished)?;
    Ok((Arc::new(shared), writer))
}

/// Writes the last frame once more: no later frame says that it is durable. It may be in the page
/// cache only, and even pass for clean there if the sync of it failed. What follows it is chained to
/// it, so that goes for an empty frame as well.
fn secure_last_frame(active: &SegmentFile, end: &LogEnd) -> Result<(), LogOpenError> {
    if planted::is(Bug::LastFrameNotSecured) {
        return Ok(());
    }
    let (at, head) = end.last_frame;
    let mut bytes = vec![0; usize::try_from(head.total_bytes()).unwrap_or(usize::MAX)];
    let read = active.file.read_at(&mut bytes, at);
    read.map_err(|e| Fault::new("read", &active.path, e))?;
    let written = active.file.write_durable(&bytes, at);
    written.map_err(|e| Fault::new("write or sync", &active.path, e))?;
    Ok(())
}

/// Makes the end of the log fit to go on: a torn one is sealed where it was cut, a whole one is
/// recorded as durable.
fn begin(
    shared: &Shared,
    mut writer: Writer,
    torn: bool,
    unfinished: Option<SegmentFile>,
) -> Result<Writer, LogOpenError> {
    let usable = unfinished.filter(|file| file.bytes == shared.options.segment_bytes);
    writer.retire(shared);
    if torn {
        let next = match usable {
            Some(file) => file,
            None => shared.keeper.prepare(writer.sequence().saturating_add(1), 0)?,
        };
        writer.rotate_into(shared, next)?;
        writer.retire(shared);
    } else {
        writer.record_start(shared)?;
        if let Some(file) = usable {
            shared.keeper.put_ready(file);
            shared.refresh_outlook();
            return Ok(writer);
        }
    }
    shared.want_segment(writer.sequence().saturating_add(1));
    Ok(writer)
}
