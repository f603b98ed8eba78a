//! What stations lose while a batch is exported beside them, again and again.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow, ensure};
use birthmark_bench::site::{Site, text};
use serde::Serialize;

use super::{devices, stations::Measured};
use crate::{console::step, trial::station_folder};

/// The destination that the trial site has.
const DESTINATION: &str = "aws";

/// What was exported, and what that took of the stations.
#[derive(Debug, Serialize)]
pub(super) struct BesideExport {
    certificates_per_second: f64,
    lost_percent: f64,
    exported_certificates: u64,
    /// `export create` alone: which certificates are fit.
    cut_seconds: f64,
    /// `export get`: rendered by the daemon, sent, written and synced by the command.
    write_seconds: f64,
    verify_seconds: f64,
    bundle_mib: f64,
    /// While they were there.
    written_again: usize,
}

/// A certificate of the site's issuing CA, as those that are filled in need it: what is exported must fit its issuer.
pub(super) fn certificate(site: &Site) -> anyhow::Result<Vec<u8>> {
    step("Making one certificate, to fill the ledger with");
    let daemon = site.start(|command| command)?;
    site.birthmark(&["order", "create", "probe", "--profile", "device", "--quantity", "1"])?;
    site.write("probe.jsonl", &serde_json::json!({ "device_id": "probe", "csr": probe()? }).to_string())?;
    let (url, identity) = (daemon.url(), station_folder(1));
    let sign = ["station", "sign", "--order", "probe", "--profile", "device", "--in", "probe.jsonl", "--out", "probe"];
    site.birthmark(&[&sign[..], &["--server", &url, "--identity", &identity]].concat())?;
    ensure!(daemon.stop()?.success(), "the daemon failed:\n{}", site.log());
    let pem = fs::read_to_string(site.path("probe/probe.pem"))?;
    Ok(pem::parse(pem).context("the certificate is no PEM")?.into_contents())
}

fn probe() -> anyhow::Result<String> {
    Ok(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", devices::csr("probe")?)))
}

/// Cuts a batch of all that is there, and writes it again and again while `measure` runs.
pub(super) fn measure(
    site: &Site,
    before: &Measured,
    measure: impl FnOnce() -> anyhow::Result<Measured>,
) -> anyhow::Result<BesideExport> {
    step("Exporting all that was issued");
    let began = Instant::now();
    let made = site.json(&["export", "create", DESTINATION, "--json"])?;
    let cut_seconds = began.elapsed().as_secs_f64();
    let id = made.get("id").and_then(|id| id.as_str()).context("no batch was cut")?.to_owned();
    let exported_certificates = made.get("certificates").and_then(serde_json::Value::as_u64).unwrap_or_default();
    let began = Instant::now();
    site.birthmark(&["export", "get", &id, "--out", "exported"])?;
    let write_seconds = began.elapsed().as_secs_f64();
    let bundle = site.path("exported").join(&id);
    let began = Instant::now();
    site.birthmark(&["export", "verify", &text(&bundle)?, "--trusted-key", "ca/audit.pem"])?;
    let verify_seconds = began.elapsed().as_secs_f64();
    let sizes = fs::read_dir(&bundle)?.map(|file| Ok(file?.metadata()?.len()));
    let octets: u64 = sizes.collect::<std::io::Result<Vec<_>>>()?.iter().sum();
    fs::remove_dir_all(&bundle)?;

    step("Measuring once more, beside exports");
    let stop = Arc::new(AtomicBool::new(false));
    let measured = thread::scope(|scope| {
        let (stopped, id) = (Arc::clone(&stop), &id);
        let exports = scope.spawn(move || {
            let mut written: usize = 0;
            while !stopped.load(Ordering::Relaxed) {
                let out = format!("again-{written}");
                let mut command = site.operator(&["export", "get", id, "--out", &out]);
                let status = command.stdout(Stdio::null()).status()?;
                ensure!(status.success(), "the export failed");
                fs::remove_dir_all(site.path(&out))?;
                written += 1;
            }
            Ok(written)
        });
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        let written = exports.join().map_err(|_| anyhow!("the exports panicked"))?;
        Ok::<_, anyhow::Error>((measured?, written?))
    });
    let (beside, written_again) = measured?;
    let rate = |measured: &Measured| measured.certificates as f64 / measured.seconds;
    Ok(BesideExport {
        certificates_per_second: rate(&beside),
        lost_percent: (1.0 - rate(&beside) / rate(before)) * 100.0,
        exported_certificates,
        cut_seconds,
        write_seconds,
        verify_seconds,
        bundle_mib: octets as f64 / 1024.0 / 1024.0,
        written_again,
    })
}

impl std::fmt::Display for BesideExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BesideExport { certificates_per_second, lost_percent, exported_certificates, .. } = self;
        let BesideExport { cut_seconds, write_seconds, verify_seconds, bundle_mib, written_again, .. } = self;
        write!(
            f,
            "{exported_certificates} certificates, {bundle_mib:.0} MiB: cut in {cut_seconds:.1} s, written in \
             {write_seconds:.1} s, verified in {verify_seconds:.1} s; written {written_again} times beside the stations, who made \
             {certificates_per_second:.0} certificates/s, {lost_percent:.1} % less"
        )
    }
}
