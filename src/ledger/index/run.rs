//! Sorted runs: what the index knows of many records, in immutable files.
//!
//! Keys, devices and serial numbers are gathered in memory and written as a *run*, sorted, once; runs of one level are
//! merged into one of the next, as in a log-structured merge tree. A lookup asks the newest run first, and most runs
//! say no by their Bloom filter.
//!
//! What else was measured, at one million records on a machine with two busy cores (benches/ledger.rs and
//! benches/RESULTS.md; only the ratios matter): one sled tree that takes 65,536 records at a time, sorted, costs 43
//! µs a record for the index alone, rising, 348 B of disk and 7.5 GB of memory; the whole ledger with runs stored in
//! sled costs 25 µs when empty and 35 µs with a million, 239 B; with runs as files 22 and 21 µs, 51 B (59 B since keys
//! and devices have the place of the certificate).
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
//! A run answers "there is none" to a daemon that then issues a certificate, so it must be able to prove it. The
//! manifest pins the number of entries, the length of the file, and the checksum of header and footer. From the
//! entries follows where every block must be and how many entries it must have; its first key must be the one in its
//! fence, and the first key of its fences the one in the footer. The checksum of a block, of fences or of a page of
//! the filter also covers the journal's id, the run's number and the place in it, so that another block is not taken
//! for it. All of that is checked whenever anything is read; fences and the last key are read when a run is opened, and kept. What fails a check is an error, and the index is
//! rebuilt.

mod file;
mod filter;
mod format;
mod read;
mod write;

pub(super) use self::{
    format::{Kind, Pin, Value},
    read::{Run, position},
    write::{Writer, merge},
};
