//! `birthmark journal dump`

use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    process::ExitCode,
};

use birthmark::{ledger::journal::ScannedFrame, serial::SerialNumber};

use super::{
    folder::{Place, Readable},
    frame_json::frame_to_json,
    torn,
};

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
    let mut scan = Readable::new(&args.place)?.open()?;
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
            match writeln!(out, "{}", frame_to_json(&frame)) {
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
        let event = &frame.entry.event;
        let subject = event.subject();
        match (subject.serial_number, subject.device) {
            (Some(serial_number), Some(device)) => {
                let wanted = device == wanted;
                if wanted {
                    self.serial_numbers.insert(serial_number);
                }
                wanted
            }
            (Some(serial_number), None) => self.serial_numbers.contains(&serial_number),
            (None, device) => device == Some(wanted) || event.lists_device(wanted),
        }
    }
}
