//! MiniStack, an emulator of AWS: real registration, real mTLS, real just-in-time registration. What it does is no proof of
//! what AWS does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use aws_sdk_iot::{Client, config::Region};
use birthmark_bench::process::{PACE, PATIENCE, Process};

/// Where its API is.
pub(crate) const API: &str = "http://127.0.0.1:4566";

const REGION: &str = "us-east-1";

/// The account of the usual credentials.
pub(crate) const ACCOUNT: &str = "000000000000";

/// A running emulator.
pub(crate) struct Emulator {
    process: Process,
    folder: PathBuf,
    auth: bool,
    runtime: tokio::runtime::Runtime,
}

/// A program of the tests' Python environment.
fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("BIRTHMARK_AWS_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/aws-tools"));
    let path = tools.join("bin").join(name);
    assert!(path.exists(), "{} is missing; `make aws-test` installs it", path.display());
    path
}

impl Emulator {
    /// Without checking who calls.
    pub(crate) fn start(folder: &Path) -> Emulator {
        Emulator::begin(folder, false)
    }

    /// With signatures, IAM policies and device policies that count.
    pub(crate) fn start_with_authorization(folder: &Path) -> Emulator {
        Emulator::begin(folder, true)
    }

    fn begin(folder: &Path, auth: bool) -> Emulator {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = spawn(folder, auth);
        let emulator = Emulator { process, folder: folder.to_owned(), auth, runtime };
        emulator.wait();
        emulator
    }

    /// Until it serves.
    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let health = || Command::new("curl").args(["-sf", &format!("{API}/_ministack/health")]).output().unwrap();
        while !health().status.success() {
            assert!(Instant::now() < deadline, "the emulator does not start: {}", self.log());
            thread::park_timeout(PACE * 10);
        }
        let ca = Command::new("curl").args(["-sf", &format!("{API}/_ministack/iot/ca.pem")]).output().unwrap();
        fs::write(self.folder.join("broker.pem"), ca.stdout).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("emulator.log")).unwrap_or_default()
    }

    /// `kill -9`: it forgets everything.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Another one in its place, which knows nothing.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.auth);
        self.wait();
    }

    /// The environment of a program that uses it, as this account.
    pub(crate) fn environment(command: &mut Command, account: &str) {
        let key = if account == ACCOUNT { "test" } else { account };
        command
            .env("AWS_ENDPOINT_URL", API)
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_PAGER", "")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_PROFILE");
    }

    /// `aws`, the command line of AWS itself.
    pub(crate) fn aws(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(tool("aws"));
        Emulator::environment(&mut command, ACCOUNT);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).output().unwrap()
    }

    /// The folder of AWS's command line, for PATH.
    pub(crate) fn tools() -> PathBuf {
        tool("aws").parent().unwrap().to_owned()
    }

    /// Lets names stand for this machine, in the mount namespace of the test.
    pub(crate) fn resolve(&self, names: &[&str]) {
        let hosts = self.folder.join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost {}\n", names.join(" "))).unwrap();
        let mounted = Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts").status().unwrap();
        assert!(mounted.success());
    }

    /// The SDK's client, as this account.
    pub(crate) fn client_of(&self, key: &str, secret: &str) -> Client {
        let credentials = aws_sdk_iot::config::Credentials::new(key, secret, None, None, "test");
        let config = aws_sdk_iot::Config::builder()
            .behavior_version(aws_sdk_iot::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(API)
            .credentials_provider(credentials)
            .build();
        Client::from_conf(config)
    }

    pub(crate) fn client(&self) -> Client {
        self.client_of("test", "test")
    }

    pub(crate) fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }

    /// The status of a certificate; none if it is not there.
    pub(crate) fn status(&self, certificate_id: &str) -> Option<String> {
        let answer = self.ask(self.client().describe_certificate().certificate_id(certificate_id).send());
        let described = answer.ok()?.certificate_description?;
        described.status.map(|status| status.as_str().to_owned())
    }

    /// The certificate ids that are attached to a thing.
    pub(crate) fn certificates_of(&self, thing: &str) -> Vec<String> {
        let answer = self.ask(self.client().list_thing_principals().thing_name(thing).send());
        let principals = answer.ok().and_then(|answer| answer.principals).unwrap_or_default();
        principals.iter().filter_map(|arn| Some(arn.rsplit_once('/')?.1.to_owned())).collect()
    }

    /// The policies that are attached to a certificate.
    pub(crate) fn policies_of(&self, certificate_id: &str) -> Vec<String> {
        let arn = format!("arn:aws:iot:{REGION}:{ACCOUNT}:cert/{certificate_id}");
        let answer = self.ask(self.client().list_attached_policies().target(arn).send());
        let policies = answer.ok().and_then(|answer| answer.policies).unwrap_or_default();
        policies.into_iter().filter_map(|policy| policy.policy_name).collect()
    }

    /// Makes the policy of devices, as `birthmark-aws policy` prints it.
    pub(crate) fn make_policy(&self, name: &str, document: &str) {
        self.ask(self.client().create_policy().policy_name(name).policy_document(document).send()).unwrap();
    }
}

fn spawn(folder: &Path, auth: bool) -> Process {
    let log = fs::File::options().create(true).append(true).open(folder.join("emulator.log")).unwrap();
    let mut command = Command::new(tool("ministack"));
    command
        .env("GATEWAY_PORT", "4566")
        .env("BIND_HOST", "127.0.0.1")
        .env("IOT_MTLS_ENABLED", "1")
        .env("IOT_MTLS_PORT", "8883")
        .env("SFTP_ENABLED", "0")
        .env("MINISTACK_ACCOUNT_ID", ACCOUNT)
        .env("MINISTACK_REGION", REGION)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    if auth {
        command.env("AUTH", "true");
    }
    Process::spawn(&mut command).unwrap()
}
