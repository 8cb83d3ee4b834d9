//! Who we are to a push service: RFC 8292, a short-lived token signed with ES256.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

/// How long a token is good for. The RFC allows a day.
const TOKEN_S: u64 = 12 * 3600;

/// The key that subscriptions are made for (`applicationServerKey`), and whom to write to.
pub(crate) struct Vapid {
    key: EcdsaKeyPair,
    public_key: String,
    subject: String,
}

/// Why a key is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VapidKeyError {
    /// There is no `PRIVATE KEY` block.
    #[error("holds no PEM block `PRIVATE KEY` (PKCS#8); openssl pkcs8 -topk8 -nocrypt writes one")]
    NoPkcs8,
    /// It is of another kind or curve.
    #[error("is no key of the curve P-256 (prime256v1)")]
    NotP256,
}

impl Vapid {
    /// `pem` is a private key in PKCS#8, `subject` a `mailto:` or `https:` address of the operator.
    pub(crate) fn from_pem(pem: &[u8], subject: &str) -> Result<Self, VapidKeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| VapidKeyError::NoPkcs8)?;
        let der = der.secret_pkcs8_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| VapidKeyError::NotP256)?;
        let public_key = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        Ok(Self { key, public_key, subject: subject.to_owned() })
    }

    /// What the web client gives to `subscribe` as `applicationServerKey`.
    pub(crate) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The value of `Authorization` for a push service, `None` if nothing can be signed.
    pub(crate) fn authorization(&self, origin: &str, now_s: u64) -> Option<String> {
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(&serde_json::json!({ "typ": "JWT", "alg": "ES256" }));
        let claims = encode(&serde_json::json!({
            "aud": origin, "exp": now_s + TOKEN_S, "sub": self.subject,
        }));
        let signed = format!("{header}.{claims}");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Some(format!("vapid t={signed}.{signature}, k={}", self.public_key))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_push_service_can_verify_who_we_are() {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let vapid =
            Vapid::from_pem(pem.serialize_pem().as_bytes(), "mailto:ops@example.org").unwrap();
        let value = vapid.authorization("https://push.example.org", 1_000).unwrap();
        let (token, key) = value.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(key, vapid.public_key());
        let key = URL_SAFE_NO_PAD.decode(key).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["aud"], "https://push.example.org");
        assert_eq!(claims["exp"], 1_000 + TOKEN_S);
        assert_eq!(claims["sub"], "mailto:ops@example.org");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let refused = |pem: &str| Vapid::from_pem(pem.as_bytes(), "mailto:o@example.org").err();
        assert_eq!(refused(&other.serialize_pem()), Some(VapidKeyError::NotP256));
        assert_eq!(refused("nothing"), Some(VapidKeyError::NoPkcs8));
    }
}
