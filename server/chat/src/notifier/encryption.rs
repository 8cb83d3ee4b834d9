//! The body of a Web Push message: RFC 8291 (keys) over RFC 8188 (`aes128gcm`), one record.
//!
//! ```text
//! salt 16 │ record size 4 │ 65 │ our public key 65 │ ciphertext of (plaintext, 0x02) │ tag 16
//! ```
//! The push service carries it and cannot read it: only the browser that made the subscription has
//! the private key and the secret. Each message has a key pair and a salt of its own.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

/// A point of P-256, not compressed.
pub(crate) const PUBLIC_KEY_BYTES: usize = 65;
/// The subscription's `auth`.
pub(crate) const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// One record holds all: the plaintext, the delimiter and the tag are far shorter.
const RECORD_BYTES: u32 = 4_096;
/// Marks the last record.
const LAST_RECORD: u8 = 2;
/// The longest plaintext of one record.
pub(crate) const PLAINTEXT_BYTES_MAX: usize = 3_800;

/// The keys of whoever may read a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reader {
    /// `p256dh` of the subscription.
    pub(crate) public_key: [u8; PUBLIC_KEY_BYTES],
    /// `auth` of the subscription.
    pub(crate) auth: [u8; AUTH_BYTES],
}

/// The reader's key is no point of the curve, or the plaintext is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the subscription do not fit")]
pub(crate) struct NotEncrypted;

impl From<Unspecified> for NotEncrypted {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Encrypts for `reader` with fresh keys.
pub(crate) fn encrypt(reader: &Reader, plaintext: &[u8]) -> Result<Vec<u8>, NotEncrypted> {
    let ours = PrivateKey::generate(&ECDH_P256)?;
    encrypt_with(reader, plaintext, &ours, rand::random())
}

fn encrypt_with(
    reader: &Reader,
    plaintext: &[u8],
    ours: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, NotEncrypted> {
    if plaintext.len() > PLAINTEXT_BYTES_MAX {
        return Err(NotEncrypted);
    }
    let our_public = ours.compute_public_key()?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &reader.public_key);
    let prk = agreement::agree(ours, theirs, NotEncrypted, |secret| {
        Ok(Salt::new(HKDF_SHA256, &reader.auth).extract(secret))
    })?;
    let info = [&b"WebPush: info\0"[..], &reader.public_key, our_public.as_ref()];
    let material: [u8; 32] = expand(&prk, &info)?;
    let prk = Salt::new(HKDF_SHA256, &salt).extract(&material);
    let key: [u8; KEY_BYTES] = expand(&prk, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce: [u8; NONCE_BYTES] = expand(&prk, &[b"Content-Encoding: nonce\0"])?;

    let mut record = plaintext.to_vec();
    record.push(LAST_RECORD);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record)?;

    let mut message = salt.to_vec();
    message.extend(RECORD_BYTES.to_be_bytes());
    message.push(PUBLIC_KEY_BYTES as u8);
    message.extend(our_public.as_ref());
    message.extend(record);
    Ok(message)
}

/// The length of what is derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    let mut out = [0; N];
    prk.expand(info, Length(N))?.fill(&mut out)?;
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn decode<const N: usize>(text: &str) -> [u8; N] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    /// What a browser does; the counterpart of [`encrypt`].
    pub(crate) fn decrypt(private: &PrivateKey, auth: [u8; AUTH_BYTES], message: &[u8]) -> Vec<u8> {
        let (salt, rest) = message.split_at(SALT_BYTES);
        let (record_bytes, rest) = rest.split_at(4);
        assert_eq!(record_bytes, RECORD_BYTES.to_be_bytes());
        assert_eq!(usize::from(rest[0]), PUBLIC_KEY_BYTES);
        let (sender, record) = rest[1..].split_at(PUBLIC_KEY_BYTES);
        let theirs = UnparsedPublicKey::new(&ECDH_P256, sender);
        let prk = agreement::agree(private, theirs, NotEncrypted, |secret| {
            Ok(Salt::new(HKDF_SHA256, &auth).extract(secret))
        })
        .unwrap();
        let own = private.compute_public_key().unwrap();
        let material: [u8; 32] =
            expand(&prk, &[&b"WebPush: info\0"[..], own.as_ref(), sender]).unwrap();
        let prk = Salt::new(HKDF_SHA256, salt).extract(&material);
        let key: [u8; KEY_BYTES] = expand(&prk, &[b"Content-Encoding: aes128gcm\0"]).unwrap();
        let nonce = expand(&prk, &[b"Content-Encoding: nonce\0"]).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let (nonce, mut record) = (Nonce::assume_unique_for_key(nonce), record.to_vec());
        let plain = key.open_in_place(nonce, Aad::empty(), &mut record).unwrap();
        let (last, plain) = plain.split_last().unwrap();
        assert_eq!(*last, LAST_RECORD);
        plain.to_vec()
    }

    #[test]
    fn the_example_of_rfc_8291_comes_out_byte_for_byte() {
        let reader = Reader {
            public_key: decode(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNto\
                 IAiw4",
            ),
            auth: decode("BTBZMqHH6r4Tts7J_aSIgg"),
        };
        let ours: [u8; 32] = decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let ours = PrivateKey::from_private_key(&ECDH_P256, &ours).unwrap();
        let salt = decode("DGv6ra1nlYgDCS1FRnbzlw");
        let text = b"When I grow up, I want to be a watermelon";
        let message = encrypt_with(&reader, text, &ours, salt).unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(message),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocIn\
             mYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNW\
             QexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn only_the_reader_can_read_and_no_two_messages_are_alike() {
        let private = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key = private.compute_public_key().unwrap().as_ref().try_into().unwrap();
        let reader = Reader { public_key, auth: [7; AUTH_BYTES] };
        let (one, two) = (encrypt(&reader, b"wake").unwrap(), encrypt(&reader, b"wake").unwrap());
        assert_ne!(one, two);
        assert_eq!(decrypt(&private, reader.auth, &one), b"wake");
        assert_eq!(decrypt(&private, reader.auth, &two), b"wake");
    }

    #[test]
    fn a_key_off_the_curve_and_a_plaintext_too_long_are_refused() {
        let off = Reader { public_key: [4; PUBLIC_KEY_BYTES], auth: [7; AUTH_BYTES] };
        assert_eq!(encrypt(&off, b"wake"), Err(NotEncrypted));
        let private = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key = private.compute_public_key().unwrap().as_ref().try_into().unwrap();
        let reader = Reader { public_key, auth: [7; AUTH_BYTES] };
        assert!(encrypt(&reader, &[0; PLAINTEXT_BYTES_MAX + 1]).is_err());
        assert!(encrypt(&reader, &[0; PLAINTEXT_BYTES_MAX]).is_ok());
    }
}
