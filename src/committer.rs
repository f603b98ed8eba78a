//! The one thread that owns the ledger.
//!
//! It takes what has gathered in its queue (`committer/queue.rs`), lets the ledger decide and make durable all of it at
//! once, then answers: reservations and records of different requests share one sync.
//!
//! The queue is bounded by a semaphore: a request takes a place before it reserves and keeps it until its certificate
//! is recorded or given up, and has at most one operation in the queue. So a record never waits for a place, however
//! many requests want to reserve.

mod queue;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::queue::{Receiver, Sender};
use crate::{
    cert::Signed,
    ledger::{
        Action, Actor, Export, ExportId, Ledger, LedgerError, Operation, Order, OrderTerms, Outcome, Refusal,
        RevocationReason,
    },
    metrics,
    profile::Approved,
    serial::SerialNumber,
};

/// How many requests may be between reservation and record.
pub const CAPACITY: usize = 8192;

/// The most operations in one batch: bounds how long the first of them waits for the others' work.
const BATCH: usize = 512;

/// Gives operations to the thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Committer {
    queue: Arc<Sender<Request>>,
    places: Arc<Semaphore>,
}

/// A serial number that is durable, and the right to sign one certificate with it. It cannot be cloned; dropped
/// unused, it is given up.
#[derive(Debug)]
pub struct Reservation {
    serial_number: SerialNumber,
    reserved_at: Timestamp,
    actor: Actor,
    issuer: String,
    /// Present until it is recorded or given up.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    queue: Arc<Sender<Request>>,
    _place: Place,
}

/// What a request holds between reservation and record.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: metrics::InFlight,
}

/// A certificate whose record is durable. Only the committer makes one, and only one can be sent.
#[derive(Clone, Debug)]
pub struct Issued {
    serial_number: SerialNumber,
    certificate: Bytes,
    issuer: String,
    replay: bool,
}

impl Issued {
    /// The serial number.
    pub fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    /// The issuing CA's name in the configuration.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it was issued for an earlier request.
    pub fn replay(&self) -> bool {
        self.replay
    }
}

/// What a request to reserve gives.
#[derive(Debug)]
pub enum Reserved {
    /// A new serial number.
    New(Reservation),
    /// The certificate that the same request got before.
    Existing(Issued),
}

/// Why an operation did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The rules of the ledger forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage failed.
    #[error("{0}")]
    Storage(Arc<LedgerError>),
    /// The ledger answered something else than what was asked for: a mistake in this program, which no retry cures.
    #[error("the ledger gave an outcome that does not fit the operation")]
    Unexpected,
    /// The thread has ended: the daemon is shutting down, or a sync failed.
    #[error("the ledger is closed")]
    Closed,
}

#[derive(Debug)]
struct Request {
    operation: Operation,
    reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<Outcome, CommitError>>;

impl Committer {
    /// Starts the thread. It ends, and closes the ledger, after [`Committer::close`]; it ends with an error when the
    /// ledger can no longer be trusted.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(ledger: impl Ledger) -> std::io::Result<(Committer, JoinHandle<Result<(), LedgerError>>)> {
        let (queue, requests) = queue::queue();
        let committer = Committer { queue, places: Arc::new(Semaphore::new(CAPACITY)) };
        let places = Arc::clone(&committer.places);
        let thread = thread::Builder::new().name("committer".into()).spawn(move || run(ledger, requests, &places))?;
        Ok((committer, thread))
    }

    /// Gives the device a serial number, durably, or finds the certificate that the same request got before. A request
    /// that is the same as one whose certificate is being made waits for that certificate. With `reissue` the new
    /// certificate takes the place of one that was scrapped or revoked.
    ///
    /// # Errors
    /// The rules of the ledger, the storage, or a closed ledger.
    pub async fn reserve(&self, approved: &Approved, actor: &Actor, reissue: bool) -> Result<Reserved, CommitError> {
        let place = self.place().await?;
        let holder = approved.holder();
        let reserved_at = Timestamp::now();
        let action = if reissue { Action::Reissue(holder.clone()) } else { Action::Reserve(holder.clone()) };
        match self.submit(actor.clone(), action).await? {
            Outcome::Reserved(serial_number) => Ok(Reserved::New(Reservation {
                serial_number,
                reserved_at,
                actor: actor.clone(),
                issuer: holder.issuer.clone(),
                open: Some(Open { queue: self.queue.clone(), _place: place }),
            })),
            Outcome::Replay { serial_number, certificate, issuer } => {
                Ok(Reserved::Existing(Issued { serial_number, certificate, issuer, replay: true }))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Records a certificate, durably.
    ///
    /// # Errors
    /// As for [`Committer::reserve`]. After a failure of the storage the reservation is given up.
    pub async fn record(&self, signed: Signed) -> Result<Issued, CommitError> {
        let (mut reservation, certificate) = signed.into_parts();
        let certificate = Bytes::from(certificate);
        let serial_number = reservation.serial_number;
        let action = Action::Record { serial_number, certificate: certificate.clone() };
        self.submit(reservation.actor.clone(), action).await?;
        reservation.open = None;
        Ok(Issued { serial_number, certificate, issuer: std::mem::take(&mut reservation.issuer), replay: false })
    }

    /// Records that a device has taken its certificate. `profiles` are those that the station that asks may use; `None`:
    /// all, for it is no station.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn confirm(
        &self,
        actor: Actor,
        serial_number: SerialNumber,
        profiles: Option<Arc<BTreeSet<String>>>,
    ) -> Result<(), CommitError> {
        self.change(actor, Action::Confirm { serial_number, profiles }, metrics::confirmed).await
    }

    /// Records that a device is scrap.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn scrap(&self, actor: Actor, serial_number: SerialNumber, reason: String) -> Result<(), CommitError> {
        self.change(actor, Action::Scrap { serial_number, reason }, metrics::scrapped).await
    }

    /// Records that a certificate is not to be trusted any more.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn revoke(
        &self,
        actor: Actor,
        serial_number: SerialNumber,
        reason: RevocationReason,
    ) -> Result<(), CommitError> {
        self.change(actor, Action::Revoke { serial_number, reason }, metrics::revoked).await
    }

