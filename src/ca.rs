//! The issuing CA: its checked chain, and its signer.

mod recorded;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use const_oid::db::rfc5280::ID_CE_NAME_CONSTRAINTS;

use crate::{
    asn1::DerError,
    ledger::RecordedIssuer,
    path::{self, PathError},
    signer::{PublicKey, SignatureAlgorithm, Signer, SpkiError},
    x509::Certificate,
    x509_time::Time,
};

pub(crate) use self::recorded::{NoIssuer, issuer_of};

/// A CA that issues: its chain and its key in the HSM.
pub struct IssuingCa {
    name: String,
    chain: CaChain,
    /// DER: the same certificates.
    der: Vec<Vec<u8>>,
    signer: Arc<dyn Signer>,
    /// Into how many revocation lists its certificates are divided.
    crl_shards: u16,
    /// What it is in the ledger, once it is recorded there.
    recorded: OnceLock<Arc<RecordedIssuer>>,
}

impl fmt::Debug for IssuingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingCa")
            .field("name", &self.name)
            .field("public_key", self.public_key())
            .finish_non_exhaustive()
    }
}

impl IssuingCa {
    /// Joins a checked chain and the signer that has the key of its first certificate.
    pub fn new(name: &str, chain: CaChain, signer: Arc<dyn Signer>) -> Self {
        let der = chain.certificates().iter().map(|certificate| certificate.der().to_vec()).collect();
        IssuingCa { name: name.to_owned(), chain, der, signer, crl_shards: 1, recorded: OnceLock::new() }
    }

    /// Its certificates are divided among so many revocation lists.
    #[must_use]
    pub fn with_crl_shards(self, crl_shards: u16) -> Self {
        IssuingCa { crl_shards, ..self }
    }

    /// Into how many revocation lists its certificates are divided, at least 1.
    pub(crate) fn crl_shards(&self) -> u16 {
        self.crl_shards
    }

    /// What it is in the ledger; none before it is recorded there.
    pub(crate) fn recorded(&self) -> Option<&Arc<RecordedIssuer>> {
        self.recorded.get()
    }

    /// Takes note that it is recorded: its certificates stand for this entry from now on.
    pub(crate) fn set_recorded(&self, recorded: Arc<RecordedIssuer>) {
        // The same chain is recorded once, so whoever was first had the same.
        let _ = self.recorded.set(recorded);
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// DER: the issuing CA first, then each certificate that issued the one before it.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.der
    }

    /// The same certificates, taken apart.
    pub(crate) fn certificates(&self) -> &CaChain {
        &self.chain
    }

    /// The public key.
    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.chain.public_key
    }

    /// The public key of each certificate of the chain, its own first.
    pub(crate) fn public_keys(&self) -> &[PublicKey] {
        &self.chain.public_keys
    }

    /// Its subject, a DER Name, as its own certificate has it.
    pub(crate) fn subject(&self) -> &[u8] {
        self.chain.issuing.subject.as_der()
    }

    /// The first valid second of its certificate.
    pub(crate) fn not_before(&self) -> Time {
        self.chain.issuing.not_before
    }

    /// When its certificate expires: the last valid second.
    pub(crate) fn not_after(&self) -> Time {
        self.chain.issuing.not_after
    }

    /// How it signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.signer.algorithm()
    }

    /// Its subjectKeyIdentifier: the authorityKeyIdentifier of its certificates.
    pub(crate) fn key_identifier(&self) -> &[u8] {
        &self.chain.key_identifier
    }

    /// How many certificates its HSM signs at once.
    pub(crate) fn sessions(&self) -> usize {
        self.signer.sessions()
    }

    pub(crate) fn signer(&self) -> &dyn Signer {
        &*self.signer
    }
}

/// The certificates of an issuing CA: what they issue is valid below them.
#[derive(Debug)]
pub struct CaChain {
    /// The issuing CA.
    issuing: Certificate,
    /// The issuing CA, then each certificate that issued the one before it.
    certificates: Vec<Certificate>,
    public_key: PublicKey,
    public_keys: Vec<PublicKey>,
    key_identifier: Vec<u8>,
    constrains_names: bool,
}

/// Why certificates are not the chain of an issuing CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// There is none.
    #[error("there is no certificate in it")]
    Empty,
    /// One of them is not DER.
    #[error("certificate {position} is not valid DER: {error}")]
    Der {
        /// Counted from 1.
        position: usize,
        /// Why not.
        error: DerError,
    },
    /// A key that nothing here can use.
    #[error("the key of a certificate cannot be used: {0}")]
    Key(#[from] SpkiError),
    /// They break a rule of path validation.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl CaChain {
    /// Checks that the first certificate may issue and that each was issued by the next (RFC 5280 section 6), apart from
    /// the moment.
    ///
    /// # Errors
    /// Which certificate is wrong and how.
    pub fn new(chain: Vec<Vec<u8>>) -> Result<CaChain, ChainError> {
        let certificates = chain.iter().enumerate().map(|(index, der)| {
            Certificate::from_der(der).map_err(|error| ChainError::Der { position: index + 1, error })
        });
        CaChain::from_certificates(certificates.collect::<Result<_, _>>()?)
    }

    /// The same of certificates that were read.
    ///
    /// # Errors
    /// Those of [`CaChain::new`].
    pub(crate) fn from_certificates(certificates: Vec<Certificate>) -> Result<CaChain, ChainError> {
        let issuing = certificates.first().ok_or(ChainError::Empty)?.clone();
        path::check(&certificates)?;
        let public_keys = certificates.iter().map(PublicKey::of).collect::<Result<Vec<_>, _>>()?;
        let public_key = PublicKey::of(&issuing)?;
        // Path validation demands it.
        let key_identifier = issuing.subject_key_identifier().ok().flatten().unwrap_or_default().to_vec();
        let constrains_names = certificates.iter().any(|ca| ca.extension(ID_CE_NAME_CONSTRAINTS).is_some());
        Ok(CaChain { issuing, certificates, public_key, public_keys, key_identifier, constrains_names })
    }

    /// Checks that every certificate is valid at this moment.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn check_validity(&self, moment: Time) -> Result<(), PathError> {
        path::check_validity(&self.certificates, moment)
    }

    /// Checks that what is issued is valid below the chain; signature and validity are not looked at.
    ///
    /// # Errors
    /// What is wrong, and with which certificate.
    pub(crate) fn check_end_entity(&self, certificate: &Certificate) -> Result<(), PathError> {
        path::check_end_entity(&self.certificates, certificate)
    }

    /// Whether it depends on the names in a certificate whether it is valid below the chain.
    pub(crate) fn constrains_names(&self) -> bool {
        self.constrains_names
    }

    /// The certificates, the issuing CA first.
    pub(crate) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The issuing CA's certificate.
    pub(crate) fn issuing(&self) -> &Certificate {
        &self.issuing
    }

    /// The issuing CA's public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}
