//! Looks at the certificates of each CA, the newest first, and settles those that wait.

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::activator::{Activator, locked};
use crate::{
    arn::CertificateId,
    failure::{CallError, Kind},
    lists::{Lists, Standing},
    metrics,
    platform::{Listed, Status},
    settle::{self, SettleError},
    template::Device,
};

/// How much older than the newest one a certificate may be and still be looked at, in milliseconds: AWS's servers need not
/// agree on the time, nor show at once what was registered.
const SLACK: i64 = 5 * 60 * 1000;

/// Of so many unknown certificates one is told; beyond that only the metric counts.
const TOLD: usize = 10_000;

/// What was found of certificates that no bundle names.
#[derive(Debug, Default)]
struct Unknown {
    pending: u64,
    active: u64,
}

/// What became of one certificate.
enum Seen {
    /// Nothing is to be done any more.
    Settled,
    /// No bundle names it.
    Unknown(Status),
    /// It could not be settled, and was first seen then.
    Failed(i64),
}

impl Activator {
    /// Looks at what is new, or at everything.
    ///
    /// # Errors
    /// AWS refused a call for all of them, or an allow-list cannot be read.
    pub(super) async fn sweep(&self, fully: bool) -> Result<(), SettleError> {
        let lists = self.lists();
        let mut unknown = Unknown::default();
        let mut absent = Vec::new();
        for issuer in lists.issuers() {
            match self.sweep_authority(&lists, &issuer.id, fully, &mut unknown).await {
                Err(SettleError::Call(error)) if error.kind == Kind::NotFound => {
                    absent.push(format!("{} ({})", issuer.subject, issuer.id));
                }
                swept => swept?,
            }
        }
        let now = Timestamp::now();
        metrics::swept(now.as_second(), fully);
        if fully {
            metrics::unknown(unknown.pending, unknown.active);
        }
        let mut health = locked(&self.health);
        if health.error.take().is_some() {
            tracing::info!("sweeps succeed again");
        }
        (health.swept, health.absent) = (Some(now), absent);
        health.swept_fully |= fully;
        Ok(())
    }

    async fn sweep_authority(
        &self,
        lists: &Lists,
        authority: &CertificateId,
        fully: bool,
        unknown: &mut Unknown,
    ) -> Result<(), SettleError> {
        let before = locked(&self.watermarks).get(authority).copied().unwrap_or(i64::MIN);
        let oldest = if fully { i64::MIN } else { before.saturating_sub(SLACK) };
        let mut watermark = before;
        let mut failed = i64::MAX;
        let mut from = None;
        loop {
            let page = self.platform.list_certificates(Some(authority), from).await?;
            let reached = page.certificates.iter().any(|listed| listed.created < oldest);
            let news = page.certificates.into_iter().filter(|listed| listed.created >= oldest);
            let mut seen = stream::iter(news)
                .map(|listed| async move { (listed.created, self.look(lists, listed).await) })
                .buffer_unordered(self.options.parallel);
            while let Some((created, seen)) = seen.next().await {
                watermark = watermark.max(if created == i64::MAX { watermark } else { created });
                match seen? {
                    Seen::Settled => {}
                    Seen::Unknown(Status::Active) => unknown.active += 1,
                    Seen::Unknown(_) => unknown.pending += 1,
                    Seen::Failed(created) => failed = failed.min(created),
                }
            }
            from = page.next;
            if reached || from.is_none() {
                break;
            }
        }
        locked(&self.watermarks).insert(*authority, watermark.min(failed));
        Ok(())
    }

    /// Settles a certificate of a list, if there is anything to do.
    async fn look(&self, lists: &Lists, listed: Listed) -> Result<Seen, SettleError> {
        if !matches!(listed.status, Status::Active | Status::PendingActivation) {
            return Ok(Seen::Settled);
        }
        let standing = lists.standing(&listed.id)?;
        if matches!((&standing, listed.status), (Standing::Known(..), Status::Active)) {
            return Ok(Seen::Settled);
        }
        let seen = match standing {
            Standing::Unknown => self.unknown(&listed).await,
            standing => self.settle(lists, &listed.id, standing).await.map(|()| Seen::Settled),
        };
        match seen {
            Err(SettleError::Call(error)) if !error.is_general() => {
                metrics::failed();
                if locked(&self.failing).insert(listed.id) {
                    tracing::error!("the certificate {} is not settled, and is tried again: {error}", listed.id);
                }
                Ok(Seen::Failed(listed.created))
            }
            seen => {
                locked(&self.failing).remove(&listed.id);
                seen
            }
        }
    }

