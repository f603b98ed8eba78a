//! Revocations, one and many, and how many of them one operator makes alone.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{
    approvals,
    request_error::RequestError,
    services::{ApprovalRules, RevocationLimit},
    status,
};
use crate::{
    committer::{CommitError, Committer},
    hash::sha256,
    ledger::{Actor, LedgerError, Records, RevocationReason, entry::Event},
    live::Live,
    proto::{self, RevokeCertificatesReply, RevokeCertificatesRequest},
    serial::SerialNumber,
};

/// The most certificates in one call.
const MOST: usize = 1_000_000;

/// How many are on their way to the committer at a time, so that they share a sync of the journal.
const AT_ONCE: usize = 64;

/// After how many a message tells how far it is.
const STEP: u64 = 4096;

/// How many refusals are told one by one.
const TOLD: usize = 1000;

pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<RevokeCertificatesReply, Status>> + Send>>;

/// How many entries of the journal are read at once.
const ENTRIES: usize = 4096;

/// How many certificates an operator has revoked alone, and when.
type Alone = VecDeque<(Timestamp, u64)>;

/// Revokes, and counts who has revoked how many.
pub(super) struct Revocations {
    committer: Committer,
    records: Arc<dyn Records>,
    approval: Arc<Live<ApprovalRules>>,
    /// What the journal has of the time before the daemon's start; read when it is needed first.
    before: OnceCell<()>,
    alone: Mutex<HashMap<Actor, Alone>>,
}

impl Revocations {
    pub(super) fn new(committer: &Committer, records: &Arc<dyn Records>, approval: &Arc<Live<ApprovalRules>>) -> Self {
        let (committer, records, approval) = (committer.clone(), Arc::clone(records), Arc::clone(approval));
        Revocations { committer, records, approval, before: OnceCell::new(), alone: Mutex::default() }
    }

    /// Lets an operator revoke this many now, alone or with the agreement of a second one to `what`.
    ///
    /// # Errors
    /// `APPROVAL_REQUIRED`.
    async fn allow(&self, actor: &Actor, number: u64, what: impl FnOnce() -> String) -> Result<(), Status> {
        let Some(limit) = self.approval.get().revocations else { return Ok(()) };
        let now = Timestamp::now();
        self.before.get_or_try_init(|| self.read_before(limit, now)).await?;
        match self.count(limit, actor, number, now) {
            true => Ok(()),
            false => approvals::require(&self.committer, actor, what()).await,
        }
    }

