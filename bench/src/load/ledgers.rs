//! Where the daemons' ledger is: on this machine alone, or in a PostgreSQL that is started for the measurement, with or without a
//! standby.

use std::{fmt, time::Instant};

use anyhow::{Context, ensure};
use birthmark_bench::{
    postgres::{Place, Server},
    shared::{self, Sharing},
    site::{CONFIGURATION, Daemon, Site},
};
use serde::{Deserialize, Serialize};

use super::options::{LedgerName, Options};
use crate::console::step;

/// The name of the daemon that has the site's own token.
const FIRST: &str = "one";

/// A shared ledger: its database, and the site's configuration before it.
pub(super) struct Shared {
    place: Place,
    server: Server,
    standby: Option<Server>,
    /// The site's configuration with a ledger of one machine.
    configuration: String,
}

/// How long a daemon without a copy took to be ready.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct CaughtUp {
    entries: u64,
    /// From the start of its process.
    seconds: f64,
    /// What a daemon took that had its copy.
    with_copy_seconds: f64,
}

impl Shared {
    /// Starts the database, makes the tables and configures the first daemon; what is in the site's data folder is taken over.
    pub(super) fn set_up(site: &Site, options: &Options, ledger: LedgerName) -> anyhow::Result<Option<Shared>> {
        let with_standby = match ledger {
            LedgerName::Embedded => return Ok(None),
            LedgerName::Shared => false,
            LedgerName::SharedStandby => true,
        };
        step(if with_standby { "Starting PostgreSQL and a synchronous standby" } else { "Starting PostgreSQL" });
        let server = Server::start(&[])?;
        let standby = with_standby.then(|| server.standby()).transpose()?;
        let configuration = std::fs::read_to_string(site.path(CONFIGURATION))?;
        let shared = Shared { place: server.place()?, server, standby, configuration };
        let sharing = shared.sharing();
        site.write(CONFIGURATION, &sharing.first(&shared.configuration, FIRST)?)?;
        let from: &[&str] = if options.records > 0 { &["--from", "data"] } else { &[] };
        sharing.create(site, from)?;
        Ok(Some(shared))
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing { place: &self.place, copies: if self.standby.is_some() { 2 } else { 1 }, lines: "" }
    }

    /// Starts the daemons beside the first one.
    pub(super) fn start_others(&self, site: &Site, daemons: u32) -> anyhow::Result<Vec<Daemon>> {
        (2..=daemons).map(|number| self.start(site, &format!("daemon-{number}"))).collect()
    }

    fn start(&self, site: &Site, name: &str) -> anyhow::Result<Daemon> {
        let configuration = self.sharing().further(site, &self.configuration, name)?;
        site.write(&format!("{name}.toml"), &configuration)?;
        shared::start(site, name)
    }

    /// The first processes of the database and of its standby.
    pub(super) fn processes(&self) -> Vec<u32> {
        [Some(&self.server), self.standby.as_ref()].into_iter().flatten().filter_map(Server::pid).collect()
    }

    /// Starts a daemon that has no copy yet, and once more when it has.
    pub(super) fn catch_up(&self, site: &Site) -> anyhow::Result<CaughtUp> {
        step("Starting a daemon that has no copy of the ledger");
        let status = site.json(&["ledger", "status", "--config", CONFIGURATION, "--json"])?;
        let entries = status.get("entries").and_then(serde_json::Value::as_u64).context("the ledger has no entries")?;
        let began = Instant::now();
        let daemon = self.start(site, "late")?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(daemon.stop()?.success(), "the daemon failed:\n{}", site.log());
        let began = Instant::now();
        let daemon = shared::start(site, "late")?;
        let with_copy_seconds = began.elapsed().as_secs_f64();
        ensure!(daemon.stop()?.success(), "the daemon failed:\n{}", site.log());
        Ok(CaughtUp { entries, seconds, with_copy_seconds })
    }
}

impl fmt::Display for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CaughtUp { entries, seconds, with_copy_seconds } = self;
        let reading = (seconds - with_copy_seconds).max(0.001);
        write!(
            f,
            "{entries} entries: a daemon without a copy is ready in {seconds:.1} s, and in {with_copy_seconds:.1} s when it has one: {:.0} entries/s",
            *entries as f64 / reading
        )
    }
}
