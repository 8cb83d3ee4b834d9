//! A shard as a stream, bodies included: for replicas that the log no longer reaches, and for backups.
//!
//! ```text
//! sections (see `sections`), magic "SBEXPT01"
//!   kind 1   header, as in a checkpoint                                  once, first
//!   kind 2   users, without places                                       any number, each followed by
//!   kind 5   the records of their messages that have not expired, in
//!            the order of the messages: length u32, record               any number
//!   kind 3   dedup table            kind 4   meta state                  as in a checkpoint
//! ```

use std::io::Write;

use bytes::{BufMut, BytesMut};

use super::{ExportError, Shard};
use crate::{
    checkpoint::{USERS, write_dedup, write_header, write_meta},
    limits::{OLD_WRITE_BYTES, USER_BUCKETS, USERS_SECTION_BYTES},
    sections::{Envelope, SectionWriter},
    state::{Message, Snapshot, encode_user},
};

pub(super) const RECORDS: u8 = 5;
pub(super) const ENVELOPE: Envelope = Envelope { magic: *b"SBEXPT01", what: "shard export" };

impl Shard {
    /// Writes the state as of the last entry applied, with every body. `apply` goes on meanwhile.
    ///
    /// # Errors
    /// See [`ExportError`]; what was written is not whole then, and no import takes it.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), ExportError> {
        // A checkpoint could take a young body of the snapshot away.
        let _no_checkpoint = self.writing.lock();
        let snapshot = self.snapshot();
        let mut sections = SectionWriter::new(out, ENVELOPE)?;
        write_header(&mut sections, &snapshot.header)?;
        for bucket in 0..USER_BUCKETS {
            for Part { users, waiting } in parts_of(&snapshot, bucket) {
                sections.section(USERS, &users)?;
                self.write_records(&mut sections, &waiting)?;
            }
        }
        write_dedup(&mut sections, &snapshot.dedup)?;
        write_meta(&mut sections, &snapshot.meta)?;
        Ok(sections.finish()?)
    }

    fn write_records(
        &self,
        sections: &mut SectionWriter<'_>,
        messages: &[Message],
    ) -> Result<(), ExportError> {
        let mut records = BytesMut::new();
        for message in messages {
            let pin = self.pin(message)?;
            let record = self.record(message, &pin)?;
            records.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
            records.put_slice(&record);
            if records.len() >= OLD_WRITE_BYTES {
                sections.section(RECORDS, &records.split())?;
            }
        }
        if !records.is_empty() {
            sections.section(RECORDS, &records)?;
        }
        Ok(())
    }
}

/// Users of one section, and their messages whose records follow.
#[derive(Default)]
struct Part {
    users: BytesMut,
    waiting: Vec<Message>,
}

fn parts_of(snapshot: &Snapshot, bucket: usize) -> Vec<Part> {
    let now_ms = snapshot.header.log_time_ms;
    let mut parts = Vec::new();
    let mut part = Part::default();
    snapshot.visit(bucket, |name, user| {
        encode_user(&mut part.users, name, user, None);
        let messages = user.devices().iter().flat_map(|device| device.mailbox.iter());
        part.waiting.extend(messages.filter(|m| !m.is_expired(now_ms)).copied());
        if part.users.len() >= USERS_SECTION_BYTES {
            parts.push(std::mem::take(&mut part));
        }
    });
    if !part.users.is_empty() {
        parts.push(part);
    }
    parts
}
