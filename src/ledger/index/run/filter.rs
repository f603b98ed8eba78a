//! The Bloom filter of a run.
//!
//! Keys are hashes and come in order, so their upper half chooses the line (64 bytes) in which their bits are: the
//! filter is written along with the run, a page at a time, whatever its size. A probe reads one line; from a filter
//! that is not in memory it reads that line's page, and checks it. One false positive in some 150.

use std::io;

use super::{
    file::RunFile,
    format::{LINE, LINES, PAGE, Part, page_offset, pages},
};
use crate::ledger::index::error::IndexError;

/// Bits for each entry, and how many of them an entry sets.
const BITS: u64 = 12;
const PROBES: u32 = 7;

/// The number of lines of a filter for `entries` entries.
pub(super) fn lines(entries: u64) -> u32 {
    u32::try_from((entries * BITS).div_ceil(8 * LINE as u64).max(1)).unwrap_or(u32::MAX)
}

/// Which line a key's bits are in; rises with the key.
fn line(key: &[u8], lines: u32) -> usize {
    let upper = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    ((u128::from(upper) * u128::from(lines)) >> 64) as usize
}

/// The bits of a key within its line.
fn bits(key: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let half = |at: usize| key[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    // A key is (part of) a hash; mixed, so that keys that share a half share no bits.
    let mixed = (half(8) ^ half(0).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ (mixed >> 32);
    (0..PROBES).map(move |probe| (mixed >> (9 * probe)) as usize % (8 * LINE))
}

fn set(line: &mut [u8], key: &[u8]) {
    bits(key).for_each(|bit| line[bit / 8] |= 1 << (bit % 8));
}

fn has(line: &[u8], key: &[u8]) -> bool {
    bits(key).all(|bit| line[bit / 8] & 1 << (bit % 8) != 0)
}

/// A filter that was written.
#[derive(Debug)]
pub(crate) struct Filter {
    lines: u32,
    /// All pages, if they are kept in memory.
    pages: Option<Vec<u8>>,
}

impl Filter {
    /// Opens the filter of a run; keeps it in memory if that takes at most `memory` bytes.
    pub(super) fn open(file: &RunFile, lines: u32, memory: u64) -> Result<Filter, IndexError> {
        let length = pages(lines) * PAGE as u64;
        if length > memory {
            return Ok(Filter { lines, pages: None });
        }
        let mut all = vec![0; length as usize];
        file.read_at(page_offset(0), &mut all)?;
        let bad = all.chunks(PAGE).enumerate().find(|(page, bytes)| !file.fits(Part::Filter, *page as u64, bytes));
        match bad {
            Some((page, _)) => Err(file.damaged(&format!("the checksum of page {page} of its filter does not fit"))),
            None => Ok(Filter { lines, pages: Some(all) }),
        }
    }

    /// How many bytes of memory it takes.
    pub(super) fn memory(&self) -> u64 {
        self.pages.as_ref().map_or(0, |pages| pages.len() as u64)
    }

    /// Whether a key may be in the run: no is certain.
    pub(super) fn may_contain(&self, file: &RunFile, key: &[u8]) -> Result<bool, IndexError> {
        let line = line(key, self.lines);
        let (page, within) = (line / LINES, line % LINES * LINE);
        if let Some(pages) = &self.pages {
            return Ok(has(&pages[page * PAGE + within..][..LINE], key));
        }
        let mut bytes = [0; PAGE];
        file.read_part(Part::Filter, page as u64, page_offset(page as u64), &mut bytes)?;
        Ok(has(&bytes[within..][..LINE], key))
    }
}

/// Takes a page that has all its keys, and its number.
type Full<'a> = dyn FnMut(u64, &mut [u8]) -> io::Result<()> + 'a;

/// Makes a filter from keys in their order.
#[derive(Debug)]
pub(super) struct Builder {
    lines: u32,
    page: Vec<u8>,
    number: u64,
}

impl Builder {
    pub(super) fn new(entries: u64) -> Self {
        Builder { lines: lines(entries), page: vec![0; PAGE], number: 0 }
    }

    pub(super) fn lines(&self) -> u32 {
        self.lines
    }

    /// Adds a key, not less than those before; `full` gets each page that has all its keys.
    pub(super) fn insert(&mut self, key: &[u8], full: &mut Full<'_>) -> io::Result<()> {
        let line = line(key, self.lines);
        self.turn_to((line / LINES) as u64, full)?;
        set(&mut self.page[line % LINES * LINE..][..LINE], key);
        Ok(())
    }

    /// Gives `full` the pages that are left.
    pub(super) fn finish(mut self, full: &mut Full<'_>) -> io::Result<()> {
        self.turn_to(pages(self.lines), full)
    }

    fn turn_to(&mut self, page: u64, full: &mut Full<'_>) -> io::Result<()> {
        while self.number < page {
            full(self.number, &mut self.page)?;
            self.page.fill(0);
            self.number += 1;
        }
        Ok(())
    }
}
