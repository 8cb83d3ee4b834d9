//! Whether two nodes are who they take each other for: pure decisions.

use switchboard_api::v1::PeerHello;
use switchboard_engine::Formats;
use switchboard_raft::{Member, NodeId};

use super::book::Book;

/// The version of what nodes say to each other; raised when an older node could not read it.
pub(crate) const PROTOCOL: u32 = 1;

/// Why a node is not talked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the calling node speaks version {found} of the protocol between nodes; this one {PROTOCOL}"
    )]
    Version { found: u32 },
    #[error("this node is a member of no cluster")]
    NoCluster,
    #[error("this node is a member of another cluster")]
    OtherCluster,
    #[error("this is node {own}, not node {asked}; two addresses are mixed up")]
    OtherNode { own: NodeId, asked: NodeId },
    #[error("node {node} is not a member of this cluster")]
    NotMember { node: NodeId },
    #[error(
        "the cluster is written in format {active}; node {node} reads {formats}: upgrade it before it joins"
    )]
    Format { node: NodeId, active: u32, formats: Formats },
    #[error(
        "node {node} has another disk than the one it joined with: what it promised and stored is \
         gone, so it must not vote. Start it on its old directory, or, if that is lost for good, run \
         `switchboard node add {node} ADDRESS --lost-disk`"
    )]
    OtherDisk { node: NodeId },
}

impl Refusal {
    /// In UPPER_SNAKE, for `google.rpc.ErrorInfo`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Version { .. } => "PROTOCOL_VERSION",
            Self::NoCluster => "NO_CLUSTER",
            Self::OtherCluster => "OTHER_CLUSTER",
            Self::OtherNode { .. } => "OTHER_NODE",
            Self::NotMember { .. } => "NOT_MEMBER",
            Self::Format { .. } => "FORMAT_NOT_READ",
            Self::OtherDisk { .. } => "OTHER_DISK",
        }
    }
}

/// What a node says first to a member of its cluster.
pub(crate) fn hello(
    book: &Book,
    node_id: NodeId,
    disk_id: [u8; 16],
    formats: Formats,
    to: &Member,
) -> PeerHello {
    PeerHello {
        protocol: PROTOCOL,
        cluster_id: book.cluster_id.to_vec().into(),
        from_node_id: node_id,
        from_disk_id: disk_id.to_vec().into(),
        to_node_id: to.node_id,
        to_disk_id: to.disk_id.to_vec().into(),
        format_oldest: formats.oldest,
        format_newest: formats.newest,
    }
}

/// Whether the node that said this may go on, in a cluster that is written in this format.
pub(crate) fn check(
    hello: &PeerHello,
    book: Option<&Book>,
    node_id: NodeId,
    disk_id: [u8; 16],
    active: u32,
) -> Result<(), Refusal> {
    if hello.protocol != PROTOCOL {
        return Err(Refusal::Version { found: hello.protocol });
    }
    if hello.to_node_id != node_id {
        return Err(Refusal::OtherNode { own: node_id, asked: hello.to_node_id });
    }
    // Before the cluster: a wiped disk has forgotten its cluster, and should hear what is wrong.
    if hello.to_disk_id != disk_id.as_slice() {
        return Err(Refusal::OtherDisk { node: node_id });
    }
    let book = book.ok_or(Refusal::NoCluster)?;
    if hello.cluster_id != book.cluster_id.as_slice() {
        return Err(Refusal::OtherCluster);
    }
    let node = hello.from_node_id;
    let member = book.member(node).ok_or(Refusal::NotMember { node })?;
    if hello.from_disk_id != member.disk_id.as_slice() {
        return Err(Refusal::OtherDisk { node });
    }
    // A node that does not say reads the first format.
    let formats =
        Formats { oldest: hello.format_oldest.max(1), newest: hello.format_newest.max(1) };
    if !formats.reads(active) {
        return Err(Refusal::Format { node, active, formats });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_with_their_own_disks_are_talked_to() {
        let member = |node_id: NodeId| Member {
            node_id,
            address: String::new(),
            disk_id: [node_id as u8; 16],
        };
        let book = Book { cluster_id: [7; 16], as_of: 0, members: (1..=3).map(member).collect() };
        let formats = Formats { oldest: 1, newest: 1 };
        let good = hello(&book, 1, [1; 16], formats, &member(2));
        let judge = |hello: &PeerHello| check(hello, Some(&book), 2, [2; 16], 1);
        assert_eq!(judge(&good), Ok(()));
        assert_eq!(check(&good, None, 2, [2; 16], 1), Err(Refusal::NoCluster));
        let other_disk = check(&good, Some(&book), 2, [9; 16], 1);
        assert_eq!(other_disk, Err(Refusal::OtherDisk { node: 2 }));
        let raised = check(&good, Some(&book), 2, [2; 16], 2);
        assert_eq!(raised, Err(Refusal::Format { node: 1, active: 2, formats }));
        let newer = PeerHello { protocol: 2, ..good.clone() };
        assert_eq!(judge(&newer), Err(Refusal::Version { found: 2 }));
        let foreign = PeerHello { cluster_id: vec![8; 16].into(), ..good.clone() };
        assert_eq!(judge(&foreign), Err(Refusal::OtherCluster));
        let mixed = PeerHello { to_node_id: 3, ..good.clone() };
        assert_eq!(judge(&mixed), Err(Refusal::OtherNode { own: 2, asked: 3 }));
        let stranger = PeerHello { from_node_id: 4, ..good.clone() };
        assert_eq!(judge(&stranger), Err(Refusal::NotMember { node: 4 }));
        let wiped = PeerHello { from_disk_id: vec![9; 16].into(), ..good };
        assert_eq!(judge(&wiped), Err(Refusal::OtherDisk { node: 1 }));
    }
}
