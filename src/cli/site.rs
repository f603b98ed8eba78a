//! A whole site on this machine, in one folder: SoftHSM token, CA keys and certificates, the daemon's configuration and
//! identities. What `birthmark demo` shows and `birthmark bench` measures.
#![allow(clippy::disallowed_methods, reason = "the files of a trial site need not survive a crash")]

use std::{
    fs,
    io::{IsTerminal, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};

/// The issuer's name in the configuration.
pub(crate) const ISSUER: &str = "demo";

/// The file in the folder that the daemon reads.
pub(crate) const CONFIGURATION: &str = "birthmark.toml";

/// How long the daemon may take to be ready or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The ports for gRPC and HTTP in the configuration that is kept.
pub(crate) const USUAL_PORTS: [u16; 2] = [7443, 9464];

/// Those of a trial: whichever the system gives, as the usual ones may be taken, perhaps by another trial.
const ANY_PORTS: [u16; 2] = [0, 0];

/// A folder, and this program in other processes.
pub(crate) struct Site {
    /// Where everything is.
    pub(crate) folder: PathBuf,
    program: PathBuf,
    /// The token's.
    uri: String,
    /// The daemon's address.
    pub(crate) server: String,
}

impl Site {
    /// Token, CA keys and certificates, configuration, and the daemon's own identity. The issuing CA's key is of the type
    /// `issuing_key`, as ceremony files name it.
    pub(crate) fn set_up(folder: PathBuf, issuing_key: &str) -> anyhow::Result<Site> {
        step("Making a SoftHSM token with PINs of its own");
        let uri = make_token(&folder.join("hsm"))?;
        let program = std::env::current_exe().context("cannot find the birthmark program")?;
        let site = Site { folder, program, uri, server: String::new() };
        let issuing = match issuing_key {
            "p256" => "P-256",
            "p384" => "P-384",
            other => other,
        };
        step(&format!(
            "Holding the ceremony: root CA (P-384), issuing CA ({issuing}), station CA and audit key, keys in the token"
        ));
        site.write("ceremony.toml", &ceremony(&site.uri, issuing_key))?;
        site.birthmark(&["ceremony", "ceremony.toml", "--yes"])?;
        site.configure(ANY_PORTS)?;
        let names = ["--dns", "localhost", "--ip", "127.0.0.1"];
        site.birthmark(&[&["station", "enroll", "server", "--role", "server", "--out", "tls"], &names[..]].concat())?;
        Ok(site)
    }

    /// Writes the daemon's configuration, with these ports for gRPC and HTTP.
    pub(crate) fn configure(&self, ports: [u16; 2]) -> anyhow::Result<()> {
        self.write(CONFIGURATION, &configuration(&self.uri, ports))
    }

    /// Makes the identity of the station `line1/<station>`.
    pub(crate) fn enroll(&self, station: u32) -> anyhow::Result<()> {
        let (name, folder) = (format!("line1/{station}"), station_folder(station));
        self.birthmark(&["station", "enroll", &name, "--out", &folder]).map(drop)
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start_daemon(&mut self) -> anyhow::Result<Daemon> {
        let ready = self.folder.join("run/ready.json");
        fs::create_dir_all(self.folder.join("run"))?;
        let log = fs::File::create(self.folder.join("run/daemon.log"))?;
        let mut command = self.command(&["serve", "--config", CONFIGURATION, "--ready-file", "run/ready.json"]);
        let child = command.stderr(log).spawn().context("cannot start the daemon")?;
        let mut daemon = Daemon { child, log: self.folder.join("run/daemon.log") };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Written whole or not at all, when the daemon is ready.
            if ready.exists() {
                let addresses: serde_json::Value = serde_json::from_slice(&fs::read(&ready)?)?;
                let address = addresses.get("grpc").and_then(|address| address.as_str()?.parse::<SocketAddr>().ok());
                let port = address.context("the daemon does not say where it listens")?.port();
                self.server = format!("https://localhost:{port}");
                return Ok(daemon);
            }
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the daemon did not start:\n{}", daemon.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// This program in another process, in the site's folder, with its standard input closed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("SOFTHSM2_CONF", self.folder.join("hsm/softhsm2.conf"))
            .env("BIRTHMARK_SOCKET", self.folder.join("run/admin.sock"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and gives its standard output.
    pub(crate) fn birthmark(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output()?;
        let command = arguments.join(" ");
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`birthmark {command}` failed:\n{errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same, for a command that prints JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.birthmark(arguments)?)?)
    }

    /// Writes a file of the folder.
    pub(crate) fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Tells on standard error what is done now.
pub(crate) fn step(text: &str) {
    eprintln!("· {text}");
}

/// A path as an argument of a command.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("the path {} is not UTF-8", path.display()))
}

/// Where a station's identity is.
pub(crate) fn station_folder(station: u32) -> String {
    format!("stations/line1-{station}")
}

/// Runs the set-up script that newcomers use, and gives the token's URI.
fn make_token(folder: &Path) -> anyhow::Result<String> {
    const SET_UP: &str = include_str!("../../hsm-config/softhsm/setup.sh");
    let mut child = Command::new("bash")
        .args(["-s", "--", &text(folder)?, "birthmark"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start bash")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(SET_UP.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let told = String::from_utf8(output.stdout)?;
    let uri = told.split_whitespace().find(|word| word.starts_with("pkcs11:"));
    Ok(uri.context("the set-up script did not tell the token's URI")?.to_owned())
}

fn ceremony(uri: &str, issuing_key: &str) -> String {
    format!(
        r#"# The demo's ceremony. hsm-config/ceremony.toml explains the keys.

[environment]
SOFTHSM2_CONF = "{{config_dir}}/hsm/softhsm2.conf"

[token]
uri = "{uri}"

[ceremony]
record = "ca/ceremony-record.json"

[[step]]
do = "root"
key = "device-root"
key_type = "p384"
subject = ["O=Birthmark Demo", "CN=Birthmark Demo Root CA"]
days = 10950
certificate = "ca/root.pem"

[[step]]
do = "intermediate"
issuer = {{ certificate = "ca/root.pem", key = "device-root" }}
key = "issuing-ca"
key_type = "{issuing_key}"
subject = ["O=Birthmark Demo", "CN=Birthmark Demo Issuing CA"]
days = 9125
certificate = "ca/issuer.pem"

[[step]]
do = "station-ca"
key = "station-ca"
key_type = "p256"
subject = ["O=Birthmark Demo", "CN=Birthmark Demo Station CA"]
days = 3650
certificate = "ca/station-ca.pem"

[[step]]
do = "audit-key"
key = "audit"
key_type = "p256"
public_key = "ca/audit.pem"
"#
    )
}

fn configuration(uri: &str, [port, http_port]: [u16; 2]) -> String {
    let key = |label: &str| uri.replacen('?', &format!(";object={label}?"), 1);
    let (issuing_key, station_key, audit_key) = (key("issuing-ca"), key("station-ca"), key("audit"));
    format!(
        r#"# The demo's daemon. hsm-config/birthmark.toml explains the keys.

[environment]
SOFTHSM2_CONF = "{{config_dir}}/hsm/softhsm2.conf"

[server]
listen = "127.0.0.1:{port}"
certificate = "tls/cert.pem"
key = "tls/key.pem"
client_ca = "ca/station-ca.pem"
socket = "run/admin.sock"

[http]
listen = "127.0.0.1:{http_port}"

[ledger]
path = "data"

[audit]
key_uri = "{audit_key}"

[station_ca]
certificate = "ca/station-ca.pem"
key_uri = "{station_key}"

[issuers.{ISSUER}]
chain = ["ca/issuer.pem", "ca/root.pem"]
key_uri = "{issuing_key}"

[profiles.device]
issuer = "{ISSUER}"
subject = ["O=Birthmark Demo", "CN={{device_id}}"]
validity_days = 7300
"#
    )
}

/// A bar on the terminal, if standard error is one, that counts `what` up to `length`.
pub(crate) fn progress(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("  {{bar:40}} {{pos}}/{{len}} {what}  {{per_sec}}"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The daemon's process; ended with the trial, whatever happens.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end and checks that it does so in order.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the daemon ended with {status}:\n{}", self.log()),
                None if Instant::now() > deadline => bail!("the daemon did not end:\n{}", self.log()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, or the trial failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
