//! The path of one CSR, whole, in one function: [`Issuance::issue`].
//!
//! ```text
//! csr ─► profile ─► Reserve ─► cert (TBS) ─► sign + check ─► Record ─► reply
//! DER,   policy,    journal    DER           HSM,            journal
//! PoP    subject    +fsync                   self-check      +fsync
//! ```
//!
//! Each step's type is the proof that the step before was done:
//! `VerifiedCsr → Approved → ReservedSerial → Tbs → Signed → Issued`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    ca::{IssuingCa, NoIssuer, issuer_of},
    cert::Tbs,
    committer::{self, CommitError, Committer, Issued, Reserved},
    csr::{self, CsrError, RefusedKeys},
    fairness::FairShare,
    id::{DeviceId, OrderId},
    ledger::{Actor, LedgerError, Order, RecordedIssuer, Records, Refusal, caught_up, found},
    live::Live,
    metrics::{Laps, Step},
    profile::{Profile, ProfileError, Profiles, RequestContext, Values},
    refusals::Refusals,
    registration::register,
    signer::SignError,
    throughput::Throughput,
};

/// One certificate wanted.
#[derive(Clone, Debug)]
pub(crate) struct IssueRequest {
    /// Who asks: the station's `<line>/<station>`.
    pub station: Arc<str>,
    /// The same as an actor of the ledger.
    pub actor: Actor,
    /// The device.
    pub device: DeviceId,
    /// The order that it is charged to.
    pub order: Option<OrderId>,
    /// The profile's name; empty: the order's.
    pub profile: String,
    /// DER or PEM.
    pub csr: Bytes,
    /// The device's certificate was scrapped or revoked, and it is to have a new one.
    pub reissue: bool,
    /// The device has shown its vending code, which says by itself whether that is so.
    pub by_code: bool,
}

/// A certificate, and the issuer that stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct IssuedBy {
    /// The certificate.
    pub issued: Issued,
    /// Its issuer in the ledger.
    pub issuer: Option<Arc<RecordedIssuer>>,
}

/// Why no certificate was issued.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// There is no such profile.
    #[error(
        "{}{}",
        if .wanted.is_empty() { "name a profile; a request without one is for its order's profile, and this one names no order".to_owned() }
        else { format!("there is no profile {}", crate::quote::quoted(.wanted)) },
        if .known.is_empty() { String::new() } else { format!("; the profiles are {}", .known.join(", ")) }
    )]
    ProfileUnknown {
        /// As it was asked for; empty: none was named, and no order.
        wanted: String,
        /// Those that there are, for operators.
        known: Vec<String>,
    },
    /// The CSR is refused.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The profile refuses.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Nothing was reserved or recorded.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The certificate was issued before, and no chain may be shown beside it.
    #[error(transparent)]
    Issuer(#[from] NoIssuer),
    /// The HSM cannot sign now.
    #[error("the HSM cannot sign now")]
    HsmUnavailable {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// A bug; the log has what happened.
    #[error("internal error; the daemon's log says more")]
    Internal,
}

/// Everything that issuing needs; a daemon has one.
pub(crate) struct Issuance {
    policy: Arc<Live<Policy>>,
    committer: Committer,
    records: Arc<dyn Records>,
    refusals: Arc<Refusals>,
    throughput: Arc<Throughput>,
    /// For each issuer, how its capacity is shared among the stations.
    shares: BTreeMap<String, Arc<FairShare>>,
}

/// The most requests that one peer may have in flight while others wait: enough for a batch of the committer, few
/// enough that they are done within some milliseconds.
pub(crate) const SHARE: usize = 32;

/// The requests for each HSM session: one that is signed, and one on its way to or from the committer.
const PER_SESSION: usize = 2;

/// What is issued, and to which keys not.
pub(crate) struct Policy {
    /// The profiles by their names.
    pub(crate) profiles: Profiles,
    /// The keys that no device may have.
    pub(crate) refused_keys: RefusedKeys,
}

impl fmt::Debug for Issuance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance").finish_non_exhaustive()
    }
}

