//! The TLS settings that the configuration names.

use std::sync::Arc;

use crate::{
    config::{self, Config, ConfigError},
    grpc::{
        Access,
        tls::{self, TlsError},
    },
};

/// Reads the TLS settings.
pub(super) fn open_tls(config: &Config, access: &Arc<Access>) -> Result<Arc<rustls::ServerConfig>, ConfigError> {
    let config::Server { certificate, key, client_ca, .. } = &config.server;
    let [certificate_file, key_file, client_ca_file] =
        [certificate, key, client_ca].map(|path| config.resolve(path.get_ref()));
    let tls =
        tls::configure([&certificate_file, &key_file, &client_ca_file], access).map_err(|error| match &error {
            TlsError::Certificate { .. } if !certificate_file.exists() => {
                let message = format!("{error}; \"birthmark station enroll NAME --role server\" makes it");
                config.error_at(certificate.span(), "server.certificate", message)
            }
            TlsError::Certificate { .. } | TlsError::Setup(_) => {
                config.error_at(certificate.span(), "server.certificate", error)
            }
            TlsError::Key { .. } => config.error_at(key.span(), "server.key", error),
            TlsError::ClientCa { .. } => config.error_at(client_ca.span(), "server.client_ca", error),
        })?;
    Ok(tls)
}
