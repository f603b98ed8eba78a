//! The `Admin` service: operators and auditors.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    peer::{self, Peer, Role},
    status,
};
use crate::{
    issuer::{self, Issuance, IssueError},
    ledger::{
        self, Change, ExportId, IssuedRecords, LedgerError, NotAnExportId, OrderTerms, RecordState, Records, Refusal,
        RevocationReason,
    },
    pattern::Pattern,
    proto::{self, get_record_request::By},
    serial::SerialNumber,
    signer::sha256,
};

const READERS: [Role; 2] = [Role::Operator, Role::Auditor];

/// The longest order id.
const ORDER_ID: usize = 64;

/// The most attributes of an order, and the longest name and value, in characters.
const ATTRIBUTES: usize = 32;
const ATTRIBUTE_NAME: usize = 32;
const ATTRIBUTE_VALUE: usize = 256;

/// The most patterns of stations of an order, and the longest, in characters.
const STATIONS: usize = 1024;
const STATION: usize = 128;

/// The longest reason of a scrap, in characters.
const SCRAP_REASON: usize = 256;

/// Records that a stream reads ahead of the network.
const STREAMED: usize = 64;

type RecordStream = ReceiverStream<Result<proto::Record, Status>>;

/// Answers operators and auditors.
pub struct Service {
    issuance: Arc<Issuance>,
    records: Arc<dyn Records>,
}

impl Service {
    pub(super) fn new(issuance: Arc<Issuance>, records: Arc<dyn Records>) -> Self {
        Service { issuance, records }
    }

    /// Reads the ledger where waiting for the disk holds nobody up.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Records) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Status> {
        let records = Arc::clone(&self.records);
        let read = tokio::task::spawn_blocking(move || read(&*records)).await;
        read.map_err(|_| status::failed_call(&IssueError::Internal))?.map_err(|error| status::storage(&error))
    }

    async fn order(&self, id: &str) -> Result<ledger::Order, Status> {
        let wanted = id.to_owned();
        let found = self.read(move |records| records.order(&wanted)).await?;
        found.ok_or_else(|| status::failed_call(&Refusal::OrderUnknown(id.to_owned()).into()))
    }

    /// Gives the id back if there is such an order.
    async fn known_order(&self, id: String) -> Result<String, Status> {
        self.order(&id).await.map(|_| id)
    }

    async fn record(&self, serial_number: SerialNumber) -> Result<Response<proto::Record>, Status> {
        let found = self.read(move |records| records.by_serial_number(&serial_number)).await?;
        let unknown = || status::failed_call(&Refusal::RecordUnknown(serial_number).into());
        found.map(|found| Response::new(record(found))).ok_or_else(unknown)
    }

    /// Streams what `read` gives, reading no further ahead than the peer takes it.
    fn stream(
        &self,
        read: impl FnOnce(&dyn Records) -> Result<IssuedRecords, LedgerError> + Send + 'static,
    ) -> Response<RecordStream> {
        let (sender, receiver) = mpsc::channel(STREAMED);
        let records = Arc::clone(&self.records);
        tokio::task::spawn_blocking(move || {
            let issued = match read(&*records) {
                Ok(issued) => issued,
                Err(error) => return drop(sender.blocking_send(Err(status::storage(&error)))),
            };
            for found in issued {
                let found = found.map(record).map_err(|error| status::storage(&error));
                let failed = found.is_err();
                if sender.blocking_send(found).is_err() || failed {
                    return; // The caller is gone, or knows that nothing more comes.
                }
            }
        });
        Response::new(ReceiverStream::new(receiver))
    }

    fn terms(&self, terms: proto::OrderTerms) -> Result<OrderTerms, IssueError> {
        issuer::check_id("id", &terms.id, ORDER_ID)?;
        let Some(profile) = self.issuance.profiles().get(&terms.profile) else {
            return Err(IssueError::ProfileUnknown(terms.profile));
        };
        profile.check_order(&terms.id, &terms.attributes).map_err(IssueError::RequestInvalid)?;
        if terms.quantity == 0 {
            return Err(IssueError::RequestInvalid("quantity must be at least 1".into()));
        }
        check_stations(&terms.stations)?;
        let not_before = terms.not_before.map(timestamp).transpose()?;
        let not_after = terms.not_after.map(timestamp).transpose()?;
        if let (Some(from), Some(until)) = (not_before, not_after)
            && from >= until
        {
            return Err(IssueError::RequestInvalid(format!("not_after {until} must be later than not_before {from}")));
        }
        Ok(OrderTerms {
            id: terms.id,
            profile: terms.profile,
            quantity: terms.quantity,
            not_before,
            not_after,
            stations: terms.stations.into_iter().map(Pattern::new).collect(),
            attributes: check_attributes(terms.attributes)?,
        })
    }
}

/// The protocol's rules for an order's stations.
fn check_stations(stations: &[String]) -> Result<(), IssueError> {
    if stations.len() > STATIONS {
        let message = format!("an order may name {STATIONS} patterns of stations; this one has {}", stations.len());
        return Err(IssueError::RequestInvalid(message));
    }
    stations.iter().try_for_each(|pattern| check_text("a pattern of stations", pattern, STATION))
}

