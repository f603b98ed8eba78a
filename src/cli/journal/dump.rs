//! `birthmark journal dump`

use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    process::ExitCode,
};

use birthmark::{
    ledger::{
        Recovery,
        entry::Event,
        journal::{Scan, ScannedFrame},
    },
    serial::SerialNumber,
};

use super::{entry_json::entry_to_json, folder::Place, torn};

#[derive(Debug, clap::Args)]
#[command(after_help = "Checksums and hash chain are verified on the way, from the beginning of the file that holds \
    --from. It needs no lock: the daemon may run.\n\nExit codes: 0 all printed; 1 damage (what is before it was \
    printed); 2 wrong usage; 3 all printed but for an incomplete last entry.")]
pub(super) struct DumpArgs {
    #[command(flatten)]
    place: Place,

    /// The first entry, by its sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,

    /// The last entry [default: the newest]
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,

    /// Only what concerns this device, from --from on
    #[arg(long, value_name = "ID")]
    device: Option<String>,
}

/// Prints the entries.
pub(super) fn run(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let mut scan = Scan::open(&args.place.folder()?)?;
    scan.skip_to(args.from)?;
    let mut filter = Filter { device: args.device.as_deref(), serial_numbers: HashSet::new() };
    let mut out = BufWriter::new(std::io::stdout().lock());
    // Entries are printed up to the damage; its message comes last.
    let mut damage = None;
    loop {
        let frame = match scan.read() {
            Ok(Some(frame)) if args.to.is_none_or(|to| frame.sequence <= to) => frame,
            Ok(_) => break,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        if frame.sequence >= args.from && filter.wants(&frame) {
            match writeln!(out, "{}", entry_to_json(&frame)) {
                // A reader such as `head` has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
        }
    }
    out.flush()?;
    match damage {
        Some(error) => Err(error.into()),
        None => Ok(torn::end(scan.torn_end())),
    }
}

/// Picks what concerns a device.
struct Filter<'a> {
    device: Option<&'a str>,
    /// The device's.
    serial_numbers: HashSet<SerialNumber>,
}

impl Filter<'_> {
    fn wants(&mut self, frame: &ScannedFrame) -> bool {
        let Some(wanted) = self.device else { return true };
        match &frame.entry.event {
            Event::Reserved { serial_number, holder, .. }
            | Event::Recovered(Recovery { serial_number, holder, .. }) => {
                holder.device == wanted && self.serial_numbers.insert(*serial_number)
            }
            Event::Issued { serial_number, .. }
            | Event::Abandoned { serial_number, .. }
            | Event::Confirmed { serial_number, .. }
            | Event::Scrapped { serial_number, .. }
            | Event::Revoked { serial_number, .. } => self.serial_numbers.contains(serial_number),
            Event::OrderCreated(_)
            | Event::OrderClosed { .. }
            | Event::OrderQuantityChanged { .. }
            | Event::OrderPaused { .. }
            | Event::OrderResumed { .. }
            | Event::OrderDevicesListed(_)
            | Event::StationEnrolled(_)
            | Event::ApprovalRequested { .. }
            | Event::ApprovalGranted { .. }
            | Event::ApprovalUsed { .. }
            | Event::StationRevoked { .. }
            | Event::ProofReserved { .. }
            | Event::ProofIssued { .. }
            | Event::ExportCreated { .. }
            | Event::ExportAcknowledged { .. }
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
            | Event::ConfigurationLoaded { .. } => false,
            Event::VendingCodesCreated(created) => created.terms.codes.iter().any(|code| code.device == wanted),
            Event::VendingCodeCancelled { device } => device == wanted,
            Event::RequestsRefused(refused) => refused.devices.iter().any(|device| device == wanted),
        }
    }
}
