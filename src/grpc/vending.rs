//! The `Vending` service: one-time codes of devices, for operators.

use std::sync::Arc;

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{peer::Peer, records::Reader, request_error::RequestError, services::Services, status};
use crate::{
    committer::Committer,
    id::DeviceId,
    issuer::{IssueError, Policy},
    ledger::{Cost, HashedCode, LedgerError, RecordState, Records, Refusal, VendingCode, VendingTerms},
    limits::VENDING_CODES,
    live::Live,
    profile::ProfileError,
    proto,
    roles::Call,
    vending::MOST,
};

/// Answers operators and auditors.
pub(super) struct Service {
    committer: Committer,
    policy: Arc<Live<Policy>>,
    reader: Reader,
}

impl Service {
    pub(super) fn new(services: &Services, reader: Reader) -> Self {
        Service { committer: services.committer.clone(), policy: Arc::clone(&services.policy), reader }
    }
}

#[tonic::async_trait]
impl proto::vending_server::Vending for Service {
    async fn create_codes(
        &self,
        request: Request<proto::CreateCodesRequest>,
    ) -> Result<Response<proto::CreateCodesReply>, Status> {
        let peer = Peer::from_request(&request)?.clone();
        let actor = peer.actor(Call::CreateVendingCodes)?;
        let terms = terms(request.into_inner()).map_err(|error| status::failed_call(&error))?;
        let wanted = terms.order.clone();
        let limits = peer.limits()?;
        let order = self.reader.found(limits, move |records| records.order(&wanted)).await?;
        let order = order.ok_or_else(|| status::failed_call(&Refusal::OrderUnknown(terms.order.clone()).into()))?;
        // A device that comes by itself is at no station.
        let policy = self.policy.get();
        let profile = policy.profiles.get(&order.terms.profile);
        if let Some(profile) = profile.filter(|profile| !profile.allows_station("")) {
            let error =
                ProfileError::StationRefused { station: "a vending machine".into(), profile: profile.name().into() };
            return Err(status::failed_call(&IssueError::from(error).into()));
        }
        let created = self.committer.create_vending_codes(actor, terms).await;
        let batch = created.map_err(|error| status::failed_call(&error.into()))?;
        Ok(Response::new(proto::CreateCodesReply { batch }))
    }

    async fn list_codes(
        &self,
        request: Request<proto::ListCodesRequest>,
    ) -> Result<Response<proto::ListCodesReply>, Status> {
        let peer = Peer::from_request(&request)?.clone();
        peer.require(Call::ListVendingCodes)?;
        let number = request.into_inner().after_batch.saturating_add(1);
        let listed = self.reader.read(peer.limits()?, move |records| batch(records, number)).await?;
        Ok(Response::new(listed))
    }

    async fn cancel_code(
        &self,
        request: Request<proto::CancelCodeRequest>,
    ) -> Result<Response<proto::VendingCode>, Status> {
        let peer = Peer::from_request(&request)?.clone();
        let actor = peer.actor(Call::CancelVendingCode)?;
        let device = request.into_inner().device_id;
        let cancelled = self.committer.cancel_vending_code(actor, device.clone()).await;
        cancelled.map_err(|error| status::failed_call(&error.into()))?;
        let unknown = Refusal::CodeUnknown(device.clone());
        let code = self.reader.read(peer.limits()?, move |records| shown(records, &device)).await?;
        code.map(Response::new).ok_or_else(|| status::failed_call(&unknown.into()))
    }
}

fn terms(request: proto::CreateCodesRequest) -> Result<VendingTerms, RequestError> {
    let invalid = |message: String| RequestError::Invalid(message);
    let proto::CreateCodesRequest { order, expires_at, memory_kib, passes, codes } = request;
    if !(1..=VENDING_CODES).contains(&codes.len()) {
        return Err(invalid(format!("{} codes; 1 to {VENDING_CODES} are allowed", codes.len())));
    }
    let expires = expires_at.ok_or_else(|| invalid("expires_at must be set".into()))?;
    let expires = proto::moment(&expires).map_err(|error| invalid(error.to_string()))?;
    if expires <= Timestamp::now() {
        return Err(invalid(format!("expires_at {expires} is past")));
    }
    if !(64..=MOST.memory_kib).contains(&memory_kib) || !(1..=MOST.passes).contains(&passes) {
        let message = format!("memory_kib must be 64 to {}, and passes 1 to {}", MOST.memory_kib, MOST.passes);
        return Err(invalid(message));
    }
    let octets = |name: &str| invalid(format!("{name} has another length: a salt has 16 octets, a hash 32"));
    let codes = codes.into_iter().map(|proto::CodeHash { device_id, salt, hash }| {
        DeviceId::check(&device_id).map_err(RequestError::id("device_id"))?;
        let salt = <[u8; 16]>::try_from(&*salt).map_err(|_| octets("salt"))?;
        let hash = <[u8; 32]>::try_from(&*hash).map_err(|_| octets("hash"))?;
        Ok(HashedCode { device: device_id, salt, hash })
    });
    let codes = codes.collect::<Result<_, RequestError>>()?;
    Ok(VendingTerms { order, expires, cost: Cost { memory_kib, passes }, codes })
}

fn batch(records: &dyn Records, number: u32) -> Result<proto::ListCodesReply, LedgerError> {
    let Some(batch) = records.vending_batch(number)? else { return Ok(proto::ListCodesReply::default()) };
    let mut codes = Vec::with_capacity(batch.devices.len());
    for device in &batch.devices {
        if records.vending_code(device)?.is_some_and(|code| code.batch == number) {
            codes.extend(shown(records, device)?);
        }
    }
    let created_at = Some(proto::timestamp(batch.created_at));
    Ok(proto::ListCodesReply { batch: number, created_at, created_by: batch.created_by.to_string(), codes })
}

fn shown(records: &dyn Records, device: &str) -> Result<Option<proto::VendingCode>, LedgerError> {
    let Some(code) = records.vending_code(device)? else { return Ok(None) };
    let state = state(records, device, &code)?.into();
    let VendingCode { order, expires, .. } = code;
    let expires_at = Some(proto::timestamp(expires));
    Ok(Some(proto::VendingCode { device_id: device.to_owned(), order, expires_at, state }))
}

/// It was used when the device has got a certificate in the place for which the code was created.
fn state(records: &dyn Records, device: &str, code: &VendingCode) -> Result<proto::VendingState, LedgerError> {
    let newest = records.by_device(device)?.filter(|record| record.state != RecordState::Abandoned);
    let used = match (&newest, code.replaces) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(newest), Some(replaced)) => newest.serial_number != replaced,
    };
    Ok(match () {
        () if used => proto::VendingState::Used,
        () if code.cancelled => proto::VendingState::Cancelled,
        () if code.obstacle(Timestamp::now()).is_some() => proto::VendingState::Expired,
        () => proto::VendingState::Open,
    })
}
