//! TLS of servers: certificates made by an authority of one's own, and identities that are loaded
//! from files and loaded again when the files change.
//!
//! ```text
//!   Authority ──issue──▶ NAME.pem, NAME.key ──load──▶ Identity ──▶ rustls::ServerConfig
//!     ca.pem, ca.key                          reload ───┘ (new handshakes see it, open ones stay)
//! ```
//! TLS 1.3 only. Private keys are readable by their owner only, and nothing here writes over a
//! file unless it is told to.

mod authority;
mod identity;
mod role;

pub use authority::{Authority, CertificateError, Issued, Request};
pub use identity::{Identity, IdentityError};
pub use role::{Role, UnknownRole};
