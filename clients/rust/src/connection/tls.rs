//! TLS to a daemon.
//!
//! With TLS 1.3 a daemon refuses a client's certificate after the client's side of the handshake is done (RFC 8446 section 4.4.2.4).
//! So a connection counts only once the daemon has spoken over it, and its refusal is heard here, before HTTP/2 would only see a
//! connection that closes.

use std::{io, path::Path, sync::Arc, time::Duration};

use birthmark_base::pem;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{io::AsyncBufReadExt, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::error::SettingsError;

/// A daemon speaks first, at once: HTTP/2's SETTINGS. What does not is taken as it is after this time.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// How TLS is spoken with one daemon.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The files of an identity, as they were read.
pub(super) struct IdentityFiles<'a> {
    pub(super) folder: &'a Path,
    /// DER.
    pub(super) ca: Vec<Vec<u8>>,
    /// PEM.
    pub(super) certificate: Zeroizing<Vec<u8>>,
    /// PEM.
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl Tls {
    /// Of a daemon with this name in its certificate.
    pub(super) fn new(host: &str, files: IdentityFiles<'_>) -> Result<Tls, SettingsError> {
        let IdentityFiles { folder, ca, certificate, key } = files;
        let unusable = |cause: String| SettingsError::Identity { folder: folder.to_owned(), cause };
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(CertificateDer::from(certificate)).map_err(|error| unusable(format!("ca.pem: {error}")))?;
        }
        let blocks = pem::blocks(&certificate).map_err(|error| unusable(format!("cert.pem: {error}")))?;
        let chain: Vec<_> = blocks
            .into_iter()
            .filter(pem::Block::is_certificate)
            .map(|block| CertificateDer::from(block.der))
            .collect();
        if chain.is_empty() {
            return Err(unusable("cert.pem holds no certificate".to_owned()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|_| unusable("key.pem holds no private key".to_owned()))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key));
        let mut config = config.map_err(|error| unusable(told(&error)))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| unusable(format!("{host} is no name that a certificate can have")))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Opens a connection over which the daemon has spoken.
    pub(super) async fn connect(self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        let open = move |uri: Uri| {
            let tls = self.clone();
            async move { tls.open(uri).await.map(TokioIo::new) }
        };
        endpoint.connect_with_connector(tower::service_fn(open)).await
    }

    async fn open(&self, uri: Uri) -> io::Result<TlsStream<TcpStream>> {
        // It tries a name's addresses of both families.
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let tcp = tcp.oneshot(uri).await.map_err(io::Error::other)?.into_inner();
        let mut stream = self.connector.connect(self.name.clone(), tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        match timeout(FIRST_WORD, stream.fill_buf()).await {
            Ok(Ok([])) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(stream),
        }
    }
}

/// Why rustls does not take an identity.
fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "cert.pem and key.pem do not belong together; copy both from the folder in which they were made".to_owned()
        }
        error => error.to_string(),
    }
}
