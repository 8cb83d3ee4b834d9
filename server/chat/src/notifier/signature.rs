//! How a webhook knows that a request is ours, and new: HMAC-SHA256 over time and body.
//!
//! ```text
//! Switchboard-Timestamp: 1764362094                              Unix seconds, of this attempt
//! Switchboard-Signature: v1=5257a869…,v1=91ab3c…                 one for each secret in use
//!                           └─ hex(HMAC-SHA256(secret, timestamp "." body))
//! ```
//! The receiver computes the same, compares in constant time, and refuses a timestamp further from
//! its own clock than [`REPLAY_WINDOW_S`]: what was recorded on the way is of no use later. Within
//! the window it tells repeats by the `id` in the body. Two secrets at once allow for a change of
//! secrets without a gap.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// How far the timestamp of a request may be from the receiver's clock, in either direction.
pub const REPLAY_WINDOW_S: u64 = 300;

/// The secrets of a webhook; the receiver accepts a request that any of them signed.
pub(crate) struct Secrets(Vec<hmac::Key>);

/// Why a file of secrets is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is no line in it.
    #[error("holds no secret; write one a line")]
    Empty,
    /// Somebody would guess it.
    #[error("holds a secret of less than {SECRET_BYTES_MIN} bytes")]
    Short,
    /// A request has a signature for each.
    #[error("holds more than {SECRETS_MAX} secrets")]
    Many,
}

/// A shorter secret would be weaker than the digest.
pub(crate) const SECRET_BYTES_MIN: usize = 32;
/// The one in use, and the one before or after it.
pub(crate) const SECRETS_MAX: usize = 2;

impl Secrets {
    /// Reads secrets: one a line, white space around it and empty lines left out.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretsError> {
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err(SecretsError::Empty);
        }
        if lines.len() > SECRETS_MAX {
            return Err(SecretsError::Many);
        }
        if lines.iter().any(|line| line.len() < SECRET_BYTES_MIN) {
            return Err(SecretsError::Short);
        }
        let key = |line: &&str| hmac::Key::new(hmac::HMAC_SHA256, line.as_bytes());
        Ok(Self(lines.iter().map(key).collect()))
    }

    /// The value of the signature header.
    pub(crate) fn sign(&self, timestamp_s: u64, body: &[u8]) -> String {
        let mut value = String::new();
        for key in &self.0 {
            let mut context = hmac::Context::with_key(key);
            context.update(timestamp_s.to_string().as_bytes());
            context.update(b".");
            context.update(body);
            if !value.is_empty() {
                value.push(',');
            }
            value.push_str("v1=");
            for byte in context.sign().as_ref() {
                // Writing to a String cannot fail.
                let _ = write!(value, "{byte:02x}");
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_signature_is_what_any_other_hmac_says() {
        let secrets = Secrets::parse(SECRET).unwrap();
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177";
        assert_eq!(secrets.sign(1_700_000_000, br#"{"a":1}"#), expected);
    }

    #[test]
    fn each_secret_signs_and_time_and_body_count() {
        let text = format!("{SECRET}\n\n  {}  \n", SECRET.to_uppercase());
        let secrets = Secrets::parse(&text).unwrap();
        let signed = secrets.sign(1, b"body");
        let (one, two) = signed.split_once(',').unwrap();
        assert_eq!(one, Secrets::parse(SECRET).unwrap().sign(1, b"body"));
        assert_ne!(one, two);
        assert_ne!(signed, secrets.sign(2, b"body"));
        assert_ne!(signed, secrets.sign(1, b"bodY"));
    }

    #[test]
    fn a_file_without_a_good_secret_is_refused() {
        let parse = |text: &str| Secrets::parse(text).err();
        assert_eq!(parse("\n \n"), Some(SecretsError::Empty));
        assert_eq!(parse("short"), Some(SecretsError::Short));
        assert_eq!(parse(&format!("{SECRET}\n").repeat(3)), Some(SecretsError::Many));
    }
}
