//! The files of one run: where they are, and whether the folder can hold them.

use std::{
    collections::HashMap,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use birthmark_base::{fields, id::is_reserved_name, pem, temporary, text_file};
use parking_lot::Mutex;

use super::hold::Holds;

/// The ending of chain files; a device whose id ends like one would share its file with another's.
const CHAIN: &str = ".chain";

/// The longest file that can be a certificate with its chain, in bytes.
pub(super) const LONGEST_CERTIFICATES: u64 = 1 << 20;

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It cannot be created.
    #[error("cannot make {}: {source}", folder.display())]
    Create {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing can be written there.
    #[error("cannot write to {}: {source}", folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a device's files cannot be in the folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameRefused {
    /// Its certificate would have the name of another device's chain file.
    #[error("with --chain a device id cannot end in \"{CHAIN}\", as the chain files do")]
    ChainEnding,
    /// Windows has no colons in names, and keeps some names for devices of its own.
    #[error(
        "\"{device_id}\" is no file name on Windows, where {} may be; sign it with --out -, which writes no files",
        folder.display()
    )]
    Windows {
        /// The device.
        device_id: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Another device has the name, in another case.
    #[error(
        "\"{device_id}\" differs only in upper and lower case from another device whose files are in {}, and file systems \
         such as Windows' do not tell them apart; sign it with another --out", folder.display()
    )]
    CaseFolded {
        /// The device.
        device_id: String,
        /// The folder.
        folder: PathBuf,
    },
}

/// The files of one run.
#[derive(Debug)]
pub(crate) struct Places {
    /// None: certificates go into the report, and there are no files.
    folder: Option<PathBuf>,
    chain: bool,
    watched: Option<PathBuf>,
    names: OnceLock<Option<Names>>,
    holds: Holds,
}

/// The names in a folder where each must be one on Windows too: any hot folder, which is often a share, and whatever does not
/// tell upper from lower case, as macOS and memory sticks.
#[derive(Debug)]
struct Names {
    /// Whether a colon may be part of a name.
    colon: bool,
    hasher: RandomState,
    /// The devices that are asked for, and those whose certificates are there, by their id in lower case; hashes, since a
    /// hot folder runs for years.
    taken: Mutex<HashMap<u64, Taken>>,
}

/// Who has a name.
#[derive(Debug)]
struct Taken {
    id: u64,
    /// How many CSRs of the device were not refused.
    uses: u32,
}

impl Names {
    fn new(ids: impl IntoIterator<Item = String>, colon: bool) -> Self {
        let names = Names { colon, hasher: RandomState::new(), taken: Mutex::default() };
        for id in ids {
            names.take(&id);
        }
        names
    }

    /// False if it is another's.
    fn take(&self, device_id: &str) -> bool {
        let id = self.hasher.hash_one(device_id);
        let mut taken = self.taken.lock();
        let name = taken.entry(self.folded(device_id)).or_insert(Taken { id, uses: 0 });
        if name.id != id {
            return false;
        }
        name.uses = name.uses.saturating_add(1);
        true
    }

    fn release(&self, device_id: &str) {
        let mut taken = self.taken.lock();
        let folded = self.folded(device_id);
        if let Some(name) = taken.get_mut(&folded) {
            name.uses = name.uses.saturating_sub(1);
            if name.uses == 0 {
                taken.remove(&folded);
            }
        }
    }

    fn folded(&self, device_id: &str) -> u64 {
        self.hasher.hash_one(device_id.to_ascii_lowercase())
    }
}

impl Places {
    /// Certificates go to `folder`, if there is one, with `chain` also chain files. Of a watched folder, CSRs move to its
    /// `done` and `failed`.
    pub(crate) fn new(folder: Option<PathBuf>, chain: bool, watched: Option<PathBuf>) -> Self {
        Places { folder, chain, watched, names: OnceLock::new(), holds: Holds::default() }
    }

    /// Makes the folders, and finds out what the one for certificates can hold. Gives what is wrong with the others,
    /// without which a watched folder is served all the same.
    ///
    /// # Errors
    /// If there cannot be a folder for certificates.
    pub(crate) fn make(&self) -> Result<Vec<FolderError>, FolderError> {
        let create = |folder: PathBuf| match fs::create_dir_all(&folder) {
            Ok(()) => Ok(()),
            Err(source) => Err(FolderError::Create { folder, source }),
        };
        if let Some(folder) = &self.folder {
            create(folder.clone())?;
            let names =
                self.names_in(folder).map_err(|source| FolderError::Write { folder: folder.clone(), source })?;
            // Made once a run.
            let _ = self.names.set(names);
            // Others may be at work in the same folder, here or on another machine.
            temporary::sweep(folder);
        }
        let others = self.watched.iter().flat_map(|folder| [folder.join("done"), folder.join("failed")]);
        Ok(others.filter_map(|folder| create(folder).err()).collect())
    }

    /// The folder for certificates, if they go into files.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The folder that is watched, if one is.
    pub(crate) fn watched(&self) -> Option<&Path> {
        self.watched.as_deref()
    }

    /// Whether chain files are wanted.
    pub(super) fn chain_wanted(&self) -> bool {
        self.chain
    }

