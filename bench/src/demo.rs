//! `birthmark demo`: the whole way on this machine, with every part real and in a process of its own.
#![expect(clippy::disallowed_methods, reason = "the files of a demo need not survive a crash")]

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use birthmark::csr::{self, RefusedKeys};
use birthmark_bench::{
    process::{PATIENCE, Process},
    site::{CONFIGURATION, Site, text},
};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::{
    console::{print, progress, step},
    trial::{self, station_folder},
};

/// The addresses for gRPC and HTTP in the configuration that is kept.
const USUAL_ADDRESSES: [&str; 2] = ["127.0.0.1:7443", "127.0.0.1:9464"];

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

    /// How many stations share them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    stations: u32,

    /// Keep everything in this new folder: CA, certificates, CSRs, and a configuration for `birthmark serve`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stations = args.stations.min(args.devices);
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
    let streamed = demo.stream(&daemon.url(), &devices)?;

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

const ORDER: &str = "demo-order";

fn new_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!occupied, "{} is not empty; choose a new folder", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// What the demo works with.
struct Demo {
    site: Site,
    stations: u32,
    started: Instant,
}

/// A device's id and the PEM of its CSR.
struct Device {
    id: String,
    csr: String,
}

/// What the stations did.
struct Streamed {
    elapsed: Duration,
    /// Certificates that the killed station had before it was killed, and that it was given again without signing.
    before_kill: usize,
    replays: u64,
}

struct Verified {
    certificates: usize,
    elapsed: Duration,
}

impl Demo {
    /// Token, CA keys and certificates, identities, configuration.
    fn set_up(folder: PathBuf, stations: u32) -> anyhow::Result<Demo> {
        let started = Instant::now();
        let site = trial::set_up(folder, "p256")?;
        (1..=stations).try_for_each(|station| trial::enroll(&site, station))?;
        Ok(Demo { site, stations, started })
    }

    fn make_csrs(&self, devices: u32) -> anyhow::Result<Vec<Device>> {
        let folder = self.site.folder.join("csrs");
        fs::create_dir_all(&folder)?;
        let width = devices.to_string().len().max(4);
        let devices = (1..=devices)
            .map(|number| {
                let id = format!("demo-{number:0width$}");
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                let mut params = CertificateParams::default();
                params.distinguished_name.push(DnType::CommonName, id.as_str());
                let csr = params.serialize_request(&key)?.pem()?;
                fs::write(folder.join(format!("{id}.pem")), &csr)?;
                Ok(Device { id, csr })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        for station in 1..=self.stations {
            let lines = devices
                .iter()
                .skip(station as usize - 1)
                .step_by(self.stations as usize)
                .map(|device| serde_json::json!({ "device_id": device.id, "csr": device.csr }).to_string() + "\n");
            self.site.write(&format!("{}/devices.jsonl", station_folder(station)), &lines.collect::<String>())?;
        }
        Ok(devices)
    }

    /// Runs all stations at once; kills the first when it has half of its certificates, and starts it again.
    fn stream(&self, server: &str, devices: &[Device]) -> anyhow::Result<Streamed> {
        let started = Instant::now();
        let bar = progress(devices.len() as u64, "certificates");
        let (reports, received) = mpsc::channel();
        let mut stations = (1..=self.stations)
            .map(|station| Station::start(self, server, station, &reports))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let half = devices.len().div_ceil(self.stations as usize) / 2;
        let mut done = HashSet::new();
        let mut first_has = 0;
        let mut before_kill = None;
        let mut replays = 0;
        let mut running = stations.len();
        while running > 0 {
            match received.recv_timeout(PATIENCE).context("the stations are stuck")? {
                Report::Device { station, id, replay } => {
                    replays += u64::from(replay);
                    if done.insert(id) {
                        bar.inc(1);
                    }
                    first_has += usize::from(station == 1);
                    if station == 1 && before_kill.is_none() && first_has >= half {
                        stations[0].process.kill().context("cannot kill the station")?;
                        before_kill = Some(first_has);
                    }
                }
                Report::Refused { id, reason } => bail!("the device {id} was refused: {reason}"),
                Report::Exited { station } => {
                    let exit = stations[station as usize - 1].process.wait()?;
                    if station == 1 && before_kill.is_some() && exit.code().is_none() {
                        stations[0] = Station::start(self, server, 1, &reports)?;
                    } else if exit.success() {
                        running -= 1;
                    } else {
                        bail!("station {station} failed with {exit}");
                    }
                }
            }
        }
        bar.finish_and_clear();
        Ok(Streamed { elapsed: started.elapsed(), before_kill: before_kill.unwrap_or(first_has), replays })
    }

    /// Verifies each certificate as a TLS server would, and that it has the key of its CSR and a serial of its own.
    fn verify(&self, devices: &[Device]) -> anyhow::Result<Verified> {
        let started = Instant::now();
        let read = |path: PathBuf| {
            CertificateDer::from_pem_file(&path).with_context(|| format!("no certificate in {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        roots.add(read(self.site.folder.join("ca/root.pem"))?)?;
        let issuer = read(self.site.folder.join("ca/issuer.pem"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        let mut serials = HashSet::new();
        for device in devices {
            let certificate = read(self.site.folder.join("certs").join(format!("{}.pem", device.id)))?;
            verifier
                .verify_client_cert(&certificate, std::slice::from_ref(&issuer), UnixTime::now())
                .with_context(|| format!("the certificate of {} does not verify", device.id))?;
            let parsed = <x509_cert::Certificate as der::Decode>::from_der(&certificate)?;
            let tbs = parsed.tbs_certificate();
            let key = der::Encode::to_der(tbs.subject_public_key_info())?;
            let csr = csr::verify(device.csr.as_bytes(), &RefusedKeys::default())?;
            ensure!(key == csr.public_key().spki, "the certificate of {} has another key than its CSR", device.id);
            ensure!(serials.insert(tbs.serial_number().as_bytes().to_vec()), "a serial number was used twice");
        }
        Ok(Verified { certificates: serials.len(), elapsed: started.elapsed() })
    }
}

/// What a station's process reports.
enum Report {
    Device { station: u32, id: String, replay: bool },
    Refused { id: String, reason: String },
    Exited { station: u32 },
}

/// A station's process.
struct Station {
    process: Process,
}

impl Station {
    fn start(demo: &Demo, server: &str, station: u32, reports: &mpsc::Sender<Report>) -> anyhow::Result<Station> {
        let folder = station_folder(station);
        let input = format!("{folder}/devices.jsonl");
        let log = fs::File::create(demo.site.folder.join(&folder).join("station.log"))?;
        let mut command = demo.site.command(&["station", "sign", "--order", ORDER, "--profile", "device", "--json"]);
        command.args(["--server", server, "--identity", &folder, "--in", &input, "--out", "certs"]);
        let mut process =
            Process::spawn(command.stdout(Stdio::piped()).stderr(log)).context("cannot start a station")?;
        let output = process.child().stdout.take().context("the station has no output")?;
        let reports = reports.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(report) = report(station, &line) {
                    let _ = reports.send(report);
                }
            }
            let _ = reports.send(Report::Exited { station });
        });
        Ok(Station { process })
    }
}

fn report(station: u32, line: &str) -> Option<Report> {
    let line: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let id = line.get("device_id")?.as_str()?.to_owned();
    Some(match field("status").as_str() {
        "refused" => Report::Refused { id, reason: format!("{}: {}", field("reason"), field("message")) },
        "issued" => Report::Device { station, id, replay: false },
        // On disk since before the station was killed, or a replay by the daemon.
        _ => Report::Device { station, id, replay: true },
    })
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
