//! Reading and writing little-endian fields with bounds that are always checked.
//!
//! Nothing here knows what is read. Bytes may come from a disk or a peer, so every read can fail and
//! none panics or allocates more than what is there.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A field reaches past the end.
    #[error("cut off at byte {at}")]
    CutOff {
        /// Where the field begins.
        at: usize,
    },
    /// A version that this build does not read.
    #[error("format version {found} of {what}, this build reads up to {known}")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version in the bytes.
        found: u8,
        /// The newest version known.
        known: u8,
    },
    /// A tag that stands for nothing.
    #[error("unknown {what} {tag} at byte {at}")]
    Tag {
        /// What the tag selects.
        what: &'static str,
        /// Its value.
        tag: u8,
        /// Where it stands.
        at: usize,
    },
    /// A field out of its range.
    #[error("{what} out of range at byte {at}")]
    Range {
        /// The field.
        what: &'static str,
        /// Where it ends.
        at: usize,
    },
    /// Bytes after the end of what should fill them.
    #[error("{left} bytes left over at byte {at}")]
    LeftOver {
        /// Where they begin.
        at: usize,
        /// How many.
        left: usize,
    },
}

/// Bytes of the longest varint.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Walks over bytes; slices it gives out share their memory.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn advance(&mut self, len: usize) -> Result<std::ops::Range<usize>, DecodeError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::CutOff { at: self.at })?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let range = self.advance(N)?;
        let mut out = [0; N];
        out.copy_from_slice(self.bytes.get(range).unwrap_or(&[0; N]));
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of 32 bits that counts things of at least `each` bytes that must follow.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count.saturating_mul(each.max(1)) > self.left() {
            return Err(DecodeError::CutOff { at });
        }
        Ok(count)
    }

    /// A number in groups of 7 bits, lowest first; only its shortest form is taken.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let at = self.at;
        let mut value = 0_u64;
        for shift in (0..VARINT_BYTES_MAX as u32).map(|byte| byte * 7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit only, and no number ends with an empty byte.
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Range { what: "number", at })
    }

    /// A varint of at most 16 bits.
    pub(crate) fn varint16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let value = self.varint()?;
        u16::try_from(value).map_err(|_| DecodeError::Range { what, at: self.at })
    }

    /// A varint that counts things of at least `each` bytes that must follow.
    pub(crate) fn varcount(&mut self, each: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count.saturating_mul(each.max(1)) > self.left() {
            return Err(DecodeError::CutOff { at });
        }
        Ok(count)
    }

    /// `len` bytes, sharing memory with the input.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let range = self.advance(len)?;
        Ok(self.bytes.slice(range))
    }

    /// Where the bytes behind a length of 8 bits stand.
    pub(crate) fn short_range(&mut self) -> Result<std::ops::Range<usize>, DecodeError> {
        let len = self.u8()?;
        self.advance(usize::from(len))
    }

    /// Bytes behind a length of 8 bits.
    pub(crate) fn short(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    /// Bytes behind a length of 16 bits, at most `max`.
    pub(crate) fn medium(&mut self, what: &'static str, max: usize) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(DecodeError::Range { what, at: self.at });
        }
        self.bytes(len)
    }

    /// UTF-8 behind a length of 16 bits, at most `max` bytes.
    pub(crate) fn text(&mut self, what: &'static str, max: usize) -> Result<String, DecodeError> {
        let bytes = self.medium(what, max)?;
        let text = std::str::from_utf8(&bytes);
        text.map(str::to_owned).map_err(|_| DecodeError::Range { what, at: self.at })
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag { what, tag, at: self.at.saturating_sub(1) }),
        }
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::LeftOver { at: self.at, left }),
        }
    }
}

/// Appends a number in groups of 7 bits, lowest first.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes that [`put_varint`] appends: 1 to 10.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a length of 8 bits and the bytes; longer ones are a bug of the caller, who validates.
pub(crate) fn put_short(out: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u8::MAX));
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.put_u8(len);
    out.put_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

/// Appends a length of 16 bits and the bytes; longer ones are a bug of the caller, who validates.
pub(crate) fn put_medium(out: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16_le(len);
    out.put_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

/// Appends a count of 32 bits.
pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    debug_assert!(u32::try_from(count).is_ok());
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_reads_back_and_is_as_long_as_said(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn a_number_has_one_form() {
        for long in [&[0x80, 0][..], &[0xFF, 0], &[0xFF; 10], &[0x80; 11]] {
            assert!(Reader::new(Bytes::copy_from_slice(long)).varint().is_err(), "{long:?}");
        }
        let mut tenth = [0xFF; 10];
        tenth[9] = 1;
        assert_eq!(Reader::new(Bytes::copy_from_slice(&tenth)).varint(), Ok(u64::MAX));
        tenth[9] = 2;
        assert!(Reader::new(Bytes::copy_from_slice(&tenth)).varint().is_err());
    }
}
