//! A whole site on the HSM under test, and daemons that are started and stopped.

use std::{
    fs,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::PathBuf,
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use birthmark::{client::Connection, proto::admin_client::AdminClient};
pub(crate) use birthmark_bench::{
    assertions::{certificate, judge_under, key_of, wait_until},
    port::Port,
    process::{PATIENCE, Process},
};
use birthmark_bench::{
    shared::Sharing,
    site::{self, CONFIGURATION, Plan},
};
use rustix::process::Signal;
use tonic::transport::Channel;

pub(crate) use super::issue::{Answer, IssueStream, csr, csr_of, json_line, request};
use super::token::{Hsm, Token, succeeded, text};

/// A site in a temporary folder: `ca/`, `tls/`, `data/`, `birthmark.toml`.
pub(crate) struct Site {
    pub(crate) token: Token,
    site: site::Site,
    /// For mTLS: daemons that follow are where their stations look for them.
    grpc: Port,
}

impl Site {
    /// Holds the ceremony and writes the usual configuration.
    pub(crate) fn new() -> Site {
        let token = Token::new();
        let key = Hsm::under_test().key_type();
        let plan = Plan {
            organisation: "Acme",
            issuer: "main",
            root_key: key,
            issuing_key: key,
            other_key: key,
            profile: "key_types = [\"p256\", \"p384\", \"p521\", \"ed25519\", \"rsa2048\", \"rsa3072\", \"rsa4096\"]\n",
            sections: "",
        };
        let program = env!("CARGO_BIN_EXE_birthmark").into();
        let site = site::Site::set_up(token.path(""), program, token.as_site_token(), plan).unwrap();
        let site = Site { token, site, grpc: Port::hold().unwrap() };
        site.configure(|usual| usual);
        site
    }

    /// Where the daemon of `birthmark.toml` listens for mTLS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Writes `birthmark.toml`: the usual text after `change`.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let listen = self.address().to_string();
        self.token.write(CONFIGURATION, &change(self.site.configuration([&listen, "127.0.0.1:0"])));
    }

    /// The configuration of a further daemon that shares this one's ledger; its token is made.
    pub(crate) fn further(&self, sharing: &Sharing<'_>, configuration: &str, name: &str) -> String {
        sharing.further(&self.site, configuration, name).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.token.path(name)
    }

    /// Makes the identity of a peer, once, and gives its folder. The role is `station`, `operator` or `auditor`.
    pub(crate) fn identity(&self, role: &str, name: &str) -> PathBuf {
        let folder = format!("identities/{role}-{}", name.replace('/', "-"));
        if !self.path(&folder).exists() {
            self.site.enroll(role, name, &folder).unwrap();
        }
        self.path(&folder)
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) fn start(&self) -> Daemon {
        self.start_as(|command| command)
    }

    /// As [`Site::start`], after a change of the command; the process must stay the daemon's.
    pub(crate) fn start_as(&self, change: impl FnOnce(Command) -> Command) -> Daemon {
        Daemon(self.site.start(change).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// Starts a daemon and kills it so soon that it may not be ready yet.
    pub(crate) fn start_and_kill(&self, after: Duration) {
        // SoftHSM rewrites this file in place at every login, and loses the token if that is cut short.
        let tokens = fs::read_dir(self.path("tokens")).unwrap().map(|token| token.unwrap().path().join("token.object"));
        let tokens: Vec<_> = tokens.map(|path| (fs::read(&path).unwrap(), path)).collect();
        let log = fs::File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let arguments = ["serve", "--config", "birthmark.toml"];
        let mut child = self.token.command(&arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
        for (content, path) in tokens {
            fs::write(path, content).unwrap();
        }
    }

    /// Runs a daemon that must not start, and gives what it said.
    pub(crate) fn refuse_to_start(&self) -> String {
        let run = self.token.birthmark(&["serve", "--config", "birthmark.toml"]);
        let said = text(&run.stderr);
        // Whoever starts daemons must not try a PIN again and again.
        let code = if said.contains(" refused the PIN") { 77 } else { 1 };
        assert_eq!(run.status.code(), Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// What all daemons of this site logged.
    pub(crate) fn log(&self) -> String {
        self.site.log()
    }

    /// Runs an operator's command over the Unix socket.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Output {
        self.site.operator(arguments).output().unwrap()
    }

    /// `station sign` of this station under the profile `device`.
    pub(crate) fn sign(&self, station: &str, order: &str, input: &str, out: &str) -> Command {
        let identity = self.identity("station", station);
        let arguments =
            ["station", "sign", "--order", order, "--profile", "device", "--in", input, "--out", out, "--server"];
        let mut command = self.token.command(&arguments);
        command.arg(format!("https://localhost:{}", self.address().port())).arg("--identity").arg(identity);
        command
    }

    pub(crate) fn create_order(&self, id: &str, quantity: u64) {
        let quantity = quantity.to_string();
        succeeded(&self.operator(&["order", "create", id, "--profile", "device", "--quantity", &quantity]));
    }

    /// An order as `order show --json` tells it.
    pub(crate) fn order(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&succeeded(&self.operator(&["order", "show", id, "--json"]))).unwrap()
    }

    /// A connection over mTLS as a peer of this role.
    pub(crate) async fn connect(&self, daemon: &Daemon, role: &str, name: &str) -> Channel {
        let identity = self.identity(role, name);
        daemon.connect(identity).await
    }

    /// An open Issue stream of a station.
    pub(crate) async fn stream(&self, daemon: &Daemon, station: &str) -> IssueStream {
        IssueStream::open(self.connect(daemon, "station", station).await).await.unwrap()
    }
}

/// A daemon's process; killed when dropped.
pub(crate) struct Daemon(site::Daemon);

impl Deref for Daemon {
    type Target = site::Daemon;

    fn deref(&self) -> &site::Daemon {
        &self.0
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut site::Daemon {
        &mut self.0
    }
}

impl Daemon {
    pub(crate) fn is_running(&mut self) -> bool {
        self.process().is_running().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process().kill().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal).unwrap();
    }

    /// Waits for its exit.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process().wait().unwrap()
    }

    /// Stops it with SIGTERM; it must exit in order.
    pub(crate) fn end(self) {
        let status = self.0.stop().unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) async fn connect(&self, identity: PathBuf) -> Channel {
        let connection = Connection { server: Some(self.url()), identity: Some(identity), socket: None };
        connection.daemon().unwrap().connect().await.unwrap()
    }

    /// As [`Daemon::connect`], but the daemon may be gone.
    pub(crate) async fn try_connect(&self, identity: PathBuf) -> Option<Channel> {
        let connection = Connection { server: Some(self.url()), identity: Some(identity), socket: None };
        tokio::time::timeout(PATIENCE, connection.daemon().unwrap().connect()).await.unwrap().ok()
    }

    /// A connection over the Unix socket.
    pub(crate) async fn connect_locally(&self) -> Channel {
        let connection = Connection { server: None, identity: None, socket: Some(self.socket.clone()) };
        connection.daemon().unwrap().connect().await.unwrap()
    }

    /// As [`Daemon::connect_locally`], but the daemon may be gone.
    pub(crate) async fn try_connect_locally(&self) -> Option<Channel> {
        let connection = Connection { server: None, identity: None, socket: Some(self.socket.clone()) };
        tokio::time::timeout(PATIENCE, connection.daemon().unwrap().connect()).await.unwrap().ok()
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.connect_locally().await)
    }

    /// The status code and body of an HTTP GET.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.http).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The sum of a metric over its labels; `labels` must all stand in the line.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let fits = |line: &&str| {
            line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Runs one of tests/judges on certificates under the site's CA.
#[track_caller]
pub(crate) fn judge(site: &Site, judge: &str, certificates: &[PathBuf]) {
    judge_under(&site.path(""), judge, "ca/issuer.pem", certificates);
}

/// The daemon must refuse to start, in one line that has each of these words.
#[track_caller]
pub(crate) fn must_refuse(site: &Site, says: &[&str]) {
    let said = site.refuse_to_start();
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    let sentence = without_progress(&said);
    assert!(sentence.starts_with("birthmark: ") && !sentence.contains('\n'), "not one sentence: {said}");
}

/// What was said but for the log of what went well before.
pub(crate) fn without_progress(said: &str) -> String {
    // The usual profile takes any device id as the CN, and the first start has no ledger yet: both are warned about.
    let usual = ["proof of possession of a CA", "a new ledger begins"];
    let warned = |line: &str| line.contains("Z  WARN ") && usual.iter().any(|usual| line.contains(usual));
    // What the security log has is on the console as well.
    let noted = |line: &str| line.contains("Z ERROR ") && line.contains("the HSM's token refused the login");
    said.lines()
        .filter(|line| !line.contains("Z  INFO ") && !warned(line) && !noted(line))
        .collect::<Vec<_>>()
        .join("\n")
}
