//! Web Push against a push service that speaks HTTPS, with the reader's own decryption.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use axum::{Router, body::Bytes as Body, http::StatusCode, routing::post};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{encryption::tests::decrypt, opening::Channels, subscription::Token, web_push::Knock};
use crate::{config::PushConfig, meters::NotifierMeters};

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A push service at `localhost`: its port, its certificate, and what comes in.
async fn push_service() -> (u16, String, mpsc::UnboundedReceiver<(hyper::HeaderMap, Body)>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certificates: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, got) = mpsc::unbounded_channel();
    let taken = sender.clone();
    let router = Router::new()
        .route(
            "/push/known",
            post(async move |headers: hyper::HeaderMap, body: Body| {
                taken.send((headers, body)).unwrap();
                StatusCode::CREATED
            }),
        )
        .route(
            "/push/gone",
            post(async move |headers: hyper::HeaderMap, body: Body| {
                sender.send((headers, body)).unwrap();
                StatusCode::GONE
            }),
        );
    let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tokio::spawn(async move { axum::serve(tls, router).await.unwrap() });
    (port, made.cert.pem(), got)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_browser_reads_what_its_push_service_cannot() {
    let (port, certificate, mut got) = push_service().await;
    let authority = file(&certificate);
    let vapid = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let vapid = file(&vapid.serialize_pem());
    let config = PushConfig {
        vapid_key_file: Some(vapid.path().to_owned()),
        vapid_subject: "mailto:ops@example.org".to_owned(),
        web_push_hosts: vec![format!("localhost:{port}")],
        ca_file: Some(authority.path().to_owned()),
        ..PushConfig::default()
    };
    let (tasks, meters) = (TaskTracker::new(), NotifierMeters::new());
    let channels = Channels::open(&config, &CancellationToken::new(), &meters).unwrap();
    let (webhook, web_push) = channels.start(&tasks, &meters);
    assert!(webhook.is_none());
    let web_push = web_push.unwrap();

    let browser = PrivateKey::generate(&ECDH_P256).unwrap();
    let public = browser.compute_public_key().unwrap();
    for path in ["known", "gone"] {
        let token = serde_json::json!({
            "endpoint": format!("https://localhost:{port}/push/{path}"),
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode(public.as_ref()),
                "auth": URL_SAFE_NO_PAD.encode([7; 16]),
            },
        });
        let Token::WebPush(subscription) = Token::read(token.to_string(), &config.web_push_hosts)
        else {
            panic!("{token}");
        };
        assert!(web_push.push(Knock { subscription, messages: 3 }));
        let next = tokio::time::timeout(Duration::from_secs(60), got.recv());
        let (headers, body) = next.await.unwrap().unwrap();
        assert_eq!(headers["content-encoding"], "aes128gcm");
        assert_eq!(headers["topic"], "wake-up");
        assert!(headers["ttl"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        assert!(headers["authorization"].to_str().unwrap().starts_with("vapid t="));
        assert_eq!(decrypt(&browser, [7; 16], &body), br#"{"messages":3}"#);
    }
    drop(web_push);
    tasks.close();
    tasks.wait().await;
    assert!(got.try_recv().is_err(), "one request each: gone is final");
}
