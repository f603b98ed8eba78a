//! An allow-list on disk: what one verified bundle says of each certificate. A look-up reads two small places of the file,
//! whatever its size, and making one takes no more memory for a million certificates than for one.
//!
//! | offset | what |
//! |---|---|
//! | 0 | `BMAWSAL1` |
//! | 8 | SHA-256 of the bundle's manifest |
//! | 40 | number of records, then of buckets: u64 each, little endian, as are all numbers |
//! | 56 | where each bucket begins among the records, and the last one ends: u64 each |
//! | … | records: id (32), where its text begins (u64), its length (u32), CRC-32C of all that and of the text (u32) |
//! | … | texts: JSON |
//!
//! A bucket holds the ids that begin alike, in no order. The file is a copy of what was verified: it can be deleted, and is
//! made from the bundle again.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use birthmark::durable::{Access, Unfinished};
use serde::{Deserialize, Serialize};

use crate::{arn::CertificateId, template::Device};

const MAGIC: &[u8; 8] = b"BMAWSAL1";
const HEADER: u64 = 56;
const RECORD: u64 = 48;

/// The longest text that is believed.
const LONGEST_TEXT: u32 = 1 << 20;

/// About so many records share a bucket.
const SHARE: u64 = 8;

/// What a bundle says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It is a device's.
    Device(Device),
    /// It is withdrawn: scrapped, revoked or replaced.
    Withdrawn(Withdrawal),
}

/// Why a certificate is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// The device that had it.
    pub device_id: String,
    /// `scrapped` or `revoked`, and why.
    pub reason: String,
}

/// An allow-list that is open.
#[derive(Debug)]
pub struct List {
    file: File,
    path: PathBuf,
    manifest: [u8; 32],
    records: u64,
    buckets: u64,
}

/// A certificate in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record's position, below [`List::len`].
    pub index: u64,
    /// What the bundle says.
    pub entry: Entry,
}

/// Why a list cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file system's reason.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file is not what was written.
    #[error("the allow-list {path} is damaged; give its bundle again, which makes it anew")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a list of so many entries, which come in any order.
pub struct Writer {
    unfinished: Unfinished,
    path: PathBuf,
    texts: BufWriter<File>,
    /// The records in the order in which they came.
    records: BufWriter<File>,
    counts: Vec<u64>,
    text_at: u64,
    written: u64,
    expected: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

fn buckets(records: u64) -> u64 {
    (records / SHARE).next_power_of_two().clamp(1, 1 << 20)
}

/// The bucket of an id.
fn bucket(id: &CertificateId, buckets: u64) -> u64 {
    let [a, b, c, d, ..] = *id.octets();
    u64::from(u32::from_be_bytes([a, b, c, d])) & (buckets - 1)
}

fn records_at(buckets: u64) -> u64 {
    HEADER + (buckets + 1) * 8
}

fn checksum(id: &CertificateId, text_at: u64, text: &[u8]) -> u32 {
    let head = crc32c::crc32c(id.octets());
    crc32c::crc32c_append(crc32c::crc32c_append(head, &text_at.to_le_bytes()), text)
}

impl Writer {
    /// Begins the list of a bundle with this manifest.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(path: &Path, manifest: &[u8; 32], expected: u64) -> Result<Writer, ListError> {
        let io = |cause| ListError::Io { path: path.to_owned(), cause };
        let begin = || -> io::Result<Writer> {
            let unfinished = Unfinished::create(path, Access::Public)?;
            let buckets = buckets(expected);
            let text_at = records_at(buckets) + expected * RECORD;
            let mut file = unfinished.file().try_clone()?;
            file.write_all(MAGIC)?;
            file.write_all(manifest)?;
            file.write_all(&expected.to_le_bytes())?;
            file.write_all(&buckets.to_le_bytes())?;
            file.seek(SeekFrom::Start(text_at))?;
            let folder = path.parent().unwrap_or(Path::new("."));
            Ok(Writer {
                unfinished,
                path: path.to_owned(),
                texts: BufWriter::new(file),
                records: BufWriter::new(tempfile::tempfile_in(folder)?),
                counts: vec![0; usize::try_from(buckets).unwrap_or(1)],
                text_at,
                written: 0,
                expected,
            })
        };
        begin().map_err(io)
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// The file system's.
    pub fn push(&mut self, id: &CertificateId, entry: &Entry) -> Result<(), ListError> {
        let text = serde_json::to_vec(entry).map_err(io::Error::other);
        let pushed = text.and_then(|text| {
            let length = u32::try_from(text.len()).map_err(io::Error::other)?;
            self.texts.write_all(&text)?;
            self.records.write_all(id.octets())?;
            self.records.write_all(&self.text_at.to_le_bytes())?;
            self.records.write_all(&length.to_le_bytes())?;
            self.records.write_all(&checksum(id, self.text_at, &text).to_le_bytes())?;
            self.text_at += u64::from(length);
            self.written += 1;
            let bucket = usize::try_from(bucket(id, self.counts.len() as u64)).unwrap_or_default();
            if let Some(count) = self.counts.get_mut(bucket) {
                *count += 1;
            }
            Ok(())
        });
        pushed.map_err(|cause| ListError::Io { path: self.path.clone(), cause })
    }

