//! Batches of destinations, for operators and auditors.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{
    limits::{PeerLimits, Permit},
    request_error::RequestError,
    status,
};
use crate::{
    destinations::{self, BatchError, Cut, Destinations},
    export::{
        settings::Settings,
        sink::{Sink, SinkError},
    },
    ledger::{Actor, Batch, BatchId, BatchTerms, LedgerError, RecordState, UnfitDevice},
    proto::{
        self, acknowledge_batch_request::Request as Acknowledge, bundle_chunk::Chunk,
        create_batch_reply::Reply as CreateReply, plan_batch_reply::Reply as PlanReply,
    },
};

/// Messages on their way to a peer, and the next of results on their way from it.
const AHEAD: usize = 8;

/// Octets of a message of a bundle.
const CHUNK: usize = 64 << 10;

/// How long a peer may take to send more of its results.
const STALLED: Duration = Duration::from_secs(60);

pub(super) type Messages<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream whose messages come from elsewhere; what it holds is free when both ends are gone.
fn stream<T: Send + 'static>(permits: [Permit; 2]) -> (mpsc::Sender<Result<T, Status>>, Messages<T>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let messages = ReceiverStream::new(receiver).map(move |message| {
        let _held = &permits;
        message
    });
    (sender, Box::pin(messages))
}

/// Says how far something is, as far as the peer listens.
fn progress<T: Send + 'static>(
    sender: &mpsc::Sender<Result<T, Status>>,
    of: u64,
    message: fn(proto::Progress) -> T,
) -> Arc<dyn Fn(u64) + Send + Sync> {
    let sender = sender.clone();
    Arc::new(move |done| drop(sender.try_send(Ok(message(proto::Progress { done, of })))))
}

/// What the destination's next batch would have.
pub(super) fn plan(
    destinations: &Destinations,
    peer: &PeerLimits,
    name: &str,
) -> Result<Messages<proto::PlanBatchReply>, Status> {
    let destination = destinations.find(name).map_err(failed)?;
    let (sender, messages) = stream(peer.record_stream()?);
    let destinations = destinations.clone();
    tokio::spawn(async move {
        let of = destinations.records.head().sequence;
        let wrap = |progress| proto::PlanBatchReply { reply: Some(PlanReply::Progress(progress)) };
        let planned = destinations::plan(&destinations, destination, progress(&sender, of, wrap)).await;
        let reply = planned.map(|cut| proto::PlanBatchReply { reply: Some(PlanReply::Plan(plan_message(cut))) });
        let _ = sender.send(reply.map_err(failed)).await;
    });
    Ok(messages)
}

/// Cuts the destination's next batch; also when the peer has gone.
pub(super) fn create(
    destinations: &Destinations,
    peer: &PeerLimits,
    actor: Actor,
    name: &str,
) -> Result<Messages<proto::CreateBatchReply>, Status> {
    let destination = destinations.find(name).map_err(failed)?;
    let (sender, messages) = stream(peer.record_stream()?);
    let destinations = destinations.clone();
    tokio::spawn(async move {
        let of = destinations.records.head().sequence;
        let wrap = |progress| proto::CreateBatchReply { reply: Some(CreateReply::Progress(progress)) };
        let batch = destinations::cut(&destinations, destination, actor, progress(&sender, of, wrap)).await;
        let reply = match batch {
            Ok(batch) => show(destinations, batch).await.map_err(failed),
            Err(error) => Err(failed(error)),
        };
        let reply = reply.map(|batch| proto::CreateBatchReply { reply: Some(CreateReply::Batch(batch)) });
        let _ = sender.send(reply).await;
    });
    Ok(messages)
}

