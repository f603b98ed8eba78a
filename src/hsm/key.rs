//! A private key in the HSM: found, checked, and made to sign.

use std::{fmt, sync::Arc};

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki_sys::{
    CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512, CKM_ECDSA, CKM_RSA_PKCS, CKM_SHA256, CKM_SHA384, CKM_SHA512,
};
use der::{Encode, asn1::UintRef};

use super::{
    Error, KeyQuery, Token, attributes::Attributes, call::SignMechanism, module::TokenSession, public_half,
    token::TokenIdentity,
};
use crate::signer::{PublicKey, Sha2, SignatureAlgorithm};

/// A private key together with the session in which its handle is valid.
///
/// It is sensitive, not extractable, and signs without a PIN of its own: [`Key::open`] refuses any other. One thread
/// at a time can use it (a session does one operation at a time); more threads open it again.
pub struct Key {
    session: TokenSession,
    handle: ObjectHandle,
    label: String,
    id: Vec<u8>,
    public: PublicKey,
    algorithm: SignatureAlgorithm,
    never_extractable: Option<bool>,
}

impl Key {
    /// Opens a session and finds the key in it.
    ///
    /// # Errors
    /// If there is no such key, more than one, or one that is not fit to be a CA key.
    pub fn open(token: &Arc<Token>, query: &KeyQuery) -> Result<Key, Error> {
        Key::find(token.session()?, token.identity(), query)
    }

    fn find(session: TokenSession, token: &TokenIdentity, query: &KeyQuery) -> Result<Key, Error> {
        let handle = find_private_key(&session, token, query)?;
        let private = Attributes::of(
            &session,
            handle,
            &[
                AttributeType::Label,
                AttributeType::Id,
                AttributeType::KeyType,
                AttributeType::Sensitive,
                AttributeType::Extractable,
                AttributeType::NeverExtractable,
                AttributeType::AlwaysAuthenticate,
                AttributeType::Sign,
                AttributeType::PublicKeyInfo,
                AttributeType::Modulus,
                AttributeType::PublicExponent,
                AttributeType::EcParams,
                AttributeType::EcPoint,
            ],
        )?;
        let label = private.label();
        check_fitness(&private, &label)?;
        let public = match private.public_key(&label)? {
            Some(public) => public,
            None => public_half::find(&session, handle, &private, token, query.algorithm)?,
        };
        let algorithm = match query.algorithm {
            Some(chosen) => chosen.must_fit(&public).map(|()| chosen),
            None => SignatureAlgorithm::for_key(&public),
        };
        let algorithm = algorithm.map_err(|reason| Error::KeyUnsupported { label: label.clone(), reason })?;
        let never_extractable = private.flag(AttributeType::NeverExtractable);
        Ok(Key { session, handle, label, id: private.id(), public, algorithm, never_extractable })
    }

    /// Signs `message` and gives the signature as a certificate carries it: a DER `Ecdsa-Sig-Value` or the RSA
    /// signature's octets. It is not checked. The hash is made here, so that 32 to 64 bytes go to a network HSM, and
    /// because older modules cannot hash.
    ///
    /// # Errors
    /// Whatever the HSM says.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.sign_input(&SigningInput::new(self.algorithm, message))?;
        certificate_signature(self.algorithm, signature)
            .ok_or(Error::Wrapper { doing: "signing", reason: "the HSM gave a signature of a wrong form".into() })
    }

    /// The one place that asks the HSM for a signature: `C_SignInit` and `C_Sign`. It comes as the HSM gives it.
    pub(super) fn sign_input(&self, input: &SigningInput) -> Result<Vec<u8>, Error> {
        input.sign(&self.session, self.handle)
    }

    /// CKA_LABEL.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// CKA_ID.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The algorithm of its signatures.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// CKA_NEVER_EXTRACTABLE, if the HSM says it: whether the key was never able to leave the HSM.
    pub fn never_extractable(&self) -> Option<bool> {
        self.never_extractable
    }

    /// Checks that a certificate's public key is this key's.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] with both hashes.
    pub fn must_match(&self, certificate: &PublicKey) -> Result<(), Error> {
        if self.public == *certificate {
            return Ok(());
        }
        Err(Error::KeyMismatch {
            label: self.label.clone(),
            certificate: hex::encode(certificate.hash()),
            key: hex::encode(self.public.hash()),
        })
    }

    /// Makes one signature and verifies it: the private and the public half belong together, and the HSM signs.
    ///
    /// # Errors
    /// Whatever the HSM says, or [`Error::SignatureWrong`].
    pub fn test(&self) -> Result<(), Error> {
        let message = b"birthmark: does this key sign?";
        let signature = self.sign(message)?;
        if self.public.verifies(self.algorithm, message, &signature) {
            Ok(())
        } else {
            Err(Error::SignatureWrong { label: self.label.clone() })
        }
    }

    /// Gives the session up after `error`.
    pub(super) fn discard(self, error: &Error) {
        self.session.discard(error);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key \"{}\" ({:?})", self.label, self.public)
    }
}

