//! From the configuration to channels that send.

use std::{path::PathBuf, sync::Arc};

use hyper::Uri;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use super::{
    queue::Queue,
    request::{Patience, Requests, tls},
    signature::{Secrets, SecretsError},
    turns::Turns,
    vapid::{Vapid, VapidKeyError},
    web_push::{Knock, WebPush},
    webhook::{WakeUp, Webhook},
};
use crate::{
    config::PushConfig,
    limits::{
        KNOCKS_ATTEMPTED_MAX, KNOCKS_ATTEMPTED_OF_ORIGIN_MAX, KNOCKS_UNDER_WAY_MAX,
        REQUESTS_UNDER_WAY_MAX, WEBHOOK_WAKE_UPS_MAX,
    },
    meters::{ChannelMeters, NotifierMeters},
};

/// Why wake-ups cannot be sent. Each names what to mend.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A file cannot be read.
    #[error("`{key}`: cannot read {path}: {source}")]
    Read {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file of secrets is none.
    #[error("`push.webhook_secret_file`: {path} {source}")]
    Secrets {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SecretsError,
    },
    /// The VAPID key is none.
    #[error("`push.vapid_key_file`: {path} {source}")]
    VapidKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: VapidKeyError,
    },
    /// The webhook is no address.
    #[error("`push.webhook` is no URL: {0}")]
    Webhook(#[from] hyper::http::uri::InvalidUri),
    /// The certificates to trust are none.
    #[error("`push.ca_file`: {path} holds no certificates in PEM: {source}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS towards the webhook and push services cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Ways to wake a device up.
pub(super) struct Channels {
    webhook: Option<Webhook>,
    web_push: Option<WebPush>,
}

impl Channels {
    pub(super) fn open(
        config: &PushConfig,
        finishing: &CancellationToken,
        meters: &NotifierMeters,
    ) -> Result<Self, PushError> {
        if config.webhook.is_none() && config.vapid_key_file.is_none() {
            return Ok(Self { webhook: None, web_push: None });
        }
        let tls = tls(certificates(config)?)?;
        let patience = Patience {
            attempts_max: config.attempts_max,
            timeout: std::time::Duration::from_millis(config.timeout_ms),
            backoff: std::time::Duration::from_millis(config.backoff_ms),
            backoff_max: std::time::Duration::from_millis(config.backoff_max_ms),
        };
        let requests = |channel: &ChannelMeters, turns| {
            Requests::new(tls.clone(), patience, turns, finishing.clone(), channel.retries.clone())
        };
        let webhook = match (&config.webhook, &config.webhook_secret_file) {
            (Some(url), Some(path)) => {
                let text = read("push.webhook_secret_file", path)?;
                let secrets = Secrets::parse(&String::from_utf8_lossy(&text))
                    .map_err(|source| PushError::Secrets { path: path.clone(), source })?;
                let requests = requests(&meters.webhook, None);
                Some(Webhook { uri: url.parse::<Uri>()?, secrets, requests })
            }
            // One without the other was reported when the configuration was checked.
            (Some(_), None) | (None, _) => None,
        };
        let web_push = match &config.vapid_key_file {
            Some(path) => {
                let pem = read("push.vapid_key_file", path)?;
                let vapid = Vapid::from_pem(&pem, &config.vapid_subject)
                    .map_err(|source| PushError::VapidKey { path: path.clone(), source })?;
                info!(application_server_key = vapid.public_key(), "Web Push is on");
                let turns = Turns::new(KNOCKS_ATTEMPTED_MAX, KNOCKS_ATTEMPTED_OF_ORIGIN_MAX);
                Some(WebPush { vapid, requests: requests(&meters.web_push, Some(turns)) })
            }
            None => None,
        };
        Ok(Self { webhook, web_push })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.webhook.is_none() && self.web_push.is_none()
    }

    /// A queue for each; their tasks end when the queues are dropped.
    pub(super) fn start(
        self,
        tasks: &TaskTracker,
        meters: &NotifierMeters,
    ) -> (Option<Queue<WakeUp>>, Option<Queue<Knock>>) {
        let webhook = self.webhook.map(|webhook| {
            let (webhook, meters) = (Arc::new(webhook), meters.webhook.clone());
            Queue::start(
                tasks,
                REQUESTS_UNDER_WAY_MAX,
                WEBHOOK_WAKE_UPS_MAX,
                move |wake_ups: Vec<WakeUp>| {
                    let (webhook, meters) = (webhook.clone(), meters.clone());
                    async move { meters.count(webhook.send(&wake_ups).await, wake_ups.len()) }
                },
            )
        });
        let web_push = self.web_push.map(|web_push| {
            let (web_push, meters) = (Arc::new(web_push), meters.web_push.clone());
            Queue::start(tasks, KNOCKS_UNDER_WAY_MAX, 1, move |knocks: Vec<Knock>| {
                let (web_push, meters) = (web_push.clone(), meters.clone());
                async move {
                    for knock in &knocks {
                        meters.count(web_push.send(knock).await, 1);
                    }
                }
            })
        });
        (webhook, web_push)
    }
}

fn read(key: &'static str, path: &PathBuf) -> Result<Vec<u8>, PushError> {
    std::fs::read(path).map_err(|source| PushError::Read { key, path: path.clone(), source })
}

fn certificates(config: &PushConfig) -> Result<Vec<CertificateDer<'static>>, PushError> {
    let Some(path) = &config.ca_file else { return Ok(Vec::new()) };
    let pem = read("push.ca_file", path)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| PushError::Certificates { path: path.clone(), source })
}
