//! The `Admin` service: operators and auditors.

use std::{pin::Pin, sync::Arc};

use jiff::Timestamp;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{
    approvals,
    batches::{self, Messages},
    calls::Held,
    checkpoints, device_lists,
    hsm::{self, Signers},
    issuers,
    limits::PeerLimits,
    order_message::{first_pass, order, sees},
    order_terms::{check_attributes, check_stations, device_list},
    peer::Peer,
    possession,
    records::{Pages, Reader},
    reload::{self, Reload},
    request_error::RequestError,
    revocations::{self, Revocations},
    services::{ApprovalRules, Services},
    status,
    text::{check_optional_text, check_text},
    watch,
};
use crate::{
    ca::{NoIssuer, issuer_of},
    checkpoint::Checkpoints,
    committer::{CommitError, Committer},
    destinations::Destinations,
    hash::sha256,
    id::OrderId,
    identity::Role,
    issuer::{IssueError, Policy},
    ledger::{self, Change, ExportId, OrderTerms, ParseExportIdError, RecordState, RecordedIssuer, Refusal},
    limits::{ORDER_REASON, SCRAP_REASON},
    live::Live,
    pattern::Pattern,
    proof::Prover,
    proto::{self, get_record_request::By},
    roles::Call,
    serial::SerialNumber,
};

type RecordStream = Pin<Box<dyn Stream<Item = Result<proto::Record, Status>> + Send>>;

/// Answers operators and auditors.
pub(super) struct Service {
    committer: Committer,
    policy: Arc<Live<Policy>>,
    reload: Reload,
    draining: tokio::sync::watch::Receiver<bool>,
    reader: Reader,
    signers: Signers,
    prover: Arc<Prover>,
    approval: Arc<Live<ApprovalRules>>,
    revocations: Revocations,
    destinations: Destinations,
    checkpoints: Option<Arc<Checkpoints>>,
}

impl Service {
    pub(super) fn new(services: &Services, reader: Reader) -> Self {
        let Services {
            committer,
            records,
            policy,
            signers,
            prover,
            destinations,
            checkpoints,
            reload,
            draining,
            approval,
            ..
        } = services.clone();
        let revocations = Revocations::new(&committer, &records, &approval);
        Service {
            committer,
            policy,
            reload,
            draining,
            reader,
            signers,
            prover,
            approval,
            revocations,
            destinations,
            checkpoints,
        }
    }

    async fn order(&self, peer: &PeerLimits, id: &str) -> Result<ledger::Order, Status> {
        let wanted = id.to_owned();
        let found = self.reader.read(peer, move |records| records.order(&wanted)).await?;
        found.ok_or_else(|| status::failed_call(&Refusal::OrderUnknown(id.to_owned()).into()))
    }

    /// Whether there is such an order: creating it again changes nothing, or is refused.
    async fn is_known(&self, peer: &PeerLimits, id: &str) -> Result<bool, Status> {
        let wanted = id.to_owned();
        Ok(self.reader.read(peer, move |records| records.order(&wanted)).await?.is_some())
    }

    /// Gives the id back if there is such an order.
    async fn known_order(&self, peer: &PeerLimits, id: String) -> Result<String, Status> {
        self.order(peer, &id).await.map(|_| id)
    }

    async fn record(&self, peer: &PeerLimits, serial_number: SerialNumber) -> Result<Response<proto::Record>, Status> {
        let found = self.reader.read(peer, move |records| records.by_serial_number(&serial_number)).await?;
        let unknown = || status::failed_call(&Refusal::RecordUnknown(serial_number).into());
        let found = found.ok_or_else(unknown)?;
        record_beside(found, &self.reader.issuers()).map(Response::new)
    }

    /// The record after a change, which is made whether an issuer fits or not.
    async fn changed(&self, peer: &PeerLimits, serial_number: SerialNumber) -> Result<Response<proto::Record>, Status> {
        let found = self.reader.read(peer, move |records| records.by_serial_number(&serial_number)).await?;
        let unknown = || status::failed_call(&Refusal::RecordUnknown(serial_number).into());
        let found = found.ok_or_else(unknown)?;
        let issuer = standing_issuer(&found, &self.reader.issuers()).ok().flatten();
        Ok(Response::new(record(found, issuer.as_deref())))
    }

