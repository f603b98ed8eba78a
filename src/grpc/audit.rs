//! The `Audit` service: what has happened, out of the ledger, for auditors and operators.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{limits::PeerLimits, peer::Peer, records::Reader, request_error::RequestError, status};
use crate::{
    ledger::{
        Concern, EVENTS, EntryTail, HistoryEntry, Holder, LedgerError, Records, Refusal,
        entry::{Entry, Event},
        entry_to_json,
    },
    pattern::{Pattern, allows},
    proto::{
        self, AuditEnd, AuditEntry, AuditReply, HistoryRequest, ListAuditRequest, audit_reply::Reply,
        history_request::By,
    },
    quote::quoted,
    roles::Call,
    serial::SerialNumber,
};

/// How many entries are read at once, and how many replies may wait for the peer.
const PAGE: usize = 64;

/// How long entries are read before the next reader has the thread.
const PAGE_TIME: Duration = Duration::from_millis(20);

/// How many reservations are remembered, so that their certificates need no look-up.
const REMEMBERED: usize = 1024;

/// The most certificates of one device that are told.
const CERTIFICATES: usize = 10_000;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers auditors and operators.
pub(super) struct Service {
    reader: Reader,
}

impl Service {
    pub(super) fn new(reader: Reader) -> Self {
        Service { reader }
    }
}

#[tonic::async_trait]
impl proto::audit_server::Audit for Service {
    type ListStream = Replies<AuditReply>;

    async fn list(&self, request: Request<ListAuditRequest>) -> Result<Response<Self::ListStream>, Status> {
        let limits = limits(&request, Call::ListAudit)?;
        let wanted = Wanted::read(request.into_inner()).map_err(|error| status::failed_call(&error))?;
        let (reader, of) = (self.reader.clone(), Arc::clone(&limits));
        stream(&limits, move |sender| async move { list(&reader, &of, wanted, &sender).await })
    }

    type HistoryStream = Replies<AuditEntry>;

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<Self::HistoryStream>, Status> {
        let limits = limits(&request, Call::History)?;
        let serial_numbers = match request.into_inner().by {
            Some(By::SerialNumber(octets)) => {
                let serial = SerialNumber::try_from(&*octets);
                vec![serial.map_err(|error| status::failed_call(&RequestError::Invalid(error.to_string())))?]
            }
            Some(By::DeviceId(device)) => {
                let unknown = RequestError::DeviceUnknown(device.clone());
                let found = self.reader.read(&limits, move |records| certificates_of(records, &device)).await?;
                if found.is_empty() {
                    return Err(status::failed_call(&unknown));
                }
                found
            }
            None => {
                let message = "name a serial_number or a device_id".into();
                return Err(status::failed_call(&RequestError::Invalid(message)));
            }
        };
        let (reader, of) = (self.reader.clone(), Arc::clone(&limits));
        stream(&limits, move |sender| async move { history(&reader, &of, serial_numbers, &sender).await })
    }
}

/// The limits of a peer that may make the call.
fn limits<T>(request: &Request<T>, call: Call) -> Result<Arc<PeerLimits>, Status> {
    let peer = Peer::from_request(request)?;
    peer.require(call)?;
    peer.limits().cloned()
}

