//! Where CSRs come from: a folder, a file, JSON lines, or a folder that is watched.
//!
//! One thread reads and stays at most the channel's bound ahead, so a folder of a million CSRs or an endless pipe needs
//! no more memory than a small one (but see `Seen`). The thread ends when the receiver is dropped; one that is
//! blocked on standard input ends with the process.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use self::lines::Line;
use super::{fields, places::Places, progress::Progress};
use crate::{
    id::{DeviceId, OrderId},
    quote::{quoted, shortened},
    text_file::{self, TextError},
};

mod decode;
mod lines;
mod watch;

/// The longest file or line that is read: the longest CSR as PEM, with whatever text some tools put before it.
const LONGEST_TEXT: usize = 64 << 10;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Every CSR that is in the folder now.
    Folder(PathBuf),
    /// One CSR.
    File(PathBuf),
    /// JSON lines from a file.
    Lines(PathBuf),
    /// JSON lines from standard input, while the producer still writes.
    StandardInput,
    /// Every CSR that is in the folder or comes later.
    Watch {
        /// The folder.
        folder: PathBuf,
        /// How often to look.
        poll: Duration,
        /// How long a file that is not whole must be unchanged until it is final.
        settle: Duration,
    },
}

impl Input {
    /// Says what kind of input a path is; `-` is standard input.
    ///
    /// # Errors
    /// A sentence, if there is no such file or folder.
    pub fn at(path: &Path) -> Result<Self, String> {
        if path == Path::new("-") {
            return Ok(Input::StandardInput);
        }
        let metadata = fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let path = path.to_owned();
        Ok(match extension(&path).as_deref() {
            _ if metadata.is_dir() => Input::Folder(path),
            Some("jsonl" | "ndjson") => Input::Lines(path),
            _ => Input::File(path),
        })
    }

    /// As people call it.
    pub fn name(&self) -> String {
        match self {
            Input::Folder(path) | Input::File(path) | Input::Lines(path) | Input::Watch { folder: path, .. } => {
                path.display().to_string()
            }
            Input::StandardInput => "standard input".to_owned(),
        }
    }
}

/// One device, as far as it can be known without the daemon.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// It wants a certificate.
    Wanted(Wanted),
    /// It has its certificate from an earlier run.
    AlreadyThere {
        /// The device.
        device_id: String,
        /// The DER certificate that was found.
        certificate: Vec<u8>,
        /// The file that the CSR came from.
        file: Option<PathBuf>,
    },
    /// There is nothing that the daemon could be asked.
    Refused(Refused),
}

/// A device that wants a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The device; is a [`DeviceId`].
    pub device_id: String,
    /// The CSR, DER.
    pub csr: Bytes,
    /// The DER `SubjectPublicKeyInfo` of the CSR.
    pub key: Vec<u8>,
    /// The file that the CSR came from; none for JSON lines.
    pub file: Option<PathBuf>,
    /// Where its line differs from the run.
    pub terms: Terms,
}

/// Under which terms a certificate is wanted, where they are not the run's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The production order.
    pub order: Option<String>,
    /// The profile.
    pub profile: Option<String>,
}

/// A device that gets no certificate, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The device as the input named it; it need not be a [`DeviceId`].
    pub device_id: String,
    /// The file that the CSR came from; none for JSON lines.
    pub file: Option<PathBuf>,
    /// Where its line differs from the run.
    pub terms: Terms,
    /// The daemon's reason, or one of `CSR_UNREADABLE`, `CSR_MALFORMED`, `REQUEST_INVALID`, `NAME_REFUSED`,
    /// `DUPLICATE_DEVICE`, `REPLY_MISMATCH`, `NOT_WRITTEN` if it was found out here.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Starts reading. An error ends the channel: the input as a whole cannot be read (on).
pub fn start(
    input: Input,
    places: Arc<Places>,
    progress: Arc<Progress>,
    bound: usize,
) -> mpsc::Receiver<Result<Item, String>> {
    let (items, receiver) = mpsc::channel(bound);
    // Not tokio's pool for blocking work: its shutdown would wait for a read of standard input that never returns.
    thread::spawn(move || {
        let mut reader = Source { places, progress, seen: Seen::default(), items };
        let name = input.name();
        let ended = match input {
            Input::Folder(folder) => reader.folder(&folder),
            Input::File(path) => {
                reader.progress.expect(1);
                // A pipe that was named is read, as a shell's <(…); one that lies in a folder blocks nobody.
                let content = File::open(&path).map_err(TextError::Io).and_then(read_beginning);
                reader.file(path, content)
            }
            Input::Lines(path) => reader.lines_file(&path),
            Input::StandardInput => {
                lines::reader(io::stdin()).map_err(Ended::Broken).and_then(|input| reader.lines(input))
            }
            Input::Watch { folder, poll, settle } => reader.watch(&folder, poll, settle),
        };
        if let Err(Ended::Broken(error)) = ended {
            // A receiver that is gone has stopped reading and does not want to know.
            let _ = reader.items.blocking_send(Err(format!("cannot read {name}: {error}")));
        }
    });
    receiver
}

