//! Confirms what comes into a folder: the line puts a device's certificate there once the device has it.
//!
//! A file moves away once the daemon has answered. While the daemon is away, or cannot take it, it stays.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use birthmark_base::{
    durable::{self, Access},
    fields,
    pem::{self, PemError},
    quote::shortened,
    text_file::{self, TextError},
};
use birthmark_client::{Client, Confirmation, Error, Failure, Named};
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::{
    archive::Archive,
    input::extension,
    output::Report,
    places::LONGEST_CERTIFICATES,
    progress::Progress,
    sign::{End, Stop},
    unchanged::{Known, look, settled},
};

/// How many files are asked for at once.
const AT_ONCE: usize = 500;

/// The pause after the daemon was away, or could not take them.
const PAUSE: Duration = Duration::from_secs(2);

/// What to watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The folder.
    pub folder: PathBuf,
    /// The polling interval.
    pub poll: Duration,
    /// How long a file that is not whole must be unchanged until it is final.
    pub settle: Duration,
    /// After how many days what was confirmed or refused is removed; 0: never.
    pub keep_days: u16,
}

/// A file, as programs read it: when it is answered, and in `failed/` beside it.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    device_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    serial_number: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Why a file holds no certificate of a device.
#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the PEM is damaged: {0}")]
    Pem(#[from] PemError),
    #[error("it holds no PEM certificate")]
    Nothing,
    #[error("it holds a {0}, not a device's certificate")]
    Other(String),
}

/// Confirms what is in the folder and what comes, until the user stops it or nothing can go on.
pub async fn run(
    client: &Client,
    watch: Watch,
    progress: Arc<Progress>,
    report: Option<Report>,
    mut stop: watch::Receiver<Option<Stop>>,
) -> End {
    let mut archive = Archive::new(&watch.folder, None, watch.keep_days);
    let mut run =
        Run { watch, progress, report, known: HashMap::new(), told: HashSet::new(), trouble: None, again: None };
    loop {
        let today = jiff::ZonedDateTime::now().date();
        archive.turn(today).iter().for_each(|fault| run.progress.say(fault));
        let stopped = async { stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop) };
        tokio::select! {
            biased;
            stopped = stopped => match stopped {
                Some(stop) => return End::Stopped(stop),
                // The sender is gone, so it cannot be stopped any more.
                None => std::future::pending().await,
            },
            ended = run.round(client) => if let Err(message) = ended { return End::Failed(message) },
        }
    }
}

struct Run {
    watch: Watch,
    progress: Arc<Progress>,
    report: Option<Report>,
    known: HashMap<OsString, Known>,
    /// Entries that were said to be left alone.
    told: HashSet<OsString>,
    /// What was said to be in the way.
    trouble: Option<String>,
    /// When the daemon is asked again.
    again: Option<Instant>,
}

