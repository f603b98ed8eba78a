//! What a certificate is to the ledger.

use std::sync::Arc;

use const_oid::db::{rfc4519::CN, rfc5280::ID_CE_SUBJECT_ALT_NAME};

use super::found::{Charge, Found};
use crate::{
    hash::sha256,
    id::DeviceId,
    ledger::{Holder, RecordedIssuer, Recovery},
    path,
    serial::SerialNumber,
    x509::Certificate,
};

/// Why a certificate is none that the ledger can have lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// It cannot be read.
    #[error("it is not a certificate: {0}")]
    Malformed(String),
    /// Its serial number is not one of this ledger's.
    #[error("its serial number, {0}, is none that this ledger gives")]
    SerialNumber(String),
    /// No issuer of the ledger signed it.
    #[error("it is not signed by an issuer that the journal has recorded")]
    Issuer,
    /// The name of its file, or its line, names another device than it does.
    #[error("it does not name the device \"{0}\", which its file does")]
    Device(String),
    /// Nothing tells its device.
    #[error("nothing tells its device; where the CN is the device's id, use --device-in-subject")]
    Unnamed,
    /// Nothing tells its order.
    #[error("nothing tells to which order it was charged; give --order, or --profile if to none")]
    Charge,
}

/// Tells what certificates are.
#[derive(Debug)]
pub struct Reconciler {
    ledger: [u8; 16],
    /// The newest first.
    issuers: Vec<(Arc<RecordedIssuer>, Certificate)>,
    /// Whether the CN of a certificate is the id of its device.
    device_in_subject: bool,
}

impl Reconciler {
    /// For the ledger with this id and the issuers that it has recorded. `device_in_subject`: where no file tells, the CN of a
    /// certificate is the id of its device.
    pub fn new(ledger: [u8; 16], recorded: Vec<Arc<RecordedIssuer>>, device_in_subject: bool) -> Reconciler {
        let read = |issuer: Arc<RecordedIssuer>| {
            let certificate = Certificate::from_der(issuer.chain.first()?).ok()?;
            Some((issuer, certificate))
        };
        Reconciler { ledger, issuers: recorded.into_iter().rev().filter_map(read).collect(), device_in_subject }
    }

    /// Its serial number, if it is one of the ledger's.
    ///
    /// # Errors
    /// It is none.
    pub fn serial_number(&self, found: &Found) -> Result<SerialNumber, NotOurs> {
        self.serial_of(&parse(found)?)
    }

    fn serial_of(&self, certificate: &Certificate) -> Result<SerialNumber, NotOurs> {
        let serial = SerialNumber::try_from(certificate.serial_number.as_slice()).ok();
        let other = || NotOurs::SerialNumber(hex::encode(&certificate.serial_number));
        serial.filter(|serial| serial.is_of(&self.ledger)).ok_or_else(other)
    }

    /// Whose it is: what its file says counts only if the certificate bears it out.
    fn device(&self, found: &Found, certificate: &Certificate) -> Result<DeviceId, NotOurs> {
        let told = found.device.as_ref().and_then(|told| told.parse::<DeviceId>().ok());
        if let Some(device) = told.filter(|device| names(certificate, device.as_str())) {
            return Ok(device);
        }
        let of_subject = match certificate.subject().values(CN).as_slice() {
            [name] if self.device_in_subject => name.parse().ok(),
            _ => None,
        };
        of_subject.ok_or_else(|| match &found.device {
            Some(told) => NotOurs::Device(told.clone()),
            None => NotOurs::Unnamed,
        })
    }

    /// What it is; `usual` is what certificates are charged to whose files do not tell.
    ///
    /// # Errors
    /// Why the ledger cannot have lost it.
    pub fn identify(&self, found: &Found, usual: Option<&Charge>) -> Result<Recovery, NotOurs> {
        let certificate = parse(found)?;
        let serial_number = self.serial_of(&certificate)?;
        let signed =
            |(_, issuer): &&(Arc<RecordedIssuer>, Certificate)| path::check_issued_by(&certificate, issuer).is_ok();
        let (issuer, _) = self.issuers.iter().find(signed).ok_or(NotOurs::Issuer)?;
        let device = self.device(found, &certificate)?;
        let Charge { order, profile } = found.charge.as_ref().or(usual).ok_or(NotOurs::Charge)?.clone();
        let holder = Holder {
            device: device.as_str().to_owned(),
            key_hash: sha256(&certificate.spki),
            order,
            profile,
            issuer: issuer.name.clone(),
            issuer_id: issuer.id,
        };
        let (certificate, source) = (found.certificate.clone(), found.source.clone());
        Ok(Recovery { serial_number, certificate, holder, replaces: None, source })
    }
}

fn parse(found: &Found) -> Result<Certificate, NotOurs> {
    Certificate::from_der(&found.certificate).map_err(|error| NotOurs::Malformed(error.to_string()))
}

/// Whether the device's id is part of the subject or of a subjectAltName.
fn names(certificate: &Certificate, device: &str) -> bool {
    let holds = |octets: &[u8]| octets.windows(device.len()).any(|window| window == device.as_bytes());
    let alt_name = certificate.extension(ID_CE_SUBJECT_ALT_NAME);
    holds(certificate.subject().as_der()) || alt_name.is_some_and(|extension| holds(&extension.value))
}
