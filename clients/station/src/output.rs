//! Where certificates and refusals go: files, the report for programs, and the counts for people.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use birthmark_base::{
    durable::{self, Access},
    temporary,
};
use birthmark_client::Certificate;
use tokio::sync::mpsc;

use self::report::{Line, Status, write_line};
pub use self::{
    report::Report,
    summary::{Group, Summary},
};
use super::{
    item::{Refused, Wanted},
    places::Places,
    progress::Progress,
    refusal::{self, Refusal},
};

mod report;
mod summary;

/// The number of devices that the summary names for each reason.
const EXAMPLES: usize = 3;

/// What became of a device.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The daemon gave a certificate, and it carries the device's key.
    Issued {
        /// The device.
        wanted: Wanted,
        /// Its certificate.
        certificate: Certificate,
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
    /// The whole order is refused; the CSR stays in the watched folder.
    Held {
        /// The device.
        wanted: Wanted,
        /// The daemon's reason.
        reason: String,
        /// One sentence.
        message: String,
    },
}

/// The thread that writes; it gives the output back for [`Output::finish`], and the error that ended it.
pub(crate) type Writer = JoinHandle<(Output, Result<(), WriteError>)>;

/// Writes what became of each device.
pub(crate) struct Output {
    places: Arc<Places>,
    progress: Arc<Progress>,
    order: String,
    profile: String,
    report: Option<Report>,
    summary: Summary,
}

impl Output {
    /// `order` and `profile` are written into refusals; `report` gets a JSON object for each device.
    pub(crate) fn new(
        places: Arc<Places>,
        progress: Arc<Progress>,
        order: String,
        profile: String,
        report: Option<Report>,
    ) -> Self {
        Output { places, progress, order, profile, report, summary: Summary::default() }
    }

