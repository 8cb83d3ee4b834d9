//! What is remembered, in bytes: whole for exports and the state hash, an index for checkpoints, whose
//! ids stand in files of their own.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Entry, IdHash, Ids, Remembered, Slice};
use crate::codec::{DecodeError, Reader, put_count, put_varint};

/// Appends the remembered ids: all slices, ids in ascending order of seq.
pub(crate) fn encode_dedup(out: &mut BytesMut, remembered: &Remembered) {
    out.put_u64_le(remembered.forgot_ms);
    let mut ids = remembered.ids.from(remembered.first);
    for slice in &remembered.slices {
        out.put_u64_le(slice.opened_ms);
        out.put_u64_le(slice.last_ms);
        let count = usize::try_from(slice.ids).unwrap_or(usize::MAX);
        put_count(out, count);
        for (IdHash(first, second), seq) in ids.by_ref().take(count) {
            out.put_u64_le(*first);
            out.put_u64_le(*second);
            out.put_u64_le(*seq);
        }
    }
}

/// Reads what [`encode_dedup`] wrote; ordinals begin at 0.
pub(crate) fn decode_dedup(bytes: Bytes) -> Result<Remembered, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut remembered = Remembered { forgot_ms: reader.u64()?, ..Remembered::default() };
    let mut last = 0;
    while reader.left() > 0 {
        let (opened_ms, last_ms) = (reader.u64()?, reader.u64()?);
        let count = reader.count(24)?;
        for _ in 0..count {
            let id = IdHash(reader.u64()?, reader.u64()?);
            let seq = reader.u64()?;
            if seq <= last {
                return Err(DecodeError::Range { what: "seq of an id", at: reader.at() });
            }
            last = seq;
            remembered.ids.push((id, seq));
        }
        remembered.slices.push_back(Slice { opened_ms, last_ms, ids: count as u64 });
    }
    Ok(remembered)
}

/// All of what is remembered but the ids, and which files have those.
#[derive(Debug, Default)]
pub(crate) struct DedupIndex {
    /// Without ids.
    pub(crate) remembered: Remembered,
    /// Numbers of the files, in the order of the ids in them.
    pub(crate) files: Vec<u64>,
}

/// Appends an index.
pub(crate) fn encode_index(out: &mut BytesMut, remembered: &Remembered, files: &[u64]) {
    out.put_u64_le(remembered.forgot_ms);
    out.put_u64_le(remembered.first);
    put_count(out, remembered.slices.len());
    for slice in &remembered.slices {
        out.put_u64_le(slice.opened_ms);
        out.put_u64_le(slice.last_ms);
        out.put_u64_le(slice.ids);
    }
    put_count(out, files.len());
    files.iter().for_each(|number| out.put_u64_le(*number));
}

/// Reads what [`encode_index`] wrote.
pub(crate) fn decode_index(bytes: Bytes) -> Result<DedupIndex, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut index = DedupIndex::default();
    index.remembered.forgot_ms = reader.u64()?;
    index.remembered.first = reader.u64()?;
    let mut end = Some(index.remembered.first);
    for _ in 0..reader.count(24)? {
        let (opened_ms, last_ms, ids) = (reader.u64()?, reader.u64()?, reader.u64()?);
        end = end.and_then(|end| end.checked_add(ids));
        index.remembered.slices.push_back(Slice { opened_ms, last_ms, ids });
    }
    for _ in 0..reader.count(8)? {
        index.files.push(reader.u64()?);
    }
    reader.finish()?;
    // Ordinals must not overflow however many ids come.
    match end {
        Some(end) if end < 1 << 62 => Ok(index),
        _ => Err(DecodeError::Range { what: "ordinals of ids", at: reader.at() }),
    }
}

/// Appends ids as an id file has them: each with the seq's distance from the one before.
pub(crate) fn encode_ids<'a>(out: &mut BytesMut, ids: impl Iterator<Item = &'a Entry>) {
    let mut last = 0;
    for (IdHash(first, second), seq) in ids {
        out.put_u64_le(*first);
        out.put_u64_le(*second);
        put_varint(out, seq.saturating_sub(last));
        last = *seq;
    }
}

/// Reads what [`encode_ids`] wrote, until the bytes end.
pub(crate) fn decode_ids(bytes: Bytes, mut take: impl FnMut(Entry)) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut last = 0_u64;
    while reader.left() > 0 {
        let id = IdHash(reader.u64()?, reader.u64()?);
        let range = DecodeError::Range { what: "seq of an id", at: reader.at() };
        let seq = last.checked_add(reader.varint()?).filter(|seq| *seq > last).ok_or(range)?;
        last = seq;
        take((id, seq));
    }
    Ok(())
}

impl Remembered {
    /// Takes in the ids of the files that an index names: they must go on from where it begins to where
    /// its slices end. `first` is the ordinal of the first of them.
    pub(crate) fn fill(&mut self, first: u64, ids: impl IntoIterator<Item = Entry>) -> bool {
        let expected = self.slices.iter().map(|slice| slice.ids).sum::<u64>();
        let Some(skip) = self.first.checked_sub(first) else { return false };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.ids = Ids::starting_at(self.first);
        ids.into_iter().skip(skip).for_each(|entry| self.ids.push(entry));
        self.ids.next() - self.first == expected
    }
}
