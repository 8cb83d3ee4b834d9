//! How failures become gRPC statuses: the only place that maps them.
//!
//! Every status carries a `google.rpc.ErrorInfo` (domain `switchboard`, reason in UPPER_SNAKE) and,
//! where a retry helps, a `google.rpc.RetryInfo`. Items of a batch answer with an [`ItemStatus`]
//! instead; that mapping is here too.

use std::collections::HashMap;

use switchboard_api::{v1::ItemStatus, validate::Fault};
use switchboard_engine::Status as EngineStatus;
use switchboard_raft::{
    BarrierError, FoundError, InitializeError, Overloaded, ProposeError, TransferError, WaitError,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    limits::RETRY_AFTER,
    peers::{BookError, Refusal},
    upgrade::UpgradeError,
};

const DOMAIN: &str = "switchboard";

/// The request as a whole breaks a limit of the contract.
pub(crate) fn invalid(fault: &Fault) -> Status {
    status(Code::InvalidArgument, fault.reason(), fault.to_string(), None)
}

/// A call that only operators may make.
pub(crate) fn operators_only(what: &str) -> Status {
    let message = format!(
        "{what} is for operators: call it from loopback, or start the store with --insecure"
    );
    status(Code::PermissionDenied, "OPERATORS_ONLY", message, None)
}

/// The node is shutting down; another one, or this one later, will answer.
pub(crate) fn stopping() -> Status {
    let message = "the store is shutting down; try again".to_owned();
    status(Code::Unavailable, "STOPPING", message, Some(RETRY_AFTER))
}

/// The cluster has not been made yet.
pub(crate) fn not_initialized() -> Status {
    let message = "this node has no shards yet: make a cluster with `switchboard cluster init`, or start it with \
                   --single".to_owned();
    status(Code::Unavailable, "NOT_INITIALIZED", message, Some(RETRY_AFTER))
}

/// A read failed on the disk. What exactly is in the log of the process.
pub(crate) fn unreadable(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a message cannot be read");
    status(Code::DataLoss, "UNREADABLE", format!("a message cannot be read: {error}"), None)
}

/// A task of ours panicked.
pub(crate) fn internal(message: String) -> Status {
    tracing::error!(%message, "internal error");
    status(Code::Internal, "INTERNAL", message, None)
}

/// A single proposal was refused.
pub(crate) fn overloaded(error: Overloaded) -> Status {
    let retry = Some(error.retry_after);
    status(Code::ResourceExhausted, "OVERLOADED", error.to_string(), retry)
}

/// A single proposal failed.
pub(crate) fn proposal(error: &ProposeError) -> Status {
    let message = error.to_string();
    match error {
        ProposeError::NotLeader { .. } => {
            status(Code::Unavailable, "NOT_LEADER", message, Some(RETRY_AFTER))
        }
        // Without a retry time: that would say that nothing has happened.
        ProposeError::OutcomeUnknown => status(Code::Unavailable, "OUTCOME_UNKNOWN", message, None),
        ProposeError::Stopped => stopping(),
        ProposeError::Refused { status: EngineStatus::TooLarge, .. } => {
            status(Code::InvalidArgument, "TOO_LARGE", message, None)
        }
        ProposeError::Refused { .. } => status(Code::InvalidArgument, "INVALID", message, None),
    }
}

/// A read could not be made as fresh as asked for.
pub(crate) fn barrier(error: &BarrierError) -> Status {
    let message = error.to_string();
    match error {
        BarrierError::NotLeader { .. } => {
            status(Code::Unavailable, "NOT_LEADER", message, Some(RETRY_AFTER))
        }
        BarrierError::NoQuorum => {
            status(Code::Unavailable, "NO_QUORUM", message, Some(RETRY_AFTER))
        }
        BarrierError::Stopped => stopping(),
    }
}

/// The node that a request belongs to is not connected. Nothing has happened.
pub(crate) fn peer_unreachable(node: u64) -> Status {
    let message = format!(
        "node {node}, which this belongs to, cannot be reached; `switchboard cluster status` shows which nodes are away"
    );
    status(Code::Unavailable, "NODE_UNREACHABLE", message, Some(RETRY_AFTER))
}

/// The connection broke, or no answer came in time, after a request had been passed on.
pub(crate) fn peer_lost(node: u64) -> Status {
    let message = format!("node {node} did not answer a request that was passed on to it");
    // Without a retry time: that would say that nothing has happened.
    status(Code::Unavailable, "OUTCOME_UNKNOWN", message, None)
}

/// A node that is not talked to.
pub(crate) fn peer_refused(refusal: &Refusal) -> Status {
    status(Code::FailedPrecondition, refusal.reason(), refusal.to_string(), None)
}

/// What another node sent cannot be used.
pub(crate) fn peer_nonsense(error: &dyn std::error::Error) -> Status {
    status(Code::InvalidArgument, "INVALID", error.to_string(), None)
}

