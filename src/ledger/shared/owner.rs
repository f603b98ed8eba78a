//! What the owner of the tables does, while no daemon needs to run: makes them, fills them, completes them, closes them.

use std::{future::Future, path::Path};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, types::ToSql};

use super::{
    database::LOST,
    derive::Derived,
    error::{SharedError, sentence},
    link::{FORMAT, Link},
    open::open_daemons,
    settings::DatabaseSettings,
    sql::{BatchRow, DaemonRow, HeadRow, RIGHTS, signed},
    target::Target,
};
use crate::ledger::{
    api::Ledger,
    embedded::{EmbeddedLedger, Settings},
    error::LedgerError,
    folder_lock::FolderLock,
    head::ChainHash,
    journal::{Journal, Position, Scan, read_batch},
    marker::Marker,
};

const SCHEMA: &str = include_str!("schema.sql");
const POSTGRESQL: &str = include_str!("postgresql.sql");

/// How many bytes of frames are put into one row.
const ROW: usize = 64 << 10;

const HEAD: &str = "SELECT batch, sequence, chain, (extract(epoch from clock_timestamp()) * 1000000)::bigint, closed, \
     coalesce(current_setting('synchronous_standby_names', true), ''), NULL::text FROM head";
const BATCHES: &str = "SELECT batch, epoch, first, place, frames FROM journal WHERE batch > $1 ORDER BY batch LIMIT 64";

/// A connection as the owner of the tables.
pub struct Owner {
    runtime: Runtime,
    target: Target,
    copies: u8,
    link: Link,
}

/// A ledger that was made.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    /// Its id.
    pub ledger: [u8; 16],
    /// How many entries it has.
    pub entries: u64,
}

/// What was put back.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The sequence number of the first entry.
    pub first: u64,
    /// How many entries.
    pub entries: u64,
}

/// A daemon that has not ended.
#[derive(Clone, Debug)]
pub struct DaemonSeen {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// Seconds since it was heard of, by the database's clock.
    pub age: f64,
}

/// What a shared ledger has come to.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its id.
    pub ledger: [u8; 16],
    /// The newest batch.
    pub batches: u64,
    /// How many entries there are.
    pub entries: u64,
    /// The chain hash after them.
    pub chain: ChainHash,
    /// Why it is closed, if it is.
    pub closed: Option<String>,
    /// The daemons that have not ended.
    pub daemons: Vec<DaemonSeen>,
    /// `synchronous_standby_names`.
    pub standbys: String,
}

