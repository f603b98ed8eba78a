//! Certificates of devices in AWS IoT.

use std::fmt;

use aws_sdk_iot::types::CertificateStatus;

use super::connection::Platform;
use crate::{
    arn::CertificateId,
    failure::{CallError, if_found},
    limits::Api,
};

/// How many certificates a page has: the most that AWS gives.
const PAGE: i32 = 250;

/// What AWS IoT lets a certificate do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It may connect.
    Active,
    /// Somebody has switched it off.
    Inactive,
    /// Somebody has ended it.
    Revoked,
    /// It has connected for the first time, and waits (just-in-time registration).
    PendingActivation,
    /// Anything else: on its way to another account.
    Other,
}

impl Status {
    fn new(status: Option<&CertificateStatus>) -> Status {
        match status {
            Some(CertificateStatus::Active) => Status::Active,
            Some(CertificateStatus::Inactive) => Status::Inactive,
            Some(CertificateStatus::Revoked) => Status::Revoked,
            Some(CertificateStatus::PendingActivation) => Status::PendingActivation,
            _ => Status::Other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Active => "ACTIVE",
            Status::Inactive => "INACTIVE",
            Status::Revoked => "REVOKED",
            Status::PendingActivation => "PENDING_ACTIVATION",
            Status::Other => "in transfer",
        })
    }
}

/// A certificate as AWS IoT describes it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Its ARN.
    pub arn: String,
    /// What it may do.
    pub status: Status,
    /// The registered CA that issued it; none if it was registered without one.
    pub ca: Option<CertificateId>,
    /// The certificate.
    pub pem: String,
}

/// A certificate in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Which.
    pub id: CertificateId,
    /// What it may do.
    pub status: Status,
    /// When AWS IoT saw it first: milliseconds of Unix time.
    pub created: i64,
}

/// A part of a list, the newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its certificates.
    pub certificates: Vec<Listed>,
    /// Where the next one begins; none if this is the last.
    pub next: Option<String>,
}

impl Platform {
    /// Registers an active certificate of a registered CA; gives its ARN.
    ///
    /// # Errors
    /// The call failed; [`crate::failure::Kind::Exists`] if it is there already, in whatever status.
    pub async fn register_certificate(&self, pem: &str, ca_pem: &str) -> Result<String, CallError> {
        let request = self.iot.register_certificate().certificate_pem(pem).ca_certificate_pem(ca_pem);
        let request = request.status(CertificateStatus::Active);
        let answer = self.call(Api::RegisterCertificate, || request.clone().send()).await?;
        answer.certificate_arn.ok_or_else(|| CallError::without(Api::RegisterCertificate, "certificateArn"))
    }

    /// Registers an active certificate whose CA is not registered in this account; gives its ARN.
    ///
    /// # Errors
    /// Those of [`Platform::register_certificate`].
    pub async fn register_certificate_without_ca(&self, pem: &str) -> Result<String, CallError> {
        let api = Api::RegisterCertificateWithoutCA;
        let request = self.iot.register_certificate_without_ca().certificate_pem(pem);
        let request = request.status(CertificateStatus::Active);
        let answer = self.call(api, || request.clone().send()).await?;
        answer.certificate_arn.ok_or_else(|| CallError::without(api, "certificateArn"))
    }

    /// Describes a certificate; none if AWS IoT does not have it.
    ///
    /// # Errors
    /// The call failed.
    pub async fn describe_certificate(&self, id: &CertificateId) -> Result<Option<Certificate>, CallError> {
        let request = self.iot.describe_certificate().certificate_id(id.to_string());
        let answer = if_found(self.call(Api::DescribeCertificate, || request.clone().send()).await)?;
        let Some(answer) = answer else { return Ok(None) };
        let incomplete = |field| CallError::without(Api::DescribeCertificate, field);
        let described = answer.certificate_description.ok_or_else(|| incomplete("certificateDescription"))?;
        Ok(Some(Certificate {
            status: Status::new(described.status()),
            ca: described.ca_certificate_id().and_then(|id| id.parse().ok()),
            arn: described.certificate_arn.ok_or_else(|| incomplete("certificateArn"))?,
            pem: described.certificate_pem.ok_or_else(|| incomplete("certificatePem"))?,
        }))
    }

    /// Lets a certificate connect.
    ///
    /// # Errors
    /// The call failed.
    pub async fn activate_certificate(&self, id: &CertificateId) -> Result<(), CallError> {
        self.set_status(id, CertificateStatus::Active).await
    }

    /// Ends a certificate for ever.
    ///
    /// # Errors
    /// The call failed.
    pub async fn revoke_certificate(&self, id: &CertificateId) -> Result<(), CallError> {
        self.set_status(id, CertificateStatus::Revoked).await
    }

    async fn set_status(&self, id: &CertificateId, status: CertificateStatus) -> Result<(), CallError> {
        let request = self.iot.update_certificate().certificate_id(id.to_string()).new_status(status);
        self.call(Api::UpdateCertificate, || request.clone().send()).await.map(drop)
    }

    /// A page of the certificates of a registered CA, or of all if none is named; the newest first.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list_certificates(&self, ca: Option<&CertificateId>, from: Option<String>) -> Result<Page, CallError> {
        let (certificates, next) = match ca {
            Some(ca) => {
                let request = self.iot.list_certificates_by_ca().ca_certificate_id(ca.to_string());
                let request = request.page_size(PAGE).set_marker(from);
                let answer = self.call(Api::ListCertificatesByCA, || request.clone().send()).await?;
                (answer.certificates, answer.next_marker)
            }
            None => {
                let request = self.iot.list_certificates().page_size(PAGE).set_marker(from);
                let answer = self.call(Api::ListCertificates, || request.clone().send()).await?;
                (answer.certificates, answer.next_marker)
            }
        };
        let certificates = certificates.unwrap_or_default().into_iter().filter_map(|certificate| {
            let id = certificate.certificate_id()?.parse().ok()?;
            let created = certificate.creation_date().and_then(|date| date.to_millis().ok()).unwrap_or(i64::MAX);
            Some(Listed { id, status: Status::new(certificate.status()), created })
        });
        Ok(Page { certificates: certificates.collect(), next: next.filter(|next| !next.is_empty()) })
    }
}