    /// Puts the records into their buckets; the list is there when this returns, and not before.
    ///
    /// # Errors
    /// The file system's, or another number of entries came than was said.
    pub fn finish(mut self) -> Result<(), ListError> {
        let path = self.path.clone();
        let finished = (|| {
            if self.written != self.expected {
                let told = format!("{} entries came, {} were expected", self.written, self.expected);
                return Err(io::Error::other(told));
            }
            self.texts.flush()?;
            let buckets = self.counts.len() as u64;
            let mut next = Vec::with_capacity(self.counts.len());
            let mut begin: u64 = 0;
            let mut table = Vec::with_capacity(self.counts.len() * 8 + 8);
            for count in &self.counts {
                table.extend(begin.to_le_bytes());
                next.push(begin);
                begin += count;
            }
            table.extend(begin.to_le_bytes());
            let file = self.unfinished.file();
            file.write_all_at(&table, HEADER)?;
            let mut unsorted = self.records.into_inner().map_err(io::IntoInnerError::into_error)?;
            unsorted.seek(SeekFrom::Start(0))?;
            let mut unsorted = BufReader::new(unsorted);
            let mut record = [0; RECORD as usize];
            for _ in 0..self.written {
                unsorted.read_exact(&mut record)?;
                let id = CertificateId::from_octets(first(&record));
                let slot = usize::try_from(bucket(&id, buckets)).ok().and_then(|bucket| next.get_mut(bucket));
                let Some(slot) = slot else { continue };
                file.write_all_at(&record, records_at(buckets) + *slot * RECORD)?;
                *slot += 1;
            }
            self.unfinished.finish()
        })();
        finished.map_err(|cause| ListError::Io { path, cause })
    }
}

/// The first octets of a record or of a part of one; zeros if there are fewer.
fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut found = [0; N];
    for (to, from) in found.iter_mut().zip(octets) {
        *to = *from;
    }
    found
}

/// A record, taken apart.
struct Record {
    id: CertificateId,
    text_at: u64,
    length: u32,
    checksum: u32,
}

impl Record {
    fn of(octets: &[u8]) -> Record {
        let from = |at: usize| octets.get(at..).unwrap_or_default();
        Record {
            id: CertificateId::from_octets(first(octets)),
            text_at: u64::from_le_bytes(first(from(32))),
            length: u32::from_le_bytes(first(from(40))),
            checksum: u32::from_le_bytes(first(from(44))),
        }
    }
}

