//! `birthmark journal follow`

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::ensure;

use super::{
    folder::{Place, Readable},
    frame_json::frame_to_json,
};

/// How often new entries are looked for.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The form is that of \"birthmark journal dump\", and every entry comes once, without a gap: whoever keeps the \
    sequence number of the last one goes on after it with --after, also when the daemon or this command was started again. It \
    needs no lock. Checksums and hash chain are verified on the way. Ends when its reader does."
)]
pub(super) struct FollowArgs {
    #[command(flatten)]
    place: Place,

    /// The sequence number of the last entry that is known already [default: the newest]
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,

    /// Print JSON, one object per line; there is no other form
    #[arg(long)]
    json: bool,
}

/// Prints the entries after one, and those to come.
pub(super) fn run(args: &FollowArgs) -> anyhow::Result<ExitCode> {
    let mut journal = Readable::new(&args.place)?;
    let mut scan = journal.open()?;
    scan.skip_to(args.after.map_or(u64::MAX, |after| after + 1))?;
    let mut out = std::io::stdout().lock();
    let mut after = args.after;
    loop {
        while let Some(frame) = scan.read()? {
            // Without a number, what is there when it begins is known.
            if after.is_none_or(|after| frame.sequence <= after) {
                continue;
            }
            match writeln!(out, "{}", frame_to_json(&frame)).and_then(|()| out.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
            after = Some(frame.sequence);
        }
        let newest = scan.next_sequence() - 1;
        // To wait for that number would be to pass over others.
        ensure!(
            after.is_none_or(|after| after <= newest) || journal.is_mirrored(),
            "the journal has {newest} entries, and none of the number {}: it was restored, or is another one; take what is known \
             from it again",
            after.unwrap_or_default()
        );
        after = after.or(Some(newest));
        while !scan.follow().or_else(|error| if journal.is_mirrored() { Ok(false) } else { Err(error) })? {
            thread::sleep(INTERVAL);
            if journal.has_moved() {
                // What is known already comes again, and is passed over.
                scan = journal.open()?;
                scan.skip_to(after.map_or(u64::MAX, |after| after + 1))?;
                break;
            }
        }
    }
}
