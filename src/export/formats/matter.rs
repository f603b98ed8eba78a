//! `matter`: the Device Attestation Certificate of each device and the Product Attestation Intermediates in DER, by VID and
//! PID. Their importers are the factory tools of chip makers, which take `--dac-cert` and `--pai-cert` files: Espressif's
//! esp-matter-mfg-tool, Nordic's and NXP's generators of factory data.

use std::collections::BTreeSet;

use const_oid::ObjectIdentifier;

use super::super::certificate::{Certificate, Issuer, UnfitReason};
use crate::{quote::quoted, x509};

/// Matter Core Specification, section 6.1.1.
const VENDOR_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.1");
const PRODUCT_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.2");

/// The longest DAC in DER (Matter Core Specification, section 6.2.2).
const LONGEST_DAC: usize = 600;

/// The longest name without its ending, so that every archive has room for it.
const LONGEST_NAME: usize = 90;

pub(in crate::export) fn fitness(certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
    folder(certificate).and_then(|_| name(certificate)).map(drop)
}

/// `VID-PID` of the certificate.
fn folder(certificate: &Certificate<'_>) -> Result<String, UnfitReason> {
    let length = certificate.der.len();
    if length > LONGEST_DAC {
        return Err(format!("its certificate has {length} octets; a Matter DAC has {LONGEST_DAC} at most").into());
    }
    let parsed = x509::Certificate::from_der(certificate.der).map_err(|error| format!("its certificate: {error}"))?;
    let id = |what, oid| match parsed.subject.values(oid).as_slice() {
        [id] if id.len() == 4 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) => Ok(id.clone()),
        [id] => Err(format!("its {what} {} is not 4 upper-case hex digits", quoted(id))),
        ids => Err(format!("its subject has {} {what}s; a Matter DAC has one", ids.len())),
    };
    Ok(format!("{}-{}", id("VID", VENDOR_ID)?, id("PID", PRODUCT_ID)?))
}

fn name<'c>(certificate: &Certificate<'c>) -> Result<&'c str, UnfitReason> {
    let id = certificate.device_id;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=LONGEST_NAME).contains(&id.len()) && id.bytes().all(fits) && !id.starts_with('.') {
        return Ok(id);
    }
    let message = format!(
        "{} cannot be the name of a file here: 1 to {LONGEST_NAME} characters of A-Z a-z 0-9 . _ -",
        quoted(id)
    );
    Err(message.into())
}

/// Names files by device, and remembers which PAI belongs to which product.
#[derive(Default)]
pub(in crate::export) struct MatterFiles {
    pais: BTreeSet<(String, [u8; 32])>,
}

impl MatterFiles {
    /// The file of a certificate.
    ///
    /// # Errors
    /// Why it is no DAC: it should not be in the batch.
    pub(in crate::export) fn name(&mut self, certificate: &Certificate<'_>) -> Result<String, UnfitReason> {
        let (folder, name) = (folder(certificate)?, name(certificate)?);
        let path = format!("{folder}/{name}.der");
        self.pais.insert((folder, *certificate.issuer.sha256()));
        Ok(path)
    }

    /// The PAIs with their files' names.
    pub(in crate::export) fn pais<'i>(&self, issuers: &'i [Issuer]) -> Vec<(String, &'i [u8])> {
        let of = |(folder, sha256): &(String, [u8; 32])| {
            let issuer = issuers.iter().find(|issuer| issuer.sha256() == sha256)?;
            Some((format!("{folder}/pai/{}.der", hex::encode(sha256)), issuer.der()))
        };
        self.pais.iter().filter_map(of).collect()
    }
}
