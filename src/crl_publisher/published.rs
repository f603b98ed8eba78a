//! What the daemon has published, read from its data folder by others: without daemon, ledger and HSM.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    ca::IssuingCa,
    crl::{ListId, Shards, Store, StoreError, list_path},
    durable::{self, Access},
};

/// The newest lists of an issuer, as they were published.
#[derive(Debug)]
pub struct PublishedLists<'a> {
    issuer: &'a IssuingCa,
    shards: Shards,
    store: Store,
}

/// Why a list is not there, or cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// The daemon has published nothing.
    #[error("{} is not there: the daemon has published no list yet, or its configuration has no section [crl]", .0.display())]
    Nothing(PathBuf),
    /// No list of this shard.
    #[error("the issuer \"{issuer}\" has {count} list(s), counted from 0; there is no {shard}")]
    NoShard {
        /// The issuer.
        issuer: String,
        /// How many there are.
        count: u16,
        /// What was asked for.
        shard: u16,
    },
    /// No list of this issuer.
    #[error("the daemon has published no list {shard} of the issuer \"{issuer}\" yet")]
    NoList {
        /// The issuer.
        issuer: String,
        /// The shard.
        shard: u16,
    },
    /// The file is not what was published.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl<'a> PublishedLists<'a> {
    /// Those in a daemon's data folder.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(data: &Path, issuer: &'a IssuingCa) -> Result<PublishedLists<'a>, PublishedError> {
        let folder = data.join("crl");
        if !folder.is_dir() {
            return Err(PublishedError::Nothing(folder));
        }
        let shards = Shards::new(issuer.crl_shards()).unwrap_or(Shards::ONE);
        Ok(PublishedLists { issuer, shards, store: Store::open(&folder)? })
    }

    /// The list of a shard, DER; its signature was verified.
    ///
    /// # Errors
    /// If there is none, or not a whole one.
    pub fn read(&self, shard: u16) -> Result<Bytes, PublishedError> {
        let issuer = || self.issuer.name().to_owned();
        if shard >= self.shards.count() {
            return Err(PublishedError::NoShard { issuer: issuer(), count: self.shards.count(), shard });
        }
        let id = ListId::new(self.issuer.subject(), self.issuer.public_key(), shard);
        let list = self.store.load(&id, self.issuer.public_key())?;
        list.map(|list| list.der.clone()).ok_or_else(|| PublishedError::NoList { issuer: issuer(), shard })
    }

    /// Writes all lists of the issuer and its CA certificate, at the paths of the daemon's HTTP port. Gives the paths.
    ///
    /// # Errors
    /// If a list is not there, or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>, PublishedError> {
        let name = self.issuer.name();
        let certificate = self.issuer.certificates().issuing().der();
        let mut files = vec![(format!("ca/{name}.cer"), Bytes::copy_from_slice(certificate))];
        for shard in 0..self.shards.count() {
            files.push((list_path(name, self.shards, shard), self.read(shard)?));
        }
        for (path, content) in &files {
            let path = folder.join(path);
            let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
            let written = parent.and_then(|()| durable::write(&path, content, Access::Public));
            written.map_err(|error| PublishedError::Write { path, error })?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}
