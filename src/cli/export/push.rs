//! `birthmark export push`

use std::{path::PathBuf, thread, time::Duration};

use birthmark::export::push::{Push, PushError, PushSettings};

use super::{super::print, verify::read_keys};

/// The pauses between attempts: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The command is run by /bin/sh, with the bundle's path as $1 and as $BIRTHMARK_BUNDLE and the batch's \
    id as $BIRTHMARK_BATCH. One that does not exit with 0 is run again, after 1 second and then after pauses that double up \
    to 5 minutes; the bundles after it wait, because they may withdraw what it has. After a crash it may get a bundle once \
    more.\n\nFor example:\n  birthmark export push aws --from /out --command 'rsync -a \"$1\" upload@gateway:in/'\n\n\
    Exit codes with --once: 0 all was handed over; 1 not all; 2 wrong usage."
)]
pub(in crate::cli) struct Args {
    /// The destination
    #[arg(value_name = "NAME")]
    destination: String,

    /// The folder into which the daemon writes the destination's bundles
    #[arg(long, value_name = "DIR")]
    from: PathBuf,

    /// What is to be done with each bundle
    #[arg(long, value_name = "CMD")]
    command: String,

    /// Verify each bundle before, with the audit key's public half (PEM). May be repeated
    #[arg(long, value_name = "FILE")]
    trusted_key: Vec<PathBuf>,

    /// The file that has the last batch that was handed over [default: .NAME.pushed in DIR]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Hand over what is there and end, instead of waiting for more
    #[arg(long)]
    once: bool,

    /// How often to look for new bundles, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
}

pub(in crate::cli) fn run(args: Args) -> anyhow::Result<()> {
    let keys = read_keys(&args.trusted_key)?;
    let state = args.state.unwrap_or_else(|| args.from.join(format!(".{}.pushed", args.destination)));
    let Args { destination, from: folder, command, .. } = args;
    let mut push = Push::open(PushSettings { destination, folder, state, command, keys })?;
    let mut pause = FIRST_PAUSE;
    loop {
        match push.hand_over() {
            Ok(Some(batch)) => {
                print(&format!("{batch} was handed over\n"))?;
                pause = FIRST_PAUSE;
            }
            Ok(None) if args.once => return Ok(()),
            Ok(None) => thread::sleep(Duration::from_secs(args.every)),
            Err(error) if args.once => return Err(error.into()),
            Err(error) => {
                complain(&error, pause);
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn complain(error: &PushError, pause: Duration) {
    eprintln!("birthmark: {error}; trying again in {} s", pause.as_secs());
}
