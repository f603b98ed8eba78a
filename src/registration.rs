//! Issuers are recorded in the ledger before they issue, so that each certificate stands for its own chain forever,
//! whatever the configuration says later.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ca::IssuingCa,
    committer::{CommitError, Committer},
    ledger::{IssuerTerms, RecordedIssuer},
};

/// Records an issuer, or finds that the same chain has its name already. Nothing happens the second time.
///
/// # Errors
/// The ledger cannot take it: the clock cannot be right, or the storage fails.
pub(crate) async fn register(committer: &Committer, issuer: &IssuingCa) -> Result<Arc<RecordedIssuer>, CommitError> {
    if let Some(recorded) = issuer.recorded() {
        return Ok(Arc::clone(recorded));
    }
    let chain = issuer.chain().iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect();
    let terms = IssuerTerms { name: issuer.name().to_owned(), chain, crl_shards: issuer.crl_shards().into() };
    let (recorded, new) = committer.add_issuer(terms).await?;
    if new {
        let why = match recorded.generation {
            1 => "its name is new in the ledger",
            _ => "its name had another chain before, which stays that of what was issued by it",
        };
        tracing::info!(
            issuer = recorded.name,
            generation = recorded.generation,
            id = recorded.id,
            subject = %issuer.certificates().issuing().subject(),
            serial_number = hex::encode(&issuer.certificates().issuing().serial_number),
            why,
            "issuer recorded"
        );
    }
    issuer.set_recorded(Arc::clone(&recorded));
    Ok(recorded)
}
