//! The newest list of each scope, as it is served: in memory, and as a file that outlives the daemon, so that from its
//! start it serves what was published before, until the HSM has signed a new one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use super::read::RevocationList;
use crate::{
    durable::{self, Access},
    hash::sha256,
    signer::PublicKey,
    x509_time::Time,
};

/// Which list: a CA, and a shard of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListId {
    /// The CA, by the hex of the first 16 octets of SHA-256 over its subject (DER) and public key (SPKI): a CA whose
    /// certificate is renewed for the same key is the same.
    ca: String,
    shard: u16,
}

impl ListId {
    /// The list of the CA with this subject (DER Name) and key.
    pub fn new(subject: &[u8], key: &PublicKey, shard: u16) -> ListId {
        let hash = sha256(&[subject, &key.spki].concat());
        ListId { ca: hex::encode(&hash[..16]), shard }
    }

    /// The shard, counted from 0.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    fn file_name(&self) -> String {
        format!("{}-{}.crl", self.ca, self.shard)
    }
}

/// A published list.
#[derive(Clone, Debug)]
pub struct Published {
    /// DER.
    pub der: bytes::Bytes,
    /// CRLNumber.
    pub number: u64,
    /// When it was made.
    pub this_update: Time,
    /// Until when a newer one is published.
    pub next_update: Time,
    /// How many certificates are on it.
    pub entries: usize,
    /// SHA-256 of `der`.
    pub sha256: [u8; 32],
}

/// Why a list cannot be published, or one from an earlier run not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its content is no list of this CA.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The published lists.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    lists: RwLock<BTreeMap<ListId, Arc<Published>>>,
}

impl Store {
    /// Lists in `folder`, which is made if absent. Nothing is read yet.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        fs::create_dir_all(folder).map_err(|error| StoreError::File { path: folder.to_owned(), error })?;
        Ok(Store { folder: folder.to_owned(), lists: RwLock::default() })
    }

    /// Reads the list of an earlier run, once, and serves it if the CA's key signed it.
    ///
    /// # Errors
    /// What is wrong with the file. Nothing is served then.
    pub fn load(&self, id: &ListId, key: &PublicKey) -> Result<Option<Arc<Published>>, StoreError> {
        if let Some(list) = self.get(id) {
            return Ok(Some(list));
        }
        let path = self.folder.join(id.file_name());
        let der = match fs::read(&path) {
            Ok(der) => der,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::File { path, error }),
        };
        let wrong = |reason: String| StoreError::Content { path: path.clone(), reason };
        let list = RevocationList::from_der(der).map_err(|error| wrong(format!("it is no CRL: {error}")))?;
        list.verify(key).map_err(|error| wrong(format!("it is not signed by the CA's key: {error}")))?;
        let published = Published::from_list(&list).ok_or_else(|| wrong("it has no number or no nextUpdate".into()))?;
        Ok(Some(self.insert(id, published)))
    }

    /// Makes a list the newest of its scope: on stable storage first, then to whoever asks.
    ///
    /// # Errors
    /// If the file cannot be written; the one before stays served.
    pub fn publish(&self, id: &ListId, list: Published) -> Result<Arc<Published>, StoreError> {
        let path = self.folder.join(id.file_name());
        durable::write(&path, &list.der, Access::Public).map_err(|error| StoreError::File { path, error })?;
        Ok(self.insert(id, list))
    }

    fn insert(&self, id: &ListId, list: Published) -> Arc<Published> {
        let list = Arc::new(list);
        self.lists.write().insert(id.clone(), Arc::clone(&list));
        list
    }

    /// The newest list of a scope.
    pub fn get(&self, id: &ListId) -> Option<Arc<Published>> {
        self.lists.read().get(id).cloned()
    }
}

impl Published {
    /// A list that has a number and a nextUpdate, as ours have.
    pub fn from_list(list: &RevocationList) -> Option<Published> {
        Some(Published {
            der: bytes::Bytes::copy_from_slice(list.der()),
            number: list.number()?,
            this_update: list.this_update(),
            next_update: list.next_update()?,
            entries: list.len(),
            sha256: sha256(list.der()),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, date_time_ymd};

    use super::*;
    use crate::x509::Certificate;

    fn list(number: u64) -> (PublicKey, RevocationList) {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let public = PublicKey::of(&Certificate::from_der(ca.self_signed(&key).unwrap().der()).unwrap()).unwrap();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 2),
            next_update: date_time_ymd(2026, 1, 9),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(ca, key)).unwrap();
        (public, RevocationList::from_der(list.der().to_vec()).unwrap())
    }

    /// What was published is served after a start; what another key signed, or was damaged, is not.
    #[test]
    fn crl_of_an_earlier_run_is_served_if_its_signature_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let (key, signed) = list(7);
        let id = ListId::new(&[0x30, 0], &key, 0);
        let store = Store::open(&folder.path().join("crl")).unwrap();
        assert!(store.load(&id, &key).unwrap().is_none());
        store.publish(&id, Published::from_list(&signed).unwrap()).unwrap();
        assert_eq!(store.get(&id).map(|list| list.number), Some(7));

        let again = Store::open(&folder.path().join("crl")).unwrap();
        assert!(again.get(&id).is_none());
        assert_eq!(again.load(&id, &key).unwrap().map(|list| list.der.to_vec()), Some(signed.der().to_vec()));
        let stranger = Store::open(&folder.path().join("crl")).unwrap();
        let error = stranger.load(&id, &list(7).0).unwrap_err().to_string();
        assert!(error.contains("not signed by the CA's key"), "{error}");
        assert!(stranger.get(&id).is_none());
        assert_ne!(ListId::new(&[0x30, 0], &key, 0), ListId::new(&[0x30, 0], &key, 1));
        assert_ne!(ListId::new(&[0x30, 0], &key, 0), ListId::new(&[0x30, 1], &key, 0));
    }
}
