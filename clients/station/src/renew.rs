//! Renewing the station's own certificate over the one that it has.

use std::{fs, io, path::Path, time::SystemTime};

use birthmark_base::{
    pem::{self, ReadError},
    x509::Certificate,
};
use birthmark_client::{
    ClientError, Daemon, Failure,
    proto::{self, RenewRequest, SupersedeRequest, stations_client::StationsClient},
};
use jiff::Timestamp;
use tonic::Code;
use zeroize::Zeroizing;

use crate::identity::{Files, FilesError, NewKey};

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The identity cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The certificate cannot be read.
    #[error("{path}: {cause}")]
    Certificate {
        /// The file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ClientError),
    /// The daemon refuses.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The old key is still taken.
    #[error(
        "the new key and its certificate are in use, but the certificate of the old key could not be ended: {0}; it is taken \
         until it expires, or until \"station renew --new-key\" comes to its end"
    )]
    NotEnded(Box<RenewError>),
    /// The files cannot be made.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// The validity of an identity's certificate.
fn validity(folder: &Path) -> Result<(Timestamp, Timestamp), RenewError> {
    let path = folder.join("cert.pem");
    let wrong = |cause: String| RenewError::Certificate { path: path.display().to_string(), cause };
    let certificates = pem::read_certificates(&path).map_err(|error: ReadError| wrong(error.to_string()))?;
    let first = certificates.first().ok_or_else(|| wrong("there is no certificate in it".to_owned()))?;
    let certificate = Certificate::from_der(first).map_err(|error| wrong(error.to_string()))?;
    let moment = |time| Timestamp::try_from(SystemTime::from(time)).unwrap_or(Timestamp::MAX);
    Ok((moment(certificate.not_before()), moment(certificate.not_after())))
}

/// Whether a third of the life of an identity's certificate is over, and it is still valid.
///
/// # Errors
/// If it cannot be read.
pub fn is_due(folder: &Path, now: Timestamp) -> Result<bool, RenewError> {
    let (not_before, not_after) = validity(folder)?;
    let (age, life) = (now.duration_since(not_before), not_after.duration_since(not_before));
    Ok(age.as_secs() >= life.as_secs() / 3 && now < not_after)
}

/// Has the daemon certify the identity's key once more, and puts the new certificate in the place of the old one. Gives
/// until when it is valid.
///
/// # Errors
/// If anything of that fails; the old certificate stays then.
pub async fn renew(daemon: &Daemon, folder: &Path) -> Result<String, RenewError> {
    let path = folder.join("key.pem");
    let key = fs::read_to_string(&path).map(Zeroizing::new);
    let key = key.map_err(|source| RenewError::Read { path: path.display().to_string(), source })?;
    let request = NewKey::existing(&key, "renewal")?;
    let mut stations = StationsClient::new(daemon.connect().await?);
    let asked = RenewRequest { csr: request.csr().as_bytes().to_vec().into() };
    let reply = stations.renew(asked).await.map_err(Failure::from)?.into_inner();
    Files::renew(folder, &reply.certificate)?;
    Ok(reply.not_after.as_ref().and_then(proto::rfc3339).unwrap_or_default())
}

/// Has the daemon certify a new key in the place of the identity's, puts both in the place of the old ones, and then has it end
/// the certificates of the old key. Gives until when the new certificate is valid.
///
/// # Errors
/// If anything of that fails: before the new certificate is kept safely the old one stays; when only the old one could not be
/// ended ([`RenewError::NotEnded`]), the new one is in use.
pub async fn renew_key(daemon: &Daemon, folder: &Path) -> Result<String, RenewError> {
    let request = NewKey::generate("renewal")?;
    let channel = daemon.connect().await?;
    request.stage(folder)?;
    let asked = RenewRequest { csr: request.csr().as_bytes().to_vec().into() };
    let reply = StationsClient::new(channel).renew(asked).await.map_err(Failure::from)?.into_inner();
    Files::replace(folder, &reply.certificate)?;
    let ended = async {
        let mut stations = StationsClient::new(daemon.connect().await?);
        stations.supersede(SupersedeRequest {}).await.map_err(Failure::from)?;
        Ok::<_, RenewError>(())
    };
    ended.await.map_err(|error| RenewError::NotEnded(Box::new(error)))?;
    Ok(reply.not_after.as_ref().and_then(proto::rfc3339).unwrap_or_default())
}

/// Renews if it is due. What is in the way is no reason not to work with what there is.
///
/// # Errors
/// As [`renew`].
pub async fn renew_if_due(daemon: &Daemon) -> Result<Option<String>, RenewError> {
    let Some(folder) = daemon.identity() else { return Ok(None) };
    if !is_due(folder, Timestamp::now())? {
        return Ok(None);
    }
    match renew(daemon, folder).await {
        // A daemon that does not certify, or of an earlier version.
        Err(RenewError::Refused(failure))
            if failure.code == Code::Unimplemented || failure.reason.as_deref() == Some("STATION_CA_UNAVAILABLE") =>
        {
            Ok(None)
        }
        renewed => renewed.map(Some),
    }
}
