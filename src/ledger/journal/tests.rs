//! Tests of the journal: its files, its end, and every byte of it changed.
#![expect(clippy::disallowed_methods, reason = "a test may leave half a file")]

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::{
    ledger::{
        Actor,
        entry::Event,
        verify::{VerifyError, VerifyOptions, verify},
    },
    serial::SerialNumbers,
};

const SEGMENT: u32 = 700;

/// On memory if there is such a file system: a sync costs nothing there.
fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// An entry that is told apart by its number.
fn entry(number: u64) -> Entry {
    let time = Timestamp::from_microsecond(1_790_000_000_000_000 + number as i64).unwrap();
    let serial_number = SerialNumbers::resume([1; 16], None).next(time);
    let certificate = Bytes::from(vec![number as u8; 100 + number as usize % 50]);
    Entry { time, actor: Actor::daemon(), event: Event::Issued { serial_number, certificate } }
}

fn certificate(entry: &Entry) -> &Bytes {
    match &entry.event {
        Event::Issued { certificate, .. } => certificate,
        other => panic!("{other:?}"),
    }
}

fn open(folder: &Path) -> Result<Journal, JournalError> {
    let mut journal = Journal::open(folder, SEGMENT)?;
    journal.settle(None)?;
    Ok(journal)
}

/// Writes so many entries, some to a write. Gives where they are.
fn write(journal: &mut Journal, numbers: std::ops::Range<u64>) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in numbers {
        positions.push(journal.stage(&entry(number)).unwrap());
        if number % 3 != 0 {
            journal.commit().unwrap();
        }
    }
    journal.commit().unwrap();
    positions
}

fn read(journal: &Journal) -> Result<Vec<Bytes>, JournalError> {
    let frames = journal.reader().frames(Position::start(), journal.end());
    frames.map(|frame| frame.map(|frame| certificate(&frame.entry).clone())).collect()
}

fn expected(count: u64) -> Vec<Bytes> {
    (0..count).map(|number| certificate(&entry(number)).clone()).collect()
}

fn file(folder: &TempDir, number: u32) -> PathBuf {
    segment::path(folder.path(), number)
}

/// Verifies as `journal verify --chain-only` does; true if the end is torn.
fn verified(folder: &Path) -> Result<bool, VerifyError> {
    let trust = VerifyOptions { chain_only: true, ..VerifyOptions::default() };
    verify(Scan::open(folder)?, &trust, &mut |_| {}).map(|verified| verified.torn.is_some())
}

#[test]
fn journal_files_are_read_as_one() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    let positions = write(&mut journal, 0..30);
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(journal.segment() > 3);
    assert_eq!(read(&journal).unwrap(), expected(30));
    let (id, chain) = (journal.id(), *journal.chain());
    drop(journal);

    let mut journal = open(folder.path()).unwrap();
    assert_eq!((journal.id(), *journal.chain(), journal.next_sequence()), (id, chain, 31));
    write(&mut journal, 30..40);
    assert_eq!(read(&journal).unwrap(), expected(40));
    assert!(!verified(folder.path()).unwrap());
    let mut scan = Scan::open(folder.path()).unwrap();
    assert_eq!((scan.id(), scan.files()), (id, journal.segment() as usize));
    scan.skip_to(20).unwrap();
    let first = scan.read().unwrap().unwrap();
    assert!(
        (2..=20).contains(&first.sequence) && *certificate(&first.entry) == expected(40)[first.sequence as usize - 1]
    );
    assert_eq!(scan.chain_after(30).unwrap(), Some(chain));
}

