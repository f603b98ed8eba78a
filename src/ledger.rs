//! What is recorded about every serial number, and who may have one.
//!
//! [`Ledger`] is the side that changes: a batch of operations goes in, all of it is durable when the outcomes come
//! out. [`Records`] is the side that reads, for many threads at once. [`embedded`] implements both with a journal
//! and an index on this machine; nothing above these traits may know that.
//!
//! From the bottom: the types that this file names; [`entry`] and [`journal`], the truth; the index, and the view of
//! what is known above it; the decisions on that view; the copy of a ledger's entries on this machine; [`embedded`]. `audit` and [`verify`] read the truth without
//! all of these.

mod acceptance;
mod actor;
mod api;
mod apply;
mod approval;
mod approval_audit;
mod audit;
pub mod backup;
mod batch;
mod batch_audit;
mod batch_content;
pub mod checkpoint;
mod claims;
pub(crate) mod clock;
mod copy;
mod crl_issued;
mod decide;
mod device_list;
pub mod embedded;
pub mod entry;
mod entry_json;
mod entry_tail;
mod epoch;
mod epoch_audit;
mod error;
mod event_kind;
mod export;
mod first_pass;
mod folder_lock;
mod head;
mod history;
mod index;
mod issued_records;
mod issuer;
pub mod journal;
mod marker;
mod measured;
mod memtable;
mod operation;
mod order;
mod overlay;
mod peer;
mod peer_audit;
mod proof;
mod proof_audit;
mod record;
mod recorded_peers;
mod recovery;
mod refusal;
mod refused;
mod revocation;
mod revoked;
pub mod scrub;
pub mod shared;
mod vending;
mod vending_audit;
pub mod verify;
mod view;
mod wire;

pub use self::{
    acceptance::{Acceptable, Agreed, Agreement, Grounds},
    actor::Actor,
    api::{Ledger, Records, caught_up, found},
    approval::Approval,
    batch::{
        Acknowledged, Batch, BatchId, BatchTerms, Destination, FailedCertificate, Filter, Moment, ParseBatchIdError,
        Place, ResultCounts, Results, Seal, UnfitDevice, is_destination,
    },
    batch_content::{Backlog, BatchContent, BatchEnd, FoundBatch, Member, NextBatch, Withdrawal},
    crl_issued::CrlIssued,
    device_list::{DeviceList, DevicesListed, ListPage, ListedDevice, PIECE},
    entry_json::{entry_to_json, json_time},
    entry_tail::EntryTail,
    epoch::Epoch,
    error::{Cause, LedgerError},
    event_kind::{EVENTS, Subject},
    export::{Export, ExportId, ParseExportIdError},
    first_pass::FirstPass,
    head::{ChainHash, Head},
    history::{Concern, HistoryEntry},
    issued_records::IssuedRecords,
    issuer::{IssuerTerms, RecordedIssuer},
    measured::{Figures, Measured},
    operation::{Action, Operation, Outcome},
    order::{Order, OrderPause, OrderTerms},
    peer::{EnrolledPeer, Enrolment, EnrolmentMethod, PeerCertificate, PeerRevocation},
    proof::{FoundProof, ProofId, ProofTerms},
    record::{Change, Holder, IssuedCertificate, KeyHash, Record, RecordState},
    recorded_peers::RecordedPeers,
    recovery::Recovery,
    refusal::Refusal,
    refused::{NAMED_DEVICES, RefusalScope, RequestsRefused},
    revocation::{ParseReasonError, RevocationReason},
    revoked::{CaId, RevokedCause, RevokedCertificate},
    vending::{Cost, CreatedCodes, HashedCode, VendingBatch, VendingCode, VendingTerms},
};
