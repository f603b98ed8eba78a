//! Writing runs: from memory, or by merging others. Neither holds more than some pages and the first key of each group.

use std::{io, os::unix::fs::FileExt, path::Path};

use super::{
    filter,
    format::{BLOCK, CHECKSUM, HEADER, Kind, Layout, Part, Pin, Sums, footer_sum, header, page_offset, pages},
    read::{Entries, Run},
};
use crate::{
    durable::{Access, Unfinished},
    ledger::index::error::IndexError,
};

/// How much is gathered before it is written.
const WRITE_AT: usize = 256 << 10;

/// Writes one run.
pub(crate) struct Writer {
    file: Unfinished,
    journal: [u8; 16],
    pin: Pin,
    sums: Sums,
    layout: Layout,
    filter: Option<filter::Builder>,
    lines: u32,
    /// Blocks and fences that are to be written at `at`.
    out: Vec<u8>,
    at: u64,
    /// Where in `out` the present block begins.
    block: usize,
    /// The first keys of this group's blocks, and of the groups.
    fences: Vec<u8>,
    top: Vec<u8>,
    last: Vec<u8>,
}

impl Writer {
    /// Begins a run of at most `at_most` entries.
    pub(crate) fn create(
        folder: &Path,
        journal: &[u8; 16],
        (kind, number, level): (Kind, u32, u8),
        at_most: u64,
    ) -> io::Result<Writer> {
        let pin = Pin { kind, number, level, entries: 0, length: 0, sum: 0 };
        let file = Unfinished::create(&pin.path(folder), Access::Public)?;
        let filter = kind.has_filter().then(|| filter::Builder::new(at_most));
        let lines = filter.as_ref().map_or(0, filter::Builder::lines);
        let layout = Layout { kind, pages: pages(lines), entries: 0 };
        Ok(Writer {
            file,
            journal: *journal,
            pin,
            sums: Sums::new(journal, kind, number),
            layout,
            filter,
            lines,
            out: Vec::with_capacity(WRITE_AT + 2 * layout.block_length()),
            at: layout.group_start(0),
            block: 0,
            fences: Vec::with_capacity(layout.fences_length()),
            top: Vec::new(),
            last: Vec::new(),
        })
    }

    /// Adds an entry; its key must be greater than those before.
    pub(crate) fn push(&mut self, entry: &[u8]) -> Result<(), IndexError> {
        let key = &entry[..self.pin.kind.key()];
        if self.pin.entries > 0 && *key <= self.last[..] {
            return Err(IndexError::Contradiction("the entries of a run are not in order".into()));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        if self.pin.entries.is_multiple_of(BLOCK as u64) {
            self.begin_block(key).map_err(IndexError::Write)?;
        }
        if let Some(filter) = &mut self.filter {
            let (file, sums) = (self.file.file(), &self.sums);
            filter.insert(key, &mut |page, bytes| write_page(file, sums, page, bytes)).map_err(IndexError::Write)?;
        }
        self.out.extend_from_slice(entry);
        self.pin.entries += 1;
        Ok(())
    }

    fn begin_block(&mut self, key: &[u8]) -> io::Result<()> {
        if self.pin.entries > 0 {
            self.end_block();
        }
        if self.pin.entries.is_multiple_of((BLOCK * BLOCK) as u64) {
            self.end_group();
            self.top.extend_from_slice(key);
        }
        if self.out.len() >= WRITE_AT {
            self.write_out()?;
        }
        self.block = self.out.len();
        self.fences.extend_from_slice(key);
        Ok(())
    }

    /// Pads the present block and gives it its checksum.
    fn end_block(&mut self) {
        self.out.resize(self.block + self.layout.block_length() - CHECKSUM, 0);
        let number = (self.pin.entries - 1) / BLOCK as u64;
        let sum = self.sums.checksum(Part::Block, number, &self.out[self.block..]);
        self.out.extend_from_slice(&sum);
    }

    /// Writes the fences of the blocks of the present group, if it has any.
    fn end_group(&mut self) {
        if let Some(group) = (self.top.len() / self.pin.kind.key()).checked_sub(1) {
            self.fences.resize(self.layout.fences_length() - CHECKSUM, 0);
            let sum = self.sums.checksum(Part::Fences, group as u64, &self.fences);
            self.out.extend_from_slice(&self.fences);
            self.out.extend_from_slice(&sum);
            self.fences.clear();
        }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.file().write_all_at(&self.out, self.at)?;
        self.at += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Puts the run on stable storage, under its name. There must be an entry.
    pub(crate) fn finish(mut self) -> Result<Pin, IndexError> {
        self.end_block();
        self.end_group();
        self.layout.entries = self.pin.entries;
        let head = header(&self.pin, &self.journal, self.lines);
        let footer = [&self.pin.entries.to_le_bytes()[..], &self.top].concat();
        self.pin.sum = footer_sum(&head, &footer);
        self.out.extend_from_slice(&footer);
        self.out.extend_from_slice(&self.pin.sum.to_le_bytes());
        let mut finish = || -> io::Result<()> {
            self.write_out()?;
            if let Some(filter) = self.filter.take() {
                filter.finish(&mut |page, bytes| write_page(self.file.file(), &self.sums, page, bytes))?;
            }
            let mut padded = [0; HEADER];
            padded[..head.len()].copy_from_slice(&head);
            self.file.file().write_all_at(&padded, 0)
        };
        finish().map_err(IndexError::Write)?;
        self.pin.length = self.at;
        self.file.finish().map_err(IndexError::Write)?;
        Ok(self.pin)
    }
}

fn write_page(file: &std::fs::File, sums: &Sums, page: u64, bytes: &mut [u8]) -> io::Result<()> {
    let body = bytes.len() - CHECKSUM;
    let sum = sums.checksum(Part::Filter, page, &bytes[..body]);
    bytes[body..].copy_from_slice(&sum);
    file.write_all_at(bytes, page_offset(page))
}

/// Merges runs of one kind into one; of a key that is in several the newest entry stays. `runs` begins with the newest.
pub(crate) fn merge(
    folder: &Path,
    journal: &[u8; 16],
    number: u32,
    level: u8,
    runs: &[&Run],
) -> Result<Option<Pin>, IndexError> {
    let Some(kind) = runs.first().map(|run| run.pin.kind) else { return Ok(None) };
    let at_most = runs.iter().map(|run| run.pin.entries).sum();
    let mut writer = Writer::create(folder, journal, (kind, number, level), at_most).map_err(IndexError::Write)?;
    let mut sources = runs.iter().map(|run| run.entries()).collect::<Result<Vec<_>, _>>()?;
    let length = kind.key();
    loop {
        let mut least: Option<(usize, &[u8])> = None;
        for (source, entries) in sources.iter().enumerate() {
            if let Some(entry) = entries.head()
                && least.is_none_or(|(_, least)| entry[..length] < least[..length])
            {
                least = Some((source, entry));
            }
        }
        let Some((newest, entry)) = least else { break };
        writer.push(entry)?;
        // The same key in older runs is out of date.
        for entries in &mut sources[newest + 1..] {
            skip(entries, &writer.last)?;
        }
        sources[newest].advance()?;
    }
    writer.finish().map(Some)
}

fn skip(entries: &mut Entries<'_>, key: &[u8]) -> Result<(), IndexError> {
    if entries.head().is_some_and(|entry| entry[..key.len()] == *key) { entries.advance() } else { Ok(()) }
}
