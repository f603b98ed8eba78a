//! Verification of signatures that others made: any SHA-2 with any curve and RSA-PSS with any salt, which is more than
//! issuers here use, because devices and offline roots sign as they like.

use std::sync::LazyLock;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPssSaltLength, VerificationAlgorithm};
use const_oid::{
    ObjectIdentifier,
    db::{
        self,
        rfc5912::{
            ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_MGF_1, ID_RSASSA_PSS, ID_SHA_256,
            ID_SHA_384, ID_SHA_512, SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION,
            SHA_512_WITH_RSA_ENCRYPTION,
        },
    },
};
use der::Decode;

use super::{
    algorithm::Sha2,
    ecdsa,
    key_kind::KeyKind,
    oid::name_of,
    public_key::{PublicKey, RsaPublicKey},
};
use crate::asn1::{DerError, INTEGER, NULL, OBJECT_IDENTIFIER, Reader, SEQUENCE, Value, explicit};

/// Why a signature is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    /// Nothing here can verify it.
    #[error("{0}")]
    Unsupported(String),
    /// Such as an EC point that is not on its curve.
    #[error("it is not a valid {0} key")]
    Key(KeyKind),
    /// It is not encoded as its algorithm says.
    #[error("{0}")]
    Encoding(String),
    /// It was made by another key, or over something else.
    #[error("the signature does not verify")]
    Wrong,
}

/// Verifies a signature. `algorithm` is the DER AlgorithmIdentifier beside it.
pub(crate) fn verify(key: &PublicKey, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    let algorithm = verification(key.kind, algorithm)?;
    // Refuses, among others, EC points that are not on their curve or at infinity.
    let parsed = ParsedPublicKey::new(algorithm, &key.bits).map_err(|_| VerifyError::Key(key.kind))?;
    parsed.verify_sig(message, signature).map_err(|_| match encoding_fault(key, signature) {
        Some(fault) => VerifyError::Encoding(fault),
        None => VerifyError::Wrong,
    })
}

fn verification(key: KeyKind, algorithm: &[u8]) -> Result<&'static dyn VerificationAlgorithm, VerifyError> {
    let malformed = |error: DerError| VerifyError::Unsupported(format!("its AlgorithmIdentifier is not DER: {error}"));
    let (oid, parameters) = read_identifier(algorithm).map_err(malformed)?;
    let is = |known: ObjectIdentifier| oid == known.as_bytes();
    let ec =
        [(ECDSA_WITH_SHA_256, Sha2::Sha256), (ECDSA_WITH_SHA_384, Sha2::Sha384), (ECDSA_WITH_SHA_512, Sha2::Sha512)];
    let rsa = [
        (SHA_256_WITH_RSA_ENCRYPTION, Sha2::Sha256),
        (SHA_384_WITH_RSA_ENCRYPTION, Sha2::Sha384),
        (SHA_512_WITH_RSA_ENCRYPTION, Sha2::Sha512),
    ];
    let known = match key {
        KeyKind::Rsa { .. } if is(ID_RSASSA_PSS) => {
            let (hash, salt) = read_pss(parameters)?;
            return pss(hash, salt);
        }
        KeyKind::Rsa { .. } => rsa.iter().find(|(oid, _)| is(*oid)).map(|(_, hash)| pkcs1(*hash)),
        KeyKind::Ed25519 => is(db::rfc8410::ID_ED_25519).then_some(&signature::ED25519 as &dyn VerificationAlgorithm),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            ec.iter().find(|(oid, _)| is(*oid)).and_then(|(_, hash)| ecdsa_algorithm(key, *hash))
        }
    };
    known.ok_or_else(|| {
        let name = name_of(oid);
        let right = match key {
            KeyKind::Rsa { .. } => "sign with RSA (PKCS#1 v1.5 or PSS) and SHA-256, SHA-384 or SHA-512",
            KeyKind::Ed25519 => "sign with Ed25519",
            _ => "sign with ECDSA and SHA-256, SHA-384 or SHA-512",
        };
        VerifyError::Unsupported(format!("a signature by a {key} key with the algorithm {name}; {right}"))
    })
}

