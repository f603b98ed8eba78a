//! Batches of records in the shapes that platforms import.
//!
//! A batch comes as a stream and is written as it comes, to temporary files beside their destination; only when all
//! of it was written and is on stable storage do the files get their names. A batch is there whole or not at all.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, transport::Channel};

use crate::{
    client::Failure,
    durable,
    id::OrderId,
    proto::{
        CreateExportRequest, Export, GetExportRequest, GetIssuerRequest, ListExportsRequest, Record,
        admin_client::AdminClient, issuance_client::IssuanceClient,
    },
    quote::quoted,
};

mod aws_bulk;
mod jsonl;

/// How many unfit devices an error names.
const EXAMPLES: usize = 5;

/// The shape of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<export>.jsonl`: a JSON object for each certificate, with everything that the ledger tells about it.
    Jsonl,
    /// AWS IoT bulk registration: `<export>.aws-bulk.jsonl`, the parameters, and `<export>.provisioning-template.json`.
    AwsBulk {
        /// The name of the AWS IoT policy that devices get.
        policy: String,
    },
}

/// A batch that was written.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many certificates it has.
    pub certificates: u64,
    /// Its files: the one with the certificates first.
    pub files: Vec<WrittenFile>,
}

/// A file of a batch.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

/// Why there are no files. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The daemon refused or went away.
    #[error(transparent)]
    Daemon(#[from] Failure),
    /// A file could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The file is there already.
    #[error("{} exists; remove it, or choose another folder with --out", .0.display())]
    Exists(PathBuf),
    /// The daemon has created the export, and its files could not be written.
    #[error("the export {id} is created, but its files are not: {cause}")]
    Created {
        /// The export's id.
        id: String,
        /// Why not.
        cause: Box<ExportError>,
    },
    /// The platform would refuse some devices.
    #[error("{0}")]
    Unfit(Unfit),
    /// The order's id or the policy's name cannot be right, or the daemon's answers do not fit each other.
    #[error("{0}")]
    Invalid(String),
}

/// The devices that a platform would refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// The first few, each with why.
    pub examples: Vec<String>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the platform would refuse {} of {} devices, so nothing was written:", self.count, self.of)?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        if self.count > self.examples.len() as u64 {
            write!(f, "\n  …")?;
        }
        Ok(())
    }
}