/// What is before it is kept.
#[test]
fn torn_end_of_any_length_is_cut_off() {
    let folder = temporary();
    // All in one file.
    let open = || {
        let mut journal = Journal::open(folder.path(), u32::MAX).unwrap();
        journal.settle(None).unwrap();
        journal
    };
    let mut journal = open();
    write(&mut journal, 0..5);
    let before = journal.end().offset() as usize;
    // One write of three frames.
    for number in 5..8 {
        journal.stage(&entry(number)).unwrap();
    }
    journal.commit().unwrap();
    drop(journal);
    let whole = fs::read(file(&folder, 1)).unwrap();
    for length in before..whole.len() {
        for filled in [false, true] {
            let mut torn = whole[..length].to_vec();
            if filled {
                torn.resize(whole.len(), 0);
            }
            fs::write(file(&folder, 1), &torn).unwrap();
            let mut journal = open();
            let kept = journal.next_sequence() - 1;
            assert!((5..8).contains(&kept), "{length}");
            assert_eq!(read(&journal).unwrap(), expected(kept), "{length}");
            write(&mut journal, kept..9);
            assert_eq!(read(&open()).unwrap(), expected(9), "{length}");
        }
    }
}

#[test]
fn file_begun_without_its_header_is_removed() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..10);
    let next = file(&folder, journal.segment() + 1);
    drop(journal);
    for length in [0, 1, 71, 72, 79] {
        fs::write(&next, vec![0; length]).unwrap();
        assert!(verified(folder.path()).unwrap());
        assert_eq!(read(&open(folder.path()).unwrap()).unwrap(), expected(10));
        assert!(!next.exists());
    }
}

/// Where a number is missing, whoever took the files away decides what becomes of the rest: nothing is removed.
#[test]
fn file_without_header_after_a_gap_is_refused_and_kept() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..10);
    let after_a_gap = file(&folder, journal.segment() + 2);
    drop(journal);
    for length in [0, 1, 79] {
        fs::write(&after_a_gap, vec![0; length]).unwrap();
        let said = open(folder.path()).unwrap_err().to_string();
        assert!(said.contains("is missing"), "{said}");
        assert!(verified(folder.path()).unwrap_err().to_string().contains("is missing"));
        assert_eq!(fs::read(&after_a_gap).unwrap(), vec![0; length]);
    }
    // Also when it is the only file.
    let folder = temporary();
    let alone = file(&folder, 2);
    fs::write(&alone, [0; 10]).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("is missing"));
    assert!(alone.exists() && !file(&folder, 1).exists());
}

/// A file that holds entries is never begun again, whoever put it there.
#[test]
fn file_in_the_way_of_the_next_is_never_overwritten() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..10);
    let next = file(&folder, journal.segment() + 1);
    fs::copy(file(&folder, 1), &next).unwrap();
    let content = fs::read(&next).unwrap();
    let refused = (10..30).find_map(|number| match journal.stage(&entry(number)) {
        Ok(_) => journal.commit().err(),
        Err(error) => Some(error),
    });
    assert!(
        matches!(&refused, Some(AppendError::NotWritten(cause)) if cause.to_string().contains("move it elsewhere")),
        "{refused:?}"
    );
    assert_eq!(fs::read(&next).unwrap(), content);
    journal.discard();
    fs::remove_file(&next).unwrap();
    write(&mut journal, 30..40);
}

/// A journal that something else knows is not begun again because its only file was cut short.
#[test]
fn only_file_cut_within_its_header_is_damaged() {
    let folder = temporary();
    drop(open(folder.path()).unwrap());
    Journal::check_first_header(folder.path()).unwrap();
    let whole = fs::read(file(&folder, 1)).unwrap();
    for length in [0, 1, 71] {
        fs::write(file(&folder, 1), &whole[..length]).unwrap();
        let damaged = Journal::check_first_header(folder.path());
        assert!(matches!(damaged, Err(JournalError::Damaged { offset: 0, .. })), "{length}: {damaged:?}");
    }
}

