//! Revocations, one and many, and how many of them one operator makes alone.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
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
    ledger::{Actor, RevocationReason},
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

/// How many certificates an operator has revoked alone, and when.
type Alone = VecDeque<(Instant, u64)>;

/// Revokes, and counts who has revoked how many since the daemon was started.
#[derive(Debug)]
pub(super) struct Revocations {
    committer: Committer,
    approval: Arc<Live<ApprovalRules>>,
    alone: Mutex<HashMap<Actor, Alone>>,
}

impl Revocations {
    pub(super) fn new(committer: &Committer, approval: &Arc<Live<ApprovalRules>>) -> Self {
        Revocations { committer: committer.clone(), approval: Arc::clone(approval), alone: Mutex::default() }
    }

    /// Lets an operator revoke this many now, alone or with the agreement of a second one to `what`.
    ///
    /// # Errors
    /// `APPROVAL_REQUIRED`.
    async fn allow(&self, actor: &Actor, number: u64, what: impl FnOnce() -> String) -> Result<(), Status> {
        match self.approval.get().revocations {
            Some(limit) if !self.count(limit, actor, number, Instant::now()) => {
                approvals::require(&self.committer, actor, what()).await
            }
            _ => Ok(()),
        }
    }

    /// Whether an operator may revoke so many alone; if so, they count.
    fn count(&self, limit: RevocationLimit, actor: &Actor, number: u64, now: Instant) -> bool {
        let mut alone = self.alone.lock();
        let of_actor = alone.entry(actor.clone()).or_default();
        while of_actor.front().is_some_and(|(at, _)| now.duration_since(*at) >= limit.window) {
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
        self.allow(&actor, 1, || format!("revoke the certificate {serial} for {reason}")).await?;
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
        assert_ne!(one, words(&[1, 3], RevocationReason::KeyCompromise));
        assert_ne!(one, words(&[1, 2], RevocationReason::Superseded));
    }
}
