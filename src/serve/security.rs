//! The security log that the configuration names.

use super::error::ServeError;
use crate::{
    config::{Config, ConfigError},
    security_log::{Address, SecurityLog},
};

/// Where records go besides a file.
///
/// # Errors
/// It is no address.
pub(super) fn receiver(config: &Config) -> Result<Option<Address>, ConfigError> {
    let Some(text) = config.security_log.as_ref().and_then(|log| log.syslog.as_ref()) else { return Ok(None) };
    let address = text.get_ref().parse::<Address>();
    address.map(Some).map_err(|error| config.error_at(text.span(), "security_log.syslog", error))
}

/// Begins the security log; none if the configuration has none.
///
/// # Errors
/// The receiver's address is none, or the file cannot be opened.
pub fn security_log(config: &Config) -> Result<Option<SecurityLog>, ServeError> {
    let receiver = receiver(config)?;
    let file = config.security_log.as_ref().and_then(|log| log.file.as_ref());
    if file.is_none() && receiver.is_none() {
        return Ok(None);
    }
    let path = file.map(|file| config.resolve(file.get_ref()));
    let started = SecurityLog::start(path.as_deref(), receiver);
    let span = file.map_or(0..0, |file| file.span());
    Ok(Some(started.map_err(|error| config.error_at(span, "security_log.file", error))?))
}
