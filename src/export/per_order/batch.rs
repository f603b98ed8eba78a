//! From the stream of records to files.

use std::{collections::HashMap, fs, path::Path};

use bytes::Bytes;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{
    aws_bulk,
    error::{ExportError, Unfit},
    format::Format,
    jsonl,
    staged::{Staged, WrittenFile, publish},
};
use crate::{
    failure::Failure,
    proto::{Export, Record},
    x509::fits_der,
};

/// The number of unfit devices that an error names.
const EXAMPLES: usize = 5;

/// A batch that was written.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many certificates it has.
    pub certificates: u64,
    /// Its files: the one with the certificates first.
    pub files: Vec<WrittenFile>,
}

/// Creates the folder for the files.
pub(super) fn create_folder(out: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(out).map_err(|cause| ExportError::File { path: out.to_owned(), cause })
}

/// Writes an export's records as they come. `issuers` has each issuing CA's DER certificate by its number in the ledger.
pub(super) async fn write(
    mut records: impl Stream<Item = Result<Record, Status>> + Unpin,
    issuers: &HashMap<u32, Bytes>,
    export: &Export,
    format: &Format,
    out: &Path,
) -> Result<Batch, ExportError> {
    create_folder(out)?;
    let id = &export.id;
    let mut files =
        format.names(id).into_iter().map(|name| Staged::new(out.join(name))).collect::<Result<Vec<_>, _>>()?;
    if let (Format::AwsBulk { policy }, Some(template)) = (format, files.get_mut(1)) {
        template.append(aws_bulk::template(policy)?.as_bytes())?;
    }
    let Some(lines) = files.first_mut() else { return Ok(Batch { certificates: 0, files: Vec::new() }) };

    let mut unfit = Unfit::default();
    while let Some(record) = records.next().await {
        let record = record.map_err(Failure::from)?;
        unfit.of += 1;
        let line = match format {
            Format::Jsonl => Ok(jsonl::line(&record)),
            Format::AwsBulk { .. } => {
                let ca = issuers.get(&record.issuer_id).ok_or_else(|| ExportError::IssuerUnknown {
                    device: record.device_id.clone(),
                    issuer: record.issuer.clone(),
                })?;
                fits_der(&record.certificate, ca).map_err(|cause| ExportError::IssuerMisfit {
                    device: record.device_id.clone(),
                    issuer: record.issuer.clone(),
                    cause: cause.to_string(),
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
        return Err(ExportError::Incomplete { id: id.clone(), sent: unfit.of, counted: export.certificates });
    }
    if unfit.count > 0 {
        return Err(ExportError::Unfit(unfit));
    }
    let files = publish(files.into_iter(), out)?;
    Ok(Batch { certificates: unfit.of, files })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::{super::tests::record, *};
    use crate::hash::sha256;

    /// An export of this number of certificates.
    fn counting(certificates: usize) -> Export {
        let certificates = certificates as u64;
        Export { id: "order-1.0001".into(), order: "order-1".into(), number: 1, certificates, ..Export::default() }
    }

    async fn export(devices: &[&str], format: &Format, out: &Path) -> Result<Batch, ExportError> {
        // One that is its own CA fits itself.
        let certificate: Bytes = rcgen::generate_simple_self_signed(vec![])
            .map(|made| made.cert.der().to_vec().into())
            .map_err(|error| ExportError::OrderId(error.to_string()))?;
        let of = |device: &&str| Record { certificate: certificate.clone(), issuer_id: 7, ..record(device) };
        let records = tokio_stream::iter(devices.iter().map(|device| Ok(of(device))).collect::<Vec<_>>());
        let issuers = HashMap::from([(7, certificate.clone())]);
        write(records, &issuers, &counting(devices.len()), format, out).await
    }

    fn aws() -> Format {
        Format::AwsBulk { policy: "device".into() }
    }

    #[tokio::test]
    async fn batch_files_match_their_summary() -> Result<(), Box<dyn std::error::Error>> {
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

    #[tokio::test]
    async fn existing_export_file_is_never_replaced() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let template = folder.path().join("order-1.0001.provisioning-template.json");
        fs::write(&template, "mine")?;
        let result = export(&["dev-1"], &aws(), folder.path()).await;
        assert!(matches!(result, Err(ExportError::Exists(path)) if path == template));
        assert_eq!(fs::read(&template)?, b"mine");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    /// One device that the platform would refuse keeps all from being written.
    #[tokio::test]
    async fn device_unfit_for_the_platform_fails_the_batch() -> Result<(), Box<dyn std::error::Error>> {
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
    async fn broken_or_short_stream_leaves_no_file() -> Result<(), Box<dyn std::error::Error>> {
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