    fn terms(&self, terms: proto::OrderTerms) -> Result<OrderTerms, RequestError> {
        let id = OrderId::try_from(terms.id).map_err(RequestError::id("id"))?;
        let policy = self.policy.get();
        let Some(profile) = policy.profiles.get(&terms.profile) else {
            let known = policy.profiles.keys().cloned().collect();
            return Err(IssueError::ProfileUnknown { wanted: terms.profile, known }.into());
        };
        check_stations(&terms.stations)?;
        let attributes = check_attributes(terms.attributes)?;
        let stations: Vec<_> = terms.stations.into_iter().map(Pattern::new).collect();
        profile.check_order(&id, &attributes, &stations)?;
        if terms.quantity == 0 {
            return Err(RequestError::Invalid("quantity must be at least 1".into()));
        }
        let not_before = terms.not_before.map(moment).transpose()?;
        let not_after = terms.not_after.map(moment).transpose()?;
        if let (Some(from), Some(until)) = (not_before, not_after)
            && from >= until
        {
            return Err(RequestError::Invalid(format!("not_after {until} must be later than not_before {from}")));
        }
        if let Some(until) = not_after.filter(|until| *until <= Timestamp::now()) {
            return Err(RequestError::Invalid(format!("not_after {until} is past: nothing could be issued")));
        }
        Ok(OrderTerms {
            id: id.into(),
            profile: terms.profile,
            quantity: terms.quantity,
            not_before,
            not_after,
            stations,
            attributes,
            list: device_list(terms.devices, &terms.devices_sha256)?,
            per_day: Some(terms.per_day).filter(|limit| *limit > 0),
        })
    }
}

