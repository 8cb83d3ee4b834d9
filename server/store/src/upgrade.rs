//! `cluster upgrade`: the format that the cluster is written in rises once every node can read it.
//!
//! ```text
//!  ask every member what it reads ─▶ judge (pure) ─▶ RaiseFormat, on the leader of the meta group
//! ```
//! A node that goes back to an older release between the question and the command does not slip
//! through: it stops as soon as it learns of the format, and refuses to start with it.

use switchboard_api::v1::{self, forwarded_answer::Answer, forwarded_call::Call};
use switchboard_engine::{Command, Formats, MetaState, RaiseFormat, Reply};
use switchboard_raft::NodeId;
use tonic::Status;

use crate::{errors, service::Service};

/// Why the format stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// What a node reads is unknown, so nothing may be written that it might not.
    #[error("node {node} does not answer, so nobody knows what it reads; start it or remove it")]
    Silent { node: NodeId },
    /// A node would stop.
    #[error(
        "node {node} runs {version}, which reads format {formats} and not {to}; upgrade it first"
    )]
    Unreadable { node: NodeId, version: String, formats: Formats, to: u32 },
    /// A format never goes down.
    #[error("the cluster is written in format {active} already, and a format never goes down")]
    Down { active: u32 },
}

/// A member and what it said of itself, if anything.
type Said = (NodeId, Option<v1::StatusResponse>);

/// What a node reads. One of a release that does not say so reads the first format.
fn formats(status: &v1::StatusResponse) -> Formats {
    Formats { oldest: status.format_oldest.max(1), newest: status.format_newest.max(1) }
}

/// The format to go to: the one asked for, or with 0 the newest that any node reads.
fn judge(active: u32, asked: u32, nodes: &[Said]) -> Result<u32, UpgradeError> {
    let newest = nodes.iter().flat_map(|(_, said)| said).map(|said| formats(said).newest).max();
    let to = if asked == 0 { newest.unwrap_or(active).max(active) } else { asked };
    if to < active {
        return Err(UpgradeError::Down { active });
    }
    for (node, said) in nodes {
        let (node, said) = (*node, said.as_ref().ok_or(UpgradeError::Silent { node: *node })?);
        let (formats, version) = (formats(said), said.version.clone());
        if !formats.reads(to) {
            return Err(UpgradeError::Unreadable { node, version, formats, to });
        }
    }
    Ok(to)
}

impl Service {
    /// Raises the format, or says which node is in the way.
    pub(crate) async fn upgrade(
        &self,
        request: v1::UpgradeRequest,
    ) -> Result<v1::UpgradeResponse, Status> {
        let v1::UpgradeRequest { to_format, dry_run } = request;
        // A node that was away may not know yet who was added meanwhile.
        self.catch_up(self.node.meta()).await?;
        let asked = self.list_nodes().await.nodes.into_iter();
        let (infos, said): (Vec<_>, Vec<Said>) = asked
            .map(|listed| {
                let info = listed.node.unwrap_or_default();
                let node_id = info.node_id;
                (info, (node_id, listed.status))
            })
            .unzip();
        let before = self.active_format();
        let to = judge(before, to_format, &said).map_err(|error| errors::upgrade(&error))?;
        if to > before && !dry_run {
            self.raise_format(v1::RaiseFormatRequest { to }).await?;
            tracing::info!(before, to, "the format of the cluster was raised");
        }
        let nodes = infos.into_iter().zip(said).map(|(info, (_, said))| {
            let said = said.unwrap_or_default();
            let Formats { oldest, newest } = formats(&said);
            v1::NodeFormats {
                node: Some(info),
                version: said.version,
                format_oldest: oldest,
                format_newest: newest,
            }
        });
        Ok(v1::UpgradeResponse { format_before: before, format_active: to, nodes: nodes.collect() })
    }

    /// The format that the cluster is written in, as far as this node knows.
    pub(crate) fn active_format(&self) -> u32 {
        self.node.meta().shard().meta(MetaState::format)
    }

    async fn raise_format(
        &self,
        request: v1::RaiseFormatRequest,
    ) -> Result<v1::RaiseFormatResponse, Status> {
        match self.elsewhere(self.node.meta()) {
            None => self.raise_format_here(request).await,
            Some(leader) => {
                let take = |answer| match answer {
                    Answer::RaiseFormat(done) => Some(done),
                    _ => None,
                };
                self.hop(leader, Call::RaiseFormat(request), take).await
            }
        }
    }

    /// Proposes it, if this node leads the meta group.
    pub(crate) async fn raise_format_here(
        &self,
        request: v1::RaiseFormatRequest,
    ) -> Result<v1::RaiseFormatResponse, Status> {
        let command = Command::RaiseFormat(RaiseFormat { to: request.to });
        let Reply::Done(status) = self.propose_meta(command).await? else {
            return Err(errors::internal("RaiseFormat has no reply".to_owned()));
        };
        errors::refused(status)?;
        Ok(v1::RaiseFormatResponse {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(node: NodeId, newest: u32) -> Said {
        let (format_oldest, version) = (1, "0.1.0".to_owned());
        let said = v1::StatusResponse {
            format_oldest,
            format_newest: newest,
            version,
            ..Default::default()
        };
        (node, Some(said))
    }

    #[test]
    fn the_format_rises_to_what_every_node_reads() {
        let all = [reads(1, 2), reads(2, 3), reads(3, 2)];
        assert_eq!(judge(1, 2, &all), Ok(2));
        assert_eq!(judge(2, 2, &all), Ok(2), "nothing is left to do");
        assert_eq!(judge(2, 1, &all), Err(UpgradeError::Down { active: 2 }));
        // Without a word of the operator it is the newest, which two of them cannot read.
        let found = judge(1, 0, &all);
        assert!(matches!(found, Err(UpgradeError::Unreadable { node: 1, to: 3, .. })), "{found:?}");
    }

    #[test]
    fn a_node_that_does_not_answer_or_does_not_say_holds_it_up() {
        assert_eq!(judge(1, 0, &[reads(1, 2), (2, None)]), Err(UpgradeError::Silent { node: 2 }));
        let early = (2, Some(v1::StatusResponse::default()));
        let found = judge(1, 2, &[reads(1, 2), early]);
        assert!(matches!(found, Err(UpgradeError::Unreadable { node: 2, .. })), "{found:?}");
    }
}
