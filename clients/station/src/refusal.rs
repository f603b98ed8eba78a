//! `<device-id>.error.json`: why a device was refused.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use birthmark_base::{id::DeviceId, text_file};
use serde::{Deserialize, Serialize};

use super::{item::Refused, places::Places};

/// A refusal is a page at most.
const LONGEST: u64 = 64 << 10;

/// The content of the file.
#[derive(Serialize)]
pub(super) struct Refusal<'a> {
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    order: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    profile: &'a str,
    reason: &'a str,
    message: &'a str,
    time: String,
}

/// The fields of an existing refusal that identify its device and file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    device_id: Option<String>,
    file: Option<String>,
}

impl<'a> Refusal<'a> {
    /// `order` and `profile` are the run's.
    pub(super) fn new(refused: &'a Refused, order: &'a str, profile: &'a str) -> Self {
        let now = jiff::Timestamp::now();
        Refusal {
            device_id: &refused.device_id,
            file: refused.file.as_deref().and_then(name),
            order: refused.terms.order.as_deref().unwrap_or(order),
            profile: refused.terms.profile.as_deref().unwrap_or(profile),
            reason: &refused.reason,
            message: &refused.message,
            time: now.round(jiff::Unit::Second).unwrap_or(now).to_string(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// The names that a refusal of this device can have: after the device, and after the file if its CSR came in one.
///
/// In a watched folder the file's own name serves, whatever it is; elsewhere only an id is a safe name.
struct Names {
    by_device: Option<PathBuf>,
    by_file: Option<PathBuf>,
}

impl Names {
    fn new(places: &Places, device_id: &str, csr: Option<&Path>) -> Self {
        let Some(folder) = places.refusals() else { return Names { by_device: None, by_file: None } };
        let place = |stem: &str| folder.join(format!("{stem}.error.json"));
        let is_name = DeviceId::check(device_id).is_ok();
        match csr {
            Some(csr) if places.watched().is_some() => Names {
                by_device: csr.file_stem().map(|stem| place(&stem.to_string_lossy())),
                by_file: name(csr).map(|name| place(&name)),
            },
            csr => Names {
                by_device: is_name.then(|| place(device_id)),
                by_file: csr.filter(|_| is_name).and_then(name).map(|name| place(&name)),
            },
        }
    }
}

/// Where the refusal is to be written. Two CSRs of one device never share a file; the device of a JSON line whose
/// second CSR differs was not refused itself, and nothing is written.
pub(super) fn place(places: &Places, refused: &Refused) -> Option<PathBuf> {
    let csr = refused.file.as_deref();
    let Names { by_device, by_file } = Names::new(places, &refused.device_id, csr);
    let taken = by_device.as_deref().is_some_and(|path| is_of_another(places, path, &refused.device_id, csr));
    if taken || refused.reason == "DUPLICATE_DEVICE" { by_file } else { by_device }
}

/// The refusals that are void now that the device has its certificate.
pub(super) fn void(places: &Places, device_id: &str, csr: Option<&Path>) -> Vec<PathBuf> {
    let Names { by_device, by_file } = Names::new(places, device_id, csr);
    let there = by_device.into_iter().chain(by_file).filter(|path| path.symlink_metadata().is_ok());
    there.filter(|path| !is_of_another(places, path, device_id, csr)).collect()
}

/// Whether `refusal` is about another device, or about another CSR of this one that is still there.
fn is_of_another(places: &Places, refusal: &Path, device_id: &str, csr: Option<&Path>) -> bool {
    let content = text_file::open_regular(refusal).and_then(|file| text_file::read_octets(file, LONGEST));
    let Ok(content) = content else { return false };
    let owner: Owner = serde_json::from_slice(&content).unwrap_or_default();
    if owner.device_id.is_some_and(|owner| owner != device_id) {
        return true;
    }
    let (Some(owner), Some(csr)) = (owner.file, csr) else { return false };
    if name(csr).is_some_and(|own| own == owner) {
        return false;
    }
    let beside = |folder: &Path| fs::symlink_metadata(folder.join(&owner)).is_ok();
    match places.watched() {
        Some(_) => places.refusals().is_some_and(|folder| beside(&folder)),
        None => csr.parent().is_some_and(beside),
    }
}

fn name(path: &Path) -> Option<String> {
    path.file_name().map(OsStr::to_string_lossy).map(|name| name.into_owned())
}
