//! Turns a batch into the files of a bundle: certificates, then what was withdrawn, then everything that is known only at
//! the end. Memory is flat: a file is passed on in pieces as it grows.

mod files;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::files::Files;
use super::{
    certificate::{Certificate, Issuer, UnfitReason, Withdrawn, milliseconds},
    formats::{jsonl::Jsonl, lines::Lines, matter::MatterFiles, thingpress::Thingpress},
    manifest::{
        Filter, ISSUERS, JournalRange, ListedIssuer, MANIFEST, Manifest, ReplacedBy, SIGNATURE, Unfit, VERSION,
        WITHDRAWN, WithdrawnLine, batch_id,
    },
    settings::{Format, Settings, UnreadableSettings},
    sink::{Sink, SinkError},
};
use crate::hash::sha256;

/// What a batch's entry states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The destination's name.
    pub destination: String,
    /// The batch's number, from 1.
    pub number: u32,
    /// The first entry of its range.
    pub first: u64,
    /// The end of its range.
    pub end: u64,
    /// The journal's chain hash at the end of its range.
    pub chain_hash: [u8; 32],
    /// When it was cut.
    pub created_at: Timestamp,
    /// Who cut it.
    pub created_by: String,
    /// What was left out.
    pub unfit: Vec<Unfit>,
    /// How many certificates it has.
    pub certificates: u64,
    /// How many withdrawals it has.
    pub withdrawn: u64,
    /// Which certificates the destination takes.
    pub filter: Filter,
    /// The destination's settings, as [`Settings::to_json`] wrote them.
    pub settings: String,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The files are not taken.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// This version cannot render the batch.
    #[error(transparent)]
    Settings(#[from] UnreadableSettings),
    /// A certificate that is unfit is in the batch.
    #[error("the certificate of {device_id} in the batch {batch} cannot be written: {reason}")]
    Unfit {
        /// The batch.
        batch: String,
        /// The device.
        device_id: String,
        /// Why not.
        reason: UnfitReason,
    },
    /// The parts did not come in their order.
    #[error("a certificate of the batch {0} came after its withdrawals")]
    Order(String),
    /// Not all of the batch came, or more than it has.
    #[error("the batch {batch} has {counted} {what}, and {written} were written")]
    Count {
        /// The batch.
        batch: String,
        /// Certificates or withdrawals.
        what: &'static str,
        /// As its entry has it.
        counted: u64,
        /// What came.
        written: u64,
    },
}

/// How certificates are written.
enum Writer {
    Lines(Box<dyn Lines>),
    Matter(MatterFiles),
}

impl Writer {
    fn new(format: &Format) -> Writer {
        Writer::Lines(match format {
            Format::Jsonl => Box::new(Jsonl),
            Format::AwsBulk(settings) => Box::new(settings.writer()),
            Format::Csv(settings) => Box::new(settings.writer()),
            Format::Thingpress => Box::new(Thingpress),
            Format::AzureDps(settings) => Box::new(settings.writer()),
            Format::Matter => return Writer::Matter(MatterFiles::default()),
        })
    }
}

/// A bundle that is being written. The order is: [`Bundle::certificate`] for each, [`Bundle::withdrawn`] for each,
/// [`Bundle::finish`], [`Unsealed::seal`].
pub struct Bundle<S: Sink> {
    header: Header,
    settings: Settings,
    batch: String,
    writer: Writer,
    files: Files<S>,
    /// Which file of data is open, and how many certificates it has.
    chunk: (u32, u32),
    certificates: u64,
    withdrawn: u64,
    issuers: BTreeMap<[u8; 32], Issuer>,
    last_issuer: Option<[u8; 32]>,
    text: String,
}

impl<S: Sink> Bundle<S> {
    /// Begins.
    ///
    /// # Errors
    /// If this version cannot read the batch's settings.
    pub fn new(header: Header, sink: S) -> Result<Self, BundleError> {
        let settings = Settings::from_json(&header.settings)?;
        Ok(Bundle {
            batch: batch_id(&header.destination, header.number),
            writer: Writer::new(&settings.format),
            files: Files::new(sink),
            chunk: (0, 0),
            certificates: 0,
            withdrawn: 0,
            issuers: BTreeMap::new(),
            last_issuer: None,
            text: String::new(),
            header,
            settings,
        })
    }