impl Run {
    /// One look at the folder. Between two calls it may be dropped at any time: what was asked and not heard is asked again.
    async fn round(&mut self, client: &Client) -> Result<(), String> {
        tokio::time::sleep(self.watch.poll).await;
        let folder = self.watch.folder.clone();
        let found = match look(&folder, is_certificate_file) {
            Ok(found) => found,
            // A network share that is gone comes back.
            Err(error) => {
                self.trouble(format!("cannot read {}: {error}; will keep trying", folder.display()));
                return Ok(());
            }
        };
        self.told.retain(|name| found.others.contains_key(name) || found.files.contains_key(name));
        for (name, what) in found.others {
            self.leave_alone(&name, &what);
        }
        let unchanged = settled(&mut self.known, found.files);
        if self.again.is_some_and(|again| Instant::now() < again) {
            return Ok(());
        }
        let (mut files, mut wanted) = (Vec::new(), Vec::new());
        for name in unchanged {
            if files.len() == AT_ONCE {
                break;
            }
            let Some(certificate) = self.certificate(&name) else { continue };
            wanted.push(Named::ReadBack { certificate, device_id: String::new() });
            files.push(name);
        }
        if files.is_empty() {
            return Ok(());
        }
        match client.confirm(&wanted).await {
            Ok(answers) => self.answered(files.into_iter().zip(answers)),
            Err(error) if may_pass(&error) => {
                self.again = Some(Instant::now() + PAUSE);
                self.trouble(format!("{error}; the files stay in {} until it is back", folder.display()));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The certificate of a file that was not asked for yet. One that is not whole is given its time.
    fn certificate(&mut self, name: &OsString) -> Option<Vec<u8>> {
        let path = self.watch.folder.join(name);
        let file = self.known.get_mut(name).filter(|file| !file.taken)?;
        match content(&path) {
            Ok(certificate) => Some(certificate),
            Err(ContentError::Text(TextError::Io(error))) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error @ ContentError::Other(_)) => {
                file.taken = true;
                self.leave_alone(name, &error.to_string());
                None
            }
            Err(_) if file.since.elapsed() < self.watch.settle => None,
            Err(error) => {
                file.taken = true;
                self.refused(name, ("", ""), "CERTIFICATE_UNREADABLE", &error.to_string());
                None
            }
        }
    }

    fn answered(&mut self, answers: impl Iterator<Item = (OsString, Confirmation)>) -> Result<(), String> {
        let mut waits = None;
        for (name, Confirmation { serial_number, device_id, error, .. }) in answers {
            let serial_number = hex::encode(&serial_number);
            match error {
                // The daemon could not take it now; the file stays.
                Some(Failure { retry_after: Some(_), message, .. }) => {
                    waits = Some(message);
                    continue;
                }
                Some(failure) => {
                    self.refused(&name, (&device_id, &serial_number), &failure.reason(), &failure.message);
                }
                None => self.confirmed(&name, (&device_id, &serial_number)),
            }
            if let Some(file) = self.known.get_mut(&name) {
                file.taken = true;
            }
        }
        match waits {
            Some(message) => {
                self.again = Some(Instant::now() + PAUSE);
                self.trouble(format!("{message}; the files stay in {}", self.watch.folder.display()));
            }
            None => {
                self.again = None;
                if self.trouble.take().is_some() {
                    self.progress.say("the daemon confirms again");
                }
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, name: &OsString, (device_id, serial_number): (&str, &str)) {
        self.progress.finish_device(false);
        let file = name.to_string_lossy().into_owned();
        self.tell(&Line { file, status: "confirmed", device_id, serial_number, reason: None, message: None });
        let _ = fs::remove_file(self.refusal(name));
        self.move_away(name, "done");
    }

    fn refused(&mut self, name: &OsString, (device_id, serial_number): (&str, &str), reason: &str, message: &str) {
        self.progress.finish_device(true);
        let file = name.to_string_lossy().into_owned();
        if self.report.is_none() {
            self.progress.say(&format!("{file}: {message} ({reason})"));
        }
        let (reason, message) = (Some(reason), Some(message));
        let line = Line { file, status: "refused", device_id, serial_number, reason, message };
        self.tell(&line);
        let written = serde_json::to_vec_pretty(&line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            let refusal = self.refusal(name);
            refusal.parent().map_or(Ok(()), fs::create_dir_all)?;
            durable::write(&refusal, &text, Access::Public)
        });
        if let Err(error) = written {
            self.progress.say(&format!("cannot write why {} is refused: {error}", name.display()));
        }
        self.move_away(name, "failed");
    }

    fn refusal(&self, name: &OsString) -> PathBuf {
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.watch.folder.join("failed").join(format!("{stem}.error.json"))
    }

    #[expect(clippy::disallowed_methods, reason = "a file that is still there is confirmed again, which is free")]
    fn move_away(&self, name: &OsString, to: &str) {
        let (from, folder) = (self.watch.folder.join(name), self.watch.folder.join(to));
        let moved = fs::create_dir_all(&folder).and_then(|()| fs::rename(&from, folder.join(name)));
        match moved {
            Err(error) if from.symlink_metadata().is_ok() => {
                self.progress.say(&format!("cannot move {} to {to}: {error}; it is left there", from.display()));
            }
            // Or it was removed meanwhile.
            _ => {}
        }
    }

    fn leave_alone(&mut self, name: &OsString, what: &str) {
        if self.told.insert(name.clone()) {
            let path = self.watch.folder.join(name);
            self.progress.say(&format!("{} is left alone: {what}", path.display()));
        }
    }

    /// Says what is in the way, once.
    fn trouble(&mut self, message: String) {
        if self.trouble.as_ref() != Some(&message) {
            self.progress.say(&message);
            self.trouble = Some(message);
        }
    }

    fn tell(&mut self, line: &Line<'_>) {
        let Some(report) = &mut self.report else { return };
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            report.write_all(&text).and_then(|()| report.flush())
        });
        if written.is_err() {
            // Who read it is gone; the folders say the same.
            self.report = None;
        }
    }
}

fn may_pass(error: &Error) -> bool {
    matches!(error, Error::GaveUp { .. } | Error::Disconnected)
}

/// Whether the entry is a file (or a link to one) that is named as certificates are.
fn is_certificate_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    !name.as_encoded_bytes().starts_with(b".")
        && extension(Path::new(&name)).is_some_and(|name| ["pem", "crt", "cer", "der"].contains(&name.as_str()))
        && entry.file_type().is_ok_and(|kind| !kind.is_dir())
}

/// The device's certificate of a file, DER. Whether it was issued is for the daemon to say.
fn content(path: &Path) -> Result<Vec<u8>, ContentError> {
    let octets = text_file::read_octets(text_file::open_regular(path)?, LONGEST_CERTIFICATES)?;
    let der = match pem::is_der(&octets) {
        true => octets,
        false => {
            let first = pem::blocks(&octets)?.into_iter().next().ok_or(ContentError::Nothing)?;
            if !first.is_certificate() {
                return Err(ContentError::Other(shortened(&first.label)));
            }
            first.der
        }
    };
    if fields::is_ca(&der) {
        return Err(ContentError::Other("CA certificate".to_owned()));
    }
    // One that ends early is not whole yet.
    fields::certificate_key(&der).map(drop).map_err(|_| ContentError::Nothing)?;
    Ok(der)
}
