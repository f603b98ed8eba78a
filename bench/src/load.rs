//! `birthmark bench`: what a site of this machine achieves, with every part as in production and in a process of its
//! own.

mod baseline;
mod beside_export;
mod calls;
mod devices;
mod fill;
mod floor;
mod ledgers;
mod options;
mod report;
mod stations;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, ensure};
use birthmark_bench::{
    program, shared,
    site::{ANY_ADDRESSES, CONFIGURATION, Daemon, Site, text},
};
use clap::Subcommand;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;
use serde_json::json;

use self::{
    baseline::Baseline,
    ledgers::Shared,
    options::{LedgerName, ORDER, Options},
    report::{Report, Table},
};
use crate::{
    console::{print, print_json, progress, step},
    trial::{self, ISSUER},
};

/// Measure how many certificates a second this machine makes, and where the time goes
///
/// It makes a SoftHSM token and CA keys in it, starts the daemon, and lets stations stream CSRs that were made
/// beforehand: mutual TLS, proof of possession, journal with fsync and the check of each signature as in production.
/// The floor, which is one C_Sign, the proof of possession and the self-check as the daemon makes it, is measured in the
/// same run. It needs softhsm2 and bash. All
/// files are in a temporary folder (TMPDIR), which must be on a disk for the figures to mean anything.
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

/// The window that an identity has unless the configuration says otherwise.
const USUAL_WINDOW: u32 = 256;

/// What the names of the first measurement's devices begin with.
const PREFIX: &str = "bench";

/// What a process has open besides the connections of stations.
const FILES: u32 = 256;

