//! Sorted runs: what the index knows of many records, in immutable files.
//!
//! Keys, devices and serial numbers are gathered in memory and written as a *run*, sorted, once; runs of one level are
//! merged into one of the next, as in a log-structured merge tree. A look-up asks the newest run first, and most runs
//! say no by their Bloom filter.
//!
//! What else was measured, at one million records on a machine with two busy cores (benches/ledger.rs and
//! benches/RESULTS.md; only the ratios matter): one sled tree that takes 65,536 records at a time, sorted, costs 43 µs a
//! record for the index alone, rising, 348 B of disk and 7.5 GB of memory; the whole ledger with runs stored in sled costs
//! 25 µs when empty and 35 µs with a million, 239 B; with runs as files 22 and 21 µs, 51 B.
//!
//! # The file
//!
//! Written once, under its name only when it is whole and on stable storage ([`crate::durable`]). Numbers are
//! little-endian.
//!
//! | part | bytes |
//! |---|---|
//! | header: magic, format, number, kind, level, journal's id, lines of the filter | 44, padded to 4096 |
//! | filter ([`filter`]) | pages of 4096, each with its checksum |
//! | groups: 256 blocks, then their fences | |
//! | &nbsp; block: 256 entries (the last one of a run: the rest, padded), checksum | |
//! | &nbsp; fences: the first key of each block of the group, padded, checksum | |
//! | footer: entries, the first key of each group; checksum of header and footer | |
//!
//! # Nothing is believed
//!
//! A run answers "there is none" to a daemon that then issues a certificate, so it must be able to prove it. The manifest
//! pins the number of entries, the length of the file, and the checksum of header and footer. From the entries follows
//! where every block must be and how many entries it must have; its first key must be the one in its fence, and the
//! first key of its fences the one in the footer. The checksum of a block, of fences or of a page of the filter also
//! covers the journal's id, the run's number and the place in it, so that another block is not taken for it. All of that
//! is checked whenever anything is read. What fails a check is an error, and the index is rebuilt.

pub(super) mod filter;
pub(super) mod write;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use self::filter::Filter;
use super::error::IndexError;
use crate::{
    ledger::{KeyHash, journal::Position, layer::DeviceHash},
    serial::SerialNumber,
};

/// How a run knows a public key or a device: 127 bits of its hash, and which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::ledger) struct LookupKey([u8; LookupKey::LENGTH]);

impl LookupKey {
    pub(super) const LENGTH: usize = 16;

    pub(in crate::ledger) fn from_key(hash: &KeyHash) -> Self {
        let mut name = [0; Self::LENGTH];
        name.copy_from_slice(&hash[..Self::LENGTH]);
        name[0] &= 0x7f;
        LookupKey(name)
    }

    pub(in crate::ledger) fn from_device(hash: &DeviceHash) -> Self {
        let mut name = *hash;
        name[0] |= 0x80;
        LookupKey(name)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where the newest reservation of a key or a device is.
    Names,
    /// The state of a serial number, and the entry that made it so, once that is something that came after the issue.
    States,
    /// Where a serial number was reserved, for some of them.
    Samples,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Names, Kind::States, Kind::Samples];

    fn code(self) -> u8 {
        match self {
            Kind::Names => 1,
            Kind::States => 2,
            Kind::Samples => 3,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Names => "names",
            Kind::States => "states",
            Kind::Samples => "samples",
        }
    }

    /// Bytes of a key.
    fn key(self) -> usize {
        match self {
            Kind::Names => LookupKey::LENGTH,
            Kind::States | Kind::Samples => SerialNumber::LENGTH,
        }
    }

    /// Bytes of a key and its value.
    pub(super) fn entry(self) -> usize {
        match self {
            Kind::Names | Kind::Samples => self.key() + 8,
            Kind::States => self.key() + 9,
        }
    }

    /// Whether runs of this kind have a filter. Serial numbers rise with time, so their runs hardly overlap.
    fn has_filter(self) -> bool {
        self == Kind::Names
    }
}

/// Entries in a block, and blocks in a group.
const BLOCK: usize = 256;
const CHECKSUM: usize = 4;
const MAGIC: &[u8; 8] = b"BMINDEX\0";
const FORMAT: u32 = 1;
/// Bytes before the filter; a page, so that the filter's pages are pages of the file.
const HEADER: usize = 4096;
/// Bytes of the longest block.
const LONGEST_BLOCK: usize = BLOCK * (SerialNumber::LENGTH + 9) + CHECKSUM;

