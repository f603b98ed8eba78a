//! The self-check: an issuer's signature is verified before anything is done with it.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::signature::ParsedPublicKey;

use super::{algorithm::SignatureAlgorithm, fixed_key::FixedKey, public_key::PublicKey};

/// A public key that is ready to verify many signatures of one algorithm.
#[derive(Debug)]
pub struct Verifier {
    pub(super) usual: ParsedPublicKey,
    /// For ECDSA on P-256: three times as fast.
    pub(super) fixed: Option<FixedKey>,
    /// Signatures that `fixed` accepted; wraps around.
    pub(super) accepted: AtomicU32,
}

/// One acceptance by [`FixedKey`] in this many, the first included, is verified again by aws-lc.
pub(super) const CROSS_CHECK_EVERY: u32 = 1024;

impl Verifier {
    /// Prepares for `key`'s signatures, which takes some milliseconds. `None` if the key is not a valid one of the
    /// algorithm.
    pub fn new(key: &PublicKey, algorithm: SignatureAlgorithm) -> Option<Self> {
        let usual = ParsedPublicKey::new(algorithm.verification(), &key.bits).ok()?;
        let fixed = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => FixedKey::new(&key.bits),
            _ => None,
        };
        Some(Verifier { usual, fixed, accepted: AtomicU32::new(0) })
    }

    /// What [`FixedKey`] refuses, and one in [`CROSS_CHECK_EVERY`] of what it accepts, is verified by aws-lc, whose
    /// verdict counts.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let accepted = self.fixed.as_ref().is_some_and(|key| key.verifies(message, signature));
        if accepted && !self.accepted.fetch_add(1, Ordering::Relaxed).is_multiple_of(CROSS_CHECK_EVERY) {
            return true;
        }
        let valid = self.usual.verify_sig(message, signature).is_ok();
        if accepted && !valid {
            end_after_wrong_acceptance(signature);
        }
        valid
    }
}

/// A verification that accepts what is not valid must not let another certificate out, and cannot tell which of those
/// since the last cross-check were valid: the process ends at once, and the log says what to do.
fn end_after_wrong_acceptance(signature: &[u8]) -> ! {
    tracing::error!(
        signature = hex::encode(signature),
        "the fast ECDSA verification accepted a signature that aws-lc refuses: memory or program is faulty; the daemon \
         ends. Verify the newest {CROSS_CHECK_EVERY} certificates with another program before they are used"
    );
    std::process::abort()
}

/// A signature that was verified with the claimed signer's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Verifies `octets`, as a certificate's signatureValue carries them. `None` if they are not the key's signature.
    pub fn check(key: &Verifier, message: &[u8], octets: Vec<u8>) -> Option<Self> {
        key.verifies(message, &octets).then_some(Signature(octets))
    }

    /// As a certificate's signatureValue carries it: a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3) or the RSA
    /// signature's octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same octets.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
