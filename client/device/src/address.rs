//! Where a gateway listens, and by which transport.

use std::{fmt, str::FromStr};

/// A gateway's address: `host:port` or `tcp://host:port`, `tls://host:port`, `quic://host:port`,
/// `ws://host:port[/path]` or `wss://host:port[/path]`.
///
/// ```
/// use switchboard_device::GatewayAddress;
/// let tcp: GatewayAddress = "127.0.0.1:7410".parse().unwrap();
/// assert_eq!(tcp.to_string(), "tcp://127.0.0.1:7410");
/// let ws: GatewayAddress = "ws://localhost:7412/".parse().unwrap();
/// assert_eq!(ws.to_string(), "ws://localhost:7412/");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayAddress {
    /// Frames preceded by their length, over TCP; `host:port`.
    Tcp(String),
    /// The same over TLS; `host:port`.
    Tls(String),
    /// The same on a stream of a QUIC connection, which lives on when the network changes;
    /// `host:port`.
    Quic(String),
    /// A frame a binary message, over WebSocket, with TLS if it begins with `wss`; the whole URL.
    WebSocket(String),
}

/// Why a text is no gateway's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is not known.
    #[error(
        "`{address}` has a scheme that is not supported (tcp://, tls://, quic://, ws://, wss://)"
    )]
    Scheme {
        /// What was given.
        address: String,
    },
    /// Host or port is missing.
    #[error("`{address}` is not of the form host:port")]
    HostPort {
        /// What was given.
        address: String,
    },
}

impl GatewayAddress {
    /// Whether the gateway has to prove who it is.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Tls(_) | Self::Quic(_) => true,
            Self::WebSocket(url) => url.starts_with("wss:"),
        }
    }
}

impl FromStr for GatewayAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let authority = rest.split('/').next().unwrap_or_default();
        let port_ok = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !port_ok {
            return Err(AddressError::HostPort { address: text.to_owned() });
        }
        let bare = authority.len() == rest.len();
        match scheme {
            "tcp" | "tls" | "quic" if !bare => {
                Err(AddressError::HostPort { address: text.to_owned() })
            }
            "tcp" => Ok(Self::Tcp(rest.to_owned())),
            "tls" => Ok(Self::Tls(rest.to_owned())),
            "quic" => Ok(Self::Quic(rest.to_owned())),
            "ws" | "wss" if bare => Ok(Self::WebSocket(format!("{scheme}://{rest}/"))),
            "ws" | "wss" => Ok(Self::WebSocket(text.to_owned())),
            _ => Err(AddressError::Scheme { address: text.to_owned() }),
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
            Self::Tls(authority) => write!(f, "tls://{authority}"),
            Self::Quic(authority) => write!(f, "quic://{authority}"),
            Self::WebSocket(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shown) in [
            ("a:1", "tcp://a:1"),
            ("tcp://[::1]:7410", "tcp://[::1]:7410"),
            ("ws://a:1", "ws://a:1/"),
            ("ws://a:1/x", "ws://a:1/x"),
            ("wss://a:1", "wss://a:1/"),
            ("tls://a:1", "tls://a:1"),
            ("quic://[::1]:7413", "quic://[::1]:7413"),
        ] {
            let address: GatewayAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<GatewayAddress>().unwrap(), address);
            let secure = ["tls", "quic", "wss"].iter().any(|scheme| shown.starts_with(scheme));
            assert_eq!(address.is_secure(), secure);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "a", "a:", ":1", "a:99999", "tcp://a:1/x", "tls://a:1/x", "http://a:1", "ws://a"]
        {
            assert!(text.parse::<GatewayAddress>().is_err(), "{text}");
        }
    }
}
