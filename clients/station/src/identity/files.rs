//! The files of an identity.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use birthmark_base::{
    durable::{self, Access},
    pem,
};
use rcgen::{CertificateParams, DnType, KeyPair};
use zeroize::Zeroizing;

/// Why the files of an identity cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file of an earlier enrolment is in the way.
    #[error("{} exists; remove it or name another folder with --out", .0.display())]
    Exists(PathBuf),
    /// Key or request cannot be made.
    #[error("{0}")]
    Generate(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A key that was made here, and the request to certify it.
pub struct NewKey {
    key_pem: Zeroizing<String>,
    csr_pem: String,
}

impl NewKey {
    /// Makes a P-256 key. The name in the request is for people: whoever certifies it decides.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn generate(name: &str) -> Result<NewKey, FilesError> {
        NewKey::of(&KeyPair::generate()?, name)
    }

    /// The key of an identity that there is, to be certified again.
    ///
    /// # Errors
    /// If it is no unencrypted PKCS#8 key.
    pub fn existing(key_pem: &str, name: &str) -> Result<NewKey, FilesError> {
        NewKey::of(&KeyPair::from_pem(key_pem)?, name)
    }

    fn of(key: &KeyPair, name: &str) -> Result<NewKey, FilesError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
        let csr_pem = parameters.serialize_request(key)?.pem()?;
        Ok(NewKey { key_pem: Zeroizing::new(key.serialize_pem()), csr_pem })
    }

    /// The request, PEM.
    pub fn csr(&self) -> &str {
        &self.csr_pem
    }

    /// Puts the key beside the one that a folder has, until [`Files::replace`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn stage(&self, folder: &Path) -> Result<(), FilesError> {
        let path = durable::staged(&folder.join("key.pem"));
        let written = durable::write(&path, self.key_pem.as_bytes(), Access::Owner);
        written.map_err(|source| FilesError::Write { path, source })
    }

    /// Writes `key.pem`, which only its owner may read, and `request.csr` into a folder.
    ///
    /// # Errors
    /// If one of them exists or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf), FilesError> {
        check_free(folder, &["key.pem", "request.csr"])?;
        create(folder)?;
        let [key, request] = ["key.pem", "request.csr"].map(|name| folder.join(name));
        write(&key, self.key_pem.as_bytes(), Access::Owner)?;
        write(&request, self.csr_pem.as_bytes(), Access::Public)?;
        Ok((key, request))
    }
}

/// The files of an identity: `cert.pem`, `ca.pem` (to verify the other side with), and `key.pem` if it was made here.
#[derive(Debug)]
pub struct Files {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
    /// The station CA certificate's file.
    pub ca: PathBuf,
}

impl Files {
    /// Writes them into a folder. `key`: if it was made here.
    ///
    /// # Errors
    /// If one of them exists or cannot be written.
    pub fn write(
        folder: &Path,
        key: Option<&NewKey>,
        [certificate_der, ca_der]: [&[u8]; 2],
    ) -> Result<Files, FilesError> {
        check_free(folder, if key.is_some() { &["cert.pem", "key.pem", "ca.pem"] } else { &["cert.pem", "ca.pem"] })?;
        create(folder)?;
        let [certificate, key_path, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
        if let Some(key) = key {
            write(&key_path, key.key_pem.as_bytes(), Access::Owner)?;
        }
        write(&certificate, pem::certificate_pem(certificate_der).as_bytes(), Access::Public)?;
        write(&ca, pem::certificate_pem(ca_der).as_bytes(), Access::Public)?;
        Ok(Files { certificate, key: key_path, ca })
    }

    /// Puts a new certificate in the place of the one that a folder has; a crash leaves the one or the other.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn renew(folder: &Path, certificate_der: &[u8]) -> Result<PathBuf, FilesError> {
        let path = folder.join("cert.pem");
        let text = pem::certificate_pem(certificate_der);
        durable::write(&path, text.as_bytes(), Access::Public)
            .map_err(|source| FilesError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Files {
    /// Puts a new certificate and the key that was staged in the place of those that a folder has; a crash leaves the ones or
    /// the others, as the next connection finds them.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn replace(folder: &Path, certificate_der: &[u8]) -> Result<PathBuf, FilesError> {
        let path = folder.join("cert.pem");
        let text = pem::certificate_pem(certificate_der);
        durable::write(&durable::staged(&path), text.as_bytes(), Access::Public)
            .and_then(|()| durable::take_staged(folder, &["key.pem", "cert.pem"]))
            .map_err(|source| FilesError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// If it exists or cannot be written.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), FilesError> {
    match durable::write_new(path, content, Access::Owner) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(FilesError::Exists(path.to_owned())),
        written => written.map_err(|source| FilesError::Write { path: path.to_owned(), source }),
    }
}

/// Checks that none of these files is there.
///
/// # Errors
/// The first that is.
pub fn check_free(folder: &Path, names: &[&str]) -> Result<(), FilesError> {
    let mut paths = names.iter().map(|name| folder.join(name));
    match paths.find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(FilesError::Exists(path)),
        None => Ok(()),
    }
}

fn create(folder: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(folder).map_err(|source| FilesError::Write { path: folder.to_owned(), source })
}

fn write(path: &Path, content: &[u8], access: Access) -> Result<(), FilesError> {
    let written = durable::write_new(path, content, access);
    written.map_err(|source| FilesError::Write { path: path.to_owned(), source })
}
