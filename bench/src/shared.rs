//! Daemons of one site that share a ledger on PostgreSQL: each has a name, a data folder, a socket, and a token of its own with the
//! same keys.
#![expect(clippy::disallowed_methods, reason = "the files of a trial site need not survive a crash")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    postgres::Place,
    site::{CONFIGURATION, Daemon, READY_FILE, Site, Token, text},
};

/// What the configurations of all of them have in common.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// Where their ledger is.
    pub place: &'a Place,
    /// `ledger.copies`.
    pub copies: u8,
    /// Further lines of `[ledger]`.
    pub lines: &'a str,
}

/// A daemon reads what others have written once in this time at least.
const FOLLOWED: Duration = Duration::from_millis(1500);

/// The lines of a site's configuration that make its ledger one on this machine alone.
const EMBEDDED: &str = "[ledger]\npath = \"data\"\n";

impl Sharing<'_> {
    /// The site's configuration for the daemon that has its token, data folder and socket.
    ///
    /// # Errors
    ///
    /// The configuration has no ledger of one machine.
    pub fn first(&self, configuration: &str, name: &str) -> anyhow::Result<String> {
        self.with(configuration, name, "data")
    }

    /// The site's configuration for a further daemon: data folder and socket have its name, and so has its copy of the token, which
    /// is made.
    ///
    /// # Errors
    ///
    /// The configuration has no ledger of one machine, or the token cannot be copied.
    pub fn further(&self, site: &Site, configuration: &str, name: &str) -> anyhow::Result<String> {
        let Token { variable, configuration: file, .. } = *site.token();
        let copy = copy_token(&site.path(file), name)?;
        let own = format!("{variable} = \"{}\"", text(&copy)?);
        let configuration = configuration
            .replace(&format!("{variable} = \"{{config_dir}}/{file}\""), &own)
            .replace("\"run/admin.sock\"", &format!("\"{}\"", socket(name)));
        ensure!(configuration.contains(&own), "the configuration does not say where the token is");
        self.with(&configuration, name, &data(name))
    }

    fn with(&self, configuration: &str, name: &str, data: &str) -> anyhow::Result<String> {
        ensure!(configuration.contains(EMBEDDED), "the configuration has no ledger of one machine");
        let Sharing { place, copies, lines } = self;
        let shared = format!(
            "[ledger]\npath = \"{data}\"\ndatabase = \"{}\"\ndaemon = \"{name}\"\ncopies = {copies}\n{lines}",
            place.daemons
        );
        Ok(configuration.replace(EMBEDDED, &shared))
    }

    /// Makes the tables, by the configuration `birthmark.toml` of the site; `arguments` are further ones of `ledger create`.
    ///
    /// # Errors
    ///
    /// What the command says.
    pub fn create(&self, site: &Site, arguments: &[&str]) -> anyhow::Result<String> {
        let Place { owner, role, .. } = self.place;
        let create = ["ledger", "create", "--config", CONFIGURATION, "--database", owner, "--role", role];
        site.birthmark(&[&create[..], arguments].concat())
    }
}

/// Starts a further daemon of the site, by its configuration `<name>.toml`, and waits until it is ready.
///
/// # Errors
///
/// As [`Site::start`].
pub fn start(site: &Site, name: &str) -> anyhow::Result<Daemon> {
    let configuration = format!("{name}.toml");
    let arguments = ["serve", "--config", &configuration, "--ready-file", READY_FILE];
    let mut daemon = site.start(|_| site.command(&arguments))?;
    daemon.socket = site.path(&socket(name));
    Ok(daemon)
}

/// The data folder of a further daemon, below the site's.
pub fn data(name: &str) -> String {
    format!("data-{name}")
}

/// The socket of a further daemon, below the site's folder.
pub fn socket(name: &str) -> String {
    format!("run-{name}/admin.sock")
}

/// Copies the folder `tokens` beside a module's configuration, and the configuration for it. Gives that file.
fn copy_token(configuration: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = configuration.parent().context("the module's configuration is in no folder")?;
    let (tokens, copy) = (folder.join("tokens"), folder.join(format!("tokens-{name}")));
    let copied = Command::new("cp").arg("-a").arg(&tokens).arg(&copy).status()?;
    ensure!(copied.success(), "the token in {} cannot be copied", tokens.display());
    let read = fs::read_to_string(configuration)?;
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, read.replace("/tokens", &format!("/tokens-{name}")))?;
    Ok(file)
}

/// Waits until each daemon knows what another one has written.
pub fn wait_until_followed() {
    thread::sleep(FOLLOWED);
}
