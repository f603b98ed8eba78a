//! JSON Web Signatures (RFC 7515, compact serialisation) of manifests by the audit key: ES256, ES384 or RS256 (RFC 7518
//! section 3), the key named by its RFC 7638 thumbprint. The payload is the manifest's octets.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use der::Decode;
use serde::{Deserialize, Serialize};

use crate::{
    hash::sha256,
    quote::shortened,
    signer::{KeyKind, PublicKey, RsaPublicKey, SignatureAlgorithm, ecdsa},
};

/// What kind of statement is signed (RFC 7515 section 4.1.9).
const TYPE: &str = "birthmark-manifest+json";

/// The protected header; a header with more, such as `crit`, is none of ours.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// Why there is no signature, or not one by a trusted key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// No algorithm of JWS fits the key here.
    #[error("a {0} key cannot sign a manifest; use P-256, P-384 or RSA")]
    Key(KeyKind),
    /// What the HSM returned is no signature of the key.
    #[error("the signature is not one that a {0} key makes")]
    Signature(KeyKind),
    /// It has another form.
    #[error("it is no JWS of a manifest: {0}")]
    Malformed(&'static str),
    /// It names a key that is none of the trusted ones.
    #[error("it is signed by a key that is not trusted (kid {0})")]
    UnknownKey(String),
    /// The signature is not one by the key that it names.
    #[error("its signature is wrong")]
    Wrong,
}

/// The name of the algorithm with which the key signs, and the octets of one number of an ECDSA signature.
fn algorithm(key: &PublicKey) -> Result<(&'static str, Option<usize>), JwsError> {
    match key.kind {
        KeyKind::P256 => Ok(("ES256", Some(32))),
        KeyKind::P384 => Ok(("ES384", Some(48))),
        KeyKind::Rsa { bits: 2048.. } => Ok(("RS256", None)),
        kind => Err(JwsError::Key(kind)),
    }
}

/// The SHA-256 thumbprint of a key (RFC 7638 section 3), in base64url.
///
/// # Errors
/// If the key can sign no manifest.
pub fn thumbprint(key: &PublicKey) -> Result<String, JwsError> {
    let (_, width) = algorithm(key)?;
    let encode = |octets: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(octets);
    // The members in the order of their names, without white space.
    let text = match width {
        Some(width) => {
            let curve = if width == 32 { "P-256" } else { "P-384" };
            let point = key.bits.get(1..).and_then(|point| point.split_at_checked(width));
            let (x, y) = point.filter(|(_, y)| y.len() == width).ok_or(JwsError::Key(key.kind))?;
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
        }
        None => {
            let rsa = RsaPublicKey::from_der(&key.bits).map_err(|_| JwsError::Key(key.kind))?;
            let (n, e) = (encode(rsa.modulus.as_bytes()), encode(rsa.public_exponent.as_bytes()));
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
        }
    };
    Ok(encode(&sha256(text.as_bytes())))
}

/// What the key is to sign: header and payload (RFC 7515 section 5.1).
///
/// # Errors
/// If the key can sign no manifest.
pub fn signing_input(key: &PublicKey, payload: &[u8]) -> Result<String, JwsError> {
    let header = Header { alg: algorithm(key)?.0.to_owned(), kid: thumbprint(key)?, typ: TYPE.to_owned() };
    // Strings always have a JSON form.
    let header = serde_json::to_string(&header).unwrap_or_default();
    let mut input = BASE64_URL_SAFE_NO_PAD.encode(header);
    input.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut input);
    Ok(input)
}

/// Joins what was signed and its signature, which is as a certificate's signatureValue carries it.
///
/// # Errors
/// If it is not of the form that the key's signatures have.
pub fn compact(key: &PublicKey, mut signing_input: String, signature: &[u8]) -> Result<String, JwsError> {
    signing_input.push('.');
    match algorithm(key)?.1 {
        Some(width) => {
            let fixed = ecdsa::to_fixed_width(signature, width).ok_or(JwsError::Signature(key.kind))?;
            BASE64_URL_SAFE_NO_PAD.encode_string(fixed, &mut signing_input);
        }
        None => BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut signing_input),
    }
    Ok(signing_input)
}

/// Verifies a signature by one of the keys, and gives the payload.
///
/// # Errors
/// If it is not a signature by any of them.
pub fn verify(jws: &[u8], keys: &[PublicKey]) -> Result<Vec<u8>, JwsError> {
    let text = std::str::from_utf8(jws).map_err(|_| JwsError::Malformed("it is not text"))?;
    let (input, signature) = text.rsplit_once('.').ok_or(JwsError::Malformed("it has no dots"))?;
    let (header, payload) = input.split_once('.').ok_or(JwsError::Malformed("it has one dot"))?;
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed("its base64url"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Malformed("its protected header"))?;
    if header.typ != TYPE {
        return Err(JwsError::Malformed("it is a signature of something else"));
    }
    let named = keys.iter().find(|key| thumbprint(key).is_ok_and(|kid| kid == header.kid));
    let Some(key) = named else { return Err(JwsError::UnknownKey(shortened(&header.kid))) };
    // The key decides, not the header.
    let (name, width) = algorithm(key)?;
    if header.alg != name {
        return Err(JwsError::Malformed("its algorithm is not that of the key"));
    }
    let mut signature = decode(signature)?;
    if let Some(width) = width {
        signature = ecdsa::from_fixed_width(&signature, width).ok_or(JwsError::Wrong)?;
    }
    let usual = SignatureAlgorithm::for_key(key.kind).map_err(|_| JwsError::Key(key.kind))?;
    if !key.verifies(usual, input.as_bytes(), &signature) {
        return Err(JwsError::Wrong);
    }
    decode(payload)
}

#[cfg(test)]
mod tests;
