//! The webhook: one signed request for several wake-ups.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{
    HeaderMap, Uri,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use switchboard_api::v1::DeviceRef;
use uuid::Uuid;

use super::{
    request::{Requests, Sent},
    signature::Secrets,
};

const TIMESTAMP: &str = "switchboard-timestamp";
const SIGNATURE: &str = "switchboard-signature";

/// A device for the webhook to wake up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WakeUp {
    pub(crate) device: DeviceRef,
    pub(crate) push_token: String,
    /// How many wait in its mailbox.
    pub(crate) messages: u64,
}

/// Where wake-ups go that are no Web Push.
pub(crate) struct Webhook {
    pub(crate) uri: Uri,
    pub(crate) secrets: Secrets,
    pub(crate) requests: Requests,
}

#[derive(Serialize)]
struct Body<'a> {
    /// The same in every attempt.
    id: String,
    wake_ups: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_base64: Option<String>,
    device: u32,
    push_token: &'a str,
    messages: u64,
}

impl Webhook {
    /// Sends one request for all of `wake_ups`.
    pub(crate) async fn send(&self, wake_ups: &[WakeUp]) -> Sent {
        let Some(body) = body(Uuid::now_v7(), wake_ups) else { return Sent::Refused };
        let signed = body.clone();
        self.requests.post(&self.uri, body, || self.headers(now_s(), &signed)).await
    }

    fn headers(&self, timestamp_s: u64, body: &[u8]) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp_s));
        let signature = self.secrets.sign(timestamp_s, body);
        headers.insert(SIGNATURE, HeaderValue::from_str(&signature).ok()?);
        Some(headers)
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn entry(wake_up: &WakeUp) -> Entry<'_> {
    let WakeUp { device, push_token, messages } = wake_up;
    let user = std::str::from_utf8(&device.user).ok();
    let user_base64 = user.is_none().then(|| STANDARD.encode(&device.user));
    Entry { user, user_base64, device: device.device, push_token, messages: *messages }
}

fn body(id: Uuid, wake_ups: &[WakeUp]) -> Option<Bytes> {
    let wake_ups = wake_ups.iter().map(entry).collect();
    serde_json::to_vec(&Body { id: id.to_string(), wake_ups }).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_each_device_and_a_user_that_is_no_text_in_base64() {
        let wake_up = |user: &'static [u8], device| WakeUp {
            device: DeviceRef { user: Bytes::from_static(user), device },
            push_token: "apns:00".to_owned(),
            messages: 3,
        };
        let body = body(Uuid::nil(), &[wake_up(b"bob", 1), wake_up(&[0xff, 0], 2)]).unwrap();
        let expected = concat!(
            r#"{"id":"00000000-0000-0000-0000-000000000000","wake_ups":["#,
            r#"{"user":"bob","device":1,"push_token":"apns:00","messages":3},"#,
            r#"{"user_base64":"/wA=","device":2,"push_token":"apns:00","messages":3}]}"#,
        );
        assert_eq!(body, expected);
    }
}
