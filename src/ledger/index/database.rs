//! The index's database: sled, which keeps what is small, that is orders, exports, issuers, and the manifest.
//!
//! sled 0.34 panics where its files are not as it left them, does not sync what it writes, and a thread of it that
//! panics leaves calls waiting forever. So it lives in a thread of its own: a panic ends that thread alone, and a call
//! that is not answered in time has failed. After a failure the database is not used again; the index is rebuilt.
//!
//! What it returns is not believed either. For each pair there is a fingerprint in memory, and the manifest has the
//! number of pairs and the sum of their fingerprints. Both are compared when the database is opened, so a pair that is
//! lost or changed is noticed then; later each value is compared with its fingerprint. What has no fingerprint is not
//! there, for certain.

use std::{
    collections::HashMap,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use super::error::IndexError;
use crate::hash::sha256;

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// How much of the database sled may keep in memory, in bytes.
const CACHE: u64 = 8 << 20;

/// How long a call may take. sled needs milliseconds; a disk that is this slow gets its index rebuilt.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a database that is dropped may take to close its files.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The first byte of an order's key.
pub(super) const ORDER: u8 = b'o';

/// The key of the manifest, which has no fingerprint but a checksum of its own.
const MANIFEST: &[u8] = b"m";

/// The database, and what it must hold.
#[derive(Debug)]
pub(super) struct Database {
    calls: mpsc::SyncSender<Call>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
    /// How long a call may take.
    limit: Duration,
    folder: PathBuf,
    held: RwLock<Held>,
}

/// The fingerprints of all pairs but the manifest.
#[derive(Clone, Debug, Default)]
struct Held {
    fingerprints: HashMap<[u8; 16], u128>,
    total: Total,
}

/// What the manifest pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// How many pairs there are.
    pub(super) pairs: u64,
    /// How many of them are orders.
    pub(super) orders: u64,
    /// The sum of their fingerprints.
    pub(super) sum: u128,
}

#[derive(Debug)]
enum Call {
    Get(Vec<u8>, Answer<Option<Vec<u8>>>),
    Scan(Vec<u8>, Answer<Vec<Pair>>),
    Write(Vec<Pair>, Answer<()>),
    Close(Answer<()>),
    /// Ends the thread as a bug in sled would.
    #[cfg(test)]
    Panic,
    /// Does not return before the other side is dropped.
    #[cfg(test)]
    Hang(mpsc::Receiver<()>),
}

type Answer<T> = mpsc::SyncSender<Result<T, sled::Error>>;

impl Held {
    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let new = fingerprint(key, value);
        let before = self.fingerprints.insert(name(key), new);
        if before.is_none() {
            self.total.pairs += 1;
            self.total.orders += u64::from(key.first() == Some(&ORDER));
        }
        self.total.sum = self.total.sum.wrapping_sub(before.unwrap_or(0)).wrapping_add(new);
    }
}

fn name(key: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    name.copy_from_slice(&sha256(key)[..16]);
    name
}

