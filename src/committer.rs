//! The one thread that owns the ledger.
//!
//! It takes what has gathered in its queue (`committer/queue.rs`), lets the ledger decide and make durable all of it at
//! once, then answers: reservations and records of different requests share one sync.
//!
//! The queue is bounded by a semaphore (invariant 9): a request holds a permit from before its reservation until its
//! certificate is recorded or the reservation abandoned, and has at most one operation in the queue. So a record never
//! waits for a permit, however many requests want to reserve.

mod administration;
mod error;
mod operation;
mod queue;
mod vending;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use self::error::CommitError;
use self::{
    operation::{Changed, Found, FoundProof, Typed},
    queue::{Receiver, Sender},
};
use crate::{
    cert::Signed,
    ledger::{
        self, Action, Actor, Batch, BatchId, BatchTerms, CrlIssued, Holder, IssuerTerms, Ledger, LedgerError,
        Operation, Outcome, ProofTerms, RecordedIssuer, RequestsRefused, Results, Seal,
    },
    metrics,
    serial::{ReservedSerial, SerialNumber},
};

/// How many requests may be between reservation and record.
pub(crate) const CAPACITY: usize = 8192;

/// The most operations in one batch: bounds how long the first of them waits for the others' work.
const BATCH: usize = 512;

/// The pause after a failed batch: a full disk does not become empty by trying again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives operations to the thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Committer {
    queue: Arc<Sender<Request>>,
    permits: Arc<Semaphore>,
}

/// A durable reservation, to be recorded or abandoned. Dropped, it is abandoned.
#[derive(Debug)]
pub struct Reservation {
    serial_number: SerialNumber,
    actor: Actor,
    issuer: String,
    issuer_id: u32,
    /// Present until it is recorded or abandoned.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    queue: Arc<Sender<Request>>,
    _permit: Permit,
}

/// What a request holds from before its reservation until its record.
#[derive(Debug)]
struct Permit {
    _permit: OwnedSemaphorePermit,
    _counted: metrics::InFlight,
}

/// A certificate whose record is durable. Only the committer makes one, and only one can be sent (invariant 1).
#[derive(Clone, Debug)]
pub struct Issued {
    serial_number: SerialNumber,
    certificate: Bytes,
    issuer: String,
    issuer_id: u32,
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

    /// The recorded issuer's id; 0: from before issuers were recorded.
    pub fn issuer_id(&self) -> u32 {
        self.issuer_id
    }

    /// Whether it was issued for an earlier request.
    pub fn replay(&self) -> bool {
        self.replay
    }
}

/// What a request to reserve gives.
#[derive(Debug)]
pub enum Reserved {
    /// A new reservation, and the right to make one certificate with its serial number.
    New(Reservation, ReservedSerial),
    /// The certificate that the same request got before (invariant 4).
    Existing(Issued),
}

#[derive(Debug)]
struct Request {
    operation: Operation,
    reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<Outcome, CommitError>>;

impl Committer {
    /// Starts the thread. It stops, and closes the ledger, after [`Committer::close`]; it stops with an error when the
    /// ledger can no longer be trusted.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(ledger: impl Ledger) -> std::io::Result<(Committer, JoinHandle<Result<(), LedgerError>>)> {
        let (queue, requests) = queue::queue();
        let committer = Committer { queue, permits: Arc::new(Semaphore::new(CAPACITY)) };
        let permits = Arc::clone(&committer.permits);
        let thread = thread::Builder::new().name("committer".into()).spawn(move || run(ledger, requests, &permits))?;
        Ok((committer, thread))
    }

    /// Gives the holder a serial number, durably (invariant 2), or finds the certificate that the same request got
    /// before (invariant 4). A request that is the same as one whose certificate is being made waits for that
    /// certificate. With `reissue` the new certificate takes the place of one that was scrapped or revoked.
    ///
    /// # Errors
    /// The rules of the ledger, the storage, or a closed ledger.
    pub async fn reserve(&self, holder: &Holder, actor: &Actor, reissue: bool) -> Result<Reserved, CommitError> {
        self.reserve_by(operation::reserve(holder.clone(), reissue), holder, actor).await
    }

