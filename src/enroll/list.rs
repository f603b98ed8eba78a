//! The list of what was enrolled where there was no daemon: a line for each certificate, signed by the station CA, so that
//! a daemon can record later who enrolled whom and when.
//!
//! A line is a JSON object: `note`, a text that is a JSON object itself, and `signature`, over `birthmark enrolment 1`, a
//! newline and that text.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ca::{Certified, StationCa, enrolment},
    error::EnrollError,
};
use crate::{
    ceremony::Certificate,
    identity::Identity,
    ledger::{Actor, Enrolment, EnrolmentMethod},
    signer::SignatureAlgorithm,
    x509::{self, GeneralName},
};

/// What the signature is over, before the note: no other text that the key signs begins so.
const CONTEXT: &str = "birthmark enrolment 1\n";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    note: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Note {
    identity: String,
    /// DER, base64.
    certificate: String,
    method: EnrolmentMethod,
    enrolled_at: Timestamp,
    enrolled_by: String,
}

/// Why a line is none that can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is none of this form.
    #[error("it is not a line that \"birthmark station enroll\" writes")]
    Form,
    /// Nobody who is trusted signed it.
    #[error("no CA of [server] client_ca has signed it")]
    Signature,
    /// Its certificate is not what the line says.
    #[error("its certificate is not that of {0}")]
    Identity(String),
}

/// Lines of the list.
#[derive(Debug)]
pub struct Listed;

impl Listed {
    /// Makes a line.
    ///
    /// # Errors
    /// If the CA's key does not sign.
    pub fn line(
        ca: &StationCa,
        certified: &Certified,
        identity: &Identity,
        method: EnrolmentMethod,
        by: &Actor,
    ) -> Result<String, EnrollError> {
        let note = Note {
            identity: identity.to_string(),
            certificate: BASE64_STANDARD.encode(certified.der()),
            method,
            enrolled_at: Timestamp::now(),
            enrolled_by: by.to_string(),
        };
        let text = |what: serde_json::Result<String>| what.map_err(|error| EnrollError::Issue(error.to_string()));
        let note = text(serde_json::to_string(&note))?;
        let signature = BASE64_STANDARD.encode(ca.sign(format!("{CONTEXT}{note}").as_bytes())?);
        text(serde_json::to_string(&Line { note, signature }))
    }

    /// Reads a line; one of these CA certificates (DER) must have signed it, and issued its certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str, cas: &[Vec<u8>]) -> Result<Enrolment, ListError> {
        let Line { note, signature } = serde_json::from_str(line).map_err(|_| ListError::Form)?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| ListError::Form)?;
        let signed = format!("{CONTEXT}{note}");
        let cas = cas.iter().filter_map(|der| Certificate::from_der(der).ok());
        let signers = cas.filter(|ca| {
            SignatureAlgorithm::for_key(ca.key.kind)
                .is_ok_and(|algorithm| ca.key.verifies(algorithm, signed.as_bytes(), &signature))
        });
        let signers: Vec<_> = signers.collect();
        if signers.is_empty() {
            return Err(ListError::Signature);
        }
        let Note { identity, certificate, method, enrolled_at, enrolled_by } =
            serde_json::from_str(&note).map_err(|_| ListError::Form)?;
        let der = BASE64_STANDARD.decode(certificate).map_err(|_| ListError::Form)?;
        let certificate = Certificate::from_der(&der).map_err(|_| ListError::Form)?;
        let identity: Identity = identity.parse().map_err(|_| ListError::Form)?;
        let issued = signers.iter().any(|ca| ca.check_issued(&certificate).is_ok());
        if !issued || !names(certificate.parsed(), &identity) {
            return Err(ListError::Identity(identity.to_string()));
        }
        // As the journal has times: to the microsecond.
        let enrolled_at = Timestamp::from_microsecond(enrolled_at.as_microsecond()).map_err(|_| ListError::Form)?;
        let listed = Some((enrolled_at, Actor(enrolled_by.into()))).filter(|(_, by)| !by.0.is_empty());
        Ok(Enrolment { listed, ..enrolment(&certificate, &identity, method) })
    }
}

/// Whether a certificate is this identity's.
fn names(certificate: &x509::Certificate, identity: &Identity) -> bool {
    let names = certificate.subject_alt_names().unwrap_or_default();
    names.iter().any(|name| matches!(name, GeneralName::Uri(uri) if *uri == identity.to_string()))
}
