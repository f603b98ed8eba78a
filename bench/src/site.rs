//! A site in a folder: `ca/`, `tls/`, `data/`, `birthmark.toml`, and the program that works in it.
#![expect(clippy::disallowed_methods, reason = "the files of a trial site need not survive a crash")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use crate::{
    process::{PACE, PATIENCE, Process},
    program,
};

/// The file in the folder that the daemon reads.
pub const CONFIGURATION: &str = "birthmark.toml";

/// The file in the folder in which a daemon says where it listens, when it is ready.
pub const READY_FILE: &str = "ready.json";

/// The addresses for gRPC and HTTP that the system chooses, since any others may be taken, perhaps by another site.
pub const ANY_ADDRESSES: [&str; 2] = ["127.0.0.1:0", "127.0.0.1:0"];

/// A token that is ready for the ceremony.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its PKCS#11 URI, with module and PIN source, without an object.
    pub uri: String,
    /// The environment variable by which its module finds its own configuration.
    pub variable: &'static str,
    /// That configuration's path below the site's folder.
    pub configuration: &'static str,
}

impl Token {
    /// The URI of the key with this label.
    pub fn key_uri(&self, label: &str) -> String {
        self.uri.replacen('?', &format!(";object={label}?"), 1)
    }

    /// The line of `[environment]` that its module needs.
    pub fn environment(&self) -> String {
        format!("{} = \"{{config_dir}}/{}\"", self.variable, self.configuration)
    }
}

/// How sites differ.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The O of every subject, and the beginning of the CAs' CN.
    pub organisation: &'static str,
    /// The issuer's name in the configuration.
    pub issuer: &'static str,
    /// The root's key type, as ceremony files name it.
    pub root_key: &'static str,
    /// The issuing CA's.
    pub issuing_key: &'static str,
    /// The station CA's and the audit key's.
    pub other_key: &'static str,
    /// Further lines of `[profiles.device]`.
    pub profile: &'static str,
    /// Further sections.
    pub sections: &'static str,
}

/// A folder, and the program in other processes.
#[derive(Debug)]
pub struct Site {
    /// Where everything is.
    pub folder: PathBuf,
    program: PathBuf,
    token: Token,
    plan: Plan,
}

impl Site {
    /// Holds the ceremony, writes the configuration with ephemeral ports, and makes the daemon's TLS identity.
    ///
    /// # Errors
    ///
    /// One of the commands failed; the message says which, and what it said.
    pub fn set_up(folder: PathBuf, program: PathBuf, token: Token, plan: Plan) -> anyhow::Result<Site> {
        let site = Site { folder, program, token, plan };
        site.write("ceremony.toml", &site.ceremony())?;
        site.birthmark(&["ceremony", "ceremony.toml", "--yes"])?;
        site.write(CONFIGURATION, &site.configuration(ANY_ADDRESSES))?;
        let server = ["station", "enroll", "server", "--role", "server", "--out", "tls"];
        site.birthmark(&[&server[..], &["--dns", "localhost", "--ip", "127.0.0.1"]].concat())?;
        Ok(site)
    }

