//! Memory for one frame, aligned as direct writes need it, without `unsafe`: a little more is
//! allocated, and the frame begins at the first boundary in it.

use crate::fs::DIRECT_ALIGN_BYTES;

/// The bytes of a frame that is being made.
#[derive(Default)]
pub(super) struct FrameBuffer {
    memory: Vec<u8>,
    /// Where the frame begins.
    start: usize,
}

impl FrameBuffer {
    /// Starts over with an empty frame that can take `bytes` without being moved.
    pub(super) fn clear(&mut self, bytes: usize) {
        self.memory.clear();
        self.memory.reserve(bytes.saturating_add(DIRECT_ALIGN_BYTES));
        self.start = self.boundary();
        self.memory.resize(self.start, 0);
    }

    fn boundary(&self) -> usize {
        // A pointer that can't be aligned is left as it is; a direct write then says so.
        self.memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES) % DIRECT_ALIGN_BYTES
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Cuts the frame, or grows it with zeros.
    pub(super) fn resize(&mut self, len: usize) {
        self.memory.resize(self.start.saturating_add(len), 0);
    }

    /// Aligns the frame again if it has outgrown what it was started with.
    pub(super) fn align(&mut self) {
        let boundary = self.boundary();
        if boundary == self.start {
            return;
        }
        let len = self.len();
        self.memory.reserve_exact(DIRECT_ALIGN_BYTES);
        let (from, to) = (self.start, self.boundary());
        self.memory.resize(from.max(to).saturating_add(len), 0);
        self.memory.copy_within(from..from + len, to);
        self.memory.truncate(to + len);
        self.start = to;
    }

    pub(super) fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..).unwrap_or_default()
    }

    /// Gives the memory back if it is more than `bytes`.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        if self.memory.capacity() > bytes {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::is_direct_aligned;

    #[test]
    fn a_frame_is_aligned_also_when_it_grows_beyond_what_was_asked_for() {
        let mut buffer = FrameBuffer::default();
        for (asked, len) in [(64, 64_usize), (64, 100_000), (5_000, 300), (0, 3_000_000)] {
            buffer.clear(asked);
            for nth in 0..len {
                buffer.extend(&[(nth % 251) as u8]);
            }
            buffer.resize(len.next_multiple_of(4096));
            buffer.align();
            assert!(is_direct_aligned(buffer.bytes(), 0));
            let whole = buffer.bytes()[..len].iter().enumerate();
            assert!(whole.clone().all(|(nth, byte)| *byte == (nth % 251) as u8));
        }
        buffer.keep_at_most(1_000_000);
        assert_eq!(buffer.len(), 0);
    }
}
