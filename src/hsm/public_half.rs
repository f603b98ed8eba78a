//! The public half of a private key whose own attributes do not hold it.
//!
//! CKA_ID ties a pair together, but nothing makes ids unique: tools number keys from 01 on for each batch. So whatever
//! has the private key's id or label is a candidate, certificates too, and where there are several, the one that
//! verifies a signature by the private key is its half.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use der::{Decode, Reader, SliceReader, Tagged, asn1::AnyRef};

use super::{
    attributes::Attributes,
    error::Error,
    session::TokenSession,
    signing_input::{SigningInput, certificate_signature},
    token_info::TokenIdentity,
};
use crate::signer::{PublicKey, SignatureAlgorithm};

/// What is signed to find out which public key belongs to the private key.
const MESSAGE: &[u8] = b"birthmark: whose public key is this?";

/// Finds it among the token's public keys and certificates. `chosen` is how the key signs, if that is not the usual
/// way.
///
/// # Errors
/// If there is none, or whatever the HSM says.
pub(super) fn find(
    session: &TokenSession,
    private: ObjectHandle,
    attributes: &Attributes,
    token: &TokenIdentity,
    chosen: Option<SignatureAlgorithm>,
) -> Result<PublicKey, Error> {
    let label = attributes.label();
    let mut candidates: Vec<PublicKey> = Vec::new();
    let mut unusable = None;
    for (class, name) in names(attributes) {
        let template = [Attribute::Class(class), name];
        let found = session.call("finding the public key", |session| session.find_objects(&template))?;
        for handle in found {
            match read(session, handle, class, &label) {
                Ok(Some(public)) if fits(attributes, &public) && !candidates.contains(&public) => {
                    candidates.push(public);
                }
                Ok(_) => {}
                // Another key's kind is of no interest, unless it is all that there is.
                Err(error @ Error::KeyUnsupported { .. }) => unusable = unusable.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
    }
    let seen = candidates.len();
    match (candidates.pop(), seen) {
        (None, _) => Err(unusable.unwrap_or(Error::PublicKeyMissing { label, token: token.label.clone(), seen })),
        // It is tested before it is used.
        (Some(only), 1) => Ok(only),
        (Some(last), _) => {
            candidates.push(last);
            for candidate in candidates {
                if verifies(session, private, &candidate, chosen)? {
                    return Ok(candidate);
                }
            }
            Err(Error::PublicKeyMissing { label, token: token.label.clone(), seen })
        }
    }
}

/// By what the public half may be found, the likeliest first.
fn names(private: &Attributes) -> Vec<(ObjectClass, Attribute)> {
    let (id, label) = (private.octets(AttributeType::Id), private.octets(AttributeType::Label));
    let id = id.map(|id| Attribute::Id(id.to_vec()));
    let label = label.map(|label| Attribute::Label(label.to_vec()));
    let classes = [ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE];
    let of_class = |class| [&id, &label].into_iter().flatten().map(move |name| (class, name.clone()));
    classes.into_iter().flat_map(of_class).collect()
}

/// The public key in an object.
fn read(
    session: &TokenSession,
    handle: ObjectHandle,
    class: ObjectClass,
    label: &str,
) -> Result<Option<PublicKey>, Error> {
    if class == ObjectClass::CERTIFICATE {
        let certificate = Attributes::of(session, handle, &[AttributeType::Value])?;
        return Ok(certificate.octets(AttributeType::Value).and_then(of_certificate));
    }
    let wanted = [
        AttributeType::KeyType,
        AttributeType::PublicKeyInfo,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::EcParams,
        AttributeType::EcPoint,
    ];
    Attributes::of(session, handle, &wanted)?.public_key(label)
}

/// The public key in a DER certificate (RFC 5280 section 4.1), whatever else is wrong with it; what is none is passed
/// over.
fn of_certificate(der: &[u8]) -> Option<PublicKey> {
    let certificate = AnyRef::from_der(der).ok()?;
    let tbs = AnyRef::decode(&mut SliceReader::new(certificate.value()).ok()?).ok()?;
    let mut fields = SliceReader::new(tbs.value()).ok()?;
    // A version, if there is one, then serial number, signature, issuer, validity, subject.
    let first = AnyRef::decode(&mut fields).ok()?;
    let before = if first.tag().is_context_specific() { 5 } else { 4 };
    for _ in 0..before {
        AnyRef::decode(&mut fields).ok()?;
    }
    PublicKey::from_spki(fields.tlv_bytes().ok()?).ok()
}

/// Whether what the private key shows of itself speaks against this public key.
fn fits(private: &Attributes, public: &PublicKey) -> bool {
    let holds = |wanted, within: &[u8]| {
        let shown: Option<&[u8]> = private.octets(wanted);
        shown.is_none_or(|shown| within.windows(shown.len().max(1)).any(|part| part == shown))
    };
    // The curve's OID stands in the SubjectPublicKeyInfo as it does in CKA_EC_PARAMS, the modulus as in CKA_MODULUS.
    holds(AttributeType::EcParams, &public.spki) && holds(AttributeType::Modulus, &public.spki)
}

/// Whether a signature by the private key is this public key's.
fn verifies(
    session: &TokenSession,
    private: ObjectHandle,
    public: &PublicKey,
    chosen: Option<SignatureAlgorithm>,
) -> Result<bool, Error> {
    let chosen = chosen.filter(|algorithm| algorithm.check_key(public.kind).is_ok());
    let Some(algorithm) = chosen.or_else(|| SignatureAlgorithm::for_key(public.kind).ok()) else { return Ok(false) };
    let signature = SigningInput::new(algorithm, MESSAGE).sign(session, private)?;
    Ok(certificate_signature(algorithm, signature)
        .is_some_and(|signature| public.verifies(algorithm, MESSAGE, &signature)))
}