fn find_private_key(session: &TokenSession, token: &TokenIdentity, query: &KeyQuery) -> Result<ObjectHandle, Error> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(query.label.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(query.id.as_ref().map(|id| Attribute::Id(id.clone())));
    let found = session.call("finding the private key", |session| session.find_objects(&template))?;
    match found[..] {
        [handle] => Ok(handle),
        [] => {
            let any = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
            let all = session.call("listing the private keys", |session| session.find_objects(&any))?;
            let known = all
                .into_iter()
                .map(|handle| Ok(Attributes::of(session, handle, &[AttributeType::Label])?.label()))
                .collect::<Result<_, Error>>()?;
            Err(Error::KeyMissing { wanted: query.to_string(), token: token.label.clone(), known })
        }
        _ => {
            let name = |handle: &ObjectHandle| {
                let key = Attributes::of(session, *handle, &[AttributeType::Label, AttributeType::Id])?;
                Ok((key.label(), key.id()))
            };
            let known = found.iter().map(name).collect::<Result<_, Error>>()?;
            Err(Error::KeyAmbiguous { wanted: query.to_string(), token: token.label.clone(), known })
        }
    }
}

/// What an HSM does not say about a key counts against the key.
fn check_fitness(private: &Attributes, label: &str) -> Result<(), Error> {
    let label = || label.to_owned();
    if !private.flag(AttributeType::Sensitive).unwrap_or(false) {
        return Err(Error::KeyNotSensitive { label: label() });
    }
    if private.flag(AttributeType::Extractable).unwrap_or(true) {
        return Err(Error::KeyExtractable { label: label() });
    }
    // Its default is false (PKCS#11 v2.40 section 4.9), and older modules do not know it.
    if private.flag(AttributeType::AlwaysAuthenticate).unwrap_or(false) {
        return Err(Error::KeyAlwaysAuthenticate { label: label() });
    }
    if !private.flag(AttributeType::Sign).unwrap_or(false) {
        return Err(Error::KeyCannotSign { label: label() });
    }
    Ok(())
}

/// What `C_Sign` gets for a message. The hash is made here, so that 32 or 48 bytes go to a network HSM, and because older
/// modules cannot hash.
#[derive(Clone)]
pub(super) struct SigningInput {
    mechanism: SignMechanism,
    octets: [u8; LONGEST_INPUT],
    length: usize,
}

/// A DigestInfo of SHA-512.
const LONGEST_INPUT: usize = 83;

impl SigningInput {
    pub(super) fn new(algorithm: SignatureAlgorithm, message: &[u8]) -> Self {
        let mut input = SigningInput { mechanism: mechanism(algorithm), octets: [0; LONGEST_INPUT], length: 0 };
        let hash = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => Sha2::Sha256,
            SignatureAlgorithm::EcdsaP384Sha384 => Sha2::Sha384,
            SignatureAlgorithm::EcdsaP521Sha512 => Sha2::Sha512,
            SignatureAlgorithm::RsaPss(hash) => hash,
            SignatureAlgorithm::RsaPkcs1(hash) => {
                input.append(&digest_info_head(hash));
                hash
            }
        };
        input.append(hash.digest(message).as_ref());
        input
    }

    /// `C_SignInit` and `C_Sign` with this key.
    pub(super) fn sign(&self, session: &TokenSession, key: ObjectHandle) -> Result<Vec<u8>, Error> {
        session.sign(key, self.mechanism, &self.octets[..self.length])
    }

    fn append(&mut self, octets: &[u8]) {
        self.octets[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }
}

/// The head of the DER `DigestInfo` of a hash (RFC 8017 section 9.2), which CKM_RSA_PKCS pads and signs.
fn digest_info_head(hash: Sha2) -> [u8; 19] {
    let length = hash.length();
    [0x30, 17 + length, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash.arc(), 5, 0, 4, length]
}