    /// A certificate that no bundle names: it stays as it is until one does, and is told of once.
    async fn unknown(&self, listed: &Listed) -> Result<Seen, SettleError> {
        let (id, status) = (&listed.id, listed.status);
        if self.options.revoke_unknown && status == Status::PendingActivation {
            settle::end(&self.platform, id).await?;
            metrics::revoked("unknown", 1);
            tracing::warn!("revoked the certificate {id}, which no bundle names (--revoke-unknown)");
            return Ok(Seen::Settled);
        }
        let mut alarmed = locked(&self.alarmed);
        if alarmed.len() < TOLD && alarmed.insert(*id) {
            let told = match status {
                Status::Active => "is ACTIVE: whoever made it so did not ask the factory",
                _ => "waits for activation: its bundle is missing, or somebody else can sign with the CA's key",
            };
            tracing::warn!("a certificate that no bundle names {told}: {id}");
        }
        Ok(Seen::Unknown(status))
    }

    /// Settles a certificate that an event tells of, whatever the event says of it.
    ///
    /// # Errors
    /// A call failed, or an allow-list cannot be read.
    pub(super) async fn settle_event(&self, id: &CertificateId) -> Result<(), SettleError> {
        let lists = self.lists();
        match lists.standing(id)? {
            // The sweep counts and tells of it.
            Standing::Unknown => Ok(()),
            standing => self.settle(&lists, id, standing).await,
        }
    }

    async fn settle(&self, lists: &Lists, id: &CertificateId, standing: Standing) -> Result<(), SettleError> {
        match standing {
            Standing::Unknown => Ok(()),
            Standing::Known(device, batch) => self.activate(lists, id, &device, &batch).await,
            Standing::Withdrawn(withdrawal, batch) => {
                settle::end(&self.platform, id).await?;
                metrics::revoked("withdrawn", 1);
                let (device, reason) = (&withdrawal.device_id, &withdrawal.reason);
                tracing::warn!("revoked the certificate {id} of {device}: {reason}, says {batch}");
                Ok(())
            }
        }
    }

    /// Makes a certificate active, after all else is in place.
    async fn activate(
        &self,
        lists: &Lists,
        id: &CertificateId,
        device: &Device,
        batch: &str,
    ) -> Result<(), SettleError> {
        let Some(certificate) = self.platform.describe_certificate(id).await? else { return Ok(()) };
        if certificate.status != Status::PendingActivation {
            return Ok(());
        }
        let blocks = birthmark::pem::blocks(certificate.pem.as_bytes()).unwrap_or_default();
        let is_itself = blocks.first().is_some_and(|block| CertificateId::of(&block.der) == *id);
        let is_ours = certificate.ca.is_some_and(|ca| lists.issuers().iter().any(|issuer| issuer.id == ca));
        if !is_itself || !is_ours {
            let api = crate::limits::Api::DescribeCertificate;
            return Err(CallError::without(api, "certificate of this id and of a CA of the bundles").into());
        }
        let settled = settle::provide(&self.platform, lists, id, &certificate.arn, device).await?;
        self.platform.activate_certificate(id).await?;
        metrics::activated();
        metrics::revoked("replaced", settled.ended.len() as u64);
        let thing = &device.thing.name;
        tracing::info!("{thing} is active, with the certificate {id} of {batch}");
        for older in settled.ended {
            tracing::warn!("revoked the older certificate {older} of {thing}, which is withdrawn");
        }
        for other in settled.others {
            tracing::warn!("{thing} also has the certificate {other}, which no bundle withdraws; it was left alone");
        }
        Ok(())
    }
}
