//! `peers.json`: which cluster a node is a member of, and where the others are.
//!
//! The meta group knows the same, but needs a majority to be believed after a crash, and a majority
//! cannot be reached by who does not know where it is. The file is an object:
//!
//! ```json
//! {"version": 1, "cluster_id": "<32 hex digits>",
//!  "as_of": 42, "members": [{"node_id": 1, "address": "host:port", "disk_id": "<32 hex digits>"}]}
//! ```
//! `as_of` is the index of the entry of the meta group that the members are those of: of two books the later
//! one is right, whoever brings it. It is replaced as a whole (temporary file, synced, renamed) before the node acts as a member.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use switchboard_api::v1;
use switchboard_raft::{Member, NodeId};

/// The file's name in the data directory.
pub(crate) const FILE_NAME: &str = "peers.json";
const VERSION: u32 = 1;

/// Why the book cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// The file cannot be read or written.
    #[error("{FILE_NAME} in the data directory cannot be read or written")]
    Io(#[source] io::Error),
    /// It is not such a file.
    #[error(
        "{FILE_NAME} in the data directory is damaged: {reason}; see `A file is damaged` in docs/operations.md"
    )]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// The task that wrote it ended.
    #[error("{FILE_NAME} was not written")]
    Task(#[source] tokio::task::JoinError),
}

/// A cluster and its members.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) cluster_id: [u8; 16],
    /// Index of the entry of the meta group that these are the members as of; 0: as the cluster began.
    pub(crate) as_of: u64,
    pub(crate) members: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    cluster_id: String,
    /// Books of the first versions lack it.
    #[serde(default)]
    as_of: u64,
    members: Vec<WrittenMember>,
}

#[derive(Serialize, Deserialize)]
struct WrittenMember {
    node_id: NodeId,
    address: String,
    disk_id: String,
}

impl Book {
    /// A member by its id.
    pub(crate) fn member(&self, node_id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node_id == node_id)
    }

    /// What another node says; none if that is no book.
    pub(crate) fn of_wire(cluster_id: &[u8], as_of: u64, members: &[v1::Member]) -> Option<Self> {
        let member = |member: &v1::Member| {
            let disk_id = <[u8; 16]>::try_from(&member.disk_id[..]).ok()?;
            Some(Member { node_id: member.node_id, address: member.address.clone(), disk_id })
        };
        let members = members.iter().map(member).collect::<Option<Vec<_>>>()?;
        Some(Self { cluster_id: cluster_id.try_into().ok()?, as_of, members })
    }

    /// The members as they are told to another node.
    pub(crate) fn wire_members(&self) -> Vec<v1::Member> {
        let wire = |member: &Member| v1::Member {
            node_id: member.node_id,
            address: member.address.clone(),
            disk_id: member.disk_id.to_vec().into(),
        };
        self.members.iter().map(wire).collect()
    }

    /// Whether it names the same cluster and members.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.cluster_id == other.cluster_id && self.members == other.members
    }

    /// The book of a data directory; none if there is none.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, BookError> {
        match fs::read(data.join(FILE_NAME)) {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BookError::Io(error)),
        }
    }

    /// Writes it, durably.
    pub(crate) fn save(&self, data: &Path) -> Result<(), BookError> {
        let write = || {
            let staged = data.join(format!(".{FILE_NAME}"));
            let mut file = File::create(&staged)?;
            file.write_all(&self.render()?)?;
            file.sync_all()?;
            fs::rename(&staged, data.join(FILE_NAME))?;
            File::open(data)?.sync_all()
        };
        write().map_err(BookError::Io)
    }

    fn render(&self) -> io::Result<Vec<u8>> {
        let member = |member: &Member| WrittenMember {
            node_id: member.node_id,
            address: member.address.clone(),
            disk_id: hex(&member.disk_id),
        };
        let members = self.members.iter().map(member).collect();
        let (cluster_id, as_of) = (hex(&self.cluster_id), self.as_of);
        let written = Written { version: VERSION, cluster_id, as_of, members };
        Ok(serde_json::to_vec_pretty(&written)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, BookError> {
        let damaged = |reason: String| BookError::Damaged { reason };
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if written.version != VERSION {
            return Err(damaged(format!("version {} is not known here", written.version)));
        }
        let id = |text: &str| unhex(text).ok_or_else(|| damaged(format!("`{text}` is no id")));
        let member = |member: WrittenMember| {
            let disk_id = id(&member.disk_id)?;
            Ok(Member { node_id: member.node_id, address: member.address, disk_id })
        };
        let members = written.members.into_iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self { cluster_id: id(&written.cluster_id)?, as_of: written.as_of, members })
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let member = |node_id| Member {
            node_id,
            address: format!("127.0.0.1:{node_id}"),
            disk_id: [node_id as u8; 16],
        };
        let members = (1..=3).map(member).collect();
        Book { cluster_id: *b"0123456789abcdef", as_of: 7, members }
    }

    #[test]
    fn a_saved_book_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Book::load(dir.path()).unwrap().is_none());
        book().save(dir.path()).unwrap();
        let loaded = Book::load(dir.path()).unwrap().expect("there is one");
        assert!(loaded.is_same(&book()) && loaded.as_of == 7);
        assert_eq!(book().member(3).map(|member| member.node_id), Some(3));
    }

    #[test]
    fn a_damaged_book_is_refused() {
        let bytes = book().render().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for damaged in [
            text.replace("\"version\": 1", "\"version\": 2"),
            text.replace("30313233", "3031323"),
            text.replace("30313233", "+0313233"),
            text[..text.len() / 2].to_owned(),
        ] {
            assert!(matches!(Book::parse(damaged.as_bytes()), Err(BookError::Damaged { .. })));
        }
    }
}
