//! `make demo-aws`: a factory on SoftHSM, an emulator of AWS, and devices that connect to it with stock mosquitto, in a
//! network of their own.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "the parts of the tests that it runs on")]

#[path = "../tests/it/emulator.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod emulator;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use birthmark_bench::{
    process::Process,
    program,
    site::{self, Daemon, Plan, Site},
    softhsm,
};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::Value;

use crate::emulator::{ACCOUNT, Emulator};

/// Set in the process that has a network of its own.
const MARK: &str = "BIRTHMARK_AWS_DEMO";

const PLAN: Plan = Plan {
    organisation: "Birthmark Demo",
    issuer: "device",
    root_key: "p384",
    issuing_key: "p256",
    other_key: "p256",
    profile: "device_id = \"aws-thing-name\"\njitp = [\"CommonName\"]\n",
    sections: "",
};

const DESTINATION: &str = "\n[destinations.aws]\nformat = \"aws-bulk\"\npolicy = \"device\"\n";

fn main() -> ExitCode {
    let run = if env::var_os(MARK).is_some() { demo() } else { in_a_network_of_its_own() };
    run.unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

/// The emulator's broker listens on all addresses, so nobody else shall reach it.
fn in_a_network_of_its_own() -> anyhow::Result<ExitCode> {
    let program = env::current_exe()?;
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .status()
        .context("cannot start unshare")?;
    ensure!(status.code().is_some(), "the demo was killed");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(text: &str) {
    eprintln!("· {text}");
}

/// The factory, and where the other programs are.
struct Demo {
    site: Site,
    daemon: Daemon,
    aws: PathBuf,
}

impl Demo {
    fn set_up(folder: &Path, devices: usize) -> anyhow::Result<Demo> {
        let beside = |name: &str| -> anyhow::Result<PathBuf> {
            // Examples are in a folder below the programs.
            let folder = env::current_exe()?.parent().and_then(Path::parent).context("no folder")?.to_owned();
            Ok(folder.join(name))
        };
        step("Factory: a SoftHSM token, the ceremony, the daemon, one station");
        let token = softhsm::make_token(folder)?;
        let site = Site::set_up(folder.to_owned(), beside("birthmark")?, token, PLAN)?;
        site.write(site::CONFIGURATION, &(site.configuration(site::ANY_ADDRESSES) + DESTINATION))?;
        site.enroll("station", "line1/tester1", "line1-tester1")?;
        let daemon = site.start(|command| command)?;
        let quantity = (devices + 2).to_string();
        site.birthmark(&["order", "create", "lot-7", "--profile", "device", "--quantity", &quantity])?;
        Ok(Demo { site, daemon, aws: beside("birthmark-aws")? })
    }

    /// Makes keys, and lets the station have their certificates.
    fn make(&self, ids: &[String]) -> anyhow::Result<()> {
        fs::create_dir_all(self.site.path("csrs"))?;
        for id in ids {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, id.as_str());
            self.site.write(&format!("csrs/{id}.pem"), &params.serialize_request(&key)?.pem()?)?;
            self.site.write(&format!("{id}.key"), &key.serialize_pem())?;
        }
        let url = self.daemon.url();
        let sign = ["station", "sign", "--server", &url, "--identity", "line1-tester1", "--order", "lot-7"];
        let mut command = self
            .site
            .command(&[&sign[..], &["--profile", "device", "--in", "csrs", "--out", "certs", "--chain"]].concat());
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program::command(&self.aws, &self.site.folder, arguments);
        Emulator::environment(&mut command, ACCOUNT);
        command.env("BIRTHMARK_SOCKET", &self.daemon.socket);
        command
    }

    /// Runs `birthmark-aws`.
    fn aws(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output().context("cannot start birthmark-aws")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "birthmark-aws {}: {told}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether the device connects and publishes.
    fn connects(&self, id: &str) -> anyhow::Result<bool> {
        let status = Command::new("timeout")
            .args([
                "20",
                "mosquitto_pub",
                "-h",
                "localhost",
                "-p",
                "8883",
                "--cafile",
                "broker.pem",
                "-i",
                id,
                "-q",
                "1",
            ])
            .args(["--cert", &format!("certs/{id}.pem"), "--key", &format!("{id}.key"), "-m", "21.5"])
            .args(["-t", &format!("devices/{id}/temperature")])
            .current_dir(&self.site.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    /// Tries until it does, or does not.
    fn wait(&self, id: &str, connects: bool) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while self.connects(id)? != connects {
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "{id} still {}",
                if connects { "stays out" } else { "gets in" }
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(begun.elapsed())
    }

    fn activator(&self) -> anyhow::Result<Process> {
        fs::create_dir_all(self.site.path("inbox"))?;
        let log = fs::File::create(self.site.path("activate.log"))?;
        let mut command = self.command(&[
            "activate",
            "--bundles",
            "inbox",
            "--trusted-key",
            "ca/audit.pem",
            "--interval",
            "1s",
            "--listen",
            "",
        ]);
        Ok(Process::spawn(command.stdout(Stdio::null()).stderr(log))?)
    }
}

fn demo() -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let devices = match env::args().nth(1).as_deref() {
        None => 50,
        Some(count) => match count.parse::<usize>() {
            Ok(count @ 2..=10_000) => count,
            _ => bail!("usage: make demo-aws DEMO=DEVICES, 2 to 10000 of them"),
        },
    };
    let temporary = tempfile::Builder::new().prefix("birthmark-demo-aws-").tempdir()?;
    let demo = Demo::set_up(temporary.path(), devices)?;
    let ids: Vec<String> = (1..=devices).map(|number| format!("thermo-{number:04}")).collect();
    step(&format!("Factory: {devices} devices get their certificates"));
    demo.make(&ids)?;

    step("Cloud: an emulator of AWS (MiniStack), empty");
    let emulator = Emulator::start(temporary.path());
    step("Cloud: the device policy; the CA, with the daemon's proof that its key is held");
    emulator.make_policy("device", &demo.aws(&["policy"])?);
    demo.aws(&["register-ca", "--ca", "ca/issuer.pem", "--auto-registration"])?;

    step("Factory to cloud: the bundle aws.0001, signed by the audit key; everything in it is registered");
    demo.site.birthmark(&["export", "create", "aws", "--out", "bundles"])?;
    let registering = Instant::now();
    let register = ["register", "bundles/aws.0001", "--trusted-key", "ca/audit.pem", "--limit", "all=1000", "--json"];
    let said: Value = serde_json::from_str(&demo.aws(&register)?)?;
    let registered = registering.elapsed();
    ensure!(said.pointer("/0/registered") == Some(&devices.into()), "not all were registered: {said}");
    demo.site.birthmark(&["export", "acknowledge", "aws.0001", "--results", "aws.0001.results.jsonl"])?;
    let [first, .., last] = &ids[..] else { bail!("too few devices") };
    ensure!(demo.connects(first)?, "{first} does not connect");

    step("Cloud: the activator; a device that no bundle names yet connects, and is dropped");
    let _activator = demo.activator()?;
    fs::rename(demo.site.path("bundles/aws.0001"), demo.site.path("inbox/aws.0001"))?;
    demo.make(&["early".to_owned()])?;
    ensure!(!demo.connects("early")?, "a device that nobody knows got in");
    step("Factory to cloud: its bundle");
    demo.site.birthmark(&["export", "create", "aws", "--out", "inbox"])?;
    let activated = demo.wait("early", true)?;
    step(&format!("Factory: {last} is scrapped; the next bundle says so"));
    demo.site.birthmark(&["record", "scrap", last, "--reason", "cracked housing"])?;
    demo.site.birthmark(&["export", "create", "aws", "--out", "inbox"])?;
    let revoked = demo.wait(last, false)?;

    let status: Value = serde_json::from_str(&demo.aws(&["status", "--json"])?)?;
    let active = status.pointer("/authorities/0/certificates/ACTIVE").cloned().unwrap_or_default();
    println!(
        "
{devices} devices of a factory whose CA key never left its HSM, known to AWS IoT (an emulator of it).

  CA           registered with a proof of possession that the daemon made: no key, no PIN and no openssl were needed
  registered   {devices} certificates, things and policies in {:.1} s; the first device connected at its first try
  unknown      a device that no bundle named was dropped and left pending; {:.1} s after its bundle it was publishing
  scrapped     {last} was publishing; {:.1} s after the bundle that withdraws it, it was out for good
  now          {active} certificates active, 1 revoked, none that the factory does not know
  in all       {:.1} s

What each step is, with your own account: docs/aws-iot.md",
        registered.as_secs_f64(),
        activated.as_secs_f64(),
        revoked.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
    );
    Ok(ExitCode::SUCCESS)
}
