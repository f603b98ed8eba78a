//! Daemons without a network: ledgers with folders of their own on one database.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use birthmark_bench::postgres::{Place, Server, psql};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::{
    ledger::{
        Action, Actor, Holder, Ledger, LedgerError, Operation, OrderTerms, Outcome,
        embedded::{EmbeddedRecords, Guards, Settings},
        journal::Scan,
        shared::{DatabaseSettings, Owner, SharedLedger},
        verify::{VerifyOptions, verify},
    },
    serial::SerialNumber,
};

/// Small, so that files are begun, and everything sinks into the index.
pub(super) const SETTINGS: Settings =
    Settings { segment_size: 4096, flush_at: 8, min_free: 0, mirror: None, boot_id: None };

pub(super) fn device(number: u32) -> String {
    format!("d{number}")
}

pub(super) fn holder(device: &str, key: u32, order: &str) -> Holder {
    let mut key_hash = [0; 32];
    key_hash[..4].copy_from_slice(&key.to_be_bytes());
    let (device, order) = (device.to_owned(), order.to_owned());
    Holder { device, key_hash, order, profile: "p".into(), issuer: "i".into(), issuer_id: 0 }
}

pub(super) fn operation(action: Action) -> Operation {
    Operation { actor: Actor("operator:anna".into()), action }
}

pub(super) fn order(id: &str, quantity: u64) -> Action {
    Action::CreateOrder(OrderTerms::new(id, "p", quantity))
}

pub(super) fn reserve(number: u32, order: &str) -> Action {
    Action::Reserve(holder(&device(number), number, order))
}

pub(super) fn certificate(serial_number: SerialNumber) -> String {
    format!("the certificate {serial_number}")
}

pub(super) fn record(serial_number: SerialNumber) -> Action {
    Action::Record { serial_number, certificate: certificate(serial_number).into() }
}

/// A place in a database.
pub(super) struct Scene {
    pub(super) place: Place,
}

/// The newest batch, its last entry and the chain after it, in hexadecimal digits.
pub(super) struct Head {
    pub(super) batch: u64,
    pub(super) sequence: u64,
    pub(super) chain: String,
}

/// A daemon.
pub(super) struct Daemon {
    pub(super) ledger: SharedLedger,
    pub(super) records: EmbeddedRecords,
    folder: TempDir,
}

impl Scene {
    /// With an empty ledger.
    pub(super) fn new() -> Scene {
        Scene::on(Server::shared())
    }

    pub(super) fn on(server: &Server) -> Scene {
        let scene = Scene { place: server.place().unwrap() };
        scene.owner().create(&scene.place.role, None).unwrap();
        scene
    }

    /// On a server of its own with a synchronous standby; none where somebody else's server is used.
    pub(super) fn with_standby() -> Option<(Scene, Server, Server)> {
        let server = Server::start(&[]).unwrap();
        server.port()?;
        let standby = server.standby().unwrap();
        Some((Scene::on(&server), server, standby))
    }

    /// Without a ledger.
    pub(super) fn empty() -> Scene {
        Scene { place: Server::shared().place().unwrap() }
    }

    pub(super) fn settings_at(&self, url: &str, daemon: &str) -> DatabaseSettings {
        DatabaseSettings {
            url: url.to_owned(),
            password: None,
            folder: ".".into(),
            daemon: daemon.to_owned(),
            copies: 1,
            lease: Duration::from_secs(3),
            patience: Duration::from_secs(20),
        }
    }

    pub(super) fn owner(&self) -> Owner {
        Owner::connect(&self.settings_at(&self.place.owner, "owner")).unwrap()
    }

    pub(super) fn try_open(&self, name: &str, folder: &TempDir, copies: u8) -> Result<Daemon, LedgerError> {
        let settings = DatabaseSettings { copies, ..self.settings_at(&self.place.daemons, name) };
        let opened = SharedLedger::open(folder.path(), Timestamp::now(), &SETTINGS, &Guards::default(), &settings);
        // The folder stays its owner's.
        opened.map(|(ledger, records)| Daemon { ledger, records, folder: tempfile::tempdir().unwrap() })
    }

    pub(super) fn open_at(&self, url: &str, name: &str, folder: TempDir, patience: u64) -> Daemon {
        let patience = Duration::from_secs(patience);
        let settings = DatabaseSettings { patience, ..self.settings_at(url, name) };
        let opened = SharedLedger::open(folder.path(), Timestamp::now(), &SETTINGS, &Guards::default(), &settings);
        let (ledger, records) = opened.unwrap();
        Daemon { ledger, records, folder }
    }

