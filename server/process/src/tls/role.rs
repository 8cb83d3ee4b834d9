//! What the holder of a certificate is.

use std::{fmt, str::FromStr};

/// The role that a certificate names, as the organizational unit of its subject.
///
/// ```
/// use switchboard_process::tls::Role;
/// assert_eq!("gateway".parse(), Ok(Role::Gateway));
/// assert_eq!(Role::Node.to_string(), "node");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A store node.
    Node,
    /// A gateway.
    Gateway,
    /// A chat process.
    Chat,
    /// A person or a script that runs operator commands.
    Operator,
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role; there are: node, gateway, chat, operator")]
pub struct UnknownRole(String);

impl Role {
    /// As it stands in certificates and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Chat => "chat",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Node, Self::Gateway, Self::Chat, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}
