//! Reading runs.

use std::path::Path;

use super::{
    file::RunFile,
    filter::Filter,
    format::{BLOCK, CHECKSUM, LONGEST_BLOCK, LONGEST_KEY, Layout, Part, Pin, Sums, Value, footer_sum, header, pages},
};
use crate::ledger::{index::error::IndexError, journal::Position};

/// A run, open for reading.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pin: Pin,
    file: RunFile,
    layout: Layout,
    filter: Option<Filter>,
    /// The first key of each block: 16 to 32 bytes for 256 entries.
    fences: Vec<u8>,
    /// The last key of all.
    last: Vec<u8>,
}

/// An entry that was found: its key and its value, padded with zeros.
pub(crate) type Found = ([u8; LONGEST_KEY], Value);

/// Gets a key and its value, padded with zeros.
type Visitor<'a> = dyn FnMut(&[u8], Value) -> Result<(), IndexError> + 'a;

impl Run {
    /// Opens a run that the manifest pins. Its filter is kept in memory if that takes no more than `memory` bytes.
    ///
    /// # Errors
    /// Whatever is not as it was written; blocks are checked when they are read.
    pub(crate) fn open(folder: &Path, journal: &[u8; 16], pin: Pin, memory: u64) -> Result<Run, IndexError> {
        let file = RunFile::open(pin.path(folder), Sums::new(journal, pin.kind, pin.number))?;
        if file.length()? != pin.length {
            return Err(file.damaged("it has another length than it was written with"));
        }
        let mut head = [0; 44];
        file.read_at(0, &mut head)?;
        let lines = head[36..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if head != header(&pin, journal, lines) {
            return Err(file.damaged("its header is another run's"));
        }
        let layout = Layout { kind: pin.kind, pages: pages(lines), entries: pin.entries };
        if pin.entries == 0 || layout.footer() + layout.footer_length() as u64 != pin.length {
            return Err(file.damaged("its parts do not make up its length"));
        }
        let mut footer = vec![0; layout.footer_length()];
        file.read_at(layout.footer(), &mut footer)?;
        let (body, sum) = footer.split_last_chunk::<CHECKSUM>().ok_or_else(|| file.damaged("it has no footer"))?;
        if footer_sum(&head, body) != pin.sum || *sum != pin.sum.to_le_bytes() || body[..8] != pin.entries.to_le_bytes()
        {
            return Err(file.damaged("the checksum of its footer does not fit"));
        }
        let fences = read_fences(&file, &layout, &body[8..])?;
        let filter = if pin.kind.has_filter() { Some(Filter::open(&file, lines, memory)?) } else { None };
        let mut run = Run { pin, file, layout, filter, fences, last: Vec::new() };
        let mut buffer = [0; LONGEST_BLOCK];
        let block = run.read_block(run.layout.blocks() - 1, &mut buffer)?;
        run.last = block[block.len() - pin.kind.entry()..][..pin.kind.key()].to_vec();
        Ok(run)
    }

    /// How many bytes of memory its filter takes.
    pub(crate) fn memory(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::memory)
    }

