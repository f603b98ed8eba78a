//! Statements of what is to be accepted while no daemon runs, and operators' agreements to them, as files that go from one
//! machine to another.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type};
use serde::{Deserialize, Serialize};

use crate::{
    ledger::{Acceptable, Actor},
    pem::{self, PemError, ReadError},
    private_key::{self, KeyError},
    signer::{KeyKind, PublicKey, SpkiError},
    text_file::{self, TextError},
    x509::Certificate,
};

/// For how long a statement may be used after it was made.
const VALID: SignedDuration = SignedDuration::from_hours(24);

/// The longest statement or agreement, in bytes.
const LONGEST: u64 = 1 << 16;

/// Stands before a statement that is signed, so that the signature is one of nothing else.
const CONTEXT: &str = "birthmark statement\n";

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// That the journal lacks entries.
    Loss,
    /// That the clock is right.
    Clock,
}

/// What is to be accepted, in which ledger as it is now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What of the two.
    pub accepts: Kind,
    /// What exactly.
    pub what: String,
    /// Why, for people.
    pub reason: String,
    /// The ledger's id, in hex.
    pub ledger: String,
    /// How many entries the journal has.
    pub entries: u64,
    /// Their chain hash, in hex.
    pub chain_hash: String,
    /// Who made the statement.
    pub made_by: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Until when it may be used.
    pub valid_until: Timestamp,
}

/// A signature over a statement, as a file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    /// PEM: the operator's, and those between it and the station CA.
    certificates: String,
    /// Base64.
    signature: String,
}

/// A signature over a statement that its certificate's key made. Whose the certificate is has to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// DER: the operator's, and those between it and the station CA.
    pub chain: Vec<Vec<u8>>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a statement or an agreement cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgreementError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: TextError,
    },
    /// It is something else.
    #[error("{} is no {what}: {error}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The signature is not in base64.
    #[error("{}: the signature is not in base64: {error}", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: base64::DecodeError,
    },
    /// It has no certificates in PEM.
    #[error("{}: it has no usable certificate: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: PemError,
    },
    /// It has no certificate.
    #[error("{}: it has no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The certificate's key cannot be used.
    #[error("{}: the certificate's key cannot be used: {error}", path.display())]
    CertificateKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: SpkiError,
    },
    /// The signature is that of another key, or over another statement.
    #[error(
        "{}: the signature is not over this statement by its certificate's key; each octet of the statement counts",
        .0.display()
    )]
    Wrong(PathBuf),
    /// The operator's certificate cannot be read.
    #[error("{}: {error}", path.display())]
    OwnCertificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: ReadError,
    },
    /// The operator's certificate is not valid now.
    #[error("{}: the certificate is valid from {from} to {until} only, so nobody would take its agreement", path.display())]
    OwnValidity {
        /// The file.
        path: PathBuf,
        /// From when it is valid.
        from: Timestamp,
        /// Until when it is valid.
        until: Timestamp,
    },
    /// The operator's key cannot be used.
    #[error("{}: {error}", path.display())]
    OwnKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: KeyError,
    },
    /// The operator's key does not sign.
    #[error("the key cannot be used: {0}")]
    Sign(rustls::Error),
    /// It is older than it may be, or not yet made.
    #[error("the statement may be used from {from} to {until}, and it is {now}; write a new one, and have it signed")]
    OutOfTime {
        /// When it was made.
        from: Timestamp,
        /// Until when it may be used.
        until: Timestamp,
        /// What time it is.
        now: Timestamp,
    },
    /// Not the ids of a ledger.
    #[error("the statement names no ledger: {0}")]
    Ledger(#[from] hex::FromHexError),
}

impl Statement {
    /// Of what there is to accept now.
    pub fn new(accepts: Kind, found: &Acceptable, reason: String, by: &Actor, now: Timestamp) -> Statement {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Statement {
            accepts,
            what: found.what.clone(),
            reason,
            ledger: hex::encode(found.ledger),
            entries: found.entries,
            chain_hash: hex::encode(found.chain),
            made_by: by.to_string(),
            made_at: now,
            valid_until: now.saturating_add(VALID).unwrap_or(now),
        }
    }

    /// Its text, as it is signed and kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads one, and its text as it stands.
    ///
    /// # Errors
    /// If the file cannot be read or is something else.
    pub fn read(path: &Path) -> Result<(Statement, String), AgreementError> {
        let text = text_file::read(path, LONGEST)
            .map_err(|error| AgreementError::Unreadable { path: path.to_owned(), error })?;
        let statement = serde_json::from_str(&text).map_err(|error| AgreementError::Form {
            path: path.to_owned(),
            what: "statement",
            error,
        })?;
        Ok((statement, text))
    }

    /// Whether it may be used now.
    ///
    /// # Errors
    /// If it is too old, or is of the future.
    pub fn check_time(&self, now: Timestamp) -> Result<(), AgreementError> {
        let (from, until) =
            (self.made_at, self.valid_until.min(self.made_at.saturating_add(VALID).unwrap_or(self.made_at)));
        if (from..=until).contains(&now) { Ok(()) } else { Err(AgreementError::OutOfTime { from, until, now }) }
    }

    /// What it is about.
    ///
    /// # Errors
    /// If it names no ledger or no chain hash.
    pub fn acceptable(&self) -> Result<Acceptable, AgreementError> {
        let (mut ledger, mut chain) = ([0; 16], [0; 32]);
        hex::decode_to_slice(&self.ledger, &mut ledger)?;
        hex::decode_to_slice(&self.chain_hash, &mut chain)?;
        Ok(Acceptable { ledger, entries: self.entries, chain, what: self.what.clone() })
    }
}

