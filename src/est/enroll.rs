//! Who may have which certificate.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    answer::EstError,
    label::Label,
    operation::Operation,
    shared::{Est, Shared},
    tls::TlsSetup,
};
use crate::{
    committer::CommitError,
    config::CsrSubject,
    csr::VerifiedCsr,
    grpc::{Credentials, RequestError, refused},
    id::{DeviceId, OrderId},
    issuer::{IssueError, IssueRequest},
    ledger::{self, Actor, LedgerError, Order, Record, RecordState, Records, Refusal, RevocationReason, VendingCode},
    pattern,
    profile::{Profile, Profiles, RequestContext, Values},
    quote::quoted,
    serial::SerialNumber,
    x509::Certificate,
};

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) enum Caller {
    /// A holder of a certificate of the station CA.
    Peer(Credentials),
    /// A holder of a certificate of one of our issuers.
    Device(Device),
    /// Somebody without a certificate.
    Stranger,
}

/// A device, by its certificate.
#[derive(Debug)]
pub(super) struct Device {
    certificate: Vec<u8>,
    serial_number: SerialNumber,
}

impl Caller {
    /// By the certificates that the TLS handshake verified.
    pub(super) fn of(tls: &TlsSetup, chain: &[CertificateDer<'_>]) -> Caller {
        let Some(certificate) = chain.first() else { return Caller::Stranger };
        if tls.is_of_station_ca(chain) {
            return Caller::Peer(Credentials::of(certificate, &tls.access));
        }
        let serial_number = Certificate::from_der(certificate).ok();
        let serial_number = serial_number.and_then(|parsed| SerialNumber::try_from(&*parsed.serial_number).ok());
        match serial_number {
            Some(serial_number) => Caller::Device(Device { certificate: certificate.to_vec(), serial_number }),
            None => Caller::Stranger,
        }
    }

    /// What the roster calls it, if it is one of those that are there.
    pub(super) fn actor(&self) -> Option<Arc<str>> {
        match self {
            Caller::Peer(peer) => peer.actor(),
            Caller::Device(_) | Caller::Stranger => None,
        }
    }

    /// Whether it has no certificate.
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self, Caller::Stranger)
    }

    /// Whether it may enrol at all, as far as can be told before its CSR is known.
    pub(super) fn check(&self) -> Result<(), EstError> {
        match self {
            Caller::Peer(peer) => peer.station().map(drop).map_err(forbidden),
            Caller::Device(_) => Ok(()),
            Caller::Stranger => Err(EstError::Unauthenticated(
                "enrolling needs the certificate of a station, the live certificate of the device that enrols again, or \
                 the device's code by HTTP Basic"
                    .into(),
            )),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Peer(peer) => peer.fmt(f),
            Caller::Device(device) => write!(f, "the device with the certificate {}", device.serial_number),
            Caller::Stranger => f.write_str("a client without a certificate"),
        }
    }
}

/// The profile of a label.
pub(super) fn profile<'a>(profiles: &'a Profiles, label: Option<&Label>) -> Result<&'a Profile, EstError> {
    let label = label.ok_or(EstError::NoLabel)?;
    profiles.get(&label.profile).ok_or_else(|| EstError::ProfileUnknown(label.profile.clone()))
}

/// The chains of the label's issuers, those that it moves over to included; without a label those of all. Each certificate
/// once.
pub(super) fn ca_certificates(profiles: &Profiles, label: Option<&Label>) -> Result<Vec<Vec<u8>>, EstError> {
    let profiles: Vec<_> = match label {
        Some(_) => vec![profile(profiles, label)?],
        None => profiles.values().collect(),
    };
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    for certificate in profiles.iter().flat_map(|profile| profile.issuers()).flat_map(|(_, issuer)| issuer.chain()) {
        if !certificates.contains(certificate) {
            certificates.push(certificate.clone());
        }
    }
    Ok(certificates)
}

