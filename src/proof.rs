//! Proofs of possession of a CA's key: `Prover::prove` is the path of one, whole.
//!
//! A cloud gives a code, and takes a certificate by the CA that has the code as its only name as the proof that whoever
//! registers the CA has its key (AWS IoT, Azure, Huawei Cloud, Alibaba Cloud). The certificate says nothing else, lives
//! for a day, and its own private key was dropped when it was made: nobody can connect with it.
//!
//! ```text
//! code ─► key, certificate ─► ReserveProof ─► sign + check ─► RecordProof ─► reply
//!         key dropped         journal+fsync   HSM             journal+fsync
//! ```

mod certificate;
mod file;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use self::certificate::{CertificateError, ProofCertificate};
pub use self::file::{ProofFileError, write_file};
use crate::{
    asn1::DerError,
    ca::IssuingCa,
    cert::Tbs,
    committer::{CommitError, Committer, Issued, Reserved},
    ledger::{Actor, ProofId, ProofTerms},
    metrics,
    possession::PossessionCode,
    profile::{SubjectError, ValidityError},
    registration,
    signer::{NoKey, SignError},
    x509::Certificate,
};

/// Why there is no proof.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProofError {
    /// There is no such issuer.
    #[error("there is no issuer {}; the issuers are {}", crate::quote::quoted(.name), .known.join(", "))]
    IssuerUnknown {
        /// What was asked for.
        name: String,
        /// Those of the configuration.
        known: Vec<String>,
    },
    /// The issuer is not valid now.
    #[error(transparent)]
    IssuerExpiring(#[from] ValidityError),
    /// The issuer's chain does not allow the name.
    #[error(transparent)]
    Name(#[from] SubjectError),
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// Nothing was reserved or recorded.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What is recorded is no certificate.
    #[error("what is recorded of the proof is no certificate: {0}")]
    Malformed(#[from] DerError),
    /// The HSM cannot sign now.
    #[error("the HSM cannot sign now")]
    HsmUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

impl From<SignError> for ProofError {
    fn from(SignError::Unavailable { retry_after, .. }: SignError) -> Self {
        ProofError::HsmUnavailable { retry_after }
    }
}

impl From<CertificateError> for ProofError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::Validity(error) => error.into(),
            CertificateError::Name(error) => error.into(),
            CertificateError::Key(error) => error.into(),
        }
    }
}

/// A proof of possession that may be sent.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) issued: Issued,
    /// The last valid second.
    pub(crate) not_after: Timestamp,
}

impl Proof {
    fn new(issued: Issued) -> Result<Proof, ProofError> {
        let certificate = Certificate::from_der(issued.certificate())?;
        let not_after = Timestamp::try_from(SystemTime::from(certificate.not_after)).unwrap_or(Timestamp::MAX);
        Ok(Proof { issued, not_after })
    }
}

/// What makes proofs; a daemon has one.
pub(crate) struct Prover {
    issuers: BTreeMap<String, Arc<IssuingCa>>,
    committer: Committer,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

impl Prover {
    /// Joins the issuers and the ledger's side that changes.
    pub(crate) fn new(issuers: BTreeMap<String, Arc<IssuingCa>>, committer: Committer) -> Self {
        issuers.keys().for_each(|issuer| metrics::known_prover(issuer));
        Prover { issuers, committer }
    }

    /// Proves possession of an issuer's key to the platform that gave the code; the same again while the certificate is
    /// valid gives the same one (invariant 4). From the reservation on it must run to completion: a caller that can be
    /// cancelled runs it in a task of its own.
    ///
    /// # Errors
    /// The first rule that the request breaks, or what is not available.
    pub(crate) async fn prove(&self, actor: Actor, code: PossessionCode, issuer: String) -> Result<Proof, ProofError> {
        let Some(ca) = self.issuers.get(&issuer) else {
            let known = self.issuers.keys().cloned().collect();
            return Err(ProofError::IssuerUnknown { name: issuer, known });
        };
        let certificate = ProofCertificate::new(&code, ca, Timestamp::now())?;
        let id = ProofId {
            issuer_id: registration::register(&self.committer, ca).await?.id,
            code: code.as_str().to_owned(),
        };
        let terms = ProofTerms { id, key_hash: certificate.key_hash, not_after: certificate.not_after };
        let (reservation, serial_number) = match self.committer.reserve_proof(terms, &actor, &issuer).await? {
            Reserved::New(reservation, serial_number) => (reservation, serial_number),
            Reserved::Existing(issued) => {
                note(&actor, &code, &issued);
                return Proof::new(issued);
            }
        };
        let signed = match Tbs::from_body(serial_number, &certificate.body, ca).sign().await {
            Ok(signed) => signed,
            Err(failure) => {
                reservation.abandon(&failure.to_string());
                return Err(failure.into());
            }
        };
        let issued = self.committer.record_proof(reservation, signed).await?;
        note(&actor, &code, &issued);
        Proof::new(issued)
    }
}

/// Counts a proof and says in the log who asked for it.
fn note(actor: &Actor, code: &PossessionCode, issued: &Issued) {
    metrics::possession_proof(issued.issuer(), issued.replay());
    let shape = code.shape().map_or_else(|| "no known platform's".to_owned(), |shape| shape.to_string());
    tracing::info!(
        by = %actor, issuer = issued.issuer(), code = shape, serial = %issued.serial_number(), retry = issued.replay(),
        "proved possession of the issuer's key"
    );
}