    /// Cuts the next batch of an order's certificates.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn create_export(&self, actor: Actor, order: String) -> Result<Export, CommitError> {
        self.change_export(actor, Action::CreateExport { order }).await
    }

    /// Records that the platform which an export is for has it.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn acknowledge_export(&self, actor: Actor, id: ExportId) -> Result<Export, CommitError> {
        self.change_export(actor, Action::AcknowledgeExport { id }).await
    }

    /// Creates an order, or finds the one with the same terms.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn create_order(&self, actor: Actor, terms: OrderTerms) -> Result<Order, CommitError> {
        self.change_order(actor, Action::CreateOrder(terms)).await
    }

    /// Closes an order.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn close_order(&self, actor: Actor, id: String) -> Result<Order, CommitError> {
        self.change_order(actor, Action::CloseOrder { id }).await
    }

    /// Records a checkpoint. It takes a place like any request, and holds up none.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn checkpoint(&self, note: String, begins_anew: bool) -> Result<(), CommitError> {
        let _place = self.places.acquire().await.map_err(|_| CommitError::Closed)?;
        match self.submit(Actor::daemon(), Action::Checkpoint { note, begins_anew }).await? {
            Outcome::Checkpointed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets nothing new begin, waits until what is reserved is recorded or given up, and closes the ledger.
    pub async fn close(&self) {
        let everything = u32::try_from(CAPACITY).unwrap_or(u32::MAX);
        // Places are given in the order in which they were asked for: no new request gets one before this does.
        let places = self.places.acquire_many(everything).await;
        self.places.close();
        drop(places);
        self.queue.close();
    }

    /// Changes a certificate's state; `count` counts what is no retry.
    async fn change(&self, actor: Actor, action: Action, count: fn()) -> Result<(), CommitError> {
        let _place = self.place().await?;
        match self.submit(actor, action).await? {
            Outcome::Changed { retry: true } => Ok(()),
            Outcome::Changed { retry: false } => {
                count();
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn change_export(&self, actor: Actor, action: Action) -> Result<Export, CommitError> {
        let _place = self.place().await?;
        match self.submit(actor, action).await? {
            Outcome::Export(export) => Ok(export),
            other => Err(unexpected(&other)),
        }
    }

    async fn change_order(&self, actor: Actor, action: Action) -> Result<Order, CommitError> {
        let _place = self.place().await?;
        match self.submit(actor, action).await? {
            Outcome::Order(order) => Ok(order),
            other => Err(unexpected(&other)),
        }
    }

    async fn place(&self) -> Result<Place, CommitError> {
        let permit = Arc::clone(&self.places).acquire_owned().await.map_err(|_| CommitError::Closed)?;
        Ok(Place { _permit: permit, _counted: metrics::InFlight::new() })
    }

    async fn submit(&self, actor: Actor, action: Action) -> Result<Outcome, CommitError> {
        let (reply, outcome) = oneshot::channel();
        let request = Request { operation: Operation { actor, action }, reply: Some(reply) };
        // A thread that has ended drops it, and with it the reply.
        self.queue.push(request);
        match outcome.await.map_err(|_| CommitError::Closed)?? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Failed(error) => {
                tracing::error!(%error, "the ledger could not decide an operation");
                Err(CommitError::Storage(error))
            }
            outcome => Ok(outcome),
        }
    }
}

impl Reservation {
    /// The serial number of the certificate to be.
    pub fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }

    /// When it was reserved.
    pub fn reserved_at(&self) -> Timestamp {
        self.reserved_at
    }

    /// Gives it up: the device, the key and the order's unit are free again, the serial number is not.
    pub fn abandon(mut self, reason: &str) {
        self.give_up(reason);
    }

    fn give_up(&mut self, reason: &str) {
        if let Some(open) = self.open.take() {
            let action = Action::Abandon { serial_number: self.serial_number, reason: reason.to_owned() };
            let operation = Operation { actor: Actor::daemon(), action };
            // A closed ledger gives it up when it is opened again.
            open.queue.push(Request { operation, reply: None });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_up("the request ended before its certificate was recorded");
    }
}

/// Requests that wait for the certificate of a serial number which the same request before them reserved.
type Waiting = HashMap<SerialNumber, Vec<Request>>;

fn run(mut ledger: impl Ledger, requests: Receiver<Request>, places: &Semaphore) -> Result<(), LedgerError> {
    let mut waiting = Waiting::new();
    let in_flight = || CAPACITY - places.available_permits();
    while let Some(mut batch) = requests.take(BATCH, in_flight) {
        metrics::commit_batch(batch.len());
        let mut failed = None;
        // Some must be decided again, because what they waited for has ended.
        while !batch.is_empty() {
            batch = commit(&mut ledger, batch, &mut waiting, &mut failed)?;
        }
        if let Some(failed) = failed {
            fail(failed, &requests);
        }
    }
    ledger.close()
}

/// What the storage did not take, and why.
type Unstored = Option<(LedgerError, Vec<Request>)>;

/// Commits a batch and answers it. Gives back what must be decided again.
fn commit(
    ledger: &mut impl Ledger,
    mut batch: Vec<Request>,
    waiting: &mut Waiting,
    failed: &mut Unstored,
) -> Result<Vec<Request>, LedgerError> {
    let (operations, replies): (Vec<_>, Vec<_>) =
        batch.drain(..).map(|Request { operation, reply }| (operation, reply)).unzip();
    let outcomes = match ledger.commit(Timestamp::now(), &operations) {
        Ok(outcomes) => outcomes,
        Err(error) if error.is_fatal() => {
            // Nobody is told anything about operations of which nothing is known.
            return Err(error);
        }
        Err(error) => {
            let restored = operations.into_iter().zip(replies).map(|(operation, reply)| Request { operation, reply });
            batch = restored.collect();
            // What is too large for what is left of the disk must not fail what is not: each half is decided by itself.
            if matches!(error, LedgerError::NotWritten(_)) && batch.len() > 1 {
                let second = batch.split_off(batch.len() / 2);
                let mut again = commit(ledger, batch, waiting, failed)?;
                again.extend(commit(ledger, second, waiting, failed)?);
                return Ok(again);
            }
            failed.get_or_insert((error, Vec::new())).1.extend(batch);
            return Ok(Vec::new());
        }
    };
    let mut finished = Vec::new();
    for ((operation, reply), outcome) in operations.into_iter().zip(replies).zip(outcomes) {
        match (&outcome, &operation.action) {
            (Outcome::InProgress(serial_number), _) => {
                waiting.entry(*serial_number).or_default().push(Request { operation, reply });
                continue;
            }
            (Outcome::Recorded, Action::Record { serial_number, .. })
            | (Outcome::Abandoned, Action::Abandon { serial_number, .. }) => finished.push(*serial_number),
            _ => {}
        }
        answer(reply, Ok(outcome));
    }
    // Deciding them again finds the certificate, or that there will be none.
    Ok(finished.iter().filter_map(|serial_number| waiting.remove(serial_number)).flatten().collect())
}

/// Says that these operations did not happen. What nobody waits for gives reservations up: that is tried until it happens,
/// or their devices would have no certificate and get none.
fn fail((error, batch): (LedgerError, Vec<Request>), requests: &Receiver<Request>) {
    tracing::error!(%error, operations = batch.len(), "the ledger could not commit these operations; none of them happened");
    let error = Arc::new(error);
    let (answered, again): (Vec<_>, Vec<_>) = batch.into_iter().partition(|request| request.reply.is_some());
    for Request { reply, .. } in answered {
        answer(reply, Err(CommitError::Storage(Arc::clone(&error))));
    }
    requests.put_back(again);
    // A full disk does not become empty by trying again at once.
    thread::sleep(Duration::from_millis(100));
}

fn answer(reply: Option<Reply>, outcome: Result<Outcome, CommitError>) {
    if let Some(reply) = reply {
        // A caller that is gone needs no answer; what it asked for has happened all the same.
        let _ = reply.send(outcome);
    }
}

fn unexpected(outcome: &Outcome) -> CommitError {
    tracing::error!(?outcome, "the ledger gave an outcome that does not fit the operation");
    CommitError::Unexpected
}

#[cfg(test)]
mod tests;
