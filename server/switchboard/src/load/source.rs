//! From where devices connect to gateways on this machine.
//!
//! Linux looks for a free port among all of an address, and for very long when more than half of them are taken:
//! of a hundred thousand devices at one address most of the time goes into that. On loopback a process has
//! all of 127.0.0.0/8, so each takes some addresses of its own.

use std::net::{IpAddr, Ipv4Addr};

use switchboard_device::GatewayAddress;

/// Addresses that a process connects from.
const SOURCES: u32 = 6;

/// The addresses of this process, if its gateways are all on loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    first: Option<Ipv4Addr>,
}

impl Sources {
    pub(crate) fn to(gateways: &[GatewayAddress]) -> Self {
        let is_local = gateways.iter().all(|gateway| gateway.to_string().contains("//127."));
        Self { first: is_local.then(|| first_of(std::process::id())) }
    }

    /// From where the device of this number connects; none: from wherever the system likes.
    pub(crate) fn nth(self, number: usize) -> Option<IpAddr> {
        let nth = u32::try_from(number % SOURCES as usize).unwrap_or(0);
        self.first.map(|first| Ipv4Addr::from_bits(first.to_bits() + nth).into())
    }
}

fn first_of(process: u32) -> Ipv4Addr {
    let [.., high, low] = process.to_be_bytes();
    // 127.0.0.0/8 has no broadcast addresses, but 127.x.0.0 and 127.x.255.255 look like some.
    Ipv4Addr::new(127, 1 + high % 250, low, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_take_turns_at_addresses_of_their_process_on_loopback_only() {
        let local: Vec<GatewayAddress> = vec!["127.0.0.1:7410".parse().unwrap()];
        let sources = Sources::to(&local);
        let addresses: Vec<_> = (0..12).map(|number| sources.nth(number)).collect();
        assert!(addresses.iter().all(|at| at.is_some_and(|at| at.is_loopback())), "{addresses:?}");
        assert_eq!(addresses[..6], addresses[6..]);
        assert_ne!(addresses[0], addresses[1]);
        let far: Vec<GatewayAddress> = vec!["192.0.2.1:7410".parse().unwrap()];
        assert_eq!(Sources::to(&[local, far].concat()).nth(3), None);
        assert_ne!(first_of(1), first_of(2));
    }
}
