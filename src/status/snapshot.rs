//! What a snapshot has. Its JSON is `/status.json`: fields are only added. Times are RFC 3339 in UTC, durations seconds.
//!
//! Names of stations, ids of orders and reasons come from outside: whoever shows them escapes them.

use jiff::Timestamp;
use serde::Serialize;

/// What the daemon knew at a moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    /// The moment, by this machine's clock.
    pub(crate) at: Timestamp,
    /// The daemon's version.
    pub(crate) version: &'static str,
    /// When this daemon was started.
    pub(crate) started_at: Timestamp,
    /// Whether it issues certificates.
    pub(crate) ready: bool,
    /// What is in the way of issuing, in the words of `/readyz`; empty if nothing is.
    pub(crate) obstacles: Vec<Condition>,
    /// What is in the way of nothing, yet.
    pub(crate) warnings: Vec<Condition>,
    pub(crate) issuing: Issuing,
    pub(crate) stations: Listed<Station, Stations>,
    pub(crate) orders: Listed<OpenOrder, Orders>,
    /// The HSM's tokens, by the issuer whose key is used (or `audit`) and their labels.
    pub(crate) hsm: Vec<Token>,
    /// What waits for each destination.
    pub(crate) destinations: Vec<Waiting>,
    /// When the certificates expire that the daemon depends on, the first to expire first.
    pub(crate) certificates: Vec<CertificateEnd>,
    /// Of the audit key; none without one.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// The newest backup that was made with `birthmark backup`; none if there was none.
    pub(crate) backup: Option<Backup>,
    /// The newest revocation lists of each issuer that has some.
    pub(crate) revocation_lists: Vec<RevocationList>,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
}

impl Snapshot {
    /// Whether both say the same about whether the daemon issues.
    pub(crate) fn says_the_same(&self, other: &Snapshot) -> bool {
        let components =
            |conditions: &[Condition]| conditions.iter().map(|found| found.component.clone()).collect::<Vec<_>>();
        let said = |snapshot: &Snapshot| (components(&snapshot.obstacles), components(&snapshot.warnings));
        said(self) == said(other)
    }
}

/// A list that is bounded, and what the rest comes to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listed<T, O> {
    /// Those that are listed.
    pub(crate) listed: Vec<T>,
    /// How many are not.
    pub(crate) left_out: usize,
    /// What those come to.
    pub(crate) others: O,
}

/// A component of the daemon, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Condition {
    pub(crate) component: String,
    /// For people.
    pub(crate) cause: String,
}

/// What is issued.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Issuing {
    /// New certificates since the start: `birthmark_certificates_total{replay="false"}`.
    pub(crate) issued: u64,
    /// Certificates that were given again to who asked again.
    pub(crate) replayed: u64,
    /// Requests for certificates that were refused since the start: `birthmark_refused_requests_total`.
    pub(crate) refused: u64,
    /// New certificates a second, over the last minute.
    pub(crate) rate: f64,
    /// How long half of the last minute's certificates took at most, from a request's arrival to the durable certificate;
    /// none if there were none.
    pub(crate) median_seconds: Option<f64>,
    /// The same of 99 in 100.
    pub(crate) p99_seconds: Option<f64>,
}

/// A station that is enrolled, or was here since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Station {
    /// `<line>/<station>`.
    pub(crate) name: String,
    /// Whether it has a connection.
    pub(crate) connected: bool,
    /// Its last call since the daemon was started.
    pub(crate) last_seen: Option<Timestamp>,
    /// Certificates that it was given since the start, again or for the first time.
    pub(crate) issued: u64,
    /// The same a second, over the last minute.
    pub(crate) rate: f64,
    /// Its requests for certificates that were refused since the start, the newest reason first.
    pub(crate) refusals: Vec<Refused>,
    /// When its newest certificate expires; none if it is not in the ledger.
    pub(crate) certificate_expires: Option<Timestamp>,
    /// It may not connect any more.
    pub(crate) revoked: bool,
}

impl Station {
    /// How many of its requests were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refusals.iter().map(|refused| refused.number).sum()
    }
}

/// What stations that are not listed come to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Stations {
    pub(crate) connected: usize,
    pub(crate) issued: u64,
    pub(crate) rate: f64,
    pub(crate) refused: u64,
}

/// Requests that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    /// The protocol's word for it.
    pub(crate) reason: &'static str,
    pub(crate) number: u64,
    /// When it was so last.
    pub(crate) last: Timestamp,
}

