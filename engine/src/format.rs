//! Format versions: what a build can read, and what a cluster may be written in.
//!
//! Entries, votes, memberships, checkpoints, exports and messages between nodes each begin with a
//! version of their own. One number stands for all of them together, the *format*: a build reads every
//! format from its oldest to its newest, and writes the one that is *active* in its cluster. The active
//! format is replicated in the meta group and rises by a command, once every node can read the next one,
//! so that a cluster is upgraded node by node.

/// The oldest format that this build reads.
pub const FORMAT_OLDEST: u32 = 1;
/// The newest format that this build reads.
pub const FORMAT_NEWEST: u32 = 1;

const _: () = assert!(FORMAT_OLDEST >= 1 && FORMAT_OLDEST <= FORMAT_NEWEST);

/// The formats that a node can read, `oldest ≤ newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Formats {
    /// Those of this build.
    pub const OF_THIS_BUILD: Self = Self { oldest: FORMAT_OLDEST, newest: FORMAT_NEWEST };

    /// Whether a node that reads these can be a member of a cluster in which `active` is written.
    ///
    /// ```
    /// use switchboard_engine::Formats;
    /// let formats = Formats { oldest: 1, newest: 2 };
    /// assert!(formats.reads(1) && formats.reads(2) && !formats.reads(3));
    /// ```
    #[must_use]
    pub fn reads(self, active: u32) -> bool {
        (self.oldest..=self.newest).contains(&active)
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self::OF_THIS_BUILD
    }
}

impl std::fmt::Display for Formats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest { write!(f, "{oldest}") } else { write!(f, "{oldest} to {newest}") }
    }
}
