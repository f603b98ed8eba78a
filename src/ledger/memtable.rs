//! What is in memory of the ledger, until the index holds it.
//!
//! Settled records are flushed into the index many at a time. Reservations without a certificate stay in memory;
//! after a start they are found in the journal's tail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    approval::Approval,
    batch::Destination,
    epoch::{Epoch, tag, tag_of},
    index::{Index, Runs},
    issuer::RecordedIssuer,
    journal::Position,
    overlay::{Overlay, Pending, device_hash},
    peer::EnrolledPeer,
    proof::ProofId,
    record::RecordState,
};
use crate::serial::SerialNumber;

/// What is in memory, and the index that lies below it.
#[derive(Debug)]
pub(super) struct MemTable {
    /// The newest overlay.
    pub(super) recent: Overlay,
    /// The reservations without a certificate, all of which are in `recent`: the oldest is first, since serial numbers
    /// rise along the journal.
    pub(super) pending: BTreeMap<SerialNumber, Position>,
    /// The proofs of possession without a certificate, all of which are in `recent`.
    pub(super) pending_proofs: BTreeMap<SerialNumber, (Position, ProofId)>,
    /// All issuers by their ids: they are few, and stay when the index has them.
    pub(super) issuers: BTreeMap<u32, Arc<RecordedIssuer>>,
    /// All destinations by their names, likewise.
    pub(super) destinations: BTreeMap<String, Arc<Destination>>,
    /// All stations, operators and auditors by their names: they are few, and stay when the index has them.
    pub(super) peers: BTreeMap<Arc<str>, Arc<EnrolledPeer>>,
    /// All requests for the agreement of a second operator, likewise.
    pub(super) approvals: BTreeMap<u64, Arc<Approval>>,
    /// All epochs by their numbers, likewise.
    pub(super) epochs: BTreeMap<u64, Arc<Epoch>>,
    /// The one below, while it is written into the index.
    pub(super) flushing: Option<Arc<Overlay>>,
    /// The index, below both, and its runs.
    pub(super) index: Arc<Index>,
    pub(super) runs: Runs,
    /// All of the journal before it is durable and applied.
    pub(super) end: Position,
    /// Where revoked certificates came or changed since somebody took notice: CAs, and the first 12 bits of the hashes
    /// of serial numbers.
    pub(super) revocations: BTreeSet<([u8; 8], u16)>,
}

impl MemTable {
    pub(super) fn new(index: Arc<Index>, runs: Runs, end: Position) -> Self {
        let (recent, pending, pending_proofs) = (Overlay::default(), BTreeMap::new(), BTreeMap::new());
        MemTable {
            recent,
            pending,
            pending_proofs,
            issuers: BTreeMap::new(),
            destinations: BTreeMap::new(),
            peers: BTreeMap::new(),
            approvals: BTreeMap::new(),
            epochs: BTreeMap::new(),
            flushing: None,
            index,
            runs,
            end,
            revocations: BTreeSet::new(),
        }
    }

    /// Merges `draft` into the newest overlay.
    pub(super) fn absorb(&mut self, draft: Overlay) {
        for (serial_number, location) in &draft.records {
            match location.state {
                RecordState::Reserved => self.pending.insert(*serial_number, location.reserved),
                _ => self.pending.remove(serial_number),
            };
        }
        for (id, proof) in &draft.proofs {
            match proof.is_reserved() {
                true => self.pending_proofs.insert(proof.serial_number, (proof.reserved, id.clone())),
                false => self.pending_proofs.remove(&proof.serial_number),
            };
        }
        for key in draft.revoked.keys() {
            let (ca, hash) = key.place();
            self.revocations.insert((ca, (hash >> 20) as u16));
        }
        self.issuers.extend(draft.issuers.iter().map(|(id, issuer)| (*id, Arc::clone(issuer))));
        self.destinations.extend(draft.destinations.iter().map(|(name, found)| (name.clone(), Arc::clone(found))));
        self.peers.extend(draft.peers.iter().map(|(name, peer)| (Arc::clone(name), Arc::clone(peer))));
        self.approvals.extend(draft.approvals.iter().map(|(number, approval)| (*number, Arc::clone(approval))));
        self.epochs.extend(draft.epochs.iter().map(|(number, epoch)| (*number, Arc::clone(epoch))));
        self.recent.absorb(draft);
    }

