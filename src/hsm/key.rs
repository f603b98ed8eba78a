//! A private key in the HSM: found, checked, and made to sign.

use std::{fmt, sync::Arc};

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use super::{
    attributes::Attributes,
    error::Error,
    public_half,
    session::TokenSession,
    signing_input::{SigningInput, certificate_signature},
    token::Token,
    token_info::TokenIdentity,
    uri::KeyQuery,
};
use crate::signer::{PublicKey, SignatureAlgorithm};

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
    /// Opens a session and finds the key in it. If the token has no room for the session, a pool of this process that
    /// has several closes one.
    ///
    /// # Errors
    /// If there is no such key, more than one, or one that is not fit to be a CA key.
    pub fn open(token: &Arc<Token>, query: &KeyQuery) -> Result<Key, Error> {
        Key::find(token.session()?, token.identity(), query)
    }

    /// As [`Key::open`], but only if the token has room for the session.
    pub(super) fn open_if_room(token: &Arc<Token>, query: &KeyQuery) -> Result<Key, Error> {
        Key::find(token.session_if_room()?, token.identity(), query)
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
            Some(chosen) => chosen.check_key(public.kind).map(|()| chosen),
            None => SignatureAlgorithm::for_key(public.kind),
        };
        let algorithm =
            algorithm.map_err(|reason| Error::KeyUnsupported { label: label.clone(), reason: reason.to_string() })?;
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
    pub fn check_matches(&self, certificate: &PublicKey) -> Result<(), Error> {
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

    /// Abandons the session after `error`.
    pub(super) fn discard(self, error: &Error) {
        self.session.discard(error);
    }
}

/// What a token says about a private key; nothing where it does not say it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyAttributes {
    /// CKA_SENSITIVE: its value is never shown in plain text.
    pub sensitive: Option<bool>,
    /// CKA_ALWAYS_SENSITIVE: it never was otherwise.
    pub always_sensitive: Option<bool>,
    /// CKA_EXTRACTABLE: it may be wrapped with another key.
    pub extractable: Option<bool>,
    /// CKA_NEVER_EXTRACTABLE: it never could be.
    pub never_extractable: Option<bool>,
    /// CKA_LOCAL: it was made in this token.
    pub local: Option<bool>,
    /// CKA_KEY_GEN_MECHANISM: how.
    pub key_gen_mechanism: Option<String>,
}

impl Key {
    /// What the token says about it.
    ///
    /// # Errors
    /// Whatever the HSM says.
    pub(crate) fn attributes(&self) -> Result<KeyAttributes, Error> {
        let wanted = [
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
            AttributeType::KeyGenMechanism,
        ];
        let all = Attributes::of(&self.session, self.handle, &wanted)?;
        Ok(KeyAttributes {
            sensitive: all.flag(AttributeType::Sensitive),
            always_sensitive: all.flag(AttributeType::AlwaysSensitive),
            extractable: all.flag(AttributeType::Extractable),
            never_extractable: all.flag(AttributeType::NeverExtractable),
            local: all.flag(AttributeType::Local),
            key_gen_mechanism: all.key_gen_mechanism(),
        })
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

/// The key never leaves the HSM (invariant 7): what an HSM does not say about a key counts against the key.
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
