//! Sorted runs: where the records of keys and devices are, many at a time.
//!
//! Keys and devices come in no order, and an insertion of each into a tree of millions costs more than all else in the
//! ledger. So they are gathered in memory and written as a *run*, sorted and in blocks, once; runs of one size are
//! merged into one of the next size, as in a log-structured merge tree. A look-up asks the newest run first, and most
//! runs say no by their Bloom filter, which is in memory.
//!
//! | key | value |
//! |---|---|
//! | `r` run, the block's first name | the block: up to [`BLOCK`] entries of name and position |
//! | `f` run, part | a part of the run's filter |

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::ledger::{KeyHash, journal::Position, state::DeviceHash};

/// How a run knows a key or a device: 127 bits of its hash, and which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::ledger) struct Name([u8; Name::LENGTH]);

impl Name {
    const LENGTH: usize = 16;

    pub(in crate::ledger) fn of_key(hash: &KeyHash) -> Self {
        let mut name = [0; Self::LENGTH];
        name.copy_from_slice(&hash[..Self::LENGTH]);
        name[0] &= 0x7f;
        Name(name)
    }

    pub(in crate::ledger) fn of_device(hash: &DeviceHash) -> Self {
        let mut name = *hash;
        name[0] |= 0x80;
        Name(name)
    }

    /// Two independent numbers: a name is (part of) a hash.
    fn halves(&self) -> (u64, u64) {
        let half = |at: usize| self.0[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        (half(0), half(8))
    }
}

/// A name and where its newest reservation is.
pub(in crate::ledger) type Entry = (Name, Position);

const ENTRY: usize = Name::LENGTH + 8;
/// What an entry takes on disk, its part of the filter included.
pub(super) const BYTES_AN_ENTRY: u64 = ENTRY as u64 + FILTER_BITS.div_ceil(8);
/// Entries in a block.
const BLOCK: usize = 256;
/// Bits of the filter for each entry, and how many of them an entry sets: one false yes in 300.
const FILTER_BITS: u64 = 12;
const FILTER_PROBES: u64 = 8;
/// Bytes in a part of the filter: sled keeps larger values in files of their own.
const FILTER_PART: usize = 32 << 10;

/// A sorted run.
#[derive(Debug)]
pub(in crate::ledger) struct Run {
    pub(super) number: u32,
    /// The how-manieth size: a run of level n + 1 was merged from those of level n.
    pub(super) level: u8,
    pub(super) entries: u64,
    filter: Filter,
}

impl Run {
    /// Writes a run of these entries, in the order of their names.
    pub(super) fn write(
        tree: &sled::Tree,
        number: u32,
        level: u8,
        at_most: u64,
        entries: impl Iterator<Item = sled::Result<Entry>>,
    ) -> sled::Result<Run> {
        // What a failed attempt left under this number must not be taken for blocks of this run.
        Run::remove(tree, number)?;
        let mut run = Run { number, level, entries: 0, filter: Filter::new(at_most) };
        let mut block: Vec<u8> = Vec::with_capacity(BLOCK * ENTRY);
        for entry in entries {
            let (name, position) = entry?;
            if block.len() == BLOCK * ENTRY {
                tree.insert(run.block_key(&block), block.as_slice())?;
                block.clear();
            }
            block.extend_from_slice(&name.0);
            block.extend_from_slice(&position.to_bytes());
            run.filter.insert(&name);
            run.entries += 1;
        }
        if !block.is_empty() {
            tree.insert(run.block_key(&block), block.as_slice())?;
        }
        for (part, bytes) in run.filter.to_bytes().chunks(FILTER_PART).enumerate() {
            tree.insert(part_key(number, part as u32), bytes)?;
        }
        Ok(run)
    }

    /// Opens a run that was written before; none if its filter is not there.
    pub(super) fn open(tree: &sled::Tree, number: u32, level: u8, entries: u64) -> sled::Result<Option<Run>> {
        let mut bytes = Vec::new();
        for part in tree.scan_prefix(prefix(b'f', number)) {
            bytes.extend_from_slice(&part?.1);
        }
        Ok(Filter::from_bytes(&bytes).map(|filter| Run { number, level, entries, filter }))
    }

    /// Where the newest reservation of a name is, if it is in this run.
    pub(super) fn find(&self, tree: &sled::Tree, name: &Name) -> sled::Result<Option<Position>> {
        if !self.filter.may_contain(name) {
            return Ok(None);
        }
        let first = prefix(b'r', self.number);
        let mut last = first.to_vec();
        last.extend_from_slice(&name.0);
        let Some(block) = tree.range(first.to_vec()..=last).next_back() else { return Ok(None) };
        let (_, block) = block?;
        let (entries, _) = block.as_chunks::<ENTRY>();
        let found = entries.binary_search_by(|entry| entry[..Name::LENGTH].cmp(&name.0[..]));
        Ok(found.ok().map(|index| decode(&entries[index]).1))
    }