/// Sends what `tell` finds, only as fast as the peer takes it, until it goes.
fn stream<T: Send + 'static, F: Future<Output = Result<(), Status>> + Send>(
    peer: &Arc<PeerLimits>,
    tell: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F + Send + 'static,
) -> Result<Response<Replies<T>>, Status> {
    let permits = peer.record_stream()?;
    let (sender, receiver) = mpsc::channel(PAGE);
    tokio::spawn(async move {
        tokio::select! {
            told = tell(sender.clone()) => {
                if let Err(status) = told {
                    // A caller that is gone does not hear why.
                    let _ = sender.send(Err(status)).await;
                }
            }
            () = sender.closed() => {}
        }
        drop(permits);
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// Sends one reply; false if the caller is gone.
async fn send<T>(reader: &Reader, sender: &mpsc::Sender<Result<T, Status>>, reply: T) -> Result<bool, Status> {
    match tokio::time::timeout(reader.stall_limit(), sender.send(Ok(reply))).await {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(status::stalled(reader.stall_limit())),
    }
}

/// What an auditor asks for.
struct Wanted {
    after: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    actors: Vec<Pattern>,
    events: Vec<Pattern>,
    order: String,
    device: String,
    /// How many more entries.
    left: u64,
}

impl Wanted {
    fn read(request: ListAuditRequest) -> Result<Wanted, RequestError> {
        let moment = |time: Option<prost_types::Timestamp>| {
            let moment = time.map(|time| proto::moment(&time)).transpose();
            moment.map_err(|error| RequestError::Invalid(error.to_string()))
        };
        let events: Vec<_> = request.events.into_iter().map(Pattern::new).collect();
        if let Some(unknown) = events.iter().find(|event| !EVENTS.iter().any(|known| event.matches(known))) {
            let message = format!("no event is called {}; there are: {}", quoted(unknown.as_str()), EVENTS.join(", "));
            return Err(RequestError::Invalid(message));
        }
        Ok(Wanted {
            after: request.after,
            since: moment(request.since)?,
            until: moment(request.until)?,
            actors: request.actors.into_iter().map(Pattern::new).collect(),
            events,
            order: request.order,
            device: request.device_id,
            left: if request.limit == 0 { u64::MAX } else { request.limit },
        })
    }

    /// Whether an entry fits what it tells itself.
    fn fits(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
            && allows(&self.actors, &entry.actor.0)
            && allows(&self.events, entry.event.kind())
    }

    /// Whether an entry fits, by what is known about whom and what it concerns.
    fn fits_subject(&self, event: &Event, about: &About) -> bool {
        (self.order.is_empty() || about.order == self.order)
            && (self.device.is_empty() || about.device == self.device || event.lists_device(&self.device))
    }
}

/// Whom and what an entry concerns.
#[derive(Clone, Debug, Default)]
struct About {
    device: String,
    order: String,
    profile: String,
}

impl From<&Holder> for About {
    fn from(holder: &Holder) -> About {
        let Holder { device, order, profile, .. } = holder.clone();
        About { device, order, profile }
    }
}

/// Reads entries in their order.
struct Walk {
    tail: EntryTail,
    wanted: Wanted,
    /// For whom serial numbers are that were reserved lately.
    recent: HashMap<SerialNumber, About>,
    /// The number of the last entry that was looked at, and of the last that is.
    at: u64,
    end: u64,
}

async fn list(
    reader: &Reader,
    peer: &PeerLimits,
    wanted: Wanted,
    sender: &mpsc::Sender<Result<AuditReply, Status>>,
) -> Result<(), Status> {
    let mut walk = reader.read(peer, move |records| Walk::begin(records, wanted)).await?;
    while walk.at < walk.end && walk.wanted.left > 0 {
        let (rest, found) = reader.read(peer, move |records| walk.page(records)).await?;
        walk = rest;
        for entry in found {
            if !send(reader, sender, AuditReply { reply: Some(Reply::Entry(entry)) }).await? {
                return Ok(());
            }
        }
    }
    let end = AuditEnd { sequence: walk.at, more: walk.at < walk.end };
    send(reader, sender, AuditReply { reply: Some(Reply::End(end)) }).await.map(drop)
}

impl Walk {
    fn begin(records: &dyn Records, wanted: Wanted) -> Result<Walk, LedgerError> {
        let before = wanted.since.map(|since| records.sequence_before(since)).transpose()?.unwrap_or(0);
        let at = wanted.after.max(before);
        let (tail, end) = (records.entries_after(at)?, records.head().sequence);
        Ok(Walk { tail, wanted, recent: HashMap::new(), at, end })
    }

    /// Reads on, and gives what was asked for.
    fn page(mut self, records: &dyn Records) -> Result<(Walk, Vec<AuditEntry>), LedgerError> {
        let deadline = Instant::now() + PAGE_TIME;
        let mut found = Vec::new();
        while self.at < self.end && self.wanted.left > 0 && found.len() < PAGE && Instant::now() < deadline {
            let most = usize::try_from(self.end - self.at).unwrap_or(PAGE).min(PAGE);
            let entries = self.tail.read(most)?;
            if entries.is_empty() {
                // It cannot be: the end is durable.
                self.end = self.at;
            }
            for (sequence, entry) in entries {
                if self.wanted.left > 0 {
                    self.at = sequence;
                    let taken = self.take(records, sequence, &entry)?;
                    self.wanted.left -= u64::from(taken.is_some());
                    found.extend(taken);
                }
            }
        }
        Ok((self, found))
    }

    fn take(&mut self, records: &dyn Records, sequence: u64, entry: &Entry) -> Result<Option<AuditEntry>, LedgerError> {
        let subject = entry.event.subject();
        if let (Some(serial), Some(holder)) = (subject.serial_number, subject.holder) {
            if self.recent.len() >= REMEMBERED {
                self.recent.clear();
            }
            self.recent.insert(serial, holder.into());
        }
        if !self.wanted.fits(entry) {
            return Ok(None);
        }
        let about = match (subject.serial_number, subject.order) {
            // An order that is not the one asked for needs no look-up.
            (Some(_), Some(order)) if !self.wanted.order.is_empty() && order != self.wanted.order => return Ok(None),
            (Some(serial), _) => match self.recent.get(&serial) {
                Some(about) => about.clone(),
                None => records.by_serial_number(&serial)?.map(|record| (&record.holder).into()).unwrap_or_default(),
            },
            (None, order) => About {
                device: subject.device.unwrap_or_default().to_owned(),
                order: order.unwrap_or_default().to_owned(),
                profile: String::new(),
            },
        };
        Ok(self.wanted.fits_subject(&entry.event, &about).then(|| message(sequence, entry, about)))
    }
}

fn message(sequence: u64, entry: &Entry, about: About) -> AuditEntry {
    let subject = entry.event.subject();
    let About { device, order, profile } = about;
    let mut json = entry_to_json(sequence, entry);
    for (name, value) in [("device_id", &device), ("order", &order), ("profile", &profile)] {
        if !value.is_empty() && json.get(name).is_none() {
            json[name] = value.as_str().into();
        }
    }
    AuditEntry {
        sequence,
        time: Some(proto::timestamp(entry.time)),
        actor: entry.actor.to_string(),
        event: entry.event.kind().into(),
        serial_number: subject.serial_number.map(|serial| serial.as_bytes().to_vec().into()).unwrap_or_default(),
        device_id: device,
        order,
        profile,
        peer: subject.peer.map(ToString::to_string).unwrap_or_default(),
        batch: String::new(),
        json: json.to_string(),
    }
}

/// The serial numbers of a device, the oldest first.
fn certificates_of(records: &dyn Records, device: &str) -> Result<Vec<SerialNumber>, LedgerError> {
    let mut found = Vec::new();
    let mut next = records.by_device(device)?;
    while let Some(record) = next.take().filter(|_| found.len() < CERTIFICATES) {
        found.push(record.serial_number);
        if let Some(replaced) = record.replaces {
            next = records.by_serial_number(&replaced)?;
        }
    }
    found.reverse();
    Ok(found)
}

async fn history(
    reader: &Reader,
    peer: &PeerLimits,
    serial_numbers: Vec<SerialNumber>,
    sender: &mpsc::Sender<Result<AuditEntry, Status>>,
) -> Result<(), Status> {
    for serial in serial_numbers {
        let read = move |records: &dyn Records| {
            let about = records.by_serial_number(&serial)?.map(|record| About::from(&record.holder));
            Ok((about, records.history(&serial)?))
        };
        let (Some(about), entries) = reader.read(peer, read).await? else {
            return Err(status::failed_call(&Refusal::RecordUnknown(serial).into()));
        };
        for entry in entries {
            if !send(reader, sender, of_history(&serial, &about, entry)).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn of_history(serial: &SerialNumber, about: &About, found: HistoryEntry) -> AuditEntry {
    let HistoryEntry { sequence, entry, concern } = found;
    let (event, batch) = match concern {
        Concern::Subject => return of_certificate(serial, message(sequence, &entry, about.clone())),
        Concern::InExport(id) => ("exported", id.to_string()),
        Concern::InBatch(id) => ("exported", id.to_string()),
        Concern::Withdrawn(id) => ("withdrawn", id.to_string()),
    };
    // Not all that the batch states, which may be about thousands.
    let whole = entry_to_json(sequence, &entry);
    let json = json!({
        "sequence": sequence,
        "time": whole["time"],
        "actor": whole["actor"],
        "event": event,
        "batch": batch,
        "serial_number": serial.to_string(),
        "device_id": about.device,
        "order": about.order,
        "profile": about.profile,
    });
    let About { device, order, profile } = about.clone();
    AuditEntry {
        sequence,
        time: Some(proto::timestamp(entry.time)),
        actor: entry.actor.to_string(),
        event: event.into(),
        serial_number: serial.as_bytes().to_vec().into(),
        device_id: device,
        order,
        profile,
        peer: String::new(),
        batch,
        json: json.to_string(),
    }
}

/// A recovered certificate may be told in the history of the one that it scrapped.
fn of_certificate(serial: &SerialNumber, entry: AuditEntry) -> AuditEntry {
    let event = match entry.event.as_str() {
        "recovered" if entry.serial_number != serial.as_bytes().as_slice() => "scrapped".to_owned(),
        _ => entry.event,
    };
    AuditEntry { serial_number: serial.as_bytes().to_vec().into(), event, ..entry }
}
