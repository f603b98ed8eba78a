//! What is recorded about every serial number, and who may have one.
//!
//! [`Ledger`] is the side that changes: a batch of operations goes in, all of it is durable when the outcomes come
//! out. [`Records`] is the side that reads, for many threads at once. [`embedded`] implements both with a journal
//! and an index on this machine; nothing above these traits may know that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{pattern::Pattern, serial::SerialNumber};

pub mod audit;
pub mod checkpoint;
pub mod clock;
mod decide;
pub mod embedded;
pub mod entry;
mod export;
mod index;
mod issued_records;
pub mod journal;
mod layer;
mod lock;
mod revocation;
pub mod scrub;
mod state;

pub use self::{
    export::{Export, ExportId, NotAnExportId},
    index::IndexError,
    issued_records::IssuedRecords,
    revocation::{NotAReason, RevocationReason},
};

/// The side that changes. One thread owns it (the committer).
pub trait Ledger: Send + 'static {
    /// Decides each operation in order, each seeing the earlier ones, and makes all that follows from them durable.
    /// There is one outcome an operation, in their order.
    ///
    /// # Errors
    /// None of the operations happened. After one that [is fatal](LedgerError::is_fatal) the ledger must not be used again.
    fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError>;

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

    /// The certificates of an order, in the order of issue, up to the moment of the call; each as it is when it is read.
    ///
    /// # Errors
    /// Those of the storage.
    fn issued_under(&self, order: &str) -> Result<IssuedRecords, LedgerError>;

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

    /// What the ledger has come to.
    fn head(&self) -> Head;
}

/// What a ledger has come to: what a checkpoint vouches for. All of it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The ledger's random id.
    pub ledger: [u8; 16],
    /// How many entries it has.
    pub sequence: u64,
    /// The chain hash after the last.
    pub chain: journal::ChainHash,
    /// Grows whenever a part of the ledger is full and the next is begun.
    pub part: u32,
}

/// Who causes an entry: `station:<line>/<station>`, `operator:<name>` or `daemon`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub Arc<str>);

impl Actor {
    /// The daemon itself.
    pub fn daemon() -> Self {
        Actor("daemon".into())
    }

    /// The station's `<line>/<station>`, if it is one.
    pub fn station(&self) -> Option<&str> {
        self.0.strip_prefix("station:")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a DER SubjectPublicKeyInfo.
pub type KeyHash = [u8; 32];

/// An operation and who asks for it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asks.
    pub actor: Actor,
    /// What is asked for.
    pub action: Action,
}

/// What can be asked of a ledger.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give a serial number to a device that has had none.
    Reserve(Holder),
    /// Give a serial number to a device whose certificate was scrapped or revoked.
    Reissue(Holder),
    /// Record the certificate of a reservation.
    Record {
        /// The reservation's serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
    },
    /// Give a reservation up.
    Abandon {
        /// The reservation's serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The device has taken its certificate.
    Confirm {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// The profiles that the station that asks may use; `None`: all, for it is no station.
        profiles: Option<Arc<BTreeSet<String>>>,
    },
    /// The device is scrap: give back what its order was charged.
    Scrap {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The certificate is not to be trusted any more.
    Revoke {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Why.
        reason: RevocationReason,
    },
    /// Create an order.
    CreateOrder(OrderTerms),
    /// Let nothing more be issued under an order.
    CloseOrder {
        /// The order's id.
        id: String,
    },
    /// Cut the next batch of an order's certificates.
    CreateExport {
        /// The order's id.
        order: String,
    },
    /// The platform that an export was for has it.
    AcknowledgeExport {
        /// The export's id.
        id: ExportId,
    },
    /// Record what the audit key signed about the ledger.
    Checkpoint {
        /// The signed text; see [`checkpoint`].
        note: String,
        /// The checkpoints before it are gone.
        begins_anew: bool,
    },
}

/// For whom a serial number is. The same holder again is a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The device's id.
    pub device: String,
    /// Its public key.
    pub key_hash: KeyHash,
    /// The order it is charged to; empty if to none, which only some profiles allow.
    pub order: String,
    /// The profile that decides what the certificate says.
    pub profile: String,
    /// The issuing CA.
    pub issuer: String,
}

/// What became of an operation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The serial number is the device's; the HSM may sign.
    Reserved(SerialNumber),
    /// The same request holds this serial number already and its certificate is being made.
    InProgress(SerialNumber),
    /// The same request was served before.
    Replay {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
        /// The issuing CA's name.
        issuer: String,
    },
    /// The certificate may leave.
    Recorded,
    /// The reservation is gone; its serial number will not be used again.
    Abandoned,
    /// The certificate is confirmed, scrapped or revoked, as was asked for.
    Changed {
        /// It was so before.
        retry: bool,
    },
    /// The order as it is now.
    Order(Order),
    /// The export as it is now.
    Export(Export),
    /// The checkpoint is part of the ledger.
    Checkpointed,
    /// It may not be; nothing changed.
    Refused(Refusal),
    /// What is known could not be read (a record that it concerns is damaged, say); nothing changed.
    Failed(Arc<LedgerError>),
}

