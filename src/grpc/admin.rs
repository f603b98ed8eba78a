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
    ledger::{self, LedgerError, OrderTerms, RecordState, Records, Refusal},
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

/// Records that an export reads ahead of the network.
const EXPORTED: usize = 64;

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

    fn terms(&self, terms: proto::OrderTerms) -> Result<OrderTerms, IssueError> {
        issuer::check_id("id", &terms.id, ORDER_ID)?;
        let Some(profile) = self.issuance.profiles().get(&terms.profile) else {
            return Err(IssueError::ProfileUnknown(terms.profile));
        };
        profile.check_order(&terms.id, &terms.attributes).map_err(IssueError::RequestInvalid)?;
        if terms.quantity == 0 {
            return Err(IssueError::RequestInvalid("quantity must be at least 1".into()));
        }
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
        if !(1..=ATTRIBUTE_VALUE).contains(&value.chars().count()) || value.chars().any(char::is_control) {
            return invalid(format!(
                "the attribute {name} must be 1 to {ATTRIBUTE_VALUE} characters without control characters"
            ));
        }
    }
    Ok(attributes)
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
        let found = self
            .read({
                let id = id.clone();
                move |records| records.order(&id)
            })
            .await?;
        match found {
            Some(found) => Ok(Response::new(order(found))),
            None => Err(status::failed_call(&Refusal::OrderUnknown(id).into())),
        }
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
        let by = request.into_inner().by;
        let (found, what) = match by {
            Some(By::SerialNumber(octets)) => {
                let serial = SerialNumber::try_from(octets.as_ref())
                    .map_err(|error| status::failed_call(&IssueError::RequestInvalid(error.to_string())))?;
                let found = self.read(move |records| records.by_serial_number(&serial)).await?;
                (found, format!("the serial number {serial}"))
            }
            Some(By::DeviceId(device)) => {
                let what = format!("the device {device:?}");
                (self.read(move |records| records.by_device(&device)).await?, what)
            }
            None => {
                let message = "name a serial_number or a device_id".into();
                return Err(status::failed_call(&IssueError::RequestInvalid(message)));
            }
        };
        match found {
            Some(found) => Ok(Response::new(record(found))),
            None => Err(status::record_unknown(format!("there is no record of {what}"))),
        }
    }

    type ExportStream = ReceiverStream<Result<proto::Record, Status>>;

    async fn export(&self, request: Request<proto::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Peer::of(&request)?.require(&READERS)?;
        let id = request.into_inner().order;
        let known = self
            .read({
                let id = id.clone();
                move |records| records.order(&id)
            })
            .await?;
        if known.is_none() {
            return Err(status::failed_call(&Refusal::OrderUnknown(id).into()));
        }
        let (sender, receiver) = mpsc::channel(EXPORTED);
        let records = Arc::clone(&self.records);
        tokio::task::spawn_blocking(move || {
            let issued = match records.issued_under(&id) {
                Ok(issued) => issued,
                Err(error) => return drop(sender.blocking_send(Err(status::storage(&error)))),
            };
            for found in issued {
                let found = found.map(record).map_err(|error| status::storage(&error));
                if sender.blocking_send(found).is_err() {
                    return; // The caller is gone.
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn order(order: ledger::Order) -> proto::Order {
    let left = order.left();
    let ledger::Order { terms, closed, issued, reserved, created_at } = order;
    let terms = proto::OrderTerms {
        id: terms.id,
        profile: terms.profile,
        quantity: terms.quantity,
        not_before: terms.not_before.map(wire_timestamp),
        not_after: terms.not_after.map(wire_timestamp),
        stations: terms.stations.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        attributes: terms.attributes,
    };
    proto::Order { terms: Some(terms), closed, issued, reserved, left, created_at: Some(wire_timestamp(created_at)) }
}

fn record(record: ledger::Record) -> proto::Record {
    let state = match record.state {
        RecordState::Reserved => proto::RecordState::Reserved,
        RecordState::Issued => proto::RecordState::Issued,
        RecordState::Abandoned => proto::RecordState::Abandoned,
    };
    let (issued_at, certificate) = match record.issued {
        Some(issued) => (Some(wire_timestamp(issued.at)), issued.certificate),
        None => (None, Default::default()),
    };
    let certificate_id = if certificate.is_empty() { String::new() } else { hex::encode(sha256(&certificate)) };
    proto::Record {
        serial_number: record.serial_number.as_bytes().to_vec().into(),
        state: state.into(),
        device_id: record.holder.device,
        order: record.holder.order,
        profile: record.holder.profile,
        issuer: record.holder.issuer,
        station: record.actor.station().unwrap_or_default().to_owned(),
        key_hash: record.holder.key_hash.to_vec().into(),
        reserved_at: Some(wire_timestamp(record.reserved_at)),
        issued_at,
        certificate,
        certificate_id,
    }
}

fn wire_timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn timestamp(time: prost_types::Timestamp) -> Result<Timestamp, IssueError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|error| IssueError::RequestInvalid(format!("the time {time:?} is impossible: {error}")))
}
