//! What a device's push token says: a Web Push subscription, or something for the webhook.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper::{Uri, http::uri::Authority};
use serde::Deserialize;

use super::encryption::Reader;

/// A `PushSubscription` of a browser, as its `toJSON` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// `https`, at one of the hosts that are allowed.
    pub(crate) endpoint: Uri,
    /// The audience of our token: scheme, host and port.
    pub(crate) origin: String,
    pub(crate) reader: Reader,
}

/// Whom a push token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// The device gave none.
    None,
    WebPush(Box<Subscription>),
    /// Anything that is no subscription.
    Webhook(String),
    /// A subscription that cannot be used: a host that is not allowed, or malformed keys.
    Refused,
}

#[derive(Deserialize)]
struct Json {
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

impl Token {
    /// Reads what a device gave. It chose the endpoint itself, so a request goes to no host but
    /// those in `hosts` and their subdomains, and to no port but 443 or the one named with the host.
    pub(crate) fn read(text: String, hosts: &[String]) -> Self {
        if text.is_empty() {
            return Self::None;
        }
        let is_subscription = text.starts_with('{') && text.contains("\"endpoint\"");
        if !is_subscription {
            return Self::Webhook(text);
        }
        match subscription(&text, hosts) {
            Some(subscription) => Self::WebPush(Box::new(subscription)),
            None => Self::Refused,
        }
    }
}

fn subscription(text: &str, hosts: &[String]) -> Option<Subscription> {
    let Json { endpoint, keys } = serde_json::from_str(text).ok()?;
    let endpoint: Uri = endpoint.parse().ok()?;
    let authority = endpoint.authority().filter(|_| endpoint.scheme_str() == Some("https"))?;
    // A name before an `@` is none of ours to send.
    if authority.as_str().contains('@') || !is_allowed(authority, hosts) {
        return None;
    }
    let origin = format!("https://{authority}");
    let reader = Reader { public_key: decode(&keys.p256dh)?, auth: decode(&keys.auth)? };
    Some(Subscription { endpoint, origin, reader })
}

fn is_allowed(authority: &Authority, hosts: &[String]) -> bool {
    let host = authority.host().to_ascii_lowercase();
    let port = authority.port_u16().unwrap_or(443);
    hosts.iter().any(|allowed| {
        let (name, allowed_port) = match allowed.split_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (allowed.as_str(), Some(443)),
        };
        let is_within = |before: &str| before.is_empty() || before.ends_with('.');
        allowed_port == Some(port) && host.strip_suffix(name).is_some_and(is_within)
    })
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Browsers leave the padding out; some libraries put it in.
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(endpoint: &str, auth: &[u8]) -> String {
        serde_json::json!({
            "endpoint": endpoint,
            "expirationTime": null,
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode([4; 65]),
                "auth": URL_SAFE_NO_PAD.encode(auth),
            },
        })
        .to_string()
    }

    fn read(text: &str) -> Token {
        let hosts = ["push.example.org", "fcm.googleapis.com", "dev.example.org:99"];
        Token::read(text.to_owned(), &hosts.map(str::to_owned))
    }

    #[test]
    fn a_subscription_is_read_as_a_browser_writes_it() {
        let text = token("https://fcm.googleapis.com/fcm/send/abc?d=e", &[9; 16]);
        let Token::WebPush(subscription) = read(&text) else { panic!("{text}") };
        assert_eq!(subscription.origin, "https://fcm.googleapis.com");
        assert_eq!(subscription.endpoint.path(), "/fcm/send/abc");
        assert_eq!(subscription.reader.auth, [9; 16]);
        for endpoint in ["https://a.push.example.org:443/x", "https://a.dev.example.org:99/x"] {
            assert!(matches!(read(&token(endpoint, &[9; 16])), Token::WebPush(_)), "{endpoint}");
        }
    }

    #[test]
    fn a_device_sends_us_to_no_host_of_its_own_choice() {
        for endpoint in [
            "https://127.0.0.1/admin",
            "https://evil-push.example.org/",
            "https://push.example.org.evil.net/",
            "https://evil.net@push.example.org/",
            "http://push.example.org/",
            "https://push.example.org:99/",
            "https://push.example.org:8443/",
            "https://dev.example.org/",
            "/push",
            "",
        ] {
            assert_eq!(read(&token(endpoint, &[9; 16])), Token::Refused, "{endpoint}");
        }
    }

    #[test]
    fn malformed_keys_are_refused_and_other_tokens_are_the_webhooks() {
        assert_eq!(read(&token("https://push.example.org/", &[9; 15])), Token::Refused);
        assert_eq!(read("{\"endpoint\": 5}"), Token::Refused);
        assert_eq!(read(""), Token::None);
        for text in ["apns:0011aabb", "{\"fcm\":\"token\"}", "https://not.a/subscription"] {
            assert_eq!(read(text), Token::Webhook(text.to_owned()));
        }
    }
}
