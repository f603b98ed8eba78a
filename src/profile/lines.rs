//! The issuers of a profile, each from a moment on, and what each has constant in its certificates.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use toml::Spanned;

use super::{extensions::Extensions, reader::Reader};
use crate::{ca::IssuingCa, config::ConfigError, x509_time::Time};

/// An issuer of a profile, with all of a certificate that does not vary encoded.
#[derive(Debug)]
pub(super) struct Line {
    /// When the profile moves over to it; the first has none.
    pub(super) from: Option<Timestamp>,
    pub(super) issuer: Arc<IssuingCa>,
    /// The signature's AlgorithmIdentifier and the issuer's Name: what stands between serial number and validity.
    pub(super) head: Vec<u8>,
    /// The extensions that are the same in every certificate.
    pub(super) extensions: Vec<u8>,
}

/// In the order in which they take over; the first has no moment, so there is always one.
#[derive(Debug)]
pub(super) struct Lines {
    first: Line,
    later: Vec<Line>,
}

impl Lines {
    pub(super) fn read(
        reader: &Reader<'_>,
        issuers: &BTreeMap<String, Arc<IssuingCa>>,
        extensions: &Extensions,
    ) -> Result<Lines, ConfigError> {
        let line = |key: &str, name: &Spanned<String>, from: Option<Timestamp>| {
            let issuer = issuers.get(name.get_ref()).ok_or_else(|| {
                let known: Vec<_> = issuers.keys().map(|name| format!("\"{name}\"")).collect();
                let message =
                    format!("there is no issuer \"{}\"; the issuers are {}", name.get_ref(), known.join(", "));
                reader.error_at(name.span(), key, message)
            })?;
            Ok(Line {
                from,
                head: [issuer.algorithm().identifier(), issuer.subject()].concat(),
                extensions: extensions.encode(issuer),
                issuer: Arc::clone(issuer),
            })
        };
        let (first, rest) = match (&reader.settings.issuer, reader.settings.issuers.split_first()) {
            (Some(issuer), None) => (line("issuer", issuer, None)?, &[][..]),
            (None, Some((first, rest))) => {
                if let Some(from) = &first.get_ref().from {
                    let message = "the first issuer serves until the second takes over; leave its from out";
                    return Err(reader.error_at(from.span(), "issuers", message));
                }
                (line("issuers", &first.get_ref().name, None)?, rest)
            }
            _ => return Err(reader.error("issuer", "name either one issuer or several issuers")),
        };
        let mut lines = Lines { first, later: Vec::new() };
        for setting in rest {
            let wrong = |message: String| reader.error_at(setting.span(), "issuers", message);
            let from = setting
                .get_ref()
                .from
                .as_ref()
                .ok_or_else(|| wrong("say from when on, such as from = 2027-01-01T00:00:00Z in quotes".into()))?;
            let from = *from.get_ref();
            let line = line("issuers", &setting.get_ref().name, Some(from))?;
            if lines.later.last().is_some_and(|last| last.from >= Some(from)) {
                return Err(wrong(format!("{from} is not after the one before it")));
            }
            let [begins, ends] = [line.issuer.not_before(), line.issuer.not_after()];
            if Time::from(from) < begins || Time::from(from) >= ends {
                return Err(wrong(format!(
                    "{from} is outside the life of the issuer \"{}\", which is valid from {begins} until {ends}",
                    line.issuer.name()
                )));
            }
            lines.later.push(line);
        }
        Ok(lines)
    }

    /// The one that issues at this moment.
    pub(super) fn at(&self, now: Timestamp) -> &Line {
        self.later.iter().rev().find(|line| line.from <= Some(now)).unwrap_or(&self.first)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.first).chain(&self.later)
    }
}
