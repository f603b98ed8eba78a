//! New key pairs in the HSM.

use std::sync::Arc;

use const_oid::db;
use cryptoki::{mechanism::Mechanism, object::Attribute, types::Ulong};
use der::Encode;

use super::{error::Error, key::Key, token::Token, uri::KeyQuery};
use crate::signer::KeyKind;

/// Makes a key pair that stays on the token, can sign and nothing else, and can never leave the HSM (invariant 7). Both halves carry
/// `label` and one random CKA_ID of 16 octets.
///
/// # Errors
/// If the label is taken, the kind is none that a CA key may have, or the HSM refuses.
pub(crate) fn generate(token: &Arc<Token>, label: &str, kind: KeyKind) -> Result<Key, Error> {
    let refuse = |reason: String| Error::KeyUnsupported { label: label.to_owned(), reason };
    let (mechanism, parameters) = match kind {
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            let curve = match kind {
                KeyKind::P256 => db::rfc5912::SECP_256_R_1,
                KeyKind::P384 => db::rfc5912::SECP_384_R_1,
                _ => db::rfc5912::SECP_521_R_1,
            };
            let curve = curve.to_der().map_err(|error| refuse(error.to_string()))?;
            (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(curve)])
        }
        KeyKind::Rsa { bits: bits @ (2048 | 3072 | 4096) } => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![Attribute::ModulusBits(Ulong::from(u64::from(bits))), Attribute::PublicExponent(vec![1, 0, 1])],
        ),
        other => {
            return Err(refuse(format!(
                "a CA key cannot be {other}; use P-256, P-384, P-521 or RSA-2048, RSA-3072, RSA-4096"
            )));
        }
    };
    if token.has_object(label)? {
        return Err(Error::LabelTaken { label: label.to_owned(), token: token.identity().label.clone() });
    }
    let id = rand::random::<[u8; 16]>().to_vec();
    let name = [Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(id.clone()), Attribute::Token(true)];
    let public = [
        &name[..],
        &parameters,
        &[
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::VerifyRecover(false),
            Attribute::Wrap(false),
        ],
    ]
    .concat();
    let private = [
        &name[..],
        &[
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::SignRecover(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ],
    ]
    .concat();
    // The session ends before the key is opened, so that the key is seen as any other process would see it.
    token
        .read_write_session()?
        .call("generating a key pair", |session| session.generate_key_pair(&mechanism, &public, &private))?;
    Key::open(token, &KeyQuery { label: Some(label.to_owned()), id: Some(id), algorithm: None })
}
