//! The keys that sign: the issuers' and the audit key, each opened in its tokens and checked.

use std::{fmt::Display, sync::Arc, time::Duration};

use jiff::Timestamp;
use toml::Spanned;

use super::error::ServeError;
use crate::{
    ca::IssuingCa,
    config::{self, Config, ConfigError},
    configure::{self, Issuers},
    hsm::{self, Key, KeyUri, Pool, PoolSettings, Sessions, Token},
    metrics::AUDIT,
    pem,
    signer::PublicKey,
};

/// The pools that have the issuers' keys, by the issuers' names.
pub(super) type Pools = Vec<(String, Arc<Pool>)>;

/// Opens every issuer's key.
pub(super) fn open_issuers(config: &Config) -> Result<(Pools, Issuers), ServeError> {
    let mut pools = Vec::new();
    let mut issuers = Issuers::new();
    for (name, settings) in &config.issuers {
        let (chain, algorithm) = configure::chain(config, name, settings, Timestamp::now())?;
        let wrong_key =
            |error: &dyn Display| config.error_at(settings.key_uri.span(), &format!("issuers.{name}.key_uri"), error);
        let uris = settings.key_uri.get_ref().uris().iter().map(|uri| {
            let mut uri = KeyUri::parse(uri)?;
            uri.key.algorithm = Some(algorithm);
            Ok(uri)
        });
        let uris = uris.collect::<Result<Vec<_>, hsm::UriError>>().map_err(|error| wrong_key(&error))?;
        let pool_settings = PoolSettings {
            sessions: match settings.sessions.as_ref().map(Spanned::get_ref) {
                Some(config::Sessions::Number(number)) => Sessions::Number(*number),
                Some(config::Sessions::Auto(_)) | None => Sessions::Auto,
            },
            call_limit: Duration::from_secs(*settings.call_limit_seconds.get_ref()),
            wait: Duration::from_secs(*settings.wait_seconds.get_ref()),
        };
        let pool = Pool::open(name, &uris, &pool_settings, chain.public_key(), config.folder());
        let pool = Arc::new(pool.map_err(|error| unusable(&error, &wrong_key))?);
        pools.push((name.clone(), Arc::clone(&pool)));
        issuers
            .insert(name.clone(), Arc::new(IssuingCa::new(name, chain, pool).with_crl_shards(settings.crl_shards())));
    }
    Ok((pools, issuers))
}

/// Why the HSM's key cannot be used, as the daemon's exit tells it.
fn unusable(error: &hsm::Error, wrong_key: &dyn Fn(&dyn Display) -> ConfigError) -> ServeError {
    match error {
        hsm::Error::PinIncorrect { .. } | hsm::Error::PinLocked { .. } => ServeError::PinRefused(wrong_key(error)),
        _ => wrong_key(error).into(),
    }
}

/// What checkpoints are signed with, and how often.
pub(super) struct AuditKey {
    pub(super) signer: Arc<Pool>,
    pub(super) public_key: PublicKey,
    pub(super) interval: Duration,
}

/// How long the HSM may take for a checkpoint; a later one covers what this one would have.
const AUDIT_LIMIT: Duration = Duration::from_secs(10);

/// Opens the audit key, if there is one. It must issue nothing: who can make the daemon sign certificates must not be
/// able to vouch for the journal.
pub(super) fn open_audit(config: &Config, issuers: &Issuers) -> Result<Option<AuditKey>, ServeError> {
    let Some(audit) = &config.audit else {
        tracing::warn!("there is no [audit] key: nothing will show that the journal was cut short or rewritten");
        return Ok(None);
    };
    let wrong_key = |error: &dyn Display| config.error_at(audit.key_uri.span(), "audit.key_uri", error);
    let uri = KeyUri::parse(audit.key_uri.get_ref()).map_err(|error| wrong_key(&error))?;
    let (named, folder) = (uri.clone(), config.folder().to_owned());
    let key = hsm::with_timeout(AUDIT_LIMIT, move || {
        let token = Token::open(&named.token, &folder)?;
        Ok(Key::open(&token, &named.key)?.public_key().clone())
    });
    let key = key.map_err(|error| unusable(&error, &wrong_key))?;
    if let Some((name, _)) = issuers.iter().find(|(_, issuer)| *issuer.public_key() == key) {
        let message = format!("this is the key of the issuer \"{name}\"; checkpoints need a key that issues nothing");
        return Err(wrong_key(&message).into());
    }
    let pool_settings = PoolSettings { sessions: Sessions::Number(1), call_limit: AUDIT_LIMIT, wait: AUDIT_LIMIT };
    let pool = Pool::open(AUDIT, &[uri], &pool_settings, &key, config.folder());
    let pool = pool.map_err(|error| unusable(&error, &wrong_key))?;
    let interval = audit.interval().unwrap_or_default();
    Ok(Some(AuditKey { signer: Arc::new(pool), public_key: key, interval }))
}

/// The keys that may have signed the checkpoint file; none without an audit key.
pub(super) fn audit_keys(config: &Config, audit: Option<&AuditKey>) -> Result<Vec<PublicKey>, ConfigError> {
    let (Some(settings), Some(AuditKey { public_key: key, .. })) = (&config.audit, audit) else {
        return Ok(Vec::new());
    };
    let previous = settings.previous_keys.iter().map(|path| {
        let file = config.resolve(path.get_ref());
        let unreadable = |error: &dyn Display| {
            let message = format!("cannot read a public key from {}: {error}", file.display());
            config.error_at(path.span(), "audit.previous_keys", message)
        };
        let spki = pem::read_public_key(&file).map_err(|error| unreadable(&error))?;
        PublicKey::from_spki(&spki).map_err(|error| unreadable(&error))
    });
    std::iter::once(Ok(key.clone())).chain(previous).collect()
}
