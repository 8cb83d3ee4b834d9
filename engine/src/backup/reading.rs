//! Reading a backup, part by part; each part as the stream that an import wants.

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::Xxh3;

use super::{BYTES, BackupError, ENVELOPE, MANIFEST, Manifest, PART, PART_END, Part, WHOLE};
use crate::{
    DecodeError, GroupId, META_GROUP, codec::Reader, group_of_shard, limits::SHARDS_MAX,
    sections::SectionReader,
};

/// Reads a backup. All of it has been found sound when [`Self::next_part`] answers that there is no further
/// part.
pub struct BackupReader<'a> {
    sections: SectionReader<'a>,
    manifest: Manifest,
    seen: BTreeSet<GroupId>,
    whole: Xxh3,
}

impl std::fmt::Debug for BackupReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupReader").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

impl<'a> BackupReader<'a> {
    /// Reads the manifest.
    ///
    /// # Errors
    /// When it does not begin as a backup does.
    pub fn new(input: &'a mut dyn Read) -> Result<Self, BackupError> {
        let mut sections = SectionReader::new(input, ENVELOPE)?;
        let at = sections.at();
        let Some((MANIFEST, payload)) = sections.next()? else {
            return Err(BackupError::Order { at, reason: "the manifest comes first" });
        };
        let manifest = decode(at, payload, Manifest::decode)?;
        if !manifest.shards.is_power_of_two() || manifest.shards > SHARDS_MAX {
            return Err(BackupError::Order { at, reason: "no cluster has so many shards" });
        }
        Ok(Self { sections, manifest, seen: BTreeSet::new(), whole: Xxh3::new() })
    }

    /// What it is a backup of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.sections.at()
    }

    /// The next part; none once the backup has been read to its end and is whole.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn next_part(&mut self) -> Result<Option<PartReader<'_, 'a>>, BackupError> {
        let at = self.sections.at();
        let order = |reason| BackupError::Order { at, reason };
        match self.sections.next()? {
            Some((PART, payload)) => {
                let part = decode(at, payload, Part::decode)?;
                let last = group_of_shard(self.manifest.shards.saturating_sub(1));
                if part.group > last || !self.seen.insert(part.group) {
                    return Err(order("a part of a group that is not of the cluster, or twice"));
                }
                Ok(Some(PartReader {
                    backup: self,
                    part,
                    chunk: Bytes::new(),
                    length: 0,
                    hash: Xxh3::new(),
                    ended: false,
                    failure: None,
                }))
            }
            Some((WHOLE, payload)) => {
                let take = |reader: &mut Reader| Ok((reader.u32()?, reader.array()?));
                let (parts, hash): (u32, [u8; 16]) = decode(at, payload, take)?;
                if parts as usize != self.seen.len() || hash != self.whole.digest128().to_le_bytes()
                {
                    return Err(order("a part is missing or in another place"));
                }
                let groups = self.manifest.shards as usize + 1;
                if self.seen.len() != groups || !self.seen.contains(&META_GROUP) {
                    return Err(order("it has not all groups of the cluster"));
                }
                match self.sections.next()? {
                    None => Ok(None),
                    Some(_) => Err(order("something follows the end")),
                }
            }
            _ => Err(order("neither a part nor the end")),
        }
    }
}

/// One part of a backup, to be read to its end.
pub struct PartReader<'r, 'a> {
    backup: &'r mut BackupReader<'a>,
    part: Part,
    chunk: Bytes,
    length: u64,
    hash: Xxh3,
    ended: bool,
    failure: Option<BackupError>,
}

impl std::fmt::Debug for PartReader<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartReader").field("part", &self.part).finish_non_exhaustive()
    }
}

impl PartReader<'_, '_> {
    /// What it is.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// Checks that the part was read to its end, and is whole.
    ///
    /// # Errors
    /// What a read has failed with, before anything else; see [`BackupError`].
    pub fn finish(mut self) -> Result<(), BackupError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let at = self.backup.sections.at();
        if !self.chunk.is_empty() || self.fill()? {
            return Err(BackupError::Order { at, reason: "bytes after the end of an export" });
        }
        Ok(())
    }

    /// What a read has failed with, in the words of the backup.
    pub fn take_failure(&mut self) -> Option<BackupError> {
        self.failure.take()
    }

    /// How many bytes of the backup have been read.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.backup.sections.at()
    }

    /// Takes the next chunk; false at the end of the part.
    fn fill(&mut self) -> Result<bool, BackupError> {
        while self.chunk.is_empty() && !self.ended {
            let at = self.backup.sections.at();
            match self.backup.sections.next()? {
                Some((BYTES, chunk)) => {
                    self.length = self.length.saturating_add(chunk.len() as u64);
                    self.hash.update(&chunk);
                    self.chunk = chunk;
                }
                Some((PART_END, payload)) => {
                    let take = |reader: &mut Reader| Ok((reader.u64()?, reader.array()?));
                    let (length, hash): (u64, [u8; 16]) = decode(at, payload, take)?;
                    if length != self.length || hash != self.hash.digest128().to_le_bytes() {
                        let reason = "bytes of the part are missing or in another place";
                        return Err(BackupError::Order { at, reason });
                    }
                    self.backup.whole.update(&hash);
                    self.ended = true;
                }
                _ => return Err(BackupError::Order { at, reason: "a part has no end" }),
            }
        }
        Ok(!self.chunk.is_empty())
    }
}

impl Read for PartReader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.fill() {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(failure) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, failure.to_string());
                self.failure = Some(failure);
                return Err(error);
            }
        }
        let taken = out.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}

fn decode<T>(
    at: u64,
    payload: Bytes,
    take: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
) -> Result<T, BackupError> {
    let content = |source| BackupError::Content { at, source };
    let mut reader = Reader::new(payload);
    let taken = take(&mut reader).map_err(content)?;
    reader.finish().map_err(content)?;
    Ok(taken)
}
