//! What the configuration says about issuing, opened and checked: CA chains, profiles, keys that no device may have.
//!
//! Nothing here needs the HSM, so `birthmark profile check` sees what the daemon sees.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use toml::Spanned;

use crate::{
    cert::{CaChain, IssuingCa, read_certificates},
    config::{self, Config, ConfigError},
    csr::RefusedKeys,
    lint::{self, Severity},
    profile::Profile,
    signer::{Absent, SignatureAlgorithm},
};

/// The issuing CAs by name.
pub type Issuers = BTreeMap<String, Arc<IssuingCa>>;

/// Reads an issuer's chain, and how it signs.
///
/// # Errors
/// What is wrong with the files, or that the key cannot sign so.
pub fn chain(
    config: &Config,
    name: &str,
    settings: &config::Issuer,
) -> Result<(CaChain, SignatureAlgorithm), ConfigError> {
    let wrong = |span, message: String| config.error_at(span, &format!("issuers.{name}.chain"), message);
    let mut chain = Vec::new();
    for file in &settings.chain {
        let path = config.resolve(file.get_ref());
        let certificates = read_certificates(&path);
        let certificates =
            certificates.map_err(|message| wrong(file.span(), format!("{}: {message}", path.display())))?;
        chain.extend(certificates.iter().map(|certificate| certificate.to_vec()));
    }
    let span = settings.chain.first().map_or(0..0, Spanned::span);
    let chain = CaChain::new(chain).map_err(|message| wrong(span.clone(), message))?;
    let algorithm = match &settings.signature {
        None => SignatureAlgorithm::for_key(chain.public_key()).map_err(|message| wrong(span, message))?,
        Some(signature) => {
            let algorithm = signature.get_ref().parse::<SignatureAlgorithm>();
            let algorithm = algorithm.and_then(|algorithm| algorithm.must_fit(chain.public_key()).map(|()| algorithm));
            algorithm
                .map_err(|message| config.error_at(signature.span(), &format!("issuers.{name}.signature"), message))?
        }
    };
    Ok((chain, algorithm))
}

/// The issuers without their keys.
///
/// # Errors
/// Those of [`chain`].
pub fn issuers_without_keys(config: &Config) -> Result<Issuers, ConfigError> {
    let issuers = config.issuers.iter().map(|(name, settings)| {
        let (chain, algorithm) = chain(config, name, settings)?;
        Ok((name.clone(), Arc::new(IssuingCa::new(name, chain, Arc::new(Absent(algorithm))))))
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
    if let Some(list) = &config.keys.block_list {
        let read = refused.read(&config.resolve(list.get_ref()));
        read.map_err(|message| config.error_at(list.span(), "keys.block_list", message))?;
    }
    for issuer in issuers.values() {
        for key in issuer.public_keys() {
            refused.add_authority(key, &format!("a CA in the chain of the issuer \"{}\"", issuer.name()));
        }
    }
    // Of a CA that issues, that is what to say.
    for issuer in issuers.values() {
        refused.add_authority(issuer.public_key(), &format!("the issuing CA \"{}\" itself", issuer.name()));
    }
    Ok(refused)
}