/// What the manifest says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) kind: Kind,
    pub(super) number: u32,
    /// Runs of level n merge into one of level n + 1.
    pub(super) level: u8,
    pub(super) entries: u64,
    /// Of the file.
    pub(super) length: u64,
    /// The checksum of header and footer.
    pub(super) sum: u32,
}

impl Pin {
    /// Bytes as the manifest stores it.
    pub(super) const LENGTH: usize = 26;

    pub(super) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        (bytes[0], bytes[1]) = (self.kind.code(), self.level);
        bytes[2..6].copy_from_slice(&self.number.to_le_bytes());
        bytes[6..14].copy_from_slice(&self.entries.to_le_bytes());
        bytes[14..22].copy_from_slice(&self.length.to_le_bytes());
        bytes[22..26].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Pin> {
        let [code, level, number @ .., _, _, _, _] = bytes;
        let (number, rest) = number.split_first_chunk::<4>()?;
        let (entries, length) = rest.split_first_chunk::<8>()?;
        Some(Pin {
            kind: Kind::ALL.into_iter().find(|kind| kind.code() == *code)?,
            level: *level,
            number: u32::from_le_bytes(*number),
            entries: u64::from_le_bytes(*entries),
            length: u64::from_le_bytes(length.try_into().ok()?),
            sum: u32::from_le_bytes(*bytes.last_chunk()?),
        })
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        path(folder, self.kind, self.number)
    }
}

fn path(folder: &Path, kind: Kind, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.{}", kind.extension()))
}

/// Where the parts of a run are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    kind: Kind,
    /// Pages of the filter.
    pages: u64,
    entries: u64,
}

impl Layout {
    fn block_length(&self) -> usize {
        BLOCK * self.kind.entry() + CHECKSUM
    }

    fn fences_length(&self) -> usize {
        BLOCK * self.kind.key() + CHECKSUM
    }

    fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK as u64)
    }

    fn groups(&self) -> u64 {
        self.blocks().div_ceil(BLOCK as u64)
    }

    fn group_start(&self, group: u64) -> u64 {
        let length = (BLOCK * self.block_length() + self.fences_length()) as u64;
        HEADER as u64 + self.pages * filter::PAGE as u64 + group * length
    }

    fn block(&self, block: u64) -> u64 {
        let (group, within) = (block / BLOCK as u64, block % BLOCK as u64);
        self.group_start(group) + within * self.block_length() as u64
    }

    /// How many entries a block has.
    fn entries_in(&self, block: u64) -> usize {
        (self.entries - block * BLOCK as u64).min(BLOCK as u64) as usize
    }

    /// How many blocks a group has.
    fn blocks_in(&self, group: u64) -> usize {
        (self.blocks() - group * BLOCK as u64).min(BLOCK as u64) as usize
    }

    fn fences(&self, group: u64) -> u64 {
        self.group_start(group) + (self.blocks_in(group) * self.block_length()) as u64
    }

    fn footer(&self) -> u64 {
        match self.groups().checked_sub(1) {
            Some(last) => self.fences(last) + self.fences_length() as u64,
            None => self.group_start(0),
        }
    }

    fn footer_length(&self) -> usize {
        8 + self.groups() as usize * self.kind.key() + CHECKSUM
    }
}

/// What a checksum is about besides the bytes: which part of which run of which journal.
#[derive(Clone, Copy, Debug)]
struct Sums(u32);

#[derive(Clone, Copy, Debug)]
enum Part {
    Filter = 1,
    Block = 2,
    Fences = 3,
}

impl Sums {
    fn new(journal: &[u8; 16], kind: Kind, number: u32) -> Self {
        let run = crc32c::crc32c_append(crc32c::crc32c(journal), &number.to_le_bytes());
        Sums(crc32c::crc32c_append(run, &[kind.code()]))
    }

    fn of(&self, part: Part, place: u64, bytes: &[u8]) -> [u8; CHECKSUM] {
        let mut about = [part as u8; 9];
        about[1..].copy_from_slice(&place.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &about), bytes).to_le_bytes()
    }

    /// Whether `bytes` end with the checksum of the rest.
    fn fit(&self, part: Part, place: u64, bytes: &[u8]) -> bool {
        let Some((body, sum)) = bytes.split_last_chunk::<CHECKSUM>() else { return false };
        self.of(part, place, body) == *sum
    }
}

