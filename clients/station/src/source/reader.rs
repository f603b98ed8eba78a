//! From CSRs to items: what can be said about a device without the daemon.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use birthmark_base::{
    fields,
    id::{DeviceId, OrderId},
    quote::{quoted, shortened},
    text_file::TextError,
};
use tokio::sync::mpsc;

use super::{
    decode::{self, DecodeError},
    files::{is_csr_file, read_csr_file},
    lines::{Line, Lines},
};
use crate::{
    input::InputError,
    item::{Item, Refused, Terms, Wanted},
    places::Places,
    progress::Progress,
};

/// Why reading ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The receiver is gone.
    Unwanted,
    /// The input cannot be read.
    Broken(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Broken(error)
    }
}

/// Reads CSRs and passes them on as items.
pub(super) struct Reader {
    pub(super) places: Arc<Places>,
    pub(super) progress: Arc<Progress>,
    pub(super) items: mpsc::Sender<Result<Item, InputError>>,
    seen: Seen,
}

impl Reader {
    pub(super) fn new(
        places: Arc<Places>,
        progress: Arc<Progress>,
        items: mpsc::Sender<Result<Item, InputError>>,
    ) -> Self {
        Reader { places, progress, items, seen: Seen::default() }
    }

    /// Every CSR of a folder.
    pub(super) fn folder(&mut self, folder: &Path) -> Result<(), Ended> {
        // Twice through the folder, so that the time left can be told without keeping the names.
        let mut total = 0;
        for entry in fs::read_dir(folder)? {
            total += u64::from(is_csr_file(&entry?));
        }
        self.progress.expect(total);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if is_csr_file(&entry) {
                let content = read_csr_file(&entry.path());
                self.file(entry.path(), content)?;
            } else if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                self.progress.ignore();
            }
        }
        Ok(())
    }

    /// The CSR of one file.
    pub(super) fn file(&mut self, path: PathBuf, content: Result<Vec<u8>, TextError>) -> Result<(), Ended> {
        let device_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let item = match content {
            Ok(content) => self.item(device_id, Some(path), Terms::default(), || decode::csr_of_file(&content)),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                refused(device_id, Some(path), Terms::default(), "CSR_UNREADABLE", message)
            }
        };
        self.pass(item)
    }

    /// The CSRs of JSON lines.
    pub(super) fn lines(&mut self, mut lines: Lines<impl Read>) -> Result<(), Ended> {
        let mut number = 0;
        while let Some(octets) = lines.next()? {
            number += 1;
            if octets.is_blank() {
                continue;
            }
            let item = match Line::parse(&octets) {
                Ok(Line { device_id, csr, order, profile, reissue }) => {
                    self.item(device_id, None, Terms { order, profile, reissue }, || decode::csr_of_text(&csr))
                }
                Err(error) => {
                    let message = format!("line {number} {error}");
                    refused(format!("(line {number})"), None, Terms::default(), "REQUEST_INVALID", message)
                }
            };
            self.pass(item)?;
        }
        Ok(())
    }

    fn pass(&self, item: Item) -> Result<(), Ended> {
        self.items.blocking_send(Ok(item)).map_err(|_| Ended::Unwanted)
    }

    fn item(
        &mut self,
        device_id: String,
        file: Option<PathBuf>,
        terms: Terms,
        csr: impl FnOnce() -> Result<Vec<u8>, DecodeError>,
    ) -> Item {
        if let Err(error) = DeviceId::check(&device_id) {
            let message = format!(
                "{} is not a device id: 1 to {} characters of A-Z a-z 0-9 . _ : -, \
                 the first a letter or digit{}",
                quoted(&device_id),
                DeviceId::LONGEST,
                error.odd()
            );
            return refused(device_id, file, terms, "REQUEST_INVALID", message);
        }
        if let Some(order) = terms.order.as_deref().filter(|order| OrderId::check(order).is_err()) {
            let message = format!("{} cannot be the id of an order", quoted(order));
            return refused(device_id, file, terms, "REQUEST_INVALID", message);
        }
        let csr = match csr() {
            Ok(csr) => csr,
            Err(error) => return refused(device_id, file, terms, "CSR_MALFORMED", error.to_string()),
        };
        let key = match fields::csr_key(&csr) {
            Ok(key) => key.to_vec(),
            Err(error) => return refused(device_id, file, terms, "CSR_MALFORMED", error.to_string()),
        };
        // A watched folder runs forever and moves what is done; there the daemon alone decides.
        if self.places.watched().is_none() && !self.seen.first_or_same(&device_id, &csr) {
            let message = "an earlier CSR of this run for the same device is a different one".to_owned();
            return refused(device_id, file, terms, "DUPLICATE_DEVICE", message);
        }
        // Last, so that nothing that is refused here has a name.
        if let Err(error) = self.places.claim(&device_id) {
            return refused(device_id, file, terms, "NAME_REFUSED", error.to_string());
        }
        match self.places.existing(&device_id, &key) {
            Some(certificate) => Item::AlreadyThere { device_id, certificate, file },
            None => Item::Wanted(Wanted { device_id, csr: csr.into(), file, terms }),
        }
    }
}

/// What was read in this run: 16 bytes a device, the one thing here that grows with the input.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    csrs: HashMap<u64, u64>,
}

impl Seen {
    /// False if another CSR came for this device before.
    fn first_or_same(&mut self, device_id: &str, csr: &[u8]) -> bool {
        let csr = self.hasher.hash_one(csr);
        *self.csrs.entry(self.hasher.hash_one(device_id)).or_insert(csr) == csr
    }
}

fn refused(device_id: String, file: Option<PathBuf>, terms: Terms, reason: &str, message: String) -> Item {
    Item::Refused(Refused { device_id: shortened(&device_id), file, terms, reason: reason.to_owned(), message })
}
