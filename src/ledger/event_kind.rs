//! What entries are called, and whom and what they concern.

use super::{actor::Actor, entry::Event, record::Holder, recovery::Recovery};
use crate::serial::SerialNumber;

/// Declares the name of each event once.
macro_rules! kinds {
    ($($event:ident $name:literal;)*) => {
        /// What events are called, as people and programs are shown them.
        pub const EVENTS: &[&str] = &[$($name),*];

        impl Event {
            /// What it is called: one of [`EVENTS`].
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Event::$event { .. } => $name,)*
                }
            }
        }
    };
}

kinds! {
    Reserved "reserved";
    Issued "issued";
    Abandoned "abandoned";
    Confirmed "confirmed";
    Scrapped "scrapped";
    Revoked "revoked";
    ProofReserved "proof_reserved";
    ProofIssued "proof_issued";
    OrderCreated "order_created";
    OrderClosed "order_closed";
    OrderQuantityChanged "order_quantity_changed";
    OrderPaused "order_paused";
    OrderResumed "order_resumed";
    OrderDevicesListed "order_devices_listed";
    StationEnrolled "station_enrolled";
    StationRevoked "station_revoked";
    ApprovalRequested "approval_requested";
    ApprovalGranted "approval_granted";
    ApprovalUsed "approval_used";
    ExportCreated "export_created";
    ExportAcknowledged "export_acknowledged";
    BatchCreated "batch_created";
    BatchSealed "batch_sealed";
    BatchAcknowledged "batch_acknowledged";
    CrlIssued "crl_issued";
    IssuerAdded "issuer_added";
    Checkpoint "checkpoint";
    LossAccepted "loss_accepted";
    ClockAccepted "clock_accepted";
    VendingCodesCreated "vending_codes_created";
    VendingCodeCancelled "vending_code_cancelled";
    Started "started";
    Stopped "stopped";
    ConfigurationLoaded "configuration_loaded";
    Recovered "recovered";
    RequestsRefused "refused";
    Opened "opened";
    Ended "ended";
}

/// Whom and what an entry concerns, as far as it says so itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The serial number of a device's certificate.
    pub serial_number: Option<SerialNumber>,
    /// For whom the serial number is; only the first entry of a serial number says it.
    pub holder: Option<&'a Holder>,
    /// The order; of a certificate's only the first entry and its confirmation say it.
    pub order: Option<&'a str>,
    /// The device, if it is one.
    pub device: Option<&'a str>,
    /// The station, operator or auditor.
    pub peer: Option<&'a Actor>,
}

impl Event {
    /// Whom and what it concerns.
    pub fn subject(&self) -> Subject<'_> {
        let none = Subject::default();
        match self {
            Event::Reserved { serial_number, holder, .. }
            | Event::Recovered(Recovery { serial_number, holder, .. }) => Subject {
                serial_number: Some(*serial_number),
                holder: Some(holder),
                order: Some(&holder.order),
                device: Some(&holder.device),
                ..none
            },
            Event::Confirmed { serial_number, order } => {
                Subject { serial_number: Some(*serial_number), order: Some(order), ..none }
            }
            Event::Issued { serial_number, .. }
            | Event::Abandoned { serial_number, .. }
            | Event::Scrapped { serial_number, .. }
            | Event::Revoked { serial_number, .. } => Subject { serial_number: Some(*serial_number), ..none },
            Event::OrderCreated(terms) => Subject { order: Some(&terms.id), ..none },
            Event::OrderClosed { id }
            | Event::OrderQuantityChanged { id, .. }
            | Event::OrderPaused { id, .. }
            | Event::OrderResumed { id } => Subject { order: Some(id), ..none },
            Event::OrderDevicesListed(list) => Subject { order: Some(&list.order), ..none },
            Event::ExportCreated { id, .. } | Event::ExportAcknowledged { id } => {
                Subject { order: Some(&id.order), ..none }
            }
            Event::VendingCodesCreated(created) => Subject { order: Some(&created.terms.order), ..none },
            Event::RequestsRefused(refused) => Subject { order: Some(&refused.order), ..none },
            Event::VendingCodeCancelled { device } => Subject { device: Some(device), ..none },
            Event::StationEnrolled(enrolment) => Subject { peer: Some(&enrolment.peer), ..none },
            Event::StationRevoked { peer, .. } => Subject { peer: Some(peer), ..none },
            Event::ProofReserved { .. }
            | Event::ProofIssued { .. }
            | Event::ApprovalRequested { .. }
            | Event::ApprovalGranted { .. }
            | Event::ApprovalUsed { .. }
            | Event::BatchCreated(_)
            | Event::BatchSealed { .. }
            | Event::BatchAcknowledged { .. }
            | Event::CrlIssued(_)
            | Event::IssuerAdded { .. }
            | Event::Checkpoint { .. }
            | Event::LossAccepted { .. }
            | Event::ClockAccepted { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Opened { .. }
            | Event::Ended { .. }
            | Event::ConfigurationLoaded { .. } => none,
        }
    }

    /// Whether it names this device among others.
    pub fn lists_device(&self, device: &str) -> bool {
        match self {
            Event::OrderDevicesListed(list) => list.devices.iter().any(|listed| listed.id == device),
            Event::VendingCodesCreated(created) => created.terms.codes.iter().any(|code| code.device == device),
            Event::RequestsRefused(refused) => refused.devices.iter().any(|refused| refused == device),
            _ => false,
        }
    }
}