/// The mechanism that a key of this algorithm signs with.
pub(super) fn mechanism(algorithm: SignatureAlgorithm) -> SignMechanism {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256
        | SignatureAlgorithm::EcdsaP384Sha384
        | SignatureAlgorithm::EcdsaP521Sha512 => SignMechanism::plain(CKM_ECDSA),
        SignatureAlgorithm::RsaPkcs1(_) => SignMechanism::plain(CKM_RSA_PKCS),
        // One hash throughout and a salt of its length (RFC 4055 section 3.1).
        SignatureAlgorithm::RsaPss(hash) => {
            let (hash_mechanism, mask) = match hash {
                Sha2::Sha256 => (CKM_SHA256, CKG_MGF1_SHA256),
                Sha2::Sha384 => (CKM_SHA384, CKG_MGF1_SHA384),
                Sha2::Sha512 => (CKM_SHA512, CKG_MGF1_SHA512),
            };
            SignMechanism::pss(hash_mechanism, mask, hash.length())
        }
    }
}

/// Turns what `C_Sign` gave into what a certificate carries. `None` if it cannot be a signature.
pub(super) fn certificate_signature(algorithm: SignatureAlgorithm, signature: Vec<u8>) -> Option<Vec<u8>> {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => ecdsa_sig_value(&signature, 32),
        SignatureAlgorithm::EcdsaP384Sha384 => ecdsa_sig_value(&signature, 48),
        SignatureAlgorithm::EcdsaP521Sha512 => ecdsa_sig_value(&signature, 66),
        SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_) => Some(signature),
    }
}

/// Turns the r‖s of PKCS#11, each `width` octets, into the DER `Ecdsa-Sig-Value` of RFC 3279 section 2.2.3, whose
/// INTEGERs are minimal. `None` if the length is wrong or a number is zero.
fn ecdsa_sig_value(fixed: &[u8], width: usize) -> Option<Vec<u8>> {
    #[derive(der::Sequence)]
    struct EcdsaSigValue<'a> {
        r: UintRef<'a>,
        s: UintRef<'a>,
    }
    if fixed.len() != 2 * width {
        return None;
    }
    let (r, s) = fixed.split_at(width);
    if [r, s].iter().any(|number| number.iter().all(|octet| *octet == 0)) {
        return None;
    }
    EcdsaSigValue { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

#[cfg(test)]
mod tests {
    use const_oid::{ObjectIdentifier, db};
    use der::Decode;

    use super::*;

    fn fixed(r: &[u8], s: &[u8]) -> Vec<u8> {
        [r, s].iter().flat_map(|n| [vec![0; 32 - n.len()], n.to_vec()].concat()).collect()
    }

    #[test]
    fn the_integers_of_a_signature_are_minimal() {
        for (r, s, der) in [
            (&[1][..], &[0x7f][..], vec![0x30, 6, 2, 1, 1, 2, 1, 0x7f]),
            // A leading one bit takes a zero octet, or the number would be negative.
            (&[0x80], &[0xff, 0], vec![0x30, 9, 2, 2, 0, 0x80, 2, 3, 0, 0xff, 0]),
            (&[0x7f, 0xff], &[0, 0, 1], vec![0x30, 7, 2, 2, 0x7f, 0xff, 2, 1, 1]),
        ] {
            assert_eq!(ecdsa_sig_value(&fixed(r, s), 32), Some(der));
        }
        let full = ecdsa_sig_value(&[0xff; 96], 48).unwrap();
        assert_eq!(full.len(), 2 + 2 * (2 + 1 + 48));
        assert_eq!(full[..5], [0x30, 102, 2, 49, 0]);
    }

    #[test]
    fn a_signature_of_a_wrong_length_or_with_a_zero_is_none() {
        assert_eq!(ecdsa_sig_value(&[1; 63], 32), None);
        assert_eq!(ecdsa_sig_value(&[1; 64], 48), None);
        assert_eq!(ecdsa_sig_value(&[], 32), None);
        assert_eq!(ecdsa_sig_value(&fixed(&[], &[1]), 32), None);
        assert_eq!(ecdsa_sig_value(&fixed(&[1], &[0]), 32), None);
    }

    #[test]
    fn a_digest_info_names_its_hash() {
        use db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512};
        for (hash, oid) in [(Sha2::Sha256, ID_SHA_256), (Sha2::Sha384, ID_SHA_384), (Sha2::Sha512, ID_SHA_512)] {
            let input = SigningInput::new(SignatureAlgorithm::RsaPkcs1(hash), b"message");
            let info = &input.octets[..input.length];
            assert_eq!(info.len(), 2 + usize::from(info[1]));
            assert_eq!(ObjectIdentifier::from_der(&info[4..15]).unwrap(), oid);
            assert_eq!(&info[19..], hash.digest(b"message").as_ref());
        }
    }
}
