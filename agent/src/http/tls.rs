//! TLS on the API's addresses: this host's certificate, and clients' of one authority.
//!
//! The files are read again when they have changed, so that a new certificate needs no restart.
//! What cannot be read then is told in the log, and the last good ones stay in force.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::role::{Role, Roles, Subject};

/// The files, as dockerd's flags name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authority of the clients' certificates.
    pub ca: PathBuf,
    /// This host's certificate, and those between it and its authority.
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        [&self.ca, &self.cert, &self.key]
            .map(|path| Stamp::of(path))
            .to_vec()
    }

    fn read(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            let added = authorities.add(certificate);
            added.with_context(|| {
                format!("tlscacert: {} has no usable certificate", self.ca.display())
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(
            Arc::new(authorities),
            Arc::clone(&provider),
        )
        .build()
        .context("tlscacert: clients cannot be verified")?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("tlskey: {} cannot be read", self.key.display()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates(&self.cert)?, key)
            .with_context(|| {
                format!(
                    "{} and {} do not go together",
                    self.cert.display(),
                    self.key.display()
                )
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A ticket would let a client in whose authority has been exchanged since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<CertificateDer<'static>> =
        found.with_context(|| format!("{} cannot be read", path.display()))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no certificate in it (PEM)",
        path.display()
    );
    Ok(found)
}

/// What changes with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let facts = std::fs::metadata(path).ok();
        Self(facts.map(|facts| (facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec())))
    }
}

/// A door's side of TLS.
pub struct Tls {
    files: Files,
    roles: Roles,
    inner: Mutex<(Vec<Stamp>, Arc<ServerConfig>)>,
}

impl Tls {
    /// Fails when the files are not there or do not go together.
    pub fn open(files: Files, roles: Roles) -> anyhow::Result<Self> {
        let inner = Mutex::new((files.stamps(), files.read()?));
        Ok(Self {
            files,
            roles,
            inner,
        })
    }

    /// What holds now: three looks at the folder for each connection, which a handshake dwarfs.
    fn config(&self) -> Arc<ServerConfig> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if inner.0 != stamps {
            match self.files.read() {
                Ok(config) => {
                    tracing::info!("the API's certificates have been read again");
                    inner.1 = config;
                }
                Err(error) => tracing::warn!("the API's certificates stay as they were: {error:#}"),
            }
            inner.0 = stamps;
        }
        Arc::clone(&inner.1)
    }

    /// The handshake, and who the client is.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Role, String)> {
        let stream = TlsAcceptor::from(self.config()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let subject = shown.and_then(|shown| shown.first()).and_then(subject);
        let subject =
            subject.ok_or_else(|| io::Error::other("the client's certificate cannot be read"))?;
        let role = self.roles.of(&subject);
        Ok((stream, role, subject.name().to_owned()))
    }
}

/// What a certificate says; the authority's signature has been checked before.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let texts = |values: &mut dyn Iterator<
        Item = &x509_parser::x509::AttributeTypeAndValue<'_>,
    >|
     -> Vec<String> {
        values
            .filter_map(|value| value.as_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let mut names = texts(&mut parsed.subject().iter_common_name());
    let others = parsed.subject_alternative_name().ok().flatten();
    for name in others.iter().flat_map(|others| &others.value.general_names) {
        match name {
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
                names.push((*text).to_owned());
            }
            _ => {}
        }
    }
    Some(Subject {
        names,
        units: texts(&mut parsed.subject().iter_organizational_unit()),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_says_its_names_and_units() {
        let mut params = CertificateParams::new(vec!["ci.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "ci");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "deploy");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let found = subject(certificate.der()).unwrap();
        assert_eq!(found.names, ["ci", "ci.example"]);
        assert_eq!(found.units, ["deploy"]);
        assert_eq!(
            subject(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])),
            None
        );
    }

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let files = Files {
            ca: path.clone(),
            cert: path.clone(),
            key: path,
        };
        let error = format!("{:#}", files.read().unwrap_err());
        assert!(error.contains("ca.pem has no certificate"), "{error}");
    }
}
