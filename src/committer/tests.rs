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
    fail((error, requests), &receiver);
    for (id, outcome) in ids.iter().zip(&mut outcomes) {
        match outcome.try_recv().unwrap() {
            Ok(Outcome::Changed { retry: false }) => assert!(id.len() < 100),
            Err(CommitError::Storage(error)) => assert!(id.len() > 100, "{error}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}
