//! Makes certificate revocation lists: at an interval, soon after a revocation, and well before the list before expires.
//!
//! `published ≤ recorded in the ledger ≤ signed`: a number is in the ledger before its list is, so none is used twice, and
//! none is lower than one before; after a restore of an older ledger neither, since numbers follow the clock.
//! While the HSM is away it is tried again, and what was published before stays so.

#[cfg(test)]
mod figures;
mod published;
mod schedule;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::MissedTickBehavior,
};

pub use self::published::{PublishedError, PublishedLists};
use self::schedule::Schedule;
use crate::{
    asn1::{SEQUENCE, implicit, primitive, tlv},
    ca::IssuingCa,
    cert,
    committer::{CommitError, Committer},
    config::CrlTimes,
    crl::{self, Directory, Document, ListId, Published, RevocationList, Revoked, Shards, Store, StoreError, Terms},
    durable::{self, Access},
    ledger::{CaId, CrlIssued, LedgerError, Records, RevocationReason, RevokedCause, RevokedCertificate},
    metrics,
    signer::SignError,
    x509_time::Time,
};

/// How often it is looked whether a list is due.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What all lists have in common.
pub(crate) struct Publisher {
    pub(crate) issuers: Vec<Arc<ListIssuer>>,
    pub(crate) store: Arc<Store>,
    pub(crate) directory: Arc<Directory>,
    /// The folder for a web server.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) times: CrlTimes,
    pub(crate) include_scrapped: bool,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) committer: Committer,
    /// What is known of the newest lists, by issuers' names.
    pub(crate) figures: Mutex<BTreeMap<String, Crls>>,
}

/// The newest revocation lists of an issuer, all of its shards together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crls {
    /// The greatest number.
    pub(crate) number: u64,
    /// When the oldest was made, and when the first expires; Unix time.
    pub(crate) times: (i64, i64),
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// An issuer of lists.
pub(crate) struct ListIssuer {
    pub(crate) issuer: Arc<IssuingCa>,
    pub(crate) shards: Shards,
    /// The URLs of its certificates' distribution points, with `{crl_shard}` where the shard stands.
    pub(crate) urls: Vec<String>,
}

