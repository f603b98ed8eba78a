//! `thingpress`: each line is the base64 of a certificate's PEM. Its importer is AWS' Thingpress, with its `generated`
//! provider: the thing's name is the certificate's CN as it stands.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    super::certificate::{Certificate, UnfitReason},
    aws_bulk::check_thing_name,
    lines::Lines,
};
use crate::{pem::certificate_pem, x509};

pub(in crate::export) fn fitness(certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
    let parsed = x509::Certificate::from_der(certificate.der).map_err(|error| format!("its certificate: {error}"))?;
    match parsed.subject.values(const_oid::db::rfc4519::CN).as_slice() {
        [name] => Ok(check_thing_name(name).map_err(|why| format!("its CN {why}"))?),
        names => Err(format!("its subject has {} CNs; Thingpress makes the thing's name of one", names.len()).into()),
    }
}

pub(in crate::export) struct Thingpress;

impl Lines for Thingpress {
    fn extension(&self) -> &'static str {
        "txt"
    }

    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        BASE64_STANDARD.encode_string(certificate_pem(certificate.der), out);
        out.push('\n');
        Ok(())
    }
}