#[tonic::async_trait]
impl proto::admin_server::Admin for Service {
    async fn create_order(
        &self,
        request: Request<proto::CreateOrderRequest>,
    ) -> Result<Response<proto::Order>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::CreateOrder)?;
        let terms = self.terms(request.into_inner().terms.unwrap_or_default());
        let terms = terms.map_err(|error| status::failed_call(&error))?;
        if self.approval.get().concern_order(&terms) && !self.is_known(&limits, &terms.id).await? {
            approvals::require(&self.committer, &actor, approvals::creation_of(&terms)).await?;
        }
        let created = self.committer.create_order(actor, terms).await;
        created.map(|created| Response::new(order(created))).map_err(|error| status::failed_call(&error.into()))
    }

    async fn get_order(&self, request: Request<proto::GetOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let (limits, station) = (reader(&request, Call::GetOrder)?, station(&request)?);
        let id = request.into_inner().id;
        let found = self.order(&limits, &id).await?;
        if !sees(station.as_ref(), &found) {
            return Err(status::failed_call(&Refusal::OrderUnknown(id).into()));
        }
        // Other stations' yields are no station's business.
        let passes = match station {
            None => Some(self.reader.read(&limits, move |records| records.first_pass(Some(&id))).await?),
            Some(_) => None,
        };
        Ok(Response::new(proto::Order { first_pass: passes.as_ref().map(first_pass), ..order(found) }))
    }

    async fn list_orders(
        &self,
        request: Request<proto::ListOrdersRequest>,
    ) -> Result<Response<proto::ListOrdersReply>, Status> {
        let (limits, station) = (reader(&request, Call::ListOrders)?, station(&request)?);
        let listed = limits.record_stream()?;
        let orders = self.reader.read(&limits, |records| records.orders()).await?;
        let orders = orders.into_iter().filter(|order| sees(station.as_ref(), order));
        Ok(held(proto::ListOrdersReply { orders: orders.map(order).collect() }, listed))
    }

    async fn close_order(&self, request: Request<proto::CloseOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::CloseOrder)?;
        let closed = self.committer.close_order(actor, request.into_inner().id).await;
        closed.map(|closed| Response::new(order(closed))).map_err(|error| status::failed_call(&error.into()))
    }

    async fn add_order_devices(
        &self,
        request: Request<Streaming<proto::AddOrderDevicesRequest>>,
    ) -> Result<Response<proto::Order>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::AddOrderDevices)?;
        let listed = device_lists::add(&self.committer, &actor, request.into_inner()).await?;
        Ok(Response::new(order(listed)))
    }

    async fn list_order_devices(
        &self,
        request: Request<proto::ListOrderDevicesRequest>,
    ) -> Result<Response<proto::ListOrderDevicesReply>, Status> {
        let limits = reader(&request, Call::ListOrderDevices)?;
        let listed = limits.record_stream()?;
        self.known_order(&limits, request.get_ref().id.clone()).await?;
        Ok(held(device_lists::list(&self.reader, &limits, request.into_inner()).await?, listed))
    }

    async fn change_order(
        &self,
        request: Request<proto::ChangeOrderRequest>,
    ) -> Result<Response<proto::Order>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::ChangeOrder)?;
        let proto::ChangeOrderRequest { id, quantity, reason } = request.into_inner();
        check_optional_text("reason", &reason, ORDER_REASON).map_err(|error| status::failed_call(&error))?;
        if quantity == 0 {
            let message = "quantity must be at least 1; close the order instead".to_owned();
            return Err(status::failed_call(&RequestError::Invalid(message)));
        }
        let rules = self.approval.get();
        if rules.quantity_changes || rules.orders_above.is_some() {
            let order = self.order(&limits, &id).await?;
            if rules.concern_change(order.terms.quantity, quantity) {
                let what = format!("change the quantity of the order {id} from {} to {quantity}", order.terms.quantity);
                approvals::require(&self.committer, &actor, what).await?;
            }
        }
        changed_order(self.committer.change_quantity(actor, id, quantity, reason).await)
    }

    async fn pause_order(&self, request: Request<proto::PauseOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::PauseOrder)?;
        let proto::PauseOrderRequest { id, reason } = request.into_inner();
        check_optional_text("reason", &reason, ORDER_REASON).map_err(|error| status::failed_call(&error))?;
        changed_order(self.committer.pause_order(actor, id, reason).await)
    }

    async fn resume_order(
        &self,
        request: Request<proto::ResumeOrderRequest>,
    ) -> Result<Response<proto::Order>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::ResumeOrder)?;
        changed_order(self.committer.resume_order(actor, request.into_inner().id).await)
    }

    async fn get_record(&self, request: Request<proto::GetRecordRequest>) -> Result<Response<proto::Record>, Status> {
        let limits = reader(&request, Call::GetRecord)?;
        match request.into_inner().by {
            Some(By::SerialNumber(octets)) => self.record(&limits, serial(&octets)?).await,
            Some(By::DeviceId(device)) => {
                let unknown = format!("there is no record of the device {}", crate::quote::quoted(&device));
                match self.reader.read(&limits, move |records| records.by_device(&device)).await? {
                    Some(found) => record_beside(found, &self.reader.issuers()).map(Response::new),
                    None => Err(status::record_unknown(unknown)),
                }
            }
            None => {
                let message = "name a serial_number or a device_id".into();
                Err(status::failed_call(&RequestError::Invalid(message)))
            }
        }
    }

    type ListRecordsStream = RecordStream;

    async fn list_records(
        &self,
        request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<RecordStream>, Status> {
        let limits = reader(&request, Call::ListRecords)?;
        let id = match request.into_inner().order {
            without if without.is_empty() => without,
            id => self.known_order(&limits, id).await?,
        };
        let issued = self.reader.stream(&limits, move |records| records.issued_under(&id))?;
        let issuers = self.reader.issuers();
        Ok(streamed(issued, move |found| {
            let issuer = standing_issuer(&found, &issuers).ok().flatten();
            Ok(record(found, issuer.as_deref()))
        }))
    }

    async fn scrap_certificate(
        &self,
        request: Request<proto::ScrapCertificateRequest>,
    ) -> Result<Response<proto::Record>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::ScrapCertificate)?;
        let proto::ScrapCertificateRequest { serial_number, reason } = request.into_inner();
        let serial_number = serial(&serial_number)?;
        check_text("reason", &reason, SCRAP_REASON).map_err(|error| status::failed_call(&error))?;
        let scrapped = self.committer.scrap(actor, serial_number, reason).await;
        scrapped.map_err(|error| status::failed_call(&error.into()))?;
        self.changed(&limits, serial_number).await
    }

    async fn revoke_certificate(
        &self,
        request: Request<proto::RevokeCertificateRequest>,
    ) -> Result<Response<proto::Record>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::RevokeCertificate)?;
        let proto::RevokeCertificateRequest { serial_number, reason } = request.into_inner();
        let serial_number = serial(&serial_number)?;
        self.revocations.one(actor, serial_number, reason).await?;
        self.changed(&limits, serial_number).await
    }

    type RevokeCertificatesStream = revocations::Replies;

    async fn revoke_certificates(
        &self,
        request: Request<Streaming<proto::RevokeCertificatesRequest>>,
    ) -> Result<Response<revocations::Replies>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::RevokeCertificates)?;
        self.revocations.many(actor, request.into_inner()).await.map(Response::new)
    }

    type PlanBatchStream = Messages<proto::PlanBatchReply>;

    async fn plan_batch(
        &self,
        request: Request<proto::PlanBatchRequest>,
    ) -> Result<Response<Self::PlanBatchStream>, Status> {
        let limits = reader(&request, Call::PlanBatch)?;
        batches::plan(&self.destinations, &limits, &request.into_inner().destination).map(Response::new)
    }

    type CreateBatchStream = Messages<proto::CreateBatchReply>;

    async fn create_batch(
        &self,
        request: Request<proto::CreateBatchRequest>,
    ) -> Result<Response<Self::CreateBatchStream>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::CreateBatch)?;
        let destination = request.into_inner().destination;
        batches::create(&self.destinations, &limits, actor, &destination).map(Response::new)
    }

    type ListBatchesStream = Messages<proto::Batch>;

    async fn list_batches(
        &self,
        request: Request<proto::ListBatchesRequest>,
    ) -> Result<Response<Self::ListBatchesStream>, Status> {
        let limits = reader(&request, Call::ListBatches)?;
        batches::list(&self.destinations, &limits, request.into_inner().destination).map(Response::new)
    }

    type GetBundleStream = Messages<proto::BundleChunk>;

    async fn get_bundle(
        &self,
        request: Request<proto::GetBundleRequest>,
    ) -> Result<Response<Self::GetBundleStream>, Status> {
        let limits = reader(&request, Call::GetBundle)?;
        let id = batches::batch_id(&request.into_inner().id)?;
        batches::bundle(&self.destinations, &limits, id, self.reader.stall_limit()).map(Response::new)
    }

    type AcknowledgeBatchStream = Messages<proto::Batch>;

    async fn acknowledge_batch(
        &self,
        request: Request<Streaming<proto::AcknowledgeBatchRequest>>,
    ) -> Result<Response<Self::AcknowledgeBatchStream>, Status> {
        let limits = Arc::clone(Peer::from_request(&request)?.limits()?);
        let actor = Peer::from_request(&request)?.actor(Call::AcknowledgeBatch)?;
        batches::acknowledge(&self.destinations, &limits, actor, request.into_inner()).await.map(Response::new)
    }

    async fn list_exports(
        &self,
        request: Request<proto::ListExportsRequest>,
    ) -> Result<Response<proto::ListExportsReply>, Status> {
        let limits = reader(&request, Call::ListExports)?;
        let listed = limits.record_stream()?;
        let id = self.known_order(&limits, request.into_inner().order).await?;
        let exports = self.reader.read(&limits, move |records| records.exports(&id)).await?;
        Ok(held(proto::ListExportsReply { exports: exports.into_iter().map(export).collect() }, listed))
    }

    type GetExportStream = RecordStream;

    async fn get_export(&self, request: Request<proto::GetExportRequest>) -> Result<Response<RecordStream>, Status> {
        let limits = reader(&request, Call::GetExport)?;
        let id = export_id(&request.into_inner().id)?;
        let wanted = id.clone();
        if self.reader.read(&limits, move |records| records.export(&wanted)).await?.is_none() {
            return Err(status::failed_call(&RequestError::ExportUnknown(id)));
        }
        let exported = self.reader.stream(&limits, move |records| records.exported(&id))?;
        let issuers = self.reader.issuers();
        Ok(streamed(exported, move |found| record_beside(found, &issuers)))
    }

    async fn list_issuers(
        &self,
        request: Request<proto::ListIssuersRequest>,
    ) -> Result<Response<proto::ListIssuersReply>, Status> {
        let limits = reader(&request, Call::ListIssuers)?;
        let listed = limits.record_stream()?;
        Ok(held(issuers::list(&self.reader.issuers(), &self.policy.get().profiles), listed))
    }

    type WatchStream = watch::Watching;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<watch::Watching>, Status> {
        let limits = reader(&request, Call::Watch)?;
        let mut draining = self.draining.clone();
        let drained = async move {
            // An error means that the daemon itself is gone.
            let _ = draining.wait_for(|draining| *draining).await;
        };
        watch::watch(&self.reader, &limits, request.into_inner().after, drained).await.map(Response::new)
    }

    async fn reload(&self, request: Request<proto::ReloadRequest>) -> Result<Response<proto::ReloadReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::Reload)?;
        reload::run(&self.reload, actor).await.map(Response::new)
    }

    async fn make_checkpoint(
        &self,
        request: Request<proto::MakeCheckpointRequest>,
    ) -> Result<Response<proto::MakeCheckpointReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::MakeCheckpoint)?;
        checkpoints::make(self.checkpoints.as_deref(), &actor).await.map(Response::new)
    }

    async fn retry_hsm(
        &self,
        request: Request<proto::RetryHsmRequest>,
    ) -> Result<Response<proto::RetryHsmReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::RetryHsm)?;
        hsm::retry(&self.signers, &actor, request.into_inner()).await.map(Response::new)
    }

    async fn prove_possession(
        &self,
        request: Request<proto::ProvePossessionRequest>,
    ) -> Result<Response<proto::ProvePossessionReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::ProvePossession)?;
        possession::prove(&self.prover, actor, request.into_inner()).await.map(Response::new)
    }
}

