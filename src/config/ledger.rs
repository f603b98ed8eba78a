//! `[ledger]`

use std::{ops::Range, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

/// A year, in hours.
const LONGEST_SCRUB_INTERVAL: u32 = 8760;

/// `[ledger]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The data folder; made if absent. With a database: this daemon's copy.
    pub path: Spanned<PathBuf>,
    /// A folder on another disk for a second journal, which has every entry before it is answered; none if absent.
    pub mirror: Option<Spanned<PathBuf>>,
    /// Nothing new is issued while the data folder's file system has less free space, in MiB.
    #[serde(default = "default_min_free")]
    pub min_free_mib: u32,
    /// Hours between two readings of the whole journal, which find damage; 0: never, not even at the start.
    #[serde(default = "default_scrub_interval")]
    pub scrub_interval_hours: Spanned<u32>,
    /// Where several daemons share the ledger; this daemon's data folder alone if absent.
    pub database: Option<Spanned<String>>,
    /// A file with the database's password.
    pub database_password: Option<Spanned<PathBuf>>,
    /// This daemon's name among those that share the ledger.
    pub daemon: Option<Spanned<String>>,
    /// How many machines must have a batch before it counts.
    pub copies: Option<Spanned<u8>>,
    /// How long a daemon may not be heard of until the others abandon what it has reserved.
    pub lease: Option<Spanned<String>>,
    /// How long requests wait for a database that is away.
    pub patience: Option<Spanned<String>>,
}

/// What a key is wrong about: where it stands, its name, and what would be right.
pub(super) type Problem = (Range<usize>, &'static str, String);

fn default_scrub_interval() -> Spanned<u32> {
    Spanned::new(0..0, 7 * 24)
}

fn default_min_free() -> u32 {
    256
}

fn duration(text: Option<&Spanned<String>>, default: u64) -> Option<Duration> {
    let Some(text) = text else { return Some(Duration::from_secs(default)) };
    Duration::try_from(text.get_ref().parse::<SignedDuration>().ok()?).ok()
}

impl Ledger {
    /// The time between two scrubs; none if there are none.
    pub fn scrub_interval(&self) -> Option<Duration> {
        let hours = *self.scrub_interval_hours.get_ref();
        (hours > 0).then(|| Duration::from_hours(hours.into()))
    }

    /// How long a daemon may not be heard of.
    pub fn lease(&self) -> Duration {
        duration(self.lease.as_ref(), 60).unwrap_or_default()
    }

    /// How long requests wait for the database.
    pub fn patience(&self) -> Duration {
        duration(self.patience.as_ref(), 20).unwrap_or_default()
    }

    /// How many machines must have a batch.
    pub fn copies(&self) -> u8 {
        self.copies.as_ref().map_or(2, |copies| *copies.get_ref())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        if *self.scrub_interval_hours.get_ref() > LONGEST_SCRUB_INTERVAL {
            let message = format!("must be 1 to {LONGEST_SCRUB_INTERVAL}, or 0 for never");
            problems.push((self.scrub_interval_hours.span(), "ledger.scrub_interval_hours", message));
        }
        let Some(database) = &self.database else {
            let of_a_database = [
                self.daemon.as_ref().map(|daemon| (daemon.span(), "ledger.daemon")),
                self.database_password.as_ref().map(|file| (file.span(), "ledger.database_password")),
                self.copies.as_ref().map(|copies| (copies.span(), "ledger.copies")),
                self.lease.as_ref().map(|lease| (lease.span(), "ledger.lease")),
                self.patience.as_ref().map(|patience| (patience.span(), "ledger.patience")),
            ];
            let without = "means nothing without ledger.database".to_owned();
            problems.extend(of_a_database.into_iter().flatten().map(|(span, key)| (span, key, without.clone())));
            return problems;
        };
        match &self.daemon {
            None => {
                let message = "is needed with ledger.database: this daemon's name, which no other one has".to_owned();
                problems.push((database.span(), "ledger.daemon", message));
            }
            Some(daemon) => {
                let name = daemon.get_ref();
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                if !(1..=63).contains(&name.len()) || !name.bytes().all(allowed) {
                    let message = "must be 1 to 63 of the characters A-Z a-z 0-9 . _ -".to_owned();
                    problems.push((daemon.span(), "ledger.daemon", message));
                }
            }
        }
        if let Some(mirror) = &self.mirror {
            let message = "is for a ledger in the data folder: what is in the database is copied by that".to_owned();
            problems.push((mirror.span(), "ledger.mirror", message));
        }
        if let Some(copies) = self.copies.as_ref().filter(|copies| !(1..=2).contains(copies.get_ref())) {
            problems.push((copies.span(), "ledger.copies", "must be 2, or 1 where a loss is accepted".to_owned()));
        }
        let times = [
            (&self.lease, "ledger.lease", 60, 3..=3600, "must be a time from 3s to 1h, such as \"60s\""),
            (&self.patience, "ledger.patience", 20, 1..=600, "must be a time from 1s to 10m, such as \"20s\""),
        ];
        for (text, key, default, range, message) in times {
            if let Some(text) = text
                && duration(Some(text), default).is_none_or(|time| !range.contains(&time.as_secs()))
            {
                problems.push((text.span(), key, message.to_owned()));
            }
        }
        problems
    }
}