/// The protocol's rules for an order's attributes.
fn check_attributes(attributes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, IssueError> {
    let invalid = |message: String| Err(IssueError::RequestInvalid(message));
    if attributes.len() > ATTRIBUTES {
        return invalid(format!("an order may have {ATTRIBUTES} attributes; this one has {}", attributes.len()));
    }
    for (name, value) in &attributes {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !first || name.len() > ATTRIBUTE_NAME || !name.bytes().all(allowed) {
            let shown: String = name.chars().take(40).collect();
            return invalid(format!(
                "the attribute name {shown:?} must be 1 to {ATTRIBUTE_NAME} of the characters a-z 0-9 _ - and begin \
                 with a letter"
            ));
        }
        check_text(&format!("the attribute {name}"), value, ATTRIBUTE_VALUE)?;
    }
    Ok(attributes)
}

/// The protocol's rule for texts for people.
fn check_text(field: &str, text: &str, longest: usize) -> Result<(), IssueError> {
    if (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(IssueError::RequestInvalid(format!("{field} must be 1 to {longest} characters without control characters")))
}

#[tonic::async_trait]
impl proto::admin_server::Admin for Service {
    async fn create_order(
        &self,
        request: Request<proto::CreateOrderRequest>,
    ) -> Result<Response<proto::Order>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let terms = self.terms(request.into_inner().terms.unwrap_or_default());
        let terms = terms.map_err(|error| status::failed_call(&error))?;
        let created = self.issuance.committer().create_order(actor, terms).await;
        created.map(|created| Response::new(order(created))).map_err(|error| status::failed_call(&error.into()))
    }

    async fn get_order(&self, request: Request<proto::GetOrderRequest>) -> Result<Response<proto::Order>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let id = request.into_inner().id;
        self.order(&id).await.map(|found| Response::new(order(found)))
    }

    async fn list_orders(
        &self,
        request: Request<proto::ListOrdersRequest>,
    ) -> Result<Response<proto::ListOrdersReply>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let orders = self.read(|records| records.orders()).await?;
        Ok(Response::new(proto::ListOrdersReply { orders: orders.into_iter().map(order).collect() }))
    }

    async fn close_order(&self, request: Request<proto::CloseOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let closed = self.issuance.committer().close_order(actor, request.into_inner().id).await;
        closed.map(|closed| Response::new(order(closed))).map_err(|error| status::failed_call(&error.into()))
    }

    async fn get_record(&self, request: Request<proto::GetRecordRequest>) -> Result<Response<proto::Record>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        match request.into_inner().by {
            Some(By::SerialNumber(octets)) => self.record(serial(&octets)?).await,
            Some(By::DeviceId(device)) => {
                let unknown = format!("there is no record of the device {device:?}");
                match self.read(move |records| records.by_device(&device)).await? {
                    Some(found) => Ok(Response::new(record(found))),
                    None => Err(status::record_unknown(unknown)),
                }
            }
            None => {
                let message = "name a serial_number or a device_id".into();
                Err(status::failed_call(&IssueError::RequestInvalid(message)))
            }
        }
    }

    type ListRecordsStream = RecordStream;

    async fn list_records(
        &self,
        request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<RecordStream>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let id = self.known_order(request.into_inner().order).await?;
        Ok(self.stream(move |records| records.issued_under(&id)))
    }

    async fn scrap_certificate(
        &self,
        request: Request<proto::ScrapCertificateRequest>,
    ) -> Result<Response<proto::Record>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let proto::ScrapCertificateRequest { serial_number, reason } = request.into_inner();
        let serial_number = serial(&serial_number)?;
        check_text("reason", &reason, SCRAP_REASON).map_err(|error| status::failed_call(&error))?;
        let scrapped = self.issuance.committer().scrap(actor, serial_number, reason).await;
        scrapped.map_err(|error| status::failed_call(&error.into()))?;
        self.record(serial_number).await
    }

    async fn revoke_certificate(
        &self,
        request: Request<proto::RevokeCertificateRequest>,
    ) -> Result<Response<proto::Record>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let proto::RevokeCertificateRequest { serial_number, reason } = request.into_inner();
        let serial_number = serial(&serial_number)?;
        // A number that the protocol does not know is kept as it came.
        let reason = u32::try_from(reason).unwrap_or(u32::MAX);
        let reason = RevocationReason::try_from(reason)
            .map_err(|error| status::failed_call(&IssueError::RequestInvalid(error.to_string())))?;
        let revoked = self.issuance.committer().revoke(actor, serial_number, reason).await;
        revoked.map_err(|error| status::failed_call(&error.into()))?;
        self.record(serial_number).await
    }

    async fn create_export(
        &self,
        request: Request<proto::CreateExportRequest>,
    ) -> Result<Response<proto::Export>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let created = self.issuance.committer().create_export(actor, request.into_inner().order).await;
        created.map(|created| Response::new(export(created))).map_err(|error| status::failed_call(&error.into()))
    }

    async fn list_exports(
        &self,
        request: Request<proto::ListExportsRequest>,
    ) -> Result<Response<proto::ListExportsReply>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let id = self.known_order(request.into_inner().order).await?;
        let exports = self.read(move |records| records.exports(&id)).await?;
        Ok(Response::new(proto::ListExportsReply { exports: exports.into_iter().map(export).collect() }))
    }

    type GetExportStream = RecordStream;

    async fn get_export(&self, request: Request<proto::GetExportRequest>) -> Result<Response<RecordStream>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let id = export_id(&request.into_inner().id)?;
        let found = self
            .read({
                let id = id.clone();
                move |records| records.export(&id)
            })
            .await?;
        if found.is_none() {
            return Err(status::failed_call(&Refusal::ExportUnknown(id).into()));
        }
        Ok(self.stream(move |records| records.exported(&id)))
    }

    async fn acknowledge_export(
        &self,
        request: Request<proto::AcknowledgeExportRequest>,
    ) -> Result<Response<proto::Export>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Operator])?;
        let actor = peer::actor(role, name);
        let id = export_id(&request.into_inner().id)?;
        let acknowledged = self.issuance.committer().acknowledge_export(actor, id).await;
        acknowledged
            .map(|acknowledged| Response::new(export(acknowledged)))
            .map_err(|error| status::failed_call(&error.into()))
    }
}

