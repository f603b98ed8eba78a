//! Why a CSR, or a subject, is refused.

use birthmark_base::csr::MalformedCsr;

use crate::asn1::DerError;

/// Why a subject does not have the one text of an attribute. The messages go on from "it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// It has no such attribute.
    #[error("it has none")]
    Absent,
    /// It has more than one.
    #[error("it has several")]
    Several,
    /// The value is of a type that is no text, or not what its type says.
    #[error(
        "it has one whose value is not text (ASN.1 tag 0x{0:02x}); use a UTF8String or PrintableString, or any other \
         DirectoryString"
    )]
    NotText(u8),
    /// The subject is not what RFC 5280 calls a Name.
    #[error("its encoding is wrong: {0}")]
    Malformed(DerError),
}

/// Why a CSR is refused. Each message names the rule and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is not a PKCS#10 request.
    #[error("the CSR is malformed: {0}")]
    Malformed(String),
    /// Its signature is not by its own key.
    #[error(
        "the CSR's signature does not verify with the public key that it contains: the sender does not have the private key, or the CSR was changed"
    )]
    ProofOfPossession,
    /// Its signature is not encoded as its algorithm says.
    #[error("the CSR's signature cannot be verified: {0}")]
    SignatureEncoding(String),
    /// Its signature is of an algorithm that is not supported.
    #[error("the CSR's signature is not supported: {0}")]
    SignatureUnsupported(String),
    /// Its key is weak.
    #[error("the CSR's key is refused: {0}")]
    KeyWeak(String),
    /// Its key is of a kind that is not supported.
    #[error("the CSR's key is not supported: {0}")]
    KeyUnsupported(String),
}

impl From<MalformedCsr> for CsrError {
    fn from(MalformedCsr(what): MalformedCsr) -> Self {
        CsrError::Malformed(what)
    }
}
