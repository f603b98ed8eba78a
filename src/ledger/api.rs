//! The two sides of a ledger, which are all that the rest of the daemon knows of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

use super::{
    actor::Actor,
    approval::Approval,
    batch::{Batch, BatchId, BatchTerms, Destination, Filter},
    batch_content::{FoundBatch, NextBatch},
    device_list::ListPage,
    entry_tail::EntryTail,
    error::LedgerError,
    export::{Export, ExportId},
    first_pass::FirstPass,
    head::Head,
    history::HistoryEntry,
    issued_records::IssuedRecords,
    issuer::RecordedIssuer,
    operation::{Operation, Outcome},
    order::Order,
    peer::EnrolledPeer,
    record::Record,
    revoked::{CaId, RevokedCertificate},
    vending::{VendingBatch, VendingCode},
};
use crate::serial::SerialNumber;

/// How long what others write is waited for: longer than a database that answers takes.
const CAUGHT_UP: Duration = Duration::from_secs(10);

/// The side that changes. One thread owns it (the committer).
pub trait Ledger: Send + 'static {
    /// Decides each operation in order, each seeing the earlier ones, and makes all that follows from them durable.
    /// There is one outcome an operation, in their order.
    ///
    /// # Errors
    /// None of the operations happened. After one that [is fatal](LedgerError::is_fatal) the ledger must not be used
    /// again.
    fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError>;

    /// After which time without it [`Ledger::follow`] is to be called; none: nobody else writes. `waiting`: somebody waits for a
    /// certificate that another daemon makes.
    fn follow_after(&self, waiting: bool) -> Option<Duration> {
        let _ = waiting;
        None
    }

    /// Takes in what other daemons have written, and says that this one lives.
    ///
    /// # Errors
    /// As for [`Ledger::commit`].
    fn follow(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let _ = now;
        Ok(())
    }

    /// The reservations that have ended, with a certificate or without, in what other daemons wrote since the last call.
    fn take_ended(&mut self) -> Vec<SerialNumber> {
        Vec::new()
    }

    /// Makes the next start quick; nothing depends on it.
    ///
    /// # Errors
    /// Those of the storage.
    fn close(self) -> Result<(), LedgerError>;
}