/// The serial number in a request.
fn serial(octets: &[u8]) -> Result<SerialNumber, Status> {
    SerialNumber::try_from(octets).map_err(|error| status::failed_call(&IssueError::RequestInvalid(error.to_string())))
}

/// The export's id in a request.
fn export_id(text: &str) -> Result<ExportId, Status> {
    text.parse().map_err(|error: NotAnExportId| status::failed_call(&IssueError::RequestInvalid(error.to_string())))
}

fn order(order: ledger::Order) -> proto::Order {
    let left = order.left();
    let ledger::Order { terms, closed, issued, reserved, confirmed, scrapped, revoked, created_at } = order;
    let terms = proto::OrderTerms {
        id: terms.id,
        profile: terms.profile,
        quantity: terms.quantity,
        not_before: terms.not_before.map(wire_timestamp),
        not_after: terms.not_after.map(wire_timestamp),
        stations: terms.stations.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        attributes: terms.attributes,
    };
    let created_at = Some(wire_timestamp(created_at));
    proto::Order { terms: Some(terms), closed, issued, reserved, left, created_at, confirmed, scrapped, revoked }
}

fn export(export: ledger::Export) -> proto::Export {
    let ledger::Export { id, certificates, created_at, created_by, acknowledged } = export;
    let (acknowledged_at, acknowledged_by) = match acknowledged {
        Some((at, by)) => (Some(wire_timestamp(at)), by.to_string()),
        None => (None, String::new()),
    };
    proto::Export {
        id: id.to_string(),
        order: id.order,
        number: id.number,
        certificates,
        created_at: Some(wire_timestamp(created_at)),
        created_by: created_by.to_string(),
        acknowledged_at,
        acknowledged_by,
    }
}

fn record(record: ledger::Record) -> proto::Record {
    let state = match record.state {
        RecordState::Reserved => proto::RecordState::Reserved,
        RecordState::Issued => proto::RecordState::Issued,
        RecordState::Abandoned => proto::RecordState::Abandoned,
        RecordState::Confirmed => proto::RecordState::Confirmed,
        RecordState::Scrapped => proto::RecordState::Scrapped,
        RecordState::Revoked => proto::RecordState::Revoked,
    };
    let (issued_at, certificate) = match record.issued {
        Some(issued) => (Some(wire_timestamp(issued.at)), issued.certificate),
        None => (None, Default::default()),
    };
    let certificate_id = if certificate.is_empty() { String::new() } else { hex::encode(sha256(&certificate)) };
    let mut told = proto::Record {
        serial_number: record.serial_number.as_bytes().to_vec().into(),
        state: state.into(),
        station: record.actor.station().unwrap_or_default().to_owned(),
        device_id: record.holder.device,
        order: record.holder.order,
        profile: record.holder.profile,
        issuer: record.holder.issuer,
        key_hash: record.holder.key_hash.to_vec().into(),
        reserved_at: Some(wire_timestamp(record.reserved_at)),
        issued_at,
        certificate,
        certificate_id,
        replaces: record.replaces.map(|replaced| replaced.as_bytes().to_vec().into()).unwrap_or_default(),
        ..proto::Record::default()
    };
    if let Some(Change { at, by, scrap_reason, revocation_reason }) = record.changed {
        told.changed_at = Some(wire_timestamp(at));
        told.changed_by = by.to_string();
        told.scrap_reason = scrap_reason;
        told.revocation_reason = revocation_reason.map_or(0, |reason| reason.code() as i32);
    }
    told
}

fn wire_timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn timestamp(time: prost_types::Timestamp) -> Result<Timestamp, IssueError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|error| IssueError::RequestInvalid(format!("the time {time:?} is impossible: {error}")))
}