/// Why an operation was refused. Each message names the rule and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such order.
    #[error("there is no order {}", crate::quote::quoted(.0))]
    OrderUnknown(String),
    /// An order with other terms has this id, or a closed one; says what differs.
    #[error("the order \"{0}\" exists already, {1}")]
    OrderExists(String, &'static str),
    /// The order was closed.
    #[error("the order \"{0}\" is closed")]
    OrderClosed(String),
    /// Outside the order's time window.
    #[error("the order \"{order}\" can be used {window}; it is {now}")]
    OrderOutOfWindow {
        /// The order's id.
        order: String,
        /// `from …`, `until …` or both.
        window: String,
        /// The daemon's clock.
        now: Timestamp,
    },
    /// The order's quantity is used up.
    #[error(
        "the order \"{order}\" is used up: all of its {quantity} certificates are issued or being issued; create another order"
    )]
    OrderExhausted {
        /// The order's id.
        order: String,
        /// Its quantity.
        quantity: u64,
    },
    /// The order is for another profile.
    #[error("the order \"{order}\" is for the profile \"{expected}\", not \"{found}\"")]
    ProfileRefused {
        /// The order's id.
        order: String,
        /// The order's profile.
        expected: String,
        /// The request's profile.
        found: String,
    },
    /// The station is not on the order.
    #[error("{station} may not use the order \"{order}\"")]
    StationRefused {
        /// The order's id.
        order: String,
        /// Who asked.
        station: String,
    },
    /// The station may not use the profile of the certificate.
    #[error("{station} may not use the profile \"{profile}\", which the certificate {serial_number} has")]
    ProfileStationRefused {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Its profile.
        profile: String,
        /// Who asked.
        station: Actor,
    },
    /// The public key belongs to another device.
    #[error("the public key {} is bound to another device, \"{device}\"; each device needs a key of its own", hex::encode(.key_hash))]
    KeyReused {
        /// The device that has the key.
        device: String,
        /// The key.
        key_hash: KeyHash,
    },
    /// The certificate of the public key was scrapped or revoked.
    #[error(
        "the public key of the device \"{device}\" belongs to the certificate {serial_number}, which is {state}; it is \
         never accepted again: make a new key"
    )]
    KeyBlocked {
        /// The device.
        device: String,
        /// The certificate of the key.
        serial_number: SerialNumber,
        /// Scrapped or revoked.
        state: RecordState,
    },
    /// The device had a certificate, and the request does not say that it is to have a new one.
    #[error(
        "the certificate {serial_number} of the device \"{device}\" is {state}; a request for a new one must say so \
         (reissue = true, \"birthmark station sign --reissue\")"
    )]
    ReissueRequired {
        /// The device.
        device: String,
        /// Its newest certificate.
        serial_number: SerialNumber,
        /// Scrapped or revoked.
        state: RecordState,
    },
    /// The device never had a certificate.
    #[error(
        "there is nothing to reissue: the device \"{device}\" has never had a certificate; ask for its first one \
         without reissue"
    )]
    ReissueRefused {
        /// The device.
        device: String,
    },
    /// Nothing was ever recorded under the serial number.
    #[error("there is no record of the serial number {0}")]
    RecordUnknown(SerialNumber),
    /// A certificate without an order is confirmed by the station that asked for it.
    #[error("the certificate {serial_number} was issued to {holder} without an order; {station} may not confirm it")]
    ConfirmRefused {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Who asked for it.
        holder: Actor,
        /// Who would confirm it.
        station: Actor,
    },
    /// The state of the record does not allow it.
    #[error("the serial number {serial_number} is {state}; only {allowed} can be {wanted}")]
    StateRefused {
        /// The serial number.
        serial_number: SerialNumber,
        /// Its state.
        state: RecordState,
        /// The states from which it could be done.
        allowed: &'static str,
        /// The state that was asked for.
        wanted: RecordState,
    },
    /// No such export.
    #[error("there is no export {}", crate::quote::quoted(&.0.to_string()))]
    ExportUnknown(ExportId),
    /// No live certificate was issued under the order since its last export.
    #[error("there is nothing new to export: every live certificate of the order \"{0}\" is in an export already")]
    NothingToExport(String),
    /// The device has a live certificate.
    #[error(
        "the device \"{device}\" has the live certificate {serial_number} (order \"{order}\", profile \"{profile}\"), \
         for another key, order or profile"
    )]
    DeviceHasCertificate {
        /// The device.
        device: String,
        /// Its certificate's serial number.
        serial_number: SerialNumber,
        /// The order under which it was issued.
        order: String,
        /// Its profile.
        profile: String,
    },
    /// The clock is behind the newest entry.
    #[error(
        "the clock ({now}) is before the ledger's newest entry ({newest}); set it right or, if it is right and was wrong when \
         that entry was written, stop the daemon and use \"birthmark journal accept-clock\""
    )]
    ClockBackwards {
        /// The daemon's clock.
        now: Timestamp,
        /// The newest entry's time.
        newest: Timestamp,
    },
    /// The clock cannot be right.
    #[error("the clock ({now}) is implausible: {why}")]
    ClockImplausible {
        /// The daemon's clock.
        now: Timestamp,
        /// What contradicts it, and what to do.
        why: String,
    },
    /// What would have to be recorded fits no entry.
    #[error(
        "the request is too large to be recorded: its entry would have {bytes} bytes; at most {limit} are possible"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The largest length that is possible.
        limit: usize,
    },
    /// The disk is nearly full.
    #[error("the ledger's disk has {} MiB free, less than the {} MiB it must have; make room", .free >> 20, .min_free >> 20)]
    StorageLow {
        /// Bytes.
        free: u64,
        /// Bytes.
        min_free: u64,
    },
    /// Not a reservation that waits for its certificate.
    #[error("the serial number {0} is not reserved")]
    NotReserved(SerialNumber),
}