/// Whether the certificate of an operator's folder is valid now, as it must be where the agreement is taken.
///
/// # Errors
/// If it is not, or cannot be read.
pub fn check_validity(identity: &Path, now: Timestamp) -> Result<(), AgreementError> {
    let path = identity.join("cert.pem");
    let chain =
        pem::read_certificates(&path).map_err(|error| AgreementError::OwnCertificate { path: path.clone(), error })?;
    let certificate = chain.first().and_then(|der| Certificate::from_der(der).ok());
    let certificate = certificate.ok_or_else(|| AgreementError::NoCertificate(path.clone()))?;
    let moment = |time| Timestamp::try_from(SystemTime::from(time)).unwrap_or(Timestamp::MAX);
    let (from, until) = (moment(certificate.not_before()), moment(certificate.not_after()));
    if (from..=until).contains(&now) { Ok(()) } else { Err(AgreementError::OwnValidity { path, from, until }) }
}

/// Signs a statement's text with the key of an operator's folder (`cert.pem`, `key.pem`). Gives the file's content.
///
/// # Errors
/// If certificate or key cannot be used.
pub fn sign(statement: &str, identity: &Path) -> Result<String, AgreementError> {
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| identity.join(name));
    let own_key = |error| AgreementError::OwnKey { path: key.clone(), error };
    let chain = pem::read_certificates(&certificate)
        .map_err(|error| AgreementError::OwnCertificate { path: certificate.clone(), error })?;
    let private_key = private_key::read(&key).map_err(own_key)?;
    let signing = any_supported_type(&private_key).map_err(AgreementError::Sign)?;
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP521_SHA512,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let signer = signing.choose_scheme(&schemes);
    let signer =
        signer.ok_or_else(|| AgreementError::Sign(rustls::Error::General("a kind that is not known".into())))?;
    let signature = signer.sign(&message(statement)).map_err(AgreementError::Sign)?;
    let certificates: String = chain.iter().map(|der| pem::certificate_pem(der)).collect();
    let file = SignatureFile { certificates, signature: BASE64_STANDARD.encode(&signature) };
    let content = serde_json::to_string_pretty(&file).unwrap_or_default() + "\n";
    // A key of another certificate is found here, and not where the files are taken.
    verified(&certificate, statement, chain, signature)?;
    Ok(content)
}

/// Reads a signature, which must be over this statement's text.
///
/// # Errors
/// If it is not, or cannot be read.
pub fn read(path: &Path, statement: &str) -> Result<Signed, AgreementError> {
    let text =
        text_file::read(path, LONGEST).map_err(|error| AgreementError::Unreadable { path: path.to_owned(), error })?;
    let file: SignatureFile = serde_json::from_str(&text).map_err(|error| AgreementError::Form {
        path: path.to_owned(),
        what: "agreement",
        error,
    })?;
    let signature = BASE64_STANDARD
        .decode(&file.signature)
        .map_err(|error| AgreementError::Signature { path: path.to_owned(), error })?;
    let blocks = pem::blocks(file.certificates.as_bytes())
        .map_err(|error| AgreementError::Pem { path: path.to_owned(), error })?;
    let chain = blocks.into_iter().filter(pem::Block::is_certificate).map(|block| block.der).collect();
    verified(path, statement, chain, signature)
}

fn message(statement: &str) -> Vec<u8> {
    [CONTEXT, statement].concat().into_bytes()
}

/// The signature, if the first certificate's key made it.
fn verified(path: &Path, statement: &str, chain: Vec<Vec<u8>>, signature: Vec<u8>) -> Result<Signed, AgreementError> {
    let certificate = chain.first().and_then(|der| Certificate::from_der(der).ok());
    let certificate = certificate.ok_or_else(|| AgreementError::NoCertificate(path.to_owned()))?;
    let key = PublicKey::from_spki(&certificate.spki)
        .map_err(|error| AgreementError::CertificateKey { path: path.to_owned(), error })?;
    let algorithm: &dyn VerificationAlgorithm = match key.kind {
        KeyKind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::P384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyKind::P521 => &signature::ECDSA_P521_SHA512_ASN1,
        KeyKind::Ed25519 => &signature::ED25519,
        KeyKind::Rsa { .. } => &signature::RSA_PSS_2048_8192_SHA256,
    };
    match UnparsedPublicKey::new(algorithm, &key.bits).verify(&message(statement), &signature) {
        Ok(()) => Ok(Signed { chain, signature }),
        Err(_) => Err(AgreementError::Wrong(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    /// With every kind of key that operators have.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
    fn statement_is_signed_by_every_kind_of_key() {
        let found = Acceptable { ledger: [1; 16], entries: 7, chain: [2; 32], what: "what".into() };
        let by = Actor("operator:anna".into());
        let statement = Statement::new(Kind::Loss, &found, "why".into(), &by, Timestamp::now());
        assert_eq!(statement.acceptable().unwrap(), found);
        let text = statement.to_text();
        let kinds: [&SignatureAlgorithm; 5] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ];
        for kind in kinds {
            let folder = tempfile::tempdir().unwrap();
            let key = KeyPair::generate_for(kind).unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            let (key_file, file) = (folder.path().join("key.pem"), folder.path().join("s.approved"));
            std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
            std::fs::write(&key_file, key.serialize_pem()).unwrap();
            std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o644)).unwrap();
            assert!(matches!(sign(&text, folder.path()), Err(AgreementError::OwnKey { .. })), "{kind:?}");
            std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
            std::fs::write(&file, sign(&text, folder.path()).unwrap()).unwrap();
            assert_eq!(read(&file, &text).unwrap().chain, [certificate.der().to_vec()], "{kind:?}");
            assert!(matches!(read(&file, &format!("{text} ")), Err(AgreementError::Wrong(_))), "{kind:?}");
        }
    }
}
