//! Web Push: one encrypted request a device, to the push service that its browser chose.

use bytes::Bytes;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{
    encryption::encrypt,
    request::{Requests, Sent},
    subscription::Subscription,
    vapid::Vapid,
    webhook::now_s,
};
use crate::limits::WEB_PUSH_TTL_S;

/// What goes to push services.
pub(crate) struct WebPush {
    pub(crate) vapid: Vapid,
    pub(crate) requests: Requests,
}

/// A browser to wake up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Knock {
    pub(crate) subscription: Box<Subscription>,
    /// How many wait in the device's mailbox.
    pub(crate) messages: u64,
}

impl WebPush {
    pub(crate) async fn send(&self, knock: &Knock) -> Sent {
        let subscription = &knock.subscription;
        let plaintext = serde_json::json!({ "messages": knock.messages }).to_string();
        let Ok(body) = encrypt(&subscription.reader, plaintext.as_bytes()) else {
            return Sent::Refused;
        };
        let headers = || self.headers(&subscription.origin);
        self.requests.post(&subscription.endpoint, Bytes::from(body), headers).await
    }

    fn headers(&self, origin: &str) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(HeaderName::from_static("ttl"), HeaderValue::from(WEB_PUSH_TTL_S));
        headers.insert(HeaderName::from_static("urgency"), HeaderValue::from_static("normal"));
        // The push service keeps the last one of a topic: a phone that was off is woken up once.
        headers.insert(HeaderName::from_static("topic"), HeaderValue::from_static("wake-up"));
        let authorization = self.vapid.authorization(origin, now_s())?;
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&authorization).ok()?);
        Some(headers)
    }
}
