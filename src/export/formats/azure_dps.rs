//! `azure-dps`: each file is the body of a bulk operation of the Azure Device Provisioning Service, of ten individual
//! enrolments at most. Its importers are `POST /enrollments` and Microsoft's SDKs. `enrollment-group.json` lets a whole
//! issuing CA in instead, for fleets that need no list of devices.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    super::{
        certificate::{Certificate, Issuer, UnfitReason},
        keys::Keys,
    },
    lines::Lines,
};
use crate::{quote::quoted, x509};

/// The longest registration id and group id.
const LONGEST_ID: usize = 128;

/// `[destinations.NAME]` of this format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AzureDps {
    /// The enrolment group's id.
    group: String,
}

impl AzureDps {
    /// What a bulk operation takes.
    pub(in crate::export) const LARGEST_CHUNK: u32 = 10;

    /// Reads the format's keys.
    pub(in crate::export) fn read(keys: &mut Keys<'_>) -> AzureDps {
        let group = keys.string("group").unwrap_or_else(|| "birthmark".to_owned());
        if let Err(why) = check_id(&group, "enrolment group", LONGEST_ID - "-000".len()) {
            keys.wrong("group", why);
        }
        AzureDps { group }
    }

    /// What the service would refuse.
    pub(in crate::export) fn fitness(&self, certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
        registration_id(certificate).map(drop)
    }

    /// Writes enrolments and groups.
    pub(in crate::export) fn writer(&self) -> AzureDpsFiles {
        AzureDpsFiles { group: self.group.clone() }
    }
}

/// The certificate's CN: the service compares them when the device connects.
fn registration_id(certificate: &Certificate<'_>) -> Result<String, UnfitReason> {
    let parsed = x509::Certificate::from_der(certificate.der).map_err(|error| format!("its certificate: {error}"))?;
    match parsed.subject.values(const_oid::db::rfc4519::CN).as_slice() {
        [id] => Ok(check_id(id, "registration", LONGEST_ID).map(|()| id.clone())?),
        ids => Err(format!("its subject has {} CNs; the registration id is the only one", ids.len()).into()),
    }
}

fn check_id(id: &str, what: &str, longest: usize) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:".contains(&byte);
    let ends_well = id.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '-');
    if (1..=longest).contains(&id.len()) && id.bytes().all(fits) && ends_well {
        return Ok(());
    }
    Err(format!(
        "{} cannot be the id of an Azure DPS {what}: 1 to {longest} characters of a-z 0-9 - . _ : that end with a letter, \
         digit or -",
        quoted(id)
    ))
}

pub(in crate::export) struct AzureDpsFiles {
    group: String,
}

impl Lines for AzureDpsFiles {
    fn extension(&self) -> &'static str {
        "json"
    }

    fn begin(&self) -> &str {
        "{\"mode\":\"create\",\"enrollments\":[\n"
    }

    fn between(&self) -> &'static str {
        ",\n"
    }

    fn end(&self) -> &'static str {
        "\n]}\n"
    }

    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        let enrolment = json!({
            "registrationId": registration_id(certificate)?,
            "deviceId": certificate.device_id,
            "attestation": {
                "type": "x509",
                "x509": {
                    "clientCertificates": { "primary": { "certificate": BASE64_STANDARD.encode(certificate.der) } },
                },
            },
            "provisioningStatus": "enabled",
        });
        out.push_str(&enrolment.to_string());
        Ok(())
    }

    /// One group for each issuing CA; nearly always there is one.
    fn beside(&self, issuers: &[Issuer]) -> Vec<(String, String)> {
        let group = |(at, issuer): (usize, &Issuer)| {
            let ending = if at == 0 { String::new() } else { format!("-{:03}", at + 1) };
            let group = json!({
                "enrollmentGroupId": format!("{}{ending}", self.group),
                "attestation": {
                    "type": "x509",
                    "x509": {
                        "signingCertificates": { "primary": { "certificate": BASE64_STANDARD.encode(issuer.der()) } },
                    },
                },
                "provisioningStatus": "enabled",
            });
            (format!("enrollment-group{ending}.json"), format!("{group:#}\n"))
        };
        issuers.iter().enumerate().map(group).collect()
    }
}
