//! Reads a profile's section of the configuration; every error names file, line and key.

use std::{fmt, ops::Range};

use toml::Spanned;

use crate::config::{self, Config, ConfigError};

pub(super) struct Reader<'a> {
    pub(super) config: &'a Config,
    pub(super) name: &'a str,
    pub(super) settings: &'a config::Profile,
}

impl Reader<'_> {
    /// An error about a key of the profile.
    pub(super) fn error(&self, key: &str, message: impl fmt::Display) -> ConfigError {
        self.config.profile_error(self.name, key, message)
    }

    pub(super) fn error_at(&self, span: Range<usize>, key: &str, message: impl fmt::Display) -> ConfigError {
        self.config.error_at(span, &format!("profiles.{}.{key}", self.name), message)
    }

    /// Reads each value of a list.
    pub(super) fn each<T, E: fmt::Display>(
        &self,
        key: &str,
        list: &[Spanned<String>],
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        list.iter().map(|text| read(text.get_ref()).map_err(|error| self.error_at(text.span(), key, error))).collect()
    }
}
