//! Where a gateway listens, and by which transport.

use std::{fmt, str::FromStr};

/// A gateway's address: `host:port`, `tcp://host:port` or `ws://host:port[/path]`.
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
    /// A frame a binary message, over WebSocket; the whole URL.
    WebSocket(String),
}

/// Why a text is no gateway's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is none of `tcp` and `ws`.
    #[error("`{address}` has a scheme that is not supported (tcp://, ws://)")]
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
        match scheme {
            "tcp" if authority.len() == rest.len() => Ok(Self::Tcp(rest.to_owned())),
            "tcp" => Err(AddressError::HostPort { address: text.to_owned() }),
            "ws" if authority.len() == rest.len() => Ok(Self::WebSocket(format!("ws://{rest}/"))),
            "ws" => Ok(Self::WebSocket(text.to_owned())),
            _ => Err(AddressError::Scheme { address: text.to_owned() }),
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
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
        ] {
            let address: GatewayAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<GatewayAddress>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "a", "a:", ":1", "a:99999", "tcp://a:1/x", "http://a:1", "ws://a"] {
            assert!(text.parse::<GatewayAddress>().is_err(), "{text}");
        }
    }
}