/// An order that is not closed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenOrder {
    pub(crate) id: String,
    pub(crate) profile: String,
    /// `open`, `scheduled`, `paused`, `incomplete` (its list of devices), `complete` or `expired`.
    pub(crate) state: &'static str,
    /// How many certificates may be issued under it.
    pub(crate) quantity: u64,
    /// Certificates recorded and not scrapped.
    pub(crate) issued: u64,
    /// Reservations without a certificate yet.
    pub(crate) reserved: u64,
    /// Of `issued`: those that are confirmed.
    pub(crate) confirmed: u64,
    /// Certificates scrapped.
    pub(crate) scrapped: u64,
    /// Of `issued`: those that were revoked.
    pub(crate) revoked: u64,
    /// How many more may be reserved.
    pub(crate) left: u64,
    /// New certificates a second, over the last five minutes.
    pub(crate) rate: f64,
    /// When it is complete if that goes on; none if nothing is issued, or it is complete.
    pub(crate) expected_end: Option<Timestamp>,
    /// Of the devices that were tried: the part that had its certificate without having been refused before; none if none
    /// was tried.
    pub(crate) first_pass_yield: Option<f64>,
    /// How many devices were tried.
    pub(crate) tried: u64,
    /// Why it is paused, in the words of who did it.
    pub(crate) paused_for: Option<String>,
}

/// What open orders that are not listed come to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Orders {
    pub(crate) quantity: u64,
    pub(crate) issued: u64,
    pub(crate) left: u64,
}

/// A token of the HSM, and the sessions that sign with one key of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Token {
    /// The issuer whose key it is, or `audit`.
    pub(crate) issuer: String,
    /// The token's label.
    pub(crate) token: String,
    /// Sessions that sign, or wait for something to sign.
    pub(crate) working: usize,
    /// Sessions that should.
    pub(crate) wanted: usize,
    /// Of `working`: those that are in a call of the HSM now.
    pub(crate) busy: usize,
    /// Calls that did not return in time, and have not yet.
    pub(crate) hung: usize,
    /// Messages that wait for a session of the issuer.
    pub(crate) queued: usize,
    /// Why it does not sign; none if it does.
    pub(crate) outage: Option<String>,
    /// It stays out until a person has seen to it.
    pub(crate) needs_operator: bool,
}

/// What waits for a destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) destination: String,
    /// Certificates that wait for the next batch.
    pub(crate) certificates: u64,
    /// Since when the oldest of them does.
    pub(crate) since: Option<Timestamp>,
    /// Withdrawals that wait for the next batch.
    pub(crate) withdrawals: u64,
    /// Live certificates that batches left out, or the platform refused.
    pub(crate) unfit: usize,
    /// Batches that are not acknowledged.
    pub(crate) unacknowledged: u32,
    /// When the oldest of them was cut.
    pub(crate) unacknowledged_since: Option<Timestamp>,
    /// Why the daemon cannot cut or write its batches, if it should.
    pub(crate) held: Option<String>,
}

/// When a certificate expires that the daemon depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CertificateEnd {
    /// For people: `issuer device`, `station CA`, `server certificate`, `station line1/tester1`.
    pub(crate) of: String,
    /// `issuer`, `station_ca`, `server` or `station`: of all stations the one whose certificate expires first.
    pub(crate) kind: &'static str,
    /// The issuer's or the station's name.
    pub(crate) name: Option<String>,
    pub(crate) expires: Timestamp,
    /// Seconds until then; negative if it has expired.
    pub(crate) left: i64,
}

/// What the audit key vouches for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Checkpoint {
    /// When the newest was made; none if there is none.
    pub(crate) at: Option<Timestamp>,
    /// How many entries it covers.
    pub(crate) entries: u64,
    /// How long there have been entries that it does not cover: `birthmark_checkpoint_lag_seconds`.
    pub(crate) lag: f64,
}

/// The newest backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Backup {
    pub(crate) at: Timestamp,
    /// How many entries it has.
    pub(crate) entries: u64,
}

/// The newest revocation lists of an issuer, all of its shards together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RevocationList {
    pub(crate) issuer: String,
    /// When the oldest of them was made.
    pub(crate) made: Timestamp,
    /// When the first of them expires.
    pub(crate) expires: Timestamp,
    /// The greatest number.
    pub(crate) number: u64,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// What the ledger has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    /// Entries of the journal.
    pub(crate) entries: u64,
    /// Certificates of devices that were ever recorded.
    pub(crate) certificates: u64,
    /// Bytes of the journal.
    pub(crate) bytes: u64,
    /// What is recorded and not in the index yet: records and changes.
    pub(crate) index_lag: usize,
    /// Bytes that are free on the data folder's disk.
    pub(crate) disk_free: Option<u64>,
    /// How many there must be: `ledger.min_free_mib`.
    pub(crate) disk_needed: u64,
    /// Whether the mirror has all entries; none without a mirror.
    pub(crate) mirrored: Option<bool>,
    /// Up to which moment it is known what others have written, while their database is away; none: all is known.
    pub(crate) as_of: Option<Timestamp>,
}

/// This machine's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Clock {
    /// What it says.
    pub(crate) at: Timestamp,
    /// Why it cannot be right; none if it can.
    pub(crate) implausible: Option<String>,
}
