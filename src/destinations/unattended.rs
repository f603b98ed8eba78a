//! Batches that the daemon cuts and writes by itself, each as a folder that appears whole.
//!
//! `FOLDER/.DESTINATION.written` has the number of the newest batch that was written: whoever takes bundles out of the folder
//! does not get them twice, and one that was cut just before the daemon was killed is written at the next start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    background::in_background,
    cut::cut,
    destination::{Destination, Destinations},
    error::BatchError,
    render::render,
};
use crate::{
    config::Unattended,
    durable::{self, Access},
    export::sink::{FolderSink, SinkError},
    ledger::{Actor, BatchId},
};

/// How often it is looked whether a batch is due, or is to be written after all.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long after a failure it is tried again, if the next batch is not due before.
const AGAIN: Duration = Duration::from_secs(30);

/// Cuts batches by itself, for those destinations that say so, until the tasks are aborted.
pub(crate) fn spawn_unattended(destinations: &Destinations) -> Vec<JoinHandle<()>> {
    let unattended = destinations.all.values().filter_map(|destination| {
        let unattended = destination.unattended.clone()?;
        let writer = Writer { destinations: destinations.clone(), destination: Arc::clone(destination), unattended };
        Some(tokio::spawn(async move { writer.run().await }))
    });
    unattended.collect()
}

#[derive(Clone)]
struct Writer {
    destinations: Destinations,
    destination: Arc<Destination>,
    unattended: Unattended,
}

/// Why no batch is cut now.
#[derive(Debug, thiserror::Error)]
enum Held {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{unacknowledged} batches are not acknowledged, and {most} may be")]
    Unacknowledged { unacknowledged: u32, most: u32 },
    #[error("the disk of {} has {} MiB free, less than the {} MiB it must have", path.display(), free >> 20, least >> 20)]
    Full { path: PathBuf, free: u64, least: u64 },
    #[error("cannot use {}: {cause}", path.display())]
    Folder { path: PathBuf, cause: io::Error },
}

impl Writer {
    async fn run(self) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let name = &self.destination.name;
        let (mut due, mut said) = (Instant::now(), None::<String>);
        loop {
            ticks.tick().await;
            if Instant::now() < due {
                continue;
            }
            let held = match self.write_and_cut().await {
                Ok(()) | Err(Held::Batch(BatchError::Nothing { .. })) => None,
                Err(Held::Batch(BatchError::Commit(crate::committer::CommitError::Closed))) => return,
                Err(held) => Some(held.to_string()),
            };
            self.destinations.figures.hold(name, held.clone());
            let pause = if held.is_some() { AGAIN.min(self.unattended.every) } else { self.unattended.every };
            due = Instant::now() + pause;
            match (&held, &said) {
                (Some(why), before) if before.as_ref() != Some(why) => {
                    tracing::warn!(destination = name, why, "no batch is cut or written; it is tried again");
                }
                (None, Some(_)) => tracing::info!(destination = name, "batches are cut and written again"),
                _ => {}
            }
            said = held;
        }
    }

    /// Writes what is cut and not written, then cuts what is new and writes that.
    async fn write_and_cut(&self) -> Result<(), Held> {
        self.write_all().await?;
        self.may_cut()?;
        let nothing: super::cut::Progress = Arc::new(|_| {});
        cut(&self.destinations, Arc::clone(&self.destination), Actor::daemon(), nothing).await?;
        self.write_all().await
    }

    fn may_cut(&self) -> Result<(), Held> {
        let known = self.destinations.records.destinations();
        let unacknowledged = known.iter().find(|known| known.name == self.destination.name);
        let (unacknowledged, most) =
            (unacknowledged.map_or(0, |known| known.unacknowledged), self.unattended.max_unacknowledged);
        if unacknowledged >= most {
            return Err(Held::Unacknowledged { unacknowledged, most });
        }
        self.has_space()
    }

    fn has_space(&self) -> Result<(), Held> {
        let path = &self.unattended.folder;
        let failed = |cause| Held::Folder { path: path.clone(), cause };
        durable::create_folder(path).map_err(failed)?;
        let found = rustix::fs::statvfs(path).map_err(|error| failed(error.into()))?;
        let (free, least) = (found.f_bavail.saturating_mul(found.f_frsize), self.unattended.min_free);
        match free < least {
            true => Err(Held::Full { path: path.clone(), free, least }),
            false => Ok(()),
        }
    }

    /// Writes every batch after the newest that was written.
    async fn write_all(&self) -> Result<(), Held> {
        self.has_space()?;
        let writer = self.clone();
        let runtime = Handle::current();
        // What holds it up is no error of the work itself.
        in_background(move || Ok::<_, BatchError>(writer.write_missing(&runtime))).await?
    }

    fn write_missing(&self, runtime: &Handle) -> Result<(), Held> {
        let (name, folder) = (&self.destination.name, &self.unattended.folder);
        let known = self.destinations.records.destinations();
        let batches = known.iter().find(|known| known.name == *name).map_or(0, |known| known.batches);
        let marker = folder.join(format!(".{name}.written"));
        let failed = |cause| Held::Folder { path: marker.clone(), cause };
        let written = read_marker(&marker).map_err(failed)?;
        for number in written + 1..=batches {
            let id = BatchId { destination: name.clone(), number };
            let batch = self.destinations.records.batch(&id).map_err(BatchError::from)?;
            // What its platform has needs not be carried there.
            if batch.is_some_and(|batch| batch.acknowledged.is_none()) {
                self.write(&id, folder, runtime)?;
            }
            durable::write(&marker, format!("{number}\n").as_bytes(), Access::Public).map_err(failed)?;
        }
        Ok(())
    }

    fn write(&self, id: &BatchId, folder: &Path, runtime: &Handle) -> Result<(), BatchError> {
        let path = folder.join(id.to_string());
        let sink = match FolderSink::create(&path) {
            // Written, and then killed before that was noted.
            Err(SinkError::Exists(_)) => return Ok(()),
            sink => sink?,
        };
        match render(&self.destinations, id, sink, runtime, &|_| {})?.finish() {
            Ok(_) => {
                tracing::info!(batch = %id, folder = %path.display(), "bundle");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The number of the newest batch that was written; 0 if none was.
fn read_marker(path: &Path) -> io::Result<u32> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