/// More than the floor's rate needs no devices: what the daemon saves of the self-check, stations, TLS and ledger take.
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
    let is_shared = |ledger: &LedgerName| *ledger != LedgerName::Embedded;
    ensure!(
        options.daemons == 1 || options.ledger.iter().all(is_shared),
        "an embedded ledger has one daemon; several need --ledger shared or --ledger shared+standby"
    );
    ensure!(
        options.baseline.is_none() || options.ledger.len() == 1,
        "--baseline compares with one run, and --ledger asks for {}; leave out one of them",
        options.ledger.len()
    );
    // What cannot be read or written is said before minutes of measuring.
    let baseline = options.baseline.as_deref().map(Baseline::read).transpose()?;
    options.csrs_out.as_deref().map(devices::make_folder).transpose()?;
    let [ledger] = options.ledger[..] else {
        let reports =
            options.ledger.iter().map(|ledger| run_with(options, *ledger)).collect::<anyhow::Result<Vec<_>>>()?;
        match options.json {
            true => print_json(&serde_json::to_value(&reports)?)?,
            false => print(&Table(&reports).to_string())?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let report = run_with(options, ledger)?;
    let figures = serde_json::to_value(&report)?;
    let compared = baseline.map(|baseline| baseline.compare(&figures));
    match (options.json, compared) {
        (true, None) => print_json(&figures)?,
        (true, Some(compared)) => print_json(&json!({ "run": figures, "compared": compared }))?,
        (false, None) => print(&report.to_string())?,
        (false, Some(compared)) => print(&format!("{report}\n{compared}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures a site of its own, with this ledger.
fn run_with(options: &Options, ledger: LedgerName) -> anyhow::Result<Report> {
    let fault_module = options.hsm_latency.map(|_| fault_module(options.hsm_module.as_deref())).transpose()?;
    let folder = tempfile::Builder::new().prefix("birthmark-bench-").tempdir()?;
    let site = trial::set_up(folder.path().to_owned(), options.key.as_str())?;
    enroll(&site, options.identities())?;
    let key = configure(&site, options, fault_module.as_deref())?;
    let fdatasync_us = fdatasync_us(&folder.path().join("fdatasync"))?;
    let certificate = options.beside_export.then(|| beside_export::certificate(&site)).transpose()?;
    if options.records > 0 {
        step(&format!("Filling the ledger with {} certificates", options.records));
        fill::fill(&folder.path().join("data"), options.records, certificate)?;
    }

    step("Measuring the floor: C_Sign, and the two verifications");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let before = measure_floor(&site, &key, options, processors)?;

    let shared = Shared::set_up(&site, options, ledger)?;
    step(if options.daemons == 1 { "Starting the daemon" } else { "Starting the daemons" });
    let daemon = site.start(|command| command)?;
    let mut daemons = vec![daemon];
    daemons.extend(
        shared
            .iter()
            .map(|shared| shared.start_others(&site, options.daemons))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten(),
    );
    let quantity = (1_u64 << 40).to_string();
    site.birthmark(&["order", "create", ORDER, "--profile", "device", "--quantity", &quantity])?;
    if daemons.len() > 1 {
        shared::wait_until_followed();
    }
    let devices = devices(options, &before, processors);
    let databases = shared.as_ref().map(Shared::processes).unwrap_or_default();
    let measure =
        |prefix, csrs_out| measure_stations(&site, options, (&daemons, &databases), devices, prefix, csrs_out);
    let stations = measure(PREFIX, options.csrs_out.as_deref())
        .map_err(|error| error.context(format!("the daemon's log:\n{}", site.log())))?;
    let again = |prefix| measure(prefix, None);
    let measure = || beside_export::measure(&site, &stations, || again("bench-again"));
    let beside_export = options.beside_export.then(measure).transpose()?;
    let measure = || calls::measure(&site, &daemons[0], (&stations, PREFIX), || again("bench-calls"));
    let calls = options.calls.then(measure).transpose()?;
    for daemon in daemons {
        let exit = daemon.stop()?;
        ensure!(exit.success(), "the daemon failed with {exit}:\n{}", site.log());
    }
    let caught_up = shared.as_ref().map(|shared| shared.catch_up(&site)).transpose()?;

    step("Measuring the raw rate of C_Sign with the daemon's sessions, and the floor once more");
    let sessions = sessions(&stations);
    let after = measure_floor(&site, &key, options, sessions)?;
    let report = Report::new(options, ledger, &stations, &[before, after], sessions, fdatasync_us);
    Ok(report.with(beside_export, calls, caught_up))
}

/// Makes the identities that the stations share.
fn enroll(site: &Site, identities: u32) -> anyhow::Result<()> {
    let bar = progress(identities.into(), "identities");
    for station in 1..=identities {
        trial::enroll(site, station)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
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
            "this number of stations needs {needed} open files, and the limit is {maximum}; raise the hard limit \
             (ulimit -Hn {needed})"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .context("cannot raise the limit of open files")
}

/// The fault-injecting module: the one that is named, or the one that cargo puts beside this program.
fn fault_module(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    const NAME: &str = "libpkcs11_fault.so";
    let program = std::env::current_exe().context("cannot find the birthmark-bench program")?;
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

/// The issuing key, as the daemon and the floor reach it.
struct IssuingKey {
    uri: String,
    /// What the PKCS#11 modules read.
    environment: Vec<(&'static str, String)>,
}

/// Sets what the options change in the daemon's configuration.
fn configure(site: &Site, options: &Options, fault_module: Option<&Path>) -> anyhow::Result<IssuingKey> {
    let token = site.token();
    let mut key = IssuingKey {
        uri: token.key_uri("issuing"),
        environment: vec![(token.variable, text(&site.path(token.configuration))?)],
    };
    let mut configuration = site.configuration(ANY_ADDRESSES);
    let window = options.identity_window();
    if window > USUAL_WINDOW {
        add(&mut configuration, "server", &format!("window = {window}"));
    }
    if let Some(sessions) = options.sessions {
        add(&mut configuration, &format!("issuers.{ISSUER}"), &format!("sessions = {sessions}"));
    }
    if let (Some(fault), Some(latency)) = (fault_module, options.hsm_latency) {
        let module = token.uri.split_once("module-path=").and_then(|(_, rest)| rest.split_once('&'));
        let (module, _) = module.context("the token's URI names no PKCS#11 module")?;
        let (module, fault) = (module.to_owned(), text(fault)?);
        let script = format!("latency C_Sign {}us\nparallel {}\n", latency.as_micros(), options.hsm_parallel);
        site.write("faults", &script)?;
        let faults = [("PKCS11_FAULT_MODULE", module.clone()), ("PKCS11_FAULT_SCRIPT", text(&site.path("faults"))?)];
        configuration = configuration.replace(&module, &fault);
        key.uri = key.uri.replace(&module, &fault);
        for (name, value) in faults {
            add(&mut configuration, "environment", &format!("{name} = \"{value}\""));
            key.environment.push((name, value));
        }
    }
    site.write(CONFIGURATION, &configuration)?;
    Ok(key)
}

/// Adds a line to a table of the configuration.
fn add(configuration: &mut String, table: &str, line: &str) {
    let head = format!("[{table}]\n");
    *configuration = configuration.replacen(&head, &format!("{head}{line}\n"), 1);
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
    let seconds = (options.warm_up() + options.seconds) as f64;
    let rate = match (options.rate, options.hsm_latency) {
        (Some(rate), _) => f64::from(rate),
        (None, Some(latency)) if !latency.is_zero() => {
            f64::from(options.hsm_parallel * options.daemons) / latency.as_secs_f64()
        }
        (None, _) => processors as f64 * 1e6 / measured.floor.sum() * REACHABLE,
    };
    // In a closed loop all windows are full at the beginning, whatever the rate.
    let open = match options.rate {
        Some(_) => 0,
        None => u64::from(options.stations) * u64::from(options.window),
    };
    (seconds * rate).ceil() as usize + open as usize
}

/// How many sessions the daemons signed with, together: a thread each.
fn sessions(stations: &stations::Measured) -> usize {
    let name = format!("hsm-{ISSUER}");
    stations.groups.iter().find(|group| group.name == name).map_or(1, |group| group.threads)
}

fn measure_floor(site: &Site, key: &IssuingKey, options: &Options, sessions: usize) -> anyhow::Result<floor::Measured> {
    let milliseconds = (options.seconds * 100).clamp(100, 1000);
    let arguments = [
        "floor".to_owned(),
        format!("--key-uri={}", key.uri),
        format!("--sessions={sessions}"),
        format!("--milliseconds={milliseconds}"),
    ];
    part(site, &arguments, &key.environment)
}

fn measure_stations(
    site: &Site,
    options: &Options,
    (daemons, databases): (&[Daemon], &[u32]),
    devices: usize,
    device_prefix: &str,
    csrs_out: Option<&Path>,
) -> anyhow::Result<stations::Measured> {
    let mut arguments = vec![
        "stations".to_owned(),
        format!("--site={}", text(&site.folder)?),
        format!("--stations={}", options.stations),
        format!("--identities={}", options.identities()),
        format!("--window={}", options.window),
        format!("--warm-up={}", options.warm_up()),
        format!("--seconds={}", options.seconds),
        format!("--devices={devices}"),
        format!("--device-prefix={device_prefix}"),
    ];
    arguments.extend(
        daemons.iter().flat_map(|daemon| [format!("--server={}", daemon.url()), format!("--daemon={}", daemon.pid())]),
    );
    arguments.extend(databases.iter().map(|process| format!("--database={process}")));
    arguments.extend(options.rate.map(|rate| format!("--rate={rate}")));
    if let Some(folder) = csrs_out {
        arguments.push(format!("--csrs-out={}", text(&std::path::absolute(folder)?)?));
    }
    part(site, &arguments, &[])
}

/// Runs one of this command's own parts in a process of its own; what it does is told on standard error.
fn part<T: DeserializeOwned>(site: &Site, arguments: &[String], environment: &[(&str, String)]) -> anyhow::Result<T> {
    let program = std::env::current_exe().context("cannot find the birthmark-bench program")?;
    let arguments: Vec<_> = ["bench"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let mut command = program::command(&program, &site.folder, &arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed; what it said stands above");
    Ok(serde_json::from_slice(&output.stdout)?)
}