    pub(super) fn open(&self, name: &str, folder: TempDir) -> Daemon {
        self.open_at(&self.place.daemons, name, folder, 20)
    }

    pub(super) fn try_daemon(&self, name: &str) -> Result<Daemon, LedgerError> {
        self.try_open(name, &tempfile::tempdir().unwrap(), 1)
    }

    pub(super) fn daemon(&self, name: &str) -> Daemon {
        self.open(name, tempfile::tempdir().unwrap())
    }

    /// What the ledger has come to in the database.
    pub(super) fn head(&self) -> Head {
        let head = "SELECT batch || ' ' || sequence || ' ' || encode(chain, 'hex') FROM head";
        let head = psql(&self.place.owner, head).unwrap();
        let [batch, sequence, chain] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        Head { batch: batch.parse().unwrap(), sequence: sequence.parse().unwrap(), chain: chain.to_owned() }
    }

    /// The database has no more than it had then: as after a fail-over to a standby that lagged, or with an old backup.
    pub(super) fn roll_back(&self, head: &Head) {
        let Head { batch, sequence, chain } = head;
        let back = format!(
            "DELETE FROM journal WHERE batch > {batch}; \
             UPDATE head SET batch = {batch}, sequence = {sequence}, chain = '\\x{chain}'"
        );
        psql(&self.place.owner, &back).unwrap();
    }

    /// At the end: every copy has the same files, the audit finds nothing wrong with them, and the tables say the same.
    pub(super) fn check(&self, daemons: Vec<Daemon>) {
        let folders: Vec<_> = daemons.into_iter().map(Daemon::close).collect();
        let as_they_ran: Vec<_> = folders.iter().map(|folder| files(folder.path())).collect();
        // All have followed each other's end.
        let folders: Vec<_> = folders
            .into_iter()
            .enumerate()
            .map(|(number, folder)| {
                let daemon = self.open(&format!("check-{number}"), folder);
                daemon.crash()
            })
            .collect();
        let last = self.open("check-last", tempfile::tempdir().unwrap()).close();
        let expected = files(last.path());
        for copy in as_they_ran.into_iter().chain(folders.iter().map(|folder| files(folder.path()))) {
            assert!(!copy.is_empty() && copy.len() <= expected.len(), "{} files", copy.len());
            for ((name, bytes), (same, expected)) in copy.iter().zip(&expected) {
                assert!(name == same && expected.starts_with(bytes), "{name} differs");
            }
        }
        let verified = verify(Scan::open(last.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
        // What a daemon that was stopped had reserved waits for its lease; those that were opened here have reserved nothing.
        let left = self.owner().status().unwrap().daemons;
        if left.iter().all(|daemon| daemon.name.starts_with("check-")) {
            assert_eq!(verified.counts.reserved, 0);
        }
        let tables = "SELECT 'n', encode(name, 'hex') || encode(serial_number, 'hex') FROM names \
                      UNION ALL SELECT 'o', id || ' ' || used FROM orders ORDER BY 1, 2";
        let before = psql(&self.place.owner, tables).unwrap();
        self.owner().rebuild().unwrap();
        assert_eq!(psql(&self.place.owner, tables).unwrap(), before);
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

impl Daemon {
    pub(super) fn try_ask(&mut self, action: Action) -> Result<Outcome, LedgerError> {
        Ok(self.ledger.commit(Timestamp::now(), &[operation(action)])?.remove(0))
    }

    pub(super) fn ask(&mut self, action: Action) -> Outcome {
        self.try_ask(action).unwrap()
    }

    pub(super) fn reserved(&mut self, number: u32, order: &str) -> SerialNumber {
        let outcome = self.ask(reserve(number, order));
        let Outcome::Reserved(serial_number) = outcome else { panic!("{outcome:?}") };
        serial_number
    }

    pub(super) fn issue(&mut self, number: u32, order: &str) -> SerialNumber {
        let serial_number = self.reserved(number, order);
        let outcome = self.ask(record(serial_number));
        assert!(matches!(outcome, Outcome::Recorded), "{outcome:?}");
        serial_number
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its heartbeat, as often as the committer lets it.
    pub(super) fn follow_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.ledger.follow(Timestamp::now()).unwrap();
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends it in order.
    pub(super) fn close(self) -> TempDir {
        let Daemon { ledger, records, folder } = self;
        drop(records);
        ledger.close().unwrap();
        folder
    }

    /// Ends it as kill -9 does.
    pub(super) fn crash(self) -> TempDir {
        let Daemon { ledger, records, folder } = self;
        drop((ledger, records));
        folder
    }
}
