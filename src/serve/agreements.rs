//! Whether different operators for security agreed to a statement: what the daemon would ask of their certificates.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, UnixTime};

use super::peers::ClientCrl;
use crate::{
    agreement::{self, AgreementError},
    config::{Config, ConfigError},
    grpc::{Access, holder, tls},
    identity::{Duty, Identity, Role},
    ledger::{Actor, Agreement, EnrolledPeer},
};

/// How many operators have to agree.
const NEEDED: usize = 2;

/// Why what was agreed to cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// The configuration, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A signature.
    #[error(transparent)]
    Agreement(#[from] AgreementError),
    /// The CA certificates of clients.
    #[error("{0}")]
    ClientCa(String),
    /// A certificate that the daemon would not let in.
    #[error("{}: the certificate of {holder} is not taken: {error}", path.display())]
    Certificate {
        /// The signature's file.
        path: PathBuf,
        /// Who holds it, as it says.
        holder: String,
        /// Why not.
        error: rustls::Error,
    },
    /// Somebody whose word does not count here.
    #[error("{}: {holder} is no operator with the duty \"security\"", path.display())]
    Role {
        /// The signature's file.
        path: PathBuf,
        /// Who it is.
        holder: String,
    },
    /// One person, or one key, twice.
    #[error("{}: {holder} has signed already; another operator must agree", path.display())]
    Twice {
        /// The signature's file.
        path: PathBuf,
        /// Who it is.
        holder: String,
    },
    /// Not enough.
    #[error("{found} operator{} agreed, and {NEEDED} different ones with the duty \"security\" must", if *found == 1 { "" } else { "s" })]
    TooFew {
        /// How many did.
        found: usize,
    },
}

/// Verifies that different operators with the duty `security` signed this statement's text, with certificates that the daemon
/// of this configuration would take now. `peers`: who was revoked.
///
/// # Errors
/// What is wrong with the first signature that is not taken, or that there are too few.
pub fn agreements(
    config: &Config,
    peers: &[EnrolledPeer],
    statement: &str,
    files: &[PathBuf],
) -> Result<Vec<Agreement>, Disagreement> {
    let access = Access::new();
    peers.iter().for_each(|peer| access.note(peer));
    access.set_listed(ClientCrl::read(config)?.1);
    let client_ca = config.resolve(config.server.client_ca.get_ref());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = tls::client_verifier(&client_ca, &access, &provider)
        .map_err(|error| Disagreement::ClientCa(error.to_string()))?;
    let (mut agreed, mut keys) = (Vec::<Agreement>::new(), HashSet::new());
    for path in files {
        let signed = agreement::read(path, statement)?;
        let chain: Vec<_> = signed.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let Some((certificate, others)) = chain.split_first() else { continue };
        let (identity, key) = holder(certificate);
        let name = named(path, identity.as_ref());
        verifier
            .verify_client_cert(certificate, others, UnixTime::now())
            .map_err(|error| Disagreement::Certificate { path: path.clone(), holder: name.clone(), error })?;
        let identity = identity
            .filter(|identity| identity.role() == Role::Operator && identity.duties().has(Duty::Security))
            .ok_or_else(|| Disagreement::Role { path: path.clone(), holder: name.clone() })?;
        let by = Actor(identity.actor().into());
        if agreed.iter().any(|agreement| agreement.by == by) || !keys.insert(key) {
            return Err(Disagreement::Twice { path: path.clone(), holder: name });
        }
        agreed.push(Agreement { by, certificate: certificate.to_vec(), signature: signed.signature });
    }
    if agreed.len() < NEEDED {
        return Err(Disagreement::TooFew { found: agreed.len() });
    }
    Ok(agreed)
}

/// Who holds a certificate, for people.
fn named(path: &Path, identity: Option<&Identity>) -> String {
    identity.map_or_else(|| format!("the one in {}", path.display()), ToString::to_string)
}