fn fingerprint(key: &[u8], value: &[u8]) -> u128 {
    let hash = sha256(&[&(key.len() as u64).to_be_bytes(), key, value].concat());
    hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

impl Database {
    /// Opens the database in `folder`, or makes an empty one. Returns the manifest as well, if there is one; the caller
    /// compares [`Database::total`] with what it pins.
    ///
    /// # Errors
    /// Whatever sled does: an error, a panic, no answer.
    pub(super) fn open(folder: &Path) -> Result<(Database, Option<Vec<u8>>), IndexError> {
        Database::open_with(folder, LIMIT, open_and_read)
    }

    /// As [`Database::open`]; later calls may take no longer than `limit`.
    #[cfg(test)]
    pub(super) fn open_within(folder: &Path, limit: Duration) -> Result<Database, IndexError> {
        let (mut database, _) = Database::open(folder)?;
        database.limit = limit;
        Ok(database)
    }

    /// As [`Database::open`], with sled opened by `open` and calls that may take no longer than `limit`.
    fn open_with(
        folder: &Path,
        limit: Duration,
        open: impl FnOnce(&Path) -> sled::Result<Opened> + Send + 'static,
    ) -> Result<(Database, Option<Vec<u8>>), IndexError> {
        let (calls, called) = mpsc::sync_channel(16);
        let (ending, ended) = mpsc::sync_channel(1);
        let (opening, opened) = mpsc::sync_channel(1);
        let path = folder.to_owned();
        let run = move || {
            let _ending = ending;
            match open(&path) {
                Ok((tree, held, manifest)) => {
                    if opening.send(Ok((held, manifest))).is_ok() {
                        serve(tree, &called);
                    }
                }
                Err(error) => drop(opening.send(Err(error))),
            }
        };
        let failed = |what: String| IndexError::Database(what);
        thread::Builder::new().name("index-database".into()).spawn(run).map_err(|error| failed(error.to_string()))?;
        let (held, manifest) = answered(opened.recv_timeout(limit))?;
        let ended = Mutex::new(ended);
        Ok((Database { calls, ended, limit, folder: folder.to_owned(), held: RwLock::new(held) }, manifest))
    }

    /// What it holds.
    pub(super) fn total(&self) -> Total {
        self.held.read().total
    }

    /// The value of a key. None: it was never written.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let held = self.held.read();
        let Some(fingerprint) = held.fingerprints.get(&name(key)) else { return Ok(None) };
        let value = self.call(|answer| Call::Get(key.to_owned(), answer))?;
        let value = value.filter(|value| self::fingerprint(key, value) == *fingerprint);
        value.map(Some).ok_or_else(|| self.damaged("a value is not the one that was written"))
    }

    /// All orders, in the order of their keys.
    pub(super) fn orders(&self) -> Result<Vec<Pair>, IndexError> {
        // What is written meanwhile would be half of what is read.
        let held = self.held.read();
        let pairs = self.call(|answer| Call::Scan(vec![ORDER], answer))?;
        let right = |(key, value): &Pair| held.fingerprints.get(&name(key)) == Some(&fingerprint(key, value));
        if pairs.len() as u64 != held.total.orders || !pairs.iter().all(right) {
            return Err(self.damaged("the orders are not those that were written"));
        }
        Ok(pairs)
    }

    /// Writes these pairs, and the manifest that `manifest` makes of what the database then holds; all or nothing.
    pub(super) fn write(&self, pairs: Vec<Pair>, manifest: impl FnOnce(Total) -> Vec<u8>) -> Result<(), IndexError> {
        let mut held = self.held.write();
        let before = held.total;
        let mut replaced = Vec::with_capacity(pairs.len());
        for (key, value) in &pairs {
            replaced.push((name(key), held.fingerprints.get(&name(key)).copied()));
            held.insert(key, value);
        }
        let mut batch = pairs;
        batch.push((MANIFEST.to_vec(), manifest(held.total)));
        let written = self.call(|answer| Call::Write(batch, answer));
        if written.is_err() {
            // Later calls get an error in any case; only what was there before may still be read.
            held.total = before;
            for (name, fingerprint) in replaced.into_iter().rev() {
                match fingerprint {
                    Some(fingerprint) => held.fingerprints.insert(name, fingerprint),
                    None => held.fingerprints.remove(&name),
                };
            }
        }
        written
    }

    /// Closes the files; they are on stable storage then.
    pub(super) fn close(&self) -> Result<(), IndexError> {
        self.call(Call::Close)?;
        self.wait_for_the_end();
        Ok(())
    }

    fn call<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, IndexError> {
        let (answer, answers) = mpsc::sync_channel(1);
        let mut call = call(answer);
        let begun = std::time::Instant::now();
        // The thread takes one call at a time; one that hangs must not block the others forever.
        loop {
            match self.calls.try_send(call) {
                Ok(()) => return answered(answers.recv_timeout(self.limit)),
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(IndexError::Database(PANICKED.into())),
                Err(mpsc::TrySendError::Full(_)) if begun.elapsed() > self.limit => {
                    return Err(IndexError::Database(NO_ANSWER.into()));
                }
                Err(mpsc::TrySendError::Full(again)) => call = again,
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn damaged(&self, what: &str) -> IndexError {
        IndexError::Damaged { path: self.folder.display().to_string(), what: what.into() }
    }

    fn wait_for_the_end(&self) {
        let ended = self.ended.lock();
        let _ = ended.recv_timeout(CLOSE_LIMIT);
    }

    #[cfg(test)]
    pub(super) fn panic(&self) {
        let _ = self.calls.send(Call::Panic);
    }

    /// Hangs until what is returned is dropped.
    #[cfg(test)]
    pub(super) fn hang(&self) -> mpsc::SyncSender<()> {
        let (release, released) = mpsc::sync_channel(0);
        let _ = self.calls.send(Call::Hang(released));
        release
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Its files are free for the next when the thread has ended; one that hangs keeps what it has.
        let (gone, _) = mpsc::sync_channel(0);
        self.calls = gone;
        self.wait_for_the_end();
    }
}

const PANICKED: &str = "its thread panicked; the message is above";
const NO_ANSWER: &str = "it does not answer";

fn answered<T>(answer: Result<Result<T, sled::Error>, mpsc::RecvTimeoutError>) -> Result<T, IndexError> {
    let answer = answer.map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => IndexError::Database(NO_ANSWER.into()),
        mpsc::RecvTimeoutError::Disconnected => IndexError::Database(PANICKED.into()),
    })?;
    answer.map_err(|error| IndexError::Database(error.to_string()))
}

/// The database, what it holds and its manifest, if it has one.
type Opened = (ManuallyDrop<sled::Db>, Held, Option<Vec<u8>>);

/// A file of this name in the database's folder makes sled's opening panic.
#[cfg(test)]
pub(crate) const PANIC_AT_OPEN: &str = "panic-at-open";

/// Opens sled and reads all that is in it.
fn open_and_read(folder: &Path) -> sled::Result<Opened> {
    #[cfg(test)]
    assert!(!folder.join(PANIC_AT_OPEN).exists(), "as a test asked");
    // No thread of sled's own that flushes: `write` does, and returns its result.
    let config = sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None);
    // Never dropped by a panic: what sled does then would panic again, and that ends the process.
    let tree = ManuallyDrop::new(config.open()?);
    let mut held = Held::default();
    let mut manifest = None;
    for pair in tree.iter() {
        let (key, value) = pair?;
        match &*key {
            MANIFEST => manifest = Some(value.to_vec()),
            key => held.insert(key, &value),
        }
    }
    Ok((tree, held, manifest))
}

