//! The list of an order's devices: read from a file, given to the daemon, and shown.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, anyhow, bail};
use birthmark::client::MarkedChannel;
use birthmark::{
    client::Failure,
    id::DeviceId,
    ledger::ListedDevice,
    proto::{
        AddOrderDevicesRequest, ListOrderDevicesRequest, Order, OrderDevice, OrderTerms, admin_client::AdminClient,
    },
    quote::quoted,
    text_file,
};
use serde_json::json;

use super::{daemon::DaemonArgs, print, print_json, table};

/// How many devices a message has.
const MESSAGE: usize = 4096;

/// Reads a list. Empty lines, and what follows a `#`, are ignored.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<ListedDevice>> {
    let octets = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text_file::decode(&octets).with_context(|| path.display().to_string())?;
    let mut lines = HashMap::new();
    let mut list = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: String| anyhow!("{}:{}: {what}", path.display(), index + 1);
        let (id, key) = match line.split_once([',', ' ', '\t', ';']) {
            Some((id, key)) => (id, Some(key.trim())),
            None => (line, None),
        };
        DeviceId::check(id).map_err(|error| wrong(format!("{}: {error}", quoted(id))))?;
        let hash = |key: &str| {
            let octets = hex::decode(key).ok().and_then(|octets| octets.try_into().ok());
            octets.ok_or_else(|| wrong(format!("{} is not a SHA-256 in 64 hex digits", quoted(key))))
        };
        let key_hash = key.filter(|key| !key.is_empty()).map(hash).transpose()?;
        if let Some(before) = lines.insert(id.to_owned(), index + 1) {
            return Err(wrong(format!("{} is in line {before} already", quoted(id))));
        }
        list.push(ListedDevice { id: id.to_owned(), key_hash });
    }
    if list.is_empty() {
        bail!("there is no device in {}", path.display());
    }
    Ok(list)
}

/// The hash of a list, as the protocol has it.
pub(crate) fn sha256(list: &[ListedDevice]) -> [u8; 32] {
    let text: String = list.iter().map(ListedDevice::line).collect();
    birthmark::hash::sha256(text.as_bytes())
}

/// Gives the daemon what it does not have of a list yet.
pub(crate) async fn send(
    admin: &mut AdminClient<MarkedChannel>,
    order: Order,
    list: Vec<ListedDevice>,
) -> anyhow::Result<Order> {
    let listed = usize::try_from(order.devices_listed).unwrap_or(usize::MAX);
    if listed >= list.len() {
        return Ok(order);
    }
    let OrderTerms { id, .. } = order.terms.unwrap_or_default();
    // Each when it is sent: there may be millions of devices.
    let messages = (listed..list.len()).step_by(MESSAGE).map(move |first| {
        let devices = list.iter().skip(first).take(MESSAGE).map(|device| OrderDevice {
            id: device.id.clone(),
            key_sha256: device.key_hash.map_or_else(Vec::new, |key| key.to_vec()).into(),
            has_certificate: false,
        });
        AddOrderDevicesRequest { id: id.clone(), first: first as u64, devices: devices.collect() }
    });
    let sent = admin.add_order_devices(tokio_stream::iter(messages)).await.map_err(Failure::from)?;
    Ok(sent.into_inner())
}

/// Prints the list of an order.
pub(crate) async fn show(daemon: DaemonArgs, id: String, (missing, csv): (bool, bool)) -> anyhow::Result<()> {
    if csv {
        print(&table::csv(["device_id", "key_sha256", "has_certificate"]))?;
    }
    let mut admin = daemon.admin().await?;
    let mut page = Vec::new();
    let mut shown = Vec::new();
    loop {
        let request = ListOrderDevicesRequest { id: id.clone(), page: page.into() };
        let reply = admin.list_order_devices(request).await.map_err(Failure::from)?.into_inner();
        let devices = reply.devices.into_iter().filter(|device| !missing || !device.has_certificate);
        if daemon.json {
            shown.extend(devices.map(|device| {
                let key = (!device.key_sha256.is_empty()).then(|| hex::encode(&device.key_sha256));
                json!({ "device_id": device.id, "key_sha256": key, "has_certificate": device.has_certificate })
            }));
        } else {
            if csv {
                let line = |device: OrderDevice| {
                    let has_certificate = if device.has_certificate { "yes" } else { "no" };
                    table::csv([&device.id, &hex::encode(&device.key_sha256), has_certificate])
                };
                print(&devices.map(line).collect::<String>())?;
            } else {
                // An id a line: what `order create --devices` reads.
                let line = |device: OrderDevice| match &device.key_sha256[..] {
                    [] => format!("{}\n", device.id),
                    key => format!("{} {}\n", device.id, hex::encode(key)),
                };
                print(&devices.map(line).collect::<String>())?;
            }
        }
        if reply.next_page.is_empty() {
            break;
        }
        page = reply.next_page.to_vec();
    }
    if daemon.json { print_json(&shown.into()) } else { Ok(()) }
}