/// Why there is no new list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// The HSM did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The ledger did not tell what was revoked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger did not record the list.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is recorded, but could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is served, but not in the web server's folder.
    #[error("cannot write {path}: {cause}")]
    Folder {
        /// The file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// What was made is no list: a mistake in this program.
    #[error("what was made is no revocation list: {0}")]
    Malformed(String),
    /// A mistake in this program, or the daemon ends.
    #[error("a list was not finished: {0}")]
    Panicked(#[from] JoinError),
}

impl ListIssuer {
    pub(crate) fn ca(&self) -> CaId {
        CaId::new(self.issuer.subject())
    }

    pub(crate) fn list(&self, shard: u16) -> ListId {
        ListId::new(self.issuer.subject(), self.issuer.public_key(), shard)
    }

    /// The distribution points of a shard's certificates; none for a list of the whole CA.
    fn distribution_points(&self, shard: u16) -> Vec<String> {
        let label = self.shards.label(shard);
        let sharded = self.urls.iter().filter(|_| self.shards.count() > 1);
        sharded.map(|url| url.replace("{crl_shard}", &label)).collect()
    }

    fn authority_key_identifier(&self) -> Vec<u8> {
        let mut value = Vec::new();
        tlv(&mut value, SEQUENCE, |out| primitive(out, implicit(0), self.issuer.key_identifier()));
        value
    }
}

impl Publisher {
    /// Serves what was published before, and writes the folder for a web server.
    pub(crate) fn load(&self) {
        for issuer in &self.issuers {
            for shard in 0..issuer.shards.count() {
                if let Err(error) = self.store.load(&issuer.list(shard), issuer.issuer.public_key()) {
                    tracing::warn!(%error, "a revocation list of an earlier run is not served; a new one is made");
                }
            }
            self.tell(issuer);
        }
        let Some(folder) = &self.folder else { return };
        for (path, document) in self.directory.documents() {
            let content = match document {
                Document::Certificate(der) => Some(der.clone()),
                Document::List(id) => self.store.get(id).map(|list| list.der.clone()),
            };
            if let Some(content) = content
                && let Err(error) = write(folder, path, &content)
            {
                tracing::warn!(%error, "the web server's folder is not complete");
            }
        }
    }

    /// Makes lists until the tasks are aborted.
    pub(crate) fn spawn(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let run = |issuer: &Arc<ListIssuer>| {
            let (publisher, issuer) = (Arc::clone(self), Arc::clone(issuer));
            tokio::spawn(async move { publisher.run(&issuer).await })
        };
        self.issuers.iter().for_each(|issuer| metrics::known_crl_issuer(issuer.issuer.name()));
        self.issuers.iter().map(run).collect()
    }

    async fn run(&self, issuer: &Arc<ListIssuer>) {
        let ca = issuer.ca();
        let mut schedule = Schedule::new(issuer.shards);
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for bits in self.records.take_revocations(&ca) {
                schedule.revoked(bits, Instant::now());
            }
            while let Some(shard) = schedule.due(&self.times, Instant::now()) {
                let begun = Instant::now();
                match self.make(issuer, shard).await {
                    Ok(()) => {
                        if schedule.made(shard, begun) {
                            tracing::info!(issuer = issuer.issuer.name(), "revocation lists are made again");
                        }
                    }
                    Err(PublishError::Commit(CommitError::Closed)) => return,
                    Err(error) => {
                        metrics::crl_failed(issuer.issuer.name());
                        if schedule.failed(Instant::now()) {
                            let name = issuer.issuer.name();
                            tracing::warn!(issuer = name, %error, "no revocation list; trying again until there is one");
                        }
                    }
                }
                self.tell(issuer);
            }
        }
    }

    /// Makes, records and publishes one list.
    async fn make(&self, issuer: &Arc<ListIssuer>, shard: u16) -> Result<(), PublishError> {
        let id = issuer.list(shard);
        let before = self.store.get(&id).map(|list| list.this_update);
        let now = Timestamp::now();
        let (records, of, include_scrapped, valid) =
            (Arc::clone(&self.records), Arc::clone(issuer), self.include_scrapped, self.times.valid);
        let draft = spawn_blocking(move || Draft::new(&*records, &of, shard, now, before, include_scrapped, valid));
        let draft = draft.await??;

        let to_be_signed = draft.to_be_signed;
        let signature = issuer.issuer.signer().sign(to_be_signed.clone()).await?;
        let algorithm = issuer.issuer.algorithm();
        let list = spawn_blocking(move || {
            let der = cert::join(&to_be_signed, algorithm, signature.as_bytes());
            drop(to_be_signed);
            // The pool has verified the signature; this is what relying parties will read.
            let list = RevocationList::from_der(der).map_err(|error| PublishError::Malformed(error.to_string()))?;
            Published::from_list(&list).ok_or_else(|| PublishError::Malformed("it has no number".into()))
        });
        let list = list.await??;

        // Recorded before it is published.
        let recorded = CrlIssued {
            issuer: issuer.issuer.name().to_owned(),
            ca: issuer.ca(),
            shard: (shard, issuer.shards.count()),
            number: draft.number,
            this_update: now,
            next_update: draft.next_update,
            entries: list.entries as u64,
            sha256: list.sha256,
        };
        self.committer.issue_crl(recorded).await?;
        self.publish(issuer, id, list).await
    }

    async fn publish(&self, issuer: &ListIssuer, id: ListId, list: Published) -> Result<(), PublishError> {
        let name = issuer.issuer.name();
        tracing::info!(
            issuer = name,
            shard = id.shard(),
            number = list.number,
            entries = list.entries,
            bytes = list.der.len(),
            next_update = %list.next_update,
            sha256 = hex::encode(list.sha256),
            "revocation list"
        );
        let paths: Vec<_> = self.directory.paths_of(&id).map(str::to_owned).collect();
        let (store, folder, der) = (Arc::clone(&self.store), self.folder.clone(), list.der.clone());
        let written = spawn_blocking(move || {
            store.publish(&id, list)?;
            let Some(folder) = folder else { return Ok(()) };
            paths.iter().try_for_each(|path| write(&folder, path, &der))
        });
        written.await?
    }

    /// Keeps what is known of an issuer's newest lists.
    fn tell(&self, issuer: &ListIssuer) {
        let lists: Vec<_> = self.newest(issuer).collect();
        let seconds = |time: Time| time.since(Timestamp::UNIX_EPOCH).as_secs();
        let (Some(oldest), Some(first)) =
            (lists.iter().map(|list| list.this_update).min(), lists.iter().map(|list| list.next_update).min())
        else {
            return;
        };
        let crls = Crls {
            number: lists.iter().map(|list| list.number).max().unwrap_or(0),
            times: (seconds(oldest), seconds(first)),
            entries: lists.iter().map(|list| list.entries).sum(),
            bytes: lists.iter().map(|list| list.der.len()).sum(),
        };
        self.figures.lock().insert(issuer.issuer.name().to_owned(), crls);
    }

    /// What is known of the newest lists, by issuers' names.
    pub(crate) fn figures(&self) -> BTreeMap<String, Crls> {
        self.figures.lock().clone()
    }

    fn newest(&self, issuer: &ListIssuer) -> impl Iterator<Item = Arc<Published>> {
        (0..issuer.shards.count()).filter_map(|shard| self.store.get(&issuer.list(shard)))
    }

    /// What is in the way of relying parties, or will be soon: a list that is late, long before it expires.
    pub(crate) fn degraded(&self, issuer: &ListIssuer) -> Option<String> {
        let now = Timestamp::now();
        // The next list is due after half of this life at the latest; a quarter of it remains when this is said.
        let notice = SignedDuration::try_from(self.times.valid / 4).unwrap_or_default();
        let late = |list: &Published| list.next_update.since(now) < notice;
        let list = self.newest(issuer).filter(|list| late(list)).min_by_key(|list| list.next_update)?;
        let end = list.next_update;
        Some(match end.since(now).is_negative() {
            true => format!("the revocation list {} has expired at {end}, and no newer one could be made", list.number),
            false => format!("the revocation list {} expires at {end}, and no newer one could be made", list.number),
        })
    }
}

