//! Binding listeners, with errors that say what to do.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::limits::LISTEN_BACKLOG;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "address {address} is in use; stop the process that listens there or set `{key}` to \
         another (port 0 picks a free one)"
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// The configuration key that holds it.
        key: String,
    },
    /// The address belongs to no interface of this machine.
    #[error("address {address} is not one of this machine's; set `{key}` to one that is")]
    NotHere {
        /// The address asked for.
        address: SocketAddr,
        /// The configuration key that holds it.
        key: String,
    },
    /// A port below 1024, usually.
    #[error("no permission to listen on {address} (`{key}`); ports below 1024 need a privilege")]
    Denied {
        /// The address asked for.
        address: SocketAddr,
        /// The configuration key that holds it.
        key: String,
    },
    /// Anything else the system says.
    #[error("cannot listen on {address} (`{key}`): {source}")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// The configuration key that holds it.
        key: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Binds a TCP listener; `key` names the configuration key of the address, for the error.
///
/// # Errors
/// See [`BindError`].
pub fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| {
        let key = key.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address, key },
            io::ErrorKind::AddrNotAvailable => BindError::NotHere { address, key },
            io::ErrorKind::PermissionDenied => BindError::Denied { address, key },
            _ => BindError::Other { address, key, source },
        }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server must not wait for its predecessor's connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_key() {
        let first = bind("listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("listen", address).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("address {address} is in use; ")), "{text}");
        assert!(text.contains("`listen`"), "{text}");
    }

    #[tokio::test]
    async fn a_foreign_address_is_refused() {
        // TEST-NET-1 (RFC 5737) belongs to no interface.
        let error = bind("http", "192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NotHere { .. }), "{error:?}");
    }
}