    /// Counts what the journal has, so that a restart forgets nothing.
    async fn read_before(&self, limit: RevocationLimit, now: Timestamp) -> Result<(), Status> {
        let since = now.checked_sub(limit.window).unwrap_or(Timestamp::MIN);
        let records = Arc::clone(&self.records);
        let read = tokio::task::spawn_blocking(move || revoked_alone(&*records, since)).await;
        match read {
            Ok(Ok(alone)) => *self.alone.lock() = alone,
            Ok(Err(error)) => return Err(status::storage(error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        Ok(())
    }

    /// Whether an operator may revoke so many alone; if so, they count.
    fn count(&self, limit: RevocationLimit, actor: &Actor, number: u64, now: Timestamp) -> bool {
        let mut alone = self.alone.lock();
        let of_actor = alone.entry(actor.clone()).or_default();
        let over = now.checked_sub(limit.window).unwrap_or(Timestamp::MIN);
        while of_actor.front().is_some_and(|(at, _)| *at <= over) {
            of_actor.pop_front();
        }
        let before: u64 = of_actor.iter().map(|(_, number)| number).sum();
        let alone = before.saturating_add(number) <= limit.most;
        if alone {
            of_actor.push_back((now, number));
        }
        alone
    }

    /// Revokes one certificate.
    ///
    /// # Errors
    /// `APPROVAL_REQUIRED`, and those of the ledger.
    pub(super) async fn one(&self, actor: Actor, serial: SerialNumber, reason: i32) -> Result<(), Status> {
        let reason = read_reason(reason)?;
        self.allow(&actor, 1, || of_one(&serial, reason)).await?;
        let revoked = self.committer.revoke(actor, serial, reason).await;
        revoked.map_err(|error| status::failed_call(&error.into()))
    }

    /// Revokes all certificates of a list. What was begun is finished, whatever becomes of the call.
    ///
    /// # Errors
    /// The list is not one, or `APPROVAL_REQUIRED`.
    pub(super) async fn many(
        &self,
        actor: Actor,
        mut requests: Streaming<RevokeCertificatesRequest>,
    ) -> Result<Replies, Status> {
        let invalid = |message: String| status::failed_call(&RequestError::Invalid(message));
        let (mut reason, mut list) = (None, BTreeSet::new());
        while let Some(request) = requests.message().await.map_err(status::unreadable)? {
            reason = reason.or(Some(request.reason));
            for octets in &request.serial_numbers {
                list.insert(SerialNumber::try_from(&**octets).map_err(|error| invalid(error.to_string()))?);
            }
            if list.len() > MOST {
                return Err(invalid(format!("more than {MOST} certificates; revoke them in several calls")));
            }
        }
        let reason = read_reason(reason.unwrap_or_default())?;
        if list.is_empty() {
            return Err(invalid("name at least one serial number".to_owned()));
        }
        self.allow(&actor, list.len() as u64, || of_many(&list, reason)).await?;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(revoke_all(self.committer.clone(), actor, list, reason, sender));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// One, in words.
fn of_one(serial: &SerialNumber, reason: RevocationReason) -> String {
    format!("revoke the certificate {serial} for {reason}")
}

/// How many certificates each operator has revoked since then, without those that a second one has agreed to.
fn revoked_alone(records: &dyn Records, since: Timestamp) -> Result<HashMap<Actor, Alone>, LedgerError> {
    let mut alone: HashMap<Actor, Alone> = HashMap::new();
    let mut entries = records.entries_after(records.sequence_before(since)?)?;
    loop {
        let page = entries.read(ENTRIES)?;
        if page.is_empty() {
            break;
        }
        for (_, entry) in page {
            if entry.time < since || !matches!(entry.event, Event::Revoked { .. }) {
                continue;
            }
            let of_actor = alone.entry(entry.actor).or_default();
            match of_actor.back_mut() {
                Some((at, number)) if *at == entry.time => *number += 1,
                _ => of_actor.push_back((entry.time, 1)),
            }
        }
    }
    for approval in records.approvals() {
        let Some((at, by)) = &approval.used else { continue };
        let (Some(mut agreed), true) = (number_in(&approval.what), *at >= since) else { continue };
        for (_, number) in alone.get_mut(by).into_iter().flatten().filter(|(revoked, _)| revoked >= at) {
            let covered = agreed.min(*number);
            *number -= covered;
            agreed -= covered;
        }
    }
    Ok(alone)
}

/// How many certificates are to be revoked, by the words that a second operator agreed to.
fn number_in(what: &str) -> Option<u64> {
    match what.strip_prefix("revoke ")?.split_once(' ')? {
        ("the", rest) => rest.starts_with("certificate ").then_some(1),
        (number, rest) if rest.starts_with("certificates ") => number.parse().ok(),
        _ => None,
    }
}

/// A list, in words that differ when any of its serial numbers does.
fn of_many(list: &BTreeSet<SerialNumber>, reason: RevocationReason) -> String {
    let octets: Vec<u8> = list.iter().flat_map(|serial| *serial.as_bytes()).collect();
    format!("revoke {} certificates for {reason} (serial numbers {})", list.len(), hex::encode(sha256(&octets)))
}

/// A number that the protocol does not know is kept as it came.
fn read_reason(reason: i32) -> Result<RevocationReason, Status> {
    let reason = RevocationReason::try_from(u32::try_from(reason).unwrap_or(u32::MAX));
    reason.map_err(|error| status::failed_call(&RequestError::Invalid(error.to_string())))
}

async fn revoke_all(
    committer: Committer,
    actor: Actor,
    list: BTreeSet<SerialNumber>,
    reason: RevocationReason,
    sender: mpsc::Sender<Result<RevokeCertificatesReply, Status>>,
) {
    let mut told = RevokeCertificatesReply { of: list.len() as u64, ..RevokeCertificatesReply::default() };
    let revocations = list.into_iter().map(|serial| {
        let (committer, actor) = (committer.clone(), actor.clone());
        async move { (serial, committer.revoke(actor, serial, reason).await) }
    });
    let mut revocations = futures_util::stream::iter(revocations).buffer_unordered(AT_ONCE);
    while let Some((serial, revoked)) = revocations.next().await {
        told.done += 1;
        match revoked {
            Ok(()) => told.revoked += 1,
            Err(CommitError::Refused(refusal)) => {
                told.refused += 1;
                if told.refusals.len() < TOLD {
                    let serial_number = serial.as_bytes().to_vec().into();
                    told.refusals.push(proto::RefusedRevocation { serial_number, message: refusal.to_string() });
                }
            }
            Err(error) => {
                let _ = sender.send(Err(status::failed_call(&error.into()))).await;
                return;
            }
        }
        if told.done.is_multiple_of(STEP) && told.done < told.of {
            // Nobody has to listen.
            let progress = RevokeCertificatesReply { refusals: Vec::new(), ..told.clone() };
            let _ = sender.try_send(Ok(progress));
        }
    }
    let _ = sender.send(Ok(told)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(last: u8) -> SerialNumber {
        let mut octets = [1; SerialNumber::LENGTH];
        octets[SerialNumber::LENGTH - 1] = last;
        SerialNumber::try_from(&octets[..]).unwrap()
    }

    /// What was agreed to is this list and no other.
    #[test]
    fn words_of_a_list_differ_with_each_serial_number() {
        let words = |numbers: &[u8], reason| of_many(&numbers.iter().map(|number| serial(*number)).collect(), reason);
        let one = words(&[1, 2], RevocationReason::KeyCompromise);
        assert_eq!(one, words(&[2, 1, 1], RevocationReason::KeyCompromise));
        assert!(one.starts_with("revoke 2 certificates for keyCompromise"), "{one}");
        assert_eq!(number_in(&one), Some(2));
        assert_eq!(number_in(&of_one(&serial(1), RevocationReason::Superseded)), Some(1));
        assert_eq!(number_in("create the order \"revoke 7 certificates \""), None);
        assert_ne!(one, words(&[1, 3], RevocationReason::KeyCompromise));
        assert_ne!(one, words(&[1, 2], RevocationReason::Superseded));
    }
}