/// A certificate for a CSR; gives its DER.
pub(super) async fn enroll(
    shared: &Arc<Shared>,
    caller: &Caller,
    operation: Operation,
    label: Option<&Label>,
    csr: Bytes,
) -> Result<Bytes, EstError> {
    let permit = begin(shared)?;
    let est = &shared.est;
    let policy = est.policy.get();
    let profile = profile(&policy.profiles, label)?;
    let order = label.and_then(|label| label.order.clone());
    let request = match (caller, operation) {
        (Caller::Stranger, _) => return caller.check().map(|()| csr),
        (Caller::Device(_), Operation::Enroll) => {
            let message = "a device with a certificate enrols again at simplereenroll".to_owned();
            return Err(EstError::Forbidden(message));
        }
        (Caller::Peer(peer), _) => {
            let identity = peer.station().map_err(forbidden)?;
            let (station, actor) = (Arc::clone(identity.name()), Actor(identity.actor().into()));
            let nameless = |error: &RequestError| refused::note_nameless(&est.issuer, &actor, error);
            let verified = est.issuer.verify(&csr).map_err(RequestError::from).inspect_err(nameless)?;
            let device = named_device(profile, &verified)?;
            let request = IssueRequest {
                station,
                actor,
                device,
                order,
                profile: profile.name().to_owned(),
                csr,
                reissue: false,
                by_code: false,
            };
            match operation {
                Operation::Reenroll => again(est, profile, request, &verified).await?,
                _ => request,
            }
        }
        (Caller::Device(device), _) => {
            let verified = est.issuer.verify(&csr)?;
            let record = device_record(est, device, &verified).await?;
            let id: DeviceId =
                record.holder.device.clone().try_into().map_err(|_| EstError::from(IssueError::Internal))?;
            let actor = Actor(format!("device:{id}").into());
            let name = profile.name().to_owned();
            // A device that asks by itself is at no station.
            let request = IssueRequest {
                station: "".into(),
                actor,
                device: id,
                order,
                profile: name,
                csr,
                reissue: false,
                by_code: false,
            };
            again(est, profile, request, &verified).await?
        }
    };
    let issued = issue(shared, permit, request).await?;
    if let Some(name) = caller.actor() {
        est.roster.of(&name).issue();
    }
    Ok(issued)
}

/// The certificate that a vending code gives; gives its DER. `asked` is the label, if the request has one.
pub(super) async fn redeem(
    shared: &Arc<Shared>,
    code: VendingCode,
    asked: Option<&Label>,
    csr: Bytes,
) -> Result<Bytes, EstError> {
    let permit = begin(shared)?;
    let id = code.order.clone();
    let order = read(&shared.est, move |records| records.order(&id)).await?;
    let order = order.ok_or_else(|| refusal(Refusal::OrderUnknown(code.order.clone())))?;
    let profile = order.terms.profile;
    let fits = |label: &Label| {
        label.profile == profile && label.order.as_ref().is_none_or(|order| order.as_str() == code.order)
    };
    if asked.is_some_and(|label| !fits(label)) {
        let message = format!("the code is for the label {profile}~{}", code.order);
        return Err(EstError::Forbidden(message));
    }
    let internal = || EstError::from(IssueError::Internal);
    let device = DeviceId::try_from(code.code.device).map_err(|_| internal())?;
    let order = OrderId::try_from(code.order).map_err(|_| internal())?;
    let actor = Actor(format!("device:{device}").into());
    let order = Some(order);
    let request =
        IssueRequest { station: "".into(), actor, device, order, profile, csr, reissue: false, by_code: true };
    issue(shared, permit, request).await
}

/// A permit for an enrolment, held until its certificate is there, also when the client is not any more.
fn begin(shared: &Shared) -> Result<OwnedSemaphorePermit, EstError> {
    if *shared.draining.borrow() {
        return Err(EstError::Draining);
    }
    Arc::clone(&shared.in_progress).try_acquire_owned().map_err(|_| EstError::Busy)
}

async fn issue(shared: &Arc<Shared>, permit: OwnedSemaphorePermit, request: IssueRequest) -> Result<Bytes, EstError> {
    let shared = Arc::clone(shared);
    let issued = tokio::spawn(async move {
        let _permit = permit;
        refused::issue(&shared.est.issuer, &request).await
    });
    let issued = issued.await.map_err(|_| EstError::from(IssueError::Internal))??;
    Ok(issued.issued.certificate().clone())
}

