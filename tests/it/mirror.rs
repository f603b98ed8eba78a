//! The journal's mirror: the same bytes, before anything is answered, and the way on with one of the two.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use birthmark::ledger::{
    Action, Holder, Ledger, Outcome,
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
};
use jiff::Timestamp;

use crate::support::{
    ledger::{holder, operation, terms},
    site::wait_until,
};

/// A data folder and the folder of its mirror.
pub(crate) struct Disks {
    _folder: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pub(crate) mirror: PathBuf,
}

impl Disks {
    pub(crate) fn new() -> Disks {
        let folder = tempfile::tempdir().unwrap();
        let (data, mirror) = (folder.path().join("data"), folder.path().join("mirror"));
        fs::create_dir(&mirror).unwrap();
        Disks { _folder: folder, data, mirror }
    }

    pub(crate) fn try_open(&self) -> Result<(EmbeddedLedger, EmbeddedRecords), String> {
        let mirror = Some(self.mirror.clone());
        let settings = Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror, boot_id: None };
        EmbeddedLedger::open(&self.data, Timestamp::now(), &settings).map_err(|error| error.to_string())
    }

    pub(crate) fn open(&self) -> (EmbeddedLedger, EmbeddedRecords) {
        self.try_open().unwrap()
    }

    pub(crate) fn same(&self) {
        let (one, other) = (files(&self.data), files(&self.mirror));
        assert!(one.len() > 1 && one == other, "{:?} {:?}", one.keys(), other.keys());
    }
}

pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let journal = entries.filter(|path| path.extension().is_some_and(|extension| extension == "journal"));
    journal.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

pub(crate) fn one(ledger: &mut EmbeddedLedger, action: Action) -> Outcome {
    ledger.commit(Timestamp::now(), &[operation(action)]).unwrap().remove(0)
}

pub(crate) fn device(number: u32) -> Holder {
    let mut key_hash = [0; 32];
    key_hash[..4].copy_from_slice(&number.to_be_bytes());
    holder(&format!("d{number}"), key_hash)
}

pub(crate) fn issue(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let outcome = one(ledger, Action::Reserve(device(number)));
        let Outcome::Reserved(serial_number) = outcome else { panic!("{outcome:?}") };
        let certificate = vec![number as u8; 300].into();
        assert!(matches!(one(ledger, Action::Record { serial_number, certificate }), Outcome::Recorded));
    }
}

pub(crate) fn knows(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let outcome = one(ledger, Action::Reserve(device(number)));
        assert!(matches!(outcome, Outcome::Replay { .. }), "{number}: {outcome:?}");
    }
}

/// After every answer both have the same bytes, also when the daemon is killed; what one of them loses, the other gives back.
#[test]
fn mirror_has_every_answered_byte_and_gives_it_back() {
    let disks = Disks::new();
    let (mut ledger, records) = disks.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    for number in 0..30 {
        issue(&mut ledger, number..number + 1);
        assert_eq!(files(&disks.data), files(&disks.mirror), "{number}");
    }
    disks.same();
    assert_eq!(records.mirrored(), Ok(()));
    // As a kill leaves it.
    drop((ledger, records));

    type Loss = fn(&Disks);
    let losses: [(&str, Loss); 7] = [
        ("nothing", |_| {}),
        ("all of the first disk", |disks| fs::remove_dir_all(&disks.data).unwrap()),
        ("nothing again", |_| {}),
        ("all of the other disk", |disks| fs::remove_dir_all(disks.mirror.join("journal")).unwrap()),
        ("the newest file", |disks| {
            let newest = files(&disks.data).into_keys().next_back().unwrap();
            fs::remove_file(disks.data.join("journal").join(newest)).unwrap();
            fs::remove_dir_all(disks.data.join("index")).unwrap();
        }),
        ("the end of the newest file", |disks| {
            let (newest, content) = files(&disks.data).into_iter().next_back().unwrap();
            fs::write(disks.data.join("journal").join(newest), &content[..content.len() - 1]).unwrap();
        }),
        ("the end of the mirror's newest file", |disks| {
            let (newest, content) = files(&disks.mirror).into_iter().next_back().unwrap();
            fs::write(disks.mirror.join("journal").join(newest), &content[..content.len() - 1]).unwrap();
        }),
    ];
    for (round, (what, loss)) in losses.into_iter().enumerate() {
        loss(&disks);
        let (mut ledger, records) = disks.open();
        let issued = 30 + round as u32;
        knows(&mut ledger, 0..issued);
        issue(&mut ledger, issued..issued + 1);
        assert_eq!(records.healthy(), Ok(()), "{what}");
        assert_eq!(records.mirrored(), Ok(()), "{what}");
        drop(records);
        // A whole disk goes after an orderly end; after a kill the other one may be behind it.
        match round {
            1 | 3 | 5 => drop(ledger),
            _ => ledger.close().unwrap(),
        }
        disks.same();
    }
}

