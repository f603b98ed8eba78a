//! The fault-injecting PKCS#11 module between the daemon and SoftHSM, and stations that work meanwhile.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use birthmark::proto::{IssueRequest, IssuedCertificate};
use tonic::Code;

pub(crate) use birthmark_bench::assertions::fault_module;

use super::{
    site::{Answer, Daemon, Site, csr, judge, request, wait_until},
    token::module,
};

/// A script in force, which a test changes while the daemon runs.
pub(crate) struct Faults {
    script: PathBuf,
    version: Cell<u64>,
}

impl Faults {
    /// Puts the module in front of the key "issuing"; `settings` are lines of `[issuers.main]`.
    pub(crate) fn between(site: &Site, settings: &str) -> Faults {
        Faults::configure(site, settings, module(), &["[issuers.main]"])
    }

    /// As [`Faults::between`], and the audit key is in the same module.
    pub(crate) fn one_module(site: &Site, settings: &str) -> Faults {
        Faults::configure(site, settings, module(), &["[audit]", "[issuers.main]"])
    }

    /// As [`Faults::between`], and the real module that it calls is not the one that has the audit key.
    pub(crate) fn two_modules(site: &Site, settings: &str) -> Faults {
        let other = site.path("other-module.so");
        fs::copy(module(), &other).unwrap();
        Faults::configure(site, settings, &other, &["[issuers.main]"])
    }

    /// As [`Faults::between`], in the configuration that is there.
    pub(crate) fn in_configuration(site: &Site, settings: &str) -> Faults {
        let text = fs::read_to_string(site.path("birthmark.toml")).unwrap();
        site.token.write("birthmark.toml", &through(text, settings, module(), &["[issuers.main]"]));
        Faults::new(site)
    }

    fn new(site: &Site) -> Faults {
        let faults = Faults { script: site.path("faults"), version: Cell::new(0) };
        fs::write(&faults.script, "").unwrap();
        faults
    }

    fn configure(site: &Site, settings: &str, real: &Path, tables: &[&str]) -> Faults {
        site.configure(|text| through(text, settings, real, tables));
        Faults::new(site)
    }

    /// Has these faults happen to the next daemon, and no others.
    pub(crate) fn set_before_start(&self, lines: &str) {
        self.version.set(self.version.get() + 1);
        let new = self.script.with_extension("draft");
        fs::write(&new, format!("version {}\n{lines}\n", self.version.get())).unwrap();
        fs::rename(new, &self.script).unwrap();
    }

    /// Has these faults happen to the daemon that runs, and no others.
    pub(crate) fn set(&self, lines: &str) {
        self.set_before_start(lines);
        wait_until("the script is in force", || self.seen("version") == self.version.get());
    }

    /// A number of the module's report; 0 if it is not there.
    pub(crate) fn seen(&self, name: &str) -> u64 {
        self.report().get(name).copied().unwrap_or(0)
    }

    /// Waits until this is the number in the module's report, which follows it by some milliseconds, and looks whether it stays.
    #[track_caller]
    pub(crate) fn counts(&self, name: &str, expected: u64) {
        wait_until(name, || self.seen(name) >= expected);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(self.seen(name), expected, "{name}");
    }

    /// The module's report.
    pub(crate) fn report(&self) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(self.script.with_extension("report")).unwrap_or_default();
        let line = |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.parse().ok()?));
        text.lines().filter_map(line).collect()
    }
}

/// Faults that no daemon met would test nothing.
impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.report().get("version"), Some(&self.version.get()), "no module has read the script");
        }
    }
}

/// A configuration in which the keys of these tables are reached through the faults.
fn through(mut text: String, settings: &str, real: &Path, tables: &[&str]) -> String {
    for table in tables {
        let (before, rest) = text.split_at(text.find(table).unwrap());
        let rest = rest.replacen(module().to_str().unwrap(), fault_module().to_str().unwrap(), 1);
        text = before.to_owned() + &rest;
    }
    let environment = format!(
        "[environment]\nPKCS11_FAULT_MODULE = \"{}\"\nPKCS11_FAULT_SCRIPT = \"{{config_dir}}/faults\"\n",
        real.display()
    );
    let text = text.replacen("[issuers.main]\n", &format!("[issuers.main]\n{settings}\n"), 1);
    text.replacen("[environment]\n", &environment, 1)
}