/// A list, not signed yet.
struct Draft {
    to_be_signed: Vec<u8>,
    number: u64,
    next_update: Timestamp,
}

impl Draft {
    fn new(
        records: &dyn Records,
        issuer: &ListIssuer,
        shard: u16,
        now: Timestamp,
        before: Option<Time>,
        include_scrapped: bool,
        valid: Duration,
    ) -> Result<Draft, PublishError> {
        let ca = issuer.ca();
        let clock = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let number = (records.crl_number(&ca)? + 1).max(clock);
        let revoked = records.revoked(&ca, issuer.shards.hashes(shard))?;
        let listed: Vec<_> = revoked.iter().filter_map(|found| listed(found, before, include_scrapped)).collect();
        drop(revoked);
        let next_update = now.checked_add(valid).unwrap_or(Timestamp::MAX);
        let authority_key_identifier = issuer.authority_key_identifier();
        let distribution_points = issuer.distribution_points(shard);
        let terms = Terms {
            algorithm: issuer.issuer.algorithm().identifier(),
            issuer: issuer.issuer.subject(),
            authority_key_identifier: &authority_key_identifier,
            number,
            this_update: now.into(),
            next_update: next_update.into(),
            distribution_points: &distribution_points,
        };
        Ok(Draft { to_be_signed: crl::to_be_signed(&terms, listed.into_iter()), number, next_update })
    }
}

/// How a certificate stands on a list, if it does. One that has expired is on one more list (section 3.3): that which comes
/// after one that was made in its lifetime.
fn listed(found: &RevokedCertificate, before: Option<Time>, include_scrapped: bool) -> Option<Revoked> {
    let reason = match found.cause {
        RevokedCause::Revoked(reason) => reason,
        RevokedCause::Scrapped if include_scrapped => RevocationReason::CessationOfOperation,
        RevokedCause::Replaced if include_scrapped => RevocationReason::Superseded,
        RevokedCause::Scrapped | RevokedCause::Replaced => return None,
    };
    let expired = |(not_after, before): (Timestamp, Time)| Time::from(not_after) < before;
    if found.not_after.zip(before).is_some_and(expired) {
        return None;
    }
    Some(Revoked { serial_number: found.serial_number, at: found.at, reason })
}

/// Writes a file of the web server's folder, whole or not at all.
fn write(folder: &Path, path: &str, content: &[u8]) -> Result<(), PublishError> {
    let path = folder.join(path);
    let parent = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = parent.and_then(|()| durable::write(&path, content, Access::Public));
    written.map_err(|cause| PublishError::Folder { path: path.display().to_string(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serial::SerialNumber;

    /// RFC 5280 section 3.3: an expired certificate is on one more list, then on none; scrapped ones are there by choice.
    #[test]
    fn listed_certificate_leaves_one_list_after_its_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let revoked = |cause| RevokedCertificate {
            serial_number: SerialNumber::sample(),
            at: at(100),
            cause,
            not_after: Some(at(1000)),
        };
        let found = revoked(RevokedCause::Revoked(RevocationReason::KeyCompromise));
        for (before, there) in [(None, true), (Some(999), true), (Some(1000), true), (Some(1001), false)] {
            let before = before.map(|second| Time::from(at(second)));
            assert_eq!(listed(&found, before, true).is_some(), there, "{before:?}");
        }
        let never = RevokedCertificate { not_after: None, ..found };
        assert!(listed(&never, Some(Time::NEVER), false).is_some());
        for (cause, reason) in [
            (RevokedCause::Scrapped, RevocationReason::CessationOfOperation),
            (RevokedCause::Replaced, RevocationReason::Superseded),
        ] {
            assert_eq!(listed(&revoked(cause), None, true).map(|entry| entry.reason), Some(reason));
            assert_eq!(listed(&revoked(cause), None, false), None);
        }
    }
}