    #[expect(clippy::disallowed_methods, reason = "the reservation is durable, and its serial number is new")]
    async fn reserve_by(&self, wanted: Typed<Found>, holder: &Holder, actor: &Actor) -> Result<Reserved, CommitError> {
        let permit = self.permit().await?;
        match self.submit(actor.clone(), wanted).await? {
            Found::Reserved(serial_number) => {
                let reservation = Reservation {
                    serial_number,
                    actor: actor.clone(),
                    issuer: holder.issuer.clone(),
                    issuer_id: holder.issuer_id,
                    open: Some(Open { queue: self.queue.clone(), _permit: permit }),
                };
                Ok(Reserved::New(reservation, ReservedSerial::new(serial_number)))
            }
            Found::Replay { serial_number, certificate, issuer, issuer_id } => {
                Ok(Reserved::Existing(Issued { serial_number, certificate, issuer, issuer_id, replay: true }))
            }
        }
    }

    /// Gives a proof of possession a serial number, durably (invariant 2), or finds the one that is still good
    /// (invariant 4). `issuer` is the name of its issuer.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    #[expect(clippy::disallowed_methods, reason = "the reservation is durable, and its serial number is new")]
    pub(crate) async fn reserve_proof(
        &self,
        terms: ProofTerms,
        actor: &Actor,
        issuer: &str,
    ) -> Result<Reserved, CommitError> {
        let permit = self.permit().await?;
        let (actor, issuer, issuer_id) = (actor.clone(), issuer.to_owned(), terms.id.issuer_id);
        match self.submit(actor.clone(), operation::reserve_proof(terms)).await? {
            FoundProof::Reserved(serial_number) => {
                let open = Some(Open { queue: self.queue.clone(), _permit: permit });
                let reservation = Reservation { serial_number, actor, issuer, issuer_id, open };
                Ok(Reserved::New(reservation, ReservedSerial::new(serial_number)))
            }
            FoundProof::Existing(ledger::FoundProof { serial_number, certificate }) => {
                Ok(Reserved::Existing(Issued { serial_number, certificate, issuer, issuer_id, replay: true }))
            }
        }
    }

    /// Records the certificate of a proof's reservation, durably (invariant 1).
    ///
    /// # Errors
    /// As for [`Committer::record`].
    pub(crate) async fn record_proof(&self, reservation: Reservation, signed: Signed) -> Result<Issued, CommitError> {
        self.record_as(operation::record_proof, reservation, signed).await
    }

    /// Records the certificate of a reservation, durably (invariant 1).
    ///
    /// # Errors
    /// As for [`Committer::reserve`], and if the certificate is not the reservation's. The reservation is abandoned
    /// then.
    pub async fn record(&self, reservation: Reservation, signed: Signed) -> Result<Issued, CommitError> {
        self.record_as(operation::record, reservation, signed).await
    }

    async fn record_as(
        &self,
        record: fn(SerialNumber, Bytes) -> Typed<()>,
        mut reservation: Reservation,
        signed: Signed,
    ) -> Result<Issued, CommitError> {
        let serial_number = reservation.serial_number;
        if *signed.serial_number() != serial_number {
            let error =
                CommitError::OtherSerialNumber { reservation: serial_number, certificate: *signed.serial_number() };
            tracing::error!(%error, "a certificate was not recorded");
            reservation.abandon("its certificate had another serial number");
            return Err(error);
        }
        let certificate = Bytes::from(signed.into_certificate());
        let record = record(serial_number, certificate.clone());
        self.submit(reservation.actor.clone(), record).await?;
        reservation.open = None;
        let (issuer, issuer_id) = (std::mem::take(&mut reservation.issuer), reservation.issuer_id);
        Ok(Issued { serial_number, certificate, issuer, issuer_id, replay: false })
    }

