//! The mirror: a second journal on another disk, byte for byte the same, which has every entry before it is answered.
//!
//! A thread of its own writes and syncs it while the committer's thread does the same with the journal, so that both disks
//! sync at the same time. When the mirror fails, the daemon goes on without it and says so; the thread brings it up from
//! the journal's files until it has all, and it is written again from the next write on. When the journal itself fails, the
//! process ends as it would without a mirror, and the next start takes what the mirror has more.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    copy::copy,
    error::JournalError,
    place::{Found, Place},
    segment::{self, Header},
};

/// How often a mirror that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Where the journal ends, and what is to be where the mirror is.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalEnd {
    pub(super) id: [u8; 16],
    pub(super) segment: u32,
    pub(super) length: u32,
    pub(super) entries: u64,
}

/// What the thread is told.
enum Job {
    /// A write: bytes, where they go, and how many entries there are then.
    Write(Arc<Vec<u8>>, u32, u64),
    /// A new file, with its header.
    Begin(u32, Vec<u8>, u64),
    /// What the journal did not take is taken back: the length of the newest file.
    Cut(u32),
    /// The journal ends here, and is not written while this is done: what is missing is copied, and the mirror is written
    /// from now on.
    Join(JournalEnd),
}

/// The mirror's state, for whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct MirrorState(Arc<Mutex<Option<String>>>);

impl MirrorState {
    /// Why the mirror lacks entries; none if it does not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn set(&self, failure: Option<String>) {
        crate::metrics::journal_mirror(failure.is_none());
        *self.0.lock() = failure;
    }
}

/// The mirror of a journal.
#[derive(Debug)]
pub(super) struct Mirror {
    jobs: Option<mpsc::SyncSender<Job>>,
    done: mpsc::Receiver<Result<(), String>>,
    thread: Option<JoinHandle<()>>,
    /// Whether it is written.
    joined: bool,
    /// The thread has brought it up, so that joining takes little.
    caught_up: Arc<AtomicBool>,
    state: MirrorState,
    folder: PathBuf,
}