    /// Starts a thread that writes the outcomes. It ends when the sender is dropped or when writing fails: then the
    /// receiver is gone.
    pub(crate) fn start(mut self, bound: usize) -> (mpsc::Sender<Outcome>, Writer) {
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

    /// The summary; written to the report, too, if there is one.
    pub(crate) fn finish(mut self, ended: Option<&str>) -> Summary {
        self.summary.held = self.places.holds().count();
        self.summary.ignored_files = self.progress.ignored();
        self.summary.seconds = self.progress.elapsed().as_secs_f64();
        self.summary.ended = ended.map(str::to_owned);
        self.progress.clear();
        if let Some(report) = &mut self.report {
            // The exit code of a run says the same, in short.
            let _ = write_line(report, &serde_json::json!({ "summary": &self.summary }));
        }
        self.summary
    }

    fn write(&mut self, outcome: Outcome) -> Result<(), WriteError> {
        let refused = matches!(outcome, Outcome::Refused(_));
        let line = match outcome {
            Outcome::Issued { wanted, certificate } => match self.put_certificate(&wanted.device_id, &certificate) {
                Ok(()) => self.issued(wanted, &certificate),
                Err(error) => match self.not_written(wanted, error)? {
                    Some(line) => line,
                    None => return Ok(()),
                },
            },
            Outcome::AlreadyThere { device_id, certificate, file } => {
                self.summary.already_there += 1;
                // The daemon was not asked, so it says nothing about the order.
                self.done(&device_id, file.as_deref(), false);
                Line::with_certificate(&self.places, device_id, Status::AlreadyThere, &certificate, "")
            }
            Outcome::Refused(refused) => self.refused(refused),
            Outcome::Held { wanted, reason, message } => match self.held(wanted, reason, message) {
                Some(line) => line,
                None => return Ok(()),
            },
        };
        if let Some(report) = &mut self.report {
            self.progress.beside(|| write_line(report, &line)).map_err(WriteError::Report)?;
        }
        if line.status != Status::Held {
            self.progress.finish_device(refused || line.status == Status::Refused);
        }
        Ok(())
    }

    fn put_certificate(&self, device_id: &str, certificate: &Certificate) -> Result<(), NotWritten> {
        let pem = certificate.pem();
        // The certificate comes last: where it is, the chain is.
        if let Some(path) = self.places.chain(device_id).filter(|_| self.places.chain_wanted()) {
            self.put(&path, format!("{pem}{}", certificate.chain_pem()).as_bytes())?;
        }
        match self.places.certificate(device_id) {
            Some(path) => self.put(&path, pem.as_bytes()),
            None => Ok(()),
        }
    }

    fn issued(&mut self, wanted: Wanted, certificate: &Certificate) -> Line {
        self.done(&wanted.device_id, wanted.file.as_deref(), !certificate.replay);
        let (status, count) = match certificate.replay {
            true => (Status::Replayed, &mut self.summary.replayed),
            false => (Status::Issued, &mut self.summary.issued),
        };
        *count += 1;
        Line::with_certificate(&self.places, wanted.device_id, status, &certificate.der, &certificate.chain_pem())
    }

    /// The device has its certificate: an earlier refusal is void, and a watched folder's CSR moves.
    fn done(&self, device_id: &str, csr: Option<&Path>, issued: bool) {
        for refusal in refusal::void(&self.places, device_id, csr) {
            if let Err(error) = fs::remove_file(&refusal) {
                self.progress.say(&format!("cannot remove {}: {error}", refusal.display()));
            }
        }
        self.move_away(csr, "done", issued);
    }

    /// A certificate that the disk or the folder does not take. In a watched folder its CSR waits there; elsewhere the
    /// device counts as refused, or the run ends if no other device can do better.
    fn not_written(&mut self, wanted: Wanted, error: NotWritten) -> Result<Option<Line>, WriteError> {
        let message = error.to_string();
        let Wanted { device_id, file, terms, .. } = wanted;
        if let (Some(_), Some(file)) = (self.places.watched(), &file) {
            if !self.places.holds().not_written(file) {
                return Ok(None);
            }
            self.progress.say(&format!("{device_id}: {message}; will keep trying"));
            return Ok(Some(Line::without_certificate(device_id, Status::Held, "NOT_WRITTEN".to_owned(), message)));
        }
        if error.concerns_all() {
            return Err(error.into());
        }
        Ok(Some(self.refused(Refused { device_id, file, terms, reason: "NOT_WRITTEN".to_owned(), message })))
    }

    /// A device of a refused order: printed once for each reason, reported once for each device.
    fn held(&mut self, wanted: Wanted, reason: String, message: String) -> Option<Line> {
        let (device_id, file) = (wanted.device_id, wanted.file?);
        let (new, first) = self.places.holds().refuse_order(&file, &reason);
        if new {
            let folder = file.parent().unwrap_or(Path::new("."));
            self.progress.say(&format!(
                "{message} ({reason}); CSRs stay in {} and are tried again: {}",
                folder.display(),
                remedy(&reason)
            ));
        }
        first.then(|| Line::without_certificate(device_id, Status::Held, reason, message))
    }

    fn refused(&mut self, refused: Refused) -> Line {
        let path = match self.put_refusal(&refused) {
            Ok(path) => path,
            Err(error) => {
                self.progress.say(&format!("{}: {error}", refused.device_id));
                None
            }
        };
        let Refused { device_id, file, reason, message, .. } = refused;
        if self.places.watched().is_some() && self.report.is_none() {
            self.progress.say(&format!("{device_id}: {message} ({reason})"));
        }
        self.move_away(file.as_deref(), "failed", false);
        let group = self.summary.refused_by_reason.entry(reason.clone()).or_default();
        group.count += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(format!("{device_id}: {message}"));
        }
        self.summary.refused += 1;
        let file = path.map(|path| path.display().to_string());
        let mut line = Line::without_certificate(device_id, Status::Refused, reason, message);
        line.file = file;
        line
    }