impl Owner {
    /// Connects.
    ///
    /// # Errors
    /// What is in the way.
    pub fn connect(settings: &DatabaseSettings) -> Result<Owner, SharedError> {
        let target = Target::of(settings)?;
        let failed = |error: std::io::Error| SharedError::Away { place: target.place.clone(), what: error.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let link = runtime.block_on(Link::plain(&target))?;
        let owner = Owner { runtime, target, copies: settings.copies, link };
        // Neither a limit of this role's own, nor an acknowledgement that waits for nothing.
        let session = "SET synchronous_commit = on; SET lock_timeout = '30s'; SET statement_timeout = 0; \
                       SET idle_in_transaction_session_timeout = 0; SET client_min_messages = notice";
        let told = owner.runtime.block_on(owner.link.client.batch_execute(session));
        told.map_err(|error| SharedError::Away { place: owner.target.place.clone(), what: sentence(&error) })?;
        Ok(owner)
    }

    /// The user of the URL, to whom a daemon's rights are given if no other role is named.
    pub fn user(&self) -> &str {
        &self.target.user
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, LedgerError> {
        self.runtime.block_on(work).map_err(|error| self.failed(sentence(&error)))
    }

    /// Whether the tables are there.
    fn has_ledger(&self) -> Result<bool, LedgerError> {
        self.run(has_ledger(self.client()))
    }

    /// The same by a connection of its own: this one may have been lost.
    fn has_ledger_now(&self) -> Result<bool, LedgerError> {
        let link = self.runtime.block_on(Link::plain(&self.target)).map_err(SharedError::at_start)?;
        self.run(has_ledger(&link.client))
    }

    /// What is moved into a database, or out of it, must be as safe there as what daemons write.
    fn check_durable(&self) -> Result<(), LedgerError> {
        let checked = self.runtime.block_on(self.link.check_durable(&self.target, self.copies));
        checked.map_err(SharedError::at_start)
    }

    fn failed(&self, what: String) -> LedgerError {
        SharedError::Away { place: self.target.place.clone(), what }.at_start()
    }

    fn client(&self) -> &Client {
        &self.link.client
    }

    /// All or nothing.
    fn transaction<T>(&self, work: impl FnOnce() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.run(self.client().batch_execute("BEGIN"))?;
        match work() {
            Ok(done) => {
                self.link.forget_warnings();
                self.run(self.client().batch_execute("COMMIT"))?;
                match self.link.warned() {
                    true => Err(self.failed("the server has warned at COMMIT: look whether it has a standby".into())),
                    false => Ok(done),
                }
            }
            Err(error) => {
                // The connection's end rolls back as well.
                let _ = self.run(self.client().batch_execute("ROLLBACK"));
                Err(error)
            }
        }
    }

    /// Makes the tables, gives `role` a daemon's rights, and takes over the embedded ledger in the folder `from`, if one is named:
    /// its entries stay what they are, and the folder becomes a copy.
    ///
    /// # Errors
    /// Tables that are there already, a folder that is in use or whose journal breaks a rule.
    pub fn create(&self, role: &str, from: Option<&Path>) -> Result<Created, LedgerError> {
        let folder = match from {
            None => None,
            Some(folder) => {
                if !folder.is_dir() || !Journal::exists(&folder.join("journal"))? {
                    return Err(SharedError::Folder(format!("there is no ledger in {}", folder.display())).at_start());
                }
                self.check_durable()?;
                // What a crash left open ends first.
                EmbeddedLedger::open(folder, jiff::Timestamp::now(), &Settings::default())?.0.close()?;
                Some((FolderLock::take(folder)?, folder))
            }
        };
        let journal = match &folder {
            None => None,
            Some((_, folder)) => {
                let mut journal = Journal::open(&folder.join("journal"), Settings::default().segment_size)?;
                journal.settle(None)?;
                Some(journal)
            }
        };
        if self.has_ledger()? {
            let what = "this database has a ledger already; \"birthmark ledger status\" shows it, and another one needs a schema or a database \
                        of its own";
            return Err(SharedError::Refused(what.into()).at_start());
        }
        let created = self.transaction(|| {
            let created = self.fill(role, journal.as_ref())?;
            if let Some((_, folder)) = &folder {
                // Before anybody else may write: the folder is no ledger of its own any more.
                let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
                Marker { ledger: created.ledger, epochs: Vec::new() }.write(folder).map_err(unusable)?;
            }
            Ok(created)
        });
        let (Err(error), Some((_, folder))) = (&created, &folder) else { return created };
        // Where it is known that nothing came of it the folder stays the ledger that it was.
        match self.has_ledger_now() {
            Ok(true) => created,
            Ok(false) => {
                let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
                Marker::remove(folder).map_err(unusable)?;
                created
            }
            Err(_) => {
                let what = format!(
                    "{error}; whether the ledger was made is not known, and until it is, the folder {0} is not used. When the \
                     database answers: if \"birthmark ledger status\" finds a ledger there, it was; if it finds none, remove the \
                     file {0}/shared and try again",
                    folder.display()
                );
                Err(SharedError::Folder(what).at_start())
            }
        }
    }

    fn fill(&self, role: &str, journal: Option<&Journal>) -> Result<Created, LedgerError> {
        let client = self.client();
        self.run(client.batch_execute(SCHEMA))?;
        let version: String = self.run(async { Ok(client.query_one("SELECT version()", &[]).await?.get(0)) })?;
        if version.starts_with("PostgreSQL") && !version.contains("-YB-") {
            self.run(client.batch_execute(POSTGRESQL))?;
        }
        let ledger = journal.map_or_else(rand::random, Journal::id);
        let begin = "INSERT INTO head (one, ledger, format, batch, sequence, chain) VALUES (true, $1, $2, 0, 0, $3)";
        let (id, chain): (&[u8], &[u8]) = (&ledger, &[0; 32]);
        self.run(client.execute(begin, &[&id, &FORMAT, &chain]))?;
        let mut entries = 0;
        if let Some(journal) = journal {
            entries = self.push(journal, Position::start(), (0, 0))?;
            self.derive()?;
        }
        let quoted = format!("\"{}\"", role.replace('"', "\"\""));
        let grants = RIGHTS.map(|(table, rights)| format!("GRANT {} ON {table} TO {quoted}", rights.join(", ")));
        self.run(client.batch_execute(&grants.join("; ")))?;
        let may_change = "SELECT has_table_privilege($1::name, 'journal', 'UPDATE')";
        if self.run(async { Ok(client.query_one(may_change, &[&role]).await?.get(0)) })? {
            let what = format!(
                "the role {role} may change the journal, since it owns the tables or is a superuser; no daemon starts with that: \
                 name another one (--role)"
            );
            return Err(SharedError::Refused(what).at_start());
        }
        Ok(Created { ledger, entries })
    }

    /// Puts the journal's frames from a place on into rows, after the batch and the entry that are there.
    fn push(&self, journal: &Journal, from: Position, (mut batch, before): (u64, u64)) -> Result<u64, LedgerError> {
        let (reader, client) = (journal.reader(), self.client());
        let mut frames = reader.frames(from, journal.end()).peekable();
        let mut sequence = before;
        let mut chain = [0; 32];
        while let Some(first) = frames.next() {
            let first = first?;
            let (begin, mut end, mut count) = (first.position, first.next, 1);
            chain = first.chain;
            while let Some(Ok(next)) = frames.peek() {
                let length = next.next.to_number() - begin.to_number();
                if next.position.segment() != begin.segment() || length > ROW as u64 {
                    break;
                }
                (end, count, chain) = (next.next, count + 1, next.chain);
                frames.next();
            }
            batch += 1;
            let bytes = reader.bytes(begin, end)?;
            let (number, place) = (signed(batch), signed(begin.to_number()));
            let first = signed(sequence + 1);
            let parameters: [&(dyn ToSql + Sync); 5] = [&number, &0_i64, &first, &place, &bytes];
            let insert = "INSERT INTO journal (batch, epoch, first, place, frames) VALUES ($1, $2, $3, $4, $5)";
            self.run(client.execute(insert, &parameters))?;
            sequence += count;
        }
        if sequence > before {
            let (batch, sequence, chain) = (signed(batch), signed(sequence), &chain[..]);
            self.run(
                client.execute("UPDATE head SET batch = $1, sequence = $2, chain = $3", &[&batch, &sequence, &chain]),
            )?;
        }
        Ok(sequence - before)
    }

    /// Makes the derived tables from the journal's rows, every one of which is verified.
    fn derive(&self) -> Result<(), LedgerError> {
        let client = self.client();
        self.run(client.batch_execute("DELETE FROM names; DELETE FROM orders"))?;
        let (mut derived, mut batch, mut chain) = (Derived::default(), 0, [0; 32]);
        loop {
            let rows = self.run(client.query(BATCHES, &[&signed(batch)]))?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let wrong = |what: String| {
                    SharedError::Differs { what: format!("the batch {} of its journal: {what}", batch + 1) }.at_start()
                };
                let row = BatchRow::of(row).filter(|row| row.batch == batch + 1);
                let row = row.ok_or_else(|| wrong("it is not there, or cannot be read".into()))?;
                let (entries, after) = read_batch(row.frames(), chain).map_err(wrong)?;
                entries.iter().try_for_each(|entry| derived.note(entry)).map_err(wrong)?;
                (batch, chain) = (row.batch, after);
                if derived.is_due() {
                    self.run(derived.flush(client))?;
                }
            }
        }
        let head = self.head("")?;
        if (head.batch, head.chain) != (batch, chain) {
            let what = "its journal does not end where its table head says".to_owned();
            return Err(SharedError::Differs { what }.at_start());
        }
        self.run(derived.finish(client))
    }

    /// Makes the tables `names` and `orders` again from the journal, which is verified on the way; daemons wait.
    ///
    /// # Errors
    /// A journal that is damaged or breaks a rule.
    pub fn rebuild(&self) -> Result<(), LedgerError> {
        self.transaction(|| {
            self.head(" FOR UPDATE")?;
            self.derive()
        })
    }

    /// Brings the tables to the form that this version knows. There is one so far: they have it, or are of another version.
    ///
    /// # Errors
    /// Tables of a form that this version does not know.
    pub fn upgrade(&self) -> Result<i64, LedgerError> {
        let format = self.run(async { Ok(self.client().query_one("SELECT format FROM head", &[]).await?.get(0)) })?;
        match format == FORMAT {
            true => Ok(format),
            false => Err(self.failed(format!("its tables have the format {format}, and this version knows {FORMAT}"))),
        }
    }

    fn head(&self, lock: &str) -> Result<HeadRow, LedgerError> {
        let text = format!("{HEAD}{lock}");
        let row = self.run(self.client().query_one(&text, &[]))?;
        HeadRow::of(&row).ok_or_else(|| self.failed("its table head cannot be read".into()))
    }

    fn ledger(&self) -> Result<[u8; 16], LedgerError> {
        let row = self.run(self.client().query_one("SELECT ledger FROM head", &[]))?;
        let id = row.try_get::<_, &[u8]>(0).ok().and_then(|id| id.try_into().ok());
        id.ok_or_else(|| self.failed("its table head cannot be read".into()))
    }

    /// What the ledger has come to, and who writes it.
    ///
    /// # Errors
    /// A database that is away or has no ledger.
    pub fn status(&self) -> Result<Status, LedgerError> {
        let (head, ledger) = (self.head("")?, self.ledger()?);
        let text = "SELECT epoch, name, (extract(epoch from renewed) * 1000000)::bigint, \
                    (extract(epoch from clock_timestamp() - renewed) * 1000000)::bigint FROM daemons ORDER BY epoch";
        let rows = self.run(self.client().query(text, &[]))?;
        let seen = rows.iter().filter_map(DaemonRow::of);
        let daemons =
            seen.map(|row| DaemonSeen { name: row.name, epoch: row.epoch, age: row.age as f64 / 1e6 }).collect();
        let HeadRow { batch: batches, sequence: entries, chain, closed, standbys, .. } = head;
        Ok(Status { ledger, batches, entries, chain, closed, daemons, standbys })
    }

    /// Puts back what the database has lost and the copy in `folder` still has, unless others have written something else since.
    ///
    /// # Errors
    /// A copy that has no more than the database, or goes another way.
    pub fn restore(&self, folder: &Path) -> Result<Restored, LedgerError> {
        self.check_durable()?;
        let (_lock, journal) = self.copy_in(folder)?;
        self.transaction(|| {
            let head = self.head(" FOR UPDATE")?;
            if let Some(why) = head.closed.filter(|why| !why.starts_with(LOST)) {
                return Err(closed(&why));
            }
            let entries = journal.next_sequence() - 1;
            if entries <= head.sequence {
                let what = format!(
                    "there is nothing to restore: the copy in {} has {entries} entries, and the database {}",
                    folder.display(),
                    head.sequence
                );
                return Err(SharedError::Folder(what).at_start());
            }
            let mut scan = Scan::open(&journal.reader().folder())?;
            let chain = scan.chain_after(head.sequence)?.unwrap_or_default();
            if chain != head.chain {
                let what = format!(
                    "up to the entry {} they are not the same, so others have written since; docs/cluster.md, \"When two copies \
                     differ\", has the way of the certificates that only this copy has",
                    head.sequence
                );
                return Err(SharedError::Differs { what }.at_start());
            }
            let from = match head.sequence {
                0 => Position::start(),
                _ => {
                    scan.skip_to(head.sequence + 1)?;
                    loop {
                        let frame = scan.read()?.ok_or_else(|| self.failed("the copy ends early".into()))?;
                        if frame.sequence == head.sequence + 1 {
                            break Position::from_number(u64::from(frame.file) << 32 | frame.offset);
                        }
                    }
                }
            };
            let pushed = self.push(&journal, from, (head.batch, head.sequence))?;
            self.derive()?;
            self.run(self.client().execute("UPDATE head SET closed = NULL", &[]))?;
            Ok(Restored { first: head.sequence + 1, entries: pushed })
        })
    }

    /// Takes the ledger out of the database: it is closed there, and the copy in `folder`, which must have all of it, is a ledger
    /// of its own from now on.
    ///
    /// # Errors
    /// A daemon that has not ended, or a copy that is not whole.
    pub fn leave(&self, folder: &Path) -> Result<u64, LedgerError> {
        self.check_durable()?;
        let (_lock, mut journal) = self.copy_in(folder)?;
        let entries = journal.next_sequence() - 1;
        // By the journal: the table `daemons` is what the daemons themselves say, and rows of it can be deleted.
        let open = open_daemons(folder, self.ledger()?)?;
        let why = format!(
            "it was taken out of this database, into {} on {}",
            folder.display(),
            rustix::system::uname().nodename().to_string_lossy()
        );
        self.transaction(|| {
            let head = self.head(" FOR UPDATE")?;
            // What a crash before the folder's own part interrupted goes on.
            if let Some(reason) = head.closed.filter(|closed| *closed != why) {
                return Err(closed(&reason));
            }
            if (entries, *journal.chain()) != (head.sequence, head.chain) {
                let what = format!(
                    "the copy in {} ends at the entry {entries}, and the ledger at {}: start its daemon once, so that it follows",
                    folder.display(),
                    head.sequence
                );
                return Err(SharedError::Differs { what }.at_start());
            }
            if !open.is_empty() {
                let what = format!(
                    "daemons have not ended: {}. Stop those that run; start and stop one that crashed, or, if its machine is gone, \
                     let any other run for the lease (ledger.lease) and stop that",
                    open.join(", ")
                );
                return Err(SharedError::Refused(what).at_start());
            }
            self.run(self.client().execute("UPDATE head SET closed = $1", &[&why]))
        })?;
        journal.settle(None)?;
        journal.take_place()?;
        journal.note_place();
        let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
        Marker::remove(folder).map_err(unusable)?;
        Ok(entries)
    }

    /// The copy of this ledger in a folder that no daemon uses.
    fn copy_in(&self, folder: &Path) -> Result<(FolderLock, Journal), LedgerError> {
        let lock = FolderLock::take(folder)?;
        let ledger = self.ledger()?;
        let marker = Marker::read(folder).map_err(|what| SharedError::Folder(what).at_start())?;
        if marker.is_none_or(|marker| marker.ledger != ledger) {
            let what = format!("the folder {} holds no copy of the ledger {}", folder.display(), hex::encode(ledger));
            return Err(SharedError::Folder(what).at_start());
        }
        let mut journal = Journal::open(&folder.join("journal"), Settings::default().segment_size)?;
        journal.settle(None)?;
        Ok((lock, journal))
    }
}

fn closed(why: &str) -> LedgerError {
    SharedError::Refused(format!("this database's ledger is closed: {why}")).at_start()
}

async fn has_ledger(client: &Client) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_one("SELECT to_regclass('head') IS NOT NULL", &[]).await?.get(0))
}
