//! The mirror: a second journal on another disk, byte for byte the same, which has every entry before it is answered.
//!
//! A thread of its own writes and syncs it while the committer's thread does the same with the journal, so that both disks
//! sync at the same time. When the mirror fails, the daemon goes on without it and says so; the thread brings it up from
//! the journal's files until it has all, and it is written again from the next write on. When the journal fails, the two
//! change their parts: the mirror's folder is the journal's from then on, and the one that failed is brought up as its mirror.
//!
//! What a disk whose sync failed shows in memory may not be on it, and may seem to need no writing (Rebello et al.): what is
//! brought up is written again from the beginning of its newest file on.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    copy::{Newest, copy},
    own,
    pairing::{self, Pairing},
    place::{Found, Place},
    segment::{self, Header},
};
use crate::{durable, file_lock::lock_file};

/// After which pause a mirror that failed is tried again; each later one is twice as long, up to the last.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const TRY_AGAIN_AT_LAST: Duration = Duration::from_secs(30);
/// How long the writer has to join a mirror that was brought up, before what came meanwhile is copied.
const MEANWHILE: Duration = Duration::from_millis(100);

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

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The mirror's state, for whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct MirrorState(Arc<Mutex<Option<String>>>);

impl MirrorState {
    /// Why one of the two lacks entries; none if both have all.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// The copy in this folder lacks entries. Whether it had all until now.
    pub(super) fn fail(&self, folder: &Path, why: &str) -> bool {
        let told = format!("the journal's copy in {} lacks entries: {why}", folder.display());
        self.0.lock().replace(told).is_none()
    }

    fn recovered(&self, folder: &Path) {
        if self.0.lock().take().is_some() {
            tracing::warn!(folder = %folder.display(), "the journal's copy has all entries again");
        }
    }
}

/// What both threads see of a mirror that is not written.
#[derive(Debug, Default)]
struct Progress {
    /// The thread has brought it up, so that joining takes little.
    caught_up: AtomicBool,
    /// How many entries the journal has.
    entries: AtomicU64,
}

/// The mirror of a journal.
#[derive(Debug)]
pub(super) struct Mirror {
    jobs: Option<mpsc::SyncSender<Job>>,
    done: mpsc::Receiver<Result<(), Fault>>,
    thread: Option<JoinHandle<()>>,
    /// Whether it is written.
    joined: bool,
    progress: Arc<Progress>,
    state: MirrorState,
    journal: PathBuf,
    folder: PathBuf,
}

