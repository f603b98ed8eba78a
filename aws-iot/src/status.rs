//! What AWS IoT has, held against what the factory's bundles say.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    arn::CertificateId,
    failure::{CallError, Kind},
    list::{Entry, Found, List, ListError},
    lists::{Lists, Standing},
    platform::{Authority, Platform, Status},
};

/// How many certificates are told by name.
const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The registered CAs, and those of the bundles that are not.
    pub authorities: Vec<AuthorityReport>,
    /// The bundles, the oldest first.
    pub bundles: Vec<BundleReport>,
    /// Some of the certificates that somebody should look at, each with why.
    pub notable: Vec<Notable>,
}

/// A CA.
#[derive(Debug, Default, Serialize)]
pub struct AuthorityReport {
    /// Its certificate's id.
    pub id: String,
    /// Its subject, if a bundle names it.
    pub subject: Option<String>,
    /// Whether it is registered, and may be used.
    pub registered: bool,
    /// Whether its devices may connect.
    pub active: bool,
    /// `DEFAULT` or `SNI_ONLY`; none if it is not registered.
    pub mode: Option<String>,
    /// Whether unknown certificates of it are registered when they connect for the first time.
    pub auto_registration: bool,
    /// Whether AWS IoT provisions them by a template.
    pub jitp: bool,
    /// Its certificates in AWS IoT, by status.
    pub certificates: BTreeMap<String, u64>,
    /// Those of them that wait and that no bundle names.
    pub unknown_pending: u64,
    /// Those of them that are active and that no bundle names.
    pub unknown_active: u64,
}

/// A bundle.
#[derive(Debug, Default, Serialize)]
pub struct BundleReport {
    /// Its name.
    pub batch: String,
    /// How many certificates it has.
    pub certificates: u64,
    /// How many of its certificates AWS IoT has, by status.
    pub found: BTreeMap<String, u64>,
    /// How many of them AWS IoT does not have, although nothing withdraws them.
    pub missing: u64,
    /// How many certificates it withdraws.
    pub withdrawn: u64,
    /// How many of those may still connect, or wait.
    pub withdrawn_not_revoked: u64,
}

/// A certificate that somebody should look at.
#[derive(Debug, Serialize)]
pub struct Notable {
    /// Which.
    pub certificate_id: String,
    /// Why.
    pub why: &'static str,
}

impl Report {
    /// Whether something is to be done.
    pub fn has_work(&self) -> bool {
        let bundle = |report: &BundleReport| {
            let pending = report.found.get(&Status::PendingActivation.to_string()).copied().unwrap_or_default();
            report.missing + report.withdrawn_not_revoked + pending > 0
        };
        let authority = |report: &AuthorityReport| !report.active || report.unknown_pending + report.unknown_active > 0;
        self.bundles.iter().any(bundle) || self.authorities.iter().any(authority)
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// AWS refused a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An allow-list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
}

/// Which certificates of a list AWS IoT has: a bit each.
struct Seen(Vec<u64>);

impl Seen {
    fn new(list: &List) -> Self {
        Seen(vec![0; usize::try_from(list.len().div_ceil(64)).unwrap_or_default()])
    }