/// A disk that is not there stops nothing; when it is back the mirror gets what it lacks by itself.
#[test]
fn mirror_that_is_away_is_brought_up_by_itself() {
    let disks = Disks::new();
    let (mut ledger, records) = disks.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..5);
    let away = disks.mirror.with_extension("away");
    fs::rename(&disks.mirror, &away).unwrap();
    issue(&mut ledger, 5..30);
    let said = records.mirrored().unwrap_err();
    assert!(said.contains("lacks entries"), "{said}");
    assert_eq!(records.healthy(), Ok(()));
    fs::rename(&away, &disks.mirror).unwrap();
    let mut number = 30;
    wait_until("the mirror is written again", || {
        issue(&mut ledger, number..number + 1);
        number += 1;
        records.mirrored().is_ok()
    });
    disks.same();
    issue(&mut ledger, number..number + 20);
    disks.same();
    drop(records);
    ledger.close().unwrap();
    // Not there at a start: nothing is made in its place.
    fs::rename(&disks.mirror, &away).unwrap();
    let (mut ledger, records) = disks.open();
    knows(&mut ledger, 0..number + 20);
    assert!(records.mirrored().is_err() && !disks.mirror.exists());
    fs::rename(&away, &disks.mirror).unwrap();
    number += 20;
    wait_until("the mirror is written again", || {
        issue(&mut ledger, number..number + 1);
        number += 1;
        records.mirrored().is_ok()
    });
    disks.same();
}

/// Journals that went on in different ways are for a person to look at.
#[test]
fn mirror_that_went_another_way_refuses_the_start() {
    let disks = Disks::new();
    let (mut ledger, records) = disks.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..5);
    drop((ledger, records));
    // Another journal altogether, and a longer one.
    let other = Disks::new();
    let (mut ledger, records) = other.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..20);
    drop((ledger, records));
    let own = disks.mirror.with_extension("own");
    fs::rename(&disks.mirror, &own).unwrap();
    fs::rename(&other.mirror, &disks.mirror).unwrap();
    let before = (files(&disks.data), files(&disks.mirror));
    let said = disks.try_open().map(drop).unwrap_err();
    assert!(said.contains("gone different ways"), "{said}");
    for folder in [&disks.data, &disks.mirror] {
        assert!(said.contains(folder.to_str().unwrap()), "{said}");
    }
    assert!(before == (files(&disks.data), files(&disks.mirror)));
    fs::rename(&disks.mirror, &other.mirror).unwrap();
    // Two daemons with one mirror.
    fs::rename(&own, &disks.mirror).unwrap();
    let (_ledger, _records) = disks.open();
    let second = Disks {
        _folder: tempfile::tempdir().unwrap(),
        data: own.with_extension("second"),
        mirror: disks.mirror.clone(),
    };
    assert!(second.try_open().map(drop).unwrap_err().contains("another birthmark daemon"));
}