    /// All entries, in the order of their names.
    fn iter(&self, tree: &sled::Tree) -> impl Iterator<Item = sled::Result<Entry>> + use<> {
        tree.scan_prefix(prefix(b'r', self.number)).flat_map(|block| {
            let block: Vec<sled::Result<Entry>> = match block {
                Ok((_, block)) => block.as_chunks::<ENTRY>().0.iter().map(|entry| Ok(decode(entry))).collect(),
                Err(error) => vec![Err(error)],
            };
            block
        })
    }

    /// Merges runs into one; of a name that is in several the newest entry stays. `runs` begins with the newest.
    pub(super) fn merge(tree: &sled::Tree, number: u32, level: u8, runs: &[&Run]) -> sled::Result<Run> {
        let at_most = runs.iter().map(|run| run.entries).sum();
        let sources = runs.iter().map(|run| run.iter(tree)).collect();
        Run::write(tree, number, level, at_most, Merge::new(sources))
    }

    /// Removes all that is stored of a run.
    pub(super) fn remove(tree: &sled::Tree, number: u32) -> sled::Result<()> {
        for kind in [b'r', b'f'] {
            for stored in tree.scan_prefix(prefix(kind, number)).keys() {
                tree.remove(stored?)?;
            }
        }
        Ok(())
    }

    /// The numbers of all runs of which anything is stored.
    pub(super) fn stored(tree: &sled::Tree) -> sled::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for kind in [b'r', b'f'] {
            let mut next = Some(0);
            while let Some(number) = next {
                let end = [kind + 1];
                let found = tree.range(prefix(kind, number).to_vec()..end.to_vec()).next().transpose()?;
                let number = found.and_then(|(key, _)| key[1..].first_chunk().map(|bytes| u32::from_be_bytes(*bytes)));
                numbers.extend(number);
                next = number.and_then(|number| number.checked_add(1));
            }
        }
        Ok(numbers)
    }

    fn block_key(&self, block: &[u8]) -> Vec<u8> {
        [&prefix(b'r', self.number)[..], &block[..Name::LENGTH]].concat()
    }
}

fn prefix(kind: u8, run: u32) -> [u8; 5] {
    let [a, b, c, d] = run.to_be_bytes();
    [kind, a, b, c, d]
}

fn part_key(run: u32, part: u32) -> Vec<u8> {
    [&prefix(b'f', run)[..], &part.to_be_bytes()].concat()
}

fn decode(entry: &[u8; ENTRY]) -> Entry {
    let mut name = [0; Name::LENGTH];
    name.copy_from_slice(&entry[..Name::LENGTH]);
    let position = entry[Name::LENGTH..].first_chunk().copied().unwrap_or_default();
    (Name(name), Position::from_bytes(position))
}

/// Takes the smallest of several sorted sources, again and again.
struct Merge<I> {
    sources: Vec<I>,
    /// The head of each source, and which it is; of equal names the newest source comes first.
    heads: BinaryHeap<Reverse<(Name, usize, [u8; 8])>>,
    started: bool,
    last: Option<Name>,
}

impl<I: Iterator<Item = sled::Result<Entry>>> Merge<I> {
    fn new(sources: Vec<I>) -> Self {
        Merge { sources, heads: BinaryHeap::new(), started: false, last: None }
    }

    fn advance(&mut self, source: usize) -> sled::Result<()> {
        if let Some((name, position)) = self.sources[source].next().transpose()? {
            self.heads.push(Reverse((name, source, position.to_bytes())));
        }
        Ok(())
    }

    fn take(&mut self) -> sled::Result<Option<Entry>> {
        if !self.started {
            self.started = true;
            (0..self.sources.len()).try_for_each(|source| self.advance(source))?;
        }
        while let Some(Reverse((name, source, position))) = self.heads.pop() {
            self.advance(source)?;
            if self.last.replace(name) != Some(name) {
                return Ok(Some((name, Position::from_bytes(position))));
            }
        }
        Ok(None)
    }
}

impl<I: Iterator<Item = sled::Result<Entry>>> Iterator for Merge<I> {
    type Item = sled::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

/// A Bloom filter over names.
#[derive(Debug)]
struct Filter {
    words: Vec<u64>,
}

impl Filter {
    fn new(entries: u64) -> Self {
        Filter { words: vec![0; (entries * FILTER_BITS).div_ceil(64).max(1) as usize] }
    }

    fn insert(&mut self, name: &Name) {
        for bit in self.bits(name) {
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    fn may_contain(&self, name: &Name) -> bool {
        self.bits(name).all(|bit| self.words[(bit / 64) as usize] & 1 << (bit % 64) != 0)
    }

    fn bits(&self, name: &Name) -> impl Iterator<Item = u64> + use<> {
        let (first, second) = name.halves();
        let size = self.words.len() as u64 * 64;
        // Maps a hash to 0..size without a division.
        let place = move |hash: u64| ((u128::from(hash) * u128::from(size)) >> 64) as u64;
        (0..FILTER_PROBES).map(move |probe| place(first.wrapping_add(probe.wrapping_mul(second | 1)).rotate_left(23)))
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        (rest.is_empty() && !words.is_empty()).then_some(Filter { words })
    }
}