/// The limits of a peer that may read.
fn reader<T>(request: &Request<T>, call: Call) -> Result<Arc<PeerLimits>, Status> {
    let peer = Peer::from_request(request)?;
    peer.require(call)?;
    peer.limits().cloned()
}

/// The station that asks, if it is one: it is shown its own orders only.
fn station<T>(request: &Request<T>) -> Result<Option<Arc<str>>, Status> {
    let identity = Peer::from_request(request)?.identity();
    Ok(identity.filter(|identity| identity.role() == Role::Station).map(|identity| Arc::clone(identity.name())))
}

fn streamed(
    pages: Pages,
    message: impl Fn(ledger::Record) -> Result<proto::Record, Status> + Send + 'static,
) -> Response<RecordStream> {
    let records: RecordStream = Box::pin(pages.map(move |found| found.and_then(&message)));
    Response::new(records)
}

fn changed_order(changed: Result<ledger::Order, CommitError>) -> Result<Response<proto::Order>, Status> {
    changed.map(|changed| Response::new(order(changed))).map_err(|error| status::failed_call(&error.into()))
}

/// A reply, and what counts until it is taken.
fn held<T>(reply: T, permits: impl Send + Sync + 'static) -> Response<T> {
    let mut response = Response::new(reply);
    response.extensions_mut().insert(Held::new(permits));
    response
}