    /// Its token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// A path below the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes the identity of a peer in this folder of the site.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn enroll(&self, role: &str, name: &str, out: &str) -> anyhow::Result<()> {
        // By the daemon of the configuration if it runs, and without one otherwise.
        let arguments = ["station", "enroll", name, "--role", role, "--out", out];
        output(self.command(&arguments), &arguments).map(drop)
    }

    /// The program in another process, in the site's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        program::command(&self.program, &self.folder, arguments)
    }

    /// A command of a local operator: over the daemon's Unix socket.
    pub fn operator(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("BIRTHMARK_SOCKET", self.path("run/admin.sock"));
        command
    }

    /// Runs a local operator's or any other command and gives its standard output.
    ///
    /// # Errors
    ///
    /// The command failed; the message has its standard error.
    pub fn birthmark(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.operator(arguments), arguments)
    }

    /// The same, for a command that prints JSON.
    ///
    /// # Errors
    ///
    /// The command failed, or printed something else.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.birthmark(arguments)?)?)
    }

    /// Starts a daemon, by its command after `change`, and waits until it is ready. The process must stay the daemon's.
    ///
    /// # Errors
    ///
    /// It exited or was not ready in time; the message has its log.
    pub fn start(&self, change: impl FnOnce(Command) -> Command) -> anyhow::Result<Daemon> {
        let ready = self.path(READY_FILE);
        // Of a daemon before.
        let _ = fs::remove_file(&ready);
        let log = fs::File::options().create(true).append(true).open(self.path("daemon.log"))?;
        let command = self.command(&["serve", "--config", CONFIGURATION, "--ready-file", READY_FILE]);
        let mut process = Process::spawn(change(command).stdout(Stdio::null()).stderr(log))
            .context("cannot start the birthmark program")?;
        let deadline = Instant::now() + PATIENCE;
        // Written whole or not at all, when the daemon is ready.
        while !ready.exists() {
            if !process.is_running()? || Instant::now() > deadline {
                bail!("the daemon did not start:\n{}", self.log());
            }
            thread::park_timeout(PACE);
        }
        let addresses: serde_json::Value = serde_json::from_slice(&fs::read(&ready)?)?;
        let address = |name: &str| {
            let address = addresses.get(name).and_then(|address| address.as_str()?.parse::<SocketAddr>().ok());
            address.context("the daemon does not say where it listens")
        };
        Ok(Daemon { process, grpc: address("grpc")?, http: address("http")?, socket: self.path("run/admin.sock") })
    }

    /// What all daemons of this site logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// The head of a ceremony file, before its steps. The ceremony is recorded in this file.
    pub fn ceremony_head(token: &Token, record: &str) -> String {
        format!(
            "[environment]\n{}\n\n[token]\nuri = \"{}\"\n\n[ceremony]\nrecord = \"{record}\"\n\n",
            token.environment(),
            token.uri
        )
    }

    fn ceremony(&self) -> String {
        let head = Site::ceremony_head(&self.token, "ca/ceremony-record.json");
        let Plan { organisation, root_key, issuing_key, other_key, .. } = self.plan;
        format!(
            r#"# hsm-config/ceremony.toml explains the keys.

{head}[[step]]
do = "root"
key = "root"
key_type = "{root_key}"
subject = ["O={organisation}", "CN={organisation} Root CA"]
days = 10950
certificate = "ca/root.pem"

[[step]]
do = "intermediate"
issuer = {{ certificate = "ca/root.pem", key = "root" }}
key = "issuing"
key_type = "{issuing_key}"
subject = ["O={organisation}", "CN={organisation} Issuing CA"]
days = 9000
certificate = "ca/issuer.pem"

[[step]]
do = "station-ca"
key = "station-ca"
key_type = "{other_key}"
subject = ["O={organisation}", "CN={organisation} Station CA"]
days = 3650
certificate = "ca/station-ca.pem"

[[step]]
do = "audit-key"
key = "audit"
key_type = "{other_key}"
public_key = "ca/audit.pem"
"#
        )
    }

    /// The daemon's configuration, with these addresses for gRPC and HTTP.
    pub fn configuration(&self, [grpc, http]: [&str; 2]) -> String {
        let Plan { organisation, issuer, profile, sections, .. } = self.plan;
        format!(
            r#"# hsm-config/birthmark.toml explains the keys.

[environment]
{environment}

[server]
listen = "{grpc}"
certificate = "tls/cert.pem"
key = "tls/key.pem"
client_ca = "ca/station-ca.pem"
socket = "run/admin.sock"

[http]
listen = "{http}"

[ledger]
path = "data"

[audit]
key_uri = "{audit_key}"

[station_ca]
certificate = "ca/station-ca.pem"
key_uri = "{station_key}"

[issuers.{issuer}]
chain = ["ca/issuer.pem", "ca/root.pem"]
key_uri = "{issuing_key}"

[profiles.device]
issuer = "{issuer}"
{profile}subject = ["O={organisation}", "CN={{device_id}}"]
validity_days = 7300
{sections}"#,
            environment = self.token.environment(),
            audit_key = self.token.key_uri("audit"),
            station_key = self.token.key_uri("station-ca"),
            issuing_key = self.token.key_uri("issuing"),
        )
    }
}

/// Runs a command and gives its standard output.
fn output(mut command: Command, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command.output().context("cannot start the birthmark program")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`birthmark {}` failed:\n{errors}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// A daemon's process; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    /// Where stations connect to it.
    pub grpc: SocketAddr,
    /// Where its metrics and its readiness are.
    pub http: SocketAddr,
    /// Where local operators connect to it.
    pub socket: PathBuf,
}

impl Daemon {
    /// As a station, an operator or an auditor addresses it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.grpc.port())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has exited and was waited for.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        self.process.signal(signal)
    }

    /// Stops it with SIGTERM and waits for its exit.
    ///
    /// # Errors
    ///
    /// It did not exit in time.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait().context("the daemon did not exit")
    }
}

/// A path as an argument of a command.
///
/// # Errors
///
/// It is not UTF-8.
pub fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("the path {} is not UTF-8", path.display()))
}