    /// The files of the watched folder that stay there for now.
    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// What is known of the names in a folder, where that matters. Finds out whether files can be made there.
    fn names_in(&self, folder: &Path) -> io::Result<Option<Names>> {
        let probed = probe_names(folder)?;
        let Some(colon) = (if self.watched.is_some() { Some(false) } else { probed }) else { return Ok(None) };
        let ids = names(folder)?.into_iter().filter_map(|name| name.strip_suffix(".pem").map(str::to_owned));
        Ok(Some(Names::new(ids, colon)))
    }

    /// Takes the names of this device's files for it, until [`Places::release`].
    ///
    /// # Errors
    /// If they are another's or if the folder cannot hold them.
    pub(crate) fn claim(&self, device_id: &str) -> Result<(), NameRefused> {
        let Some(folder) = &self.folder else { return Ok(()) };
        if self.chain && device_id.to_ascii_lowercase().ends_with(CHAIN) {
            return Err(NameRefused::ChainEnding);
        }
        let Some(names) = self.names.get().and_then(Option::as_ref) else { return Ok(()) };
        let (device, folder) = (|| device_id.to_owned(), || folder.clone());
        if (device_id.contains(':') && !names.colon) || is_reserved_name(device_id) {
            return Err(NameRefused::Windows { device_id: device(), folder: folder() });
        }
        match names.take(device_id) {
            true => Ok(()),
            false => Err(NameRefused::CaseFolded { device_id: device(), folder: folder() }),
        }
    }

    /// Gives the names back, since the device has no files: the next may be what it should have been called.
    pub(crate) fn release(&self, device_id: &str) {
        if let Some(names) = self.names.get().and_then(Option::as_ref) {
            names.release(device_id);
        }
    }

    /// The DER certificate that the device has from an earlier run, if all its files are there and the certificate
    /// carries this key (a DER `SubjectPublicKeyInfo`). What was half written counts as not there.
    pub(crate) fn existing(&self, device_id: &str, key: &[u8]) -> Option<Vec<u8>> {
        let text = read(&self.certificate(device_id)?)?;
        let first = pem::blocks(&text).ok()?.into_iter().next();
        let certificate = first.filter(pem::Block::is_certificate)?.der;
        let chain = || self.chain(device_id).and_then(|path| read(&path));
        let chained = !self.chain || chain().is_some_and(|chain| chain.starts_with(&text));
        (fields::certificate_key(&certificate) == Ok(key) && chained).then_some(certificate)
    }

    pub(super) fn certificate(&self, device_id: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{device_id}.pem")))
    }

    pub(super) fn chain(&self, device_id: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{device_id}{CHAIN}.pem")))
    }

    /// Where refusals go, if into files: beside the CSR in the watched folder's `failed`, otherwise among the certificates.
    pub(super) fn refusals(&self) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(self.watched.as_ref().map_or_else(|| folder.clone(), |watched| watched.join("failed")))
    }
}

/// Finds out what names the folder can hold: none if it tells upper from lower case, otherwise whether it takes colons.
fn probe_names(folder: &Path) -> io::Result<Option<bool>> {
    let ending = temporary::ending(std::process::id());
    let create = |name: &str| File::create(folder.join(name));
    let remove = |name: &str| {
        // What cannot be removed is swept by a later run.
        let _ = fs::remove_file(folder.join(name));
    };
    let (upper, lower) = (format!(".BIRTHMARK{ending}"), format!(".birthmark{ending}"));
    create(&upper)?;
    let same = folder.join(&lower).exists();
    remove(&upper);
    if !same {
        return Ok(None);
    }
    let colon = format!(".birthmark:{ending}");
    let takes_colon = create(&colon).is_ok() && names(folder)?.contains(&colon);
    remove(&colon);
    Ok(Some(takes_colon))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = text_file::open_regular(path).ok()?;
    text_file::read_octets(file, LONGEST_CERTIFICATES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(names: Option<Names>) -> Places {
        let places = Places::new(Some("out".into()), true, None);
        let _ = places.names.set(names);
        places
    }

    #[test]
    fn folder_that_folds_case_holds_one_id_of_a_kind() {
        let folding = places(Some(Names::new(["DEV-9".to_owned()], false)));
        for (id, refused) in [
            ("Dev-1", None),
            ("Dev-1", None),
            ("dev-1", Some("\"dev-1\" differs only in upper and lower case")),
            ("dev-9", Some("another --out")),
            ("DEV-9", None),
            ("a:b", Some("Windows")),
            ("nul", Some("Windows")),
            ("Com1.x", Some("Windows")),
            ("COM10", None),
            ("LPT0", None),
            ("CONSOLE", None),
            ("a.Chain", Some("--chain")),
        ] {
            let found = folding.claim(id).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), refused.is_some(), "{id}: {found:?}");
            assert!(refused.is_none_or(|word| found.as_deref().unwrap_or_default().contains(word)), "{id}: {found:?}");
        }
        // A device that was refused has no files; another CSR of it may still get some.
        folding.release("Dev-1");
        assert!(folding.claim("dev-1").is_err());
        folding.release("Dev-1");
        assert_eq!((folding.claim("dev-1"), folding.claim("Dev-1").is_err()), (Ok(()), true));
        let telling = places(None);
        for id in ["Dev-1", "dev-1", "a:b", "NUL"] {
            assert_eq!(telling.claim(id), Ok(()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipe_in_place_of_a_certificate_is_not_read() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let pipe = folder.path().join("a.pem");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
        assert_eq!(Places::new(Some(folder.path().to_owned()), false, None).existing("a", b""), None);
        Ok(())
    }
}
