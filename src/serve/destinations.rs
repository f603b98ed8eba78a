//! The destinations of the configuration, checked against what their platforms take.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::{Config, ConfigError, Destination as Section, DestinationTerms, Unattended},
    destinations::Destination,
    export::{jws::thumbprint, settings::Settings},
    ledger::{Filter, Moment},
    pattern::allows,
    signer::PublicKey,
};

/// Reads all destinations. `audit` signs their manifests.
pub(super) fn read(
    config: &Config,
    audit: Option<&PublicKey>,
) -> Result<Arc<BTreeMap<String, Arc<Destination>>>, ConfigError> {
    if let (false, Some(key), Some(settings)) = (config.destinations.is_empty(), audit, &config.audit) {
        let wrong = |error| config.error_at(settings.key_uri.span(), "audit.key_uri", error);
        thumbprint(key).map_err(|error| wrong(format!("{error}, as [destinations] need it to")))?;
    }
    let one = |(name, section)| Ok((String::clone(name), Arc::new(one(config, name, section)?)));
    Ok(Arc::new(config.destinations.iter().map(one).collect::<Result<_, ConfigError>>()?))
}

/// Reads a destination.
pub(super) fn one(config: &Config, name: &str, section: &Section) -> Result<Destination, ConfigError> {
    let wrong = |key: &str, message: String| config.destination_error(name, &section.wrong(key, message));
    let terms = section.terms().map_err(|error| config.destination_error(name, &error))?;
    let DestinationTerms { profiles, orders, confirmed, unattended, format } = terms;
    let settings = Settings::parse(&format).map_err(|errors| {
        let first = errors.first().map(|first| (first.key.clone(), first.message.clone())).unwrap_or_default();
        let more: Vec<_> = errors.iter().skip(1).map(ToString::to_string).collect();
        let more = if more.is_empty() { String::new() } else { format!(" (and {})", more.join("; ")) };
        wrong(&first.0, first.1 + &more)
    })?;
    if !config.profiles.keys().any(|profile| allows(&profiles, profile)) {
        let known: Vec<_> = config.profiles.keys().map(String::as_str).collect();
        return Err(wrong("profiles", format!("fits no profile; the profiles are {}", known.join(", "))));
    }
    let unattended = unattended.map(|settings| Unattended { folder: config.resolve(&settings.folder), ..settings });
    let moment = if confirmed { Moment::Confirmed } else { Moment::Issued };
    let filter = Filter { profiles, orders, moment };
    Ok(Destination { name: name.to_owned(), filter, settings, unattended })
}
