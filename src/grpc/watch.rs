//! What happens to certificates and orders, told as it happens: the journal's entries after a number, without a gap.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{limits::PeerLimits, records::Reader, status};
use crate::{
    ledger::{
        EntryTail, LedgerError, Records, Recovery,
        entry::{Entry, Event},
    },
    proto::{self, WatchReply},
    serial::SerialNumber,
};

/// How many entries are read at once.
const PAGE: usize = 256;

/// How often new entries are looked for when there were none.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) type Watching = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

/// Streams events, only as fast as the peer takes them, until it goes or the daemon does.
pub(super) fn watch(
    reader: &Reader,
    peer: &Arc<PeerLimits>,
    after: u64,
    draining: impl Future<Output = ()> + Send + 'static,
) -> Result<Watching, Status> {
    let permits = peer.record_stream()?;
    let (sender, receiver) = mpsc::channel(PAGE);
    let (reader, peer) = (reader.clone(), Arc::clone(peer));
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
        drop(permits);
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
            match tokio::time::timeout(reader.stall_limit(), sender.send(Ok(event))).await {
                Ok(Ok(())) => {}
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

/// An entry as an event; what it does not hold itself is looked up.
fn event(records: &dyn Records, sequence: u64, entry: Entry) -> Result<WatchReply, LedgerError> {
    let Entry { time, actor, event } = entry;
    let reply =
        WatchReply { sequence, time: Some(proto::timestamp(time)), actor: actor.to_string(), ..WatchReply::default() };
    let of_certificate = |kind: &str, serial: SerialNumber, reason: String, reply: WatchReply| {
        let record = records.by_serial_number(&serial)?;
        let holder = record.map(|record| record.holder);
        let (device_id, order, profile) =
            holder.map(|holder| (holder.device, holder.order, holder.profile)).unwrap_or_default();
        let serial_number = serial.as_bytes().to_vec().into();
        Ok::<_, LedgerError>(WatchReply {
            event: kind.into(),
            serial_number,
            device_id,
            order,
            profile,
            reason,
            ..reply
        })
    };
    let of_order =
        |kind: &str, order: String, reason: String| WatchReply { event: kind.into(), order, reason, ..reply.clone() };
    Ok(match event {
        Event::Issued { serial_number, .. } => of_certificate("issued", serial_number, String::new(), reply)?,
        Event::Recovered(Recovery { serial_number, .. }) => {
            of_certificate("recovered", serial_number, String::new(), reply)?
        }
        Event::Confirmed { serial_number, .. } => of_certificate("confirmed", serial_number, String::new(), reply)?,
        Event::Scrapped { serial_number, reason } => of_certificate("scrapped", serial_number, reason, reply)?,
        Event::Revoked { serial_number, reason } => {
            of_certificate("revoked", serial_number, reason.name().to_owned(), reply)?
        }
        Event::Abandoned { serial_number, reason } => of_certificate("abandoned", serial_number, reason, reply)?,
        Event::OrderCreated(terms) => of_order("order_created", terms.id, String::new()),
        Event::OrderClosed { id } => of_order("order_closed", id, String::new()),
        Event::OrderQuantityChanged { id, reason, .. } => of_order("order_quantity_changed", id, reason),
        Event::OrderPaused { id, reason } => of_order("order_paused", id, reason),
        Event::OrderResumed { id } => of_order("order_resumed", id, String::new()),
        Event::ExportCreated { id, .. } => of_order("export_created", id.order.clone(), id.to_string()),
        Event::ExportAcknowledged { id } => of_order("export_acknowledged", id.order.clone(), id.to_string()),
        Event::StationEnrolled(enrolment) => {
            WatchReply { event: "station_enrolled".into(), peer: enrolment.peer.to_string(), ..reply }
        }
        Event::StationRevoked { peer, reason, .. } => {
            WatchReply { event: "station_revoked".into(), peer: peer.to_string(), reason, ..reply }
        }
        Event::Started { version, .. } => WatchReply { event: "started".into(), reason: version, ..reply },
        Event::Stopped { reason } => WatchReply { event: "stopped".into(), reason, ..reply },
        // Whoever counts sees that no number is missing.
        _ => WatchReply { event: "other".into(), ..reply },
    })
}
