//! What happens to certificates and orders, told as it happens: the journal's entries after a number, without a gap.

mod event;

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use self::event::event;
use super::{limits::PeerLimits, records::Reader, request_error::RequestError, status};
use crate::{
    ledger::{EntryTail, LedgerError, Records},
    metrics::{self, OpenWatch},
    proto::WatchReply,
};

/// How many entries are read at once.
const PAGE: usize = 256;

/// How often new entries are looked for when there were none.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) type Watching = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

/// Streams events, only as fast as the peer takes them, until it goes or the daemon does.
pub(super) async fn watch(
    reader: &Reader,
    peer: &Arc<PeerLimits>,
    after: u64,
    draining: impl Future<Output = ()> + Send + 'static,
) -> Result<Watching, Status> {
    let newest = reader.read(peer, |records| Ok(records.head().sequence)).await?;
    if after > newest {
        // To wait for that number would be to pass over others.
        let message = format!(
            "the ledger has {newest} entries, and none of the number {after}: it was restored, or is another one; take what is \
             known from it again"
        );
        return Err(status::failed_call(&RequestError::Invalid(message)));
    }
    let permits = peer.record_stream()?;
    let (sender, receiver) = mpsc::channel(PAGE);
    let (reader, peer, open) = (reader.clone(), Arc::clone(peer), OpenWatch::new());
    tokio::spawn(async move {
        tokio::select! {
            told = tell(&reader, &peer, after, &sender) => {
                if let Err(status) = told {
                    // A caller that is gone does not hear why.
                    let _ = sender.send(Err(status)).await;
                }
            }
            () = draining => {}
            () = sender.closed() => {}
        }
        drop((permits, open));
    });
    Ok(Box::pin(ReceiverStream::new(receiver).map(|event| event)))
}

async fn tell(
    reader: &Reader,
    peer: &PeerLimits,
    after: u64,
    sender: &mpsc::Sender<Result<WatchReply, Status>>,
) -> Result<(), Status> {
    let mut tail = reader.read(peer, move |records| records.entries_after(after)).await?;
    loop {
        let (rest, events) = reader.read(peer, move |records| page(records, tail)).await?;
        tail = rest;
        let none = events.is_empty();
        for event in events {
            let sequence = event.sequence;
            match tokio::time::timeout(reader.stall_limit(), sender.send(Ok(event))).await {
                Ok(Ok(())) => metrics::event_told(sequence),
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(status::stalled(reader.stall_limit())),
            }
        }
        if none {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn page(records: &dyn Records, mut tail: EntryTail) -> Result<(EntryTail, Vec<WatchReply>), LedgerError> {
    let entries = tail.read(PAGE)?;
    let events = entries.into_iter().map(|(sequence, entry)| event(records, sequence, entry));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    Ok((tail, events))
}