/// The terms of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderTerms {
    /// Its id.
    pub id: String,
    /// The profile that it is for.
    pub profile: String,
    /// How many certificates may be issued.
    pub quantity: u64,
    /// Nothing is issued before this moment.
    pub not_before: Option<Timestamp>,
    /// Nothing is issued at or after this moment.
    pub not_after: Option<Timestamp>,
    /// The stations that may use it; all if empty.
    pub stations: Vec<Pattern>,
    /// What its certificates may say, by name: `{order.NAME}` in a profile.
    pub attributes: BTreeMap<String, String>,
}

/// An order and its counts: `issued + reserved <= terms.quantity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was agreed.
    pub terms: OrderTerms,
    /// Whether it is closed.
    pub closed: bool,
    /// Certificates recorded and not scrapped.
    pub issued: u64,
    /// Reservations without a certificate yet.
    pub reserved: u64,
    /// Of `issued`: those that are confirmed now.
    pub confirmed: u64,
    /// Certificates scrapped; what they were charged is given back.
    pub scrapped: u64,
    /// Of `issued`: those that were revoked.
    pub revoked: u64,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Order {
    /// One without any certificates.
    fn new(terms: OrderTerms, created_at: Timestamp) -> Self {
        Order { terms, closed: false, issued: 0, reserved: 0, confirmed: 0, scrapped: 0, revoked: 0, created_at }
    }

    /// How many more may be reserved.
    pub fn left(&self) -> u64 {
        self.terms.quantity.saturating_sub(self.issued).saturating_sub(self.reserved)
    }
}

/// Where a serial number is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Written down; its certificate is being made.
    Reserved,
    /// Signed and recorded.
    Issued,
    /// Never issued, never used again.
    Abandoned,
    /// Taken by its device.
    Confirmed,
    /// Its device is scrap.
    Scrapped,
    /// Not to be trusted any more.
    Revoked,
}

impl RecordState {
    /// Whether a certificate in this state counts as the one that its device has.
    pub fn is_live(self) -> bool {
        matches!(self, RecordState::Issued | RecordState::Confirmed)
    }
}

