//! The rebuilding of an index that failed, while the daemon runs.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::catalog::{Catalog, ReplayError, Setup};
use crate::ledger::journal::Reader;

/// Retry interval after a failed rebuild.
const REBUILD_AGAIN: Duration = Duration::from_secs(10);

/// The thread that rebuilds an index that failed, while what needs it is refused.
#[derive(Debug)]
pub(in crate::ledger) struct Rebuilder {
    stop: Arc<AtomicBool>,
    alarm: mpsc::SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Rebuilder {
    pub(in crate::ledger) fn start(
        setup: Setup,
        alarms: mpsc::Receiver<()>,
        catalog: &Arc<Catalog>,
        journal: Reader,
    ) -> io::Result<Rebuilder> {
        let stop = Arc::new(AtomicBool::new(false));
        let alarm = setup.site.alarm.clone();
        let (catalog, stopping) = (Arc::downgrade(catalog), Arc::clone(&stop));
        let run = move || watch(&setup, &alarms, &catalog, &journal, &stopping);
        let thread = thread::Builder::new().name("index-rebuilder".into()).spawn(run)?;
        Ok(Rebuilder { stop, alarm, thread: Some(thread) })
    }
}

impl Drop for Rebuilder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A full channel wakes it as well.
        let _ = self.alarm.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(setup: &Setup, alarms: &mpsc::Receiver<()>, catalog: &Weak<Catalog>, journal: &Reader, stop: &AtomicBool) {
    while alarms.recv().is_ok() && !stop.load(Ordering::Relaxed) {
        let Some(catalog) = catalog.upgrade() else { return };
        while let Some(why) = failure(&catalog) {
            let begun = Instant::now();
            // Beside the journal, which may be on another disk than it was when the index was made.
            let mut setup = setup.clone();
            setup.site.folder = journal.home().join("index");
            match rebuild_live(&setup, &catalog, journal, &why, stop) {
                Ok(()) => tracing::info!(seconds = begun.elapsed().as_secs(), "the index is rebuilt from the journal"),
                Err(ReplayError::Stopped) => return,
                Err(error) => {
                    let error = error.accuse(journal);
                    journal.suspect_disk();
                    tracing::error!(%error, "the index could not be rebuilt; nothing is issued until it is");
                    let _ = alarms.recv_timeout(REBUILD_AGAIN);
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn failure(catalog: &Catalog) -> Option<String> {
    catalog.memory().index.failure().map(str::to_owned)
}

/// Builds another catalog from the journal, lets it catch up with what was committed meanwhile, and puts it in place.
fn rebuild_live(
    setup: &Setup,
    catalog: &Catalog,
    journal: &Reader,
    why: &str,
    stop: &AtomicBool,
) -> Result<(), ReplayError> {
    // What the failed index is still being given must not end up in the folder of the new one.
    while !catalog.follower().is_idle(catalog) {
        if stop.load(Ordering::Relaxed) {
            return Err(ReplayError::Stopped);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let end = catalog.memory().end;
    let rebuilt = Catalog::rebuild(setup, journal, end, why, stop)?;
    let mut follower = catalog.follower();
    let end = catalog.memory().end;
    rebuilt.apply(journal, end, stop, |_| {})?;
    catalog.replace(&rebuilt, &mut follower);
    drop(follower);
    Ok(())
}
