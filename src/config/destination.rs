//! The `[destinations.NAME]` sections of the configuration. What belongs to the format is read by whoever writes the files.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::{pattern::Pattern, quote::quoted};

/// `[destinations.NAME]`: a platform that is to know the devices.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Destination {
    keys: BTreeMap<String, Spanned<Value>>,
}

/// What is wrong with a key of a section, and where its value stands; nowhere if the key is absent.
#[derive(Debug)]
pub struct WrongKey {
    /// The key.
    pub key: String,
    /// Where its value stands.
    pub place: Option<Range<usize>>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// What a section says but for its format.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationTerms {
    /// The profiles whose certificates it gets; all if empty.
    pub profiles: Vec<Pattern>,
    /// The orders whose certificates it gets; all if empty.
    pub orders: Vec<Pattern>,
    /// It gets certificates when they are confirmed, not when they are issued.
    pub confirmed: bool,
    /// The daemon cuts batches by itself.
    pub unattended: Option<Unattended>,
    /// The keys of the format.
    pub format: toml::Table,
}

/// How the daemon cuts batches by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unattended {
    /// How often.
    pub every: Duration,
    /// The folder, in which each batch becomes a folder.
    pub folder: PathBuf,
    /// No more batches are cut while so many are not acknowledged.
    pub max_unacknowledged: u32,
    /// Nor while the folder's disk has less free space, in bytes.
    pub min_free: u64,
}

/// The keys that are not the format's.
const OWN: [&str; 7] = ["profiles", "orders", "only", "every", "folder", "max_unacknowledged", "min_free_mib"];

const USUAL_MAX_UNACKNOWLEDGED: i64 = 1000;
const USUAL_MIN_FREE_MIB: i64 = 256;

impl Destination {
    /// What the section says.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn terms(&self) -> Result<DestinationTerms, WrongKey> {
        let confirmed = match self.string("only")? {
            None | Some("issued") => false,
            Some("confirmed") => true,
            Some(_) => return Err(self.wrong("only", "must be \"issued\" or \"confirmed\"")),
        };
        let other = self.keys.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
        let format = other.map(|(key, value)| (key.clone(), value.get_ref().clone())).collect();
        Ok(DestinationTerms {
            profiles: self.patterns("profiles")?,
            orders: self.patterns("orders")?,
            confirmed,
            unattended: self.unattended()?,
            format,
        })
    }

    fn unattended(&self) -> Result<Option<Unattended>, WrongKey> {
        let max_unacknowledged = self.number("max_unacknowledged", 1, 100_000)?;
        let min_free_mib = self.number("min_free_mib", 0, 1 << 30)?;
        match (self.string("every")?, self.string("folder")?) {
            (Some(every), Some(folder)) => {
                let span = every.parse::<jiff::Span>().ok();
                let span = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
                let every = span.and_then(|every| Duration::try_from(every).ok());
                let every =
                    every.filter(|every| (Duration::from_secs(1)..=Duration::from_hours(7 * 24)).contains(every));
                let wrong = || self.wrong("every", "must be a time from 1s to 7d, such as \"15m\"");
                Ok(Some(Unattended {
                    every: every.ok_or_else(wrong)?,
                    folder: PathBuf::from(folder),
                    max_unacknowledged: max_unacknowledged.unwrap_or(USUAL_MAX_UNACKNOWLEDGED) as u32,
                    min_free: (min_free_mib.unwrap_or(USUAL_MIN_FREE_MIB) as u64) << 20,
                }))
            }
            (Some(_), None) => Err(self.wrong("folder", "must say where the batches are written that \"every\" cuts")),
            (None, Some(_)) => {
                Err(self.wrong("every", "must say how often a batch is written to \"folder\", such as \"15m\""))
            }
            (None, None) => match ["max_unacknowledged", "min_free_mib"]
                .into_iter()
                .find(|key| self.keys.contains_key(*key))
            {
                Some(key) => Err(self
                    .wrong(key, "is only for batches that the daemon cuts by itself: give \"every\" and \"folder\"")),
                None => Ok(None),
            },
        }
    }

    /// An error about a key.
    pub fn wrong(&self, key: &str, message: impl Into<String>) -> WrongKey {
        // `attributes.lot` stands where `attributes` does.
        let whole = key.split_once('.').map_or(key, |(table, _)| table);
        let place = self.keys.get(whole).map(Spanned::span);
        WrongKey { key: key.to_owned(), place, message: message.into() }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).map(Spanned::get_ref)
    }

    fn string(&self, key: &str) -> Result<Option<&str>, WrongKey> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "must be a string"))
    }

    fn number(&self, key: &str, least: i64, most: i64) -> Result<Option<i64>, WrongKey> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_integer().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| self.wrong(key, format!("must be a number from {least} to {most}")))
    }

    fn patterns(&self, key: &str) -> Result<Vec<Pattern>, WrongKey> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = || self.wrong(key, "must be a list of patterns, such as [\"device\", \"lot-*\"]");
        let pattern =
            |value: &Value| Ok(Pattern::new(value.as_str().filter(|text| !text.is_empty()).ok_or_else(wrong)?));
        let patterns: Vec<_> = value.as_array().ok_or_else(wrong)?.iter().map(pattern).collect::<Result<_, _>>()?;
        if patterns.is_empty() {
            return Err(self.wrong(key, "lets nothing pass; leave it out to let all pass"));
        }
        Ok(patterns)
    }
}

/// Why a destination may not have this name.
pub(super) fn unfit_name(name: &str) -> String {
    format!("{} cannot be the name of a destination: 1 to 63 characters of a-z 0-9 -, the first no -", quoted(name))
}