fn ecdsa_algorithm(key: KeyKind, hash: Sha2) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, hash) {
        (KeyKind::P256, Sha2::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P256, Sha2::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::P256, Sha2::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::P384, Sha2::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::P384, Sha2::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P384, Sha2::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyKind::P521, Sha2::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (KeyKind::P521, Sha2::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (KeyKind::P521, Sha2::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

fn pkcs1(hash: Sha2) -> &'static dyn VerificationAlgorithm {
    match hash {
        Sha2::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Sha2::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Sha2::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

/// The longest salt is what a modulus of 8192 bits has room for beside SHA-256: 1024 - 32 - 2 octets.
const SALTS: u16 = 991;

/// Verification with each length of the salt: aws-lc-rs wants it to live as long as the program.
static PSS: [LazyLock<Vec<RsaParameters>>; 3] = [
    LazyLock::new(|| with_each_salt(|| signature::RSA_PSS_2048_8192_SHA256)),
    LazyLock::new(|| with_each_salt(|| signature::RSA_PSS_2048_8192_SHA384)),
    LazyLock::new(|| with_each_salt(|| signature::RSA_PSS_2048_8192_SHA512)),
];

fn with_each_salt(usual: fn() -> RsaParameters) -> Vec<RsaParameters> {
    (0..SALTS).map(|salt| usual().with_pss_salt_length(RsaPssSaltLength::Custom(salt))).collect()
}

fn pss(hash: Sha2, salt: u64) -> Result<&'static dyn VerificationAlgorithm, VerifyError> {
    let [sha256, sha384, sha512] = &PSS;
    let each_salt = match hash {
        Sha2::Sha256 => sha256,
        Sha2::Sha384 => sha384,
        Sha2::Sha512 => sha512,
    };
    let found = usize::try_from(salt).ok().and_then(|salt| each_salt.get(salt));
    found.map(|found| found as _).ok_or_else(|| unusual(&format!("a salt of {salt} octets")))
}

fn unusual(what: &str) -> VerifyError {
    VerifyError::Unsupported(format!(
        "an RSA-PSS signature with {what}; use one hash of SHA-256, SHA-384 or SHA-512 throughout"
    ))
}

/// RSASSA-PSS-params (RFC 4055 section 3.1): the hash and the salt's length. What is left out has a default, and the
/// parameters of a hash may be NULL or left out (section 2.1).
fn read_pss(parameters: &[u8]) -> Result<(Sha2, u64), VerifyError> {
    let malformed = |_: DerError| unusual("malformed parameters");
    let sha1 = || unusual("SHA-1");
    let mut reader = Reader::new(Value::only(parameters).and_then(|value| value.of(SEQUENCE)).map_err(malformed)?);
    let hash = reader.optional(explicit(0)).map_err(malformed)?.ok_or_else(sha1).and_then(read_hash)?;
    let mask = reader.optional(explicit(1)).map_err(malformed)?.ok_or_else(|| unusual("MGF1 with SHA-1"))?;
    let (function, mask_hash) = read_identifier(mask).map_err(malformed)?;
    if function != ID_MGF_1.as_bytes() {
        return Err(unusual("another mask generation function than MGF1"));
    }
    if read_hash(mask_hash)? != hash {
        return Err(unusual("another hash in MGF1 than for the message"));
    }
    let number = |octets: &[u8]| match Value::only(octets)?.of(INTEGER)? {
        [first, ..] if *first >= 0x80 => Err(DerError::Content("INTEGER")),
        number @ [_, ..] if number.len() <= 8 => {
            Ok(number.iter().fold(0_u64, |value, octet| value << 8 | u64::from(*octet)))
        }
        _ => Err(DerError::Content("INTEGER")),
    };
    let salt = reader.optional(explicit(2)).and_then(|salt| salt.map_or(Ok(20), number)).map_err(malformed)?;
    let trailer = reader.optional(explicit(3)).and_then(|trailer| trailer.map_or(Ok(1), number)).map_err(malformed)?;
    reader.finish().map_err(malformed)?;
    if trailer == 1 { Ok((hash, salt)) } else { Err(unusual("another trailer field than 1")) }
}

fn read_hash(identifier: &[u8]) -> Result<Sha2, VerifyError> {
    let (oid, parameters) = read_identifier(identifier).map_err(|_| unusual("malformed parameters"))?;
    let known = [(ID_SHA_256, Sha2::Sha256), (ID_SHA_384, Sha2::Sha384), (ID_SHA_512, Sha2::Sha512)];
    let hash = known.iter().find(|(known, _)| oid == known.as_bytes()).map(|(_, hash)| *hash);
    match (hash, parameters) {
        (Some(hash), [] | [NULL, 0]) => Ok(hash),
        (Some(_), _) => Err(unusual("malformed parameters")),
        (None, _) => Err(unusual(&format!("the hash {}", name_of(oid)))),
    }
}

/// The OID of an AlgorithmIdentifier, and the DER of its parameters, which may be empty.
fn read_identifier(identifier: &[u8]) -> Result<(&[u8], &[u8]), DerError> {
    let content = Value::only(identifier)?.of(SEQUENCE)?;
    let mut reader = Reader::new(content);
    let oid = reader.value()?;
    let parameters = content.get(oid.whole.len()..).unwrap_or_default();
    Ok((oid.of(OBJECT_IDENTIFIER)?, parameters))
}

/// What is wrong with the form of a signature that does not verify: its sender has a key and made an error elsewhere.
fn encoding_fault(key: &PublicKey, signature: &[u8]) -> Option<String> {
    let octets = |found: &str, due: usize| {
        (signature.len() != due).then(|| format!("{found} {due} octets, not {}", signature.len()))
    };
    let size = match key.kind {
        KeyKind::Ed25519 => return octets("an Ed25519 signature has", 64),
        KeyKind::Rsa { .. } => {
            let modulus = RsaPublicKey::from_der(&key.bits).ok()?.modulus.as_bytes().len();
            return octets("a signature by this RSA key has", modulus);
        }
        KeyKind::P256 => 32,
        KeyKind::P384 => 48,
        KeyKind::P521 => 66,
    };
    let fault = ecdsa::encoding_fault(signature)?;
    let raw = if signature.len() == 2 * size {
        ", but r and s one after the other, as PKCS#11 and chips give them"
    } else {
        ""
    };
    Some(format!(
        "the ECDSA signature is not DER{raw} ({fault}); it must be encoded as SEQUENCE {{ INTEGER r, INTEGER s }} \
         (RFC 3279 section 2.2.3)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(hex: &str) -> Result<(Sha2, u64), String> {
        let der = hex::decode(hex).unwrap();
        let (_, parameters) = read_identifier(&der).unwrap();
        read_pss(parameters).map_err(|error| error.to_string())
    }

    const SHA256: &str = "300d06096086480165030402010500";
    const SHA256_WITHOUT_NULL: &str = "300b0609608648016503040201";

    /// An AlgorithmIdentifier of RSA-PSS with this content of its parameters, in hex.
    fn pss_with(parameters: &str) -> String {
        let length = parameters.len() / 2;
        format!("30{:02x}06092a864886f70d01010a30{length:02x}{parameters}", length + 13)
    }

    fn hash_and_mask(hash: &str, mask: &str) -> String {
        let (hash_length, mask_length) = (hash.len() / 2, mask.len() / 2 + 11);
        format!("a0{hash_length:02x}{hash}a1{:02x}30{mask_length:02x}06092a864886f70d010108{mask}", mask_length + 2)
    }

    #[test]
    fn pss_parameters_are_read_in_every_form_of_rfc_4055() {
        let usual = hash_and_mask(SHA256, SHA256);
        for (parameters, salt) in [
            (format!("{usual}a203020120"), 32),
            (format!("{usual}a204020200de"), 222),
            (usual.clone(), 20),
            (format!("{usual}a203020114a303020101"), 20),
            (format!("{}a203020120", hash_and_mask(SHA256_WITHOUT_NULL, SHA256_WITHOUT_NULL)), 32),
            (format!("{}a203020120", hash_and_mask(SHA256_WITHOUT_NULL, SHA256)), 32),
        ] {
            assert_eq!(identifier(&pss_with(&parameters)), Ok((Sha2::Sha256, salt)), "{parameters}");
        }
        for (parameters, message) in [
            (String::new(), "SHA-1"),
            (format!("a00f{SHA256}"), "MGF1 with SHA-1"),
            (hash_and_mask(SHA256, "300d06096086480165030402020500"), "another hash in MGF1"),
            (format!("{usual}a303020102"), "trailer"),
            (format!("{usual}a2030201ff"), "malformed"),
            (format!("{usual}0500"), "malformed"),
            (hash_and_mask("300906052b0e03021a0500", SHA256), "id-sha1"),
        ] {
            let error = identifier(&pss_with(&parameters)).unwrap_err();
            assert!(error.contains(message), "{parameters}: {error}");
        }
        assert!(pss(Sha2::Sha256, u64::from(SALTS)).is_err() && pss(Sha2::Sha256, u64::MAX).is_err());
    }
}