/// The book of members cannot be written.
pub(crate) fn book(error: &BookError) -> Status {
    tracing::error!(%error, "the members of the cluster cannot be written down");
    status(Code::Internal, "INTERNAL", error.to_string(), None)
}

/// A node that is to be taken in does not answer.
pub(crate) fn member_unreachable(node: u64, address: &str) -> Status {
    let message = format!("node {node} does not answer at {address}");
    status(Code::Unavailable, "NODE_UNREACHABLE", message, None)
}

/// Another node than the one named answers at an address.
pub(crate) fn not_the_node(node: u64, address: &str, found: u64) -> Status {
    let message =
        format!("at {address} node {found} answers, not node {node}, or it speaks another version");
    status(Code::FailedPrecondition, "OTHER_NODE", message, None)
}

/// A cluster is made of nodes that have none.
pub(crate) fn already_in_cluster(node: u64) -> Status {
    let message = format!("node {node} is a member of a cluster already");
    status(Code::FailedPrecondition, "ALREADY_IN_CLUSTER", message, None)
}

/// Members that are named twice, or without the node that is asked.
pub(crate) fn peers_incomplete(node: u64) -> Status {
    let message = format!("the members must be named once each, with this node, {node}");
    status(Code::InvalidArgument, "PEERS", message, None)
}

/// A cluster was not made, or not wholly.
pub(crate) fn founding(error: &FoundError) -> Status {
    let message = match error {
        // The same command would be refused again.
        FoundError::Alone(
            InitializeError::Shards { .. }
            | InitializeError::OtherShards { .. }
            | InitializeError::OtherNode { .. },
        ) => error.to_string(),
        _ => format!("{error}; the same command goes on where this one stopped"),
    };
    status(Code::FailedPrecondition, "NOT_FOUNDED", message, None)
}

/// Leadership stays where it is.
pub(crate) fn transfer(error: &TransferError) -> Status {
    let message = error.to_string();
    match error {
        TransferError::NotLeader { .. } => {
            status(Code::Unavailable, "NOT_LEADER", message, Some(RETRY_AFTER))
        }
        TransferError::NotVoter { .. } => {
            status(Code::FailedPrecondition, "NOT_MEMBER", message, None)
        }
        TransferError::Refused { .. } => {
            status(Code::Unavailable, "TRANSFER_REFUSED", message, Some(RETRY_AFTER))
        }
        TransferError::Stopped => stopping(),
    }
}

/// The format stays as it is.
pub(crate) fn upgrade(error: &UpgradeError) -> Status {
    let (code, reason) = match error {
        UpgradeError::Silent { .. } => (Code::Unavailable, "NODE_UNREACHABLE"),
        UpgradeError::Unreadable { .. } => (Code::FailedPrecondition, "FORMAT_NOT_READ"),
        UpgradeError::Down { .. } => (Code::FailedPrecondition, "FORMAT_DOWN"),
    };
    status(code, reason, error.to_string(), None)
}

/// A shard whose leader is not known, or who is asked and does not lead it.
pub(crate) fn no_leader(shard: u32) -> Status {
    let message = format!("no leader of shard {shard} is known here");
    status(Code::Unavailable, "NOT_LEADER", message, Some(RETRY_AFTER))
}

/// A change of placement that is not possible; the message says what would be lost.
pub(crate) fn placement(reason: &str, message: String) -> Status {
    status(Code::FailedPrecondition, reason, message, None)
}

/// A plan that was made for another placement.
pub(crate) fn placement_moved_on(planned_for: u64) -> Status {
    let message = format!(
        "the plan is for placement {planned_for}, and the placement has moved on: make a new plan with \
         `switchboard shard plan`"
    );
    status(Code::FailedPrecondition, "PLACEMENT_MOVED_ON", message, None)
}

/// Something that will be so in a moment.
pub(crate) fn not_yet(what: &str) -> Status {
    status(Code::Unavailable, "NOT_YET", format!("{what}; try again"), Some(RETRY_AFTER))
}

/// A cluster that another node has begun to make.
pub(crate) fn begun_elsewhere(node_id: u64) -> Status {
    let message = format!(
        "another node is making this cluster, and node {node_id} knows of it: repeat `switchboard cluster init` with \
         --store set to the node that it was first sent to"
    );
    status(Code::FailedPrecondition, "BEGUN_ELSEWHERE", message, None)
}

/// A node that is no member.
pub(crate) fn unknown_node(node: u64) -> Status {
    status(Code::NotFound, "UNKNOWN_NODE", format!("there is no node {node} in this cluster"), None)
}

/// A shard that there is not.
pub(crate) fn unknown_shard(shard: u32) -> Status {
    status(Code::NotFound, "UNKNOWN_SHARD", format!("there is no shard {shard}"), None)
}

/// A `min_position` that this shard has not given out.
pub(crate) fn unknown_position(position: u64) -> Status {
    let message = format!("min_position {position} is ahead of everything in this shard");
    status(Code::InvalidArgument, "POSITION_UNKNOWN", message, None)
}

