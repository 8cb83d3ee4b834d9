//! Makes sections whole after their bytes were changed: lengths, CRCs and the end.
//!
//! The format is in `docs/file-format.md`, "Sections". Whatever the bytes are, what comes out has the
//! magic asked for and sections that fill it, so that the fuzzer's changes get past the envelope.

const HEAD_BYTES: usize = 9;
const VERSION: u8 = 1;
const END: u8 = 255;

/// The bytes of a file of sections whose CRCs are right.
pub fn repaired(magic: &[u8; 8], data: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.push(VERSION);
    let mut rest = data.get(HEAD_BYTES..).unwrap_or_default();
    let mut sections = 0_u32;
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>()
        && head[0] != END
    {
        let asked = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (payload, after) = after.split_at(asked.min(after.len()));
        push(&mut out, head[0], payload);
        sections += 1;
        rest = after;
    }
    push(&mut out, END, &sections.to_le_bytes());
    out
}

/// The payload of the first section.
pub fn first_payload(file: &[u8]) -> Option<&[u8]> {
    let (head, rest) = file.get(HEAD_BYTES..)?.split_first_chunk::<HEAD_BYTES>()?;
    rest.get(..u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize)
}

/// The log index in the header of a checkpoint or export: present u8, term u64, index u64.
pub fn applied_index(file: &[u8]) -> Option<u64> {
    let payload = first_payload(file)?;
    let index = payload.get(9..17)?.try_into().ok()?;
    (payload.first() == Some(&1)).then(|| u64::from_le_bytes(index))
}

fn push(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("inputs are small").to_le_bytes();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&len);
    crc.update(payload);
    out.push(kind);
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(payload);
}
