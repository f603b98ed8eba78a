//! `birthmark bench`: what a site of this machine achieves, with every part as in production and in a process of its own.
#![allow(clippy::disallowed_methods, reason = "the files of a measurement need not survive a crash")]

mod devices;
mod fill;
mod floor;
mod process;
mod report;
mod stations;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Subcommand;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;

use self::report::Report;
use super::{
    print, print_json,
    site::{CONFIGURATION, ISSUER, Site, step, text},
};

/// Measure how many certificates a second this machine makes, and where the time goes
///
/// It makes a SoftHSM token and CA keys in it, starts the daemon, and lets stations stream CSRs that were made beforehand:
/// mutual TLS, proof of possession, journal with fsync and the check of each signature as in production. The floor, which
/// is one C_Sign and two verifications, is measured in the same run. It needs softhsm2 and bash. All files are in a
/// temporary folder (TMPDIR), which must be on a disk for the figures to mean anything.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,

    #[command(flatten)]
    options: Options,
}

/// What runs in processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Stations(stations::Args),
    #[command(hide = true)]
    Floor(floor::Args),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// How many stations are connected
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    stations: u32,

    /// How many requests each station has open
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,

    /// How many seconds are measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// The issuing CA's key
    #[arg(long, value_enum, default_value_t = KeyName::P256)]
    key: KeyName,

    /// Fill the ledger with this number of certificates first
    #[arg(long, value_name = "N", default_value_t = 0)]
    records: u64,

    /// The time that each C_Sign takes at least, such as 5ms; needs the fault-injecting module
    #[arg(long, value_name = "TIME", value_parser = latency)]
    hsm_latency: Option<Duration>,

    /// Number of concurrent HSM signatures
    #[arg(long, value_name = "N", default_value_t = 32, requires = "hsm_latency",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    hsm_parallel: u32,

    /// The fault-injecting module, if it is not beside this program
    #[arg(long, value_name = "PATH", requires = "hsm_latency")]
    hsm_module: Option<PathBuf>,

    /// How many sessions sign, if not as many as the daemon finds best
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    sessions: Option<u32>,

    /// Offer R requests per second at fixed times, whether or not earlier ones are answered (open loop)
    #[arg(long, value_name = "R", conflicts_with = "window", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    /// Write the first 10,000 of the CSRs into this new folder, as PEM, to measure other programs with
    #[arg(long, value_name = "DIR")]
    csrs_out: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KeyName {
    P256,
    P384,
    Rsa2048,
}

impl KeyName {
    /// As ceremony files name it.
    fn as_str(self) -> &'static str {
        match self {
            KeyName::P256 => "p256",
            KeyName::P384 => "p384",
            KeyName::Rsa2048 => "rsa2048",
        }
    }
}

const ORDER: &str = "bench-order";

/// How many identities the stations share: each enrolment is a process and a login, and the daemon treats a station's
/// second connection as it treats another station's.
const IDENTITIES: u32 = 4;

/// The window that a stream has unless the configuration says otherwise.
const USUAL_WINDOW: u32 = 256;

/// What a process has open besides the connections of stations.
const FILES: u32 = 256;

/// More than the floor's rate needs no devices: what the daemon saves of the own check, stations, TLS and ledger take.
const REACHABLE: f64 = 1.0;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.part {
        Some(Part::Stations(args)) => stations::run(args),
        Some(Part::Floor(args)) => floor::run(&args),
        None => bench(&args.options),
    }
}

