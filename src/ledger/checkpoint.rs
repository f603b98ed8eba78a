//! Checkpoints: what the HSM's audit key signs about the journal, so that nobody can cut it short or rewrite it unseen.
//!
//! A checkpoint is a text in the shape of C2SP's [checkpoint] and [signed note]; lines end with a line feed:
//!
//! ```text
//! birthmark.journal/7f3c…  (the journal's id: 32 hex digits)
//! 123456                   (how many entries it has: the sequence number of the last)
//! ZGVhZGJlZWY…             (the chain hash after that entry, base64)
//! time 2026-11-23T20:15:00.123456Z
//!
//! — birthmark-audit AbCd…  (base64: 4 octets that name the key, then the signature)
//! ```
//!
//! Signed are the four lines with their line feeds, without the empty one. The signature is what the key's type makes
//! in a certificate: a DER `Ecdsa-Sig-Value` over SHA-256 (P-256) or SHA-384 (P-384), or PKCS#1 v1.5 over SHA-256
//! (RSA). The key's name is the first 4 octets of SHA-256 of its DER SubjectPublicKeyInfo. So OpenSSL alone can verify
//! one: `head -4 checkpoint | openssl dgst -sha256 -verify audit.pem -signature SIGNATURE`.
//!
//! It differs from C2SP's checkpoint in that the hash is that of a chain, not of a Merkle tree.
//!
//! [checkpoint]: https://c2sp.org/tlog-checkpoint
//! [signed note]: https://c2sp.org/signed-note

use std::{fmt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;

use super::head::{ChainHash, Head};
use crate::{
    hash::sha256,
    signer::{PublicKey, SignatureAlgorithm},
    text_file::{self, TextError},
};

/// The longest text, in bytes: that of an RSA-4096 key has less than 1,000.
const LONGEST: u64 = 64 << 10;

const ORIGIN: &str = "birthmark.journal/";
const SIGNATURE: &str = "\u{2014} birthmark-audit ";

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The journal's id.
    pub journal: [u8; 16],
    /// How many entries the journal has: the sequence number of the last.
    pub sequence: u64,
    /// The chain hash after that entry.
    pub chain: ChainHash,
    /// The daemon's clock when it was signed, to the microsecond.
    pub time: Timestamp,
}

impl Checkpoint {
    /// The checkpoint of a ledger with this head.
    pub fn new(head: &Head, now: Timestamp) -> Self {
        let time = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        Checkpoint { journal: head.ledger, sequence: head.sequence, chain: head.chain, time }
    }

    /// With the signature of [`Checkpoint`]'s `Display` by `key`.
    pub fn signed(self, key: &PublicKey, signature: Vec<u8>) -> SignedCheckpoint {
        SignedCheckpoint { checkpoint: self, key: key_name(key), signature }
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checkpoint { journal, sequence, chain, time } = self;
        writeln!(f, "{ORIGIN}{}\n{sequence}\n{}\ntime {time}", hex::encode(journal), BASE64.encode(chain))
    }
}

/// A checkpoint and its signature. Its `Display` is the whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it states; not verified.
    pub checkpoint: Checkpoint,
    key: [u8; 4],
    signature: Vec<u8>,
}

/// Why something is not a checkpoint, or not one by a trusted key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCheckpoint {
    /// The text is not one that birthmark writes.
    #[error("it is no checkpoint: {0}")]
    Malformed(&'static str),
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(TextError),
    /// It names a key that is none of the trusted ones.
    #[error("it is signed by a key that is not trusted (its name is {})", hex::encode(.0))]
    UnknownKey([u8; 4]),
    /// The signature is not one by the key that it names.
    #[error("its signature is wrong")]
    WrongSignature,
}