    /// Writes why a device was refused; gives the file, if there is one.
    fn put_refusal(&self, refused: &Refused) -> Result<Option<PathBuf>, NotWritten> {
        let Some(place) = refusal::place(&self.places, refused) else { return Ok(None) };
        self.put(&place, &Refusal::new(refused, &self.order, &self.profile).to_json())?;
        Ok(Some(place))
    }

    /// Moves the CSR of a watched folder; one of the same name that is there already is replaced. `issued` is whether
    /// the order gave a new certificate for it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the certificate is durable; a CSR that is still there is asked for again"
    )]
    fn move_away(&self, csr: Option<&Path>, to: &str, issued: bool) {
        let (Some(watched), Some(csr), Some(name)) = (self.places.watched(), csr, csr.and_then(Path::file_name)) else {
            return;
        };
        if self.places.holds().release(csr, issued) {
            self.progress.say("the order can be used again");
        }
        let folder = watched.join(to);
        let moved = match fs::rename(csr, folder.join(name)) {
            // The CSR or the folder was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && csr.symlink_metadata().is_ok() => {
                fs::create_dir_all(&folder).and_then(|()| fs::rename(csr, folder.join(name)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        };
        if let Err(error) = moved {
            self.progress.say(&format!("cannot move {} to {to}: {error}; it is left there", csr.display()));
        }
    }

    /// A reader of `path` finds the old or the new content. It is on stable storage before a watched CSR moves away;
    /// otherwise only at the end of the run ([`Output::sync`]): the next run verifies what a power failure could have
    /// torn, and a retry is free (invariant 4).
    #[expect(clippy::disallowed_methods, reason = "synced once at the end of the run")]
    fn put(&self, path: &Path, content: &[u8]) -> Result<(), NotWritten> {
        let written = if self.places.watched().is_some() {
            durable::write(path, content, Access::Public)
        } else {
            temporary::create(path, 0o666).and_then(|(temporary, mut file)| {
                let written = file.write_all(content).and_then(|()| fs::rename(&temporary, path));
                written.inspect_err(|_| drop(fs::remove_file(&temporary)))
            })
        };
        written.map_err(|cause| NotWritten { path: path.to_owned(), cause })
    }

    fn sync(&self) -> Result<(), WriteError> {
        let Some(folder) = self.places.folder() else { return Ok(()) };
        durable::sync_files(folder).map_err(|source| WriteError::Sync { folder: folder.to_owned(), source })
    }
}

/// What ends the writing of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// No other certificate could be written either.
    #[error(transparent)]
    File(#[from] NotWritten),
    /// The program that reads the report is gone.
    #[error("cannot write the report: {0}")]
    Report(io::Error),
    /// What was written may be lost in a power failure.
    #[error("cannot sync {}: {source}", folder.display())]
    Sync {
        /// The folder for certificates.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {cause}", path.display())]
pub(crate) struct NotWritten {
    path: PathBuf,
    cause: io::Error,
}

impl NotWritten {
    /// Whether the next device's certificate could not be written either.
    fn concerns_all(&self) -> bool {
        use io::ErrorKind::{NotFound, QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull};
        matches!(
            self.cause.kind(),
            NotFound | QuotaExceeded | ReadOnlyFilesystem | StaleNetworkFileHandle | StorageFull
        )
    }
}

/// What to do about an order that is refused for `reason`.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "ORDER_UNKNOWN" => "create the order, or start again with another --order",
        "ORDER_EXHAUSTED" => "start again with another --order, or have scrapped devices recorded",
        "ORDER_CLOSED" | "ORDER_OUTSIDE_WINDOW" => {
            "wait until the order can be used, or start again with another --order"
        }
        "ORDER_PAUSED" => "wait until the order goes on",
        "STATION_REFUSED" | "ROLE_REQUIRED" => "use a station that the order and the profile allow",
        "PROFILE_UNKNOWN" | "PROFILE_REFUSED" => "start again with the order's --profile",
        _ => "ask the operator of the daemon",
    }
}
