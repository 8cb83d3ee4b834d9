//! Entries: a stamp and up to 65,535 commands, as one payload of the log.
//!
//! ```text
//! byte 0      format version, 1
//! bytes 1-8   stamp: Unix milliseconds
//! bytes 9-10  number of commands
//! then        the commands, each a tag and its fields
//! ```
//! All numbers are little-endian. A command says by itself how long it is.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{Command, RecordRef};
use crate::{
    codec::{DecodeError, Reader},
    limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX},
    reply::Status,
};

/// Bytes before the first command.
pub const ENTRY_HEAD_BYTES: usize = 1 + 8 + 2;
const VERSION: u8 = 1;
const COUNT_AT: usize = 9;

/// Why a command was not taken into an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// It does not fit any more; it belongs into the next entry.
    #[error("the entry is full")]
    Full,
    /// It is beyond its limits and fits no entry: answer this status. See [`Command::check`].
    #[error("the command is beyond its limits: {0:?}")]
    Refused(Status),
}

/// Puts commands together to one entry.
///
/// ```
/// use switchboard_engine::{Command, EntryBuilder, EntryReader};
/// let mut builder = EntryBuilder::new(1_700_000_000_000);
/// builder.push(&Command::Tick)?;
/// let mut reader = EntryReader::new(builder.finish())?;
/// assert_eq!((reader.stamp_ms(), reader.len()), (1_700_000_000_000, 1));
/// assert_eq!(reader.next().transpose()?.map(|c| c.command), Some(Command::Tick));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EntryBuilder {
    bytes: BytesMut,
    count: u16,
}

impl EntryBuilder {
    /// An empty entry with the time that its commands are applied at.
    pub fn new(stamp_ms: u64) -> Self {
        Self::with_room(stamp_ms, 256)
    }

    /// The same, with memory for so many bytes: a large entry need not be moved as it grows.
    pub fn with_room(stamp_ms: u64, bytes: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(bytes.clamp(ENTRY_HEAD_BYTES, ENTRY_BYTES_MAX));
        bytes.put_u8(VERSION);
        bytes.put_u64_le(stamp_ms);
        bytes.put_u16_le(0);
        Self { bytes, count: 0 }
    }

    /// Appends a command; bodies are copied here and never again.
    ///
    /// Fails when the entry would hold more than 65,535 commands or 1 MiB. An empty entry takes any
    /// command that is within its limits.
    pub fn push(&mut self, command: &Command) -> Result<(), PushError> {
        command.check().map_err(PushError::Refused)?;
        if usize::from(self.count) >= ENTRY_COMMANDS_MAX {
            return Err(PushError::Full);
        }
        let before = self.bytes.len();
        command.encode(&mut self.bytes);
        if self.bytes.len() > ENTRY_BYTES_MAX {
            self.bytes.truncate(before);
            return Err(PushError::Full);
        }
        self.count += 1;
        Ok(())
    }

    /// Commands so far.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no command yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Encoded bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload for [`EntryPayload::Commands`](crate::EntryPayload::Commands).
    pub fn finish(mut self) -> Bytes {
        if let Some(count) = self.bytes.get_mut(COUNT_AT..ENTRY_HEAD_BYTES) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        self.bytes.freeze()
    }
}

/// One command of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedCommand {
    /// The command; its bytes share memory with the entry.
    pub command: Command,
    /// Where the message record of an enqueue lies in the entry's payload.
    pub record: Option<RecordRef>,
}

/// Takes an entry apart; ends after its last command or the first error.
#[derive(Clone, Debug)]
pub struct EntryReader {
    reader: Reader,
    stamp_ms: u64,
    count: u16,
    left: u16,
    failed: bool,
}

impl EntryReader {
    /// Reads the head of an entry.
    pub fn new(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let found = reader.u8()?;
        if found != VERSION {
            return Err(DecodeError::Version { what: "entry", found, known: VERSION });
        }
        let stamp_ms = reader.u64()?;
        let count = reader.u16()?;
        if count == 0 {
            // No command comes after which the end would be checked.
            reader.finish()?;
        }
        Ok(Self { reader, stamp_ms, count, left: count, failed: false })
    }

    /// The time its commands are applied at.
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// How many commands it holds in all.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether it holds no command.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn step(&mut self) -> Result<DecodedCommand, DecodeError> {
        let decoded = Command::decode(&mut self.reader)?;
        self.left -= 1;
        if self.left == 0 {
            self.reader.finish()?;
        }
        Ok(decoded)
    }
}

impl Iterator for EntryReader {
    type Item = Result<DecodedCommand, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.left == 0 {
            return None;
        }
        let result = self.step();
        self.failed = result.is_err();
        Some(result)
    }
}