    fn word(index: u64) -> (usize, u64) {
        (usize::try_from(index / 64).unwrap_or(usize::MAX), 1 << (index % 64))
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = Seen::word(index);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn has(&self, index: u64) -> bool {
        let (word, bit) = Seen::word(index);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Holds AWS IoT against the bundles.
///
/// # Errors
/// A call failed, or an allow-list cannot be read.
pub async fn report(platform: &Platform, lists: &Lists) -> Result<Report, StatusError> {
    let mut report = Report::default();
    let mut ids = platform.list_authorities().await?;
    ids.extend(lists.issuers().iter().map(|issuer| issuer.id));
    ids.sort();
    ids.dedup();
    let mut seen: Vec<(Seen, BundleReport)> = lists
        .iter()
        .map(|(batch, list)| (Seen::new(list), BundleReport { batch: batch.to_owned(), ..BundleReport::default() }))
        .collect();
    let mut all = false;
    for id in ids {
        let mut authority = authority(platform.describe_authority(&id).await?, &id, lists);
        let is_ours = authority.subject.is_some();
        if authority.registered && (is_ours || lists.is_empty()) {
            look(platform, lists, Some(&id), &mut authority, &mut seen, &mut report.notable).await?;
        }
        all |= is_ours && !authority.registered;
        report.authorities.push(authority);
    }
    if all {
        // Registered without their CA they are in no CA's list, and others' are beside them.
        look(platform, lists, None, &mut AuthorityReport::default(), &mut seen, &mut report.notable).await?;
    }
    for ((_, list), (seen, bundle)) in lists.iter().zip(&mut seen) {
        count(lists, list, seen, bundle)?;
    }
    report.bundles = seen.into_iter().map(|(_, report)| report).collect();
    Ok(report)
}

fn authority(found: Option<Authority>, id: &CertificateId, lists: &Lists) -> AuthorityReport {
    let subject = lists.issuers().iter().find(|issuer| issuer.id == *id).map(|issuer| issuer.subject.clone());
    let report = AuthorityReport { id: id.to_string(), subject, ..AuthorityReport::default() };
    match found {
        None => report,
        Some(authority) => AuthorityReport {
            registered: true,
            active: authority.active,
            mode: Some(authority.mode.to_string()),
            auto_registration: authority.auto_registration,
            jitp: authority.provisioning.is_some(),
            ..report
        },
    }
}

/// Looks at the certificates of a CA, or at all.
async fn look(
    platform: &Platform,
    lists: &Lists,
    ca: Option<&CertificateId>,
    report: &mut AuthorityReport,
    seen: &mut [(Seen, BundleReport)],
    notable: &mut Vec<Notable>,
) -> Result<(), StatusError> {
    let mut note = |id: &CertificateId, why| {
        if notable.len() < TOLD {
            notable.push(Notable { certificate_id: id.to_string(), why });
        }
    };
    let mut from = None;
    loop {
        let page = match platform.list_certificates(ca, from).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            page => page?,
        };
        for listed in page.certificates {
            *report.certificates.entry(listed.status.to_string()).or_default() += 1;
            let mut named = false;
            let may_connect = !matches!(listed.status, Status::Revoked | Status::Inactive);
            for ((_, list), (seen, bundle)) in lists.iter().zip(seen.iter_mut()) {
                let Some(Found { index, entry }) = list.find(&listed.id)? else { continue };
                named = true;
                match entry {
                    Entry::Device(_) if !seen.has(index) => {
                        seen.set(index);
                        *bundle.found.entry(listed.status.to_string()).or_default() += 1;
                    }
                    Entry::Withdrawn(_) if may_connect => {
                        bundle.withdrawn_not_revoked += 1;
                        note(&listed.id, "withdrawn by the factory, and not revoked");
                    }
                    Entry::Device(_) | Entry::Withdrawn(_) => {}
                }
            }
            match listed.status {
                Status::Active if !named && !lists.is_empty() => {
                    report.unknown_active += 1;
                    if ca.is_some() {
                        note(&listed.id, "active, and no bundle names it");
                    }
                }
                Status::PendingActivation if !named && !lists.is_empty() => {
                    report.unknown_pending += 1;
                    note(&listed.id, "waits, and no bundle names it");
                }
                _ => {}
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Counts what a bundle has, and what AWS IoT lacks of it.
fn count(lists: &Lists, list: &List, seen: &Seen, report: &mut BundleReport) -> Result<(), ListError> {
    let mut absent = Vec::new();
    list.for_each(|index, id, entry| match entry {
        Entry::Device(_) => {
            report.certificates += 1;
            if !seen.has(index) {
                absent.push(id);
            }
        }
        Entry::Withdrawn(_) => report.withdrawn += 1,
    })?;
    for id in absent {
        if matches!(lists.standing(&id)?, Standing::Known(..)) {
            report.missing += 1;
        }
    }
    Ok(())
}
