//! `birthmark demo`: the whole way on this machine, with every part real and in a process of its own.
#![expect(clippy::disallowed_methods, reason = "the files of a demo need not survive a crash")]

mod cluster;
mod factory;
mod stations;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use birthmark_bench::site::{CONFIGURATION, text};

use self::{
    factory::{Demo, Device, ORDER, Verified},
    stations::Fleet,
};
use crate::console::{print, step};

/// The addresses for gRPC and HTTP in the configuration that is kept.
const USUAL_ADDRESSES: [&str; 2] = ["127.0.0.1:7443", "127.0.0.1:7446"];

/// Run a complete demonstration on this machine: SoftHSM token, ceremony, daemon, stations, export
///
/// It makes a SoftHSM token and CA keys in it, starts the daemon, lets stations stream CSRs made on the spot, kills one
/// station half-way and starts it again, verifies every certificate, and exports the order. It needs softhsm2 and
/// bash, and touches nothing outside its folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many devices to make certificates for
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    devices: u32,

    /// How many stations share them: 2, or 4 with --cluster, unless said otherwise
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    stations: Option<u32>,

    /// Two daemons with an HSM each share a ledger in three PostgreSQL, and the primary and one daemon are killed half-way
    ///
    /// It needs Debian's packages postgresql, postgresql-client, patroni and etcd-server too, and takes some two minutes, most of
    /// which the servers take to start and to replace each other.
    #[arg(long, conflicts_with = "keep")]
    cluster: bool,

    /// Keep everything in this new folder: CA, certificates, CSRs, and a configuration for `birthmark serve`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stations = args.stations.unwrap_or(if args.cluster { 4 } else { 2 }).min(args.devices);
    if args.cluster {
        return cluster::run(args.devices, stations);
    }
    let temporary;
    let folder = match &args.keep {
        Some(folder) => new_folder(folder)?,
        None => {
            temporary = tempfile::Builder::new().prefix("birthmark-demo-").tempdir()?;
            temporary.path().to_owned()
        }
    };
    let demo = Demo::set_up(folder, stations)?;
    step(&format!("Making {} P-256 keys and CSRs, as devices would", args.devices));
    let devices = demo.make_csrs(args.devices)?;

    step("Starting the daemon");
    let daemon = demo.site.start(|command| command)?;
    demo.site.birthmark(&["order", "create", ORDER, "--profile", "device", "--quantity", &args.devices.to_string()])?;

    step(&format!("{stations} stations stream their CSRs; one is killed half-way and started again"));
    let streamed = stream_and_kill(&demo, &daemon.url(), &devices)?;

    step("Verifying every certificate against the chain, and against the CSR that it answers");
    let verified = demo.verify(&devices)?;
    let order = demo.site.json(&["order", "show", ORDER, "--json"])?;
    let export = demo.site.folder.join("export");
    demo.site.birthmark(&["export", "create", "aws", "--out", &text(&export)?])?;
    let bundle = text(&export.join("aws.0001"))?;
    demo.site.birthmark(&["export", "verify", &bundle, "--trusted-key", "ca/audit.pem"])?;

    step("Stopping the daemon, and verifying its journal up to the last checkpoint of the HSM");
    let exit = daemon.stop()?;
    ensure!(exit.success(), "the daemon failed with {exit}:\n{}", demo.site.log());
    demo.site.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"])?;
    demo.site.write(CONFIGURATION, &demo.site.configuration(USUAL_ADDRESSES))?;
    account(&demo, &args, &streamed, &verified, &order)?;
    Ok(ExitCode::SUCCESS)
}

fn new_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!occupied, "{} is not empty; choose a new folder", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// What the stations did.
struct Streamed {
    elapsed: Duration,
    /// Certificates that the killed station had before it was killed, and that it was given again without signing.
    before_kill: usize,
    replays: u64,
}

/// Runs all stations at once; kills the first when it has half of its certificates, and starts it again.
fn stream_and_kill(demo: &Demo, server: &str, devices: &[Device]) -> anyhow::Result<Streamed> {
    let half = devices.len().div_ceil(demo.stations as usize) / 2;
    let (mut first_has, mut before_kill) = (0, None);
    let streamed = Fleet::start(demo, &[server], "certs")?.finish(devices.len(), |fleet, station| {
        first_has += usize::from(station == 1);
        if station == 1 && before_kill.is_none() && first_has >= half {
            fleet.kill(1)?;
            before_kill = Some(first_has);
        }
        Ok(())
    })?;
    Ok(Streamed { elapsed: streamed.elapsed, before_kill: before_kill.unwrap_or(first_has), replays: streamed.replays })
}

fn account(
    demo: &Demo,
    args: &Args,
    streamed: &Streamed,
    verified: &Verified,
    order: &serde_json::Value,
) -> anyhow::Result<()> {
    let mut out = String::new();
    let rate = verified.certificates as f64 / streamed.elapsed.as_secs_f64();
    let count = |name: &str| order.get(name).map(ToString::to_string).unwrap_or_default();
    writeln!(out, "\n{} certificates, signed by a key that never left its HSM.\n", verified.certificates)?;
    writeln!(
        out,
        "  streamed   {:.2} s by {} stations: {rate:.0} certificates/s, processes started and killed included",
        streamed.elapsed.as_secs_f64(),
        demo.stations
    )?;
    writeln!(
        out,
        "  killed     station 1 (kill -9) when it had {} of its certificates; started again, it found {}\n             \
         of them on its disk or got them again from the daemon; nothing was signed twice",
        streamed.before_kill, streamed.replays
    )?;
    writeln!(
        out,
        "  verified   {} of {} against root and issuer, key by key, in {:.2} s; every serial number once",
        verified.certificates,
        args.devices,
        verified.elapsed.as_secs_f64()
    )?;
    let (issued, left) = (count("issued"), count("left"));
    writeln!(out, "  order      {ORDER}: quantity {}, issued {issued}, left {left}", args.devices)?;
    writeln!(out, "  exported   for AWS IoT bulk registration, and verified by the audit key")?;
    writeln!(out, "  in all     {:.1} s\n", demo.started.elapsed().as_secs_f64())?;
    match &args.keep {
        Some(folder) => out.push_str(&what_is_kept(folder)),
        None => {
            out.push_str(
                "All of it is gone now. To keep it and go on with it:\n\n  birthmark demo --keep my-factory\n",
            );
        }
    }
    print(&out)
}

fn what_is_kept(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "In {folder}:\n\
         \n  ca/                root.pem, issuer.pem, station-ca.pem and the ceremony's record\
         \n  csrs/ certs/       <device-id>.pem\
         \n  export/aws.0001/   a batch for AWS IoT bulk registration, with its signed manifest\
         \n  birthmark.toml     the daemon's configuration\
         \n  data/              the ledger: the journal is the truth\
         \n  stations/ tls/     identities: key, certificate, CA\n\
         \nTry next:\n\
         \n  cd {folder}\
         \n  birthmark serve --config birthmark.toml &\
         \n  export BIRTHMARK_SOCKET=run/admin.sock\
         \n  birthmark record show demo-0001\
         \n  birthmark journal verify data --trusted-key ca/audit.pem\
         \n  birthmark order create second-order --profile device --quantity 10\
         \n  openssl verify -CAfile ca/root.pem -untrusted ca/issuer.pem certs/demo-0001.pem\n"
    )
}