/// Serves calls until the database is dropped.
fn serve(tree: ManuallyDrop<sled::Db>, calls: &mpsc::Receiver<Call>) {
    let mut closing = None;
    for call in calls {
        // A caller that timed out has noted the failure.
        match call {
            Call::Get(key, answer) => drop(answer.send(tree.get(key).map(|value| value.map(|value| value.to_vec())))),
            Call::Scan(prefix, answer) => {
                let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| pair.map(|(k, v)| (k.to_vec(), v.to_vec()));
                drop(answer.send(tree.scan_prefix(prefix).map(pair).collect()));
            }
            Call::Write(pairs, answer) => {
                let mut batch = sled::Batch::default();
                pairs.into_iter().for_each(|(key, value)| batch.insert(key, value));
                drop(answer.send(tree.apply_batch(batch).and_then(|()| tree.flush()).map(drop)));
            }
            Call::Close(answer) => {
                closing = Some((answer, tree.flush()));
                break;
            }
            #[cfg(test)]
            Call::Panic => panic!("as a test asked"),
            #[cfg(test)]
            Call::Hang(released) => drop(released.recv()),
        }
    }
    drop(ManuallyDrop::into_inner(tree));
    if let Some((answer, flushed)) = closing {
        drop(answer.send(flushed.map(drop)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure<T: std::fmt::Debug>(result: Result<T, IndexError>) -> String {
        let error = result.unwrap_err();
        assert!(error.is_damage(), "{error:?}");
        error.to_string()
    }

    /// A panic of sled ends its thread alone, and is an error of the opening.
    #[test]
    fn database_open_that_panics_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Database::open_with(folder.path(), LIMIT, |_| panic!("as a test asked"));
        assert!(failure(opened).contains(PANICKED));
    }

    #[test]
    fn database_open_that_hangs_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (release, released) = mpsc::sync_channel::<()>(0);
        let hang = move |folder: &Path| {
            let _ = released.recv();
            open_and_read(folder)
        };
        let opened = Database::open_with(folder.path(), Duration::from_millis(20), hang);
        assert!(failure(opened).contains(NO_ANSWER));
        drop(release);
    }

    /// Calls that follow one that hangs fail as well, also when no more of them can wait.
    #[test]
    fn database_call_that_hangs_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_within(folder.path(), Duration::from_millis(20)).unwrap();
        let release = database.hang();
        for _ in 0..20 {
            assert!(failure(database.orders()).contains(NO_ANSWER));
        }
        assert!(failure(database.write(Vec::new(), |_| Vec::new())).contains(NO_ANSWER));
        drop(release);
    }
}
