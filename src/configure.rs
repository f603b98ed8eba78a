//! Turns the configuration into what issuing needs, checked: CA chains, profiles, keys that no device may have.
//!
//! Nothing here needs the HSM, so that `birthmark profile check` sees what the daemon sees.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use toml::Spanned;

use crate::{
    ca::{CaChain, IssuingCa},
    config::{self, Config, ConfigError},
    csr::RefusedKeys,
    lint::{self, Severity},
    path, pem,
    profile::Profile,
    signer::{SignatureAlgorithm, UnavailableSigner, UnknownAlgorithm},
    x509::Certificate,
    x509_time::Time,
};

/// The issuing CAs by name.
pub type Issuers = BTreeMap<String, Arc<IssuingCa>>;

/// Reads an issuer's chain and its signature algorithm.
///
/// # Errors
/// What is wrong with the files, that what it issues would not be valid, or that the key cannot sign so.
pub(crate) fn chain(
    config: &Config,
    name: &str,
    settings: &config::Issuer,
    now: Timestamp,
) -> Result<(CaChain, SignatureAlgorithm), ConfigError> {
    let wrong = |span, message: String| config.error_at(span, &format!("issuers.{name}.chain"), message);
    let mut chain = Vec::new();
    for file in &settings.chain {
        let path = config.resolve(file.get_ref());
        let certificates = pem::read_certificates(&path);
        chain.extend(certificates.map_err(|error| wrong(file.span(), format!("{}: {error}", path.display())))?);
    }
    let span = settings.chain.first().map_or(0..0, Spanned::span);
    let chain = CaChain::new(chain).map_err(|error| wrong(span.clone(), error.to_string()))?;
    let lifetime = chain.issuing().not_before..=chain.issuing().not_after;
    // A change to it outside of its lifetime is reported by the profile, with the line of the moment.
    for moment in moments(config, name, now).filter(|moment| *moment == now || lifetime.contains(&Time::from(*moment)))
    {
        chain.check_validity(moment.into()).map_err(|error| wrong(span.clone(), error.to_string()))?;
    }
    let algorithm = match &settings.signature {
        None => SignatureAlgorithm::for_key(chain.public_key().kind).map_err(|error| wrong(span, error.to_string()))?,
        Some(signature) => {
            let wrong = |message| config.error_at(signature.span(), &format!("issuers.{name}.signature"), message);
            let algorithm: SignatureAlgorithm =
                signature.get_ref().parse().map_err(|error: UnknownAlgorithm| wrong(error.to_string()))?;
            algorithm.check_key(chain.public_key().kind).map_err(|error| wrong(error.to_string()))?;
            algorithm
        }
    };
    Ok((chain, algorithm))
}

/// The moments from which profiles use this issuer, those past as `now`; none if all have changed to other issuers.
fn moments<'a>(config: &'a Config, issuer: &'a str, now: Timestamp) -> impl Iterator<Item = Timestamp> + 'a {
    config.profiles.values().flat_map(move |profile| {
        let whole = profile.issuer.as_ref().filter(|name| name.get_ref() == issuer).map(|_| now);
        let lines = profile.issuers.iter().enumerate().filter_map(move |(index, line)| {
            let next = profile.issuers.get(index + 1).and_then(|next| next.get_ref().from.as_ref());
            let replaced = next.is_some_and(|from| *from.get_ref() <= now);
            let line = line.get_ref();
            let from = line.from.as_ref().map_or(now, |from| (*from.get_ref()).max(now));
            (line.name.get_ref() == issuer && !replaced).then_some(from)
        });
        whole.into_iter().chain(lines)
    })
}

/// The issuers without their keys.
///
/// # Errors
/// Those of `chain`.
pub fn issuers_without_keys(config: &Config, now: Timestamp) -> Result<Issuers, ConfigError> {
    let issuers = config.issuers.iter().map(|(name, settings)| {
        let (chain, algorithm) = chain(config, name, settings, now)?;
        let issuer = IssuingCa::new(name, chain, Arc::new(UnavailableSigner(algorithm)));
        Ok((name.clone(), Arc::new(issuer.with_crl_shards(settings.crl_shards()))))
    });
    issuers.collect()
}

/// Makes the profiles, and lints each.
///
/// # Errors
/// The first profile that is contradictory, or that could only give invalid certificates.
pub fn profiles(config: &Config, issuers: &Issuers, now: Timestamp) -> Result<Vec<Profile>, ConfigError> {
    let mut profiles = Vec::new();
    for (name, settings) in &config.profiles {
        let profile = Profile::new(config, name, settings, issuers)?;
        for finding in lint::profile(&profile, settings, now) {
            let error = config.profile_error(name, finding.key, &finding);
            match finding.severity {
                Severity::Error => return Err(error),
                Severity::Warning => tracing::warn!("{error}"),
            }
        }
        profiles.push(profile);
    }
    Ok(profiles)
}

/// The site's block list, and the keys of every CA in the issuers' chains.
///
/// # Errors
/// What is wrong with the block list.
pub fn refused_keys(config: &Config, issuers: &Issuers) -> Result<RefusedKeys, ConfigError> {
    let mut refused = RefusedKeys::default();
    if let Some(list) = &config.refused_keys.block_list {
        let read = refused.read(&config.resolve(list.get_ref()));
        read.map_err(|message| config.error_at(list.span(), "refused_keys.block_list", message))?;
    }
    for issuer in issuers.values() {
        for key in issuer.public_keys() {
            refused.add_authority(key, &format!("a CA in the chain of the issuer \"{}\"", issuer.name()));
        }
    }
    // For an issuing CA this description takes precedence.
    for issuer in issuers.values() {
        refused.add_authority(issuer.public_key(), &format!("the issuing CA \"{}\" itself", issuer.name()));
    }
    Ok(refused)
}

/// Checks that no device certificate is accepted as a station's: no client CA may be above an issuer of devices.
///
/// # Errors
/// Which it is.
pub(crate) fn check_client_ca(config: &Config, issuers: &Issuers) -> Result<(), ConfigError> {
    let setting = &config.server.client_ca;
    let wrong = |message: String| config.error_at(setting.span(), "server.client_ca", message);
    let file = config.resolve(setting.get_ref());
    let clients = pem::read_certificates(&file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
    for client_ca in clients {
        let client_ca = Certificate::from_der(&client_ca)
            .map_err(|error| wrong(format!("{}: a certificate in it is not DER: {error}", file.display())))?;
        for issuer in issuers.values() {
            let chain = issuer.certificates().certificates();
            let above =
                chain.iter().any(|ca| ca.spki == client_ca.spki || path::check_issued_by(ca, &client_ca).is_ok());
            if above {
                return Err(wrong(format!(
                    "\"{}\" is a CA of the issuer \"{}\", so every device could connect as a station; clients need a CA \
                     of their own, which issues no devices",
                    client_ca.subject(),
                    issuer.name()
                )));
            }
        }
    }
    Ok(())
}