impl fmt::Display for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordState::Reserved => "reserved",
            RecordState::Issued => "issued",
            RecordState::Abandoned => "abandoned",
            RecordState::Confirmed => "confirmed",
            RecordState::Scrapped => "scrapped",
            RecordState::Revoked => "revoked",
        })
    }
}

/// All that is known about a serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The serial number.
    pub serial_number: SerialNumber,
    /// Where it is in its life.
    pub state: RecordState,
    /// For whom it is.
    pub holder: Holder,
    /// Who asked for it.
    pub actor: Actor,
    /// When it was reserved.
    pub reserved_at: Timestamp,
    /// Its certificate, once issued.
    pub issued: Option<IssuedCertificate>,
    /// The device's certificate before, in whose place it came.
    pub replaces: Option<SerialNumber>,
    /// What happened to the certificate last, once it is confirmed, scrapped or revoked.
    pub changed: Option<Change>,
}

/// What happened to a certificate after its issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Who said so.
    pub by: Actor,
    /// Why it was scrapped; empty unless it was.
    pub scrap_reason: String,
    /// Why it was revoked, if it was.
    pub revocation_reason: Option<RevocationReason>,
}

/// A recorded certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// When it was recorded.
    pub at: Timestamp,
    /// DER.
    pub certificate: Bytes,
}

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process uses the data folder.
    #[error(
        "another birthmark daemon uses the data folder {folder}{}; stop it, or give this one a folder of its own",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The data folder.
        folder: String,
        /// The other process, if the system tells.
        pid: Option<u32>,
    },
    /// The data folder cannot be used.
    #[error("the data folder {folder} cannot be used: {cause}; it must be a folder that this user may write")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The journal is damaged, or from a newer version.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// The newest checkpoint knows another journal.
    #[error(
        "the journal does not fit the newest checkpoint, {path}: {what}. Restore the journal from a newer backup; or, to go on with \
         what is here and give up what is not, use \"birthmark journal accept-loss\", which keeps that file"
    )]
    Checkpoint {
        /// The checkpoint's file.
        path: String,
        /// What differs.
        what: String,
    },
    /// The newest checkpoint is not one that the audit key signed.
    #[error(
        "the checkpoint {path} is not to be trusted: {what}. Put a copy in its place that was kept elsewhere, or name the key that \
         signed it under audit.previous_keys; or, if nobody can vouch for the journal any more, move that file away and keep \
         it: the next checkpoint then says that it begins anew"
    )]
    CheckpointNotTrusted {
        /// The checkpoint's file.
        path: String,
        /// Why not.
        what: String,
    },
    /// There is nothing that an operator would have to accept.
    #[error("there is nothing to accept: {0}")]
    NothingToAccept(String),
    /// The batch could not be written; nothing of it happened, and a later one may succeed.
    #[error("the journal could not be written: {0}")]
    Write(std::io::Error),
    /// The index has to take in what is settled, and the disk has no room for that.
    #[error(
        "the ledger's disk has {} MiB free, and the index needs {} MiB for what is settled; make room", .free >> 20, .needed >> 20
    )]
    NoRoom {
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// The index gives no answer, or takes nothing at present; it comes back by itself.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// It is not known what is on the disk: the process must end, and start again from what is there.
    #[error("the journal could not be made durable ({0}); the daemon stops, and recovers when it is started again")]
    Fatal(std::io::Error),
    /// Another process has changed the journal under this one.
    #[error(
        "the journal file {path} was changed by another process: {what}; the daemon stops, before it hands out what is lost"
    )]
    Taken {
        /// The file.
        path: String,
        /// What shows it.
        what: String,
    },
    /// A bug; the log says where.
    #[error("the decision on an operation panicked; this is a bug")]
    Panicked,
}

impl LedgerError {
    /// Whether the ledger must not be used again: the process must end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, LedgerError::Fatal(_) | LedgerError::Taken { .. })
    }

    /// Whether what is recorded cannot be read any more: the message names the file and the byte.
    pub fn is_damage(&self) -> bool {
        matches!(self, LedgerError::Journal(error) if error.is_damage())
    }

    /// Whether index or checkpoint know entries that the journal does not have.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, LedgerError::Journal(journal::JournalError::Lost { .. }) | LedgerError::Checkpoint { .. })
    }
}
