//! A hash of everything that happens, in its order: two runs are the same run if theirs are equal.

use std::fmt::Write;

/// FNV-1a over a text of each event.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    pub events: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0 }
    }
}

impl Trace {
    pub fn event(&mut self, event: std::fmt::Arguments<'_>) {
        self.events += 1;
        // Writing to it cannot fail.
        let _ = self.write_fmt(event);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