/// So is a file of a newer version.
#[test]
fn journal_with_gaps_or_foreign_files_is_refused() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..30);
    let other = temporary();
    write(&mut open(other.path()).unwrap(), 0..30);
    drop(journal);

    let second = fs::read(file(&folder, 2)).unwrap();
    let refused = |says: &str| {
        let said = open(folder.path()).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains(".journal"), "{said}");
        assert!(verified(folder.path()).unwrap_err().to_string().contains(says));
    };
    fs::remove_file(file(&folder, 2)).unwrap();
    refused("is missing");
    fs::copy(file(&other, 2), file(&folder, 2)).unwrap();
    refused("another ledger");
    let mut newer = second.clone();
    newer[8] = 3;
    fs::write(file(&folder, 2), newer).unwrap();
    refused("version 3, this daemon knows version 2; use a newer daemon");
    fs::write(file(&folder, 2), second).unwrap();
    fs::write(folder.path().join("x.journal"), "").unwrap();
    refused("no journal file has such a name");
    fs::remove_file(folder.path().join("x.journal")).unwrap();
    // A file of the same ledger in the wrong place.
    fs::copy(file(&folder, 3), file(&folder, 2)).unwrap();
    assert!(matches!(verified(folder.path()), Err(VerifyError::Journal(JournalError::Gap { .. }))));
}

/// A whole frame with an event that only a newer daemon knows is no damage: nobody is sent to look for a backup.
#[test]
fn event_of_a_newer_daemon_is_refused_and_no_damage() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..2);
    let at = journal.end();
    // Field 99, empty, where the event should be.
    journal.staged.chain = frame::encode(&mut journal.staged.bytes, &journal.chain, |payload| {
        payload.extend_from_slice(&[0x08, 1, 0x9a, 0x06, 0]);
    })
    .map(Some)
    .unwrap();
    journal.staged.frames = 1;
    journal.commit().unwrap();
    let said = [
        read(&journal).unwrap_err().to_string(),
        journal.reader().entry(at).unwrap_err().to_string(),
        verified(folder.path()).unwrap_err().to_string(),
    ];
    for said in said {
        let place = format!("00000001.journal has at byte {}", at.offset());
        assert!(said.contains(&place) && said.contains("use the daemon that wrote it"), "{said}");
        assert!(!said.contains("backup"), "{said}");
    }
}

#[test]
fn write_that_fails_leaves_the_journal_as_it_was() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..3);
    // Every write to it fails with ENOSPC; it cannot be cut back either, so nothing is known of it.
    let file = std::mem::replace(&mut journal.file, File::options().write(true).open("/dev/full").unwrap());
    journal.stage(&entry(3)).unwrap();
    assert!(
        matches!(journal.write_staged(), Err(AppendError::Unknown(error)) if error.kind() == io::ErrorKind::StorageFull)
    );
    journal.file = file;
    // A file that may not be written.
    let path = segment::path(folder.path(), 1);
    let writable = std::mem::replace(&mut journal.file, File::open(path).unwrap());
    journal.stage(&entry(3)).unwrap();
    assert!(journal.commit().is_err());
    journal.file = writable;
    write(&mut journal, 3..6);
    assert_eq!(read(&journal).unwrap(), expected(6));
    assert_eq!(read(&open(folder.path()).unwrap()).unwrap(), expected(6));
}