fn bench(options: &Options) -> anyhow::Result<ExitCode> {
    allow_open_files(options.stations + FILES)?;
    let fault_module = options.hsm_latency.map(|_| fault_module(options.hsm_module.as_deref())).transpose()?;
    let folder = tempfile::Builder::new().prefix("birthmark-bench-").tempdir()?;
    let mut site = Site::set_up(folder.path().to_owned(), options.key.as_str())?;
    (1..=IDENTITIES.min(options.stations)).try_for_each(|station| site.enroll(station))?;
    configure(&site, options, fault_module.as_deref())?;
    let fdatasync_us = fdatasync_us(&folder.path().join("probe"))?;
    if options.records > 0 {
        step(&format!("Filling the ledger with {} certificates", options.records));
        fill::fill(&folder.path().join("data"), options.records)?;
    }

    step("Measuring the floor: C_Sign, and the two verifications");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let before: floor::Measured = measure_floor(&site, options, processors)?;

    step("Starting the daemon");
    let mut daemon = site.start_daemon()?;
    let quantity = (1_u64 << 40).to_string();
    site.birthmark(&["order", "create", ORDER, "--profile", "device", "--quantity", &quantity])?;
    let devices = devices(options, &before, processors);
    let stations: stations::Measured = measure_stations(&site, options, daemon.pid(), devices)
        .map_err(|error| error.context(format!("the daemon's log:\n{}", daemon.log())))?;
    daemon.end()?;

    step("Measuring the raw rate of C_Sign with the daemon's sessions, and the floor once more");
    let sessions = sessions(&stations);
    let after: floor::Measured = measure_floor(&site, options, sessions)?;
    let report = Report::new(options, &stations, &[before, after], sessions, fdatasync_us);
    if options.json {
        print_json(&serde_json::to_value(&report)?)?
    } else {
        print(&report.to_string())?
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a latency such as `5ms`.
fn latency(text: &str) -> Result<Duration, String> {
    let latency = text.parse::<jiff::SignedDuration>().ok().and_then(|latency| Duration::try_from(latency).ok());
    match latency {
        Some(latency) if latency <= Duration::from_secs(1) => Ok(latency),
        _ => Err("must be a time from 0 to 1s, such as 5ms or 500us".into()),
    }
}

/// Connections are open files, of this program's processes and of the daemon, which inherit the limit.
fn allow_open_files(needed: u32) -> anyhow::Result<()> {
    let needed = u64::from(needed);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = maximum {
        ensure!(
            maximum >= needed,
            "this number of stations needs {needed} open files, and the limit is {maximum}; raise the hard limit (ulimit -Hn {needed})"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .context("cannot raise the limit of open files")
}

/// The fault-injecting module: the one that is named, or the one that cargo puts beside this program.
fn fault_module(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    const NAME: &str = "libpkcs11_fault.so";
    let program = std::env::current_exe().context("cannot find the birthmark program")?;
    let candidates = match named {
        Some(path) => vec![path.to_owned()],
        None => vec![program.with_file_name(NAME), program.with_file_name("deps").join(NAME)],
    };
    let found = candidates.iter().find(|path| path.exists());
    let found = found.with_context(|| {
        let release =
            if program.parent().is_some_and(|folder| folder.ends_with("release")) { " --release" } else { "" };
        format!(
            "--hsm-latency needs the fault-injecting module, and there is no {}; build it with \
             `cargo build{release} --package pkcs11-fault`, or name it with --hsm-module",
            candidates[0].display()
        )
    })?;
    found.canonicalize().with_context(|| format!("cannot find {}", found.display()))
}

/// Sets what the options change in the daemon's configuration.
fn configure(site: &Site, options: &Options, fault_module: Option<&Path>) -> anyhow::Result<()> {
    let mut configuration = fs::read_to_string(site.folder.join(CONFIGURATION))?;
    let mut add = |table: &str, line: String| {
        let head = format!("[{table}]\n");
        configuration = configuration.replacen(&head, &format!("{head}{line}\n"), 1);
    };
    if options.window > USUAL_WINDOW {
        add("server", format!("window = {}", options.window));
    }
    if let Some(sessions) = options.sessions {
        add(&format!("issuers.{ISSUER}"), format!("sessions = {sessions}"));
    }
    if let (Some(fault), Some(latency)) = (fault_module, options.hsm_latency) {
        let module = |text: &str| Some(text.split_once("module-path=")?.1.split_once('&')?.0.to_owned());
        let module = module(&configuration).context("the configuration names no PKCS#11 module")?;
        configuration = configuration.replace(&module, &text(fault)?);
        let head = "[environment]\n";
        let environment =
            format!("{head}PKCS11_FAULT_MODULE = \"{module}\"\nPKCS11_FAULT_SCRIPT = \"{{config_dir}}/faults\"\n");
        configuration = configuration.replacen(head, &environment, 1);
        let script = format!("latency C_Sign {}us\nparallel {}\n", latency.as_micros(), options.hsm_parallel);
        site.write("faults", &script)?;
    }
    site.write(CONFIGURATION, &configuration)
}

/// What one sync of an appended file costs here: the median of some. On a file system in memory it is nothing, and so
/// is what the figures of the daemon say.
fn fdatasync_us(path: &Path) -> anyhow::Result<f64> {
    const SYNCS: usize = 51;
    let mut file = fs::File::create(path)?;
    let mut took = (0..SYNCS)
        .map(|_| {
            std::io::Write::write_all(&mut file, &[0; 4096])?;
            let began = Instant::now();
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    took.sort();
    Ok(took[SYNCS / 2].as_secs_f64() * 1e6)
}

/// How many devices the stations may need.
fn devices(options: &Options, measured: &floor::Measured, processors: usize) -> usize {
    let seconds = (warm_up(options) + options.seconds) as f64;
    let rate = match (options.rate, options.hsm_latency) {
        (Some(rate), _) => f64::from(rate),
        (None, Some(latency)) if !latency.is_zero() => f64::from(options.hsm_parallel) / latency.as_secs_f64(),
        (None, _) => processors as f64 * 1e6 / measured.floor.sum() * REACHABLE,
    };
    (seconds * rate).ceil() as usize
}

fn warm_up(options: &Options) -> u64 {
    (options.seconds / 5).clamp(1, 5)
}

/// How many sessions the daemon signed with: a thread each.
fn sessions(stations: &stations::Measured) -> usize {
    let name = format!("hsm-{ISSUER}");
    stations.groups.iter().find(|group| group.name == name).map_or(1, |group| group.threads)
}

fn measure_floor(site: &Site, options: &Options, sessions: usize) -> anyhow::Result<floor::Measured> {
    let milliseconds = (options.seconds * 100).clamp(100, 1000).to_string();
    part(
        site,
        &["floor", "--config", CONFIGURATION, "--sessions", &sessions.to_string(), "--milliseconds", &milliseconds],
    )
}

fn measure_stations(site: &Site, options: &Options, daemon: u32, devices: usize) -> anyhow::Result<stations::Measured> {
    let mut arguments = vec!["stations".to_owned()];
    let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    add("server", site.server.clone());
    add("daemon", daemon.to_string());
    add("site", text(&site.folder)?);
    add("stations", options.stations.to_string());
    add("window", options.window.to_string());
    add("warm-up", warm_up(options).to_string());
    add("seconds", options.seconds.to_string());
    add("devices", devices.to_string());
    if let Some(rate) = options.rate {
        add("rate", rate.to_string());
    }
    if let Some(folder) = &options.csrs_out {
        add("csrs-out", text(&std::path::absolute(folder)?)?);
    }
    part(site, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs one of this command's own parts; what it does is told on standard error.
fn part<T: DeserializeOwned>(site: &Site, arguments: &[&str]) -> anyhow::Result<T> {
    let mut command = site.command(&[&["bench"], arguments].concat());
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed; what it said stands above");
    Ok(serde_json::from_slice(&output.stdout)?)
}
