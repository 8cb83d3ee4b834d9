//! Errors by what the caller may do next, and how a gRPC status becomes one.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call has no answer.
///
/// Batches answer item by item; this is for calls that failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Refused for good: the same call will be refused again. Nothing happened.
    #[error("rejected ({reason}): {message}")]
    Rejected {
        /// UPPER_SNAKE, as in `google.rpc.ErrorInfo`.
        reason: String,
        /// In plain words.
        message: String,
    },
    /// Nothing happened; the same call may succeed later.
    #[error("not now, try again in {retry_after:?}: {message}")]
    Retryable {
        /// UPPER_SNAKE, as in `google.rpc.ErrorInfo`; empty where nobody gave one.
        reason: String,
        /// How long to wait at least.
        retry_after: Duration,
        /// In plain words.
        message: String,
    },
    /// The call may or may not have happened.
    #[error("the outcome is unknown: {message}")]
    OutcomeUnknown {
        /// In plain words.
        message: String,
    },
}

impl Error {
    pub(crate) fn rejected(reason: &str, message: impl Into<String>) -> Self {
        Self::Rejected { reason: reason.to_owned(), message: message.into() }
    }

    /// Whether it is pointless to make the same call again.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }
}

impl From<switchboard_api::validate::Fault> for Error {
    fn from(fault: switchboard_api::validate::Fault) -> Self {
        Self::rejected(fault.reason(), fault.to_string())
    }
}

/// The reason of this library for a call that reached no node.
pub(crate) const NO_CONNECTION: &str = "NO_CONNECTION";

/// The wait that is suggested when a peer names none.
pub(crate) const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(50);

/// Sorts a status. One that carries `RetryInfo` was refused before anything happened; without it
/// UNAVAILABLE may also be a connection that broke while the call was under way.
pub(crate) fn from_status(status: &Status) -> Error {
    let message = status.message().to_owned();
    if let Some(retry_after) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        return Error::Retryable { reason: reason(status), retry_after, message };
    }
    match status.code() {
        Code::ResourceExhausted => not_now(&reason(status), message),
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::Unknown
        | Code::Internal
        | Code::Ok => Error::OutcomeUnknown { message },
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => {
            let reason = match reason(status) {
                none if none.is_empty() => code_name(status.code()).to_owned(),
                reason => reason,
            };
            Error::Rejected { reason, message }
        }
    }
}

/// Nothing happened, for a reason that may pass.
pub(crate) fn not_now(reason: &str, message: String) -> Error {
    Error::Retryable { reason: reason.to_owned(), retry_after: RETRY_AFTER_DEFAULT, message }
}

/// A node that no connection could be made to.
pub(crate) fn no_connection(address: &str, status: &Status) -> Error {
    let message = format!("the node at {address} cannot be reached: {}", status.message());
    not_now(NO_CONNECTION, message)
}

/// The connection was never made: the call cannot have happened.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The reason that a peer gave; empty: none.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn retry_info_means_that_nothing_happened() {
        let wait = Duration::from_millis(120);
        let details = ErrorDetails::with_retry_info(Some(wait));
        let status = Status::with_error_details(Code::Unavailable, "no leader", details);
        let (reason, message) = (String::new(), "no leader".to_owned());
        assert_eq!(from_status(&status), Error::Retryable { reason, retry_after: wait, message });
    }

    #[test]
    fn a_broken_connection_leaves_the_outcome_unknown() {
        let error = from_status(&Status::unavailable("broken pipe"));
        assert!(matches!(error, Error::OutcomeUnknown { .. }));
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let metadata = std::collections::HashMap::new();
        let details = ErrorDetails::with_error_info("USER_LENGTH", "switchboard", metadata);
        let status = Status::with_error_details(Code::InvalidArgument, "no user", details);
        assert_eq!(from_status(&status), Error::rejected("USER_LENGTH", "no user"));
        let plain = from_status(&Status::unimplemented("no such call"));
        assert_eq!(plain, Error::rejected("UNIMPLEMENTED", "no such call"));
    }
}
