//! Where certificates and refusals go: files, the report for programs, and the counts for people.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    LONGEST_DEVICE_ID, fields, is_id,
    progress::{Progress, plural, rate},
    source::{Refused, Wanted},
};
use crate::{
    client::certificate_pem,
    durable::{self, Access},
    proto::IssuedCertificate,
    signer::sha256,
};

/// The ending of chain files; a device whose id ends like one would share its file with another's.
const CHAIN: &str = ".chain";

/// How many devices are named per reason in the summary.
const EXAMPLES: usize = 3;

/// The files of one run.
#[derive(Debug)]
pub struct Places {
    folder: PathBuf,
    chain: bool,
    watched: Option<PathBuf>,
}

impl Places {
    /// Certificates go to `folder`, with `chain` also chain files. Of a watched folder, CSRs move to its `done` and
    /// `failed`.
    pub fn new(folder: PathBuf, chain: bool, watched: Option<PathBuf>) -> Self {
        Places { folder, chain, watched }
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// A sentence that names the folder.
    pub fn make(&self) -> Result<(), String> {
        let mut folders = vec![self.folder.clone()];
        folders.extend(self.watched.iter().flat_map(|folder| [folder.join("done"), folder.join("failed")]));
        for folder in folders {
            fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        }
        self.sweep();
        Ok(())
    }

    /// Removes the files that a run on this machine was writing when it was killed. Others may be at work in the same
    /// folder, here or on another machine; what cannot be removed is in nobody's way.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
            let process = name.strip_suffix(".tmp").and_then(|rest| rest.rsplit_once('.')?.1.parse::<u32>().ok());
            let left_behind = |process: u32| {
                name.ends_with(&temporary_ending(process)) && !Path::new(&format!("/proc/{process}")).exists()
            };
            if process.is_some_and(left_behind) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The folder that is watched, if one is.
    pub fn watched(&self) -> Option<&Path> {
        self.watched.as_deref()
    }

    /// Whether the files of this device are its own.
    ///
    /// # Errors
    /// A sentence, if they would be another's.
    pub fn fits(&self, device_id: &str) -> Result<(), String> {
        match self.chain && device_id.ends_with(CHAIN) {
            true => Err(format!("with --chain a device id cannot end in \"{CHAIN}\", as the chain files do")),
            false => Ok(()),
        }
    }

    /// The DER certificate that the device has from an earlier run, if all its files are there and the certificate
    /// carries this key (a DER `SubjectPublicKeyInfo`). What was half written counts as not there.
    pub fn existing(&self, device_id: &str, key: &[u8]) -> Option<Vec<u8>> {
        let text = fs::read(self.certificate(device_id)).ok()?;
        let certificate = pem::parse(&text).ok().filter(|block| block.tag() == "CERTIFICATE")?.into_contents();
        let chained = !self.chain || fs::read(self.chain(device_id)).is_ok_and(|chain| chain.starts_with(&text));
        (fields::certificate_key(&certificate) == Ok(key) && chained).then_some(certificate)
    }

    fn certificate(&self, device_id: &str) -> PathBuf {
        self.folder.join(format!("{device_id}.pem"))
    }

    fn chain(&self, device_id: &str) -> PathBuf {
        self.folder.join(format!("{device_id}{CHAIN}.pem"))
    }

    /// Beside the CSR in the watched folder's `failed`, otherwise among the certificates.
    fn refusal(&self, device_id: &str) -> PathBuf {
        let folder = self.watched.as_ref().map_or_else(|| self.folder.clone(), |folder| folder.join("failed"));
        folder.join(format!("{device_id}.error.json"))
    }
}

/// What became of a device.
#[derive(Debug)]
pub enum Outcome {
    /// The daemon gave a certificate, and it carries the device's key.
    Issued {
        /// The device.
        wanted: Wanted,
        /// The reply.
        issued: IssuedCertificate,
        /// What a device presents after its own certificate, as PEM; empty unless chain files are wanted.
        chain: Arc<str>,
    },
    /// The device has its certificate from an earlier run.
    AlreadyThere {
        /// The device.
        device_id: String,
        /// DER.
        certificate: Vec<u8>,
        /// The file that the CSR came from.
        file: Option<PathBuf>,
    },
    /// The device gets no certificate.
    Refused(Refused),
}

/// The CA certificates that a device presents after its own, as PEM: the issuing CA, and those above it but for a
/// root, which whoever verifies has. The issuing CA is there even if it is a root, since AWS IoT wants it presented.
pub fn presented_chain(chain: &[Bytes]) -> String {
    let presented = chain.iter().enumerate().filter(|(index, ca)| *index == 0 || !fields::is_self_issued(ca));
    presented.map(|(_, ca)| certificate_pem(ca)).collect()
}

/// Where JSON objects go for programs, one a line.
pub type Report = Box<dyn Write + Send>;

/// The thread that writes; it gives the output back for [`Output::finish`], and the error that ended it.
pub type Writer = JoinHandle<(Output, Result<(), String>)>;

/// Writes what became of each device.
pub struct Output {
    places: Arc<Places>,
    progress: Arc<Progress>,
    order: String,
    profile: String,
    report: Option<Report>,
    summary: Summary,
}

impl Output {
    /// `order` and `profile` are told in refusals; `report` gets a JSON object for each device.
    pub fn new(
        places: Arc<Places>,
        progress: Arc<Progress>,
        order: String,
        profile: String,
        report: Option<Report>,
    ) -> Self {
        Output { places, progress, order, profile, report, summary: Summary::default() }
    }