impl Mirror {
    /// Starts the thread. The mirror in `folder` is brought up to the journal in `journal`, which ends at `end`.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start(journal: &Path, folder: &Path, end: JournalEnd, state: MirrorState) -> io::Result<Mirror> {
        let mut mirror = Mirror::begin_thread(journal, folder, state, false)?;
        mirror.join(end);
        mirror.wrote(end);
        Ok(mirror)
    }

    /// Starts the thread of a mirror that failed: it is brought up to the journal, which has so many entries, when it can be.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start_behind(journal: &Path, folder: &Path, entries: u64, state: MirrorState) -> io::Result<Mirror> {
        let mirror = Mirror::begin_thread(journal, folder, state, true)?;
        mirror.progress.entries.store(entries, Ordering::SeqCst);
        Ok(mirror)
    }

    fn begin_thread(journal: &Path, folder: &Path, state: MirrorState, failed: bool) -> io::Result<Mirror> {
        let (jobs, work) = mpsc::sync_channel(1);
        let (answers, done) = mpsc::sync_channel(1);
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            journal: journal.to_owned(),
            folder: folder.to_owned(),
            open: None,
            pause: failed.then_some(TRY_AGAIN),
            newest: Newest::Again,
            progress: Arc::clone(&progress),
            state: state.clone(),
        };
        let thread = thread::Builder::new().name("journal-mirror".into()).spawn(move || writer.run(&work, &answers))?;
        let (journal, folder) = (journal.to_owned(), folder.to_owned());
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Mirror { jobs, done, thread, joined: false, progress, state, journal, folder })
    }

    pub(super) fn state(&self) -> MirrorState {
        self.state.clone()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it has all that the journal has, and is written.
    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Has it written from now on, if it was brought up.
    pub(super) fn join_if_caught_up(&mut self, end: JournalEnd) {
        if !self.joined && self.progress.caught_up.swap(false, Ordering::SeqCst) {
            self.join(end);
        }
    }

    fn join(&mut self, end: JournalEnd) {
        self.joined = true;
        self.tell(Job::Join(end));
        if self.wait() {
            self.state.recovered(&self.folder);
        }
    }

    /// Begins a write; [`Mirror::wait`] ends it.
    pub(super) fn write(&mut self, bytes: Arc<Vec<u8>>, at: u32, entries: u64) {
        self.tell(Job::Write(bytes, at, entries));
    }

    /// The journal ends here now. If the thread brought the mirror up meanwhile, without what was just written, it gets that.
    pub(super) fn wrote(&mut self, end: JournalEnd) {
        if !self.joined {
            self.progress.entries.store(end.entries, Ordering::SeqCst);
            self.join_if_caught_up(end);
        }
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

    /// Both say that they had the same when the daemon ended.
    pub(super) fn note_stop(&self) {
        if self.joined {
            // If it fails, the next start has to find both.
            let _ = pairing::note(&self.folder, Pairing::Stopped, &self.journal);
            let _ = pairing::note(&self.journal, Pairing::Stopped, &self.folder);
        }
    }

    /// Opens its newest file for writing, after the journal's disk failed at `end`, which the mirror has. A lock and a place
    /// are taken as the journal had them.
    pub(super) fn take_over(
        &self,
        JournalEnd { id, segment, length, entries }: JournalEnd,
        locked: bool,
        placed: bool,
    ) -> io::Result<(File, Option<Place>)> {
        let path = segment::path(&self.folder, segment);
        let file = File::options().read(true).write(true).open(&path)?;
        if file.metadata()?.len() != u64::from(length) {
            return Err(io::Error::other("it does not end where the journal does"));
        }
        if locked && !lock_file(&file)? {
            return Err(io::Error::other("another process has it locked"));
        }
        // Before anything is answered that only this one has.
        pairing::note(&self.folder, Pairing::Alone, &self.journal)?;
        let found = Found { journal: id, segment, file: &file, is_empty: length <= Header::LENGTH, entries };
        let place = placed.then(|| Place::take(&self.folder, &found)).transpose()?;
        Ok((file, place))
    }

    fn tell(&mut self, job: Job) {
        if self.joined && self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            self.lose("its thread panicked");
        }
    }

    /// Waits for what it was told. Whether it has all that the journal has.
    pub(super) fn wait(&mut self) -> bool {
        if self.joined {
            match self.done.recv() {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => self.lose(&fault.to_string()),
                Err(_) => self.lose("its thread panicked"),
            }
        }
        self.joined
    }

    fn lose(&mut self, why: &str) {
        self.joined = false;
        let folder = self.folder.display();
        if self.state.fail(&self.folder, why) {
            tracing::error!(%folder, why, "the journal's copy failed: the daemon goes on WITHOUT a second copy of the journal");
        }
        // Before anything is answered that only the journal has.
        if let Err(error) = pairing::note(&self.journal, Pairing::Alone, &self.folder) {
            tracing::error!(journal = %self.journal.display(), %error, "it cannot be noted that only this journal has all");
        }
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
    /// What it was told last failed: it brings the mirror up by itself, after this time; none: it waits to be told.
    pause: Option<Duration>,
    newest: Newest,
    progress: Arc<Progress>,
    state: MirrorState,
}

struct Open {
    id: [u8; 16],
    path: PathBuf,
    file: File,
    place: Place,
}

impl Writer {
    fn run(mut self, work: &mpsc::Receiver<Job>, answers: &mpsc::SyncSender<Result<(), Fault>>) {
        loop {
            let job = match self.pause {
                None => work.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(pause) => work.recv_timeout(pause),
            };
            match job {
                Ok(job) => {
                    let result = self.work(job);
                    self.pause = None;
                    if result.is_err() {
                        (self.open, self.pause, self.newest) = (None, Some(TRY_AGAIN), Newest::Again);
                    }
                    if answers.send(result).is_err() {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.bring_up(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Copies what is missing, beside the journal's writer. What comes meanwhile is copied when it is joined, or a moment
    /// later if nothing is written.
    fn bring_up(&mut self) {
        let Progress { caught_up, entries } = &*self.progress;
        caught_up.store(false, Ordering::SeqCst);
        let copied = self.make_folder().and_then(|()| Ok(copy(&self.journal, &self.folder, self.newest)?));
        let Ok(copied) = copied else {
            self.newest = Newest::Again;
            // A disk that is away costs nothing, and is to be used as soon as it is back.
            let longest = if self.folder.is_dir() { TRY_AGAIN_AT_LAST } else { TRY_AGAIN / 2 };
            self.pause = self.pause.map(|pause| longest.min(2 * pause.max(TRY_AGAIN / 4)));
            return;
        };
        caught_up.store(true, Ordering::SeqCst);
        self.newest = Newest::Missing;
        match copied.entries >= entries.load(Ordering::SeqCst) {
            true => {
                self.state.recovered(&self.folder);
                self.pause = None;
            }
            false => self.pause = Some(MEANWHILE),
        }
    }

    /// The folder may have been removed; where the disk itself is not there, nothing is made in its place.
    fn make_folder(&self) -> Result<(), Fault> {
        let is_home = self.folder.parent().is_some_and(|home| home.join("lock").exists());
        if is_home && !self.folder.is_dir() {
            durable::create_folder(&self.folder)?;
        }
        Ok(())
    }

    fn work(&mut self, job: Job) -> Result<(), Fault> {
        match job {
            Job::Join(end) => self.join(end),
            Job::Write(bytes, at, entries) => {
                let open = self.open_mut()?;
                own::check(&open.file, &open.path, at)?;
                open.file.write_all_at(&bytes, at.into())?;
                open.file.sync_data()?;
                open.place.note(entries, false);
                Ok(())
            }
            Job::Cut(length) => {
                let open = self.open_mut()?;
                open.file.set_len(length.into())?;
                Ok(open.file.sync_data()?)
            }
            Job::Begin(segment, header, entries) => {
                let id = self.open_mut()?.id;
                let file = segment::create_with(&self.folder, segment, &header)?;
                segment::sync_new(&file, &self.folder)?;
                self.open(id, segment, file, true, entries)
            }
        }
    }

    fn open_mut(&mut self) -> Result<&mut Open, Fault> {
        self.open.as_mut().ok_or_else(|| "it is not open".into())
    }

    fn open(&mut self, id: [u8; 16], segment: u32, file: File, is_empty: bool, entries: u64) -> Result<(), Fault> {
        let found = Found { journal: id, segment, file: &file, is_empty, entries };
        let place = Place::take(&self.folder, &found)?;
        self.open = Some(Open { id, path: segment::path(&self.folder, segment), file, place });
        Ok(())
    }

    fn join(&mut self, JournalEnd { id, segment, length, entries }: JournalEnd) -> Result<(), Fault> {
        self.progress.caught_up.store(false, Ordering::SeqCst);
        copy(&self.journal, &self.folder, Newest::Missing)?;
        let path = segment::path(&self.folder, segment);
        let file = File::options().read(true).write(true).open(&path)?;
        if file.metadata()?.len() != u64::from(length) {
            return Err("it does not end where the journal does".into());
        }
        file.sync_all()?;
        self.open(id, segment, file, length <= Header::LENGTH, entries)?;
        // The one that has been alone last, so that none ever says it is when it is not.
        pairing::note(&self.folder, Pairing::Both, &self.journal)?;
        Ok(pairing::note(&self.journal, Pairing::Both, &self.folder)?)
    }
}
