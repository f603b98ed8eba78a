//! Public keys whose private half nobody has.

use aws_lc_rs::{
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

use super::public_key::PublicKey;

/// The system gives no random numbers for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key can be made: the system gives no random numbers")]
pub(crate) struct NoKey;

impl PublicKey {
    /// The public half of a new P-256 key. The private half never leaves the memory of aws-lc, which wipes whatever it
    /// frees, and is gone when this returns: nobody can sign with it.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(crate) fn of_dropped_key() -> Result<PublicKey, NoKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| NoKey)?;
        let spki = pair.public_key().as_der().map_err(|_| NoKey)?;
        PublicKey::from_spki(spki.as_ref()).map_err(|_| NoKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::KeyKind;

    #[test]
    fn dropped_key_is_another_p256_key_each_time() {
        let [one, other] = [(); 2].map(|()| PublicKey::of_dropped_key().unwrap());
        assert_eq!((one.kind, other.kind), (KeyKind::P256, KeyKind::P256));
        assert_ne!(one.spki, other.spki);
    }
}
