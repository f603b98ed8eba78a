//! Why an operation is refused.

use jiff::Timestamp;

use super::{
    actor::Actor,
    batch::BatchId,
    record::{KeyHash, RecordState},
};
use crate::serial::SerialNumber;

/// Why an operation was refused. Each message names the rule and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such order.
    #[error("there is no order {}", crate::quote::quoted(.0))]
    OrderUnknown(String),
    /// An order with other terms has this id, or a closed one; with what differs.
    #[error("the order \"{0}\" exists already, {1}")]
    OrderExists(String, &'static str),
    /// The order was closed.
    #[error("the order \"{0}\" is closed")]
    OrderClosed(String),
    /// The order is paused.
    #[error(
        "the order \"{order}\" is paused since {since}{}; it goes on with \"birthmark order resume {order}\"",
        if .reason.is_empty() { String::new() } else { format!(" ({reason})") }
    )]
    OrderPaused {
        /// The order's id.
        order: String,
        /// Since when.
        since: Timestamp,
        /// Why; may be empty.
        reason: String,
    },
    /// No such request for an approval.
    #[error("there is no request {0} for an approval")]
    ApprovalUnknown(u64),
    /// The request cannot be agreed to any more.
    #[error("the request {number} {}", if *.used { "was granted, and used" } else { "is older than a week; ask again" })]
    ApprovalOver {
        /// Which request.
        number: u64,
        /// It was used.
        used: bool,
    },
    /// Nobody agrees to what he asked for himself.
    #[error("{actor} has made the request {number}; another operator must grant it")]
    ApprovalOwn {
        /// Which request.
        number: u64,
        /// Who asked, and would agree.
        actor: Actor,
    },
    /// The device is not on the order's list, or has another key.
    #[error("the device \"{device}\" {what} of the order \"{order}\"")]
    DeviceNotOnOrder {
        /// The order's id.
        order: String,
        /// The device.
        device: String,
        /// What is wrong, up to the order's name.
        what: &'static str,
    },
    /// The order's list is not whole yet.
    #[error(
        "the list of the order \"{order}\" lacks {missing} devices; run the \"birthmark order create\" that was interrupted \
         again"
    )]
    ListIncomplete {
        /// The order's id.
        order: String,
        /// How many are not listed yet.
        missing: u64,
    },
    /// Devices of a list do not follow on those before.
    #[error("the order \"{order}\" has {listed} of its {whole} devices listed; the next ones must follow on them")]
    ListOutOfOrder {
        /// The order's id.
        order: String,
        /// How many are listed.
        listed: u64,
        /// How many there are to be; 0: it has no list.
        whole: u64,
    },
    /// The order's quantity of the day is used up.
    #[error("the order \"{order}\" may have {limit} certificates a day (UTC), and has had them today")]
    DayExhausted {
        /// The order's id.
        order: String,
        /// The limit.
        limit: u64,
    },
    /// A quantity would be below what is issued and reserved.
    #[error("the quantity of the order \"{order}\" cannot become {quantity}: {used} of it are issued or being issued")]
    QuantityBelowUsed {
        /// The order's id.
        order: String,
        /// What was asked for.
        quantity: u64,
        /// What is issued or reserved.
        used: u64,
    },
    /// The key of a peer's certificate that was revoked is to have another certificate.
    #[error("the key {} of {peer} was revoked with its certificate; make a new key", hex::encode(.key_hash))]
    PeerKeyRevoked {
        /// Who.
        peer: Actor,
        /// The key.
        key_hash: KeyHash,
    },
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
        "the order \"{order}\" is used up: all of its {quantity} certificates are issued or being issued; create \
         another order"
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
    #[error(
        "the public key {} is bound to another device, \"{device}\"; each device needs a key of its own",
        hex::encode(.key_hash)
    )]
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
    /// The device has no vending code.
    #[error("the device {} has no vending code", crate::quote::quoted(.0))]
    CodeUnknown(String),
    /// The device's vending code cannot be created, or gives no certificate.
    #[error("the vending code of the device {} is refused: {why}", crate::quote::quoted(.device))]
    CodeRefused {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// A revocation list's number is not greater than those before.
    #[error("the revocation list {number} of the issuer \"{issuer}\" is not newer than {newest}, which was before it")]
    CrlNumberUsed {
        /// The issuer.
        issuer: String,
        /// The number.
        number: u64,
        /// That of the newest list.
        newest: u64,
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
    /// No such batch.
    #[error("there is no batch {}", crate::quote::quoted(&.0.to_string()))]
    BatchUnknown(BatchId),
    /// Another batch of the destination was cut meanwhile.
    #[error("another batch was cut before {0} could be")]
    BatchOvertaken(BatchId),
    /// The batch is acknowledged, and not with these results.
    #[error(
        "the batch {id} is acknowledged already, {}; what its platform said is recorded once",
        if *.with_results { "with other results" } else { "without results" }
    )]
    BatchAcknowledged {
        /// The batch.
        id: BatchId,
        /// It was acknowledged with results, other ones.
        with_results: bool,
    },
    /// The device has a live certificate.
    #[error(
        "the device \"{device}\" has the live certificate {serial_number} (order \"{order}\", profile \"{profile}\"), \
         for another key, order or profile than it is asked for now; if that one is not used any more, an operator scraps it \
         (\"birthmark record scrap\"), and the request is made again as a reissue"
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
    /// The clock is before the newest entry.
    #[error(
        "the clock ({now:.0}) is before the ledger's newest entry ({newest:.0}); set it right or, if it is right and was \
         wrong when that entry was written, stop the daemon and use \"birthmark journal accept-clock\""
    )]
    ClockBackwards {
        /// The daemon's clock.
        now: Timestamp,
        /// The newest entry's time.
        newest: Timestamp,
    },
    /// The clock cannot be right.
    #[error("the clock ({now:.0}) is implausible: {why}")]
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
    #[error(
        "the ledger's disk has {} MiB free, less than the {} MiB it must have; make room",
        .free >> 20, .min_free >> 20
    )]
    StorageLow {
        /// Bytes.
        free: u64,
        /// Bytes.
        min_free: u64,
    },
    /// The journal may lack its newest entries, and nobody has said that they are not missed.
    #[error("nothing is issued, because the ledger may lack its newest entries: {0}")]
    MayLackEntries(String),
    /// The reservation is gone: the other daemons of the ledger had given up this one.
    #[error(
        "the reservation {0} was abandoned by another daemon of the ledger, because this one was not heard of for too long; \
         ask again"
    )]
    ReservationLost(SerialNumber),
    /// A certificate that was found contradicts what is recorded.
    #[error("the certificate {serial_number} cannot be taken back into the ledger: {what}")]
    RecoveryConflict {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// What is recorded.
        what: String,
    },
    /// Not a reservation that waits for its certificate.
    #[error("the serial number {0} is not reserved")]
    NotReserved(SerialNumber),
}