    /// Records that a device has taken its certificate. `device`, if it is known, is the one that the certificate is of: its
    /// record is found faster. `profiles` are those that the station that asks may use; `None`: all, for it is no station.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn confirm(
        &self,
        actor: Actor,
        serial_number: SerialNumber,
        device: Option<String>,
        profiles: Option<Arc<BTreeSet<String>>>,
    ) -> Result<(), CommitError> {
        let Changed(new) = self.change(actor, operation::confirm(serial_number, device, profiles)).await?;
        if new {
            metrics::confirmed();
        }
        Ok(())
    }

    /// Cuts the next batch of a destination.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn create_batch(&self, actor: Actor, terms: Arc<BatchTerms>) -> Result<Batch, CommitError> {
        self.change(actor, operation::create_batch(terms)).await
    }

    /// Records what the audit key signed about a batch's files. Gives what is recorded: the first of all.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn seal_batch(&self, id: BatchId, seal: Seal) -> Result<Seal, CommitError> {
        self.change(Actor::daemon(), operation::seal_batch(id, seal)).await
    }

    /// Records that the platform which a batch is for has it.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn acknowledge_batch(
        &self,
        actor: Actor,
        id: BatchId,
        results: Option<Arc<Results>>,
    ) -> Result<Batch, CommitError> {
        self.change(actor, operation::acknowledge_batch(id, results)).await
    }

    /// Records an issuer, or finds the one with the same name and chain. Gives it and whether it is new. It takes a permit
    /// like any request, but counts as none in flight.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn add_issuer(&self, terms: IssuerTerms) -> Result<(Arc<RecordedIssuer>, bool), CommitError> {
        let (issuer, Changed(new)) = self.uncounted(Actor::daemon(), operation::add_issuer(terms)).await?;
        Ok((issuer, new))
    }

    /// Records the configuration in force, unless it is the one before; gives whether it is another one.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn load_configuration(
        &self,
        actor: Option<Actor>,
        sha256: [u8; 32],
        text: String,
    ) -> Result<bool, CommitError> {
        let operation = operation::load_configuration(sha256, text);
        let Changed(new) = self.uncounted(actor.unwrap_or_else(Actor::daemon), operation).await?;
        Ok(new)
    }

    /// Records that the daemon was started.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn record_start(&self, version: String, configuration: [u8; 32]) -> Result<(), CommitError> {
        self.uncounted(Actor::daemon(), operation::start(version, configuration)).await
    }

    /// Records that the daemon ends in order.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn record_stop(&self, reason: String) -> Result<(), CommitError> {
        self.uncounted(Actor::daemon(), operation::stop(reason)).await
    }

    /// Records that requests of an actor were refused.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub(crate) async fn note_refused(&self, actor: Actor, refused: RequestsRefused) -> Result<(), CommitError> {
        self.uncounted(actor, operation::note_refused(refused)).await
    }

    /// Records a checkpoint. It takes a permit like any request, but counts as none in flight.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn checkpoint(&self, note: String, earlier_checkpoints_lost: bool) -> Result<(), CommitError> {
        self.uncounted(Actor::daemon(), operation::checkpoint(note, earlier_checkpoints_lost)).await
    }

    /// Records a revocation list, which may be published then. It takes a permit like any request, but counts as none
    /// in flight.
    ///
    /// # Errors
    /// As for [`Committer::reserve`].
    pub async fn issue_crl(&self, list: CrlIssued) -> Result<(), CommitError> {
        self.uncounted(Actor::daemon(), operation::issue_crl(list)).await
    }

    /// Lets nothing new begin, waits until what is reserved is recorded or abandoned, and closes the ledger.
    pub async fn close(&self) {
        let everything = u32::try_from(CAPACITY).unwrap_or(u32::MAX);
        // Permits are given in the order in which they were asked for: no new request gets one before this does.
        let permits = self.permits.acquire_many(everything).await;
        self.permits.close();
        drop(permits);
        self.queue.close();
    }

    /// An operation that is a request by itself.
    async fn change<T>(&self, actor: Actor, operation: Typed<T>) -> Result<T, CommitError> {
        let _permit = self.permit().await?;
        self.submit(actor, operation).await
    }

    /// An operation of the daemon's own: it takes a permit like any request, but counts as none in flight.
    async fn uncounted<T>(&self, actor: Actor, operation: Typed<T>) -> Result<T, CommitError> {
        let _permit = self.permits.acquire().await.map_err(|_| CommitError::Closed)?;
        self.submit(actor, operation).await
    }

    async fn permit(&self) -> Result<Permit, CommitError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| CommitError::Closed)?;
        Ok(Permit { _permit: permit, _counted: metrics::InFlight::new() })
    }

    async fn submit<T>(&self, actor: Actor, Typed { action, read }: Typed<T>) -> Result<T, CommitError> {
        let (reply, outcome) = oneshot::channel();
        // A thread that is gone drops it, and with it the reply.
        self.queue.push(Request { operation: Operation { actor, action }, reply: Some(reply) });
        match outcome.await.map_err(|_| CommitError::Closed)?? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Failed(error) => {
                tracing::error!(%error, "the ledger could not decide an operation");
                Err(CommitError::Storage(error))
            }
            outcome => read(outcome).map_err(|outcome| {
                tracing::error!(?outcome, "the ledger gave an outcome that does not fit the operation");
                CommitError::Unexpected
            }),
        }
    }
}

impl Reservation {
    /// The serial number of the certificate to be.
    pub fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }

    /// Abandons it: the device, the key and the order's unit are free again, the serial number is not.
    pub fn abandon(mut self, reason: &str) {
        self.abandon_once(reason);
    }

    fn abandon_once(&mut self, reason: &str) {
        if let Some(open) = self.open.take() {
            let action = Action::Abandon { serial_number: self.serial_number, reason: reason.to_owned() };
            let operation = Operation { actor: Actor::daemon(), action };
            // A closed ledger abandons it when it is opened again.
            open.queue.push(Request { operation, reply: None });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.abandon_once("the request ended before its certificate was recorded");
    }
}

