//! Bundles of the format `aws-bulk`, as `birthmark export` writes them: read only after they were verified.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use birthmark::{
    export::verify::{Verified, VerifyError, verify},
    pem,
    signer::PublicKey,
};

use crate::{
    arn::CertificateId,
    list::Withdrawal,
    template::{InvalidLine, InvalidTemplate, Line, Template},
};

/// The format that is understood here.
const FORMAT: &str = "aws-bulk";

/// The file of its template.
const TEMPLATE: &str = "template.json";

/// The keys that may have signed a bundle: the factory's audit keys.
#[derive(Debug)]
pub struct TrustedKeys(Vec<PublicKey>);

/// A file is no public key.
#[derive(Debug, thiserror::Error)]
#[error("the trusted key {path}: {reason}")]
pub struct InvalidKey {
    path: PathBuf,
    reason: String,
}

impl TrustedKeys {
    /// Reads PEM files with a public key each.
    ///
    /// # Errors
    /// Which file is none.
    pub fn read(paths: &[PathBuf]) -> Result<TrustedKeys, InvalidKey> {
        let keys = paths.iter().map(|path| {
            let invalid = |reason: String| InvalidKey { path: path.clone(), reason };
            let spki = pem::read_public_key(path).map_err(|error| invalid(error.to_string()))?;
            PublicKey::from_spki(&spki).map_err(|error| invalid(error.to_string()))
        });
        Ok(TrustedKeys(keys.collect::<Result<_, _>>()?))
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It does not verify.
    #[error("the bundle {} does not verify: {cause}", path.display())]
    Verify {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        cause: VerifyError,
    },
    /// It is for another platform.
    #[error(
        "the bundle {batch} has the format {found}; a destination with format = \"{FORMAT}\" makes bundles for AWS IoT"
    )]
    Format {
        /// Which.
        batch: String,
        /// Its format.
        found: String,
    },
    /// Its template makes nothing that can be registered.
    #[error("the bundle {batch}: {cause}")]
    Template {
        /// Which.
        batch: String,
        /// What is wrong.
        cause: InvalidTemplate,
    },
    /// One of its lines cannot be registered.
    #[error("the bundle {batch}: {file}, line {number}: {cause}")]
    Line {
        /// Which.
        batch: String,
        /// The file.
        file: String,
        /// Counted from 1.
        number: u64,
        /// What is wrong.
        cause: InvalidLine,
    },
    /// It says something that cannot be.
    #[error("the bundle {batch} names {what}, which is no SHA-256 in hex")]
    Id {
        /// Which.
        batch: String,
        /// What it names.
        what: String,
    },
}

/// An issuing CA of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Issuer {
    /// Its certificate's id.
    pub id: CertificateId,
    /// For people.
    pub subject: String,
}

/// A certificate that a bundle withdraws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawnLine {
    /// Which.
    pub id: CertificateId,
    /// Why.
    pub withdrawal: Withdrawal,
}

/// A bundle that was verified. What is read of it is hashed once more, so it is what was verified.
#[derive(Debug)]
pub struct Bundle {
    path: Arc<Path>,
    verified: Verified,
    template: Template,
    issuers: Vec<Issuer>,
}

impl Bundle {
    /// Verifies the bundle, a folder or a tar.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(path: &Path, keys: &TrustedKeys) -> Result<Bundle, BundleError> {
        let unverified = |cause| BundleError::Verify { path: path.to_owned(), cause };
        let verified = verify(path, &keys.0, &|_| {}).map_err(unverified)?;
        let manifest = verified.manifest();
        let batch = || manifest.batch.clone();
        if manifest.format != FORMAT {
            return Err(BundleError::Format { batch: batch(), found: manifest.format.clone() });
        }
        let template = verified.read(TEMPLATE).map_err(unverified)?;
        let template = Template::parse(&String::from_utf8_lossy(&template));
        let template = template.map_err(|cause| BundleError::Template { batch: batch(), cause })?;
        let issuers = manifest.issuers.iter().map(|issuer| {
            let id = issuer.sha256.parse();
            let id = id.map_err(|_| BundleError::Id { batch: batch(), what: issuer.sha256.clone() })?;
            Ok(Issuer { id, subject: issuer.subject.clone() })
        });
        let issuers = issuers.collect::<Result<_, BundleError>>()?;
        Ok(Bundle { path: path.into(), verified, template, issuers })
    }

    /// The batch, such as `aws.0001`.
    pub fn name(&self) -> &str {
        &self.verified.manifest().batch
    }

    /// SHA-256 of its manifest, which names it as it is.
    pub fn manifest_sha256(&self) -> &[u8; 32] {
        self.verified.manifest_sha256()
    }

    /// How many certificates it has.
    pub fn certificates(&self) -> u64 {
        self.verified.manifest().certificates
    }

    /// How many certificates it withdraws.
    pub fn withdrawn(&self) -> u64 {
        self.verified.manifest().withdrawn
    }

    /// What its lines become.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Its template as it is.
    ///
    /// # Errors
    /// It was changed since.
    pub fn template_text(&self) -> Result<String, BundleError> {
        let octets = self.verified.read(TEMPLATE).map_err(|cause| self.changed(cause))?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// Who issued its certificates.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Its certificates.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line, BundleError>> + '_ {
        self.verified.lines().map(|line| {
            let line = line.map_err(|cause| self.changed(cause))?;
            self.template.fill(&line.text).map_err(|cause| BundleError::Line {
                batch: self.name().to_owned(),
                file: line.file,
                number: line.number,
                cause,
            })
        })
    }

    /// The certificates that it withdraws.
    ///
    /// # Errors
    /// It was changed since.
    pub fn withdrawals(&self) -> Result<impl Iterator<Item = Result<WithdrawnLine, BundleError>> + '_, BundleError> {
        let lines = self.verified.withdrawn().map_err(|cause| self.changed(cause))?;
        Ok(lines.map(|line| {
            let line = line.map_err(|cause| self.changed(cause))?;
            let unreadable = |_| BundleError::Id { batch: self.name().to_owned(), what: line.certificate_id.clone() };
            let id = line.certificate_id.parse().map_err(unreadable)?;
            let because = [line.code.as_str(), line.text.as_str()].into_iter().filter(|text| !text.is_empty());
            let mut reason = line.reason.clone();
            if line.replaced_by.is_some() {
                reason.push_str(" and replaced");
            }
            let because: Vec<_> = because.collect();
            if !because.is_empty() {
                reason = format!("{reason} ({})", because.join(": "));
            }
            Ok(WithdrawnLine { id, withdrawal: Withdrawal { device_id: line.device_id, reason } })
        }))
    }

    fn changed(&self, cause: VerifyError) -> BundleError {
        BundleError::Verify { path: self.path.to_path_buf(), cause }
    }
}
