//! TLS for EST: a client certificate is asked for and not demanded. It may be a station's, from the station CA, or a
//! device's, from one of the issuers.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::grpc::Access;

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
    let verifier = Either { stations: Arc::clone(&stations), devices, hints };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(&grpc.cert_resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsSetup { config: Arc::new(config), stations, access: Arc::clone(access) })
}

/// Takes the certificates of both.
#[derive(Debug)]
struct Either {
    stations: Arc<dyn ClientCertVerifier>,
    devices: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Either {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let station = self.stations.verify_client_cert(end_entity, intermediates, now);
        match (station, &self.devices) {
            (Err(_), Some(devices)) => devices.verify_client_cert(end_entity, intermediates, now),
            (verified, _) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.stations.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.stations.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.stations.supported_verify_schemes()
    }
}