/// The side that reads.
pub trait Records: Send + Sync + 'static {
    /// The record of a serial number.
    ///
    /// # Errors
    /// Those of the storage.
    fn by_serial_number(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError>;

    /// The newest record of a device.
    ///
    /// # Errors
    /// Those of the storage.
    fn by_device(&self, device: &str) -> Result<Option<Record>, LedgerError>;

    /// An order.
    ///
    /// # Errors
    /// Those of the storage.
    fn order(&self, id: &str) -> Result<Option<Order>, LedgerError>;

    /// All orders, sorted by id.
    ///
    /// # Errors
    /// Those of the storage.
    fn orders(&self) -> Result<Vec<Order>, LedgerError>;

    /// How devices fared at their first try, by the stations that made it (`station:<line>/<station>`; empty: by themselves);
    /// under all orders if `order` is none.
    ///
    /// # Errors
    /// Those of the storage.
    fn first_pass(&self, order: Option<&str>) -> Result<BTreeMap<Arc<str>, FirstPass>, LedgerError>;

    /// The certificates of an order, or those without one if `order` is empty, in the order of issue, up to the moment of the call; each as it is when it is
    /// read.
    ///
    /// # Errors
    /// Those of the storage.
    fn issued_under(&self, order: &str) -> Result<IssuedRecords, LedgerError>;

    /// The destinations that have a batch, sorted by name.
    fn destinations(&self) -> Vec<Arc<Destination>>;

    /// A batch.
    ///
    /// # Errors
    /// Those of the storage.
    fn batch(&self, id: &BatchId) -> Result<Option<Batch>, LedgerError>;

    /// What was decided when a batch was cut.
    ///
    /// # Errors
    /// Those of the storage.
    fn batch_terms(&self, id: &BatchId) -> Result<Option<Arc<BatchTerms>>, LedgerError>;

    /// A batch with what its files are made of.
    ///
    /// # Errors
    /// Those of the storage.
    fn batch_content(&self, id: &BatchId) -> Result<Option<FoundBatch>, LedgerError>;

    /// What a destination's next batch is to be made of: all that is durable now.
    ///
    /// # Errors
    /// Those of the storage.
    fn next_batch(&self, destination: &str, filter: &Filter) -> Result<NextBatch, LedgerError>;

    /// Some hundred devices of an order's list, from its beginning or from where the page before said.
    ///
    /// # Errors
    /// Those of the storage.
    fn listed(&self, order: &str, from: Option<[u8; 8]>) -> Result<ListPage, LedgerError>;

    /// The exports of an order, the oldest first.
    ///
    /// # Errors
    /// Those of the storage.
    fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError>;

    /// An export.
    ///
    /// # Errors
    /// Those of the storage.
    fn export(&self, id: &ExportId) -> Result<Option<Export>, LedgerError>;

    /// The certificates of an export, in the order of issue, each as it was issued; none if there is no such export.
    ///
    /// # Errors
    /// Those of the storage.
    fn exported(&self, id: &ExportId) -> Result<IssuedRecords, LedgerError>;

    /// The certificates of a CA that may stand on a revocation list, and whose serial numbers' hashes (the first 32 bits
    /// of SHA-256) are among `hashes`; in the order of the hashes.
    ///
    /// # Errors
    /// Those of the storage.
    fn revoked(&self, ca: &CaId, hashes: RangeInclusive<u32>) -> Result<Vec<RevokedCertificate>, LedgerError>;

    /// Where certificates of a CA came among these, or changed, since the last call: the first 12 bits of their hashes.
    fn take_revocations(&self, ca: &CaId) -> BTreeSet<u16>;

    /// The number of a CA's newest revocation list; 0 if it has none.
    ///
    /// # Errors
    /// Those of the storage.
    fn crl_number(&self, ca: &CaId) -> Result<u64, LedgerError>;

    /// A device's newest vending code.
    ///
    /// # Errors
    /// Those of the storage.
    fn vending_code(&self, device: &str) -> Result<Option<VendingCode>, LedgerError>;

    /// A batch of vending codes by its number, from 1 on.
    ///
    /// # Errors
    /// Those of the storage.
    fn vending_batch(&self, number: u32) -> Result<Option<VendingBatch>, LedgerError>;

    /// The issuer with this id.
    fn issuer(&self, id: u32) -> Option<Arc<RecordedIssuer>>;

    /// All issuers that were ever recorded, in the order of their ids.
    fn issuers(&self) -> Vec<Arc<RecordedIssuer>>;

    /// A station, operator or auditor that was ever enrolled or revoked, by its name as actors are written.
    fn peer(&self, name: &Actor) -> Option<Arc<EnrolledPeer>>;

    /// All of them, sorted by their names.
    fn peers(&self) -> Vec<Arc<EnrolledPeer>>;

    /// All requests for the agreement of a second operator, in their order.
    fn approvals(&self) -> Vec<Arc<Approval>>;

    /// The entries after the one with this sequence number, and those to come; all of them durable.
    ///
    /// # Errors
    /// Those of the storage.
    fn entries_after(&self, sequence: u64) -> Result<EntryTail, LedgerError>;

    /// After which sequence number entries at or after this moment begin, going by the first entry of each file of the journal: what
    /// a wrong clock had dated later, in a file before, is not counted.
    ///
    /// # Errors
    /// Those of the storage.
    fn sequence_before(&self, moment: Timestamp) -> Result<u64, LedgerError>;

    /// What has happened to a certificate, in the order of the entries, its batches and exports included; none if there is no such
    /// serial number.
    ///
    /// # Errors
    /// Those of the storage.
    fn history(&self, serial_number: &SerialNumber) -> Result<Vec<HistoryEntry>, LedgerError>;

    /// What the ledger has come to.
    fn head(&self) -> Head;

    /// The note of the newest checkpoint that another daemon of this ledger has made since this one reads along.
    fn followed_checkpoint(&self) -> Option<Arc<str>> {
        None
    }

    /// From when on all that others had written before is known here, as it grows; none where nobody else writes.
    fn looked(&self) -> Option<watch::Receiver<Option<Instant>>> {
        None
    }

    /// Why what others write cannot be seen, while it cannot.
    fn away(&self) -> Option<String> {
        None
    }

    /// The moment up to which everything is known here, while what others write cannot be seen; none: all is known.
    fn as_of(&self) -> Option<Timestamp> {
        None
    }
}

/// What `look` finds; where it finds nothing, what it finds once all is known here that others had written before. For what is refused
/// for good if it is not known.
///
/// # Errors
/// Those of `look`, and those of [`caught_up`] as `unseen` makes them.
pub async fn found<T, E, F: Future<Output = Result<Option<T>, E>>>(
    records: &dyn Records,
    mut look: impl FnMut() -> F,
    unseen: impl FnOnce(LedgerError) -> E,
) -> Result<Option<T>, E> {
    let first = look().await?;
    if first.is_some() || records.looked().is_none() {
        return Ok(first);
    }
    caught_up(records).await.map_err(unseen)?;
    look().await
}

/// Waits until all is known here that others had written before this call: some second, where others write.
///
/// # Errors
/// What others write cannot be seen now.
pub async fn caught_up(records: &dyn Records) -> Result<(), LedgerError> {
    let Some(mut looked) = records.looked() else { return Ok(()) };
    let asked = Instant::now();
    loop {
        if looked.borrow_and_update().is_some_and(|looked| looked >= asked) {
            return Ok(());
        }
        let why = match records.away() {
            Some(why) => why,
            None => match timeout(CAUGHT_UP, looked.changed()).await {
                Ok(Ok(())) => continue,
                _ => "what others write was not seen for too long".into(),
            },
        };
        return Err(LedgerError::Unavailable {
            notice: "what other daemons write cannot be seen now",
            cause: why.into(),
        });
    }
}
