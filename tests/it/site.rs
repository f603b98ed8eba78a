//! A whole site: token, CA keys, identities, the daemon's configuration, and daemons that are started and ended.

use std::{
    cell::RefCell,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use birthmark::{
    client::Connection,
    proto::{
        IssueReply, IssueRequest, admin_client::AdminClient, issuance_client::IssuanceClient,
        issue_reply::Result as Reply,
    },
};
use der::{Decode, Encode};
use prost::Message;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tonic_types::{RpcStatusExt, pb};

use crate::token::{Hsm, Token, environment, succeeded, text};

/// How long anything may take before a test says that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const CEREMONY: &str = r#"
[[step]]
do = "root"
key = "root"
key_type = "p256"
subject = ["O=Acme", "CN=Acme Root"]
days = 10000
certificate = "ca/root.pem"

[[step]]
do = "intermediate"
issuer = { certificate = "ca/root.pem", key = "root" }
key = "issuing"
key_type = "p256"
subject = ["O=Acme", "CN=Acme Issuing"]
days = 9000
certificate = "ca/issuer.pem"

[[step]]
do = "station-ca"
key = "station-ca"
key_type = "p256"
subject = ["O=Acme", "CN=Acme Station CA"]
days = 3650
certificate = "ca/station-ca.pem"

[[step]]
do = "audit-key"
key = "audit"
key_type = "p256"
public_key = "ca/audit.pem"
"#;

/// A site in a temporary folder: `ca/`, `tls/`, `data/`, `birthmark.toml`.
pub(crate) struct Site {
    pub(crate) token: Token,
    /// The mTLS address, once a daemon had one; later daemons get the same.
    grpc: RefCell<Option<SocketAddr>>,
}

impl Site {
    /// Holds the ceremony and writes the usual configuration, whose ports are ephemeral.
    pub(crate) fn new() -> Site {
        let token = Token::new();
        token
            .write("ceremony.toml", &(token.ceremony_head() + &CEREMONY.replace("p256", Hsm::under_test().key_type())));
        succeeded(&token.birthmark(&["ceremony", "ceremony.toml", "--yes"]));
        let site = Site { token, grpc: RefCell::new(None) };
        site.configure(|configuration| configuration);
        let server = ["station", "enroll", "server", "--role", "server", "--dns", "localhost", "--ip", "127.0.0.1"];
        succeeded(&site.token.birthmark(&[&server[..], &["--out", "tls"]].concat()));
        site
    }

    /// Writes `birthmark.toml`: the usual text after `change`.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let key = |label: &str| self.token.uri(&format!(";object={label}"));
        let listen = self.grpc.borrow().map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let configuration = format!(
            r#"
[environment]
{}

[server]
listen = "{listen}"
certificate = "tls/cert.pem"
key = "tls/key.pem"
client_ca = "ca/station-ca.pem"
socket = "run/admin.sock"

[http]
listen = "127.0.0.1:0"

[ledger]
path = "data"

[audit]
key_uri = "{}"

[station_ca]
certificate = "ca/station-ca.pem"
key_uri = "{}"

[issuers.main]
chain = ["ca/issuer.pem", "ca/root.pem"]
key_uri = "{}"

[profiles.device]
issuer = "main"
key_types = ["p256", "p384", "p521", "ed25519", "rsa2048", "rsa3072", "rsa4096"]
subject = ["O=Acme", "CN={{device_id}}"]
validity_days = 7300
"#,
            environment(),
            key("audit"),
            key("station-ca"),
            key("issuing"),
        );
        self.token.write("birthmark.toml", &change(configuration));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.token.path(name)
    }

    /// Makes the identity of a peer, once, and gives its folder. The role is `station`, `operator` or `auditor`.
    pub(crate) fn identity(&self, role: &str, name: &str) -> PathBuf {
        let folder = format!("identities/{role}-{}", name.replace('/', "-"));
        if !self.path(&folder).exists() {
            succeeded(&self.token.birthmark(&["station", "enroll", name, "--role", role, "--out", &folder]));
        }
        self.path(&folder)
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) fn start(&self) -> Daemon {
        self.start_as(|command| command)
    }

    /// As [`Site::start`], after a change of the command; the process must stay the daemon's.
    pub(crate) fn start_as(&self, change: impl FnOnce(Command) -> Command) -> Daemon {
        let ready = self.path("ready.json");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let arguments = ["serve", "--config", "birthmark.toml", "--ready-file", "ready.json"];
        let mut process = Process::spawn(change(self.token.command(&arguments)).stdout(Stdio::null()).stderr(log));
        wait_until("the daemon is ready", || {
            assert!(process.is_running(), "the daemon ended:\n{}", self.log());
            ready.exists()
        });
        let addresses: serde_json::Value = serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        let daemon =
            Daemon { process, grpc: address("grpc"), http: address("http"), socket: self.path("run/admin.sock") };
        if self.grpc.replace(Some(daemon.grpc)).is_none() {
            // Daemons that follow are where their stations look for them.
            let configuration = fs::read_to_string(self.path("birthmark.toml")).unwrap();
            let fixed = configuration.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", daemon.grpc), 1);
            self.token.write("birthmark.toml", &fixed);
        }
        daemon
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
        assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
        let said = text(&run.stderr);
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// What all daemons of this site logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Runs an operator's command over the Unix socket.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Output {
        self.token.command(arguments).env("BIRTHMARK_SOCKET", self.path("run/admin.sock")).output().unwrap()
    }

    /// `station sign` of this station under the profile `device`; a daemon must have run before.
    pub(crate) fn sign(&self, station: &str, order: &str, input: &str, out: &str) -> Command {
        let identity = self.identity("station", station);
        let address = self.grpc.borrow().expect("where the daemon listens is not known yet");
        let arguments =
            ["station", "sign", "--order", order, "--profile", "device", "--in", input, "--out", out, "--server"];
        let mut command = self.token.command(&arguments);
        command.arg(format!("https://localhost:{}", address.port())).arg("--identity").arg(identity);
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

/// A process; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    /// The parent's ends of its pipes, and all else of it.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("a process ends", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon's process; killed when dropped.
pub(crate) struct Daemon {
    process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    /// As a station, an operator or an auditor addresses it.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.grpc.port())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Ends it with SIGTERM; it must end in order.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
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

/// A station's stream, request by request.
pub(crate) struct IssueStream {
    requests: mpsc::Sender<IssueRequest>,
    replies: Streaming<IssueReply>,
}

impl IssueStream {
    pub(crate) async fn open(channel: Channel) -> Result<IssueStream, Status> {
        let (requests, receiver) = mpsc::channel(1024);
        let replies = IssuanceClient::new(channel).issue(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(IssueStream { requests, replies })
    }

    pub(crate) async fn send(&self, request: IssueRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// As [`IssueStream::send`], but the daemon may be gone.
    pub(crate) async fn try_send(&self, request: IssueRequest) -> Result<(), ()> {
        self.requests.send(request).await.map_err(drop)
    }

    /// The next reply, or the stream's end.
    pub(crate) async fn receive(&mut self) -> Result<Option<IssueReply>, Status> {
        tokio::time::timeout(PATIENCE, self.replies.message()).await.expect("no reply")
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn ask(&mut self, request: IssueRequest) -> Answer {
        let id = request.request_id.clone();
        self.send(request).await;
        let reply = self.receive().await.unwrap().expect("the stream ended");
        assert_eq!(reply.request_id, id);
        Answer::of(reply)
    }

    /// No more requests; the daemon answers what it has and ends the stream.
    pub(crate) async fn finish(self) -> Result<Vec<IssueReply>, Status> {
        let IssueStream { requests, mut replies } = self;
        drop(requests);
        let mut rest = Vec::new();
        while let Some(reply) = tokio::time::timeout(PATIENCE, replies.message()).await.expect("no end")? {
            rest.push(reply);
        }
        Ok(rest)
    }
}

/// A reply: the certificate, or code and reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Issued(birthmark::proto::IssuedCertificate),
    Refused { code: tonic::Code, reason: String, message: String, retry: bool },
}

impl Answer {
    pub(crate) fn of(reply: IssueReply) -> Answer {
        match reply.result.expect("a reply without result") {
            Reply::Issued(issued) => Answer::Issued(issued),
            Reply::Error(status) => Answer::of_status(&status),
        }
    }

    pub(crate) fn of_status(status: &pb::Status) -> Answer {
        let details = status.get_error_details();
        let info = details.error_info().expect("an error without ErrorInfo");
        assert_eq!(info.domain, "birthmark");
        Answer::Refused {
            code: tonic::Code::from(status.code),
            reason: info.reason.clone(),
            message: status.message.clone(),
            retry: details.retry_info().is_some(),
        }
    }

    /// The status that ended a call.
    pub(crate) fn of_call(status: &Status) -> Answer {
        Answer::of_status(&pb::Status::decode(status.details()).unwrap())
    }

    #[track_caller]
    pub(crate) fn issued(self) -> birthmark::proto::IssuedCertificate {
        match self {
            Answer::Issued(issued) => issued,
            Answer::Refused { reason, message, .. } => panic!("{reason}: {message}"),
        }
    }

    #[track_caller]
    pub(crate) fn must_be(&self, expected: tonic::Code, expected_reason: &str) {
        match self {
            Answer::Refused { code, reason, .. } if *code == expected && reason == expected_reason => {}
            other => panic!("{other:?} instead of {expected:?} {expected_reason}"),
        }
    }
}

/// A new P-256 CSR with this CN, DER.
pub(crate) fn csr(name: &str) -> Vec<u8> {
    csr_of(&KeyPair::generate().unwrap(), name)
}

/// A CSR of this key with this CN, DER.
pub(crate) fn csr_of(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A line of JSON lines, as `station sign` reads them.
pub(crate) fn json_line(device: &str, csr: &[u8]) -> String {
    serde_json::json!({ "device_id": device, "csr": BASE64_STANDARD.encode(csr) }).to_string() + "\n"
}

/// The DER certificate in a PEM file.
pub(crate) fn certificate(path: &Path) -> Vec<u8> {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    pem::parse(text).unwrap().into_contents()
}

/// The DER SubjectPublicKeyInfo of a DER certificate.
pub(crate) fn key_of(certificate: &[u8]) -> Vec<u8> {
    let certificate = x509_cert::Certificate::from_der(certificate).unwrap();
    certificate.tbs_certificate().subject_public_key_info().to_der().unwrap()
}

/// A request under the profile `device`; its id is the device's.
pub(crate) fn request(device: &str, order: &str, csr: Vec<u8>) -> IssueRequest {
    IssueRequest {
        request_id: device.chars().take(64).collect(),
        device_id: device.to_owned(),
        order: order.to_owned(),
        profile: "device".to_owned(),
        csr: csr.into(),
        reissue: false,
    }
}

/// Runs one of tests/judges on certificates under the site's CA.
pub(crate) fn judge(site: &Site, judge: &str, certificates: &[PathBuf]) {
    judge_under(&site.path(""), judge, "ca/issuer.pem", certificates);
}

/// The same in another folder with `ca/root.pem`, or under another issuing CA of its root.
pub(crate) fn judge_under(folder: &Path, judge: &str, issuer: &str, certificates: &[PathBuf]) {
    let root = env!("CARGO_MANIFEST_DIR");
    let program = match judge {
        "go" => PathBuf::from(root).join("target/go-judge"),
        script => PathBuf::from(root).join(format!("tests/judges/{script}.sh")),
    };
    let run = Command::new(&program)
        .args([folder.join("ca/root.pem"), folder.join(issuer)])
        .args(certificates)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `make test` builds it", program.display()));
    assert_eq!(succeeded(&run).trim(), format!("{} certificates verified", certificates.len()));
}

/// Looks again and again, at the pace of a process that starts.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
