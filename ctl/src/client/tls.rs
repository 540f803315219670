//! TLS with a daemon: Docker's flags, variables and files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What was typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsFlags {
    /// Speak TLS with a tcp:// daemon, and verify it (also DOCKER_TLS_VERIFY)
    #[arg(long)]
    pub tlsverify: bool,
    /// The authority of the daemon's certificate [default: ca.pem in DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// The certificate to show [default: cert.pem there]
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Its key [default: key.pem there]
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
}

/// The files of a client's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    ca: PathBuf,
    /// Certificate and key.
    own: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// Absent: TLS is not asked for. `folder` has Docker's client settings.
    pub fn choose(
        flags: TlsFlags,
        variables: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Option<Self> {
        let named = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        if !flags.tlsverify && named("DOCKER_TLS_VERIFY").is_none() {
            return None;
        }
        let folder = named("DOCKER_CERT_PATH").map_or_else(|| folder.to_owned(), PathBuf::from);
        // As docker: files that nobody has named may be missing.
        let asked = flags.tlscert.is_some() || flags.tlskey.is_some();
        let cert = flags.tlscert.unwrap_or_else(|| folder.join("cert.pem"));
        let key = flags.tlskey.unwrap_or_else(|| folder.join("key.pem"));
        let there = asked || cert.exists() || key.exists();
        Some(Self {
            ca: flags.tlscacert.unwrap_or_else(|| folder.join("ca.pem")),
            own: there.then_some((cert, key)),
        })
    }

    /// Reads them. The error names the file.
    pub fn read(&self) -> Result<Tls, String> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            let added = authorities.add(certificate);
            added.map_err(|error| format!("{} is no authority: {error}", self.ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(authorities);
        let mut config = match &self.own {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let read = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{} cannot be read: {error}", key.display()))?;
                let fitting = config.with_client_auth_cert(certificates(cert)?, read);
                fitting.map_err(|error| {
                    let (cert, key) = (cert.display(), key.display());
                    format!("{cert} and {key} do not go together: {error}")
                })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<CertificateDer<'static>> =
        found.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{} has no certificate in it (PEM)", path.display()));
    }
    Ok(found)
}

/// A client's side, ready.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// The handshake; `address` is what the certificate must be for.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        let name = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_variables_are_dockers() {
        let folder = tempfile::tempdir().unwrap();
        let home = Path::new("/home/me/.docker");
        let none = BTreeMap::new();
        assert_eq!(Files::choose(TlsFlags::default(), &none, home), None);
        let verify = TlsFlags {
            tlsverify: true,
            ..TlsFlags::default()
        };
        let chosen = Files::choose(verify.clone(), &none, home).unwrap();
        assert_eq!(chosen.ca, home.join("ca.pem"));
        assert_eq!(chosen.own, None);
        std::fs::write(folder.path().join("key.pem"), "").unwrap();
        let variables = BTreeMap::from([
            ("DOCKER_TLS_VERIFY".to_owned(), "1".to_owned()),
            (
                "DOCKER_CERT_PATH".to_owned(),
                folder.path().display().to_string(),
            ),
        ]);
        let chosen = Files::choose(TlsFlags::default(), &variables, home).unwrap();
        let (cert, key) = chosen.own.clone().unwrap();
        assert_eq!(cert, folder.path().join("cert.pem"));
        assert_eq!(key, folder.path().join("key.pem"));
        let error = chosen.read().unwrap_err();
        assert!(error.contains("ca.pem cannot be read"), "{error}");
        let named = TlsFlags {
            tlscert: Some("/c".into()),
            ..verify
        };
        let chosen = Files::choose(named, &none, home).unwrap();
        assert_eq!(chosen.own.unwrap(), ("/c".into(), home.join("key.pem")));
    }
}
