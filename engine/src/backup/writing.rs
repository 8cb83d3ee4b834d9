//! Writing a backup, part by part, as the bytes come.

use std::io::{self, Write};

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::{BYTES, ENVELOPE, MANIFEST, Manifest, PART, PART_END, Part, WHOLE};
use crate::sections::SectionWriter;

/// Writes a backup. It is whole only after [`BackupWriter::finish`].
pub struct BackupWriter<'a> {
    sections: SectionWriter<'a>,
    /// Length and hash of the part that is being written.
    part: Option<(u64, Xxh3)>,
    parts: u32,
    whole: Xxh3,
}

impl std::fmt::Debug for BackupWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupWriter").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl<'a> BackupWriter<'a> {
    /// Begins a backup.
    ///
    /// # Errors
    /// Those of `out`, here and in the other calls.
    pub fn new(out: &'a mut dyn Write, manifest: &Manifest) -> io::Result<Self> {
        let mut sections = SectionWriter::new(out, ENVELOPE)?;
        sections.section(MANIFEST, &manifest.encode())?;
        Ok(Self { sections, part: None, parts: 0, whole: Xxh3::new() })
    }

    /// Begins the part of a group.
    ///
    /// # Errors
    /// Also when the part before has not ended.
    pub fn begin(&mut self, part: &Part) -> io::Result<()> {
        if self.part.is_some() {
            return Err(io::Error::other("a part begins inside of another"));
        }
        self.part = Some((0, Xxh3::new()));
        self.sections.section(PART, &part.encode())
    }

    /// Appends bytes of the group's export.
    ///
    /// # Errors
    /// Also when no part has begun.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((length, hash)) = &mut self.part else {
            return Err(io::Error::other("bytes outside of a part"));
        };
        *length = length.saturating_add(bytes.len() as u64);
        hash.update(bytes);
        self.sections.split(BYTES, bytes)
    }

    /// Ends the part.
    ///
    /// # Errors
    /// Also when no part has begun.
    pub fn end(&mut self) -> io::Result<()> {
        let Some((length, hash)) = self.part.take() else {
            return Err(io::Error::other("a part ends that has not begun"));
        };
        let hash = hash.digest128().to_le_bytes();
        self.whole.update(&hash);
        self.parts = self.parts.saturating_add(1);
        let mut end = BytesMut::new();
        end.put_u64_le(length);
        end.put_slice(&hash);
        self.sections.section(PART_END, &end)
    }

    /// Ends the backup.
    ///
    /// # Errors
    /// Also when a part has not ended.
    pub fn finish(mut self) -> io::Result<()> {
        if self.part.is_some() {
            return Err(io::Error::other("the last part has not ended"));
        }
        let mut whole = BytesMut::new();
        whole.put_u32_le(self.parts);
        whole.put_slice(&self.whole.digest128().to_le_bytes());
        self.sections.section(WHOLE, &whole)?;
        self.sections.finish()
    }
}
