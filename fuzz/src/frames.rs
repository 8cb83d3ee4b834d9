//! Log frames as bytes: makes their CRCs and chain right after they were changed, and lists what entries
//! stand in them.
//!
//! The format is in `docs/file-format.md`, "Log bytes". Written from that document alone, so it is also a
//! second reading of it.

/// Frames begin on multiples of this.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: &[u8] = b"SBLF";
const FRAME_HEAD_BYTES: usize = 64;
const RECORD_HEAD_BYTES: usize = 36;
const ENTRY: u8 = 1;

/// An entry as it stands in a file: group, term, index, kind of payload, payload.
pub type StoredEntry = (u32, u64, u64, u8, Vec<u8>);

/// Makes every frame of these segments, in order, whole and chained to the one before it.
pub fn repair<'a>(segments: impl Iterator<Item = &'a mut Vec<u8>>, disk_id: &[u8; 16]) {
    let seed = crc32fast::hash(disk_id);
    let mut chain = None;
    for segment in segments {
        let mut at = 0;
        while let Some(len) = frame_len(segment, at) {
            let frame = &mut segment[at..at + len];
            chain = Some(repair_frame(frame, chain, seed));
            at += len.next_multiple_of(BLOCK_BYTES);
        }
    }
}

/// Every entry in any frame that begins like one, right or not.
pub fn entries(segment: &[u8]) -> Vec<StoredEntry> {
    let mut found = Vec::new();
    for at in (0..segment.len()).step_by(BLOCK_BYTES) {
        let Some(len) = frame_len(segment, at) else { continue };
        let mut records = &segment[at + FRAME_HEAD_BYTES..at + len];
        while let Some((record, rest)) = split_record(records) {
            if record[32] == ENTRY {
                let number = |at: usize| u64_at(record, at);
                let payload = record[RECORD_HEAD_BYTES..].to_vec();
                found.push((u32_at(record, 8), number(16), number(24), record[33], payload));
            }
            records = rest;
        }
    }
    found
}

/// The length of the frame at `at`, cut to what there is; `None` if there is none.
fn frame_len(segment: &[u8], at: usize) -> Option<usize> {
    let frame = segment.get(at..).filter(|frame| frame.len() >= FRAME_HEAD_BYTES)?;
    let len = FRAME_HEAD_BYTES.saturating_add(u32_at(frame, 40) as usize);
    frame.starts_with(MAGIC).then_some(len.min(frame.len()))
}

/// Returns the CRC that the next frame is chained to.
fn repair_frame(frame: &mut [u8], chain: Option<u32>, seed: u32) -> u32 {
    let (head, mut records) = frame.split_at_mut(FRAME_HEAD_BYTES);
    let (mut count, mut bytes) = (0_u32, 0);
    let mut records_crc = crc32fast::Hasher::new();
    while records.len() >= RECORD_HEAD_BYTES {
        let len = (u32_at(records, 0) as usize).min(records.len() - RECORD_HEAD_BYTES);
        let (record, rest) = records.split_at_mut(RECORD_HEAD_BYTES + len);
        put_u32(record, 0, len as u32);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&record[RECORD_HEAD_BYTES..]);
        crc.update(&record[0..4]);
        crc.update(&record[8..RECORD_HEAD_BYTES]);
        put_u32(record, 4, crc.finalize());
        records_crc.update(&record[0..8]);
        count += 1;
        bytes += record.len();
        records = rest;
    }
    put_u32(head, 40, bytes as u32);
    put_u32(head, 44, count);
    if let Some(chain) = chain {
        put_u32(head, 48, chain);
    }
    put_u32(head, 52, records_crc.finalize());
    let mut crc = crc32fast::Hasher::new_with_initial(seed);
    crc.update(&head[..60]);
    let crc = crc.finalize();
    put_u32(head, 60, crc);
    crc
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = records.get(..RECORD_HEAD_BYTES)?;
    records.split_at_checked(RECORD_HEAD_BYTES.checked_add(u32_at(head, 0) as usize)?)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
