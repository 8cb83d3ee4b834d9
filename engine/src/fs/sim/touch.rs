//! What an operation that is about to change the simulated disk is about to do.

use std::path::Path;

/// Sees an operation before it happens; true: the machine goes down in its midst.
pub type Watch = Box<dyn FnMut(&Touch<'_>) -> bool + Send>;

/// A kind of operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TouchKind {
    /// A directory is made.
    MakeDir,
    /// A file is made.
    Create,
    /// A file gets another name.
    Rename,
    /// A file loses its name.
    Remove,
    /// Bytes are written to a file.
    Write,
    /// A file is cut or grows.
    SetSize,
    /// A file is synced.
    Sync,
    /// A directory is synced.
    SyncDir,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'a> {
    /// What is done.
    pub kind: TouchKind,
    /// To which file or directory, by the name that it has now.
    pub path: &'a Path,
    /// The new name, of a rename.
    pub to: Option<&'a Path>,
    /// Where the bytes go, of a write; the new size, of a change of it.
    pub offset: u64,
    /// What is written.
    pub bytes: &'a [u8],
}

impl<'a> Touch<'a> {
    pub(super) fn of(kind: TouchKind, path: &'a Path) -> Self {
        Self { kind, path, to: None, offset: 0, bytes: &[] }
    }
}