/// The device that a CSR names, by the profile's rule: where it demands nothing of the subject, by its CN, or its
/// serialNumber if it has no CN.
fn named_device(profile: &Profile, csr: &VerifiedCsr) -> Result<DeviceId, EstError> {
    let named = match profile.csr_subject() {
        CsrSubject::CnIsDeviceId => csr.common_name().map_err(|cause| format!("its CN {cause}")),
        CsrSubject::SerialNumberIsDeviceId => csr.serial_number().map_err(|cause| format!("its serialNumber {cause}")),
        CsrSubject::Ignore => csr
            .common_name()
            .or_else(|_| csr.serial_number())
            .map_err(|_| "its subject has neither one CN nor one serialNumber".to_owned()),
    };
    let named = named.map_err(EstError::NoDevice)?.into_owned();
    DeviceId::try_from(named.clone()).map_err(|cause| EstError::NoDevice(format!("{} {cause}", quoted(&named))))
}

/// The newest record of the device that holds a certificate, if it may enrol again by it: with its live one, or with the
/// one that its live one, for the CSR's key, has replaced, when the reply was lost.
async fn device_record(est: &Est, device: &Device, csr: &VerifiedCsr) -> Result<Record, EstError> {
    once_more(est, async || known_device_record(est, device, csr).await).await
}

/// What is forbidden by what is known here is tried once more by all that other daemons have written.
async fn once_more<T, F: Future<Output = Result<T, EstError>>>(
    est: &Est,
    mut attempt: impl FnMut() -> F,
) -> Result<T, EstError> {
    match attempt().await {
        Err(EstError::Forbidden(_)) if est.records.looked().is_some() => {
            ledger::caught_up(&*est.records).await?;
            attempt().await
        }
        done => done,
    }
}

async fn known_device_record(est: &Est, device: &Device, csr: &VerifiedCsr) -> Result<Record, EstError> {
    let forbidden = |message: &str| EstError::Forbidden(message.to_owned());
    let serial_number = device.serial_number;
    let own = read(est, move |records| records.by_serial_number(&serial_number)).await?;
    let own = own.filter(|own| own.issued.as_ref().is_some_and(|issued| *issued.certificate == *device.certificate));
    let own = own.ok_or_else(|| forbidden("the client certificate is none that was issued here"))?;
    let parsed = Certificate::from_der(&device.certificate).map_err(|_| EstError::from(IssueError::Internal))?;
    if parsed.not_after.since(Timestamp::now()).is_negative() {
        // A TLS session that is resumed outlives it.
        return Err(forbidden("the client certificate has expired"));
    }
    if !csr.subject().is_ok_and(|subject| subject.same_text(&parsed.subject)) {
        // RFC 7030 section 4.2.2.
        let message = "the subject of the CSR is not that of the client certificate, as enrolling again requires";
        return Err(EstError::NoDevice(message.to_owned()));
    }
    let id = own.holder.device.clone();
    let newest = read(est, move |records| records.by_device(&id)).await?;
    let newest = newest.ok_or_else(|| EstError::from(IssueError::Internal))?;
    let is_own = newest.serial_number == own.serial_number;
    let lost_reply = newest.replaces == Some(own.serial_number)
        && newest.state.is_live()
        && newest.holder.key_hash == csr.public_key().hash();
    if is_own && (newest.state.is_live() || is_superseded(&newest)) || lost_reply {
        return Ok(newest);
    }
    Err(EstError::Forbidden(format!("the client certificate is {}; it is not live any more", own.state)))
}

/// Whether it was renewed, and its successor may still be missing.
fn is_superseded(record: &Record) -> bool {
    let reason = record.changed.as_ref().and_then(|changed| changed.revocation_reason);
    record.state == RecordState::Revoked && reason == Some(RevocationReason::Superseded)
}

/// What enrolling again asks of the ledger: the certificate that the same key has; one in place of one that was scrapped or
/// revoked; or, where the profile allows renewal, one in place of the live one, which is superseded then.
async fn again(
    est: &Est,
    profile: &Profile,
    request: IssueRequest,
    csr: &VerifiedCsr,
) -> Result<IssueRequest, EstError> {
    once_more(est, async || again_as_known(est, profile, request.clone(), csr).await).await
}

