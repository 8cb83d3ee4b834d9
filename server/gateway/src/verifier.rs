//! Who may connect: the check of a device's token.

use std::{fmt, sync::Arc};

use switchboard_api::device::v1::{Hello, error::Code};

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a token for this device.
    #[error("the token is not valid for this device")]
    Unauthenticated,
    /// It was one.
    #[error("the token has expired")]
    Expired,
}

impl Refusal {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Expired => Code::ExpiredToken,
        }
    }
}

type Check = dyn Fn(&Hello) -> Result<(), Refusal> + Send + Sync;

/// Checks the token of a Hello against the user and the device that it names.
#[derive(Clone)]
pub struct Verifier(Arc<Check>);

impl Verifier {
    /// A check of one's own; called on the connection's task, so it must not block.
    pub fn new(check: impl Fn(&Hello) -> Result<(), Refusal> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// Takes any token, also an empty one: on loopback, or where the operator says so.
    #[must_use]
    pub fn accept_any() -> Self {
        Self::new(|_| Ok(()))
    }

    pub(crate) fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        (self.0)(hello)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}
