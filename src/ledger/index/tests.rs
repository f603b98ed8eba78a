#![expect(clippy::disallowed_methods, reason = "a test may leave half a file")]

use std::{collections::BTreeMap, os::unix::fs::FileExt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{run::Pin, *};
use crate::hash::sha256;

const JOURNAL: [u8; 16] = [9; 16];

/// Entries of a run of keys: as many as asked for, the values telling which.
fn entries(numbers: impl IntoIterator<Item = u32>, mark: u8) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entry =
        |number: u32| (sha256(&number.to_be_bytes())[..16].to_vec(), [&[mark; 8], &number.to_be_bytes()[..]].concat());
    numbers.into_iter().map(entry).collect()
}

fn write(folder: &Path, number: u32, level: u8, entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Pin {
    let mut writer = Writer::create(folder, &JOURNAL, (Kind::Names, number, level), entries.len() as u64).unwrap();
    entries.iter().for_each(|(key, value)| writer.push(&[&key[..], value].concat()).unwrap());
    writer.finish().unwrap()
}

fn value(found: Option<run::Value>) -> Option<Vec<u8>> {
    found.map(|value| value.to_vec())
}

#[test]
fn run_finds_what_was_written_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // One entry, full blocks, several groups; filters in memory and on the disk.
    for (number, count) in [1, 255, 256, 257, 512, 65_536, 65_537, 150_000].into_iter().enumerate() {
        let written = entries(0..count, 1);
        let pin = write(folder.path(), number as u32, 0, &written);
        for memory in [0, u64::MAX] {
            let run = Run::open(folder.path(), &JOURNAL, pin, memory).unwrap();
            for (key, expected) in written.iter().step_by(1 + count as usize / 2000) {
                assert_eq!(value(run.find(key).unwrap()).as_ref(), Some(expected));
            }
            for (key, _) in entries(1_000_000..1_001_000, 1) {
                assert_eq!(run.find(&key).unwrap(), None);
                let floor = run.floor(&key).unwrap().map(|(found, _)| found[..16].to_vec());
                assert_eq!(floor.as_ref(), written.range(..key).next_back().map(|(key, _)| key));
            }
            assert_eq!(run.memory() > 0, memory > 0);
        }
    }
}

#[test]
fn run_filter_says_no_to_nearly_all_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let pin = write(folder.path(), 1, 0, &entries(0..100_000, 1));
    let run = Run::open(folder.path(), &JOURNAL, pin, u64::MAX).unwrap();
    let wrong = entries(1_000_000..1_100_000, 1).keys().filter(|key| run.filter_may_contain(key)).count();
    assert!(wrong < 1500, "{wrong} of 100,000");
}

#[test]
fn merge_keeps_the_newest_of_each_key() {
    let folder = tempfile::tempdir().unwrap();
    let (old, middle, new) = (entries(0..70_000, 1), entries(30_000..90_000, 2), entries(80_000..80_100, 3));
    let runs: Vec<_> = [&new, &middle, &old]
        .iter()
        .enumerate()
        .map(|(number, entries)| {
            let pin = write(folder.path(), number as u32, 0, entries);
            Run::open(folder.path(), &JOURNAL, pin, 0).unwrap()
        })
        .collect();
    let pin = run::merge(folder.path(), &JOURNAL, 7, 1, &runs.iter().collect::<Vec<_>>()).unwrap().unwrap();
    let expected: BTreeMap<_, _> = [old, middle, new].into_iter().flatten().collect();
    assert_eq!((pin.entries, pin.level), (expected.len() as u64, 1));
    let merged = Run::open(folder.path(), &JOURNAL, pin, 0).unwrap();
    for (key, expected) in expected.iter().step_by(7) {
        assert_eq!(value(merged.find(key).unwrap()).as_ref(), Some(expected));
    }
}

/// Every look-up in a damaged run gives what was written, or an error; most flips are seen by some look-up.
#[test]
fn run_with_a_flipped_bit_gives_no_wrong_answer() {
    let folder = tempfile::tempdir().unwrap();
    let written = entries(0..3000, 1);
    let pin = write(folder.path(), 1, 0, &written);
    let path = pin.path(folder.path());
    let good = fs::read(&path).unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = 0;
    const FLIPS: u32 = 300;
    for _ in 0..FLIPS {
        let mut bad = good.clone();
        let bit = random.random_range(HEADER_AND_MORE * 8..bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        let mut noticed = false;
        for memory in [0, u64::MAX] {
            let Ok(run) = Run::open(folder.path(), &JOURNAL, pin, memory) else {
                noticed = true;
                continue;
            };
            for (key, expected) in &written {
                match run.find(key) {
                    Ok(found) => assert_eq!(value(found).as_ref(), Some(expected), "bit {bit}"),
                    Err(error) => noticed = error.is_damage(),
                }
            }
        }
        seen += u32::from(noticed);
    }
    assert!(seen > FLIPS * 9 / 10, "{seen}");
    for bit in 0..40 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(Run::open(folder.path(), &JOURNAL, pin, 0).is_err(), "bit {bit} of the header");
    }
}

/// Behind the header and its padding, which says nothing.
const HEADER_AND_MORE: usize = 4096;

