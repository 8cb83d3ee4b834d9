//! Names of devices on the command line, and how ids and times are shown.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::DateTime;
use switchboard_api::limits::USER_BYTES_MAX;
use uuid::Uuid;

/// `USER` or `USER/DEV`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceName {
    /// 1 to 64 bytes.
    pub(crate) user: Bytes,
    /// 1 to 65535, if given.
    pub(crate) device: Option<u16>,
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, device) = match text.rsplit_once('/') {
            Some((user, device)) => {
                let number = device.parse::<u16>().ok().filter(|number| *number > 0);
                let number = number.ok_or("after the last `/` comes a device, from 1 to 65535")?;
                (user, Some(number))
            }
            None => (text, None),
        };
        if !(1..=USER_BYTES_MAX).contains(&user.len()) {
            return Err(format!("a user has 1 to {USER_BYTES_MAX} bytes"));
        }
        Ok(DeviceName { user: Bytes::copy_from_slice(user.as_bytes()), device })
    }
}

/// A user as text; `base64:…` where it is none.
pub(crate) fn user_text(user: &[u8]) -> String {
    match std::str::from_utf8(user) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("base64:{}", STANDARD.encode(user)),
    }
}

/// `USER` or, for other devices than the primary one, `USER/DEV`.
pub(crate) fn device_text(user: &[u8], device: u32) -> String {
    match device {
        1 => user_text(user),
        _ => format!("{}/{device}", user_text(user)),
    }
}

/// A message id in the usual form.
pub(crate) fn id_text(id: &[u8]) -> String {
    match Uuid::from_slice(id) {
        Ok(uuid) => uuid.to_string(),
        Err(_) => STANDARD.encode(id),
    }
}

/// Bytes for JSON.
pub(crate) fn base64_text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Unix milliseconds for people; a dash for none.
pub(crate) fn time_text(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .filter(|ms| *ms > 0)
        .and_then(DateTime::from_timestamp_millis)
        .map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_read() {
        let name: DeviceName = "alice".parse().unwrap();
        assert_eq!((name.user.as_ref(), name.device), (b"alice".as_ref(), None));
        let name: DeviceName = "a/b/7".parse().unwrap();
        assert_eq!((name.user.as_ref(), name.device), (b"a/b".as_ref(), Some(7)));
        for bad in ["", "/1", "alice/", "alice/0", "alice/65536", "alice/x", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_as_base64() {
        assert_eq!(device_text(b"alice", 1), "alice");
        assert_eq!(device_text(b"alice", 2), "alice/2");
        assert_eq!(user_text(&[0xff]), "base64:/w==");
        assert_eq!(user_text(b"a\x1b[2J"), "base64:YRtbMko=", "no escape reaches a terminal");
        assert_eq!(time_text(0), "-");
        assert_eq!(time_text(1_525_289_895_123), "2018-05-02 19:38:15.123 UTC");
    }
}
