//! The issuers of a profile, each from a moment on, and what is constant in the certificates of each.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use toml::Spanned;

use super::{crl_shard::ShardPlaces, extensions::Extensions, reader::Reader};
use crate::{ca::IssuingCa, config::ConfigError, crl::Shards, x509_time::Time};

/// An issuer of a profile, with the constant parts of its certificates, encoded.
#[derive(Debug)]
pub(super) struct ScheduledIssuer {
    /// When it takes over; the first has no moment.
    pub(super) from: Option<Timestamp>,
    pub(super) issuer: Arc<IssuingCa>,
    /// The signature's AlgorithmIdentifier and the issuer's Name: what stands between serial number and validity.
    pub(super) head: Vec<u8>,
    /// The extensions that are the same in every certificate.
    pub(super) extensions: Vec<u8>,
    /// Where in them the shard of a certificate stands.
    pub(super) shard_places: ShardPlaces,
}

/// In the order in which they take over. The first has no moment, so that there always is one.
#[derive(Debug)]
pub(super) struct IssuerSchedule {
    first: ScheduledIssuer,
    later: Vec<ScheduledIssuer>,
}

impl IssuerSchedule {
    pub(super) fn read(
        reader: &Reader<'_>,
        issuers: &BTreeMap<String, Arc<IssuingCa>>,
        extensions: &Extensions,
    ) -> Result<IssuerSchedule, ConfigError> {
        let scheduled = |key: &str, name: &Spanned<String>, from: Option<Timestamp>| {
            let issuer = issuers.get(name.get_ref()).ok_or_else(|| {
                let known: Vec<_> = issuers.keys().map(|name| format!("\"{name}\"")).collect();
                let message =
                    format!("there is no issuer \"{}\"; the issuers are {}", name.get_ref(), known.join(", "));
                reader.error_at(name.span(), key, message)
            })?;
            let shards = Shards::new(issuer.crl_shards()).unwrap_or(Shards::ONE);
            let checked = extensions.check_shards(issuer, shards);
            checked.map_err(|message| reader.error("crl_distribution_points", message))?;
            let encoded = extensions
                .encode(issuer, shards)
                .map_err(|error| reader.error("extensions", format!("cannot be encoded: {error}")))?;
            Ok(ScheduledIssuer {
                from,
                head: [issuer.algorithm().identifier(), issuer.subject()].concat(),
                shard_places: extensions.shard_places(&encoded, shards),
                extensions: encoded,
                issuer: Arc::clone(issuer),
            })
        };
        let (first, rest) = match (&reader.settings.issuer, reader.settings.issuers.split_first()) {
            (Some(issuer), None) => (scheduled("issuer", issuer, None)?, &[][..]),
            (None, Some((first, rest))) => {
                if let Some(from) = &first.get_ref().from {
                    let message = "the first issuer serves until the second takes over; leave its from out";
                    return Err(reader.error_at(from.span(), "issuers", message));
                }
                (scheduled("issuers", &first.get_ref().name, None)?, rest)
            }
            _ => return Err(reader.error("issuer", "name either one issuer or several issuers")),
        };
        let mut schedule = IssuerSchedule { first, later: Vec::new() };
        for setting in rest {
            let wrong = |message: String| reader.error_at(setting.span(), "issuers", message);
            let from = setting
                .get_ref()
                .from
                .as_ref()
                .ok_or_else(|| wrong("say from when on, such as from = 2027-01-01T00:00:00Z in quotes".into()))?;
            let from = *from.get_ref();
            let next = scheduled("issuers", &setting.get_ref().name, Some(from))?;
            if schedule.later.last().is_some_and(|last| last.from >= Some(from)) {
                return Err(wrong(format!("{from} is not after the one before it")));
            }
            let [not_before, not_after] = [next.issuer.not_before(), next.issuer.not_after()];
            if Time::from(from) < not_before || Time::from(from) >= not_after {
                return Err(wrong(format!(
                    "{from} is outside the lifetime of the issuer \"{}\", which is valid from {not_before} until {not_after}",
                    next.issuer.name()
                )));
            }
            schedule.later.push(next);
        }
        Ok(schedule)
    }

    /// The one that issues at this moment.
    pub(super) fn at(&self, now: Timestamp) -> &ScheduledIssuer {
        self.later.iter().rev().find(|issuer| issuer.from <= Some(now)).unwrap_or(&self.first)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ScheduledIssuer> {
        std::iter::once(&self.first).chain(&self.later)
    }
}
