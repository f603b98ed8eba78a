//! Signature algorithms: those with which an issuer signs, and those that are verified.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{self, VerificationAlgorithm};

use super::key_kind::KeyKind;

/// A hash of the SHA-2 family (FIPS 180-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Sha2 {
    Sha256,
    Sha384,
    Sha512,
}

impl Sha2 {
    /// The hash of `message`: 32, 48 or 64 octets.
    pub fn digest(self, message: &[u8]) -> aws_lc_rs::digest::Digest {
        use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
        match self {
            Sha2::Sha256 => digest(&SHA256, message),
            Sha2::Sha384 => digest(&SHA384, message),
            Sha2::Sha512 => digest(&SHA512, message),
        }
    }

    /// The length of the hash in octets.
    pub const fn length(self) -> u8 {
        match self {
            Sha2::Sha256 => 32,
            Sha2::Sha384 => 48,
            Sha2::Sha512 => 64,
        }
    }

    /// The last arc of its OID, 2.16.840.1.101.3.4.2.x (RFC 4055 section 2.1).
    pub(crate) const fn arc(self) -> u8 {
        match self {
            Sha2::Sha256 => 1,
            Sha2::Sha384 => 2,
            Sha2::Sha512 => 3,
        }
    }
}

/// The algorithm with which an issuer signs certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256 (RFC 5758) by a P-256 key.
    EcdsaP256Sha256,
    /// ecdsa-with-SHA384 (RFC 5758) by a P-384 key.
    EcdsaP384Sha384,
    /// ecdsa-with-SHA512 (RFC 5758) by a P-521 key.
    EcdsaP521Sha512,
    /// sha256WithRSAEncryption and its relatives, PKCS#1 v1.5 (RFC 4055 section 5).
    RsaPkcs1(Sha2),
    /// id-RSASSA-PSS with one hash throughout and a salt of its length (RFC 4055 section 3).
    RsaPss(Sha2),
}

/// All of them, with the names that the configuration has for them.
const NAMES: [(&str, SignatureAlgorithm); 9] = [
    ("ecdsa-sha256", SignatureAlgorithm::EcdsaP256Sha256),
    ("ecdsa-sha384", SignatureAlgorithm::EcdsaP384Sha384),
    ("ecdsa-sha512", SignatureAlgorithm::EcdsaP521Sha512),
    ("rsa-sha256", SignatureAlgorithm::RsaPkcs1(Sha2::Sha256)),
    ("rsa-sha384", SignatureAlgorithm::RsaPkcs1(Sha2::Sha384)),
    ("rsa-sha512", SignatureAlgorithm::RsaPkcs1(Sha2::Sha512)),
    ("rsa-pss-sha256", SignatureAlgorithm::RsaPss(Sha2::Sha256)),
    ("rsa-pss-sha384", SignatureAlgorithm::RsaPss(Sha2::Sha384)),
    ("rsa-pss-sha512", SignatureAlgorithm::RsaPss(Sha2::Sha512)),
];

impl SignatureAlgorithm {
    /// The usual algorithm of a CA's key.
    ///
    /// # Errors
    /// If a CA cannot have such a key.
    pub fn for_key(key: KeyKind) -> Result<Self, UnsuitableKey> {
        match key {
            KeyKind::P256 => Ok(SignatureAlgorithm::EcdsaP256Sha256),
            KeyKind::P384 => Ok(SignatureAlgorithm::EcdsaP384Sha384),
            KeyKind::P521 => Ok(SignatureAlgorithm::EcdsaP521Sha512),
            KeyKind::Rsa { bits } if (2048..=4096).contains(&bits) => Ok(SignatureAlgorithm::RsaPkcs1(Sha2::Sha256)),
            key => Err(UnsuitableKey::NotForCa { key }),
        }
    }

    /// Checks that a key of this kind can sign so.
    ///
    /// # Errors
    /// If it cannot, with the algorithms that such a key can use.
    pub fn check_key(self, key: KeyKind) -> Result<(), UnsuitableKey> {
        let usual = SignatureAlgorithm::for_key(key)?;
        let rsa = |algorithm: &Self| matches!(algorithm, Self::RsaPkcs1(_) | Self::RsaPss(_));
        if self == usual || (rsa(&self) && rsa(&usual)) {
            return Ok(());
        }
        let usable = NAMES.iter().filter(|(_, algorithm)| *algorithm == usual || (rsa(algorithm) && rsa(&usual)));
        Err(UnsuitableKey::OtherAlgorithm { key, algorithm: self, usable: usable.map(|(name, _)| *name).collect() })
    }