/// Why reading ended early.
enum Ended {
    /// Nobody wants more.
    Unwanted,
    /// The input cannot be read.
    Broken(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Broken(error)
    }
}

struct Source {
    places: Arc<Places>,
    progress: Arc<Progress>,
    seen: Seen,
    items: mpsc::Sender<Result<Item, String>>,
}

impl Source {
    fn folder(&mut self, folder: &Path) -> Result<(), Ended> {
        // Twice through the folder, so that the time left can be told without keeping the names.
        let mut total = 0;
        for entry in fs::read_dir(folder)? {
            total += u64::from(is_csr_file(&entry?));
        }
        self.progress.expect(total);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if is_csr_file(&entry) {
                let content = read_csr_file(&entry.path());
                self.file(entry.path(), content)?;
            } else if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                self.progress.ignore();
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, content: Result<Vec<u8>, TextError>) -> Result<(), Ended> {
        let device_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let item = match content {
            Ok(content) => self.item(device_id, Some(path), Terms::default(), || decode::csr_of_file(&content)),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                refused(device_id, Some(path), Terms::default(), "CSR_UNREADABLE", message)
            }
        };
        self.items.blocking_send(Ok(item)).map_err(|_| Ended::Unwanted)
    }

    fn lines_file(&mut self, path: &Path) -> Result<(), Ended> {
        if let Some(total) = lines::count(File::open(path)?)? {
            self.progress.expect(total);
        }
        self.lines(lines::reader(File::open(path)?)?)
    }

    fn lines(&mut self, mut input: impl BufRead) -> Result<(), Ended> {
        let mut number = 0;
        while let Some(line) = lines::next(&mut input)? {
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let item = match Line::parse(&line) {
                Ok(Line { device_id, csr, order, profile }) => {
                    self.item(device_id, None, Terms { order, profile }, || decode::csr_of_text(&csr))
                }
                Err(error) => {
                    let message = format!("line {number} {error}");
                    refused(format!("(line {number})"), None, Terms::default(), "REQUEST_INVALID", message)
                }
            };
            self.items.blocking_send(Ok(item)).map_err(|_| Ended::Unwanted)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        device_id: String,
        file: Option<PathBuf>,
        terms: Terms,
        csr: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Item {
        if DeviceId::check(&device_id).is_err() {
            let message = format!(
                "{} is not a device id: 1 to {} characters of A-Z a-z 0-9 . _ : -, \
                 the first a letter or digit",
                quoted(&device_id),
                DeviceId::LONGEST
            );
            return refused(device_id, file, terms, "REQUEST_INVALID", message);
        }
        if let Some(order) = terms.order.as_deref().filter(|order| OrderId::check(order).is_err()) {
            let message = format!("{} cannot be the id of an order", quoted(order));
            return refused(device_id, file, terms, "REQUEST_INVALID", message);
        }
        if let Err(message) = self.places.claim(&device_id) {
            return refused(device_id, file, terms, "NAME_REFUSED", message);
        }
        let csr = match csr() {
            Ok(csr) => csr,
            Err(message) => return refused(device_id, file, terms, "CSR_MALFORMED", message),
        };
        let key = match fields::csr_key(&csr) {
            Ok(key) => key.to_vec(),
            Err(message) => return refused(device_id, file, terms, "CSR_MALFORMED", message),
        };
        // A watched folder runs for ever and moves what is done; there the daemon alone decides.
        if self.places.watched().is_none() && !self.seen.first_or_same(&device_id, &csr) {
            let message = "an earlier CSR of this run for the same device is a different one".to_owned();
            return refused(device_id, file, terms, "DUPLICATE_DEVICE", message);
        }
        match self.places.existing(&device_id, &key) {
            Some(certificate) => Item::AlreadyThere { device_id, certificate, file },
            None => Item::Wanted(Wanted { device_id, csr: csr.into(), key, file, terms }),
        }
    }
}

/// What was read in this run: 16 bytes a device, the one thing here that grows with the input.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    csrs: HashMap<u64, u64>,
}

impl Seen {
    /// False if another CSR came for this device before.
    fn first_or_same(&mut self, device_id: &str, csr: &[u8]) -> bool {
        let csr = self.hasher.hash_one(csr);
        *self.csrs.entry(self.hasher.hash_one(device_id)).or_insert(csr) == csr
    }
}

fn refused(device_id: String, file: Option<PathBuf>, terms: Terms, reason: &str, message: String) -> Item {
    Item::Refused(Refused { device_id: shortened(&device_id), file, terms, reason: reason.to_owned(), message })
}