fn header(pin: &Pin, journal: &[u8; 16], lines: u32) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&pin.number.to_le_bytes());
    (bytes[16], bytes[17]) = (pin.kind.code(), pin.level);
    bytes[20..36].copy_from_slice(journal);
    bytes[36..40].copy_from_slice(&lines.to_le_bytes());
    bytes
}

/// A run, open for reading.
#[derive(Debug)]
pub(in crate::ledger) struct Run {
    pub(super) pin: Pin,
    path: PathBuf,
    file: File,
    sums: Sums,
    layout: Layout,
    filter: Option<Filter>,
    /// The first key of each group.
    top: Vec<u8>,
}

/// An entry that was found: its key, and its value padded with zeros.
pub(super) type Found = ([u8; SerialNumber::LENGTH], [u8; 9]);

impl Run {
    /// Opens a run that the manifest pins. Its filter is kept in memory if that takes no more than `memory` bytes.
    ///
    /// # Errors
    /// Whatever is not as it was written; blocks are checked when they are read.
    pub(super) fn open(folder: &Path, journal: &[u8; 16], pin: Pin, memory: u64) -> Result<Run, IndexError> {
        let path = pin.path(folder);
        let damaged = |what: &str| IndexError::Damaged { path: path.display().to_string(), what: what.to_owned() };
        let unreadable = |cause| IndexError::Read { path: path.display().to_string(), cause };
        let file = File::open(&path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.len() != pin.length {
            return Err(damaged("it has another length than it was written with"));
        }
        let mut head = [0; 44];
        file.read_exact_at(&mut head, 0).map_err(unreadable)?;
        let lines = head[36..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if head != header(&pin, journal, lines) {
            return Err(damaged("its header is another run's"));
        }
        let layout = Layout { kind: pin.kind, pages: filter::pages(lines), entries: pin.entries };
        if pin.entries == 0 || layout.footer() + layout.footer_length() as u64 != pin.length {
            return Err(damaged("its parts do not make up its length"));
        }
        let mut footer = vec![0; layout.footer_length()];
        file.read_exact_at(&mut footer, layout.footer()).map_err(unreadable)?;
        let (body, sum) = footer.split_last_chunk::<CHECKSUM>().ok_or_else(|| damaged("it has no footer"))?;
        if footer_sum(&head, body) != pin.sum || *sum != pin.sum.to_le_bytes() || body[..8] != pin.entries.to_le_bytes()
        {
            return Err(damaged("the checksum of its footer does not fit"));
        }
        let top = body[8..].to_vec();
        let sums = Sums::new(journal, pin.kind, pin.number);
        let mut run = Run { pin, path, file, sums, layout, filter: None, top };
        if pin.kind.has_filter() {
            run.filter = Some(Filter::open(&run, lines, memory)?);
        }
        Ok(run)
    }

    fn damaged(&self, what: &str) -> IndexError {
        IndexError::Damaged { path: self.path.display().to_string(), what: what.to_owned() }
    }

    /// Fills `bytes` with a part, and checks it.
    fn read_part(&self, part: Part, place: u64, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.read_at(offset, bytes)?;
        if self.sums.fit(part, place, bytes) {
            Ok(())
        } else {
            Err(self.damaged(&format!("the checksum at byte {offset} does not fit")))
        }
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|cause: io::Error| IndexError::Read { path: self.path.display().to_string(), cause })
    }

    /// How many bytes of memory its filter takes.
    pub(super) fn memory(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::memory)
    }