/// Requests that wait for the certificate of a serial number which the same request before them reserved.
type Waiting = HashMap<SerialNumber, Vec<Request>>;

fn run(mut ledger: impl Ledger, requests: Receiver<Request>, permits: &Semaphore) -> Result<(), LedgerError> {
    let (mut waiting, mut failures) = (Waiting::new(), Failures::default());
    let in_flight = || CAPACITY - permits.available_permits();
    let mut followed = Instant::now();
    loop {
        // Never, where nobody else writes: then nothing of this costs anything.
        let after = ledger.follow_after(!waiting.is_empty());
        let within = after.map(|after| after.saturating_sub(followed.elapsed()));
        let Some(mut batch) = requests.take(BATCH, in_flight, within) else { break };
        if after.is_some_and(|after| followed.elapsed() >= after) {
            follow(&mut ledger)?;
            followed = Instant::now();
            batch.extend(released(&mut waiting, &ledger.take_ended()));
        }
        if batch.is_empty() {
            continue;
        }
        metrics::commit_batch(batch.len());
        let mut failed = None;
        // Some must be decided again, because the reservation they waited for is recorded or abandoned.
        while !batch.is_empty() {
            batch = commit(&mut ledger, batch, &mut waiting, &mut failed)?;
        }
        if let Some(failed) = failed {
            fail(failed, &requests, &mut failures);
        }
    }
    ledger.close()
}

/// Lets the ledger take in what others wrote.
fn follow(ledger: &mut impl Ledger) -> Result<(), LedgerError> {
    match ledger.follow(Timestamp::now()) {
        Err(error) if error.is_fatal() => Err(error),
        Err(error) => {
            tracing::error!(%error, "what other daemons wrote could not be taken in");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What waited for these serial numbers: it is decided again.
fn released(waiting: &mut Waiting, ended: &[SerialNumber]) -> Vec<Request> {
    ended.iter().filter_map(|serial_number| waiting.remove(serial_number)).flatten().collect()
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
            // Whether these operations are durable is not known, so no caller gets an answer (invariant 1).
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
            (Outcome::Recorded, Action::Record { serial_number, .. } | Action::RecordProof { serial_number, .. })
            | (Outcome::Abandoned, Action::Abandon { serial_number, .. }) => finished.push(*serial_number),
            _ => {}
        }
        answer(reply, Ok(outcome));
    }
    // Deciding them again finds the certificate, or that there will be none.
    finished.extend(ledger.take_ended());
    Ok(released(waiting, &finished))
}

/// Fails operations of a batch. Abandonments have no caller to retry them, so they are put back until they are durable:
/// otherwise their devices could get no certificate until the daemon starts again.
fn fail((error, batch): (LedgerError, Vec<Request>), requests: &Receiver<Request>, failures: &mut Failures) {
    failures.log(&error, batch.len());
    let error = Arc::new(error);
    let (answered, again): (Vec<_>, Vec<_>) = batch.into_iter().partition(|request| request.reply.is_some());
    for Request { reply, .. } in answered {
        answer(reply, Err(CommitError::Storage(Arc::clone(&error))));
    }
    requests.put_back(again);
    thread::sleep(PAUSE);
}

/// Logs what the storage did not take: what nobody waits for is tried again ten times a second, for as long as an outage lasts.
#[derive(Debug, Default)]
struct Failures {
    /// The newest line's error, and when that was.
    last: Option<(String, Instant)>,
    more: u64,
}

impl Failures {
    /// In which an error has one line.
    const PAUSE: Duration = Duration::from_secs(60);

    fn log(&mut self, error: &LedgerError, operations: usize) {
        let error = error.to_string();
        if self.last.as_ref().is_some_and(|(last, when)| *last == error && when.elapsed() < Failures::PAUSE) {
            self.more += 1;
            return;
        }
        let more_since_last = std::mem::take(&mut self.more);
        tracing::error!(
            error,
            operations,
            more_since_last,
            "the ledger could not commit these operations; what may have happened all the same is found out before the next ones"
        );
        self.last = Some((error, Instant::now()));
    }
}

fn answer(reply: Option<Reply>, outcome: Result<Outcome, CommitError>) {
    if let Some(reply) = reply {
        // A caller that is gone needs no answer; what it asked for has happened all the same.
        let _ = reply.send(outcome);
    }
}

#[cfg(test)]
mod tests;