/// The serial number in a request.
fn serial(octets: &[u8]) -> Result<SerialNumber, Status> {
    SerialNumber::try_from(octets).map_err(|error| status::failed_call(&RequestError::Invalid(error.to_string())))
}

/// The export's id in a request.
fn export_id(text: &str) -> Result<ExportId, Status> {
    text.parse().map_err(|error: ParseExportIdError| status::failed_call(&RequestError::Invalid(error.to_string())))
}

fn export(export: ledger::Export) -> proto::Export {
    let ledger::Export { id, certificates, created_at, created_by, acknowledged } = export;
    let (acknowledged_at, acknowledged_by) = match acknowledged {
        Some((at, by)) => (Some(proto::timestamp(at)), by.to_string()),
        None => (None, String::new()),
    };
    proto::Export {
        id: id.to_string(),
        order: id.order,
        number: id.number,
        certificates,
        created_at: Some(proto::timestamp(created_at)),
        created_by: created_by.to_string(),
        acknowledged_at,
        acknowledged_by,
    }
}

/// The issuer that a record stands for; none if it has no certificate.
fn standing_issuer(
    record: &ledger::Record,
    issuers: &[Arc<RecordedIssuer>],
) -> Result<Option<Arc<RecordedIssuer>>, NoIssuer> {
    let Some(issued) = &record.issued else { return Ok(None) };
    issuer_of(&issued.certificate, (&record.holder.issuer, record.holder.issuer_id), issuers).cloned().map(Some)
}