#[test]
fn run_of_another_number_or_journal_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let pin = write(folder.path(), 1, 0, &entries(0..300, 1));
    let other = write(folder.path(), 2, 0, &entries(300..600, 1));
    assert_eq!(pin.length, other.length);
    fs::copy(other.path(folder.path()), pin.path(folder.path())).unwrap();
    assert!(Run::open(folder.path(), &JOURNAL, pin, 0).is_err());
    assert!(Run::open(folder.path(), &[8; 16], other, 0).is_err());
    // A block of it in the place of the same block.
    let pin = write(folder.path(), 1, 0, &entries(0..300, 1));
    let mut block = vec![0; 256 * (16 + 12) + 4];
    let place = pin.length - (8 + 16 + 4) - (256 * 16 + 4) - 2 * block.len() as u64;
    fs::File::open(other.path(folder.path())).unwrap().read_exact_at(&mut block, place).unwrap();
    let file = fs::File::options().write(true).open(pin.path(folder.path())).unwrap();
    file.write_all_at(&block, place).unwrap();
    let run = Run::open(folder.path(), &JOURNAL, pin, u64::MAX).unwrap();
    let (first, _) = entries(0..300, 1).pop_first().unwrap();
    assert!(run.find(&first).is_err());
}

#[test]
fn database_that_lost_or_changed_a_pair_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = vec![(b"oa".to_vec(), b"1".to_vec()), (b"ob".to_vec(), b"2".to_vec()), (b"ea".to_vec(), b"3".to_vec())];
    let mut pinned = Total::default();
    let (database, manifest) = Database::open(folder.path()).unwrap();
    assert_eq!(manifest, None);
    database
        .write(pairs, |total| {
            pinned = total;
            b"manifest".to_vec()
        })
        .unwrap();
    assert_eq!((pinned.pairs, pinned.orders), (3, 2));
    assert_eq!(database.get(b"oa").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(database.get(b"oc").unwrap(), None);
    assert_eq!(database.orders().unwrap().len(), 2);
    drop(database);
    let reopen = |change: &dyn Fn(&sled::Db)| {
        let tree = sled::open(folder.path()).unwrap();
        change(&tree);
        tree.flush().unwrap();
        drop(tree);
        let (database, manifest) = Database::open(folder.path()).unwrap();
        assert_eq!(manifest.as_deref(), Some(&b"manifest"[..]));
        database.total()
    };
    assert_eq!(reopen(&|_| {}), pinned);
    assert_ne!(reopen(&|tree| drop(tree.insert("oa", "9").unwrap())), pinned);
    assert_eq!(reopen(&|tree| drop(tree.insert("oa", "1").unwrap())), pinned);
    assert_ne!(reopen(&|tree| drop(tree.remove("ea").unwrap())), pinned);
    assert_ne!(reopen(&|tree| drop(tree.insert("ex", "3").unwrap())), pinned);
}

#[test]
fn database_whose_thread_panicked_gives_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (database, _) = Database::open(folder.path()).unwrap();
    database.write(vec![(b"oa".to_vec(), b"1".to_vec())], |_| Vec::new()).unwrap();
    database.panic();
    let is_damage = |error: IndexError| matches!(error, IndexError::Database(_));
    assert!(database.get(b"oa").is_err_and(is_damage));
    assert!(database.orders().is_err_and(is_damage));
    assert!(database.write(vec![(b"ob".to_vec(), b"1".to_vec())], |_| Vec::new()).is_err_and(is_damage));
    // What was not written has no fingerprint.
    assert_eq!(database.get(b"ob").unwrap(), None);
}

/// Takes the orders out of an index that is closed, and lets everything else fit: only the journal can tell.
pub(crate) fn lose_orders(folder: &Path) {
    let folder = folder.join("database");
    let (database, manifest) = Database::open(&folder).unwrap();
    let mut manifest = Manifest::decode(&manifest.unwrap()).unwrap();
    let orders = database.orders().unwrap();
    assert!(!orders.is_empty());
    drop(database);
    let tree = sled::open(&folder).unwrap();
    orders.iter().for_each(|(key, _)| drop(tree.remove(key).unwrap()));
    tree.flush().unwrap();
    drop(tree);
    let (database, _) = Database::open(&folder).unwrap();
    manifest.total = database.total();
    database.write(Vec::new(), |_| manifest.encode()).unwrap();
}

/// A hang of the database fails the index, which lets nothing be answered until it is rebuilt.
#[test]
fn index_whose_database_hangs_fails_and_is_to_be_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (alarm, alarms) = mpsc::sync_channel(1);
    let site = Site { folder: folder.path().to_owned(), journal: JOURNAL, boot: "b".into(), alarm };
    let database = Database::open_within(&folder.path().join("database"), Duration::from_millis(20)).unwrap();
    let release = database.hang();
    let index = Index::new(&site, database, Applied::nothing(JOURNAL));
    assert!(matches!(index.orders(), Err(IndexError::Database(_))));
    assert!(index.failure().is_some());
    alarms.try_recv().unwrap();
    let again = index.orders();
    assert!(matches!(again, Err(IndexError::Rebuilding(_))), "{again:?}");
    assert_eq!(Mark::read(folder.path()).unwrap().state, State::Failed);
    drop(release);
}