/// A group that this node has no replica of.
pub(crate) fn no_replica(node: u64, group: u32) -> Status {
    let message = format!("node {node} has no replica of group {group}; ask a node that has");
    status(Code::FailedPrecondition, "NO_REPLICA", message, None)
}

/// One backup at a time.
pub(crate) fn backup_under_way() -> Status {
    let message = "a backup or verification is under way on this node; ask another, or wait";
    status(Code::ResourceExhausted, "BACKUP_UNDER_WAY", message.to_owned(), None)
}

/// One probe at a time.
pub(crate) fn probe_under_way(node: u64) -> Status {
    let message = format!("node {node} is being measured already; wait some seconds");
    status(Code::ResourceExhausted, "PROBE_UNDER_WAY", message, None)
}

/// A file of the data directory cannot be written or synced.
pub(crate) fn not_probed(node: u64, error: &std::io::Error) -> Status {
    let message = format!("the disk of node {node} cannot be measured: {error}");
    status(Code::Internal, "NOT_PROBED", message, None)
}

/// A group could not be read to its end.
pub(crate) fn not_backed_up(group: u32, error: &std::io::Error) -> Status {
    let message = format!("group {group} was not backed up: {error}");
    status(Code::Aborted, "NOT_BACKED_UP", message, None)
}

/// This replica lags too far behind its leader.
pub(crate) fn behind(group: u32, error: &WaitError) -> Status {
    let message = format!("this replica of group {group} lags behind: {error}; ask another node");
    status(Code::Unavailable, "BEHIND", message, Some(RETRY_AFTER))
}

/// Too many streams of a kind.
pub(crate) fn too_many_watchers(max: usize) -> Status {
    let message = format!("{max} watches are open on this node already");
    status(Code::ResourceExhausted, "TOO_MANY_WATCHES", message, Some(RETRY_AFTER))
}

/// The one command of a call was refused when it was applied.
pub(crate) fn refused(applied: EngineStatus) -> Result<(), Status> {
    let (code, reason, why) = match applied {
        EngineStatus::Ok | EngineStatus::Duplicate => return Ok(()),
        EngineStatus::UnknownGateway => (
            Code::NotFound,
            "UNKNOWN_GATEWAY",
            "no process has this id and incarnation, or its lease has ended; register again",
        ),
        EngineStatus::Fenced => (
            Code::FailedPrecondition,
            "FENCED",
            "something newer is in its place; look at what there is now, and repeat what is still wanted",
        ),
        EngineStatus::MailboxFull => {
            (Code::ResourceExhausted, "MAILBOX_FULL", "the mailbox has no room")
        }
        EngineStatus::TooLarge => (Code::InvalidArgument, "TOO_LARGE", "it is over a limit"),
        EngineStatus::Invalid => {
            (Code::InvalidArgument, "INVALID", "it is not possible with what there is now")
        }
        EngineStatus::Overloaded => {
            (Code::ResourceExhausted, "OVERLOADED", "there is no room now; try again later")
        }
        EngineStatus::Unavailable => {
            (Code::Unavailable, "UNAVAILABLE", "it cannot be done now; try again later")
        }
    };
    Err(status(code, reason, format!("refused: {why} ({reason})"), None))
}

/// What an item answers for what applying it said.
pub(crate) fn item(applied: EngineStatus) -> ItemStatus {
    match applied {
        EngineStatus::Ok => ItemStatus::Ok,
        EngineStatus::Duplicate => ItemStatus::Duplicate,
        EngineStatus::Fenced => ItemStatus::Fenced,
        EngineStatus::MailboxFull => ItemStatus::MailboxFull,
        EngineStatus::TooLarge => ItemStatus::TooLarge,
        EngineStatus::Invalid => ItemStatus::Invalid,
        EngineStatus::UnknownGateway => ItemStatus::UnknownGateway,
        EngineStatus::Overloaded => ItemStatus::Overloaded,
        EngineStatus::Unavailable => ItemStatus::Unavailable,
    }
}

/// What an item answers when its proposal failed; one that was refused keeps its own status.
pub(crate) fn item_of_failure(error: &ProposeError, index: usize) -> ItemStatus {
    match error {
        ProposeError::Refused { index: refused, status } if *refused == index => item(*status),
        ProposeError::Refused { .. }
        | ProposeError::NotLeader { .. }
        | ProposeError::OutcomeUnknown
        | ProposeError::Stopped => ItemStatus::Unavailable,
    }
}

/// The error of a stream whose next request cannot be read: what the transport says, but for a
/// request beyond every bound.
pub(crate) fn unreadable_request(error: Status) -> Status {
    if error.code() == Code::OutOfRange { request_too_large() } else { error }
}

/// A request that is not even decoded.
pub(crate) fn request_too_large() -> Status {
    let message = format!(
        "the request is too large; the limit is {} bytes",
        switchboard_api::limits::REQUEST_BYTES_MAX
    );
    status(Code::InvalidArgument, "REQUEST_TOO_LARGE", message, None)
}

fn status(
    code: Code,
    reason: &str,
    message: String,
    retry_after: Option<std::time::Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code, message, details)
}
