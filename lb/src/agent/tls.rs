//! `wss://`: TLS between agent and balancer, with a certificate of the operator's own making.
//!
//! A balancer believes the certificates of the given file, and no others: the system's authorities have no say.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection, with or without TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err("it holds no certificate".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it can't be read: {error}")),
    }
}

/// Speaks TLS with this certificate (its chain may follow) and key, both PEM. The error says which file is wrong.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: String| format!("{path}: {error}")
    };
    let chain = certificates(certificate).map_err(named(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key)(format!("it can't be read: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| named(certificate)(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Believes the certificates that `authority`, a PEM file, has signed, or holds. The error says what is wrong.
pub fn connector(authority: &Path) -> Result<TlsConnector, String> {
    let named = |error: String| format!("{}: {error}", authority.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority).map_err(named)? {
        roots.add(certificate).map_err(|error| named(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| named(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The other end's side of the handshake is checked against `host`.
pub(super) async fn connect(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<Box<dyn Socket>, String> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| format!("'{host}' is no name that a certificate could have: {error}"))?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(stream))
}
