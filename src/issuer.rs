//! The way of one CSR, whole, in one function: [`Issuance::issue`].
//!
//! ```text
//! csr ─► profile ─► Reserve ─► cert (TBS) ─► sign + check ─► Record ─► reply
//! DER,   policy,    journal    DER           HSM, own        journal
//! PoP    subject    +fsync                   signature       +fsync
//! ```
//!
//! Each step's type is the proof that the step before was done:
//! `VerifiedCsr → Approved → Reservation → Tbs → Signed → Issued`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    cert::Tbs,
    committer::{CommitError, Committer, Issued, Reserved},
    csr::{self, CsrError, RefusedKeys},
    ledger::{Actor, LedgerError, Records, Refusal},
    metrics,
    profile::{Applicant, Profile, ProfileError, Values},
    signer::SignError,
};

/// One certificate wanted.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// Who asks: the station's `<line>/<station>`.
    pub station: Arc<str>,
    /// The same as an actor of the ledger.
    pub actor: Actor,
    /// The device's id.
    pub device: String,
    /// The order's id.
    pub order: String,
    /// The profile's name.
    pub profile: String,
    /// DER or PEM.
    pub csr: Bytes,
    /// The device's certificate was scrapped or revoked, and it is to have a new one.
    pub reissue: bool,
}

/// Why no certificate was issued.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssueError {
    /// A field is not as the protocol demands.
    #[error("{0}")]
    RequestInvalid(String),
    /// There is no such profile.
    #[error("there is no profile \"{0}\"; GetIssuer lists those that this station may use")]
    ProfileUnknown(String),
    /// The CSR is refused.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The profile refuses.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The ledger's rules refuse.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The HSM cannot sign now.
    #[error("the HSM cannot sign now")]
    HsmUnavailable {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// The journal cannot be written now.
    #[error("the ledger cannot record now: {0}")]
    StorageUnavailable(String),
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    Draining,
    /// The log has what happened.
    #[error("internal error; the daemon's log says more")]
    Internal,
}

/// Everything that issuing needs. One a daemon.
pub struct Issuance {
    profiles: BTreeMap<String, Profile>,
    refused_keys: RefusedKeys,
    committer: Committer,
    records: Arc<dyn Records>,
}

impl fmt::Debug for Issuance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

impl Issuance {
    /// Joins the policy (profiles and keys that no device may have) and the ledger's two sides.
    pub fn new(
        profiles: impl IntoIterator<Item = Profile>,
        refused_keys: RefusedKeys,
        committer: Committer,
        records: Arc<dyn Records>,
    ) -> Self {
        let profiles = profiles.into_iter().map(|profile| (profile.name().to_owned(), profile)).collect();
        Issuance { profiles, refused_keys, committer, records }
    }

    /// The profiles, by name.
    pub fn profiles(&self) -> &BTreeMap<String, Profile> {
        &self.profiles
    }

    /// The committer.
    pub fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Issues one certificate. From the reservation on it must run to its end, whether the station is still there or
    /// not; a caller that can be cancelled runs it in a task of its own.
    ///
    /// # Errors
    /// The first rule that the request breaks, or what is not available.
    pub async fn issue(&self, request: IssueRequest) -> Result<Issued, IssueError> {
        let started = Instant::now();
        check_device_id(&request.device)?;
        let profile = self.profiles.get(&request.profile).ok_or(IssueError::ProfileUnknown(request.profile))?;

        let csr = csr::verify(&request.csr, &self.refused_keys)?;
        let attributes = self.order_attributes(profile, &request.order).await?;
        let values = Values {
            device: &request.device,
            order: &request.order,
            station: &request.station,
            attributes: &attributes,
        };
        let approved = profile.approve(csr, &Applicant { values, now: Timestamp::now() })?;
        let reservation = match self.committer.reserve(&approved, &request.actor, request.reissue).await? {
            Reserved::New(reservation) => reservation,
            Reserved::Existing(issued) => {
                metrics::certificate(profile.name(), true, started.elapsed());
                return Ok(issued);
            }
        };
        let tbs = Tbs::new(reservation, &approved);
        let signed = match tbs.sign().await {
            Ok(signed) => signed,
            Err((reservation, failure)) => {
                tracing::warn!(device = request.device, serial = %reservation.serial_number(), error = %failure, "not signed");
                reservation.abandon(&failure.to_string());
                return Err(failure.into());
            }
        };
        let issued = self.committer.record(signed).await?;
        metrics::certificate(profile.name(), false, started.elapsed());
        Ok(issued)
    }
}

impl Issuance {
    /// The order's attributes, which never change, for a profile whose certificates show some.
    async fn order_attributes(&self, profile: &Profile, order: &str) -> Result<BTreeMap<String, String>, IssueError> {
        if profile.order_attributes().is_empty() {
            return Ok(BTreeMap::new());
        }
        let (records, id) = (Arc::clone(&self.records), order.to_owned());
        // It may have to be read from the disk.
        let found = tokio::task::spawn_blocking(move || records.order(&id)).await;
        match found.map_err(|_| IssueError::Internal)? {
            Ok(Some(order)) => Ok(order.terms.attributes),
            Ok(None) => Err(Refusal::OrderUnknown(order.to_owned()).into()),
            Err(error) => {
                tracing::error!(%error, order, "the order could not be read");
                Err(IssueError::Internal)
            }
        }
    }
}

/// The rule of the protocol for device ids; stations use them as file names.
fn check_device_id(id: &str) -> Result<(), IssueError> {
    check_id("device_id", id, 128)
}

/// 1 to `longest` characters of `A-Z a-z 0-9 . _ : -`, the first a letter or digit.
///
/// # Errors
/// [`IssueError::RequestInvalid`], which names the field and its rule.
pub fn check_id(field: &str, id: &str, longest: usize) -> Result<(), IssueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && id.len() <= longest && id.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = id.chars().take(40).collect();
    Err(IssueError::RequestInvalid(format!(
        "{field} {shown:?} must be 1 to {longest} of the characters A-Z a-z 0-9 . _ : - and begin with a letter or digit"
    )))
}

impl From<CommitError> for IssueError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused(refusal) => IssueError::Refused(refusal),
            CommitError::Storage(error) => match &*error {
                LedgerError::Write(cause) => IssueError::StorageUnavailable(cause.to_string()),
                LedgerError::NoRoom { .. } => IssueError::StorageUnavailable(error.to_string()),
                LedgerError::Index(error) => IssueError::StorageUnavailable(error.for_peers().into()),
                // Logged by the committer.
                _ => IssueError::Internal,
            },
            CommitError::Closed => IssueError::Draining,
        }
    }
}

impl From<SignError> for IssueError {
    fn from(SignError::Unavailable { retry_after, .. }: SignError) -> Self {
        IssueError::HsmUnavailable { retry_after }
    }
}
