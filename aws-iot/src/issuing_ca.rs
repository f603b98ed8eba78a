//! The CA certificate that AWS IoT is to know: the one that signs devices, alone.

use std::path::{Path, PathBuf};

use birthmark::pem::{self, ReadError};
use der::{Decode, Encode};
use x509_cert::{Certificate, ext::pkix::BasicConstraints};

use crate::arn::CertificateId;

/// The certificate of a CA that signs devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingCa {
    /// As AWS IoT calls it.
    pub id: CertificateId,
    /// The certificate alone, in PEM.
    pub pem: String,
    /// The certificate.
    pub der: Vec<u8>,
    /// For people.
    pub subject: String,
    /// DER: its subject.
    name: Vec<u8>,
}

/// Why a file does not hold the certificate that AWS IoT needs.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: ReadError,
    },
    /// It is a chain.
    #[error(
        "{path} has {count} certificates; AWS IoT takes the CA alone that signs devices. The first of them is {first}: put \
         it into a file of its own"
    )]
    Chain {
        /// The file.
        path: PathBuf,
        /// How many certificates it has.
        count: usize,
        /// The subject of the first.
        first: String,
    },
    /// It is a root.
    #[error(
        "{path} is the root {subject}, which issued itself. AWS IoT looks for the CA that signs devices itself, and would never \
         find it above the issuing CA: give that one. (A root here would also let each CA below it sign devices for the account.)"
    )]
    Root {
        /// The file.
        path: PathBuf,
        /// Its subject.
        subject: String,
    },
    /// It is no CA's.
    #[error("{path} is the certificate of {subject}, which is no CA (basicConstraints)")]
    NotACa {
        /// The file.
        path: PathBuf,
        /// Its subject.
        subject: String,
    },
    /// It is not DER.
    #[error("{path} is no certificate: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A verification certificate by another CA.
    #[error("{path} was issued by {issuer}, not by the CA {subject}; it proves nothing of this CA")]
    OtherIssuer {
        /// The file.
        path: PathBuf,
        /// Who issued it.
        issuer: String,
        /// The CA's subject.
        subject: String,
    },
    /// A verification certificate for another code.
    #[error(
        "{path} proves possession for another code ({subject}); this account and region have the code {code}: make it again \
         with that one"
    )]
    OtherCode {
        /// The file.
        path: PathBuf,
        /// Its subject.
        subject: String,
        /// The code that it should have.
        code: String,
    },
}

fn read(path: &Path) -> Result<Vec<Vec<u8>>, CaFileError> {
    pem::read_certificates(path).map_err(|cause| CaFileError::Read { path: path.to_owned(), cause })
}

fn parse(path: &Path, der: &[u8]) -> Result<Certificate, CaFileError> {
    let malformed = |error: der::Error| CaFileError::Malformed { path: path.to_owned(), reason: error.to_string() };
    Certificate::from_der(der).map_err(malformed)
}

impl IssuingCa {
    /// Reads a PEM file with one certificate, of a CA that is no root.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn read(path: &Path) -> Result<IssuingCa, CaFileError> {
        let mut certificates = read(path)?;
        let count = certificates.len();
        let der = certificates.swap_remove(0);
        let certificate = parse(path, &der)?;
        let malformed = |error: der::Error| CaFileError::Malformed { path: path.to_owned(), reason: error.to_string() };
        let tbs = certificate.tbs_certificate();
        let (path, subject) = (path.to_owned(), tbs.subject().to_string());
        if count > 1 {
            return Err(CaFileError::Chain { path, count, first: subject });
        }
        let name = tbs.subject().to_der().map_err(malformed)?;
        let issuer = tbs.issuer().to_der().map_err(malformed)?;
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(malformed)?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(CaFileError::NotACa { path, subject });
        }
        if name == issuer {
            return Err(CaFileError::Root { path, subject });
        }
        Ok(IssuingCa { id: CertificateId::of(&der), pem: pem::certificate_pem(&der), der, subject, name })
    }

    /// Reads the verification certificate that somebody made for this code; gives it in PEM.
    ///
    /// # Errors
    /// It is for another code or by another CA.
    pub fn read_verification(&self, path: &Path, code: &str) -> Result<String, CaFileError> {
        let der = read(path)?.swap_remove(0);
        let certificate = parse(path, &der)?;
        let tbs = certificate.tbs_certificate();
        let path = path.to_owned();
        if tbs.issuer().to_der().ok().as_ref() != Some(&self.name) {
            let issuer = tbs.issuer().to_string();
            return Err(CaFileError::OtherIssuer { path, issuer, subject: self.subject.clone() });
        }
        let subject = tbs.subject().to_string();
        let wanted = format!("CN={code}");
        if !subject.split(['+', ',']).any(|part| part.trim() == wanted) {
            return Err(CaFileError::OtherCode { path, subject, code: code.to_owned() });
        }
        Ok(pem::certificate_pem(&der))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    /// Root, issuing CA, a device and a proof below it, each in a file.
    fn files(folder: &Path) {
        let [root_key, issuing_key, key] = [0; 3].map(|_| KeyPair::generate().unwrap());
        let root = params("Root", true).self_signed(&root_key).unwrap().pem();
        let above = Issuer::new(params("Root", true), root_key);
        let issuing = params("Issuing", true).signed_by(&issuing_key, &above).unwrap().pem();
        let below = Issuer::new(params("Issuing", true), issuing_key);
        let device = params("dev-1", false).signed_by(&key, &below).unwrap().pem();
        let proof = params(&"ab".repeat(32), false).signed_by(&key, &below).unwrap().pem();
        let foreign = params(&"ab".repeat(32), false).signed_by(&key, &above).unwrap().pem();
        let chain = format!("{issuing}{root}");
        for (name, content) in [
            ("root", root),
            ("issuing", issuing),
            ("device", device),
            ("proof", proof),
            ("foreign", foreign),
            ("chain", chain),
            ("nothing", String::new()),
        ] {
            std::io::Write::write_all(&mut std::fs::File::create(folder.join(name)).unwrap(), content.as_bytes())
                .unwrap();
        }
    }

    /// A root, a chain and what is no CA are refused, each with what would be right.
    #[test]
    fn ca_file_that_is_not_the_issuing_ca_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let read = |name: &str| IssuingCa::read(&folder.path().join(name)).map_err(|error| error.to_string());
        let ca = read("issuing").unwrap();
        assert_eq!(ca.subject, "CN=Issuing");
        assert_eq!(ca.id, CertificateId::of(&ca.der));
        for (name, says) in [
            ("root", "issued itself"),
            ("chain", "2 certificates"),
            ("device", "no CA"),
            ("nothing", "no PEM certificate"),
            ("absent", "No such file"),
        ] {
            let error = read(name).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    /// A proof for another account or of another CA is refused before AWS sees it.
    #[test]
    fn verification_for_another_code_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let ca = IssuingCa::read(&folder.path().join("issuing")).unwrap();
        let code = "ab".repeat(32);
        assert!(ca.read_verification(&folder.path().join("proof"), &code).is_ok());
        let error = ca.read_verification(&folder.path().join("proof"), &"cd".repeat(32)).unwrap_err().to_string();
        assert!(error.contains("another code"), "{error}");
        let error = ca.read_verification(&folder.path().join("foreign"), &code).unwrap_err().to_string();
        assert!(error.contains("CN=Root"), "{error}");
    }
}
