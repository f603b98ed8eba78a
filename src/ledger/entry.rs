//! The entries of the journal and their protobuf encoding (`proto/birthmark/v1/journal.proto`).

mod batch;
mod codes;
mod convert;
mod head;
mod invalid;
mod refused;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;

use self::convert::{decode_proof_reserved, encode_proof_reserved, hash, replaced};
pub(crate) use self::head::EntryHead;
pub use self::invalid::InvalidEntry;
use super::{
    acceptance::Agreed,
    actor::Actor,
    batch::{BatchId, BatchTerms, Results, Seal},
    crl_issued::CrlIssued,
    device_list::{DeviceList, DevicesListed},
    export::ExportId,
    issuer::IssuerTerms,
    order::OrderTerms,
    peer::Enrolment,
    proof::ProofTerms,
    record::{Holder, KeyHash},
    recovery::Recovery,
    refused::RequestsRefused,
    revocation::RevocationReason,
    vending::CreatedCodes,
    wire::{self, from_micros, from_optional_micros, to_micros},
};
use crate::{pattern::Pattern, serial::SerialNumber};

/// One event, when it was decided and who caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// To the microsecond; never decreases along the journal, but at [`Event::ClockAccepted`].
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    pub event: Event,
}

/// What can happen to a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A serial number was given to a device.
    Reserved {
        /// The serial number.
        serial_number: SerialNumber,
        /// For whom.
        holder: Holder,
        /// The device's scrapped or revoked certificate in whose place this one comes, if there was one.
        replaces: Option<SerialNumber>,
    },
    /// The certificate of a reservation was recorded.
    Issued {
        /// The serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
    },
    /// A reservation was abandoned.
    Abandoned {
        /// The serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The device has taken its certificate.
    Confirmed {
        /// The serial number.
        serial_number: SerialNumber,
        /// The certificate's order, here so that a start counts it without reading the reservation; empty if none.
        order: String,
    },
    /// The device is scrap.
    Scrapped {
        /// The serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The certificate is not to be trusted any more.
    Revoked {
        /// The serial number.
        serial_number: SerialNumber,
        /// Why.
        reason: RevocationReason,
    },
    /// A serial number was given to a proof of possession.
    ProofReserved {
        /// The serial number.
        serial_number: SerialNumber,
        /// Which proof.
        terms: ProofTerms,
    },
    /// The certificate of a proof of possession was recorded.
    ProofIssued {
        /// The serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
    },
    /// An order was created.
    OrderCreated(OrderTerms),
    /// An order was closed.
    OrderClosed {
        /// The order's id.
        id: String,
    },
    /// An order's quantity was raised or lowered.
    OrderQuantityChanged {
        /// The order's id.
        id: String,
        /// How many certificates may be issued from now on.
        quantity: u64,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// Nothing is issued under an order until it is resumed.
    OrderPaused {
        /// The order's id.
        id: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// An order that was paused goes on.
    OrderResumed {
        /// The order's id.
        id: String,
    },
    /// Devices of an order's list, the next ones.
    OrderDevicesListed(DevicesListed),
    /// The station CA certified a station, an operator or an auditor.
    StationEnrolled(Enrolment),
    /// A station, an operator or an auditor may not connect any more with what it has.
    StationRevoked {
        /// Who, as actors are written.
        peer: Actor,
        /// Why, for people.
        reason: String,
        /// The key whose certificates stay; none: it has none any more.
        keep: Option<KeyHash>,
    },
    /// An operator wants to do what needs a second operator.
    ApprovalRequested {
        /// Counts the ledger's requests from 1.
        number: u64,
        /// What is to be done.
        what: String,
    },
    /// Another operator agrees.
    ApprovalGranted {
        /// Which request.
        number: u64,
    },
    /// It is being done.
    ApprovalUsed {
        /// Which request.
        number: u64,
    },
    /// A batch of an order's certificates was cut: see [`super::Export`].
    ExportCreated {
        /// Its id.
        id: ExportId,
        /// How many certificates it has.
        certificates: u64,
    },
    /// The platform that an export of an order was for has it.
    ExportAcknowledged {
        /// The export's id.
        id: ExportId,
    },
    /// A batch of a destination was cut.
    BatchCreated(Arc<BatchTerms>),
    /// The files of a batch were written for the first time.
    BatchSealed {
        /// The batch.
        id: BatchId,
        /// What was signed.
        seal: Seal,
    },
    /// The platform that a batch was for has it.
    BatchAcknowledged {
        /// The batch.
        id: BatchId,
        /// What the platform said, if that came back.
        results: Option<Arc<Results>>,
    },
    /// A certificate revocation list was signed.
    CrlIssued(CrlIssued),
    /// An issuer was recorded, before anything is issued by it.
    IssuerAdded {
        /// Its number in the ledger, from 1 on.
        id: u32,
        /// Which of the issuers that have had its name, from 1 on.
        generation: u32,
        /// What it is.
        terms: IssuerTerms,
    },
    /// The audit key signed what the journal was.
    Checkpoint {
        /// The signed text; see [`super::checkpoint`].
        note: String,
        /// No earlier checkpoint was compared with the entries before it, because its file was gone.
        earlier_checkpoints_lost: bool,
    },
    /// An operator agreed to go on without entries that the journal has lost.
    LossAccepted {
        /// What was missing.
        what: String,
        /// Why it was accepted, for people.
        reason: String,
        /// Which other operators agreed, where that was needed.
        agreed: Option<Box<Agreed>>,
    },
    /// The daemon was started.
    Started {
        /// Of birthmark.
        version: String,
        /// SHA-256 of the configuration file.
        configuration: [u8; 32],
    },
    /// The daemon shut down in order.
    Stopped {
        /// The signal that it was told to stop with.
        reason: String,
    },
    /// A configuration came into force that is not the one before.
    ConfigurationLoaded {
        /// SHA-256 of the file.
        sha256: [u8; 32],
        /// The whole file.
        text: String,
    },
    /// A certificate that the journal had lost was found again.
    Recovered(Recovery),
    /// An operator said that the clock is right although it contradicts the newest entry's time; later entries may have
    /// earlier times than those before.
    ClockAccepted {
        /// Why, for people.
        reason: String,
        /// Which other operators agreed, where that was needed.
        agreed: Option<Box<Agreed>>,
    },
    /// Vending codes were created.
    VendingCodesCreated(Box<CreatedCodes>),
    /// Requests for certificates were refused.
    RequestsRefused(Box<RequestsRefused>),
    /// A daemon begins to write into a ledger that several daemons share.
    Opened {
        /// Counts the ledger's epochs from 1.
        epoch: u64,
        /// The daemon's name.
        daemon: String,
    },
    /// An epoch has ended: nothing of it comes after.
    Ended {
        /// Which.
        epoch: u64,
    },
    /// A device's vending code can no longer be used.
    VendingCodeCancelled {
        /// The device.
        device: String,
    },
}

impl Entry {
    /// Appends the encoded entry to `out`.
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    pub fn encode(&self, out: &mut Vec<u8>) {
        use wire::entry::Event as Wire;
        let event = match &self.event {
            Event::Reserved { serial_number, holder, replaces } => Wire::Reserved(wire::Reserved {
                serial_number: serial_number.as_bytes().to_vec(),
                device_id: holder.device.clone(),
                key_sha256: holder.key_hash.to_vec(),
                order: holder.order.clone(),
                profile: holder.profile.clone(),
                issuer: holder.issuer.clone(),
                issuer_id: holder.issuer_id,
                replaces: replaces.map_or(Vec::new(), |replaced| replaced.as_bytes().to_vec()),
            }),
            Event::Issued { serial_number, certificate } => Wire::Issued(wire::Issued {
                serial_number: serial_number.as_bytes().to_vec(),
                certificate: certificate.clone(),
            }),
            Event::Abandoned { serial_number, reason } => Wire::Abandoned(wire::Abandoned {
                serial_number: serial_number.as_bytes().to_vec(),
                reason: reason.clone(),
            }),
            Event::Confirmed { serial_number, order } => Wire::Confirmed(wire::Confirmed {
                serial_number: serial_number.as_bytes().to_vec(),
                order: order.clone(),
            }),
            Event::Scrapped { serial_number, reason } => Wire::Scrapped(wire::Scrapped {
                serial_number: serial_number.as_bytes().to_vec(),
                reason: reason.clone(),
            }),
            Event::Revoked { serial_number, reason } => {
                Wire::Revoked(wire::Revoked { serial_number: serial_number.as_bytes().to_vec(), reason: reason.code() })
            }
            Event::ProofReserved { serial_number, terms } => {
                Wire::ProofReserved(encode_proof_reserved(serial_number, terms))
            }
            Event::ProofIssued { serial_number, certificate } => Wire::ProofIssued(wire::ProofIssued {
                serial_number: serial_number.as_bytes().to_vec(),
                certificate: certificate.clone(),
            }),
            Event::OrderCreated(terms) => Wire::OrderCreated(wire::OrderCreated {
                id: terms.id.clone(),
                profile: terms.profile.clone(),
                quantity: terms.quantity,
                not_before: terms.not_before.map_or(0, to_micros),
                not_after: terms.not_after.map_or(0, to_micros),
                stations: terms.stations.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
                attributes: terms.attributes.clone(),
                devices: terms.list.map_or(0, |list| list.devices),
                devices_sha256: terms.list.map_or(Vec::new(), |list| list.sha256.to_vec()),
                per_day: terms.per_day.unwrap_or(0),
            }),
            Event::OrderClosed { id } => Wire::OrderClosed(wire::OrderClosed { id: id.clone() }),
            Event::OrderQuantityChanged { id, quantity, reason } => {
                let (id, quantity, reason) = (id.clone(), *quantity, reason.clone());
                Wire::OrderQuantityChanged(wire::OrderQuantityChanged { id, quantity, reason })
            }
            Event::OrderPaused { id, reason } => {
                Wire::OrderPaused(wire::OrderPaused { id: id.clone(), reason: reason.clone() })
            }
            Event::OrderResumed { id } => Wire::OrderResumed(wire::OrderResumed { id: id.clone() }),
            Event::OrderDevicesListed(listed) => Wire::OrderDevicesListed(listed.into()),
            Event::ApprovalRequested { number, what } => {
                Wire::ApprovalRequested(wire::ApprovalRequested { number: *number, what: what.clone() })
            }
            Event::ApprovalGranted { number } => Wire::ApprovalGranted(wire::ApprovalGranted { number: *number }),
            Event::ApprovalUsed { number } => Wire::ApprovalUsed(wire::ApprovalUsed { number: *number }),
            Event::StationEnrolled(enrolment) => Wire::StationEnrolled(enrolment.into()),
            Event::StationRevoked { peer, reason, keep } => Wire::StationRevoked(wire::StationRevoked {
                peer: peer.to_string(),
                reason: reason.clone(),
                keep_key_sha256: keep.map(Vec::from).unwrap_or_default(),
            }),
            Event::ExportCreated { id, certificates } => Wire::ExportCreated(wire::ExportCreated {
                id: id.to_string(),
                order: id.order.clone(),
                number: id.number,
                certificates: *certificates,
            }),
            Event::ExportAcknowledged { id } => {
                Wire::ExportAcknowledged(wire::ExportAcknowledged { id: id.to_string() })
            }
            Event::BatchCreated(terms) => Wire::BatchCreated(terms.as_ref().into()),
            Event::BatchSealed { id, seal } => Wire::BatchSealed((id, seal).into()),
            Event::BatchAcknowledged { id, results } => Wire::BatchAcknowledged((id, results.as_deref()).into()),
            Event::CrlIssued(list) => Wire::CrlIssued(list.into()),
            Event::IssuerAdded { id, generation, terms: IssuerTerms { name, chain, crl_shards } } => {
                Wire::IssuerAdded(wire::IssuerAdded {
                    id: *id,
                    name: name.clone(),
                    generation: *generation,
                    chain: chain.clone(),
                    crl_shards: *crl_shards,
                })
            }
            Event::Checkpoint { note, earlier_checkpoints_lost } => Wire::Checkpoint(wire::Checkpoint {
                note: note.clone(),
                earlier_checkpoints_lost: *earlier_checkpoints_lost,
            }),
            Event::LossAccepted { what, reason, agreed } => {
                let (statement, agreements) = Agreed::to_wire(agreed.as_deref());
                let (what, reason) = (what.clone(), reason.clone());
                Wire::LossAccepted(wire::LossAccepted { what, reason, statement, agreements })
            }
            Event::ClockAccepted { reason, agreed } => {
                let (statement, agreements) = Agreed::to_wire(agreed.as_deref());
                Wire::ClockAccepted(wire::ClockAccepted { reason: reason.clone(), statement, agreements })
            }
            Event::VendingCodesCreated(created) => Wire::VendingCodesCreated((&**created).into()),
            Event::RequestsRefused(refused) => Wire::RequestsRefused((&**refused).into()),
            Event::VendingCodeCancelled { device } => {
                Wire::VendingCodeCancelled(wire::VendingCodeCancelled { device_id: device.clone() })
            }
            Event::Started { version, configuration } => {
                Wire::Started(wire::Started { version: version.clone(), configuration_sha256: configuration.to_vec() })
            }
            Event::Stopped { reason } => Wire::Stopped(wire::Stopped { reason: reason.clone() }),
            Event::ConfigurationLoaded { sha256, text } => {
                Wire::ConfigurationLoaded(wire::ConfigurationLoaded { sha256: sha256.to_vec(), text: text.clone() })
            }
            Event::Recovered(recovery) => Wire::Recovered(recovery.into()),
            Event::Opened { epoch, daemon } => Wire::Opened(wire::Opened { epoch: *epoch, daemon: daemon.clone() }),
            Event::Ended { epoch } => Wire::Ended(wire::Ended { epoch: *epoch }),
        };
        let entry =
            wire::Entry { time: to_micros(self.time), actor: self.actor.0.as_ref().to_owned(), event: Some(event) };
        entry.encode_raw(out);
    }

    /// Reads an encoded entry. A certificate in it shares the memory of `encoded`.
    ///
    /// # Errors
    /// What is wrong with it, for an error that also names the place in the journal.
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    pub fn decode(encoded: Bytes) -> Result<Entry, InvalidEntry> {
        use wire::entry::Event as Wire;
        let entry = wire::Entry::decode(encoded)?;
        let event = match entry.event.ok_or(InvalidEntry::NewerEvent)? {
            Wire::Reserved(reserved) => Event::Reserved {
                serial_number: SerialNumber::try_from(&*reserved.serial_number)?,
                holder: Holder {
                    device: reserved.device_id,
                    key_hash: reserved.key_sha256.as_slice().try_into().map_err(|_| InvalidEntry::KeyHash)?,
                    order: reserved.order,
                    profile: reserved.profile,
                    issuer: reserved.issuer,
                    issuer_id: reserved.issuer_id,
                },
                replaces: replaced(&reserved.replaces)?,
            },
            Wire::Issued(issued) => Event::Issued {
                serial_number: SerialNumber::try_from(&*issued.serial_number)?,
                certificate: issued.certificate,
            },
            Wire::Abandoned(abandoned) => Event::Abandoned {
                serial_number: SerialNumber::try_from(&*abandoned.serial_number)?,
                reason: abandoned.reason,
            },
            Wire::Confirmed(confirmed) => Event::Confirmed {
                serial_number: SerialNumber::try_from(&*confirmed.serial_number)?,
                order: confirmed.order,
            },
            Wire::Scrapped(scrapped) => Event::Scrapped {
                serial_number: SerialNumber::try_from(&*scrapped.serial_number)?,
                reason: scrapped.reason,
            },
            Wire::Revoked(revoked) => Event::Revoked {
                serial_number: SerialNumber::try_from(&*revoked.serial_number)?,
                reason: RevocationReason::try_from(revoked.reason)?,
            },
            Wire::ProofReserved(reserved) => {
                let (serial_number, terms) = decode_proof_reserved(reserved)?;
                Event::ProofReserved { serial_number, terms }
            }
            Wire::ProofIssued(issued) => Event::ProofIssued {
                serial_number: SerialNumber::try_from(&*issued.serial_number)?,
                certificate: issued.certificate,
            },
            Wire::OrderCreated(created) => Event::OrderCreated(OrderTerms {
                id: created.id,
                profile: created.profile,
                quantity: created.quantity,
                not_before: from_optional_micros(created.not_before)?,
                not_after: from_optional_micros(created.not_after)?,
                stations: created.stations.into_iter().map(Pattern::new).collect(),
                attributes: created.attributes,
                list: match created.devices_sha256.as_slice() {
                    [] => None,
                    octets => {
                        let sha256 = octets.try_into().map_err(|_| InvalidEntry::ListHash)?;
                        Some(DeviceList { devices: created.devices, sha256 })
                    }
                },
                per_day: Some(created.per_day).filter(|limit| *limit > 0),
            }),
            Wire::OrderClosed(closed) => Event::OrderClosed { id: closed.id },
            Wire::OrderQuantityChanged(wire::OrderQuantityChanged { id, quantity, reason }) => {
                Event::OrderQuantityChanged { id, quantity, reason }
            }
            Wire::OrderPaused(wire::OrderPaused { id, reason }) => Event::OrderPaused { id, reason },
            Wire::OrderResumed(resumed) => Event::OrderResumed { id: resumed.id },
            Wire::OrderDevicesListed(listed) => Event::OrderDevicesListed(listed.try_into()?),
            Wire::ApprovalRequested(wire::ApprovalRequested { number, what }) => {
                Event::ApprovalRequested { number, what }
            }
            Wire::ApprovalGranted(granted) => Event::ApprovalGranted { number: granted.number },
            Wire::ApprovalUsed(used) => Event::ApprovalUsed { number: used.number },
            Wire::StationEnrolled(enrolled) => Event::StationEnrolled(enrolled.try_into()?),
            Wire::StationRevoked(wire::StationRevoked { peer, reason, keep_key_sha256 }) => {
                Event::StationRevoked { peer: Actor(peer.into()), reason, keep: keep_key_sha256.try_into().ok() }
            }
            Wire::ExportCreated(created) => {
                let id: ExportId = created.id.parse()?;
                if (&id.order, id.number) != (&created.order, created.number) {
                    return Err(InvalidEntry::ExportMismatch(id));
                }
                Event::ExportCreated { id, certificates: created.certificates }
            }
            Wire::ExportAcknowledged(acknowledged) => Event::ExportAcknowledged { id: acknowledged.id.parse()? },
            Wire::BatchCreated(created) => Event::BatchCreated(Arc::new(created.try_into()?)),
            Wire::BatchSealed(sealed) => {
                let (id, seal) = sealed.try_into()?;
                Event::BatchSealed { id, seal }
            }
            Wire::BatchAcknowledged(said) => {
                let (id, results): (BatchId, Option<Results>) = said.try_into()?;
                Event::BatchAcknowledged { id, results: results.map(Arc::new) }
            }
            Wire::CrlIssued(list) => Event::CrlIssued(list.try_into()?),
            Wire::IssuerAdded(wire::IssuerAdded { id, name, generation, chain, crl_shards }) => {
                Event::IssuerAdded { id, generation, terms: IssuerTerms { name, chain, crl_shards } }
            }
            Wire::Checkpoint(checkpoint) => Event::Checkpoint {
                note: checkpoint.note,
                earlier_checkpoints_lost: checkpoint.earlier_checkpoints_lost,
            },
            Wire::LossAccepted(wire::LossAccepted { what, reason, statement, agreements }) => {
                Event::LossAccepted { what, reason, agreed: Agreed::from_wire(statement, agreements) }
            }
            Wire::ClockAccepted(wire::ClockAccepted { reason, statement, agreements }) => {
                Event::ClockAccepted { reason, agreed: Agreed::from_wire(statement, agreements) }
            }
            Wire::VendingCodesCreated(created) => Event::VendingCodesCreated(Box::new(created.try_into()?)),
            Wire::RequestsRefused(refused) => Event::RequestsRefused(Box::new(refused.try_into()?)),
            Wire::VendingCodeCancelled(cancelled) => Event::VendingCodeCancelled { device: cancelled.device_id },
            Wire::Started(started) => {
                Event::Started { version: started.version, configuration: hash(&started.configuration_sha256)? }
            }
            Wire::Stopped(stopped) => Event::Stopped { reason: stopped.reason },
            Wire::ConfigurationLoaded(loaded) => {
                Event::ConfigurationLoaded { sha256: hash(&loaded.sha256)?, text: loaded.text }
            }
            Wire::Recovered(recovered) => Event::Recovered(recovered.try_into()?),
            Wire::Opened(wire::Opened { epoch, daemon }) => Event::Opened { epoch, daemon },
            Wire::Ended(ended) => Event::Ended { epoch: ended.epoch },
        };
        Ok(Entry { time: from_micros(entry.time)?, actor: Actor(entry.actor.into()), event })
    }
}
