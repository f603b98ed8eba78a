//! Changes to what the ledger knows: what a batch changes, what is in memory, and what goes into the index.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    approval::Approval,
    batch::{Batch, Destination},
    epoch::Epoch,
    export::{Export, ExportId},
    first_pass::{ByStation, RefusedDevice, RefusedKey},
    issuer::RecordedIssuer,
    journal::Position,
    order::Order,
    peer::EnrolledPeer,
    proof::ProofId,
    record::{Holder, KeyHash, RecordState},
    revoked::{CaId, RevokedKey, RevokedValue},
    vending::{VendingBatch, VendingCode},
};
use crate::serial::SerialNumber;

/// How the index and the memory know a device: the first 16 octets of SHA-256 of its id.
pub(super) type DeviceHash = [u8; 16];

pub(super) fn device_hash(device: &str) -> DeviceHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&crate::hash::sha256(device.as_bytes())[..16]);
    hash
}

/// Where a record lies in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordLocation {
    pub(super) state: RecordState,
    pub(super) reserved: Position,
    /// Where its certificate is, once issued.
    pub(super) issued: Option<Position>,
    /// Where the entry is that changed its state last after that, once one has.
    pub(super) changed: Option<Position>,
    /// What a reservation still needs; only while it is one.
    pub(super) pending: Option<Arc<Pending>>,
}

impl RecordLocation {
    /// Of a certificate that nothing has become of yet.
    pub(super) fn issued(reserved: Position, issued: Position) -> RecordLocation {
        let (state, issued) = (RecordState::Issued, Some(issued));
        RecordLocation { state, reserved, issued, changed: None, pending: None }
    }

    /// Of a certificate that was lost and found again: one entry has all of it.
    pub(super) fn recovered(position: Position) -> RecordLocation {
        RecordLocation::issued(position, position)
    }
}

/// What a reservation still needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) holder: Holder,
    /// The device's newest record before this one: one that was scrapped or revoked.
    pub(super) replaces: Option<SerialNumber>,
}

/// A state that comes after the certificate's issue, and the entry that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateChange {
    pub(super) state: RecordState,
    pub(super) changed: Position,
}

/// Changes to what lies below.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// As they were when they were reserved, issued or abandoned.
    pub(super) records: HashMap<SerialNumber, RecordLocation>,
    /// What became of issued ones, which may lie further below.
    pub(super) state_changes: HashMap<SerialNumber, StateChange>,
    /// None: the key is free (again).
    pub(super) keys: HashMap<KeyHash, Option<SerialNumber>>,
    /// The device's newest record; none: it has none (any more).
    pub(super) devices: HashMap<DeviceHash, Option<SerialNumber>>,
    /// In which entry a device of an order's list is, by the hash of both.
    pub(super) listed: HashMap<DeviceHash, Position>,
    pub(super) orders: HashMap<String, OrderLocation>,
    pub(super) exports: BTreeMap<ExportId, ExportLocation>,
    /// By their names.
    pub(super) destinations: BTreeMap<String, Arc<Destination>>,
    /// By the destination's number and their own.
    pub(super) batches: BTreeMap<(u32, u32), BatchLocation>,
    /// By the destination's number: certificates that did not simply go out with the batch of their time.
    pub(super) detours: BTreeMap<(u32, SerialNumber), Detour>,
    /// Where a certificate, before it was scrapped or revoked, was confirmed, and where it was scrapped or revoked first.
    pub(super) ended: BTreeMap<EndedKey, Position>,
    /// What may stand on a revocation list.
    pub(super) revoked: BTreeMap<RevokedKey, RevokedValue>,
    /// The number of each CA's newest revocation list.
    pub(super) crl_numbers: BTreeMap<CaId, u64>,
    /// By their ids.
    pub(super) issuers: BTreeMap<u32, Arc<RecordedIssuer>>,
    /// Where certificates are that were lost and found again: their serial numbers do not rise along the journal.
    pub(super) recovered: BTreeMap<SerialNumber, Position>,
    /// SHA-256 of the newest configuration.
    pub(super) configuration: Option<[u8; 32]>,
    /// Stations, operators and auditors by their names.
    pub(super) peers: BTreeMap<Arc<str>, Arc<EnrolledPeer>>,
    /// Requests for the agreement of a second operator, by their numbers.
    pub(super) approvals: BTreeMap<u64, Arc<Approval>>,
    /// By their numbers.
    pub(super) epochs: BTreeMap<u64, Arc<Epoch>>,
    /// The newest proof of possession of each CA and code.
    pub(super) proofs: BTreeMap<ProofId, ProofLocation>,
    /// The newest vending code of each device.
    pub(super) vending_codes: HashMap<String, VendingCode>,
    /// Batches of vending codes by their numbers.
    pub(super) vending_batches: BTreeMap<u32, VendingBatch>,
    /// First-pass yields by orders; of each order those stations alone whose yield changed.
    pub(super) passes: HashMap<String, ByStation>,
    /// Devices that were refused under an order, by the hash of both.
    pub(super) refused: HashMap<RefusedKey, RefusedDevice>,
}