    /// The next certificate.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn certificate(&mut self, certificate: &Certificate<'_>) -> Result<(), BundleError> {
        if self.withdrawn > 0 {
            return Err(BundleError::Order(self.batch.clone()));
        }
        let sha256 = certificate.issuer.sha256();
        if self.last_issuer.as_ref() != Some(sha256) {
            self.issuers.entry(*sha256).or_insert_with(|| certificate.issuer.clone());
            self.last_issuer = Some(*sha256);
        }
        let unfit = |reason| BundleError::Unfit {
            batch: self.batch.clone(),
            device_id: certificate.device_id.to_owned(),
            reason,
        };
        self.text.clear();
        match &mut self.writer {
            Writer::Matter(matter) => {
                let name = matter.name(certificate).map_err(unfit)?;
                self.files.start(&name)?;
                self.files.write(certificate.der)?;
                self.files.close()?;
            }
            Writer::Lines(lines) => {
                let (number, length) = &mut self.chunk;
                if *number == 0 || *length == self.settings.chunk {
                    if *number > 0 {
                        self.files.write(lines.end().as_bytes())?;
                        self.files.close()?;
                    }
                    (*number, *length) = (*number + 1, 0);
                    self.files.start(&format!("data-{:05}.{}", *number, lines.extension()))?;
                    self.text.push_str(lines.begin());
                } else {
                    self.text.push_str(lines.between());
                }
                *length += 1;
                lines.append(certificate, &mut self.text).map_err(unfit)?;
                self.files.write(self.text.as_bytes())?;
            }
        }
        self.certificates += 1;
        Ok(())
    }

    /// The next withdrawal.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn withdrawn(&mut self, withdrawn: &Withdrawn<'_>) -> Result<(), BundleError> {
        if self.withdrawn == 0 {
            self.end_data()?;
        }
        let line = WithdrawnLine {
            certificate_id: withdrawn.certificate_id.to_owned(),
            serial_number: hex::encode(withdrawn.serial_number),
            device_id: withdrawn.device_id.to_owned(),
            reason: withdrawn.reason.to_owned(),
            code: withdrawn.code.to_owned(),
            text: withdrawn.text.to_owned(),
            at: milliseconds(withdrawn.at),
            batch: withdrawn.batch.to_owned(),
            replaced_by: withdrawn.replaced_by.as_ref().map(|by| ReplacedBy {
                certificate_id: by.certificate_id.to_owned(),
                serial_number: hex::encode(by.serial_number),
            }),
        };
        // Strings always have a JSON form.
        let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
        self.files.write(text.as_bytes())?;
        self.withdrawn += 1;
        Ok(())
    }

    /// Ends the data, and begins what was withdrawn.
    fn end_data(&mut self) -> Result<(), SinkError> {
        if let (Writer::Lines(lines), true) = (&self.writer, self.chunk.0 > 0) {
            self.files.write(lines.end().as_bytes())?;
        }
        self.files.close()?;
        self.files.start(WITHDRAWN)
    }

    /// Writes what is left but for the manifest, which is to be signed.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn finish(mut self) -> Result<Unsealed<S>, BundleError> {
        let (header, batch) = (self.header.clone(), self.batch.clone());
        let counts = [
            ("certificates", header.certificates, self.certificates),
            ("withdrawals", header.withdrawn, self.withdrawn),
        ];
        if let Some((what, counted, written)) = counts.into_iter().find(|(_, counted, written)| counted != written) {
            return Err(BundleError::Count { batch, what, counted, written });
        }
        if self.withdrawn == 0 {
            self.end_data()?;
        }
        self.files.close()?;
        let issuers: Vec<Issuer> = self.issuers.values().cloned().collect();
        let beside: Vec<(String, Vec<u8>)> = match &self.writer {
            Writer::Lines(lines) => {
                lines.beside(&issuers).into_iter().map(|(name, text)| (name, text.into())).collect()
            }
            Writer::Matter(matter) => {
                matter.pais(&issuers).into_iter().map(|(name, der)| (name, der.to_vec())).collect()
            }
        };
        let chains = issuers
            .iter()
            .map(|issuer| (format!("{ISSUERS}{}.pem", hex::encode(issuer.sha256())), issuer.chain_pem().into_bytes()));
        for (name, content) in beside.into_iter().chain(chains) {
            self.files.start(&name)?;
            self.files.write(&content)?;
            self.files.close()?;
        }
        let (sink, files) = self.files.finish()?;
        let manifest = Manifest {
            version: VERSION,
            batch,
            destination: header.destination,
            number: header.number,
            format: self.settings.format.to_string(),
            journal: JournalRange { first: header.first, end: header.end, chain_hash: hex::encode(header.chain_hash) },
            created_at: milliseconds(header.created_at),
            created_by: header.created_by,
            filter: header.filter,
            // As the entry has them, whatever this version would write.
            settings: serde_json::from_str(&header.settings).map_err(UnreadableSettings::from)?,
            certificates: header.certificates,
            withdrawn: header.withdrawn,
            unfit: header.unfit,
            issuers: issuers
                .iter()
                .map(|issuer| ListedIssuer {
                    sha256: hex::encode(issuer.sha256()),
                    subject: issuer.subject().to_owned(),
                    name: issuer.name().to_owned(),
                })
                .collect(),
            files,
        };
        // Strings, numbers and lists always have a JSON form.
        let text = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
        Ok(Unsealed { sink, manifest: text.into_bytes() })
    }
}

/// A bundle that lacks its manifest and the signature.
#[derive(Debug)]
#[must_use = "the manifest is not written yet"]
pub struct Unsealed<S: Sink> {
    sink: S,
    manifest: Vec<u8>,
}

impl<S: Sink> Unsealed<S> {
    /// `manifest.json`, which is to be signed ([`super::jws`]).
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// SHA-256 of the manifest.
    pub fn manifest_sha256(&self) -> [u8; 32] {
        sha256(&self.manifest)
    }

    /// Writes the manifest and its signature, the last files of the bundle.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn seal(mut self, jws: &str) -> Result<S, SinkError> {
        for (name, content) in [(MANIFEST, self.manifest.as_slice()), (SIGNATURE, jws.as_bytes())] {
            self.sink.start(name)?;
            for piece in content.chunks(files::PIECE) {
                self.sink.write(piece)?;
            }
        }
        Ok(self.sink)
    }
}

#[cfg(test)]
mod tests;