/// Lets the daemon create the next batch of an order, and writes it to files in `out`, which is created if it does not
/// exist. None if there is nothing new to export.
///
/// # Errors
/// [`ExportError`]; then no file was written. [`ExportError::Created`] if the batch is cut all the same.
pub async fn create(
    channel: Channel,
    order: &str,
    format: &Format,
    out: &Path,
) -> Result<Option<(Export, Batch)>, ExportError> {
    check_order(order)?;
    // What can be wrong here had better be so before the batch is cut.
    format.check()?;
    make_folder(out)?;
    let mut admin = AdminClient::new(channel.clone());
    let export = match admin.create_export(CreateExportRequest { order: order.to_owned() }).await.map_err(Failure::from)
    {
        Ok(export) => export.into_inner(),
        Err(failure) if failure.reason.as_deref() == Some("NOTHING_TO_EXPORT") => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    match get(channel, &export, format, out).await {
        Ok(batch) => Ok(Some((export, batch))),
        Err(cause) => Err(ExportError::Created { id: export.id, cause: Box::new(cause) }),
    }
}

/// The exports of an order, the oldest first.
///
/// # Errors
/// [`ExportError::Daemon`] or [`ExportError::Invalid`].
pub async fn list(channel: Channel, order: &str) -> Result<Vec<Export>, ExportError> {
    check_order(order)?;
    let request = ListExportsRequest { order: order.to_owned() };
    Ok(AdminClient::new(channel).list_exports(request).await.map_err(Failure::from)?.into_inner().exports)
}

/// The exports of an order that nobody has acknowledged and whose files are not all in `out`: they may be elsewhere, or
/// they were lost between the batch and its files.
///
/// # Errors
/// As [`list`].
pub async fn without_files(
    channel: Channel,
    order: &str,
    format: &Format,
    out: &Path,
) -> Result<Vec<Export>, ExportError> {
    let mut exports = list(channel, order).await?;
    let is_there = |name: String| out.join(name).symlink_metadata().is_ok();
    exports.retain(|export| export.acknowledged_at.is_none() && !format.names(&export.id).into_iter().all(is_there));
    Ok(exports)
}

/// Writes an export to files in `out`, which is created if it does not exist: the same as ever before.
///
/// # Errors
/// [`ExportError`]; then no file was written.
pub async fn get(channel: Channel, export: &Export, format: &Format, out: &Path) -> Result<Batch, ExportError> {
    let mut admin = AdminClient::new(channel.clone());
    let records =
        admin.get_export(GetExportRequest { id: export.id.clone() }).await.map_err(Failure::from)?.into_inner();
    let issuers = match format {
        Format::Jsonl => HashMap::new(),
        Format::AwsBulk { .. } => {
            let known = IssuanceClient::new(channel).get_issuer(GetIssuerRequest {}).await.map_err(Failure::from)?;
            let issuers = known.into_inner().issuers.into_iter();
            issuers.filter_map(|issuer| Some((issuer.name, issuer.chain.into_iter().next()?))).collect()
        }
    };
    write(records, &issuers, export, format, out).await
}

fn check_order(order: &str) -> Result<(), ExportError> {
    if OrderId::check(order).is_ok() {
        return Ok(());
    }
    Err(ExportError::Invalid(format!("{} cannot be the id of an order", quoted(order))))
}

fn make_folder(out: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(out).map_err(|cause| ExportError::File { path: out.to_owned(), cause })
}

impl Format {
    fn check(&self) -> Result<(), ExportError> {
        match self {
            Format::Jsonl => Ok(()),
            Format::AwsBulk { policy } => aws_bulk::template(policy).map(drop),
        }
    }

    /// The names of an export's files, the one with the certificates first. A colon, which an id may have, is none of
    /// the characters of AWS' object keys and of Windows' file names.
    fn names(&self, id: &str) -> Vec<String> {
        let id = id.replace(':', "_");
        match self {
            Format::Jsonl => vec![format!("{id}.jsonl")],
            Format::AwsBulk { .. } => {
                vec![format!("{id}.aws-bulk.jsonl"), format!("{id}.provisioning-template.json")]
            }
        }
    }
}

/// `issuers` has each issuing CA's DER certificate by its name.
async fn write(
    mut records: impl Stream<Item = Result<Record, Status>> + Unpin,
    issuers: &HashMap<String, Bytes>,
    export: &Export,
    format: &Format,
    out: &Path,
) -> Result<Batch, ExportError> {
    make_folder(out)?;
    let id = &export.id;
    let mut files =
        format.names(id).into_iter().map(|name| Staged::new(out.join(name))).collect::<Result<Vec<_>, _>>()?;
    if let (Format::AwsBulk { policy }, Some(template)) = (format, files.get_mut(1)) {
        template.append(aws_bulk::template(policy)?.as_bytes())?;
    }
    let Some(lines) = files.first_mut() else { return Err(ExportError::Invalid("the format has no files".into())) };

    let mut unfit = Unfit::default();
    while let Some(record) = records.next().await {
        let record = record.map_err(Failure::from)?;
        unfit.of += 1;
        let line = match format {
            Format::Jsonl => Ok(jsonl::line(&record)),
            Format::AwsBulk { .. } => {
                let ca = issuers.get(&record.issuer).ok_or_else(|| {
                    let message = format!(
                        "{} was issued by \"{}\", which the daemon does not list any more",
                        record.device_id, record.issuer
                    );
                    ExportError::Invalid(message)
                })?;
                aws_bulk::line(&record, ca)
            }
        };
        match line {
            // Once a device does not fit, the rest is read only to say how many do not.
            Ok(line) if unfit.count == 0 => lines.append(line.as_bytes())?,
            Ok(_) => {}
            Err(why) => {
                unfit.count += 1;
                if unfit.examples.len() < EXAMPLES {
                    unfit.examples.push(format!("{}: {why}", record.device_id));
                }
            }
        }
    }
    if unfit.of != export.certificates {
        let (seen, counted) = (unfit.of, export.certificates);
        let message = format!("the daemon sent {seen} certificates of the export {id}, which has {counted}");
        return Err(ExportError::Invalid(message));
    }
    if unfit.count > 0 {
        return Err(ExportError::Unfit(unfit));
    }
    let files = publish(files.into_iter(), out)?;
    Ok(Batch { certificates: unfit.of, files })
}

/// A file that has not got its name yet; dropped before it has, it is gone.
struct Staged {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    size: u64,
    sha256: digest::Context,
}

impl Staged {
    fn new(path: PathBuf) -> Result<Self, ExportError> {
        if path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists(path));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".export-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(|cause| ExportError::File { path: folder.to_owned(), cause })?;
        Ok(Staged { path, file: BufWriter::new(file), size: 0, sha256: digest::Context::new(&digest::SHA256) })
    }

    fn append(&mut self, content: &[u8]) -> Result<(), ExportError> {
        self.size += content.len() as u64;
        self.sha256.update(content);
        self.file.write_all(content).map_err(|cause| ExportError::File { path: self.path.clone(), cause })
    }

    fn publish(self) -> Result<WrittenFile, ExportError> {
        let failed = |cause| ExportError::File { path: self.path.clone(), cause };
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        // Fails if somebody else made the file meanwhile.
        file.persist_noclobber(&self.path).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists(self.path.clone()),
            _ => failed(error.error),
        })?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.finish().as_ref());
        Ok(WrittenFile { path: self.path, size: self.size, sha256 })
    }
}

