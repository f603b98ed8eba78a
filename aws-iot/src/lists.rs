//! What the factory says of a certificate: the allow-lists of all bundles that were verified.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use birthmark::durable::{self, Access};

use crate::{
    arn::CertificateId,
    bundle::{Bundle, BundleError, Issuer},
    list::{Entry, List, ListError, Withdrawal, Writer},
    template::Device,
};

/// How the files are called: `aws.0001-0123456789abcdef.list`, with the beginning of the manifest's SHA-256.
const EXTENSION: &str = "list";

/// Beside each list: who issued its certificates, as JSON.
const ISSUERS: &str = "issuers.json";

/// What the factory says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is a device's, says this batch.
    Known(Device, Arc<str>),
    /// It is withdrawn, says this batch.
    Withdrawn(Withdrawal, Arc<str>),
    /// No bundle names it.
    Unknown,
}

/// The allow-lists of a folder.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    lists: Vec<Named>,
    issuers: BTreeSet<Issuer>,
}

/// A list with the name of its batch.
#[derive(Clone, Debug)]
struct Named {
    batch: Arc<str>,
    list: Arc<List>,
}

/// Why a bundle's list cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The list cannot be written.
    #[error(transparent)]
    List(#[from] ListError),
}

/// The file of a bundle's list, state or the like in a folder.
pub(crate) fn file_of(folder: &Path, batch: &str, manifest: &[u8; 32], extension: &str) -> PathBuf {
    let digest = hex::encode(manifest.split_at(8).0);
    folder.join(format!("{batch}-{digest}.{extension}"))
}

/// Opens a bundle's list, or makes it.
///
/// # Errors
/// The bundle cannot be read or the list not written.
pub fn compile(folder: &Path, bundle: &Bundle) -> Result<List, CompileError> {
    let path = file_of(folder, bundle.name(), bundle.manifest_sha256(), EXTENSION);
    match List::open(&path) {
        Ok(Some(list)) if list.manifest() == bundle.manifest_sha256() => return Ok(list),
        // What is damaged is made again.
        Ok(_) | Err(ListError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let issuers = serde_json::to_vec(bundle.issuers()).unwrap_or_default();
    let beside = file_of(folder, bundle.name(), bundle.manifest_sha256(), ISSUERS);
    durable::write(&beside, &issuers, Access::Public).map_err(|cause| ListError::Io { path: beside, cause })?;
    let mut writer = Writer::create(&path, bundle.manifest_sha256(), bundle.certificates() + bundle.withdrawn())?;
    for line in bundle.lines() {
        let line = line?;
        writer.push(&line.id, &Entry::Device(line.device))?;
    }
    for withdrawn in bundle.withdrawals()? {
        let withdrawn = withdrawn?;
        writer.push(&withdrawn.id, &Entry::Withdrawn(withdrawn.withdrawal))?;
    }
    writer.finish()?;
    List::open(&path)?.ok_or_else(|| ListError::Damaged { path }.into())
}

impl Lists {
    /// Opens all lists of a folder, which may not be there. One that is damaged is an error: what it withdraws would be
    /// forgotten without it.
    ///
    /// # Errors
    /// The file system's, or a list is damaged.
    pub fn open(folder: &Path) -> Result<Lists, ListError> {
        let io = |cause| ListError::Io { path: folder.to_owned(), cause };
        let mut lists = Lists::default();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lists),
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let path = entry.map_err(io)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let Some((batch, _)) = stem.and_then(|stem| stem.rsplit_once('-')) else { continue };
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let issuers = fs::read(path.with_extension(ISSUERS)).ok();
            let issuers = issuers.and_then(|text| serde_json::from_slice::<Vec<Issuer>>(&text).ok());
            match (List::open(&path)?, issuers) {
                (Some(list), Some(issuers)) => lists.add(batch, Arc::new(list), &issuers),
                (Some(_), None) => return Err(ListError::Damaged { path }),
                (None, _) => {}
            }
        }
        Ok(lists)
    }

    /// Adds a bundle's list; one of the same bundle is there once.
    pub fn add(&mut self, batch: &str, list: Arc<List>, issuers: &[Issuer]) {
        self.issuers.extend(issuers.iter().cloned());
        if self.lists.iter().any(|known| known.list.manifest() == list.manifest()) {
            return;
        }
        self.lists.push(Named { batch: batch.into(), list });
        // Numbers have four digits or more.
        self.lists.sort_by(|a, b| (a.batch.len(), &a.batch).cmp(&(b.batch.len(), &b.batch)));
    }

    /// Who issued the certificates.
    pub fn issuers(&self) -> &BTreeSet<Issuer> {
        &self.issuers
    }

    /// Each batch with its list, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &List)> {
        self.lists.iter().map(|named| (&*named.batch, &*named.list))
    }

    /// How many bundles there are.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many entries all of them have.
    pub fn entries(&self) -> u64 {
        self.lists.iter().map(|named| named.list.len()).sum()
    }

    /// What the factory says of a certificate. A withdrawal anywhere is the last word; otherwise the newest batch is.
    ///
    /// # Errors
    /// A list cannot be read.
    pub fn standing(&self, id: &CertificateId) -> Result<Standing, ListError> {
        let mut standing = Standing::Unknown;
        for named in &self.lists {
            match named.list.find(id)?.map(|found| found.entry) {
                Some(Entry::Withdrawn(withdrawal)) => return Ok(Standing::Withdrawn(withdrawal, named.batch.clone())),
                Some(Entry::Device(device)) => standing = Standing::Known(device, named.batch.clone()),
                None => {}
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Without a list that is damaged nothing is said of any certificate: it might be one that it withdraws.
    #[test]
    fn folder_with_a_damaged_list_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Lists::open(&folder.path().join("absent")).unwrap().is_empty());
        let path = file_of(folder.path(), "aws.0001", &[7; 32], EXTENSION);
        let write = |content: &[u8]| fs::File::create(&path).unwrap().write_all(content).unwrap();
        write(b"BMAWSAL1 and then it was cut off");
        assert!(matches!(Lists::open(folder.path()), Err(ListError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        Writer::create(&path, &[7; 32], 0).unwrap().finish().unwrap();
        // Whose certificates it lists is not known.
        assert!(matches!(Lists::open(folder.path()), Err(ListError::Damaged { .. })));
    }
}