/// Every byte of a journal of several files is changed in turn. `journal verify` sees each change, and the daemon
/// refuses to start or, where it does not read at its start, to give what was changed.
#[test]
fn journal_with_a_changed_byte_is_never_served() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    let positions = write(&mut journal, 0..12);
    let (end, files) = (journal.end(), journal.segment());
    assert!(files >= 3);
    drop(journal);
    let all = expected(12);
    let mut changes = 0;
    for number in 1..=files {
        let path = file(&folder, number);
        let whole = fs::read(&path).unwrap();
        let writable = File::options().write(true).open(&path).unwrap();
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                changes += 1;
                writable.write_all_at(&[whole[at] ^ flip], at as u64).unwrap();
                let about = format!("{number}, byte {at} ^ {flip:#x}");
                match quick_verify(folder.path()) {
                    Ok(torn) => assert!(torn, "{about}: not seen"),
                    Err(error) => assert!(error.to_string().contains(".journal"), "{about}: {error}"),
                }
                // As the index of a ledger that was closed knows it.
                let mut journal = match Journal::open(folder.path(), SEGMENT) {
                    Ok(journal) => journal,
                    Err(error) => {
                        assert!(error.to_string().contains(&format!("{number:08}.journal")), "{about}: {error}");
                        writable.write_all_at(&whole[at..=at], at as u64).unwrap();
                        continue;
                    }
                };
                if journal.settle(Some(end)).is_ok() {
                    assert!(number < files, "{about}: started");
                    let mut refused = 0;
                    for (position, expected) in positions.iter().zip(&all) {
                        match journal.reader().entry(*position) {
                            Ok(entry) => assert_eq!(certificate(&entry), expected, "{about}: served"),
                            Err(_) => refused += 1,
                        }
                    }
                    assert!(refused == 1, "{about}: {refused} entries refused");
                    assert!(read(&journal).is_err(), "{about}: read through");
                }
                writable.write_all_at(&whole[at..=at], at as u64).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().len(), whole.len() as u64, "{about}: cut off");
            }
        }
    }
    assert!(changes > 5000);
    assert!(!verified(folder.path()).unwrap());
    assert_eq!(read(&open(folder.path()).unwrap()).unwrap(), all);
}

/// As [`verified`], without the pauses for a daemon that might be writing.
fn quick_verify(folder: &Path) -> Result<bool, JournalError> {
    let mut scan = Scan::open(folder)?.without_pauses();
    while scan.read()?.is_some() {}
    Ok(scan.torn_end().is_some())
}

/// Opens a journal in which something is wrong; the message must name this file and say this.
#[track_caller]
fn open_refuses(folder: &Path, file: u32, says: &str) {
    let said = open(folder).unwrap_err().to_string();
    assert!(said.contains(&format!("{file:08}.journal")) && said.contains(says), "{said}");
}

/// What is cut from, added to or put in the place of an older file is seen at the start, without reading all of it.
#[test]
fn older_file_that_changed_refuses_the_start() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    let positions = write(&mut journal, 0..30);
    drop(journal);
    let second = fs::read(file(&folder, 2)).unwrap();
    for at in 12..second.len() {
        // One byte cut out anywhere behind the version.
        fs::write(file(&folder, 2), [&second[..at], &second[at + 1..]].concat()).unwrap();
        open_refuses(folder.path(), 2, "damaged at byte");
    }
    let first = positions.iter().find(|position| position.segment() == 2).unwrap();
    let third = positions.iter().filter(|position| position.segment() == 2).nth(2).unwrap();
    for (what, content, says) in [
        ("an entry cut out", [&second[..80], &second[third.offset() as usize..]].concat(), "damaged at byte 80: "),
        ("its end cut off", second[..third.offset() as usize].to_vec(), "after entry"),
        ("a byte more", [&second[..], &[0]].concat(), &format!("damaged at byte {}: ", second.len())[..]),
        ("nothing in it", Vec::new(), "within its header"),
        ("its header alone", second[..first.offset() as usize].to_vec(), "after entry"),
        ("another file", fs::read(file(&folder, 3)).unwrap(), "after entry"),
    ] {
        fs::write(file(&folder, 2), content).unwrap();
        let said = open(folder.path()).unwrap_err().to_string();
        assert!(said.contains("00000002.journal") && said.contains(says), "{what}: {said}");
        assert!(verified(folder.path()).is_err(), "{what}");
    }
    fs::write(file(&folder, 2), &second).unwrap();
    assert_eq!(read(&open(folder.path()).unwrap()).unwrap(), expected(30));
    // The first file is not the first.
    fs::remove_file(file(&folder, 1)).unwrap();
    open_refuses(folder.path(), 2, "00000001.journal is missing");
    fs::copy(file(&folder, 2), file(&folder, 1)).unwrap();
    open_refuses(folder.path(), 1, "not the first file");
}