impl SignedCheckpoint {
    /// Reads the text. The signature is not verified by that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidCheckpoint> {
        let broken = InvalidCheckpoint::Malformed;
        let (body, signature) = text.split_once("\n\n").ok_or(broken("there is no signature"))?;
        let mut lines = body.lines();
        let mut line = |missing| lines.next().ok_or(broken(missing));
        let journal =
            line("there is no origin")?.strip_prefix(ORIGIN).and_then(|id| hex::decode(id).ok()?.try_into().ok());
        let sequence = line("there is no sequence number")?.parse().ok();
        let chain = BASE64.decode(line("there is no hash")?).ok().and_then(|hash| hash.try_into().ok());
        let time = line("there is no time")?.strip_prefix("time ").and_then(|time| time.parse().ok());
        let key_and_signature = signature.trim_end_matches('\n').strip_prefix(SIGNATURE);
        let bytes = key_and_signature.and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        let Some((key, signature)) = bytes.split_first_chunk() else { return Err(broken("its signature line")) };
        let read = Self {
            checkpoint: Checkpoint {
                journal: journal.ok_or(broken("its origin"))?,
                sequence: sequence.ok_or(broken("its sequence number"))?,
                chain: chain.ok_or(broken("its hash"))?,
                time: time.ok_or(broken("its time"))?,
            },
            key: *key,
            signature: signature.to_vec(),
        };
        // One text for one meaning.
        if read.to_string() == text { Ok(read) } else { Err(broken("it is not written as birthmark writes it")) }
    }

    /// Reads the file; none if there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Option<Self>, InvalidCheckpoint> {
        match text_file::read(path, LONGEST) {
            Ok(text) => SignedCheckpoint::parse(&text).map(Some),
            Err(TextError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(InvalidCheckpoint::Unreadable(error)),
        }
    }

    /// Verifies the signature by one of the keys, and gives that key.
    ///
    /// # Errors
    /// If it is not a signature by any of them.
    pub fn verify<'k>(&self, keys: &'k [PublicKey]) -> Result<&'k PublicKey, InvalidCheckpoint> {
        let mut named = keys.iter().filter(|key| key_name(key) == self.key).peekable();
        if named.peek().is_none() {
            return Err(InvalidCheckpoint::UnknownKey(self.key));
        }
        let message = self.checkpoint.to_string();
        let verifies = |key: &&PublicKey| {
            SignatureAlgorithm::for_key(key.kind)
                .is_ok_and(|algorithm| key.verifies(algorithm, message.as_bytes(), &self.signature))
        };
        named.find(verifies).ok_or(InvalidCheckpoint::WrongSignature)
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key, self.signature.as_slice()].concat();
        writeln!(f, "{}\n{SIGNATURE}{}", self.checkpoint, BASE64.encode(bytes))
    }
}

/// How a checkpoint names the key that signed it.
fn key_name(key: &PublicKey) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&key.spki);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };

    fn signed() -> (SignedCheckpoint, PublicKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = crate::signer::ec_spki(const_oid::db::rfc5912::SECP_256_R_1, pair.public_key().as_ref()).unwrap();
        let key = PublicKey::from_spki(&spki).unwrap();
        let head = Head { ledger: [7; 16], sequence: 12, chain: [9; 32], part: 1 };
        let checkpoint = Checkpoint::new(&head, Timestamp::now());
        let signature = pair.sign(&SystemRandom::new(), checkpoint.to_string().as_bytes()).unwrap();
        (checkpoint.signed(&key, signature.as_ref().to_vec()), key)
    }

    /// The unchanged text is read back and verified.
    #[test]
    fn checkpoint_with_a_changed_byte_is_refused() {
        let (signed, key) = signed();
        let text = signed.to_string();
        assert_eq!(SignedCheckpoint::parse(&text).unwrap(), signed, "{text}");
        assert_eq!(signed.verify(std::slice::from_ref(&key)).unwrap(), &key);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).ok().and_then(|text| SignedCheckpoint::parse(&text).ok());
            let verified = changed.is_some_and(|read| read.verify(std::slice::from_ref(&key)).is_ok());
            assert!(!verified, "byte {at}");
        }
    }

    #[test]
    fn checkpoint_by_an_untrusted_key_is_refused() {
        let ((one, _), (_, other)) = (signed(), signed());
        assert!(one.verify(&[other]).unwrap_err().to_string().contains("not trusted"));
    }
}
