//! How many connections each address has: bounded, but for loopback.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use metrics::Gauge;
use parking_lot::Mutex;

pub(crate) struct Addresses {
    /// A lock, taken once when a connection opens and once when it ends.
    counts: Mutex<HashMap<Arc<IpAddr>, u32>>,
    max: u32,
    loopback: bool,
    /// Of all addresses, loopback too.
    open: Gauge,
}

/// A place that a connection holds.
pub(crate) struct Admitted {
    addresses: Arc<Addresses>,
    /// Shared by those of an address; none where nothing is counted.
    address: Option<Arc<IpAddr>>,
}

impl Addresses {
    /// `max` 0: no bound; `loopback`: that has the same.
    pub(crate) fn new(max: u32, loopback: bool, open: Gauge) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max, loopback, open })
    }

    /// `None` when the address has as many connections as it may.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let address = address.to_canonical();
        if self.max == 0 || (address.is_loopback() && !self.loopback) {
            self.open.increment(1);
            return Some(Admitted { addresses: self.clone(), address: None });
        }
        let mut counts = self.counts.lock();
        let known = counts.get_key_value(&address).map(|(known, _)| known.clone());
        let address = known.unwrap_or_else(|| Arc::new(address));
        let count = counts.entry(address.clone()).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        self.open.increment(1);
        Some(Admitted { addresses: self.clone(), address: Some(address) })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.addresses.open.decrement(1);
        let Some(address) = &self.address else { return };
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_bound_and_loopback_has_none() {
        let addresses = Addresses::new(2, false, Gauge::noop());
        let address = "192.0.2.1".parse().unwrap();
        let first = addresses.admit(address);
        let second = addresses.admit("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some() && addresses.admit(address).is_none());
        drop(first);
        assert!(addresses.admit(address).is_some());
        let local: Vec<_> = (0..10).map(|_| addresses.admit("::1".parse().unwrap())).collect();
        assert!(local.iter().all(Option::is_some));
    }
}