    #[cfg(test)]
    pub(crate) fn filter_may_contain(&self, key: &[u8]) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.may_contain(&self.file, key).unwrap())
    }

    /// The value of a key, if it is in this run.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<Value>, IndexError> {
        // Serial numbers rise with time: most runs of them are older than the one that is looked for.
        if *key > self.last[..] {
            return Ok(None);
        }
        if let Some(filter) = &self.filter
            && !filter.may_contain(&self.file, key)?
        {
            return Ok(None);
        }
        let found = self.floor(key)?.filter(|(found, _)| found[..key.len()] == *key);
        Ok(found.map(|(_, value)| value))
    }

    /// The entry with the greatest key that is not greater than `key`.
    pub(crate) fn floor(&self, key: &[u8]) -> Result<Option<Found>, IndexError> {
        let (length, entry) = (self.pin.kind.key(), self.pin.kind.entry());
        // Less than the first key of all: it is not here.
        let Some(number) = last_not_greater(&self.fences, length, length, key) else { return Ok(None) };
        let mut buffer = [0; LONGEST_BLOCK];
        let block = self.read_block(number as u64, &mut buffer)?;
        let at = last_not_greater(block, entry, length, key)
            .ok_or_else(|| self.file.damaged("a block contradicts its fence"))?;
        let (mut found, mut value) = ([0; LONGEST_KEY], Value::default());
        let (key, rest) = block[at * entry..][..entry].split_at(length);
        found[..length].copy_from_slice(key);
        value[..rest.len()].copy_from_slice(rest);
        Ok(Some((found, value)))
    }

    /// The entries of a block, checked.
    fn read_block<'a>(&self, number: u64, buffer: &'a mut [u8; LONGEST_BLOCK]) -> Result<&'a [u8], IndexError> {
        let length = self.pin.kind.key();
        let block = &mut buffer[..self.layout.block_length()];
        self.file.read_part(Part::Block, number, self.layout.block(number), block)?;
        let block = &block[..self.layout.entries_in(number) * self.pin.kind.entry()];
        if block[..length] != self.fences[number as usize * length..][..length] {
            return Err(self.file.damaged("a block begins with another key than its fence"));
        }
        Ok(block)
    }

    /// All entries, from the first on.
    pub(super) fn entries(&self) -> Result<Entries<'_>, IndexError> {
        self.entries_from_block(0)
    }

    fn entries_from_block(&self, next_block: u64) -> Result<Entries<'_>, IndexError> {
        let mut entries = Entries { run: self, chunk: Vec::new(), next_block, at: 0, end: 0 };
        entries.fill()?;
        Ok(entries)
    }

    /// Calls `found` with each entry from the key `first` to the key `last`, in their order.
    ///
    /// # Errors
    /// Whatever is not as it was written, and what `found` says.
    pub(crate) fn range(&self, (first, last): (&[u8], &[u8]), found: &mut Visitor<'_>) -> Result<(), IndexError> {
        let length = self.pin.kind.key();
        // The last block that begins with a key that is not greater, or the first of all.
        let block = last_not_greater(&self.fences, length, length, first).unwrap_or(0);
        let mut entries = self.entries_from_block(block as u64)?;
        while let Some(entry) = entries.head() {
            let (key, rest) = entry.split_at(length);
            if key > last {
                break;
            }
            if key >= first {
                let mut value = Value::default();
                value[..rest.len()].copy_from_slice(rest);
                found(key, value)?;
            }
            entries.advance()?;
        }
        Ok(())
    }
}

/// The first key of each block, of all groups; `top` has that of each group.
fn read_fences(file: &RunFile, layout: &Layout, top: &[u8]) -> Result<Vec<u8>, IndexError> {
    let length = layout.kind.key();
    let mut fences = Vec::with_capacity(layout.blocks() as usize * length);
    let mut part = vec![0; layout.fences_length()];
    for (group, first) in (0..layout.groups()).zip(top.chunks(length)) {
        file.read_part(Part::Fences, group, layout.fences(group), &mut part)?;
        let of_group = &part[..layout.blocks_in(group) * length];
        if of_group[..length] != *first {
            return Err(file.damaged("the fences of a group are another's"));
        }
        fences.extend_from_slice(of_group);
    }
    if !fences.chunks(length).is_sorted_by(|one, next| one < next) {
        return Err(file.damaged("its fences contradict each other"));
    }
    Ok(fences)
}

/// The index of the last of these sorted `entry` bytes long entries whose first `length` bytes are not greater than
/// `key`.
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
pub(super) struct Entries<'a> {
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
    pub(super) fn head(&self) -> Option<&[u8]> {
        (self.at < self.end).then(|| &self.chunk[self.at..self.at + self.run.pin.kind.entry()])
    }

    pub(super) fn advance(&mut self) -> Result<(), IndexError> {
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
        self.run.file.read_at(layout.block(self.next_block), &mut self.chunk)?;
        for block in 0..blocks {
            let number = self.next_block + block as u64;
            let start = block * length;
            if !self.run.file.fits(Part::Block, number, &self.chunk[start..start + length]) {
                return Err(self.run.file.damaged(&format!("the checksum of block {number} does not fit")));
            }
            let bytes = layout.entries_in(number) * kind.entry();
            self.chunk.copy_within(start..start + bytes, self.end);
            self.end += bytes;
        }
        self.next_block += blocks as u64;
        Ok(())
    }
}

/// The position with which a value begins.
pub(crate) fn position(value: &Value) -> Position {
    Position::from_bytes(value.first_chunk().copied().unwrap_or_default())
}
