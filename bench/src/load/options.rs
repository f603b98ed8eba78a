//! What is asked of a measurement.

use std::{path::PathBuf, time::Duration};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many stations are connected
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) stations: u32,

    /// How many requests each station has open
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) window: u32,

    /// How many seconds are measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,

    /// The issuing CA's key
    #[arg(long, value_enum, default_value_t = KeyName::P256)]
    pub(super) key: KeyName,

    /// Fill the ledger with this number of certificates first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) records: u64,

    /// Where the ledger is; several, with commas between them, are measured one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "embedded")]
    pub(super) ledger: Vec<LedgerName>,

    /// How many daemons share the ledger, each with an HSM of its own; needs a ledger that is shared
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(super) daemons: u32,

    /// Measure once more while a batch with all of the records is exported again and again
    #[arg(long)]
    pub(super) beside_export: bool,

    /// Measure once more beside calls for the order and scraps, and then confirmations, 1,000 a call
    #[arg(long)]
    pub(super) calls: bool,

    /// The time that each C_Sign takes at least, such as 5ms; needs the fault-injecting module
    #[arg(long, value_name = "TIME", value_parser = latency)]
    pub(super) hsm_latency: Option<Duration>,

    /// Number of concurrent HSM signatures
    #[arg(long, value_name = "N", default_value_t = 32, requires = "hsm_latency",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) hsm_parallel: u32,

    /// The fault-injecting module, if it is not beside this program
    #[arg(long, value_name = "PATH", requires = "hsm_latency")]
    pub(super) hsm_module: Option<PathBuf>,

    /// How many sessions sign, if not as many as the daemon finds best
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) sessions: Option<u32>,

    /// Offer R requests per second at fixed times, whether or not earlier ones are answered (open loop)
    #[arg(long, value_name = "R", conflicts_with = "window",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) rate: Option<u32>,

    /// Write the first 10,000 of the CSRs into this new folder, as PEM, to measure other programs with
    #[arg(long, value_name = "DIR")]
    pub(super) csrs_out: Option<PathBuf>,

    /// Compare with an earlier run, whose --json output this file holds
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum KeyName {
    P256,
    P384,
    Rsa2048,
}

impl KeyName {
    /// As ceremony files name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            KeyName::P256 => "p256",
            KeyName::P384 => "p384",
            KeyName::Rsa2048 => "rsa2048",
        }
    }
}

/// Where a ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LedgerName {
    /// Journal and index on the daemon's machine
    Embedded,
    /// In a PostgreSQL that is started for it
    Shared,
    /// The same, with a synchronous standby
    #[value(name = "shared+standby")]
    SharedStandby,
}

impl LedgerName {
    /// As the option names it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            LedgerName::Embedded => "embedded",
            LedgerName::Shared => "shared",
            LedgerName::SharedStandby => "shared+standby",
        }
    }
}

/// The order that the devices are under.
pub(super) const ORDER: &str = "bench-order";

/// How many identities a few stations share: each enrolment is a process and a login, and the daemon treats a station's
/// second connection as it treats another station's.
const IDENTITIES: u32 = 4;

/// How many connections the daemon lets one identity have.
const CONNECTIONS: u32 = 16;

/// The most requests that the daemon can be told to let one identity have open.
const WINDOW: u32 = 65_536;

impl Options {
    /// How many identities the stations share.
    pub(super) fn identities(&self) -> u32 {
        let connections = CONNECTIONS.min(WINDOW / self.window).max(1);
        self.stations.min(IDENTITIES).max(self.stations.div_ceil(connections))
    }

    /// How many requests one identity has open: those of all the stations that share it.
    pub(super) fn identity_window(&self) -> u32 {
        self.stations.div_ceil(self.identities()) * self.window
    }

    /// How many seconds come before those that are measured.
    pub(super) fn warm_up(&self) -> u64 {
        (self.seconds / 5).clamp(1, 5)
    }
}

/// Reads a latency such as `5ms`.
fn latency(text: &str) -> Result<Duration, String> {
    let latency = text.parse::<jiff::SignedDuration>().ok().and_then(|latency| Duration::try_from(latency).ok());
    match latency {
        Some(latency) if latency <= Duration::from_secs(1) => Ok(latency),
        _ => Err("must be a time from 0 to 1s, such as 5ms or 500us".into()),
    }
}
