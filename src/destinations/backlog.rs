//! What waits for each destination: counted as the journal grows, by one thread that reads what is new.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    background::be_nice,
    destination::{Destination, Destinations},
    figures::Counted,
};
use crate::ledger::{Backlog, BatchContent, BatchId, LedgerError};

/// How often what is new is counted.
const INTERVAL: Duration = Duration::from_secs(2);

/// After so many pages the thread rests for as long as they may have taken: what was not exported for years is counted at a
/// start, beside stations that issue.
const PAGES: usize = 16;
const REST: Duration = Duration::from_millis(10);

/// Ends the counting when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Counts what waits for each destination, until what it gives is dropped.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn watch(destinations: Destinations) -> std::io::Result<Watch> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let run = move || {
        be_nice();
        Watcher { destinations, stopped, counts: BTreeMap::new() }.run();
    };
    let thread = thread::Builder::new().name("backlog".into()).spawn(run)?;
    Ok(Watch { stop, thread: Some(thread) })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Watcher {
    destinations: Destinations,
    stopped: Arc<AtomicBool>,
    /// By destination: the next batch's id, and what is read of it.
    counts: BTreeMap<String, (BatchId, Box<dyn BatchContent>)>,
}

impl Watcher {
    fn run(mut self) {
        while !self.stopped() {
            let all = Arc::clone(&self.destinations.all);
            for destination in all.values() {
                match self.count(destination).and_then(|backlog| self.tell(destination, backlog)) {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(destination = destination.name, %error, "its backlog could not be counted");
                        self.counts.remove(&destination.name);
                    }
                }
            }
            thread::park_timeout(INTERVAL);
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// None if it is to stop.
    fn count(&mut self, destination: &Destination) -> Result<Option<Backlog>, LedgerError> {
        let name = &destination.name;
        let batches = |known: &[Arc<crate::ledger::Destination>]| {
            known.iter().find(|known| known.name == *name).map_or(0, |known| known.batches)
        };
        let next = batches(&self.destinations.records.destinations()) + 1;
        if self.counts.get(name).is_none_or(|(id, _)| id.number != next) {
            let opened = self.destinations.records.next_batch(name, &destination.filter)?;
            self.counts.insert(name.clone(), (opened.id, opened.content));
        }
        let stopped = Arc::clone(&self.stopped);
        let Some((_, content)) = self.counts.get_mut(name) else { return Ok(None) };
        let mut pages: usize = 0;
        let mut backlog = Backlog::default();
        // Twice: what was there the last time, and what came since.
        for _ in 0..2 {
            while content.page()?.is_some() {
                pages += 1;
                if pages.is_multiple_of(PAGES) {
                    thread::sleep(REST);
                }
                if stopped.load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
            backlog = content.go_on()?;
        }
        Ok(Some(backlog))
    }

    fn tell(&self, destination: &Destination, backlog: Option<Backlog>) -> Result<(), LedgerError> {
        let Some(backlog) = backlog else { return Ok(()) };
        let known = self.destinations.records.destinations();
        let known = known.iter().find(|known| known.name == destination.name);
        let (unacknowledged, unfit) = known.map_or((0, 0), |known| (known.unacknowledged, known.retry.len()));
        let oldest = match known {
            Some(known) if known.unacknowledged > 0 => {
                let id = BatchId { destination: known.name.clone(), number: known.oldest_unacknowledged };
                self.destinations.records.batch(&id)?.map(|batch| batch.created_at)
            }
            _ => None,
        };
        let counted = Counted {
            certificates: backlog.certificates,
            oldest: backlog.oldest,
            withdrawals: backlog.withdrawals,
            unfit,
            unacknowledged,
            oldest_unacknowledged: oldest,
            held: None,
        };
        self.destinations.figures.count(&destination.name, counted);
        Ok(())
    }
}
