//! Takes records from callers: checks all of them, then shows them to readers and queues them.

use smallvec::SmallVec;

use super::core::Core;
use super::error::AppendError;
use super::frame::{FRAME_HEAD_BYTES, frame_bytes};
use super::index::{Index, payload_of};
use super::limits::{frame_bytes_max, groups_max, payload_bytes_max};
use super::queue::{Done, Item, Queue, Queued};
use super::record::{Change, Prepared, Record};
use super::shared::Shared;
use crate::GroupId;

/// Queues records. Returns the completion if it is due at once, with its result; else the caller has
/// to see to it that somebody writes.
pub(super) fn append(
    shared: &Shared,
    records: Vec<Record>,
    done: Done,
) -> Option<(Done, Result<(), AppendError>)> {
    let payload_max = payload_bytes_max(shared.options.segment_bytes);
    let mut prepared: SmallVec<[Prepared; 2]> = SmallVec::with_capacity(records.len());
    for record in records {
        match Prepared::new(record, payload_max) {
            Ok(record) => prepared.push(record),
            Err(error) => return Some((done, Err(error))),
        }
    }
    let lazy = !prepared.is_empty() && prepared.iter().all(Prepared::is_lazy);
    let mut index = shared.index.write();
    let mut queue = shared.queue.lock();
    if let Err(error) = admit(shared, &index, &queue, &prepared) {
        return Some((done, Err(error)));
    }
    let records = prepared.into_iter().map(|record| show(&mut index, record));
    if lazy {
        records.for_each(|record| queue.push_lazy(record));
        return Some((done, Ok(())));
    }
    let records: Vec<Queued> = records.collect();
    drop(index);
    for record in &records {
        if matches!(record.change, Change::Committed(_) | Change::Drop) {
            // Newer than the lazy one, or the end of the life it belongs to.
            queue.forget_lazy(record.group);
        }
    }
    push_split(&mut queue, records, done, frame_bytes_max(shared.options.segment_bytes));
    drop(queue);
    None
}

/// Checks everything that could refuse the records, so that they are appended all or not at all.
fn admit(
    shared: &Shared,
    index: &Index,
    queue: &Queue,
    records: &[Prepared],
) -> Result<(), AppendError> {
    if let Some(closed) = &queue.closed {
        return Err(closed.clone());
    }
    let bytes: u64 = records.iter().map(Prepared::bytes).sum();
    let waiting = queue.bytes().saturating_add(bytes);
    let bytes_max = shared.options.queue_bytes_max;
    if waiting > bytes_max as u64 {
        return Err(AppendError::QueueFull {
            bytes: usize::try_from(queue.bytes()).unwrap_or(usize::MAX),
            bytes_max,
        });
    }
    let entries = records.iter().any(|record| matches!(record.change, Change::Entry { .. }));
    if entries && !queue.next_ready {
        // An eighth of the segment is for what frees space: purges, checkpoints, votes. Entries
        // that the active segment can't take are accepted only if there is space for another, or
        // they would wait, and a purge behind them.
        let for_entries = queue.active_left.saturating_sub(shared.options.segment_bytes / 8);
        if frame_bytes(waiting) > for_entries
            && let Err((needed_bytes, free_bytes)) = shared.keeper.check_space()
        {
            return Err(AppendError::DiskFull { needed_bytes, free_bytes });
        }
    }
    check_order(index, records, groups_max(shared.options.segment_bytes))
}

fn check_order(index: &Index, records: &[Prepared], groups_max: usize) -> Result<(), AppendError> {
    let mut cores: SmallVec<[(GroupId, Core); 4]> = SmallVec::new();
    let mut groups = index.groups_len();
    for Prepared { group, change, .. } in records {
        let known = cores.iter().position(|(id, _)| id == group);
        let at = known.unwrap_or_else(|| {
            let core = index.group(*group).map(|group| group.core.clone());
            groups += usize::from(core.is_none());
            cores.push((*group, core.unwrap_or_default()));
            cores.len() - 1
        });
        let Some((_, core)) = cores.get_mut(at) else { continue };
        if groups > groups_max {
            return Err(AppendError::TooManyGroups { group: *group, groups_max });
        }
        if let Change::Entry { id, .. } = change
            && !core.follows(*id)
        {
            return Err(AppendError::OutOfOrder { group: *group, id: *id, last: core.last });
        }
        core.apply(change);
    }
    Ok(())
}

/// Puts a record into the index; from then on it is read.
fn show(index: &mut Index, record: Prepared) -> Queued {
    let life = index.life(record.group);
    let head = record.head(life);
    let payload = payload_of(&record.change, &record.payload);
    let number = index.append(record.group, &record.change, payload);
    let Prepared { group, change, payload, .. } = record;
    Queued { group, life, change, head, payload, number }
}

/// Queues records as one item, or as several if they fit no single frame; the last completes.
fn push_split(queue: &mut Queue, records: Vec<Queued>, done: Done, frame_max: u64) {
    let room = frame_max - FRAME_HEAD_BYTES as u64;
    let (mut item, mut bytes) = (Vec::new(), 0);
    for record in records {
        if bytes + record.bytes() > room {
            let records = std::mem::take(&mut item);
            queue.push(Item { records, done: None, flush: false });
            bytes = 0;
        }
        bytes += record.bytes();
        item.push(record);
    }
    queue.push(Item { records: item, done: Some(done), flush: false });
}
