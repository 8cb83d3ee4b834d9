//! The section `[push]`: how devices that are not connected are woken up.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use hyper::Uri;
use serde::{Deserialize, Serialize};
use switchboard_process::config::Faults;

use super::list;
use crate::limits;

/// How devices are woken up. Off until there is a webhook or a VAPID key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// Where wake-ups are posted, an URL; plain `http` on this machine only, unless `insecure`.
    pub webhook: Option<String>,
    /// A file with the secret that signs webhook requests, at least 32 bytes; a second line is a
    /// second secret, for a change without a gap.
    pub webhook_secret_file: Option<PathBuf>,
    /// A P-256 private key (PEM, PKCS#8) that stands for this server at push services; turns Web
    /// Push on.
    pub vapid_key_file: Option<PathBuf>,
    /// Whom a push service may write to: `mailto:` or `https:`.
    pub vapid_subject: String,
    /// Push services that a subscription may name, subdomains included; at port 443, or `host:port`.
    /// A list, or one text with commas.
    #[serde(deserialize_with = "list")]
    pub web_push_hosts: Vec<String>,
    /// Certificates to trust beside the machine's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// A device is woken up at most once in so long, ms; 100 to a day.
    pub interval_ms: u64,
    /// Devices that wait to be woken up or for the end of their interval, at most; beyond it
    /// wake-ups are dropped and counted.
    pub devices_max: usize,
    /// How often a request is attempted; 1 to 20.
    pub attempts_max: u32,
    /// How long an attempt may take, ms; 10 to 60,000.
    pub timeout_ms: u64,
    /// The first wait before another attempt, ms; it doubles, with jitter.
    pub backoff_ms: u64,
    /// The longest, ms.
    pub backoff_max_ms: u64,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            webhook: None,
            webhook_secret_file: None,
            vapid_key_file: None,
            vapid_subject: String::new(),
            web_push_hosts: limits::WEB_PUSH_HOSTS.map(str::to_owned).to_vec(),
            ca_file: None,
            interval_ms: limits::PUSH_INTERVAL_MS,
            devices_max: limits::PUSH_DEVICES,
            attempts_max: limits::PUSH_ATTEMPTS,
            timeout_ms: limits::PUSH_TIMEOUT_MS,
            backoff_ms: limits::PUSH_BACKOFF_MS,
            backoff_max_ms: limits::PUSH_BACKOFF_MAX_MS,
        }
    }
}

impl PushConfig {
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    pub(super) fn validate(&self, insecure: bool, faults: &mut Faults) {
        if let Some(webhook) = &self.webhook {
            faults.check(
                is_safe(webhook, insecure),
                "push.webhook",
                "must be an https:// URL; http:// is for this machine, or with `insecure = true`",
            );
            faults.check(
                self.webhook_secret_file.is_some(),
                "push.webhook_secret_file",
                "must be set with `push.webhook`: requests are signed",
            );
        }
        if self.vapid_key_file.is_some() {
            let subject = &self.vapid_subject;
            faults.check(
                subject.starts_with("mailto:") || subject.starts_with("https:"),
                "push.vapid_subject",
                "must begin with mailto: or https: when `push.vapid_key_file` is set",
            );
            faults.check(!self.web_push_hosts.is_empty(), "push.web_push_hosts", "names no host");
        }
        for host in &self.web_push_hosts {
            let (name, port) = host.split_once(':').unwrap_or((host, "443"));
            let is_name = !name.is_empty()
                && port.parse::<NonZeroU16>().is_ok()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
            let message =
                format!("has `{host}`, which is no host name in lower case, nor one with a port");
            faults.check(is_name, "push.web_push_hosts", &message);
        }
        faults.check_range("push.interval_ms", self.interval_ms, 100, 86_400_000);
        faults.check_range("push.devices_max", self.devices_max, 1, limits::PUSH_DEVICES_MAX);
        faults.check_range("push.attempts_max", self.attempts_max, 1, 20);
        faults.check_range("push.timeout_ms", self.timeout_ms, 10, 60_000);
        faults.check_range("push.backoff_ms", self.backoff_ms, 1, self.backoff_max_ms);
        faults.check_range("push.backoff_max_ms", self.backoff_max_ms, 1, 3_600_000);
    }
}

fn is_safe(webhook: &str, insecure: bool) -> bool {
    let Ok(uri) = webhook.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => insecure || matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &PushConfig, insecure: bool) -> String {
        let mut faults = Faults::default();
        config.validate(insecure, &mut faults);
        faults.to_string()
    }

    fn to(webhook: &str) -> PushConfig {
        let webhook_secret_file = Some(PathBuf::from("secret"));
        PushConfig { webhook: Some(webhook.into()), webhook_secret_file, ..PushConfig::default() }
    }

    #[test]
    fn tokens_do_not_leave_the_machine_in_plain_text() {
        assert_eq!(faults(&to("https://push.example.org/wake"), false), "");
        assert_eq!(faults(&to("http://127.0.0.1:8080/wake"), false), "");
        assert_eq!(faults(&to("http://push.example.org/wake"), true), "");
        for url in ["http://push.example.org/wake", "push.example.org", "ftp://a/b", ""] {
            assert!(faults(&to(url), false).contains("`push.webhook`"), "{url}");
        }
    }

    #[test]
    fn a_push_service_is_a_host_or_a_host_and_a_port() {
        let named = |host: &str| {
            let web_push_hosts = vec![host.to_owned()];
            faults(&PushConfig { web_push_hosts, ..PushConfig::default() }, false)
        };
        for host in ["push.example.org", "localhost:8443"] {
            assert_eq!(named(host), "", "{host}");
        }
        for host in ["", ":443", "push.example.org:", "push.example.org:0", "Push.example.org"] {
            assert!(named(host).contains("`push.web_push_hosts`"), "{host}");
        }
    }

    #[test]
    fn what_belongs_together_is_asked_for() {
        let config = PushConfig {
            webhook: Some("https://push.example.org/".into()),
            vapid_key_file: Some("key.pem".into()),
            web_push_hosts: vec!["https://push.example.org".into()],
            interval_ms: 1,
            ..PushConfig::default()
        };
        let text = faults(&config, false);
        let keys = ["webhook_secret_file", "vapid_subject", "web_push_hosts", "interval_ms"];
        for key in keys {
            assert!(text.contains(&format!("`push.{key}`")), "{key} in {text}");
        }
    }
}
