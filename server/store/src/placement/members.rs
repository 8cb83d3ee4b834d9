//! Who is a member: taking a node in, and telling the transport whom it may talk to.

use std::sync::Arc;

use futures::future::join_all;
use switchboard_api::v1;
use switchboard_engine::{Formats, NodeState};
use switchboard_raft::Member;
use tonic::Status;

use crate::{
    errors,
    founding::{ask, tell},
    limits,
    peers::{Book, PROTOCOL, Refusal},
    service::Service,
};

impl Service {
    /// Asks a node that is to be added who it is.
    pub(super) async fn identify_new(
        &self,
        node_id: u64,
        address: &str,
        cluster_id: [u8; 16],
    ) -> Result<Member, Status> {
        let found: v1::IdentifyResponse = ask(node_id, address).await?;
        if found.protocol != PROTOCOL || found.node_id != node_id {
            return Err(errors::not_the_node(node_id, address, found.node_id));
        }
        if !found.cluster_id.is_empty() && found.cluster_id != cluster_id.as_slice() {
            return Err(errors::already_in_cluster(node_id));
        }
        let formats =
            Formats { oldest: found.format_oldest.max(1), newest: found.format_newest.max(1) };
        let active = self.active_format();
        if !formats.reads(active) {
            let refusal = Refusal::Format { node: node_id, active, formats };
            return Err(errors::peer_refused(&refusal));
        }
        let disk_id = <[u8; 16]>::try_from(&found.disk_id[..]);
        let disk_id = disk_id.map_err(|error| errors::peer_nonsense(&error))?;
        Ok(Member { node_id, address: address.to_owned(), disk_id })
    }

    /// Tells a node that it is a member, and who else is.
    pub(super) async fn tell_new(
        &self,
        member: &Member,
        cluster_id: [u8; 16],
    ) -> Result<(), Status> {
        let mut members = self.node.members();
        members.retain(|known| known.node_id != member.node_id);
        members.push(member.clone());
        members.sort_by_key(|member| member.node_id);
        // It is no news to others: they hear of the new disk when every group has forgotten the old one.
        tell(member, &Book { cluster_id, as_of: 0, members }).await
    }

    /// Keeps the book of members as the meta group has it, until the shutdown.
    pub(crate) async fn follow_members(self: Arc<Self>) {
        let token = self.shutdown.token();
        let mut applied = self.node.meta().watch_applied();
        loop {
            applied.borrow_and_update();
            if let Some(book) = self.book_of_meta()
                && let Err(error) = self.peers.join(book, self.node.disk_id()).await
            {
                tracing::error!(%error, "the members of the cluster cannot be written down");
            }
            tokio::select! {
                () = token.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    }

    /// After another node and this one refused to talk: asks the members for a later book than this node's.
    /// A node that was away while a lost disk was replaced would else refuse the new one, and hear of it only
    /// from a leader of the meta group that it does not refuse.
    pub(crate) async fn renew_book(self: Arc<Self>) {
        let token = self.shutdown.token();
        let doubted = async {
            loop {
                self.peers.doubted().await;
                self.ask_for_book().await;
                tokio::time::sleep(limits::BOOK_ASK_PAUSE).await;
            }
        };
        token.run_until_cancelled(doubted).await;
    }

    async fn ask_for_book(&self) {
        let Some(known) = self.peers.book() else { return };
        let others = known.members.iter().filter(|member| member.node_id != self.node.node_id());
        let asked = join_all(others.map(|member| ask(member.node_id, &member.address))).await;
        let told = asked.into_iter().flatten().filter_map(|found| {
            Book::of_wire(&found.cluster_id, found.members_as_of, &found.members)
        });
        let later =
            told.filter(|book| book.cluster_id == known.cluster_id && book.as_of > known.as_of);
        let Some(latest) = later.max_by_key(|book| book.as_of) else { return };
        let own = latest.member(self.node.node_id()).map(|member| member.disk_id);
        // Who was taken out, or whose disk is another one, is told so by everybody, and writes nothing down.
        if own != Some(self.node.disk_id()) {
            return;
        }
        if let Err(error) = self.peers.join(latest, self.node.disk_id()).await {
            tracing::error!(%error, "the members of the cluster cannot be written down");
        }
    }

    /// Index of the last entry of the meta group that is applied here.
    fn meta_applied(&self) -> u64 {
        self.node.meta().shard().applied().map_or(0, |at| at.index)
    }

    /// The book with what meta knows now, if that is news. A log that is read again tells of times when
    /// members were missing, so only who was removed for good is taken out.
    fn book_of_meta(&self) -> Option<Book> {
        // Before the members are read: they are at least as new.
        let as_of = self.meta_applied();
        let known = self.peers.book();
        let members = self.node.members();
        let own = self.node.node_id();
        let is_member = members.iter().any(|member| member.node_id == own);
        if !is_member || (known.is_none() && members.len() < 2) {
            return None;
        }
        self.node.meta().shard().meta(|meta| {
            let cluster_id = meta.cluster()?.cluster_id;
            let removed =
                |member: &Member| meta.placement().role(member.node_id).state == NodeState::Removed;
            let mut all = members.clone();
            let before = known.iter().flat_map(|book| book.members.iter().cloned());
            for member in before {
                if !all.iter().any(|other| other.node_id == member.node_id) && !removed(&member) {
                    all.push(member);
                }
            }
            all.sort_by_key(|member| member.node_id);
            let book = Book { cluster_id, as_of, members: all };
            let is_news = known.is_none_or(|known| !known.is_same(&book));
            is_news.then_some(book)
        })
    }
}