/// All batches of a destination, or of all.
pub(super) fn list(
    destinations: &Destinations,
    peer: &PeerLimits,
    name: String,
) -> Result<Messages<proto::Batch>, Status> {
    let known = destinations.records.destinations();
    let known: Vec<_> = known.into_iter().filter(|known| name.is_empty() || known.name == name).collect();
    if known.is_empty() && !name.is_empty() {
        // One without a batch.
        destinations.find(&name).map_err(failed)?;
    }
    let (sender, messages) = stream(peer.record_stream()?);
    let destinations = destinations.clone();
    tokio::spawn(async move {
        for known in known {
            for number in 1..=known.batches {
                let id = BatchId { destination: known.name.clone(), number };
                let shown = found(destinations.clone(), id).await.map_err(failed);
                if sender.send(shown).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(messages)
}

/// The files of a batch.
pub(super) fn bundle(
    destinations: &Destinations,
    peer: &PeerLimits,
    id: BatchId,
    stall_limit: Duration,
) -> Result<Messages<proto::BundleChunk>, Status> {
    let (sender, messages) = stream(peer.record_stream()?);
    let (destinations, runtime) = (destinations.clone(), Handle::current());
    tokio::spawn(async move {
        let sink = PeerSink { sender: sender.clone(), runtime: runtime.clone(), stall_limit, data: Vec::new() };
        let made = destinations::in_background(move || {
            let mut sink = destinations::render(&destinations, &id, sink, &runtime, &|_| {})?;
            Ok::<_, BatchError>(sink.flush()?)
        });
        if let Err(error) = made.await {
            // Nobody listens if nobody took the files.
            let _ = tokio::time::timeout(stall_limit, sender.send(Err(failed(error)))).await;
        }
    });
    Ok(messages)
}

/// Sends files to a peer, as fast as it takes them.
struct PeerSink {
    sender: mpsc::Sender<Result<proto::BundleChunk, Status>>,
    runtime: Handle,
    stall_limit: Duration,
    data: Vec<u8>,
}

impl PeerSink {
    fn send(&self, chunk: Chunk) -> Result<(), SinkError> {
        let message = proto::BundleChunk { chunk: Some(chunk) };
        let sent = self.runtime.block_on(tokio::time::timeout(self.stall_limit, self.sender.send(Ok(message))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SinkError::Gone),
            Err(_) => {
                let stalled = Err(status::stalled(self.stall_limit));
                let _ = self.runtime.block_on(tokio::time::timeout(self.stall_limit, self.sender.send(stalled)));
                Err(SinkError::Gone)
            }
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if self.data.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.data, Vec::with_capacity(CHUNK));
        self.send(Chunk::Data(data.into()))
    }
}

impl Sink for PeerSink {
    fn start(&mut self, name: &str) -> Result<(), SinkError> {
        self.flush()?;
        self.send(Chunk::File(proto::FileStart { name: name.to_owned() }))
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), SinkError> {
        let mut rest = octets;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(CHUNK - self.data.len()));
            self.data.extend_from_slice(now);
            rest = later;
            if self.data.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }
}

/// A platform's word that it has a batch.
pub(super) async fn acknowledge(
    destinations: &Destinations,
    peer: &PeerLimits,
    actor: Actor,
    mut requests: Streaming<proto::AcknowledgeBatchRequest>,
) -> Result<Messages<proto::Batch>, Status> {
    let permits = peer.record_stream()?;
    let first = tokio::time::timeout(STALLED, requests.message()).await.map_err(|_| status::too_slow(STALLED))??;
    let Some(Acknowledge::Start(start)) = first.and_then(|first| first.request) else {
        return Err(invalid("the first message must be a start".into()));
    };
    let id = batch_id(&start.id)?;
    let (sender, messages) = stream(permits);
    let destinations = destinations.clone();
    let (results, upload) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let upload = start.has_results.then_some(upload);
        let receive = async move {
            if start.has_results {
                receive(requests, results).await;
            }
        };
        let (acknowledged, ()) = tokio::join!(destinations::acknowledge(&destinations, actor, id, upload), receive);
        let shown = match acknowledged {
            Ok(batch) => show(destinations, batch).await,
            Err(error) => Err(error),
        };
        let _ = sender.send(shown.map_err(failed)).await;
    });
    Ok(messages)
}

/// Passes results on, until there are no more or nobody wants them.
async fn receive(mut requests: Streaming<proto::AcknowledgeBatchRequest>, results: mpsc::Sender<Result<Bytes, ()>>) {
    loop {
        let next = match tokio::time::timeout(STALLED, requests.message()).await {
            Ok(Ok(Some(proto::AcknowledgeBatchRequest { request: Some(Acknowledge::Results(octets)) }))) => Ok(octets),
            Ok(Ok(None)) => return,
            _ => Err(()),
        };
        let broken = next.is_err();
        if results.send(next).await.is_err() || broken {
            return;
        }
    }
}

/// The batch's id in a request.
pub(super) fn batch_id(text: &str) -> Result<BatchId, Status> {
    text.parse().map_err(|error: crate::ledger::ParseBatchIdError| invalid(error.to_string()))
}

fn invalid(message: String) -> Status {
    status::failed_call(&RequestError::Invalid(message))
}

fn failed(error: BatchError) -> Status {
    if let BatchError::Storage(error) = &error {
        tracing::error!(%error, "the ledger could not be read");
    }
    status::failed_call(&error.into())
}

async fn found(destinations: Destinations, id: BatchId) -> Result<proto::Batch, BatchError> {
    let records = Arc::clone(&destinations.records);
    let wanted = id.clone();
    let batch = spawn_blocking(move || records.batch(&wanted)).await??;
    show(destinations, batch.ok_or(BatchError::BatchUnknown(id))?).await
}

/// A batch with what it left out.
async fn show(destinations: Destinations, batch: Batch) -> Result<proto::Batch, BatchError> {
    let terms = spawn_blocking(move || {
        let terms = destinations.records.batch_terms(&batch.id)?;
        Ok::<_, LedgerError>((batch, terms))
    });
    let (batch, terms) = terms.await??;
    let terms = terms.ok_or_else(|| BatchError::BatchUnknown(batch.id.clone()))?;
    Ok(batch_message(&batch, &terms))
}

fn batch_message(batch: &Batch, terms: &BatchTerms) -> proto::Batch {
    let acknowledged = batch.acknowledged.as_ref();
    let results = acknowledged.and_then(|acknowledged| acknowledged.results);
    let format = Settings::from_json(&terms.settings).map(|settings| settings.format.to_string()).unwrap_or_default();
    proto::Batch {
        id: batch.id.to_string(),
        destination: batch.id.destination.clone(),
        number: batch.id.number,
        first: batch.first,
        end: batch.end,
        certificates: batch.certificates,
        withdrawn: batch.withdrawn,
        unfit: unfit_messages(&terms.unfit),
        created_at: Some(proto::timestamp(batch.created_at)),
        created_by: batch.created_by.to_string(),
        manifest_sha256: batch.seal.as_ref().map(|seal| seal.manifest_sha256.to_vec().into()).unwrap_or_default(),
        acknowledged_at: acknowledged.map(|acknowledged| proto::timestamp(acknowledged.at)),
        acknowledged_by: acknowledged.map(|acknowledged| acknowledged.by.to_string()).unwrap_or_default(),
        results: results.map(|results| proto::BatchResults {
            sha256: results.sha256.to_vec().into(),
            registered: results.registered,
            already: results.already,
            withdrawn: results.withdrawn,
            failed: results.failed,
        }),
        format,
    }
}

fn unfit_messages(unfit: &[UnfitDevice]) -> Vec<proto::UnfitDevice> {
    let message = |unfit: &UnfitDevice| proto::UnfitDevice {
        serial_number: unfit.serial_number.as_bytes().to_vec().into(),
        device_id: unfit.device.clone(),
        reason: unfit.reason.clone(),
    };
    unfit.iter().map(message).collect()
}

fn plan_message(Cut { terms, withdrawals }: Cut) -> proto::BatchPlan {
    let destination = &terms.id.destination;
    let withdrawals = withdrawals.iter().map(|withdrawal| proto::PlannedWithdrawal {
        serial_number: withdrawal.record.serial_number.as_bytes().to_vec().into(),
        device_id: withdrawal.record.holder.device.clone(),
        reason: if withdrawal.record.state == RecordState::Revoked { "revoked" } else { "scrapped" }.to_owned(),
        batch: BatchId { destination: destination.clone(), number: withdrawal.batch }.to_string(),
    });
    proto::BatchPlan {
        destination: destination.clone(),
        number: terms.id.number,
        first: terms.first,
        end: terms.end,
        certificates: terms.certificates,
        again: terms.again.len() as u64,
        withdrawn: terms.withdrawn,
        withdrawals: withdrawals.collect(),
        unfit: unfit_messages(&terms.unfit),
    }
}
