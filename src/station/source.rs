//! Where CSRs come from: a folder, a file, JSON lines, or a folder that is watched.
//!
//! One thread reads and stays at most the channel's bound ahead, so a folder of a million CSRs or an endless pipe needs
//! no more memory than a small one (but see `Seen`). The thread ends when the receiver is dropped; one that is
//! blocked on standard input ends with the process.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{LONGEST_DEVICE_ID, fields, is_id, output::Places, progress::Progress};
use crate::{csr, pem::is_der};

/// The longest CSR that the daemon takes, in bytes of DER.
const LONGEST_CSR: usize = 16 << 10;

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
    /// The device; fits [`is_id`].
    pub device_id: String,
    /// The CSR, DER.
    pub csr: Bytes,
    /// The DER `SubjectPublicKeyInfo` of the CSR.
    pub key: Vec<u8>,
    /// The file that the CSR came from; none for JSON lines.
    pub file: Option<PathBuf>,
}

/// A device that gets no certificate, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The device as the input named it; it need not fit [`is_id`].
    pub device_id: String,
    /// The file that the CSR came from; none for JSON lines.
    pub file: Option<PathBuf>,
    /// The daemon's reason, or one of `CSR_UNREADABLE`, `CSR_MALFORMED`, `REQUEST_INVALID`, `DUPLICATE_DEVICE`,
    /// `REPLY_MISMATCH` if it was found out here.
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
                reader.file(path).map_or(Ok(()), Err)
            }
            Input::Lines(path) => reader.lines_file(&path),
            Input::StandardInput => reader.lines(BufReader::new(io::stdin())),
            Input::Watch { folder, poll } => reader.watch(&folder, poll),
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
                if let Some(ended) = self.file(entry.path()) {
                    return Err(ended);
                }
            } else if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                self.progress.ignore();
            }
        }
        Ok(())
    }

    /// Gives the reason if nobody wants more.
    fn file(&mut self, path: PathBuf) -> Option<Ended> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let item = self.item_of_file(stem, path);
        self.items.blocking_send(Ok(item)).is_err().then_some(Ended::Unwanted)
    }

    fn item_of_file(&mut self, device_id: String, path: PathBuf) -> Item {
        let csr = File::open(&path).and_then(|file| {
            let mut content = Vec::new();
            file.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut content)?;
            Ok(content)
        });
        match csr {
            Ok(content) => self.item(device_id, Some(path), || der_of_file(&content)),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                refused(device_id, Some(path), "CSR_UNREADABLE", message)
            }
        }
    }

    fn lines_file(&mut self, path: &Path) -> Result<(), Ended> {
        let mut total = 0;
        let mut counted = BufReader::new(File::open(path)?);
        while counted.skip_until(b'\n')? > 0 {
            total += 1;
        }
        self.progress.expect(total);
        self.lines(BufReader::new(File::open(path)?))
    }

    fn lines(&mut self, mut input: impl BufRead) -> Result<(), Ended> {
        let mut number = 0;
        while let Some(line) = next_line(&mut input)? {
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let item = match parse_line(&line) {
                Ok(line) => self.item(line.device_id, None, || der_of_text(&line.csr)),
                Err(error) => {
                    refused(format!("(line {number})"), None, "REQUEST_INVALID", format!("line {number} {error}"))
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
        csr: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Item {
        if !is_id(&device_id, LONGEST_DEVICE_ID) {
            let message = format!(
                "\"{}\" is not a device id: 1 to {LONGEST_DEVICE_ID} characters of A-Z a-z 0-9 . _ : -, \
                 the first a letter or digit",
                device_id.escape_debug()
            );
            return refused(device_id, file, "REQUEST_INVALID", message);
        }
        if let Err(message) = self.places.fits(&device_id) {
            return refused(device_id, file, "REQUEST_INVALID", message);
        }
        let csr = match csr() {
            Ok(csr) => csr,
            Err(message) => return refused(device_id, file, "CSR_MALFORMED", message),
        };
        let key = match fields::csr_key(&csr) {
            Ok(key) => key.to_vec(),
            Err(message) => return refused(device_id, file, "CSR_MALFORMED", message),
        };
        // A watched folder runs for ever and moves what is done; there the daemon alone decides.
        if self.places.watched().is_none() && !self.seen.first_or_same(&device_id, &csr) {
            let message = "an earlier CSR of this run for the same device is a different one".to_owned();
            return refused(device_id, file, "DUPLICATE_DEVICE", message);
        }
        match self.places.existing(&device_id, &key) {
            Some(certificate) => Item::AlreadyThere { device_id, certificate, file },
            None => Item::Wanted(Wanted { device_id, csr: csr.into(), key, file }),
        }
    }

    /// Looks at the folder every `poll`, since notifications do not reach across network shares, and takes a file
    /// once two looks found it unchanged: until then somebody may still be writing it.
    fn watch(&mut self, folder: &Path, poll: Duration) -> Result<(), Ended> {
        let mut known = HashMap::new();
        let mut readable = true;
        loop {
            match look(folder) {
                Ok(now) => {
                    if !readable {
                        self.progress.say(&format!("{} can be read again", folder.display()));
                        readable = true;
                    }
                    for name in settled(&mut known, now) {
                        if let Some(ended) = self.file(folder.join(name)) {
                            return Err(ended);
                        }
                    }
                }
                Err(error) => {
                    // A network share that is gone comes back.
                    if readable {
                        self.progress.say(&format!("cannot read {}: {error}; trying on", folder.display()));
                        readable = false;
                    }
                }
            }
            if self.items.is_closed() {
                return Err(Ended::Unwanted);
            }
            thread::sleep(poll);
        }
    }
}

/// Size and time of the last change of a file: what changes while somebody writes it.
type Look = (u64, SystemTime);

fn look(folder: &Path) -> io::Result<HashMap<OsString, Look>> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_csr_file(&entry) {
            continue;
        }
        // A file that vanished between the two calls is not there.
        if let Ok(metadata) = fs::metadata(entry.path()) {
            files.insert(entry.file_name(), (metadata.len(), metadata.modified()?));
        }
    }
    Ok(files)
}

/// The files that did not change since the last look and were not given out as they are. `known` remembers the files
/// that are in the folder now, and of each whether it was given out.
fn settled(known: &mut HashMap<OsString, (Look, bool)>, now: HashMap<OsString, Look>) -> Vec<OsString> {
    let mut names = Vec::new();
    let mut next = HashMap::with_capacity(now.len());
    for (name, look) in now {
        let (same, given) = known.get(&name).map_or((false, false), |(before, given)| (*before == look, *given));
        // Most tools make an empty file first.
        let give = same && !given && look.0 > 0;
        if give {
            names.push(name.clone());
        }
        next.insert(name, (look, give || (same && given)));
    }
    *known = next;
    names.sort();
    names
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

fn refused(device_id: String, file: Option<PathBuf>, reason: &str, message: String) -> Item {
    Item::Refused(Refused { device_id, file, reason: reason.to_owned(), message })
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

#[derive(Debug, Deserialize)]
struct Line {
    device_id: String,
    /// PEM, or base64 of DER.
    csr: String,
}

fn parse_line(line: &[u8]) -> Result<Line, String> {
    if line.len() > LONGEST_TEXT {
        return Err(format!("is longer than {LONGEST_TEXT} bytes"));
    }
    serde_json::from_slice(line)
        .map_err(|error| format!("is not of the form {{\"device_id\": \"…\", \"csr\": \"…\"}}: {error}"))
}

/// The next line without its end; of one that is too long only the beginning, still too long to be taken for whole.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(LONGEST_TEXT as u64 + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LONGEST_TEXT {
        input.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

fn der_of_file(content: &[u8]) -> Result<Vec<u8>, String> {
    if content.len() > LONGEST_TEXT {
        return Err(format!("the file is longer than {LONGEST_TEXT} bytes"));
    }
    if content.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if is_der(content) { within_limit(content.to_vec()) } else { der_of_pem(content) }
}

fn der_of_text(text: &str) -> Result<Vec<u8>, String> {
    if is_pem(text.as_bytes()) {
        return der_of_pem(text.as_bytes());
    }
    let compact: String = text.split_ascii_whitespace().collect();
    let der = BASE64_STANDARD.decode(compact);
    within_limit(der.map_err(|error| format!("the CSR is neither PEM nor base64 of DER: {error}"))?)
}

fn is_pem(content: &[u8]) -> bool {
    content.windows(11).any(|window| window == b"-----BEGIN ")
}

fn der_of_pem(content: &[u8]) -> Result<Vec<u8>, String> {
    csr::from_pem(content).map_err(|error| error.to_string()).and_then(within_limit)
}

fn within_limit(csr: Vec<u8>) -> Result<Vec<u8>, String> {
    match csr.len() {
        length if length > LONGEST_CSR => Err(format!("the CSR has {length} bytes; at most {LONGEST_CSR} are allowed")),
        _ => Ok(csr),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests {
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
            line("b", &BASE64_STANDARD.encode(&der)),
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

    #[test]
    fn a_file_is_taken_once_and_only_when_nobody_writes_it() {
        let look = |files: &[(&str, u64)]| {
            files.iter().map(|(name, size)| (OsString::from(name), (*size, SystemTime::UNIX_EPOCH))).collect()
        };
        let mut known = HashMap::new();
        for (files, taken) in [
            (&[("a", 10), ("b", 0)][..], &[][..]),
            (&[("a", 10), ("b", 5)], &["a"]),
            (&[("a", 10), ("b", 9)], &[]),
            (&[("a", 10), ("b", 9)], &["b"]),
            (&[("a", 10)], &[]),
            // Another one of the same name, later.
            (&[("a", 12), ("b", 9)], &[]),
            (&[("a", 12), ("b", 9)], &["a", "b"]),
        ] {
            assert_eq!(settled(&mut known, look(files)), taken.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