    /// Starts a thread that writes whatever comes. It ends when the sender is dropped or when writing fails: then the
    /// receiver is gone and the error is a sentence.
    pub fn start(mut self, bound: usize) -> (mpsc::Sender<Outcome>, Writer) {
        let (sender, mut outcomes) = mpsc::channel(bound);
        let thread = thread::spawn(move || {
            while let Some(outcome) = outcomes.blocking_recv() {
                if let Err(error) = self.write(outcome) {
                    return (self, Err(error));
                }
            }
            let synced = self.sync();
            (self, synced)
        });
        (sender, thread)
    }

    /// The summary, to standard output for programs if there is a report.
    pub fn finish(mut self, ended: Option<&str>) -> Summary {
        self.summary.ignored_files = self.progress.ignored();
        self.summary.seconds = self.progress.elapsed().as_secs_f64();
        self.summary.ended = ended.map(str::to_owned);
        self.progress.clear();
        if let Some(report) = &mut self.report {
            // The summary of a run is also told by its exit code.
            let _ = write_line(report, &serde_json::json!({ "summary": &self.summary }));
        }
        self.summary
    }

    fn write(&mut self, outcome: Outcome) -> Result<(), String> {
        let refused = matches!(outcome, Outcome::Refused(_));
        let line = match outcome {
            Outcome::Issued { wanted, issued, chain } => self.issued(&wanted, &issued, &chain)?,
            Outcome::AlreadyThere { device_id, certificate, file } => {
                self.summary.already_there += 1;
                let path = self.done(&device_id, file.as_deref())?;
                Line::of_certificate(device_id, "skipped", &certificate, path)
            }
            Outcome::Refused(refused) => self.refused(refused)?,
        };
        if let Some(report) = &mut self.report {
            self.progress
                .beside(|| write_line(report, &line))
                .map_err(|error| format!("cannot write the report: {error}"))?;
        }
        self.progress.finish_device(refused);
        Ok(())
    }