impl List {
    /// Opens a list; none if there is no file.
    ///
    /// # Errors
    /// The file system's, or the file is damaged.
    pub fn open(path: &Path) -> Result<Option<List>, ListError> {
        let damaged = || ListError::Damaged { path: path.to_owned() };
        let io = |cause| ListError::Io { path: path.to_owned(), cause };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io)?,
        };
        let mut head = [0; HEADER as usize];
        file.read_exact(&mut head).map_err(|_| damaged())?;
        let from = |at: usize| head.get(at..).unwrap_or_default();
        if first::<8>(&head) != *MAGIC {
            return Err(damaged());
        }
        let (records, told) = (u64::from_le_bytes(first(from(40))), u64::from_le_bytes(first(from(48))));
        let length = file.metadata().map_err(io)?.len();
        let holds = records.checked_mul(RECORD).is_some_and(|octets| octets <= length);
        if !holds || told != buckets(records) {
            return Err(damaged());
        }
        Ok(Some(List { file, path: path.to_owned(), manifest: first(from(8)), records, buckets: told }))
    }

    /// SHA-256 of the manifest of the bundle that it was made from.
    pub fn manifest(&self) -> &[u8; 32] {
        &self.manifest
    }

    /// How many certificates it has.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Looks a certificate up.
    ///
    /// # Errors
    /// The file system's, or the file is damaged.
    pub fn find(&self, id: &CertificateId) -> Result<Option<Found>, ListError> {
        let at = bucket(id, self.buckets);
        let bounds = self.read(HEADER + at * 8, 16)?;
        let (begin, end) = bounds.split_at_checked(8).unwrap_or_default();
        let (begin, end) = (u64::from_le_bytes(first(begin)), u64::from_le_bytes(first(end)));
        if begin > end || end > self.records {
            return Err(self.damaged());
        }
        let octets = self.read(records_at(self.buckets) + begin * RECORD, (end - begin) * RECORD)?;
        let mut records = octets.chunks_exact(RECORD as usize).map(Record::of).zip(begin..);
        let Some((record, index)) = records.find(|(record, _)| record.id == *id) else { return Ok(None) };
        Ok(Some(Found { index, entry: self.entry(&record)? }))
    }

    /// Looks at all certificates, in no order.
    ///
    /// # Errors
    /// The file system's, or the file is damaged.
    pub fn for_each(&self, mut look: impl FnMut(u64, CertificateId, Entry)) -> Result<(), ListError> {
        const STEP: u64 = 1024;
        let mut index = 0;
        while index < self.records {
            let count = STEP.min(self.records - index);
            let octets = self.read(records_at(self.buckets) + index * RECORD, count * RECORD)?;
            for record in octets.chunks_exact(RECORD as usize).map(Record::of) {
                look(index, record.id, self.entry(&record)?);
                index += 1;
            }
        }
        Ok(())
    }

    fn entry(&self, record: &Record) -> Result<Entry, ListError> {
        if record.length > LONGEST_TEXT {
            return Err(self.damaged());
        }
        let text = self.read(record.text_at, record.length.into())?;
        if checksum(&record.id, record.text_at, &text) != record.checksum {
            return Err(self.damaged());
        }
        serde_json::from_slice(&text).map_err(|_| self.damaged())
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>, ListError> {
        let length = usize::try_from(length).map_err(|_| self.damaged())?;
        let mut octets = vec![0; length];
        match self.file.read_exact_at(&mut octets, at) {
            Ok(()) => Ok(octets),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged()),
            Err(cause) => Err(ListError::Io { path: self.path.clone(), cause }),
        }
    }

    fn damaged(&self) -> ListError {
        ListError::Damaged { path: self.path.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Thing;

    const MANIFEST: [u8; 32] = [7; 32];

    fn entry(number: u32) -> Entry {
        if number.is_multiple_of(10) {
            return Entry::Withdrawn(Withdrawal { device_id: format!("dev-{number}"), reason: "scrapped".into() });
        }
        let thing = Thing { name: format!("dev-{number}"), ..Thing::default() };
        Entry::Device(Device { thing, policy: "device".into() })
    }

    fn id(number: u32) -> CertificateId {
        CertificateId::of(&number.to_be_bytes())
    }

    fn list(folder: &Path, count: u32) -> PathBuf {
        let path = folder.join(format!("{count}.list"));
        let mut writer = Writer::create(&path, &MANIFEST, count.into()).unwrap();
        (0..count).for_each(|number| writer.push(&id(number), &entry(number)).unwrap());
        assert!(!path.exists(), "it has its name before it is whole");
        writer.finish().unwrap();
        path
    }

    /// Every certificate is found with its own entry, and no other one; each has an index of its own.
    #[test]
    fn list_finds_what_was_written_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for count in [0, 1, 7, 5_000] {
            let list = List::open(&list(folder.path(), count)).unwrap().unwrap();
            assert_eq!(list.len(), u64::from(count));
            let mut indices = std::collections::BTreeSet::new();
            for number in (0..count).step_by(7) {
                let found = list.find(&id(number)).unwrap().unwrap();
                assert_eq!(found.entry, entry(number));
                assert!(found.index < list.len() && indices.insert(found.index));
            }
            for number in count..count + 500 {
                assert_eq!(list.find(&id(number)).unwrap(), None);
            }
            let mut seen = 0;
            list.for_each(|index, id, entry| {
                assert_eq!(list.find(&id).unwrap(), Some(Found { index, entry }));
                seen += 1;
            })
            .unwrap();
            assert_eq!(seen, count);
        }
    }

    /// A list tells which bundle it was made from.
    #[test]
    fn list_tells_the_manifest_it_was_made_from() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(List::open(&list(folder.path(), 3)).unwrap().unwrap().manifest(), &MANIFEST);
        assert!(List::open(&folder.path().join("none")).unwrap().is_none());
    }

    /// A flipped bit never makes a certificate another device's, or known: it is found damaged, or not found.
    #[test]
    fn list_with_a_flipped_bit_tells_nothing_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = list(folder.path(), 20);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let copy = folder.path().join("copy");
            std::fs::File::create(&copy).unwrap().write_all(&damaged).unwrap();
            let Ok(Some(list)) = List::open(&copy) else { continue };
            for number in 0..20 {
                match list.find(&id(number)) {
                    Ok(Some(found)) => assert_eq!(found.entry, entry(number), "octet {at}"),
                    Ok(None) | Err(ListError::Damaged { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }

    /// A list that lacks an entry is not finished.
    #[test]
    fn list_that_lacks_entries_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.list");
        let mut writer = Writer::create(&path, &MANIFEST, 2).unwrap();
        writer.push(&id(1), &entry(1)).unwrap();
        assert!(writer.finish().is_err());
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// The memory and times of a list of a million: `cargo test --release -p birthmark-aws --lib -- --ignored --nocapture
    /// figures_of`.
    #[test]
    #[ignore = "figures, not a law"]
    fn figures_of_a_list_of_a_million() {
        const COUNT: u32 = 1_000_000;
        let folder = tempfile::tempdir().unwrap();
        let peak_kib = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let (before, began) = (peak_kib(), std::time::Instant::now());
        let path = list(folder.path(), COUNT);
        let written = began.elapsed();
        let list = List::open(&path).unwrap().unwrap();
        let began = std::time::Instant::now();
        (0..COUNT).step_by(100).for_each(|number| assert!(list.find(&id(number)).unwrap().is_some()));
        let look_up = began.elapsed() / (COUNT / 100);
        let octets = std::fs::metadata(&path).unwrap().len();
        let more = (peak_kib() - before) / 1024;
        println!(
            "{COUNT} certificates: {} MiB on disk, written in {written:.1?}, a look-up {look_up:.1?}, {more} MiB more memory",
            octets >> 20
        );
    }
}