/// The beginning of a file that is named as CSRs are; one byte more than the longest CSR's.
fn read_csr_file(path: &Path) -> Result<Vec<u8>, TextError> {
    text_file::open_regular(path).and_then(read_beginning)
}

fn read_beginning(file: File) -> Result<Vec<u8>, TextError> {
    let mut content = Vec::new();
    file.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the entry is a file (or a link to one) that is named as CSRs are.
fn is_csr_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    // Half-written files of other programs begin with a dot.
    !name.as_encoded_bytes().starts_with(b".")
        && extension(Path::new(&name)).is_some_and(|name| ["csr", "pem", "der", "p10", "req"].contains(&name.as_str()))
        && entry.file_type().is_ok_and(|kind| !kind.is_dir())
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests {
    use base64::Engine;

    use super::*;

    fn csr() -> Result<(Vec<u8>, String), Box<dyn std::error::Error>> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        Ok((csr.der().to_vec(), csr.pem()?))
    }

    fn read(input: Input, out: &Path) -> Vec<Result<Item, String>> {
        let places = Arc::new(Places::new(out.to_owned(), false, None));
        let mut items = start(input, places, Arc::new(Progress::silent()), 2);
        std::iter::from_fn(|| items.blocking_recv()).collect()
    }

    #[test]
    fn a_folder_gives_csrs_in_every_encoding_and_reports_what_is_none() -> Result<(), Box<dyn std::error::Error>> {
        let (der, pem) = csr()?;
        let folder = tempfile::tempdir()?;
        let put = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content);
        put("a.csr", pem.as_bytes())?;
        put("b.DER", &der)?;
        put("c.pem", format!("Certificate Request:\n    Data:\n{pem}").as_bytes())?;
        put("d.req", b"")?;
        put("e.p10", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
        put("no id.csr", pem.as_bytes())?;
        put("readme.txt", b"")?;
        put(".a.csr", b"")?;
        fs::create_dir(folder.path().join("f.csr"))?;
        std::os::unix::fs::symlink("nowhere", folder.path().join("g.csr"))?;
        let mut found: Vec<_> = read(Input::Folder(folder.path().to_owned()), folder.path())
            .into_iter()
            .map(|item| match item {
                Ok(Item::Wanted(wanted)) => {
                    assert_eq!(wanted.csr, der);
                    (wanted.device_id, "wanted".to_owned())
                }
                Ok(Item::Refused(refused)) => (refused.device_id, refused.reason),
                other => ("?".to_owned(), format!("{other:?}")),
            })
            .collect();
        found.sort();
        let expected = [
            ("a", "wanted"),
            ("b", "wanted"),
            ("c", "wanted"),
            ("d", "CSR_MALFORMED"),
            ("e", "CSR_MALFORMED"),
            ("g", "CSR_UNREADABLE"),
            ("no id", "REQUEST_INVALID"),
        ];
        assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what.to_owned())));
        Ok(())
    }

    #[test]
    fn lines_take_pem_and_base64_and_a_bad_line_stops_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let (der, pem) = csr()?;
        let (_, other) = csr()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("in.jsonl");
        let line = |id: &str, csr: &str| serde_json::json!({"device_id": id, "csr": csr}).to_string();
        let lines = [
            line("a", &pem),
            line("b", &base64::prelude::BASE64_STANDARD.encode(&der)),
            "{\"device_id\": \"c\"}".to_owned(),
            String::new(),
            line("../../etc/passwd", &pem),
            line("d", &"A".repeat(LONGEST_TEXT)),
            line("a", &other),
            line("a", &pem),
        ];
        fs::write(&path, lines.join("\r\n"))?;
        let found: Vec<_> = read(Input::at(&path)?, folder.path())
            .into_iter()
            .map(|item| match item {
                Ok(Item::Wanted(wanted)) => (wanted.device_id, "wanted".to_owned()),
                Ok(Item::Refused(refused)) => (refused.device_id, refused.reason),
                other => ("?".to_owned(), format!("{other:?}")),
            })
            .collect();
        let expected = [
            ("a", "wanted"),
            ("b", "wanted"),
            ("(line 3)", "REQUEST_INVALID"),
            ("../../etc/passwd", "REQUEST_INVALID"),
            ("(line 6)", "REQUEST_INVALID"),
            ("a", "DUPLICATE_DEVICE"),
            ("a", "wanted"),
        ];
        assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what.to_owned())));
        Ok(())
    }

    #[test]
    fn an_input_that_is_not_there_is_named() {
        let error = Input::at(Path::new("/nowhere/at/all")).map_err(|error| error.contains("/nowhere/at/all"));
        assert_eq!(error, Err(true));
        assert_eq!(Input::at(Path::new("-")), Ok(Input::StandardInput));
    }
}
