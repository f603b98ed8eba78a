//! Reading the ledger for operators and auditors: by few threads, none of which ever waits for a peer.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{limits::PeerLimits, request_error::RequestError, status};
use crate::{
    fairness::FairShare,
    ledger::{self, IssuedRecords, LedgerError, Record, RecordedIssuer, Records},
};

/// How many look-ups or pages are read at once, in all.
const READERS: usize = 8;

/// How many of them are for one peer while others read, and while none does.
const OF_ONE: usize = 2;
const OF_ONE_ALONE: usize = 4;

/// The most records in a page.
const PAGE: usize = 64;

/// How long a page may take to read; then it is as long as it is, and the next reader has the thread.
const PAGE_TIME: Duration = Duration::from_millis(20);

/// Records on their way to a peer.
pub(super) type Pages = Pin<Box<dyn Stream<Item = Result<Record, Status>> + Send>>;

/// Reads the ledger on threads where waiting for the disk delays no other call. What stations need is not read here.
#[derive(Clone)]
pub(super) struct Reader {
    records: Arc<dyn Records>,
    readers: Arc<Semaphore>,
    share: Arc<FairShare>,
    stall_limit: Duration,
}

impl Reader {
    pub(super) fn new(records: Arc<dyn Records>, stall_limit: Duration) -> Self {
        let (readers, share) = (Arc::new(Semaphore::new(READERS)), FairShare::new(OF_ONE, OF_ONE_ALONE));
        Reader { records, readers, share, stall_limit }
    }

    /// Looks something up, in a turn of `peer`.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        peer: &PeerLimits,
        read: impl FnOnce(&dyn Records) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Status> {
        let records = Arc::clone(&self.records);
        self.in_turn(peer.name(), move || read(&*records)).await
    }

    /// As [`Reader::read`]; what another daemon of this ledger has just written is found as well.
    ///
    /// # Errors
    /// Those of the storage, and `UNAVAILABLE` while it cannot be known what others have written.
    pub(super) async fn found<T: Send + 'static>(
        &self,
        peer: &PeerLimits,
        read: impl Fn(&dyn Records) -> Result<Option<T>, LedgerError> + Clone + Send + 'static,
    ) -> Result<Option<T>, Status> {
        ledger::found(&*self.records, || self.read(peer, read.clone()), status::storage).await
    }

    /// How long a peer may take no reply.
    pub(super) fn stall_limit(&self) -> Duration {
        self.stall_limit
    }

    /// All issuers of the ledger, which are in memory.
    pub(super) fn issuers(&self) -> Vec<Arc<RecordedIssuer>> {
        self.records.issuers()
    }

    /// Streams what `read` gives, a page at a time and only as fast as the peer takes it.
    ///
    /// # Errors
    /// `TOO_MANY_STREAMS`.
    pub(super) fn stream(
        &self,
        peer: &Arc<PeerLimits>,
        read: impl FnOnce(&dyn Records) -> Result<IssuedRecords, LedgerError> + Send + 'static,
    ) -> Result<Pages, Status> {
        let permits = peer.record_stream()?;
        let (sender, receiver) = mpsc::channel(PAGE);
        // Beside the channel, which may be full.
        let failure = Arc::new(OnceLock::new());
        let (reader, peer, failed) = (self.clone(), Arc::clone(peer), Arc::clone(&failure));
        tokio::spawn(async move {
            if let Err(status) = reader.pages(peer.name(), read, &sender).await {
                let _ = failed.set(status);
            }
            drop(permits);
        });
        let failure = futures_util::stream::poll_fn(move |_| Poll::Ready(failure.get().cloned().map(Err)));
        Ok(Box::pin(ReceiverStream::new(receiver).map(Ok).chain(failure.take(1))))
    }

    async fn pages(
        &self,
        peer: &Arc<str>,
        read: impl FnOnce(&dyn Records) -> Result<IssuedRecords, LedgerError> + Send + 'static,
        sender: &mpsc::Sender<Record>,
    ) -> Result<(), Status> {
        let records = Arc::clone(&self.records);
        let mut issued = self.in_turn(peer, move || read(&*records)).await?;
        loop {
            let read = move || {
                let page = issued.page(PAGE, Instant::now() + PAGE_TIME)?;
                Ok((issued, page))
            };
            let (rest, page) = self.in_turn(peer, read).await?;
            for record in page.records {
                match tokio::time::timeout(self.stall_limit, sender.send(record)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()), // The caller is gone.
                    Err(_) => return Err(status::stalled(self.stall_limit)),
                }
            }
            if page.last {
                return Ok(());
            }
            issued = rest;
        }
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        peer: &Arc<str>,
        read: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.share.turn(peer).await;
        let reader = Arc::clone(&self.readers).acquire_owned().await;
        // A caller that goes frees neither before the thread is done.
        let read = tokio::task::spawn_blocking(move || {
            let _kept = (turn, reader);
            read()
        });
        read.await.map_err(|_| status::failed_call(&RequestError::Internal))?.map_err(status::storage)
    }
}
