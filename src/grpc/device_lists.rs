//! The lists of orders' devices.

use std::sync::Arc;

use futures_util::future::join_all;
use tonic::{Status, Streaming};

use super::{limits::PeerLimits, records::Reader, request_error::RequestError, status};
use crate::{
    committer::{CommitError, Committer},
    id::DeviceId,
    ledger::{Actor, DevicesListed, LedgerError, ListPage, ListedDevice, Order, PIECE, Records, Refusal},
    limits::ORDER_DEVICES,
    proto,
};

/// How many pieces are given to the committer at a time, so that they share a sync.
const PIECES: usize = 64;

/// Takes in what comes, until the caller has no more. Gives the order as it is then.
pub(super) async fn add(
    committer: &Committer,
    actor: &Actor,
    mut requests: Streaming<proto::AddOrderDevicesRequest>,
) -> Result<Order, Status> {
    let mut order = None;
    while let Some(request) = requests.message().await.map_err(status::unreadable)? {
        let pieces = pieces(request).map_err(|error| status::failed_call(&error))?;
        for pieces in pieces.chunks(PIECES) {
            order = Some(take_in(committer, actor, pieces).await.map_err(|error| status::failed_call(&error.into()))?);
        }
    }
    order.ok_or_else(|| status::failed_call(&RequestError::Invalid("there is no device in the request".into())))
}

/// The committer may take pieces in another order than they were given to it: those that came too early are given again.
async fn take_in(committer: &Committer, actor: &Actor, pieces: &[DevicesListed]) -> Result<Order, CommitError> {
    let mut rest: Vec<&DevicesListed> = pieces.iter().collect();
    loop {
        let taken = join_all(rest.iter().map(|piece| committer.list_devices(actor.clone(), (*piece).clone()))).await;
        let (mut newest, mut early, mut refused) = (None, Vec::new(), None);
        for (piece, taken) in rest.iter().zip(taken) {
            match taken {
                Ok(order) => newest = Some(order),
                Err(error @ CommitError::Refused(Refusal::ListOutOfOrder { .. })) => {
                    early.push(*piece);
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match (newest, refused) {
            (Some(order), None) => return Ok(order),
            // Some progress was made: the others follow.
            (Some(_), Some(_)) => rest = early,
            (None, Some(error)) => return Err(error),
            (None, None) => return Err(CommitError::Unexpected),
        }
    }
}

fn pieces(request: proto::AddOrderDevicesRequest) -> Result<Vec<DevicesListed>, RequestError> {
    let proto::AddOrderDevicesRequest { id, first, devices } = request;
    if devices.len() > ORDER_DEVICES {
        let message = format!("{} devices; at most {ORDER_DEVICES} are allowed", devices.len());
        return Err(RequestError::Invalid(message));
    }
    let devices = devices.into_iter().map(|device| {
        let id: DeviceId = device.id.try_into().map_err(RequestError::id("id"))?;
        let key_hash = match &device.key_sha256[..] {
            [] => None,
            octets => Some(octets.try_into().map_err(|_| {
                RequestError::Invalid(format!("the key_sha256 of the device {} is not 32 octets", id.as_str()))
            })?),
        };
        Ok(ListedDevice { id: id.into(), key_hash })
    });
    let devices = devices.collect::<Result<Vec<_>, RequestError>>()?;
    let pieces = devices.chunks(PIECE).scan(first, |next, devices| {
        let first = *next;
        *next += devices.len() as u64;
        Some(DevicesListed { order: id.clone(), first, devices: devices.to_vec() })
    });
    Ok(pieces.collect())
}

/// A page of the list of an order, and which devices of it have a certificate of the order.
pub(super) async fn list(
    reader: &Reader,
    peer: &Arc<PeerLimits>,
    request: proto::ListOrderDevicesRequest,
) -> Result<proto::ListOrderDevicesReply, Status> {
    let proto::ListOrderDevicesRequest { id, page } = request;
    let from = match &page[..] {
        [] => None,
        octets => Some(octets.try_into().map_err(|_| {
            let message = "page must be empty, or what the reply before said".to_owned();
            status::failed_call(&RequestError::Invalid(message))
        })?),
    };
    let read = move |records: &dyn Records| {
        let ListPage { devices, next } = records.listed(&id, from)?;
        let shown = devices.into_iter().map(|device| {
            let found = records.by_device(&device.id)?;
            let has_certificate = found.is_some_and(|record| record.state.is_live() && record.holder.order == id);
            let key_sha256 = device.key_hash.map_or_else(Vec::new, |key| key.to_vec()).into();
            Ok::<_, LedgerError>(proto::OrderDevice { id: device.id, key_sha256, has_certificate })
        });
        let next_page = next.map_or_else(Vec::new, |next| next.to_vec()).into();
        Ok(proto::ListOrderDevicesReply { devices: shown.collect::<Result<_, _>>()?, next_page })
    };
    reader.read(peer, read).await
}
