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
    committer::{self, CommitError, Committer, Issued, Reserved},
    csr::{self, CsrError, RefusedKeys},
    fairness::FairShare,
    ledger::{Actor, LedgerError, Records, Refusal},
    metrics,
    profile::{Applicant, Profile, ProfileError, Profiles, Values},
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
    #[error("there is no profile {}", crate::quote::quoted(.0))]
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
    /// What is recorded cannot be read. The log names the place.
    #[error(
        "what is recorded about this cannot be read: the ledger's storage is damaged; the daemon's log and /readyz say where"
    )]
    StorageDamaged,
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    Draining,
    /// The log has what happened.
    #[error("internal error; the daemon's log says more")]
    Internal,
}

/// Everything that issuing needs. One a daemon.
pub struct Issuance {
    profiles: Arc<Profiles>,
    refused_keys: RefusedKeys,
    committer: Committer,
    records: Arc<dyn Records>,
    /// What is under way at each issuer, shared among the stations.
    shares: BTreeMap<String, Arc<FairShare>>,
}

/// The most requests that one peer may have under way while others want to as well, unless they ask for more: enough for
/// a batch of the committer, few enough that they are through in some milliseconds.
pub(crate) const SHARE: usize = 32;

/// The longest id that an order may have, in characters.
pub(crate) const LONGEST_ORDER_ID: usize = 64;

/// How many requests for each HSM session: one that is signed, and one on its way to or from the committer.
const PER_SESSION: usize = 2;

impl fmt::Debug for Issuance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

impl Issuance {
    /// Joins the policy (profiles and keys that no device may have) and the ledger's two sides.
    pub fn new(
        profiles: Arc<Profiles>,
        refused_keys: RefusedKeys,
        committer: Committer,
        records: Arc<dyn Records>,
    ) -> Self {
        let issuers = profiles.values().flat_map(|profile| profile.issuers()).map(|(_, issuer)| issuer);
        let shares = issuers.map(|issuer| {
            let floor = SHARE.max(PER_SESSION * issuer.sessions());
            (issuer.name().to_owned(), FairShare::new(floor, committer::CAPACITY))
        });
        let shares = shares.collect();
        Issuance { profiles, refused_keys, committer, records, shares }
    }

    /// Issues one certificate. From the reservation on it must run to its end, whether the station is still there or
    /// not; a caller that can be cancelled runs it in a task of its own.
    ///
    /// # Errors
    /// The first rule that the request breaks, or what is not available.
    pub async fn issue(&self, request: IssueRequest) -> Result<Issued, IssueError> {
        let started = Instant::now();
        check_device_id(&request.device)?;
        if !request.order.is_empty() {
            check_id("order", &request.order, LONGEST_ORDER_ID)?;
        }
        let profile = self.profiles.get(&request.profile).ok_or(IssueError::ProfileUnknown(request.profile))?;
        csr::check_size(&request.csr)?;
        // From here on it costs: each station has its share, of each issuer and its HSM.
        let _turn = match self.shares.get(profile.issuer_at(Timestamp::now()).name()) {
            Some(share) => Some(share.turn(&request.station).await),
            None => None,
        };

        let csr = csr::verify(&request.csr, &self.refused_keys)?;
        let attributes = self.order_attributes(profile, &request.order)?;
        let values = Values {
            device: &request.device,
            order: &request.order,
            station: &request.station,
            attributes: &attributes,
        };
        let approved = profile.approve(csr, &Applicant { values, now: Timestamp::now() })?;
        // What cannot be signed is not reserved: each reservation of an outage would be two entries of the journal for
        // nothing. A certificate that is there already needs no HSM.
        let signer = approved.issuer().signer();
        if !signer.can_sign() && !self.has_certificate(&request.device).await? {
            signer.ready().await?;
        }
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
    fn order_attributes(&self, profile: &Profile, order: &str) -> Result<BTreeMap<String, String>, IssueError> {
        if profile.order_attributes().is_empty() {
            return Ok(BTreeMap::new());
        }
        // Read here and now: an order in use lies in memory, as each reservation under it needs it too, and a pool of
        // threads for reading would be one that others can fill.
        match self.records.order(order) {
            Ok(Some(order)) => Ok(order.terms.attributes),
            Ok(None) => Err(Refusal::OrderUnknown(order.to_owned()).into()),
            Err(error) => {
                tracing::error!(%error, order, "the order could not be read");
                Err(if error.is_damage() { IssueError::StorageDamaged } else { IssueError::Internal })
            }
        }
    }
}

impl Issuance {
    /// Whether the device has a live certificate, so that the ledger answers the request by itself: with that
    /// certificate, or with a refusal.
    async fn has_certificate(&self, device: &str) -> Result<bool, IssueError> {
        let (records, id) = (Arc::clone(&self.records), device.to_owned());
        // It may have to be read from the disk.
        let found = tokio::task::spawn_blocking(move || records.by_device(&id)).await;
        match found.map_err(|_| IssueError::Internal)? {
            Ok(record) => Ok(record.is_some_and(|record| record.state.is_live())),
            Err(error) => {
                tracing::error!(%error, device, "the device's record could not be read");
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
                LedgerError::NotWritten(cause) => IssueError::StorageUnavailable(cause.to_string()),
                LedgerError::Full { .. } => IssueError::StorageUnavailable(error.to_string()),
                error if error.is_damage() => IssueError::StorageDamaged,
                LedgerError::Unavailable { notice, .. } => IssueError::StorageUnavailable((*notice).into()),
                // Logged by the committer.
                _ => IssueError::Internal,
            },
            // Logged by the committer.
            CommitError::Unexpected => IssueError::Internal,
            CommitError::Closed => IssueError::Draining,
        }
    }
}

impl From<SignError> for IssueError {
    fn from(SignError::Unavailable { retry_after, .. }: SignError) -> Self {
        IssueError::HsmUnavailable { retry_after }
    }
}