impl Issuance {
    /// Joins the policy and the ledger's two sides. The policy may change; the issuers stay.
    pub(crate) fn new(
        policy: Arc<Live<Policy>>,
        issuers: &BTreeMap<String, Arc<IssuingCa>>,
        committer: Committer,
        records: Arc<dyn Records>,
    ) -> Self {
        let shares = issuers.values().map(|issuer| {
            let floor = SHARE.max(PER_SESSION * issuer.sessions());
            (issuer.name().to_owned(), FairShare::new(floor, committer::CAPACITY))
        });
        let shares = shares.collect();
        let refusals = Refusals::new(committer.clone());
        Issuance { policy, committer, records, refusals, throughput: Arc::default(), shares }
    }

    /// Where those who answer note what they refused.
    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// How many certificates were issued, and how long each took.
    pub(crate) fn throughput(&self) -> &Arc<Throughput> {
        &self.throughput
    }

    /// Verifies a CSR as [`Issuance::issue`] will, for those who must know before what it says.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn verify(&self, csr: &[u8]) -> Result<csr::VerifiedCsr, IssueError> {
        Ok(csr::verify(csr, &self.policy.get().refused_keys)?)
    }

    /// Issues one certificate. From the reservation on it must run to completion, whether the station is still
    /// connected or not; a caller that can be cancelled runs it in a task of its own.
    ///
    /// # Errors
    /// The first rule that the request breaks, or what is not available.
    pub(crate) async fn issue(&self, request: &IssueRequest) -> Result<IssuedBy, IssueError> {
        let mut laps = Laps::begin();
        // What is asked for is decided by the policy of this moment, whatever comes after it.
        let policy = self.policy.get();
        let of_order = match &request.order {
            Some(order) if request.profile.is_empty() => Some(self.order(order).await?.terms.profile),
            _ => None,
        };
        let profile = of_order.as_ref().unwrap_or(&request.profile);
        let unknown = || IssueError::ProfileUnknown { wanted: profile.clone(), known: Vec::new() };
        let profile = policy.profiles.get(profile).ok_or_else(unknown)?;
        csr::check_size(&request.csr)?;
        // What follows costs processor and HSM time, of which each station has its share, for each issuer.
        let _turn = match self.shares.get(profile.issuer_at(Timestamp::now()).name()) {
            Some(share) => Some(share.turn(&request.station).await),
            None => None,
        };
        laps.end(Step::Queue);

        // Recorded at the start, unless the clock was wrong then.
        let issuing = profile.issuer_at(Timestamp::now());
        if issuing.recorded().is_none() {
            register(&self.committer, issuing).await?;
        }

        laps.skip();
        let csr = csr::verify(&request.csr, &policy.refused_keys)?;
        laps.end(Step::Verify);
        let attributes = self.order_attributes(profile, request.order.as_ref()).await?;
        let values = Values {
            device: &request.device,
            order: request.order.as_ref(),
            station: &request.station,
            attributes: &attributes,
        };
        let approved = profile.approve(csr, &RequestContext { values, now: Timestamp::now() })?;
        if let Err(refusal) = approved.check_new(&request.device)
            && !self.has_certificate(&request.device).await?
            && !self.has_certificate_of_others(&request.device).await?
        {
            return Err(refusal.into());
        }
        // What cannot be signed is not reserved: each reservation during an outage would cost two entries of the
        // journal for nothing. A certificate that is there already needs no HSM.
        let signer = approved.issuer().signer();
        if !signer.can_sign() && !self.has_certificate(&request.device).await? {
            signer.ready().await?;
        }
        // Before the certificate, so that the ledger knows which pass it is.
        self.refusals.settle(request.device.as_str()).await;
        laps.skip();
        let reserved = match request.by_code {
            true => self.committer.redeem(approved.holder(), &request.actor).await?,
            false => self.committer.reserve(approved.holder(), &request.actor, request.reissue).await?,
        };
        laps.end(Step::Reserve);
        let (reservation, serial_number) = match reserved {
            Reserved::New(reservation, serial_number) => (reservation, serial_number),
            Reserved::Existing(issued) => {
                // Its own issuer, whatever has the name today.
                let named = (issued.issuer(), issued.issuer_id());
                let issuer = issuer_of(issued.certificate(), named, &self.records.issuers())?.clone();
                self.count(profile, true, &laps);
                return Ok(IssuedBy { issued, issuer: Some(issuer) });
            }
        };
        let tbs = Tbs::new(serial_number, &approved);
        let signed = match tbs.sign().await {
            Ok(signed) => signed,
            Err(failure) => {
                tracing::warn!(device = %request.device, serial = %reservation.serial_number(), error = %failure, "not signed");
                reservation.abandon(&failure.to_string());
                return Err(failure.into());
            }
        };
        laps.skip();
        let issued = self.committer.record(reservation, signed).await?;
        laps.end(Step::Record);
        self.count(profile, false, &laps);
        Ok(IssuedBy { issued, issuer: approved.issuer().recorded().cloned() })
    }

    fn count(&self, profile: &Profile, replay: bool, laps: &Laps) {
        let elapsed = laps.elapsed();
        profile.certificates().sent(replay, elapsed);
        self.throughput.note(replay, elapsed);
    }

    /// The order's attributes, which never change, for a profile whose certificates show some.
    async fn order_attributes(
        &self,
        profile: &Profile,
        order: Option<&OrderId>,
    ) -> Result<BTreeMap<String, String>, IssueError> {
        let Some(order) = order.filter(|_| !profile.order_attributes().is_empty()) else { return Ok(BTreeMap::new()) };
        Ok(self.order(order).await?.terms.attributes)
    }

    async fn order(&self, order: &OrderId) -> Result<Order, IssueError> {
        // Read on this thread: an order in use lies in memory, as each reservation under it needs it too, and a pool of
        // reading threads would be one that others can fill.
        match found(&*self.records, async || self.records.order(order.as_str()), |error| error).await {
            Ok(Some(order)) => Ok(order),
            Ok(None) => Err(CommitError::Refused(Refusal::OrderUnknown(order.to_string())).into()),
            Err(error) => {
                if !matches!(error, LedgerError::Unavailable { .. }) {
                    tracing::error!(%error, %order, "the order could not be read");
                }
                Err(CommitError::Storage(Arc::new(error)).into())
            }
        }
    }

    /// As [`Issuance::has_certificate`], of what another daemon of this ledger may have issued just now.
    async fn has_certificate_of_others(&self, device: &DeviceId) -> Result<bool, IssueError> {
        if self.records.looked().is_none() {
            return Ok(false);
        }
        caught_up(&*self.records).await.map_err(|error| CommitError::Storage(Arc::new(error)))?;
        self.has_certificate(device).await
    }

    /// Whether the device has a live certificate, so that the ledger answers the request by itself: with that
    /// certificate, or with a refusal.
    async fn has_certificate(&self, device: &DeviceId) -> Result<bool, IssueError> {
        let (records, id) = (Arc::clone(&self.records), device.clone());
        // It may have to be read from the disk.
        let found = tokio::task::spawn_blocking(move || records.by_device(id.as_str())).await;
        match found.map_err(|_| IssueError::Internal)? {
            Ok(record) => Ok(record.is_some_and(|record| record.state.is_live())),
            Err(error) => {
                tracing::error!(%error, %device, "the device's record could not be read");
                Err(CommitError::Storage(Arc::new(error)).into())
            }
        }
    }
}

impl From<SignError> for IssueError {
    fn from(SignError::Unavailable { retry_after, .. }: SignError) -> Self {
        IssueError::HsmUnavailable { retry_after }
    }
}
