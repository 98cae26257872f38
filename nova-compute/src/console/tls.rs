//! TLS at the host's own door to serial ports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nova_core::contracts::BoxError;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The files of the host's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialTls {
    /// The host's certificate, PEM, which names the address at which proxies reach it (`serial_console.tls_cert`).
    pub certificate: PathBuf,
    /// Its key, PEM (`serial_console.tls_key`).
    pub key: PathBuf,
    /// The authorities that sign proxies' certificates, PEM (`serial_console.tls_client_ca`); `None`: proxies need none.
    pub client_authorities: Option<PathBuf>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("serial_console: {} cannot be used", file.display())]
pub struct SerialTlsError {
    file: PathBuf,
    #[source]
    source: BoxError,
}

fn unusable<E: Into<BoxError>>(file: &Path) -> impl FnOnce(E) -> SerialTlsError {
    move |error| SerialTlsError { file: file.to_owned(), source: error.into() }
}

impl SerialTls {
    /// Reads the files.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, SerialTlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unusable(&self.key))?;
        let chain = certificates(&self.certificate)?;
        let builder = match &self.client_authorities {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(unusable(file))?;
                }
                let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(unusable(file))?;
                ServerConfig::builder().with_client_cert_verifier(clients)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(unusable(&self.certificate))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SerialTlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(unusable(file))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(unusable(file))?;
    if found.is_empty() {
        return Err(unusable(file)("no certificate is in it"));
    }
    Ok(found)
}