    /// The serial numbers that wait for a certificate.
    pub(super) fn reservations(&self) -> impl Iterator<Item = SerialNumber> {
        self.pending.keys().chain(self.pending_proofs.keys()).copied()
    }

    /// Those of them that were given in an epoch.
    pub(super) fn reservations_of(&self, epoch: u64) -> impl Iterator<Item = SerialNumber> {
        self.reservations().filter(move |serial| tag_of(serial) == tag(epoch))
    }

    /// The epochs that have not ended, in their order.
    pub(super) fn open_epochs(&self) -> impl Iterator<Item = &Arc<Epoch>> {
        self.epochs.values().filter(|epoch| epoch.is_open())
    }

    /// Where the oldest of the reservations is.
    pub(super) fn oldest_reservation(&self) -> Option<Position> {
        let proofs = self.pending_proofs.values().map(|(position, _)| *position);
        self.pending.values().next().copied().into_iter().chain(proofs.take(1)).min()
    }

    /// How much that is settled waits to be flushed: records, changes of their states, orders, exports and so on.
    pub(super) fn settled(&self) -> usize {
        let Overlay { records, state_changes, orders, exports, issuers, peers, proofs, revoked, crl_numbers, .. } =
            &self.recent;
        let Overlay { listed, approvals, destinations, batches, detours, ended, epochs, .. } = &self.recent;
        let codes = self.recent.vending_codes.len() + self.recent.vending_batches.len();
        let refused = self.recent.refused.len() + self.recent.passes.len();
        let reserved = self.pending.len() + self.pending_proofs.len();
        let people = peers.len() + approvals.len() + epochs.len();
        let small =
            orders.len() + exports.len() + issuers.len() + people + proofs.len() + crl_numbers.len() + codes + refused;
        let batches = destinations.len() + batches.len() + detours.len();
        let ended = revoked.len() + ended.len();
        records.len() + state_changes.len() + listed.len() + ended + small + batches - reserved
    }

    /// How much the index does not have: what waits to be flushed, and what is being written into it.
    pub(super) fn unindexed(&self) -> usize {
        let flushing = self.flushing.as_deref();
        self.settled() + flushing.map_or(0, |overlay| overlay.records.len() + overlay.state_changes.len())
    }

    /// Begins to flush all that is settled: reservations, and what they hold, stay.
    pub(super) fn begin_flush(&mut self) -> Arc<Overlay> {
        let mut settled = std::mem::take(&mut self.recent);
        for serial_number in self.pending.keys() {
            let Some(location) = settled.records.remove(serial_number) else { continue };
            if let Some(Pending { holder, replaces }) = location.pending.as_deref() {
                let device = device_hash(&holder.device);
                settled.keys.remove(&holder.key_hash);
                // What the device had before may be settled, and must be found if the reservation is abandoned.
                settled.devices.insert(device, *replaces);
                self.recent.keys.insert(holder.key_hash, Some(*serial_number));
                self.recent.devices.insert(device, Some(*serial_number));
            }
            self.recent.records.insert(*serial_number, location);
        }
        for (_, id) in self.pending_proofs.values() {
            if let Some(reserved) = settled.proofs.remove(id) {
                self.recent.proofs.insert(id.clone(), reserved);
            }
        }
        let settled = Arc::new(settled);
        self.flushing = Some(Arc::clone(&settled));
        settled
    }

    /// The overlays, the newest first.
    pub(super) fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.recent).chain(self.flushing.as_deref())
    }
}
