//! The section `[est]` of the configuration.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

/// `[est]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Est {
    /// The address of the TLS port; port 0 takes any free one.
    pub listen: Spanned<SocketAddr>,
    /// What a request without a label means: `PROFILE`, or `PROFILE~ORDER`; none if absent.
    pub default_label: Option<Spanned<String>>,
}