    #[cfg(test)]
    pub(super) fn filter_of_test(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// The value of a key, if it is in this run.
    pub(super) fn find(&self, key: &[u8]) -> Result<Option<[u8; 9]>, IndexError> {
        if let Some(filter) = &self.filter
            && !filter.may_contain(self, key)?
        {
            return Ok(None);
        }
        let found = self.floor(key)?.filter(|(found, _)| found[..key.len()] == *key);
        Ok(found.map(|(_, value)| value))
    }

    /// The entry with the greatest key that is not greater than `key`.
    pub(super) fn floor(&self, key: &[u8]) -> Result<Option<Found>, IndexError> {
        let (length, entry) = (self.pin.kind.key(), self.pin.kind.entry());
        // Less than the first key of all: it is not here.
        let Some(group) = last_not_greater(&self.top, length, length, key) else { return Ok(None) };

        let mut buffer = [0; LONGEST_BLOCK];
        let fences = &mut buffer[..self.layout.fences_length()];
        self.read_part(Part::Fences, group as u64, self.layout.fences(group as u64), fences)?;
        let fences = &fences[..self.layout.blocks_in(group as u64) * length];
        let first = &self.top[group * length..][..length];
        if fences[..length] != *first {
            return Err(self.damaged("the fences of a group are another's"));
        }
        let within = last_not_greater(fences, length, length, key)
            .ok_or_else(|| self.damaged("its fences contradict each other"))?;
        let mut fence = [0; SerialNumber::LENGTH];
        fence[..length].copy_from_slice(&fences[within * length..][..length]);
        let number = (group * BLOCK + within) as u64;

        let block = &mut buffer[..self.layout.block_length()];
        self.read_part(Part::Block, number, self.layout.block(number), block)?;
        let block = &block[..self.layout.entries_in(number) * entry];
        if block[..length] != fence[..length] {
            return Err(self.damaged("a block begins with another key than its fence"));
        }
        let at =
            last_not_greater(block, entry, length, key).ok_or_else(|| self.damaged("a block contradicts its fence"))?;
        let (mut found, mut value) = ([0; SerialNumber::LENGTH], [0; 9]);
        let (key, rest) = block[at * entry..][..entry].split_at(length);
        found[..length].copy_from_slice(key);
        value[..rest.len()].copy_from_slice(rest);
        Ok(Some((found, value)))
    }

    /// All entries, from the first on.
    fn entries(&self) -> Result<Entries<'_>, IndexError> {
        let mut entries = Entries { run: self, chunk: Vec::new(), next_block: 0, at: 0, end: 0 };
        entries.fill()?;
        Ok(entries)
    }
}

fn footer_sum(header: &[u8; 44], footer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), footer)
}

/// The index of the last of these sorted `entry` bytes long entries whose first `length` bytes are not greater than `key`.
fn last_not_greater(entries: &[u8], entry: usize, length: usize, key: &[u8]) -> Option<usize> {
    let (mut low, mut high) = (0, entries.len() / entry);
    while low < high {
        let middle = (low + high) / 2;
        if entries[middle * entry..][..length] <= *key { low = middle + 1 } else { high = middle }
    }
    low.checked_sub(1)
}

/// Blocks that are read at once when all entries are.
const READ_AHEAD: usize = 32;

/// The entries of a run in the order of their keys, each checked.
struct Entries<'a> {
    run: &'a Run,
    /// Entries of some blocks, without checksums.
    chunk: Vec<u8>,
    next_block: u64,
    /// Where in the chunk the present entry is, and where the chunk's entries end.
    at: usize,
    end: usize,
}

impl Entries<'_> {
    /// The present entry; none after the last.
    fn head(&self) -> Option<&[u8]> {
        (self.at < self.end).then(|| &self.chunk[self.at..self.at + self.run.pin.kind.entry()])
    }

    fn advance(&mut self) -> Result<(), IndexError> {
        self.at += self.run.pin.kind.entry();
        if self.at >= self.end { self.fill() } else { Ok(()) }
    }

    /// Reads the next blocks.
    fn fill(&mut self) -> Result<(), IndexError> {
        let Layout { kind, .. } = self.run.layout;
        let (layout, length) = (&self.run.layout, self.run.layout.block_length());
        (self.at, self.end) = (0, 0);
        if self.next_block >= layout.blocks() {
            return Ok(());
        }
        let group = self.next_block / BLOCK as u64;
        let left = layout.blocks_in(group) - (self.next_block % BLOCK as u64) as usize;
        let blocks = left.min(READ_AHEAD);
        self.chunk.resize(blocks * length, 0);
        self.run.read_at(layout.block(self.next_block), &mut self.chunk)?;
        for block in 0..blocks {
            let number = self.next_block + block as u64;
            let start = block * length;
            if !self.run.sums.fit(Part::Block, number, &self.chunk[start..start + length]) {
                return Err(self.run.damaged(&format!("the checksum of block {number} does not fit")));
            }
            let bytes = layout.entries_in(number) * kind.entry();
            self.chunk.copy_within(start..start + bytes, self.end);
            self.end += bytes;
        }
        self.next_block += blocks as u64;
        Ok(())
    }
}

/// A position as a value of a run.
pub(super) fn position(value: &[u8]) -> Position {
    Position::from_bytes(value.first_chunk().copied().unwrap_or_default())
}