/// Files of version 1 do not say how long the file before them is: their ends must still fit.
#[test]
fn older_file_of_version_1_is_checked_by_its_end() {
    let folder = temporary();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1/several-files/journal");
    for number in 1..=4 {
        fs::copy(segment::path(&old, number), file(&folder, number)).unwrap();
    }
    let mut journal = open(folder.path()).unwrap();
    assert_eq!(journal.next_sequence(), 43);
    // What comes after them has a header of version 2.
    journal.segment_size = 1;
    journal.stage(&entry(42)).unwrap();
    journal.commit().unwrap();
    assert_eq!(journal.reader().frames(Position::start(), journal.end()).map(Result::unwrap).count(), 43);
    drop(journal);
    assert_eq!(open(folder.path()).unwrap().next_sequence(), 44);
    assert!(!verified(folder.path()).unwrap());
    let second = fs::read(file(&folder, 2)).unwrap();
    for content in [&second[..second.len() - 1], &[&second[..], b"x"].concat()] {
        fs::write(file(&folder, 2), content).unwrap();
        open_refuses(folder.path(), 2, "damaged at byte");
    }
    let mut flipped = second.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(file(&folder, 2), flipped).unwrap();
    open_refuses(folder.path(), 2, "the checksum does not fit");
}

#[test]
fn journal_shorter_than_what_is_known_has_lost_entries() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    let positions = write(&mut journal, 0..30);
    let (id, end, chain) = (journal.id(), journal.end(), *journal.chain());
    let last = Some((*positions.last().unwrap(), chain));
    drop(journal);
    let lost =
        |result: Result<(), JournalError>| assert!(matches!(result, Err(JournalError::Lost { .. })), "{result:?}");
    let journal = Journal::open(folder.path(), SEGMENT).unwrap();
    journal.attest(id, last).unwrap();
    journal.attest(id, None).unwrap();
    lost(journal.attest([0; 16], None));
    lost(journal.attest(id, last.map(|(position, _)| (position, [0; 32]))));
    lost(journal.attest(id, Some((Position::new(1, 73), chain))));
    // Where it cannot be read it is damaged.
    let first = fs::read(file(&folder, 1)).unwrap();
    let mut flipped = first.clone();
    flipped[100] ^= 1;
    fs::write(file(&folder, 1), flipped).unwrap();
    let damaged = journal.attest(id, Some((Position::start(), chain)));
    assert!(matches!(damaged, Err(JournalError::Damaged { offset: 72, .. })), "{damaged:?}");
    fs::write(file(&folder, 1), first).unwrap();
    drop(journal);
    fs::remove_file(file(&folder, end.segment())).unwrap();
    let mut journal = Journal::open(folder.path(), SEGMENT).unwrap();
    lost(journal.settle(Some(end)));
    journal.settle(Some(journal.end())).unwrap();
}

#[test]
fn file_changed_by_another_process_is_not_written_to() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("replaced by a copy", |path| {
            let content = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        }),
        ("longer", |path| File::options().append(true).open(path).unwrap().write_all_at(b"x", 1000).unwrap()),
        ("shorter", |path| File::options().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("its folder removed", |path| fs::remove_dir_all(path.parent().unwrap()).unwrap()),
    ];
    for (what, harm) in harms {
        let folder = temporary();
        let inner = folder.path().join("journal");
        fs::create_dir(&inner).unwrap();
        let mut journal = Journal::open(&inner, 1 << 20).unwrap();
        journal.settle(None).unwrap();
        write(&mut journal, 0..3);
        harm(&segment::path(&inner, 1));
        journal.stage(&entry(3)).unwrap();
        let refused = journal.commit();
        assert!(matches!(refused, Err(AppendError::Taken { .. } | AppendError::Removed { .. })), "{what}: {refused:?}");
    }
}

