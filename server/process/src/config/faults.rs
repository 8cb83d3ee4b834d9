//! What is wrong with a configuration, all of it at once.

use std::{fmt, net::SocketAddr};

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, dotted (`limits.ttl_ms`); or, of an unknown one, the key and where it stands.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

/// The faults found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault of `key`; the message continues a sentence that begins with the key.
    pub fn add(&mut self, key: &str, message: &str) {
        self.0.push(Fault { key: format!("`{key}`"), message: message.trim().to_owned() });
    }

    /// Adds a fault unless `fine`.
    pub fn check(&mut self, fine: bool, key: &str, message: &str) {
        if !fine {
            self.add(key, message);
        }
    }

    /// Adds a fault unless `value` lies within the bounds, both included.
    pub fn check_range<N>(&mut self, key: &str, value: N, min: N, max: N)
    where
        N: Copy + PartialOrd + fmt::Display,
    {
        if value < min || value > max {
            self.add(key, &format!("is {value}; it must be from {min} to {max}"));
        }
    }

    /// Adds a fault when plain text would leave the machine without being asked to.
    pub fn check_plain_text(&mut self, key: &str, address: SocketAddr, insecure: bool) {
        if !insecure && !address.ip().is_loopback() {
            self.add(
                key,
                &format!(
                    "is {address}: plain text beyond loopback needs `insecure = true` \
                     (--insecure)"
                ),
            );
        }
    }

    pub(crate) fn unknown(&mut self, what: &str, nearest: Option<&str>) {
        let message = match nearest {
            Some(nearest) => format!("is unknown; did you mean `{nearest}`?"),
            None => "is unknown".to_owned(),
        };
        self.0.push(Fault { key: what.to_owned(), message });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "  {} {}", fault.key, fault.message)?;
        }
        Ok(())
    }
}