/// An order, where in the journal it begins, and how far it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OrderLocation {
    pub(super) order: Order,
    /// Nothing was issued under it before.
    pub(super) created: Position,
    /// Where the newest entry of its list of devices is; `created` if there is none.
    pub(super) listed: Position,
    /// How many exports it has.
    pub(super) exports: u32,
    /// Where the newest of them is; `created` if there is none.
    pub(super) exported: Position,
    /// Live certificates recorded after that.
    pub(super) unexported: u64,
}

/// An export and where its entry is: no certificate after it is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportLocation {
    pub(super) export: Export,
    pub(super) position: Position,
}

/// A batch, and where its entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchLocation {
    pub(super) batch: Batch,
    pub(super) position: Position,
    /// Where the entries end that it has looked at.
    pub(super) end_place: Position,
}

/// How a certificate reached a destination that did not simply go out with the batch of its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(super) struct Detour {
    /// The first batch that left it out.
    pub(super) left_out: Option<u32>,
    /// The later batches that have it again; ascending.
    pub(super) again: Vec<u32>,
}

/// A certificate that was scrapped or revoked, and which of its entries is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndedKey(pub(super) [u8; EndedKey::LENGTH]);

impl EndedKey {
    pub(super) const LENGTH: usize = SerialNumber::LENGTH + 1;

    /// Where it was confirmed before.
    pub(super) fn confirmed(serial: &SerialNumber) -> Self {
        EndedKey::new(serial, 1)
    }

    /// Where it was scrapped or revoked first.
    pub(super) fn first_end(serial: &SerialNumber) -> Self {
        EndedKey::new(serial, 2)
    }

    fn new(serial: &SerialNumber, code: u8) -> Self {
        let mut key = [code; Self::LENGTH];
        key[..SerialNumber::LENGTH].copy_from_slice(serial.as_bytes());
        EndedKey(key)
    }

    /// The certificate, if the key is about its first end.
    pub(super) fn of_first_end(&self) -> Option<SerialNumber> {
        let [serial @ .., 2] = &self.0 else { return None };
        SerialNumber::try_from(serial.as_slice()).ok()
    }
}

/// Where a proof lies in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProofLocation {
    pub(super) serial_number: SerialNumber,
    pub(super) reserved: Position,
    pub(super) not_after: Timestamp,
    pub(super) state: ProofState,
}

/// What became of a proof's serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProofState {
    Reserved,
    /// Where its certificate is.
    Issued(Position),
    Abandoned,
}

impl ProofLocation {
    pub(super) fn is_reserved(&self) -> bool {
        self.state == ProofState::Reserved
    }
}

impl Overlay {
    /// Frees the key and the device of a reservation.
    pub(super) fn release(&mut self, pending: &Pending) {
        self.keys.insert(pending.holder.key_hash, None);
        self.devices.insert(device_hash(&pending.holder.device), pending.replaces);
    }

    /// Merges `upper` into this one.
    pub(super) fn absorb(&mut self, upper: Overlay) {
        self.records.extend(upper.records);
        self.state_changes.extend(upper.state_changes);
        self.keys.extend(upper.keys);
        self.devices.extend(upper.devices);
        self.listed.extend(upper.listed);
        self.orders.extend(upper.orders);
        self.exports.extend(upper.exports);
        self.destinations.extend(upper.destinations);
        self.batches.extend(upper.batches);
        self.detours.extend(upper.detours);
        self.ended.extend(upper.ended);
        self.revoked.extend(upper.revoked);
        self.crl_numbers.extend(upper.crl_numbers);
        self.issuers.extend(upper.issuers);
        self.peers.extend(upper.peers);
        self.approvals.extend(upper.approvals);
        self.epochs.extend(upper.epochs);
        self.proofs.extend(upper.proofs);
        self.vending_codes.extend(upper.vending_codes);
        self.vending_batches.extend(upper.vending_batches);
        self.refused.extend(upper.refused);
        for (order, stations) in upper.passes {
            self.passes.entry(order).or_default().extend(stations);
        }
        self.recovered.extend(upper.recovered);
        self.configuration = upper.configuration.or(self.configuration);
    }

    /// The reservation of a proof of possession among these changes.
    pub(super) fn proof_reservation(&self, serial: &SerialNumber) -> Option<(&ProofId, &ProofLocation)> {
        self.proofs.iter().find(|(_, proof)| proof.is_reserved() && proof.serial_number == *serial)
    }

    /// Forgets that a reservation held its key and device; the index has what became of them.
    pub(super) fn forget(&mut self, pending: &Pending) {
        self.keys.remove(&pending.holder.key_hash);
        self.devices.remove(&device_hash(&pending.holder.device));
    }
}
