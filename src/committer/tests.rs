//! The committer on a ledger whose disk takes some operations and not others.

use std::io;

use super::*;

/// Refuses to write a batch that closes an order whose id is long; notes what it wrote.
#[derive(Default)]
struct NearlyFull {
    written: Vec<String>,
    attempts: usize,
}

impl Ledger for NearlyFull {
    fn commit(&mut self, _: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        self.attempts += 1;
        let ids = operations.iter().map(|operation| match &operation.action {
            Action::CloseOrder { id } => id.clone(),
            _ => String::new(),
        });
        let ids: Vec<_> = ids.collect();
        if ids.iter().any(|id| id.len() > 100) {
            return Err(LedgerError::NotWritten(Box::new(io::Error::from(io::ErrorKind::StorageFull))));
        }
        self.written.extend(ids);
        Ok(operations.iter().map(|_| Outcome::Changed { retry: false }).collect())
    }

    fn close(self) -> Result<(), LedgerError> {
        Ok(())
    }
}

#[test]
fn operation_that_the_disk_does_not_take_fails_alone() {
    let mut ledger = NearlyFull::default();
    let long = "x".repeat(200);
    let ids = ["a", "b", &long, "c", "d", "e", &long, "f"];
    let (batch, mut outcomes): (Vec<_>, Vec<_>) = ids
        .into_iter()
        .map(|id| {
            let (reply, outcome) = oneshot::channel();
            let operation = Operation { actor: Actor::daemon(), action: Action::CloseOrder { id: id.into() } };
            (Request { operation, reply: Some(reply) }, outcome)
        })
        .unzip();
    let mut failed = None;
    let again = commit(&mut ledger, batch, &mut Waiting::new(), &mut failed).unwrap();
    assert!(again.is_empty());
    // In their order.
    assert_eq!(ledger.written, ["a", "b", "c", "d", "e", "f"]);
    assert!(ledger.attempts < 2 * ids.len());
    let (error, requests) = failed.unwrap();
    assert!(matches!(error, LedgerError::NotWritten(_)) && requests.len() == 2);
    let (_queue, receiver) = queue::queue();
    fail((error, requests), &receiver, &mut Failures::default());
    for (id, outcome) in ids.iter().zip(&mut outcomes) {
        match outcome.try_recv().unwrap() {
            Ok(Outcome::Changed { retry: false }) => assert!(id.len() < 100),
            Err(CommitError::Storage(error)) => assert!(id.len() > 100, "{error}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

/// Reserves one serial number after the other; notes what it is asked for.
struct Reserving {
    numbers: crate::serial::SerialNumbers,
    abandoned: std::sync::mpsc::SyncSender<SerialNumber>,
}

impl Ledger for Reserving {
    fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        let outcomes = operations.iter().map(|operation| match &operation.action {
            Action::Reserve(_) => Outcome::Reserved(self.numbers.next(now)),
            Action::Record { .. } => Outcome::Recorded,
            Action::Abandon { serial_number, .. } => {
                self.abandoned.send(*serial_number).unwrap();
                Outcome::Abandoned
            }
            // No answer to anything else.
            _ => Outcome::Checkpointed,
        });
        Ok(outcomes.collect())
    }

    fn close(self) -> Result<(), LedgerError> {
        Ok(())
    }
}

fn reserving() -> (Committer, std::sync::mpsc::Receiver<SerialNumber>) {
    let (abandoned, receiver) = std::sync::mpsc::sync_channel(8);
    let numbers = crate::serial::SerialNumbers::resume([7; 16], None);
    (Committer::start(Reserving { numbers, abandoned }).unwrap().0, receiver)
}

async fn reserve(committer: &Committer) -> (Reservation, ReservedSerial) {
    let text = String::new;
    let holder =
        Holder { device: text(), key_hash: [0; 32], order: text(), profile: text(), issuer: text(), issuer_id: 0 };
    match committer.reserve(&holder, &Actor::daemon(), false).await.unwrap() {
        Reserved::New(reservation, serial) => (reservation, serial),
        Reserved::Existing(issued) => panic!("{issued:?}"),
    }
}

/// A certificate fulfils the reservation of its own serial number and no other; the reservation is abandoned.
#[tokio::test]
async fn record_of_another_serial_number_is_refused() {
    let (committer, abandoned) = reserving();
    let (first, _) = reserve(&committer).await;
    let (second, serial) = reserve(&committer).await;
    let (expected, signed) = (*first.serial_number(), Signed::unchecked(serial.into_inner(), vec![1]));
    let error = committer.record(first, signed).await.unwrap_err();
    assert!(matches!(error, CommitError::OtherSerialNumber { reservation, .. } if reservation == expected), "{error}");
    assert_eq!(abandoned.recv().unwrap(), expected);
    let own = Signed::unchecked(*second.serial_number(), vec![2]);
    assert_eq!(committer.record(second, own).await.unwrap().certificate().as_ref(), [2]);
    committer.close().await;
}

/// A caller never gets an outcome of another kind: that is an error which no retry cures, not a closed ledger.
#[tokio::test]
async fn outcome_of_another_kind_is_unexpected() {
    let (committer, _abandoned) = reserving();
    let closed = committer.close_order(Actor::daemon(), "o".into()).await;
    assert!(matches!(closed, Err(CommitError::Unexpected)), "{closed:?}");
    assert!(committer.checkpoint(String::new(), false).await.is_ok());
    committer.close().await;
}