    /// The DER `AlgorithmIdentifier` as certificates carry it.
    pub fn identifier(self) -> &'static [u8] {
        const PSS: [[u8; 67]; 3] =
            [pss_identifier(Sha2::Sha256), pss_identifier(Sha2::Sha384), pss_identifier(Sha2::Sha512)];
        const PKCS1: [[u8; 15]; 3] = [pkcs1_identifier(11), pkcs1_identifier(12), pkcs1_identifier(13)];
        match self {
            // SEQUENCE { OID } : ECDSA has no parameters (RFC 5758 section 3.2).
            SignatureAlgorithm::EcdsaP256Sha256 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            SignatureAlgorithm::EcdsaP384Sha384 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
            SignatureAlgorithm::EcdsaP521Sha512 => &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha256) => &PKCS1[0],
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha384) => &PKCS1[1],
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha512) => &PKCS1[2],
            SignatureAlgorithm::RsaPss(Sha2::Sha256) => &PSS[0],
            SignatureAlgorithm::RsaPss(Sha2::Sha384) => &PSS[1],
            SignatureAlgorithm::RsaPss(Sha2::Sha512) => &PSS[2],
        }
    }

    /// The most octets that a signature by this key has, as a certificate carries it.
    pub fn longest_signature(self, key: KeyKind) -> usize {
        // SEQUENCE { INTEGER, INTEGER }, each as long as the curve's order and one octet more if its first bit is set.
        match (self, key) {
            (SignatureAlgorithm::EcdsaP256Sha256, _) => 2 + 2 * (2 + 33),
            (SignatureAlgorithm::EcdsaP384Sha384, _) => 2 + 2 * (2 + 49),
            (SignatureAlgorithm::EcdsaP521Sha512, _) => 3 + 2 * (2 + 66),
            (_, KeyKind::Rsa { bits }) => bits.div_ceil(8) as usize,
            _ => 0,
        }
    }

    pub(super) fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            SignatureAlgorithm::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            SignatureAlgorithm::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            SignatureAlgorithm::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            SignatureAlgorithm::RsaPss(Sha2::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
            SignatureAlgorithm::RsaPss(Sha2::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
            SignatureAlgorithm::RsaPss(Sha2::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        }
    }
}

/// Why a key cannot be a CA's, or cannot sign as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsuitableKey {
    /// No CA has a key of this kind.
    #[error("a CA key cannot be {key}; use P-256, P-384, P-521 or RSA with 2048 to 4096 bits")]
    NotForCa {
        /// What it is.
        key: KeyKind,
    },
    /// It is for other algorithms.
    #[error("a {key} key cannot sign with {algorithm}; use {}", usable.join(", "))]
    OtherAlgorithm {
        /// What it is.
        key: KeyKind,
        /// What it was to sign with.
        algorithm: SignatureAlgorithm,
        /// What it can sign with, by the configuration's names.
        usable: Vec<&'static str>,
    },
}

/// A name that no signature algorithm has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a signature algorithm; choose one of {names}", names = NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownAlgorithm(String);

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm);
        found.ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, algorithm)| algorithm == self).map_or("", |(name, _)| name))
    }
}

/// SEQUENCE { 1.2.840.113549.1.1.x, NULL } : PKCS#1 v1.5 has NULL parameters (RFC 4055 section 5).
const fn pkcs1_identifier(arc: u8) -> [u8; 15] {
    [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, arc, 5, 0]
}

/// SEQUENCE { id-RSASSA-PSS, { hash [0] SHA-2, mgf [1] MGF1 with the same SHA-2, salt length [2] } } (RFC 4055 section
/// 3.1).
const fn pss_identifier(hash: Sha2) -> [u8; 67] {
    let (arc, salt) = (hash.arc(), hash.length());
    [
        0x30, 65, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 10, //
        0x30, 52, 0xa0, 15, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, arc, 5, 0, //
        0xa1, 28, 0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 8, //
        0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, arc, 5, 0, //
        0xa2, 3, 2, 1, salt,
    ]
}