impl Mirror {
    /// Starts the thread. The mirror in `folder` has what the journal in `journal` has, which ends at `end`.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start(journal: &Path, folder: &Path, end: JournalEnd) -> io::Result<Mirror> {
        let (jobs, work) = mpsc::sync_channel(1);
        let (answers, done) = mpsc::sync_channel(1);
        let (caught_up, state) = (Arc::new(AtomicBool::new(true)), MirrorState::default());
        let writer = Writer {
            journal: journal.to_owned(),
            folder: folder.to_owned(),
            open: None,
            failed: false,
            caught_up: Arc::clone(&caught_up),
        };
        let thread = thread::Builder::new().name("journal-mirror".into()).spawn(move || writer.run(&work, &answers))?;
        let (jobs, thread, folder) = (Some(jobs), Some(thread), folder.to_owned());
        let mut mirror = Mirror { jobs, done, thread, joined: false, caught_up, state, folder };
        mirror.join(end);
        Ok(mirror)
    }

    pub(super) fn state(&self) -> MirrorState {
        self.state.clone()
    }

    /// Has it written from now on, if it was brought up.
    pub(super) fn join_if_caught_up(&mut self, end: JournalEnd) {
        if !self.joined && self.caught_up.swap(false, Ordering::AcqRel) {
            self.join(end);
        }
    }

    fn join(&mut self, end: JournalEnd) {
        self.caught_up.store(false, Ordering::Release);
        let before = self.state.failure();
        self.joined = true;
        self.tell(Job::Join(end));
        self.wait();
        if self.joined {
            self.state.set(None);
            if before.is_some() {
                tracing::warn!(folder = %self.folder.display(), "the journal's mirror has all entries again");
            }
        }
    }

    /// Begins a write; [`Mirror::wait`] ends it.
    pub(super) fn write(&mut self, bytes: Arc<Vec<u8>>, at: u32, entries: u64) {
        self.tell(Job::Write(bytes, at, entries));
    }

    /// Takes back what the journal did not take.
    pub(super) fn cut(&mut self, length: u32) {
        self.tell(Job::Cut(length));
        self.wait();
    }

    /// Begins a file.
    pub(super) fn begin(&mut self, segment: u32, header: Vec<u8>, entries: u64) {
        self.tell(Job::Begin(segment, header, entries));
        self.wait();
    }

    fn tell(&mut self, job: Job) {
        if self.joined && self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            self.lose("its thread panicked".into());
        }
    }

    /// Waits for what it was told.
    pub(super) fn wait(&mut self) {
        if !self.joined {
            return;
        }
        match self.done.recv() {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.lose(why),
            Err(_) => self.lose("its thread panicked".into()),
        }
    }

    fn lose(&mut self, why: String) {
        self.joined = false;
        let folder = self.folder.display();
        if self.state.failure().is_none() {
            tracing::error!(%folder, why, "the journal's mirror failed: the daemon goes on WITHOUT a second copy of the journal");
        }
        self.state.set(Some(format!("the journal's mirror in {folder} lacks entries: {why}")));
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Writer {
    journal: PathBuf,
    folder: PathBuf,
    open: Option<Open>,
    /// What it was told last failed: it brings the mirror up by itself.
    failed: bool,
    caught_up: Arc<AtomicBool>,
}

struct Open {
    id: [u8; 16],
    file: File,
    place: Place,
}

impl Writer {
    fn run(mut self, work: &mpsc::Receiver<Job>, answers: &mpsc::SyncSender<Result<(), String>>) {
        loop {
            let job = match self.failed {
                false => work.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                true => work.recv_timeout(TRY_AGAIN),
            };
            match job {
                Ok(job) => {
                    let result = self.work(job);
                    self.failed = result.is_err();
                    if self.failed {
                        self.open = None;
                    }
                    if answers.send(result.map_err(|error| error.to_string())).is_err() {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // Beside the journal's writer; what comes meanwhile is copied when it is joined.
                    if !self.caught_up.load(Ordering::Acquire) && copy(&self.journal, &self.folder).is_ok() {
                        self.caught_up.store(true, Ordering::Release);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, job: Job) -> Result<(), JournalError> {
        let folder = self.folder.clone();
        let io = |error| JournalError::io(&folder, error);
        match job {
            Job::Join(end) => self.join(end),
            Job::Write(bytes, at, entries) => {
                let open = self.open_mut()?;
                open.file.write_all_at(&bytes, at.into()).and_then(|()| open.file.sync_data()).map_err(io)?;
                open.place.note(entries, false);
                Ok(())
            }
            Job::Cut(length) => {
                let open = self.open_mut()?;
                open.file.set_len(length.into()).and_then(|()| open.file.sync_data()).map_err(io)
            }
            Job::Begin(segment, header, entries) => {
                let id = self.open_mut()?.id;
                let file = segment::create_with(&folder, segment, &header)?;
                segment::sync_new(&file, &folder).map_err(io)?;
                let found = Found { journal: id, segment, file: &file, is_empty: true, entries };
                let place = Place::take(&folder, &found).map_err(io)?;
                self.open = Some(Open { id, file, place });
                Ok(())
            }
        }
    }

    fn open_mut(&mut self) -> Result<&mut Open, JournalError> {
        let gone = || JournalError::io(&self.folder, io::Error::other("it is not open"));
        match &mut self.open {
            Some(open) => Ok(open),
            None => Err(gone()),
        }
    }

    fn join(&mut self, JournalEnd { id, segment, length, entries }: JournalEnd) -> Result<(), JournalError> {
        let io = |error| JournalError::io(&self.folder, error);
        copy(&self.journal, &self.folder)?;
        let path = segment::path(&self.folder, segment);
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() != u64::from(length) {
            return Err(io(io::Error::other("it does not end where the journal does")));
        }
        file.sync_all().map_err(io)?;
        let is_empty = length <= Header::LENGTH;
        let found = Found { journal: id, segment, file: &file, is_empty, entries };
        let place = Place::take(&self.folder, &found).map_err(io)?;
        self.open = Some(Open { id, file, place });
        Ok(())
    }
}