/// Stations that have devices certified, one after the other, until they are stopped. A request that was refused
/// because the HSM is away is sent again, as a station does.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    issued: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    stations: Vec<tokio::task::JoinHandle<Vec<IssuedCertificate>>>,
}

/// How many requests each station has open.
const WINDOW: usize = 16;

impl Load {
    /// Four stations.
    pub(crate) async fn start(site: &Site, daemon: &Daemon, order: &str) -> Load {
        Load::start_at(site, daemon, order, 0).await
    }

    /// Four stations, whose devices have numbers from this one on.
    pub(crate) async fn start_at(site: &Site, daemon: &Daemon, order: &str, first: usize) -> Load {
        let mut load =
            Load { stop: Arc::default(), issued: Arc::default(), refused: Arc::default(), stations: Vec::new() };
        for station in 0..4 {
            let mut stream = site.stream(daemon, &format!("line1/t{station}")).await;
            let (stop, issued, refused) = (Arc::clone(&load.stop), Arc::clone(&load.issued), Arc::clone(&load.refused));
            let order = order.to_owned();
            load.stations.push(tokio::spawn(async move {
                let mut open: BTreeMap<String, IssueRequest> = BTreeMap::new();
                let mut certificates = Vec::new();
                for number in first.. {
                    if !stop.load(Ordering::Relaxed) {
                        let device = format!("{order}-s{station}-{number}");
                        let request = request(&device, &order, csr(&device));
                        open.insert(device, request.clone());
                        stream.send(request).await;
                    } else if open.is_empty() {
                        break;
                    }
                    while open.len() >= WINDOW || stop.load(Ordering::Relaxed) && !open.is_empty() {
                        let reply = stream.receive().await.unwrap().expect("the stream ended");
                        let id = reply.request_id.clone();
                        match Answer::of(reply) {
                            Answer::Issued(certificate) => {
                                assert!(!certificate.replay && open.remove(&id).is_some(), "{id} twice");
                                certificates.push(certificate);
                                issued.fetch_add(1, Ordering::Relaxed);
                            }
                            Answer::Refused { code: Code::Unavailable, reason, retry: true, .. }
                                if reason == "HSM_UNAVAILABLE" =>
                            {
                                refused.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                stream.send(open[&id].clone()).await;
                            }
                            other => panic!("{id}: {other:?}"),
                        }
                    }
                }
                certificates
            }));
        }
        load
    }

    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until this number of further certificates was issued.
    pub(crate) fn more(&self, number: u64) {
        let before = self.issued();
        wait_until("more certificates", || self.issued() >= before + number);
    }

    /// Stops, and looks at nothing.
    pub(crate) async fn abandon(self) {
        self.stop.store(true, Ordering::Relaxed);
        for station in self.stations {
            station.await.unwrap();
        }
    }

    /// Stops; every device must have exactly one certificate, each with the issuer's signature.
    pub(crate) async fn finish(self, site: &Site, order: &str) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut certificates = Vec::new();
        for station in self.stations {
            certificates.extend(station.await.unwrap());
        }
        let number = certificates.len() as u64;
        assert_eq!(site.order(order)["issued"], number, "certificates that no station has, or the other way round");
        let serials: std::collections::BTreeSet<_> = certificates.iter().map(|c| c.serial_number.clone()).collect();
        assert_eq!(serials.len() as u64, number, "a serial number twice");
        let files: Vec<_> = certificates
            .iter()
            .enumerate()
            .map(|(number, certificate)| {
                let file = site.path(&format!("issued-{number}.pem"));
                fs::write(&file, pem::encode(&pem::Pem::new("CERTIFICATE", certificate.certificate.to_vec()))).unwrap();
                file
            })
            .collect();
        for files in files.chunks(1000) {
            judge(site, "go", files);
        }
        number
    }
}
