//! How a run lies in its file: see the table in the head of the parent module.

use std::path::{Path, PathBuf};

use crate::{
    ledger::{index::lookup_key::LookupKey, overlay::EndedKey, revoked::RevokedKey},
    serial::SerialNumber,
};

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Where the newest reservation of a key or a device is, and how far behind it its certificate.
    Names,
    /// The state of a serial number, and the entry that made it so, once that is something that came after the issue.
    States,
    /// Where a serial number was reserved, for some of them.
    Samples,
    /// What may stand on a revocation list.
    Revoked,
    /// Of what was scrapped or revoked: where that happened first, and where it was confirmed before.
    Ended,
    /// Where certificates are that were lost and found again: their serial numbers do not rise along the journal.
    Recovered,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Names, Kind::States, Kind::Samples, Kind::Revoked, Kind::Recovered, Kind::Ended];

    pub(super) fn code(self) -> u8 {
        match self {
            Kind::Names => 1,
            Kind::States => 2,
            Kind::Samples => 3,
            Kind::Revoked => 4,
            Kind::Recovered => 5,
            Kind::Ended => 6,
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Kind::Names => "names",
            Kind::States => "states",
            Kind::Samples => "samples",
            Kind::Revoked => "revoked",
            Kind::Ended => "ended",
            Kind::Recovered => "recovered",
        }
    }

    /// Bytes of a key.
    pub(super) fn key(self) -> usize {
        match self {
            Kind::Names => LookupKey::LENGTH,
            Kind::States | Kind::Samples | Kind::Recovered => SerialNumber::LENGTH,
            Kind::Revoked => RevokedKey::LENGTH,
            Kind::Ended => EndedKey::LENGTH,
        }
    }

    /// Bytes of a key and its value.
    pub(crate) fn entry(self) -> usize {
        match self {
            Kind::Names => self.key() + 12,
            Kind::Samples | Kind::Recovered | Kind::Ended => self.key() + 8,
            Kind::States | Kind::Revoked => self.key() + 9,
        }
    }

    /// Whether runs of this kind have a filter. Serial numbers rise with time, so their runs hardly overlap.
    pub(super) fn has_filter(self) -> bool {
        self == Kind::Names
    }
}

/// Entries in a block, and blocks in a group.
pub(super) const BLOCK: usize = 256;
pub(super) const CHECKSUM: usize = 4;
const MAGIC: &[u8; 8] = b"BMINDEX\0";
const FORMAT: u32 = 2;
/// Bytes before the filter; a page, so that the filter's pages are pages of the file.
pub(super) const HEADER: usize = 4096;
/// Bytes of the longest block.
pub(super) const LONGEST_BLOCK: usize = BLOCK * (LONGEST_KEY + LONGEST_VALUE) + CHECKSUM;
/// Bytes of the longest key.
pub(super) const LONGEST_KEY: usize = RevokedKey::LENGTH;
/// Bytes of the longest value.
const LONGEST_VALUE: usize = 12;

/// A value, padded with zeros.
pub(crate) type Value = [u8; LONGEST_VALUE];

/// Bytes of a page of the filter: as many lines as fit beside a checksum.
pub(super) const PAGE: usize = 4096;
/// Bytes of a line of the filter, in which all bits of a key are.
pub(super) const LINE: usize = 64;
pub(super) const LINES: usize = (PAGE - CHECKSUM) / LINE;

/// How many pages these lines of a filter take.
pub(super) fn pages(lines: u32) -> u64 {
    u64::from(lines).div_ceil(LINES as u64)
}

/// Where a page of the filter is.
pub(super) fn page_offset(page: u64) -> u64 {
    HEADER as u64 + page * PAGE as u64
}

/// What the manifest states of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) kind: Kind,
    pub(crate) number: u32,
    /// Runs of level n merge into one of level n + 1.
    pub(crate) level: u8,
    pub(crate) entries: u64,
    /// Of the file.
    pub(crate) length: u64,
    /// The checksum of header and footer.
    pub(crate) sum: u32,
}