async fn again_as_known(
    est: &Est,
    profile: &Profile,
    request: IssueRequest,
    csr: &VerifiedCsr,
) -> Result<IssueRequest, EstError> {
    let id = request.device.to_string();
    // A device without one gets its first.
    let Some(record) = read(est, move |records| records.by_device(&id)).await? else { return Ok(request) };
    let order = request.order.clone().or_else(|| order_of(&record));
    if record.state.is_live() && record.holder.key_hash == csr.public_key().hash() {
        let (order, reissue) = (order_of(&record), record.replaces.is_some());
        return Ok(IssueRequest { order, profile: record.holder.profile, reissue, ..request });
    }
    let request = IssueRequest { order, reissue: true, ..request };
    if !record.state.is_live() {
        return Ok(IssueRequest { reissue: !matches!(record.state, RecordState::Abandoned), ..request });
    }
    if !profile.allows_renewal() {
        let message = format!(
            "the device {} has the live certificate {}, and the profile {} does not let it be renewed",
            quoted(&record.holder.device),
            record.serial_number,
            quoted(profile.name())
        );
        return Err(EstError::Forbidden(message));
    }
    // Once the old one is superseded the new one must be possible.
    check_possible(est, profile, &request, csr).await?;
    let revoked = est.committer.revoke(request.actor.clone(), record.serial_number, RevocationReason::Superseded).await;
    revoked.map_err(RequestError::from)?;
    Ok(request)
}

/// What would keep the successor of a certificate from being issued, found before the certificate is superseded.
async fn check_possible(
    est: &Est,
    profile: &Profile,
    request: &IssueRequest,
    csr: &VerifiedCsr,
) -> Result<(), EstError> {
    let now = Timestamp::now();
    let mut attributes = std::collections::BTreeMap::new();
    if let Some(order) = &request.order {
        let id = order.clone();
        let found = read(est, move |records| records.order(id.as_str())).await?;
        let found = found.ok_or_else(|| refusal(Refusal::OrderUnknown(order.to_string())))?;
        check_order(&found, request, now)?;
        attributes = found.terms.attributes;
    }
    let values = Values {
        device: &request.device,
        order: request.order.as_ref(),
        station: &request.station,
        attributes: &attributes,
    };
    profile.approve(csr.clone(), &RequestContext { values, now }).map_err(IssueError::from)?;
    let signer = profile.issuer_at(now).signer();
    if !signer.can_sign() {
        signer.ready().await.map_err(IssueError::from)?;
    }
    Ok(())
}

/// The order that a certificate was charged to.
fn order_of(record: &Record) -> Option<OrderId> {
    OrderId::try_from(record.holder.order.clone()).ok()
}

/// Looks something up, which may have to be read from the disk, or been written by another daemon just now.
async fn read<T: Send + 'static>(
    est: &Est,
    read: impl Fn(&dyn Records) -> Result<Option<T>, LedgerError> + Clone + Send + 'static,
) -> Result<Option<T>, EstError> {
    let look = async || {
        let (records, read) = (Arc::clone(&est.records), read.clone());
        let looked = tokio::task::spawn_blocking(move || read(&*records)).await;
        looked.map_err(|_| EstError::from(IssueError::Internal))?.map_err(|error| {
            tracing::error!(%error, "the ledger could not be read");
            EstError::from(error)
        })
    };
    ledger::found(&*est.records, look, EstError::from).await
}

fn check_order(order: &Order, request: &IssueRequest, now: Timestamp) -> Result<(), EstError> {
    let terms = &order.terms;
    let id = || terms.id.clone();
    if order.closed {
        return Err(refusal(Refusal::OrderClosed(id())));
    }
    let outside = terms.not_before.is_some_and(|from| now < from) || terms.not_after.is_some_and(|until| now >= until);
    if outside
        || order.paused.is_some()
        || terms.profile != request.profile
        || !pattern::allows(&terms.stations, &request.station)
    {
        let message = format!(
            "the order \"{}\" does not allow this renewal: it is paused, or its time, profile or stations differ",
            id()
        );
        return Err(EstError::Forbidden(message));
    }
    if order.left() == 0 {
        return Err(refusal(Refusal::OrderExhausted { order: id(), quantity: terms.quantity }));
    }
    Ok(())
}

fn refusal(refusal: Refusal) -> EstError {
    EstError::Request(CommitError::Refused(refusal).into())
}

/// Who may not issue is told why.
fn forbidden(status: tonic::Status) -> EstError {
    EstError::Forbidden(status.message().to_owned())
}
