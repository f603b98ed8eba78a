//! `birthmark demo --cluster`: two daemons, each with an HSM token of its own and the same CA key, whose ledger is in three
//! PostgreSQL; the primary and one daemon are killed half-way.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use birthmark_bench::{
    patroni::{Cluster, Replication},
    port::Port,
    shared::{self, Sharing},
    site::{CONFIGURATION, Daemon, Site},
};

use super::{
    factory::{Demo, Device, ORDER},
    stations::Fleet,
};
use crate::console::{print, step};

/// The daemons' names.
const DAEMONS: [&str; 2] = ["hall-1", "hall-2"];

/// How long the daemons wait for the database, and how long one may be silent before the other gives up what it had reserved.
const TIMES: &str = "patience = \"60s\"\nlease = \"90s\"\n";

/// What the failure did.
struct Failure {
    /// Certificates that were there before it.
    before: usize,
    primary: String,
    next: String,
    /// Until another server took writes.
    replaced: Duration,
}

pub(super) fn run(devices: u32, stations: u32) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    step("Starting etcd and three PostgreSQL under Patroni, whose commits wait for a standby");
    let mut cluster = Cluster::start(Replication::Strict)?;
    let place = cluster.place()?;
    let temporary = tempfile::Builder::new().prefix("birthmark-demo-").tempdir()?;
    let demo = Demo::set_up(temporary.path().to_owned(), stations)?;
    let site = &demo.site;
    step("Copying the token: the second daemon has an HSM of its own with the same CA key");
    let sharing = Sharing { place: &place, copies: 2, lines: TIMES };
    let alone = fs::read_to_string(site.path(CONFIGURATION))?;
    site.write(&configuration(1), &sharing.further(site, &alone, DAEMONS[1])?)?;
    // It is where the stations look for it when it is started again.
    let port = Port::hold()?;
    let fixed = alone.replacen("127.0.0.1:0", &port.address().to_string(), 1);
    site.write(CONFIGURATION, &sharing.first(&fixed, DAEMONS[0])?)?;
    sharing.create(site, &[])?;
    step(&format!("Making {devices} P-256 keys and CSRs, as devices would"));
    let devices = demo.make_csrs(devices)?;

    step("Starting the two daemons");
    let mut one = site.start(|command| command)?;
    let two = shared::start(site, DAEMONS[1])?;
    site.birthmark(&["order", "create", ORDER, "--profile", "device", "--quantity", &devices.len().to_string()])?;
    shared::wait_until_followed();

    step(&format!(
        "{stations} stations stream their CSRs; half-way the primary and the daemon {} are killed",
        DAEMONS[0]
    ));
    let urls = [one.url(), two.url()];
    let servers = [urls[0].as_str(), &urls[1]];
    let (mut done, mut failure) = (0, None);
    let streamed = Fleet::start(&demo, &servers, "certs")?.finish(devices.len(), |_, _| {
        done += 1;
        if failure.is_none() && done >= devices.len() / 2 {
            failure = Some(fail(&mut cluster, site, &mut one, done)?);
        }
        Ok(())
    })?;
    let failure = failure.context("nothing was killed")?;

    step("Asking the daemons for each certificate once more: each station the other way round");
    let servers = [urls[1].as_str(), &urls[0]];
    let again = Fleet::start(&demo, &servers, "certs-again")?.finish(devices.len(), |_, _| Ok(()))?;
    ensure!(again.replays == devices.len() as u64, "something was signed twice");
    let equal = devices.iter().map(|device| same_octets(site, device)).collect::<anyhow::Result<Vec<_>>>()?.len();

    step("Verifying every certificate against the chain, and both daemons' journals");
    let verified = demo.verify(&devices)?;
    let order = site.json(&["order", "show", ORDER, "--json"])?;
    for daemon in [one, two] {
        ensure!(daemon.stop()?.success(), "a daemon failed:\n{}", site.log());
    }
    for folder in ["data", &shared::data(DAEMONS[1])] {
        site.birthmark(&["journal", "verify", folder, "--trusted-key", "ca/audit.pem"])?;
    }
    let count = |name: &str| order.get(name).and_then(serde_json::Value::as_u64);
    ensure!(count("issued") == Some(devices.len() as u64), "the order says {order}");
    let Failure { before, primary, next, replaced } = failure;
    print(&format!(
        "\n{number} certificates, signed by two daemons over one ledger.\n\n  \
         streamed   in {:.1} s by {stations} stations, the failure included; none saw an error\n  \
         killed     the primary {primary} and the daemon {} (kill -9) when {before} certificates were there;\n             \
         {next} took writes after {:.1} s\n  \
         verified   {} of {number} against root and issuer, key by key; every serial number once\n  \
         once more  {equal} of {number} have the same octets when they are asked for again\n  \
         order      {ORDER}: quantity {number}, issued {}, left {}\n  \
         journals   both daemons' copies verify up to the last checkpoint of the HSM\n  \
         in all     {:.1} s\n\nAll of it is gone now. docs/cluster.md says how to set it up.\n",
        streamed.elapsed.as_secs_f64(),
        DAEMONS[0],
        replaced.as_secs_f64(),
        verified.certificates,
        count("issued").unwrap_or_default(),
        count("left").unwrap_or_default(),
        begun.elapsed().as_secs_f64(),
        number = devices.len(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Kills the primary and a daemon, waits for another primary, and starts both again.
fn fail(cluster: &mut Cluster, site: &Site, daemon: &mut Daemon, before: usize) -> anyhow::Result<Failure> {
    let primary = cluster.kill_primary()?;
    let begun = Instant::now();
    daemon.process().kill()?;
    let next = cluster.wait_for_primary()?;
    let replaced = begun.elapsed();
    cluster.start_again(&primary)?;
    *daemon = site.start(|command| command)?;
    Ok(Failure { before, primary, next, replaced })
}

fn same_octets(site: &Site, device: &Device) -> anyhow::Result<()> {
    let read = |folder: &str| fs::read(site.path(folder).join(format!("{}.pem", device.id)));
    ensure!(read("certs")? == read("certs-again")?, "the device {} has two certificates", device.id);
    Ok(())
}

fn configuration(daemon: usize) -> String {
    format!("{}.toml", DAEMONS[daemon])
}
