//! The ASN.1 of EST: certs-only CMS and the attributes that CSRs are to have, in base64.

use base64::{Engine, prelude::BASE64_STANDARD};
use const_oid::{ObjectIdentifier, db};

use crate::{
    asn1::{INTEGER, SEQUENCE, SET, explicit, object_identifier, primitive, tlv},
    config::KeyType,
};

/// id-signedData and id-data (RFC 5652 sections 5.1 and 4).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");

/// A certs-only CMC Simple PKI Response (RFC 5272 section 4.1): SignedData without content and without signers.
pub(super) fn certs_only<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    tlv(&mut out, SEQUENCE, |out| {
        object_identifier(out, SIGNED_DATA.as_bytes());
        tlv(out, explicit(0), |out| {
            tlv(out, SEQUENCE, |out| {
                primitive(out, INTEGER, &[1]);
                primitive(out, SET, &[]);
                tlv(out, SEQUENCE, |out| object_identifier(out, DATA.as_bytes()));
                // [0] IMPLICIT CertificateSet
                tlv(out, explicit(0), |out| certificates.into_iter().for_each(|der| out.extend_from_slice(der)));
                primitive(out, SET, &[]);
            });
        });
    });
    out
}

/// CsrAttrs (RFC 7030 section 4.5.2) that name the key types: what else a certificate says, the profile decides.
pub(super) fn csr_attributes(keys: &[KeyType]) -> Vec<u8> {
    let mut out = Vec::new();
    tlv(&mut out, SEQUENCE, |out| keys.iter().for_each(|key| key_attribute(out, *key)));
    out
}

fn key_attribute(out: &mut Vec<u8>, key: KeyType) {
    let curve = |out: &mut Vec<u8>, curve: ObjectIdentifier| {
        attribute(out, db::rfc5912::ID_EC_PUBLIC_KEY, |out| object_identifier(out, curve.as_bytes()));
    };
    let bits = |out: &mut Vec<u8>, bits: u16| {
        attribute(out, db::rfc5912::RSA_ENCRYPTION, |out| primitive(out, INTEGER, &bits.to_be_bytes()));
    };
    match key {
        KeyType::P256 => curve(out, db::rfc5912::SECP_256_R_1),
        KeyType::P384 => curve(out, db::rfc5912::SECP_384_R_1),
        KeyType::P521 => curve(out, db::rfc5912::SECP_521_R_1),
        KeyType::Ed25519 => object_identifier(out, db::rfc8410::ID_ED_25519.as_bytes()),
        KeyType::Rsa2048 => bits(out, 2048),
        KeyType::Rsa3072 => bits(out, 3072),
        KeyType::Rsa4096 => bits(out, 4096),
    }
}

/// An Attribute with one value.
fn attribute(out: &mut Vec<u8>, oid: ObjectIdentifier, value: impl FnOnce(&mut Vec<u8>)) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, oid.as_bytes());
        tlv(out, SET, value);
    });
}

/// Base64 as it is sent: without line breaks, which some clients do not read (strongSwan's), and none needs (RFC 8951
/// section 3.1).
pub(super) fn encode(der: &[u8]) -> String {
    BASE64_STANDARD.encode(der)
}

/// What a client sent: base64 with or without line breaks and white space, or PEM, which some clients send.
pub(super) fn decode(body: &[u8]) -> Option<Vec<u8>> {
    if body.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return Some(body.to_vec());
    }
    let compact: Vec<u8> = body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(compact).ok().filter(|der| !der.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_line_breaks_is_read() {
        let der: Vec<u8> = (0..=255).collect();
        let text = encode(&der);
        assert_eq!(text.lines().count(), 1);
        let spaced = text.as_bytes().chunks(10).map(|part| [part, b" \r\n\t"].concat()).collect::<Vec<_>>().concat();
        for text in [text.into_bytes(), spaced] {
            assert_eq!(decode(&text), Some(der.clone()));
        }
        for text in ["", " \r\n", "%%%", "AAA", "MII=AAA"] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn csr_attributes_of_the_rfcs_example_are_its_octets() {
        // SEQUENCE { SEQUENCE { ecPublicKey, SET { secp384r1 } } }, from RFC 7030 section 4.5.2's example.
        let expected = "301430120607 2a8648ce3d0201 3107 0605 2b81040022".replace(' ', "");
        assert_eq!(hex::encode(csr_attributes(&[KeyType::P384])), expected);
        assert_eq!(csr_attributes(&[]), [0x30, 0]);
    }
}
