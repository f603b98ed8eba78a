//! TLS for EST: a client certificate is asked for and not demanded. It may be a station's, from the station CA, or a
//! device's, from one of the issuers.

use std::sync::Arc;

use rustls::{
    DistinguishedName, Error, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::grpc::{Access, Judge, Judged};

/// The TLS settings, and what tells stations from devices.
#[derive(Clone)]
pub(crate) struct TlsSetup {
    pub(super) config: Arc<ServerConfig>,
    stations: Arc<dyn ClientCertVerifier>,
    pub(super) access: Arc<Access>,
}

impl TlsSetup {
    /// Whether a client certificate is valid now and comes from the station CA: only there a URN is a role, whatever a
    /// device's certificate has.
    pub(super) fn is_of_station_ca(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((certificate, intermediates)) = chain.split_first() else { return false };
        self.stations.verify_client_cert(certificate, intermediates, UnixTime::now()).is_ok()
    }
}

/// As the gRPC port has it, but that clients need no certificate, and devices' certificates are taken as well: `issuers` are
/// the certificates of the CAs that issue them. `stations` is the gRPC port's verifier, which asks
/// `access`.
///
/// # Errors
/// What rustls finds wrong.
pub(crate) fn configure(
    grpc: &ServerConfig,
    (stations, access): (Arc<dyn ClientCertVerifier>, &Arc<Access>),
    issuers: impl IntoIterator<Item = Vec<u8>>,
) -> Result<TlsSetup, Error> {
    let mut roots = RootCertStore::empty();
    // What webpki cannot read is no reason not to serve the others' devices.
    roots.add_parsable_certificates(issuers.into_iter().map(CertificateDer::from));
    let provider = Arc::clone(grpc.crypto_provider());
    let devices = match roots.is_empty() {
        true => None,
        false => WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok(),
    };
    let hints = devices.iter().flat_map(|devices| devices.root_hint_subjects());
    let hints = stations.root_hint_subjects().iter().chain(hints).cloned().collect();
    let verifier = Judged { path: Arc::clone(&stations), judge: Either { devices, hints } };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(&grpc.cert_resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsSetup { config: Arc::new(config), stations, access: Arc::clone(access) })
}

/// Takes the certificates of stations, whose verifier is asked first, and those of devices.
#[derive(Debug)]
struct Either {
    devices: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl Judge for Either {
    fn demands_one(&self) -> bool {
        false
    }

    fn hints(&self) -> Option<&[DistinguishedName]> {
        Some(&self.hints)
    }

    fn judge(
        &self,
        path: Result<ClientCertVerified, Error>,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match (path, &self.devices) {
            (Err(_), Some(devices)) => devices.verify_client_cert(certificate, intermediates, now),
            (verified, _) => verified,
        }
    }
}
