//! The attributes of a PKCS#11 object.

use const_oid::ObjectIdentifier;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use der::{Decode, asn1::OctetStringRef};

use super::{error::Error, session::TokenSession};
use crate::signer::{PublicKey, ec_spki, rsa_spki};

/// The attributes of an object that it has and shows.
pub(super) struct Attributes(Vec<Attribute>);

impl Attributes {
    pub(super) fn of(session: &TokenSession, handle: ObjectHandle, wanted: &[AttributeType]) -> Result<Self, Error> {
        session.call("reading a key's attributes", |session| session.get_attributes(handle, wanted)).map(Attributes)
    }

    pub(super) fn flag(&self, wanted: AttributeType) -> Option<bool> {
        self.0.iter().find(|attribute| attribute.attribute_type() == wanted).and_then(|attribute| match attribute {
            Attribute::Sensitive(value)
            | Attribute::Extractable(value)
            | Attribute::NeverExtractable(value)
            | Attribute::AlwaysSensitive(value)
            | Attribute::Local(value)
            | Attribute::AlwaysAuthenticate(value)
            | Attribute::Sign(value) => Some(*value),
            _ => None,
        })
    }

    /// The octets of an attribute that is there and not empty.
    pub(super) fn octets(&self, wanted: AttributeType) -> Option<&[u8]> {
        self.0.iter().find(|attribute| attribute.attribute_type() == wanted).and_then(|attribute| match attribute {
            Attribute::Label(value)
            | Attribute::Id(value)
            | Attribute::PublicKeyInfo(value)
            | Attribute::Modulus(value)
            | Attribute::PublicExponent(value)
            | Attribute::EcParams(value)
            | Attribute::EcPoint(value)
            | Attribute::Value(value)
                if !value.is_empty() =>
            {
                Some(value.as_slice())
            }
            _ => None,
        })
    }

    pub(super) fn label(&self) -> String {
        String::from_utf8_lossy(self.octets(AttributeType::Label).unwrap_or_default()).into_owned()
    }

    pub(super) fn id(&self) -> Vec<u8> {
        self.octets(AttributeType::Id).unwrap_or_default().to_vec()
    }

    /// What the key was made with, by its name in the standard.
    pub(super) fn key_gen_mechanism(&self) -> Option<String> {
        self.0.iter().find_map(|attribute| match attribute {
            Attribute::KeyGenMechanism(mechanism) => Some(mechanism.to_string()),
            _ => None,
        })
    }

    pub(super) fn key_type(&self) -> Option<KeyType> {
        self.0.iter().find_map(|attribute| match attribute {
            Attribute::KeyType(key_type) => Some(*key_type),
            _ => None,
        })
    }

    /// The public key, if these attributes hold all of it.
    pub(super) fn public_key(&self, label: &str) -> Result<Option<PublicKey>, Error> {
        let unsupported = |reason: String| Error::KeyUnsupported { label: label.to_owned(), reason };
        let malformed = |error: der::Error| unsupported(format!("its public key is not valid DER: {error}"));
        let key_type = self.key_type();
        let parts =
            [AttributeType::Modulus, AttributeType::PublicExponent, AttributeType::EcParams, AttributeType::EcPoint]
                .map(|attribute| self.octets(attribute));
        let spki = match (self.octets(AttributeType::PublicKeyInfo), parts) {
            (Some(spki), _) => spki.to_vec(),
            (None, [Some(modulus), Some(exponent), _, _]) if key_type == Some(KeyType::RSA) => {
                rsa_spki(modulus, exponent).map_err(malformed)?
            }
            (None, [_, _, Some(curve), Some(point)]) if key_type == Some(KeyType::EC) => {
                let curve = ObjectIdentifier::from_der(curve)
                    .map_err(|_| unsupported("its curve is not named by an OID; use P-256, P-384 or P-521".into()))?;
                ec_spki(curve, ec_point(point).map_err(malformed)?).map_err(malformed)?
            }
            _ => return Ok(None),
        };
        PublicKey::from_spki(&spki).map(Some).map_err(|error| unsupported(error.to_string()))
    }
}

/// The uncompressed point in CKA_EC_POINT: the standard wraps it in an OCTET STRING, some modules do not.
fn ec_point(attribute: &[u8]) -> der::Result<&[u8]> {
    let raw = attribute.first() == Some(&4) && matches!(attribute.len(), 65 | 97 | 133);
    if raw { Ok(attribute) } else { <&OctetStringRef>::from_der(attribute).map(OctetStringRef::as_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EC point is read with and without its octet string.
    #[test]
    fn ec_point_with_and_without_octet_string_is_read() {
        let point: Vec<u8> = std::iter::once(4).chain([7; 64]).collect();
        let wrapped = [&[4, 65][..], &point].concat();
        assert_eq!(ec_point(&point).unwrap(), point);
        assert_eq!(ec_point(&wrapped).unwrap(), point);
        assert!(ec_point(&wrapped[..60]).is_err());
    }
}
