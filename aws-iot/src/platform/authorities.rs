//! CA certificates that are registered in AWS IoT.

use std::fmt;

use aws_sdk_iot::types::{AutoRegistrationStatus, CaCertificateStatus, CertificateMode, RegistrationConfig};

use super::connection::Platform;
use crate::{
    arn::CertificateId,
    failure::{CallError, if_found},
    limits::Api,
};

/// How a CA is registered: it cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With a proof of possession; one account of a region may have it.
    Default,
    /// Without one; many accounts may have it, and devices must send SNI.
    SniOnly,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Default => "DEFAULT",
            Mode::SniOnly => "SNI_ONLY",
        })
    }
}

/// What AWS IoT makes by itself of a new device of the CA (just-in-time provisioning).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioning {
    /// The template.
    pub template: String,
    /// The role in which AWS IoT does it.
    pub role: String,
}

/// A registered CA.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its certificate's id.
    pub id: CertificateId,
    /// Its ARN.
    pub arn: String,
    /// Whether its devices may connect.
    pub active: bool,
    /// How it is registered.
    pub mode: Mode,
    /// Whether unknown certificates of it are registered when they connect for the first time.
    pub auto_registration: bool,
    /// Whether AWS IoT provisions them as well.
    pub provisioning: Option<Provisioning>,
}

/// What is said when a CA is registered.
#[derive(Clone, Debug)]
pub struct NewAuthority<'a> {
    /// The CA's certificate.
    pub pem: &'a str,
    /// The certificate by which it proves that its key is held; none with [`Mode::SniOnly`].
    pub verification: Option<&'a str>,
    /// Whether unknown certificates of it are registered when they connect for the first time.
    pub auto_registration: bool,
    /// Whether AWS IoT provisions them as well.
    pub provisioning: Option<&'a Provisioning>,
}

fn registration_config(provisioning: &Provisioning) -> RegistrationConfig {
    RegistrationConfig::builder().template_body(&provisioning.template).role_arn(&provisioning.role).build()
}

fn auto_registration(on: bool) -> AutoRegistrationStatus {
    if on { AutoRegistrationStatus::Enable } else { AutoRegistrationStatus::Disable }
}

impl Platform {
    /// The code that a verification certificate for this account must have as its common name.
    ///
    /// # Errors
    /// The call failed.
    pub async fn registration_code(&self) -> Result<String, CallError> {
        let api = Api::GetRegistrationCode;
        let answer = self.call(api, || self.iot.get_registration_code().send()).await?;
        answer.registration_code.ok_or_else(|| CallError::without(api, "registrationCode"))
    }

    /// Describes a registered CA; none if it is not registered in this account and region.
    ///
    /// # Errors
    /// The call failed.
    pub async fn describe_authority(&self, id: &CertificateId) -> Result<Option<Authority>, CallError> {
        let api = Api::DescribeCACertificate;
        let request = self.iot.describe_ca_certificate().certificate_id(id.to_string());
        let Some(answer) = if_found(self.call(api, || request.clone().send()).await)? else { return Ok(None) };
        let provisioning = answer.registration_config.and_then(|config| {
            let template = config.template_body.or(config.template_name).filter(|template| !template.is_empty())?;
            Some(Provisioning { template, role: config.role_arn.unwrap_or_default() })
        });
        let described =
            answer.certificate_description.ok_or_else(|| CallError::without(api, "certificateDescription"))?;
        Ok(Some(Authority {
            id: *id,
            active: described.status() == Some(&CaCertificateStatus::Active),
            mode: match described.certificate_mode() {
                Some(CertificateMode::SniOnly) => Mode::SniOnly,
                _ => Mode::Default,
            },
            auto_registration: described.auto_registration_status() == Some(&AutoRegistrationStatus::Enable),
            provisioning,
            arn: described.certificate_arn.ok_or_else(|| CallError::without(api, "certificateArn"))?,
        }))
    }

    /// The ids of all registered CAs.
    ///
    /// # Errors
    /// A call failed.
    pub async fn list_authorities(&self) -> Result<Vec<CertificateId>, CallError> {
        let mut ids = Vec::new();
        let mut next = None;
        loop {
            let request = self.iot.list_ca_certificates().set_marker(next);
            let answer = self.call(Api::ListCACertificates, || request.clone().send()).await?;
            let listed = answer.certificates.unwrap_or_default();
            ids.extend(listed.iter().filter_map(|ca| ca.certificate_id()?.parse::<CertificateId>().ok()));
            next = answer.next_marker.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(ids);
            }
        }
    }

    /// Registers a CA, active.
    ///
    /// # Errors
    /// The call failed.
    pub async fn register_authority(&self, new: &NewAuthority<'_>) -> Result<(), CallError> {
        let mode = if new.verification.is_some() { CertificateMode::Default } else { CertificateMode::SniOnly };
        let request = self
            .iot
            .register_ca_certificate()
            .ca_certificate(new.pem)
            .set_verification_certificate(new.verification.map(str::to_owned))
            .certificate_mode(mode)
            .set_as_active(true)
            .allow_auto_registration(new.auto_registration)
            .set_registration_config(new.provisioning.map(registration_config));
        self.call(Api::RegisterCACertificate, || request.clone().send()).await.map(drop)
    }

    /// Changes what can be changed of a registered CA, and makes it active.
    ///
    /// # Errors
    /// The call failed.
    pub async fn update_authority(
        &self,
        id: &CertificateId,
        on: bool,
        provisioning: Option<&Provisioning>,
    ) -> Result<(), CallError> {
        let request = self
            .iot
            .update_ca_certificate()
            .certificate_id(id.to_string())
            .new_status(CaCertificateStatus::Active)
            .new_auto_registration_status(auto_registration(on))
            .set_registration_config(provisioning.map(registration_config));
        let request = if on { request } else { request.remove_auto_registration(true) };
        self.call(Api::UpdateCACertificate, || request.clone().send()).await.map(drop)
    }
}