impl Pin {
    /// Bytes as the manifest stores it.
    pub(crate) const LENGTH: usize = 26;

    pub(crate) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        (bytes[0], bytes[1]) = (self.kind.code(), self.level);
        bytes[2..6].copy_from_slice(&self.number.to_le_bytes());
        bytes[6..14].copy_from_slice(&self.entries.to_le_bytes());
        bytes[14..22].copy_from_slice(&self.length.to_le_bytes());
        bytes[22..26].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Pin> {
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

    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        path(folder, self.kind, self.number)
    }
}

fn path(folder: &Path, kind: Kind, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.{}", kind.extension()))
}

/// Where the parts of a run are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) kind: Kind,
    /// Pages of the filter.
    pub(super) pages: u64,
    pub(super) entries: u64,
}

impl Layout {
    pub(super) fn block_length(&self) -> usize {
        BLOCK * self.kind.entry() + CHECKSUM
    }

    pub(super) fn fences_length(&self) -> usize {
        BLOCK * self.kind.key() + CHECKSUM
    }

    pub(super) fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK as u64)
    }

    pub(super) fn groups(&self) -> u64 {
        self.blocks().div_ceil(BLOCK as u64)
    }

    pub(super) fn group_start(&self, group: u64) -> u64 {
        let length = (BLOCK * self.block_length() + self.fences_length()) as u64;
        HEADER as u64 + self.pages * PAGE as u64 + group * length
    }

    pub(super) fn block(&self, block: u64) -> u64 {
        let (group, within) = (block / BLOCK as u64, block % BLOCK as u64);
        self.group_start(group) + within * self.block_length() as u64
    }

    /// How many entries a block has.
    pub(super) fn entries_in(&self, block: u64) -> usize {
        (self.entries - block * BLOCK as u64).min(BLOCK as u64) as usize
    }

    /// How many blocks a group has.
    pub(super) fn blocks_in(&self, group: u64) -> usize {
        (self.blocks() - group * BLOCK as u64).min(BLOCK as u64) as usize
    }

    pub(super) fn fences(&self, group: u64) -> u64 {
        self.group_start(group) + (self.blocks_in(group) * self.block_length()) as u64
    }

    pub(super) fn footer(&self) -> u64 {
        match self.groups().checked_sub(1) {
            Some(last) => self.fences(last) + self.fences_length() as u64,
            None => self.group_start(0),
        }
    }

    pub(super) fn footer_length(&self) -> usize {
        8 + self.groups() as usize * self.kind.key() + CHECKSUM
    }
}

/// What a checksum is about besides the bytes: which part of which run of which journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums(u32);

#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Filter = 1,
    Block = 2,
    Fences = 3,
}

impl Sums {
    pub(super) fn new(journal: &[u8; 16], kind: Kind, number: u32) -> Self {
        let run = crc32c::crc32c_append(crc32c::crc32c(journal), &number.to_le_bytes());
        Sums(crc32c::crc32c_append(run, &[kind.code()]))
    }

    pub(super) fn checksum(&self, part: Part, place: u64, bytes: &[u8]) -> [u8; CHECKSUM] {
        let mut about = [part as u8; 9];
        about[1..].copy_from_slice(&place.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &about), bytes).to_le_bytes()
    }

    /// Whether `bytes` end with the checksum of the rest.
    pub(super) fn fit(&self, part: Part, place: u64, bytes: &[u8]) -> bool {
        let Some((body, sum)) = bytes.split_last_chunk::<CHECKSUM>() else { return false };
        self.checksum(part, place, body) == *sum
    }
}

pub(super) fn header(pin: &Pin, journal: &[u8; 16], lines: u32) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&pin.number.to_le_bytes());
    (bytes[16], bytes[17]) = (pin.kind.code(), pin.level);
    bytes[20..36].copy_from_slice(journal);
    bytes[36..40].copy_from_slice(&lines.to_le_bytes());
    bytes
}

/// The checksum of header and footer.
pub(super) fn footer_sum(header: &[u8; 44], footer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), footer)
}