fn publish(staged: impl Iterator<Item = Staged>, folder: &Path) -> Result<Vec<WrittenFile>, ExportError> {
    let mut written: Vec<WrittenFile> = Vec::new();
    for file in staged {
        match file.publish() {
            Ok(file) => written.push(file),
            Err(error) => {
                // These were made above and by nobody else.
                for file in written {
                    let _ = fs::remove_file(file.path);
                }
                return Err(error);
            }
        }
    }
    durable::sync_folder(folder).map_err(|cause| ExportError::File { path: folder.to_owned(), cause })?;
    Ok(written)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::proto::RecordState;

    /// A record whose certificate is short enough to be read here.
    pub(super) fn record(device_id: &str) -> Record {
        Record {
            serial_number: vec![0x0a; 20].into(),
            state: RecordState::Issued.into(),
            device_id: device_id.into(),
            order: "order-1".into(),
            profile: "device".into(),
            issuer: "ca".into(),
            station: "line1/tester3".into(),
            key_sha256: vec![1; 32].into(),
            reserved_at: None,
            issued_at: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5 }),
            certificate: vec![0x30, 0x00].into(),
            certificate_id: hex::encode(sha256(&[0x30, 0x00])),
            ..Record::default()
        }
    }

    /// An export that counts so many certificates.
    fn counting(certificates: usize) -> Export {
        let certificates = certificates as u64;
        Export { id: "order-1.0001".into(), order: "order-1".into(), number: 1, certificates, ..Export::default() }
    }

    async fn export(devices: &[&str], format: &Format, out: &Path) -> Result<Batch, ExportError> {
        let records = tokio_stream::iter(devices.iter().map(|device| Ok(record(device))).collect::<Vec<_>>());
        let issuers = HashMap::from([("ca".to_owned(), Bytes::from_static(&[0x30, 0x00]))]);
        write(records, &issuers, &counting(devices.len()), format, out).await
    }

    fn aws() -> Format {
        Format::AwsBulk { policy: "device".into() }
    }

    #[tokio::test]
    async fn a_batch_is_what_its_summary_says() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let batch = export(&["dev-1", "dev-2"], &aws(), folder.path()).await?;
        assert_eq!((batch.certificates, batch.files.len()), (2, 2));
        for file in &batch.files {
            let content = fs::read(&file.path)?;
            assert_eq!((file.size, file.sha256), (content.len() as u64, sha256(&content)));
        }
        assert_eq!(fs::read_to_string(&batch.files[0].path)?.lines().count(), 2);
        assert_eq!(fs::read_dir(folder.path())?.count(), 2);
        Ok(())
    }

    #[test]
    fn files_have_names_that_every_platform_takes() {
        assert_eq!(Format::Jsonl.names("lot:7.0001"), ["lot_7.0001.jsonl"]);
        for name in aws().names("a:b-c_D.0001") {
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!_.*'()-/".contains(&byte)), "{name}");
        }
    }

    #[tokio::test]
    async fn an_existing_file_is_never_replaced() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let template = folder.path().join("order-1.0001.provisioning-template.json");
        fs::write(&template, "mine")?;
        let result = export(&["dev-1"], &aws(), folder.path()).await;
        assert!(matches!(result, Err(ExportError::Exists(path)) if path == template));
        assert_eq!(fs::read(&template)?, b"mine");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn one_device_that_the_platform_refuses_keeps_all_from_being_written()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let result = export(&["dev-1", "dev.2", "dev-3", "dev.4"], &aws(), folder.path()).await;
        let Err(ExportError::Unfit(unfit)) = result else { return Err(format!("{result:?}").into()) };
        assert_eq!((unfit.count, unfit.of), (2, 4));
        assert!(unfit.examples[0].starts_with("dev.2: "), "{unfit}");
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        // The other shape takes them.
        assert_eq!(export(&["dev.2"], &Format::Jsonl, folder.path()).await?.certificates, 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_stream_that_breaks_or_is_too_short_leaves_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let records = tokio_stream::iter(vec![Ok(record("dev-1")), Err(Status::unavailable("gone"))]);
        let result = write(records, &HashMap::new(), &counting(2), &Format::Jsonl, folder.path()).await;
        assert!(matches!(result, Err(ExportError::Daemon(_))));
        let records = tokio_stream::iter(vec![Ok(record("dev-1"))]);
        let result = write(records, &HashMap::new(), &counting(2), &Format::Jsonl, folder.path()).await;
        assert!(result.is_err_and(|error| error.to_string().contains("sent 1 certificates")));
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