#[test]
fn journal_that_is_locked_names_the_process() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    journal.lock().unwrap();
    write(&mut journal, 0..30);
    // Each new file is locked as well.
    let refused = Journal::open(folder.path(), SEGMENT).unwrap().lock();
    match refused {
        Err(JournalError::InUse { pid, .. }) => assert!(pid.is_none_or(|pid| pid == std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(journal);
    Journal::open(folder.path(), SEGMENT).unwrap().lock().unwrap();
}

#[test]
fn entry_too_large_for_a_frame_leaves_the_batch_as_it_was() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    let mut large = entry(1);
    large.event = Event::Abandoned {
        serial_number: SerialNumbers::resume([1; 16], None).next(large.time),
        reason: "x".repeat(1 << 20),
    };
    journal.stage(&entry(0)).unwrap();
    assert!(matches!(journal.stage(&large), Err(AppendError::TooLarge { .. })));
    journal.stage(&entry(1)).unwrap();
    journal.commit().unwrap();
    assert_eq!(read(&journal).unwrap(), expected(2));
}

#[test]
fn scrub_of_a_file_finds_every_flipped_byte() {
    let folder = temporary();
    let mut journal = open(folder.path()).unwrap();
    write(&mut journal, 0..12);
    let (reader, end) = (journal.reader().clone(), journal.end());
    let scrub = || -> Result<(), JournalError> {
        let mut before = None;
        for number in 1..=end.segment() {
            before = reader.check_file(number, end, before, &mut |_| true)?;
        }
        Ok(())
    };
    scrub().unwrap();
    for number in 1..=end.segment() {
        let path = file(&folder, number);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            File::options().write(true).open(&path).unwrap().write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
            let said = scrub().unwrap_err().to_string();
            assert!(said.contains(&format!("{number:08}.journal")), "byte {at}: {said}");
            fs::write(&path, &whole).unwrap();
        }
    }
    scrub().unwrap();
}

/// A journal whose own files cannot be read any more, or not all, is read from its mirror, and the fault is known.
#[test]
fn journal_that_cannot_be_read_is_read_from_its_mirror() {
    let (home, other) = (temporary(), temporary());
    let [folder, mirror] = [&home, &other].map(|folder| folder.path().join("journal"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&mirror).unwrap();
    let mut journal = open(&folder).unwrap();
    journal.start_mirror(&mirror).unwrap();
    let positions = write(&mut journal, 0..12);
    let (reader, end) = (journal.reader().clone(), journal.end());
    assert!(journal.segment() > 2, "one file only");
    let whole = |what: &str| {
        for (number, position) in positions.iter().enumerate() {
            assert_eq!(certificate(&reader.entry(*position).unwrap()), certificate(&entry(number as u64)), "{what}");
        }
        let frames = reader.frames(Position::start(), end);
        let read: Vec<_> = frames.map(|frame| certificate(&frame.unwrap().entry).clone()).collect();
        assert_eq!(read, expected(12), "{what}");
    };
    whole("nothing is wrong");
    assert_eq!((reader.known_damage(), reader.take_suspicion()), (None, false));
    // An octet of the second entry.
    let first = segment::path(&folder, 1);
    let before = fs::read(&first).unwrap();
    let at = positions[1].offset() as usize + frame::HEAD + 3;
    fs::File::options().write(true).open(&first).unwrap().write_all_at(&[!before[at]], at as u64).unwrap();
    whole("an octet is another");
    assert!(reader.known_damage().unwrap().contains("00000001"));
    // That is no failing disk, and whoever looks for damage finds it.
    assert!(!reader.take_suspicion());
    assert!(reader.own_frames(Position::start(), end).any(|frame| frame.is_err()));
    fs::write(&first, &before).unwrap();
    // All of it is gone, as when a disk gives no file any more.
    fs::rename(&folder, home.path().join("gone")).unwrap();
    journal.reader().reopen(1).unwrap_err();
    whole("the files are gone");
    assert!(reader.take_suspicion());
}