/// A record beside its issuer; refused if none fits.
fn record_beside(found: ledger::Record, issuers: &[Arc<RecordedIssuer>]) -> Result<proto::Record, Status> {
    let issuer = standing_issuer(&found, issuers).map_err(|error| status::failed_call(&error.into()))?;
    Ok(record(found, issuer.as_deref()))
}

fn record(record: ledger::Record, issuer: Option<&RecordedIssuer>) -> proto::Record {
    let state = match record.state {
        RecordState::Reserved => proto::RecordState::Reserved,
        RecordState::Issued => proto::RecordState::Issued,
        RecordState::Abandoned => proto::RecordState::Abandoned,
        RecordState::Confirmed => proto::RecordState::Confirmed,
        RecordState::Scrapped => proto::RecordState::Scrapped,
        RecordState::Revoked => proto::RecordState::Revoked,
    };
    let (issued_at, certificate) = match record.issued {
        Some(issued) => (Some(proto::timestamp(issued.at)), issued.certificate),
        None => (None, Default::default()),
    };
    let certificate_id = if certificate.is_empty() { String::new() } else { hex::encode(sha256(&certificate)) };
    let mut shown = proto::Record {
        serial_number: record.serial_number.as_bytes().to_vec().into(),
        state: state.into(),
        station: record.actor.station().unwrap_or_default().to_owned(),
        device_id: record.holder.device,
        order: record.holder.order,
        profile: record.holder.profile,
        issuer: record.holder.issuer,
        key_sha256: record.holder.key_hash.to_vec().into(),
        reserved_at: Some(proto::timestamp(record.reserved_at)),
        issued_at,
        certificate,
        certificate_id,
        replaces: record.replaces.map(|replaced| replaced.as_bytes().to_vec().into()).unwrap_or_default(),
        issuer_generation: issuer.map_or(0, |issuer| issuer.generation),
        issuer_id: issuer.map_or(0, |issuer| issuer.id),
        ..proto::Record::default()
    };
    if let Some(Change { at, by, scrap_reason, revocation_reason }) = record.changed {
        shown.changed_at = Some(proto::timestamp(at));
        shown.changed_by = by.to_string();
        shown.scrap_reason = scrap_reason;
        shown.revocation_reason = revocation_reason.map_or(0, |reason| reason.code() as i32);
    }
    shown
}

fn moment(time: prost_types::Timestamp) -> Result<Timestamp, RequestError> {
    proto::moment(&time).map_err(|error| RequestError::Invalid(error.to_string()))
}
