//! `cluster init`: several waiting nodes become a cluster.
//!
//! ```text
//!  ask every node who it is ─▶ write the book here ─▶ found the meta group alone, disks recorded
//!       ─▶ tell the others (they write the book) ─▶ take them into every group
//! ```
//! The book is written before anything that it is needed for, so whatever a crash cuts short is ended
//! by the same command on the same node.

use std::sync::Arc;

use switchboard_api::v1::{self, peer_service_client::PeerServiceClient};
use switchboard_raft::Member;
use tonic::{Status, transport::Endpoint};

use crate::{
    errors, limits,
    peers::{Book, PROTOCOL},
    service::Service,
};

impl Service {
    /// Makes a cluster of this node and the others named, which must wait for one.
    pub(crate) async fn init_cluster(
        self: &Arc<Self>,
        request: v1::InitClusterRequest,
    ) -> Result<v1::InitClusterResponse, Status> {
        // Two at once would each found their own.
        let _one_at_a_time = self.founding.lock().await;
        let shards = if request.shards == 0 { self.shards_default } else { request.shards };
        let (members, has_begun) = self.identify(&request.peers).await?;
        let book = match self.peers.book() {
            Some(book) if book.members == members => {
                // This node was told of a cluster that another one was making: it would make a second one.
                let voters = self.node.meta().status().voters;
                if let Some(other) = has_begun.filter(|_| voters.is_empty()) {
                    return Err(errors::begun_elsewhere(other));
                }
                Book::clone(&book)
            }
            Some(_) => return Err(errors::already_in_cluster(self.node.node_id())),
            None if !self.identity().cluster_id.is_empty() => {
                return Err(errors::already_in_cluster(self.node.node_id()));
            }
            None => {
                let random = self.node.random();
                let cluster_id = random.map_err(|error| errors::internal(error.to_string()))?;
                Book { cluster_id, as_of: 0, members }
            }
        };
        let disk_id = self.node.disk_id();
        self.peers.join(book.clone(), disk_id).await.map_err(|error| errors::book(&error))?;
        let founded = self.node.found(book.cluster_id, shards, &book.members).await;
        founded.map_err(|error| errors::founding(&error))?;
        for member in book.members.iter().filter(|m| m.node_id != self.node.node_id()) {
            tell(member, &book).await?;
        }
        self.node.take_in_members().await.map_err(|error| errors::founding(&error))?;
        tracing::info!(shards, members = book.members.len(), "a cluster was made");
        let cluster_id = crate::peers::hex(&book.cluster_id);
        Ok(v1::InitClusterResponse { cluster_id, shards })
    }

    /// Asks every node who it is, and refuses those that are not who they should be or belong to a
    /// cluster already. Names another node, if there is one, that knows of this cluster.
    async fn identify(&self, peers: &[v1::NodeInfo]) -> Result<(Vec<Member>, Option<u64>), Status> {
        let (mut members, mut has_begun) = (Vec::new(), None);
        for v1::NodeInfo { node_id, address } in peers {
            let (node_id, own) = (*node_id, *node_id == self.node.node_id());
            let found = if own { self.identity() } else { ask(node_id, address).await? };
            if found.protocol != PROTOCOL || found.node_id != node_id {
                return Err(errors::not_the_node(node_id, address, found.node_id));
            }
            let of_this = self.peers.book().map(|book| book.cluster_id.to_vec());
            let waits =
                found.cluster_id.is_empty() || of_this.is_some_and(|id| id == found.cluster_id);
            if !waits {
                return Err(errors::already_in_cluster(node_id));
            }
            if !own && !found.cluster_id.is_empty() {
                has_begun = Some(node_id);
            }
            let disk_id = <[u8; 16]>::try_from(&found.disk_id[..]);
            let disk_id = disk_id.map_err(|error| errors::peer_nonsense(&error))?;
            members.push(Member { node_id, address: address.clone(), disk_id });
        }
        members.sort_by_key(|member| member.node_id);
        members.dedup_by_key(|member| member.node_id);
        let names_this = members.iter().any(|member| member.node_id == self.node.node_id());
        if members.len() != peers.len() || !names_this {
            return Err(errors::peers_incomplete(self.node.node_id()));
        }
        Ok((members, has_begun))
    }
}

type Client = PeerServiceClient<tonic::transport::Channel>;

async fn connect(node_id: u64, address: &str) -> Result<Client, Status> {
    let unreachable = |_| errors::member_unreachable(node_id, address);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreachable)?;
    let endpoint =
        endpoint.connect_timeout(limits::PEER_CONNECT_WAIT_MAX).timeout(limits::FORWARD_WAIT_MAX);
    endpoint.connect().await.map(Client::new).map_err(unreachable)
}

pub(crate) async fn ask(node_id: u64, address: &str) -> Result<v1::IdentifyResponse, Status> {
    let mut client = connect(node_id, address).await?;
    Ok(client.identify(v1::IdentifyRequest {}).await?.into_inner())
}

pub(crate) async fn tell(member: &Member, book: &Book) -> Result<(), Status> {
    let mut client = connect(member.node_id, &member.address).await?;
    let request = v1::JoinRequest {
        protocol: PROTOCOL,
        cluster_id: book.cluster_id.to_vec().into(),
        members: book.wire_members(),
        as_of: book.as_of,
    };
    client.join(request).await.map(drop)
}
