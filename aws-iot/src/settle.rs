//! What is done with one certificate in AWS IoT, in an order that leaves no hole wherever it is cut off: a device may
//! connect, or do anything, only when all else is in place, and what is ended is ended first. Every step may be taken twice.

use crate::{
    arn::CertificateId,
    failure::CallError,
    list::ListError,
    lists::{Lists, Standing},
    platform::{Platform, Status},
    template::Device,
};

/// Why a certificate could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// AWS refused a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An allow-list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
}

/// What was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Older certificates of the thing that a bundle says are withdrawn: revoked and detached.
    pub ended: Vec<CertificateId>,
    /// Other certificates of the thing, of which no bundle says so: left alone.
    pub others: Vec<CertificateId>,
}

/// Makes a thing and gives the certificate to it, with its policy. Whether it may connect is not changed.
///
/// # Errors
/// The first call that failed.
pub async fn provide(
    platform: &Platform,
    lists: &Lists,
    id: &CertificateId,
    arn: &str,
    device: &Device,
) -> Result<Settled, SettleError> {
    platform.put_thing(&device.thing).await?;
    let mut settled = Settled::default();
    for older in platform.certificates_of_thing(&device.thing.name).await? {
        if older == *id {
            continue;
        }
        match lists.standing(&older)? {
            Standing::Withdrawn(..) => {
                end(platform, &older).await?;
                settled.ended.push(older);
            }
            Standing::Known(..) | Standing::Unknown => settled.others.push(older),
        }
    }
    platform.attach_to_thing(arn, &device.thing.name).await?;
    platform.attach_policy(arn, &device.policy).await?;
    Ok(settled)
}

/// Ends a certificate: revokes it, and detaches it from its things. Nothing is deleted. Whether AWS IoT has it at all.
///
/// # Errors
/// The first call that failed.
pub async fn end(platform: &Platform, id: &CertificateId) -> Result<bool, CallError> {
    let Some(certificate) = platform.describe_certificate(id).await? else { return Ok(false) };
    if certificate.status != Status::Revoked {
        platform.revoke_certificate(id).await?;
    }
    platform.detach_from_things(&certificate.arn).await?;
    Ok(true)
}