    fn issued(&mut self, wanted: &Wanted, issued: &IssuedCertificate, chain: &str) -> Result<Line, String> {
        let pem = certificate_pem(&issued.certificate);
        // The certificate comes last: where it is, the chain is.
        if self.places.chain {
            self.put(&self.places.chain(&wanted.device_id), format!("{pem}{chain}").as_bytes())?;
        }
        self.put(&self.places.certificate(&wanted.device_id), pem.as_bytes())?;
        let path = self.done(&wanted.device_id, wanted.file.as_deref())?;
        let status = if issued.replay { "replay" } else { "issued" };
        *(if issued.replay { &mut self.summary.replayed } else { &mut self.summary.issued }) += 1;
        Ok(Line::of_certificate(wanted.device_id.clone(), status, &issued.certificate, path))
    }

    /// The device has its certificate: an earlier refusal is void, and a watched folder's CSR moves.
    fn done(&self, device_id: &str, csr: Option<&Path>) -> Result<PathBuf, String> {
        let refusal = self.places.refusal(device_id);
        match fs::remove_file(&refusal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", refusal.display()));
            }
            _ => {}
        }
        self.move_away(csr, "done")?;
        Ok(self.places.certificate(device_id))
    }

    fn refused(&mut self, refused: Refused) -> Result<Line, String> {
        let Refused { device_id, file, reason, message } = refused;
        // In a watched folder the file's own name serves, whatever it is; elsewhere only an id is a safe name. Of a
        // second CSR for one device nothing is left behind, since the device itself was not refused.
        let stem = match (&file, self.places.watched()) {
            (Some(file), Some(_)) => file.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            _ => is_id(&device_id, LONGEST_DEVICE_ID).then(|| device_id.clone()),
        };
        let mut path = None;
        if let Some(stem) = stem.filter(|_| reason != "DUPLICATE_DEVICE") {
            let refusal = Refusal {
                device_id: &device_id,
                order: &self.order,
                profile: &self.profile,
                reason: &reason,
                message: &message,
                time: now(),
            };
            let mut text = serde_json::to_vec_pretty(&refusal).unwrap_or_default();
            text.push(b'\n');
            let place = self.places.refusal(&stem);
            self.put(&place, &text)?;
            path = Some(place);
        }
        self.move_away(file.as_deref(), "failed")?;
        let group = self.summary.refused_by_reason.entry(reason.clone()).or_default();
        group.count += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(format!("{device_id}: {message}"));
        }
        self.summary.refused += 1;
        Ok(Line {
            device_id,
            status: "refused",
            serial_number: None,
            certificate_id: None,
            file: path.map(|path| path.display().to_string()),
            reason: Some(reason),
            message: Some(message),
        })
    }

    /// Moves the CSR of a watched folder; one of the same name that is there already is replaced.
    #[expect(
        clippy::disallowed_methods,
        reason = "the certificate is durable; a CSR that is still there is asked for again"
    )]
    fn move_away(&self, csr: Option<&Path>, to: &str) -> Result<(), String> {
        let (Some(watched), Some(csr), Some(name)) = (self.places.watched(), csr, csr.and_then(Path::file_name)) else {
            return Ok(());
        };
        match fs::rename(csr, watched.join(to).join(name)) {
            // Somebody took it away meanwhile; the certificate is there all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(|error| format!("cannot move {} to {to}: {error}", csr.display())),
        }
    }

    /// Whoever reads `path` finds the old or the new content. It is on stable storage before a watched CSR moves away;
    /// otherwise only at the end of the run ([`Output::sync`]): the next run takes nothing on trust that a power
    /// failure could have torn, and asking again is free.
    #[expect(clippy::disallowed_methods, reason = "synced once at the end of the run")]
    fn put(&self, path: &Path, content: &[u8]) -> Result<(), String> {
        let written = if self.places.watched().is_some() {
            durable::write(path, content, Access::Public)
        } else {
            let name = path.file_name().unwrap_or_default().display();
            let temporary = path.with_file_name(format!(".{name}{}", temporary_ending(std::process::id())));
            fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
        };
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// One sync for all files is far faster than one each.
    fn sync(&self) -> Result<(), String> {
        let folder = &self.places.folder;
        let synced = fs::File::open(folder).and_then(|open| Ok(rustix::fs::syncfs(open)?));
        synced.map_err(|error| format!("cannot sync {}: {error}", folder.display()))
    }
}

