//! TLS between nodes: rustls over ring, certificates that can be exchanged while connections
//! live, HTTP/2 announced on both sides.
//!
//! Install ring as the process's provider first (`rustls::crypto::ring::default_provider()`);
//! nothing here depends on it, but tonic's own defaults do.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::ca::Identity;

/// The name every manager's certificate bears and no worker's does.
pub const MANAGER_NAME: &str = "swarm-manager";
const ALPN: &[u8] = b"h2";

/// Why TLS could not be set up; all of these mean broken files.
#[derive(Debug, thiserror::Error)]
#[error("the node's certificate or key cannot be used: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn from(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A node's identity as TLS uses it. Another one, be it a renewed certificate or other roots to
/// trust, holds for every connection made afterwards, at both ends.
#[derive(Debug)]
pub struct LiveIdentity {
    made: ArcSwap<Made>,
    replaced: watch::Sender<()>,
}

/// What is made of one identity. No part of it outlives that identity: the settings of a server
/// remember those whom it has verified.
#[derive(Debug)]
struct Made {
    identity: Arc<Identity>,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Made {
    fn of(identity: Identity) -> Result<Self, TlsError> {
        let key = Arc::new(certified_key(&identity)?);
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::from)?
            .with_client_cert_verifier(verifier(identity.roots_pem())?)
            .with_cert_resolver(Arc::new(Own(Arc::clone(&key))));
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            identity: Arc::new(identity),
            key,
            server: Arc::new(server),
        })
    }
}

impl LiveIdentity {
    pub fn new(identity: Identity) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            made: ArcSwap::from_pointee(Made::of(identity)?),
            replaced: watch::Sender::default(),
        }))
    }

    pub fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.made.load().identity)
    }

    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        self.made.store(Arc::new(Made::of(identity)?));
        self.replaced.send_replace(());
        Ok(())
    }

    /// Changes whenever the identity is another.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }
}

/// Shows one certificate to everybody.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

fn certified_key(identity: &Identity) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::from)?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).map_err(TlsError::from)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::from)
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn roots(roots_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        let certificate = certificate.map_err(TlsError::from)?;
        store.add(certificate).map_err(TlsError::from)?;
    }
    Ok(Arc::new(store))
}

fn verifier(roots_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots(roots_pem)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::from)
}

/// Whether a node's certificate, with what stands between it and a root, is accepted by those who
/// trust these roots. `now` is since the Unix epoch.
pub(crate) fn accepts(roots_pem: &str, chain_pem: &str, now: Duration) -> Result<(), TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(TlsError::from)?;
    verify(roots_pem, &chain, UnixTime::since_unix_epoch(now))
}

/// The same of one that was shown when a connection was opened.
pub(crate) fn still_accepts(roots_pem: &str, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    verify(roots_pem, chain, UnixTime::now())
}

fn verify(roots_pem: &str, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
    let (leaf, between) = chain
        .split_first()
        .ok_or_else(|| TlsError::from("it has no certificate"))?;
    verifier(roots_pem)?
        .verify_client_cert(leaf, between, now)
        .map(drop)
        .map_err(TlsError::from)
}

/// A manager's side, for one connection. Those without a client certificate pass the handshake,
/// because newcomers have none; each service then demands what it needs.
pub fn server(identity: &LiveIdentity) -> Arc<ServerConfig> {
    Arc::clone(&identity.made.load().server)
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError>
{
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::from)
}

/// A member's side, for one connection.
pub fn member(identity: &LiveIdentity) -> Result<Arc<ClientConfig>, TlsError> {
    let made = identity.made.load();
    let mut config = client_builder()?
        .with_root_certificates(roots(made.identity.roots_pem())?)
        .with_client_cert_resolver(Arc::new(Own(Arc::clone(&made.key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A newcomer's side that knows the root already.
pub fn newcomer(root_pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = client_builder()?
        .with_root_certificates(roots(root_pem)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A newcomer's side that only fetches the root, which it then checks against its token:
/// nothing that comes over such a connection may be believed for itself.
pub fn stranger() -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