/// How the names of files end that this process of this machine is writing.
fn temporary_ending(process: u32) -> String {
    static MACHINE: LazyLock<String> =
        LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned());
    format!(".{}.{process}.tmp", *MACHINE)
}

fn write_line(report: &mut Report, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    report.write_all(&text)?;
    // A program that reads along must not wait for a buffer to fill.
    report.flush()
}

/// RFC 3339, to the second.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

/// One device in the report.
#[derive(Serialize)]
struct Line {
    device_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Line {
    fn of_certificate(device_id: String, status: &'static str, certificate: &[u8], path: PathBuf) -> Self {
        Line {
            device_id,
            status,
            serial_number: fields::serial_number(certificate).ok().map(hex::encode),
            certificate_id: Some(hex::encode(sha256(certificate))),
            file: Some(path.display().to_string()),
            reason: None,
            message: None,
        }
    }
}

/// `<device-id>.error.json`
#[derive(Serialize)]
struct Refusal<'a> {
    device_id: &'a str,
    order: &'a str,
    profile: &'a str,
    reason: &'a str,
    message: &'a str,
    time: String,
}

/// How a run went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// New certificates.
    pub issued: u64,
    /// Certificates that had been issued before and were given again.
    pub replayed: u64,
    /// Devices that had their certificate from an earlier run.
    pub already_there: u64,
    /// Devices that got none.
    pub refused: u64,
    /// Files that are not CSRs.
    pub ignored_files: u64,
    /// The refused devices by reason.
    pub refused_by_reason: BTreeMap<String, Group>,
    /// How long the run took.
    pub seconds: f64,
    /// Why it ended before all was done, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// The devices that were refused for one reason.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// The first few, each with its message.
    pub examples: Vec<String>,
}

impl Summary {
    /// Devices that have their certificate now.
    pub fn succeeded(&self) -> u64 {
        self.issued + self.replayed + self.already_there
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.issued + self.replayed;
        write!(
            f,
            "{} issued, {} replayed, {} already there, {} refused in {:.1} s",
            self.issued, self.replayed, self.already_there, self.refused, self.seconds
        )?;
        // Of a few devices it would tell nothing.
        if asked >= 10 {
            write!(f, " ({:.1} certificates/s)", rate(asked, Duration::from_secs_f64(self.seconds)))?;
        }
        if self.ignored_files > 0 {
            write!(f, "; {} ignored", plural(self.ignored_files, "other file"))?;
        }
        for (reason, group) in &self.refused_by_reason {
            write!(f, "\n  {reason}: {}", plural(group.count, "device"))?;
            for example in &group.examples {
                write!(f, "\n    {example}")?;
            }
            if group.count > group.examples.len() as u64 {
                write!(f, "\n    …")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_groups_refusals_by_reason() {
        let mut summary = Summary { issued: 10, refused: 4, ignored_files: 1, seconds: 2.0, ..Summary::default() };
        summary.refused_by_reason.insert("KEY_WEAK".into(), Group { count: 4, examples: vec!["a: RSA-512".into()] });
        assert_eq!(
            summary.to_string(),
            "10 issued, 0 replayed, 0 already there, 4 refused in 2.0 s (5.0 certificates/s); 1 other file ignored\n  \
             KEY_WEAK: 4 devices\n    a: RSA-512\n    …"
        );
    }

    #[test]
    fn a_chain_file_has_the_issuing_ca_always_and_a_root_above_it_never() -> Result<(), Box<dyn std::error::Error>> {
        let root = Bytes::from(rcgen::generate_simple_self_signed(vec![])?.cert.der().to_vec());
        assert_eq!(presented_chain(&[root.clone(), root.clone()]).matches("BEGIN").count(), 1);
        assert_eq!(presented_chain(&[root]).matches("BEGIN").count(), 1);
        Ok(())
    }
}
