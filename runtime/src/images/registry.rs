//! Talking to one registry: which scheme, whose certificates, and what to say when it fails.

mod speech;

use std::{panic::AssertUnwindSafe, path::Path, sync::Once, time::Duration};

use model::{Refusal, RefusalKind};
use oci_client::{
    Client, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use tracing::debug;

use self::speech::Speech;
use super::{Config, digest::Digest, image::Auth, reference::Reference};

/// Long enough for a slow link, short enough to notice a dead one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of a body.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// One name in one registry with one credential. A client of its own each time, because
/// oci-client remembers the first credential it saw for a repository.
pub struct Registry {
    pub client: Client,
    pub auth: RegistryAuth,
    pub reference: oci_client::Reference,
    name: Reference,
    /// Host and port that are spoken to.
    host: String,
    plain: bool,
}

impl Registry {
    pub async fn connect(
        config: &Config,
        name: &Reference,
        auth: Option<&Auth>,
    ) -> Result<Self, Refusal> {
        install_crypto();
        let host = host_of(name, config.default_registry.as_deref());
        let insecure = is_insecure(host, &config.insecure_registries);
        // Docker tries TLS first on an insecure registry, and plain http when that fails.
        let plain = insecure && speech::ask(host).await != Speech::Tls;
        let authorities = authorities(&config.certs, host)?;
        // Without TLS the host's own authorities are not asked for; it may have none.
        let protocol = if plain {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        };
        let wish = ClientConfig {
            protocol,
            accept_invalid_certificates: insecure,
            extra_root_certificates: authorities,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("overnet/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        // The library panics where the host has no certificate authorities at all.
        let client = std::panic::catch_unwind(AssertUnwindSafe(|| Client::try_from(wish)))
            .map_err(|_| {
                Refusal::internal(format!(
                    "no connection to registry {host} can be prepared: this host has no \
                     certificate authorities; install the package ca-certificates"
                ))
            })?
            .map_err(|error| {
                Refusal::internal(format!(
                    "no connection to registry {host} can be prepared: {}; check the certificates \
                 in {} and those of the system",
                    chain(&error),
                    config.certs.join(host).display()
                ))
            })?;
        let auth = match auth {
            None => RegistryAuth::Anonymous,
            Some(Auth::Basic { username, password }) => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            Some(Auth::Bearer(token)) => RegistryAuth::Bearer(token.clone()),
        };
        let reference = on_the_wire(host, name);
        client
            .store_auth_if_needed(reference.resolve_registry(), &auth)
            .await;
        Ok(Self {
            client,
            auth,
            reference,
            name: name.clone(),
            host: host.to_owned(),
            plain,
        })
    }

    /// Host and port that are spoken to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Another name in the same registry, as oci-client takes it.
    pub fn on_the_wire(&self, name: &Reference) -> oci_client::Reference {
        on_the_wire(&self.host, name)
    }

    /// Asks for a token, so that wrong credentials are told before anything is sent.
    pub async fn authenticate(&self, operation: RegistryOperation) -> Result<(), Refusal> {
        match self
            .client
            .auth(&self.reference, &self.auth, operation)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Whether the registry has this blob in the repository.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Refusal> {
        match self
            .client
            .blob_exists(&self.reference, digest.as_str())
            .await
        {
            Ok(there) => Ok(there),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Sends a small blob, unless it is there.
    pub async fn put_blob(&self, bytes: Vec<u8>, digest: &Digest) -> Result<(), Refusal> {
        if self.has_blob(digest).await? {
            return Ok(());
        }
        match self
            .client
            .push_blob(&self.reference, bytes, digest.as_str())
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Names content that is there: byte for byte, under the reference's tag.
    pub async fn put_manifest(&self, raw: Vec<u8>, media_type: &str) -> Result<(), Refusal> {
        let media_type = http::HeaderValue::from_str(media_type).map_err(|_| {
            Refusal::internal(format!("media type {media_type:?} is no header text"))
        })?;
        match self
            .client
            .push_manifest_raw(&self.reference, raw, media_type)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Asks for something that needs an open door and need not be there, so that registries
    /// with plain passwords judge the credentials too.
    pub async fn knock(&self) -> Result<(), Refusal> {
        match self
            .client
            .list_tags(&self.reference, &self.auth, Some(1), None)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => match self.explain(&error).await {
                refusal if refusal.kind == RefusalKind::NotFound => Ok(()),
                refusal => Err(refusal),
            },
        }
    }

    /// Turns an error of the protocol into a sentence that names the registry, the reason and
    /// the way out.
    pub async fn explain(&self, error: &OciDistributionError) -> Refusal {
        debug!(registry = self.host, error = %chain(error), "registry request failed");
        let host = self.host();
        let name = self.name.familiar();
        match error {
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes = envelope
                    .errors
                    .iter()
                    .map(|e| (&e.code, e.message.as_str()));
                said(&name, (host, self.name.registry()), codes.collect())
            }
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::ServerError { code: 401, .. } => self.unauthorized(""),
            OciDistributionError::AuthenticationFailure(reason) => self.unauthorized(reason),
            OciDistributionError::ImageManifestNotFoundError(_) => {
                not_found(&name, "manifest unknown")
            }
            OciDistributionError::ServerError { code: 404, .. } => {
                not_found(&name, "the registry knows no such name")
            }
            OciDistributionError::ServerError { code, message, .. } => Refusal::internal(format!(
                "registry {host} answered {code} for {name}: {}",
                first_line(message)
            )),
            OciDistributionError::RequestError(_) => self.unreachable(error).await,
            other => Refusal::internal(format!("registry {host} and {name}: {}", chain(other))),
        }
    }

    /// Credentials are kept by the registry in the name, whoever is spoken to.
    fn unauthorized(&self, reason: &str) -> Refusal {
        let (host, name) = (self.name.registry(), self.name.familiar());
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", first_line(reason))
        };
        match self.auth {
            // 404 as Docker says it: at a 401 its command line asks for a password, even where
            // nobody is there to type one.
            RegistryAuth::Anonymous => Refusal::not_found(format!(
                "pull access denied for {name}, repository does not exist or may require \
                 'docker login {host}'{reason}"
            )),
            _ => Refusal::unauthorized(format!(
                "unauthorized: registry {host} refuses these credentials for {name}{reason}; \
                 log in again with 'docker login {host}'"
            )),
        }
    }

    async fn unreachable(&self, error: &OciDistributionError) -> Refusal {
        let host = self.host();
        let text = match (self.plain, speech::ask(host).await) {
            (false, Speech::Http) => format!(
                "registry {host} speaks plain http where TLS is expected (server gave HTTP \
                 response to HTTPS client); if that is meant, start ovnd with \
                 --insecure-registry {host}"
            ),
            (true, Speech::Tls) => {
                format!("registry {host} speaks TLS where plain http was expected; try again")
            }
            (false, Speech::Tls) => format!(
                "no TLS connection to registry {host}: {}; a private authority belongs in \
                 certs.d/{host}/ca.crt",
                chain(error)
            ),
            (_, Speech::Nothing(reason)) => format!(
                "registry {host} cannot be reached: {reason}; check its name, port and that it runs"
            ),
            _ => format!("registry {host}: {}", chain(error)),
        };
        Refusal {
            kind: RefusalKind::Internal,
            message: text,
        }
    }
}

fn not_found(name: &str, reason: &str) -> Refusal {
    Refusal::not_found(format!("manifest for {name} not found: {reason}"))
}

/// What a registry's own error list means.
fn said(name: &str, (host, key): (&str, &str), errors: Vec<(&OciErrorCode, &str)>) -> Refusal {
    let text: Vec<_> = errors.iter().map(|(_, message)| *message).collect();
    let text = text.join("; ");
    let has = |wanted: &[OciErrorCode]| errors.iter().any(|(code, _)| wanted.contains(code));
    if has(&[
        OciErrorCode::ManifestUnknown,
        OciErrorCode::NameUnknown,
        OciErrorCode::NotFound,
    ]) {
        not_found(name, &text)
    } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
        Refusal::unauthorized(format!(
            "registry {host} denies access to {name}: {text}; log in with 'docker login {key}'"
        ))
    } else if has(&[OciErrorCode::Toomanyrequests]) {
        Refusal::unavailable(format!(
            "registry {host} asks to slow down (toomanyrequests): {text}"
        ))
    } else {
        Refusal::internal(format!("registry {host} refuses {name}: {text}"))
    }
}

/// Who is spoken to about a name.
fn host_of<'a>(name: &'a Reference, default: Option<&'a str>) -> &'a str {
    default
        .filter(|_| name.is_unplaced())
        .unwrap_or(name.registry())
}

/// The name as oci-client takes it; the grammar was checked by [`Reference`].
fn on_the_wire(host: &str, name: &Reference) -> oci_client::Reference {
    let (registry, repository) = (host.to_owned(), name.repository().to_owned());
    match (name.tag(), name.digest()) {
        (_, Some(digest)) => {
            oci_client::Reference::with_digest(registry, repository, digest.to_string())
        }
        (tag, None) => {
            oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").into())
        }
    }
}

/// Named as insecure, or on this very host (Docker's rule for 127.0.0.0/8, ::1, localhost).
fn is_insecure(host: &str, listed: &[String]) -> bool {
    let name = speech::host_only(host);
    let loopback = name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    loopback || listed.iter().any(|entry| entry == host || entry == name)
}

/// Every `*.crt` in the registry's folder. A folder that is not there is no error.
fn authorities(certs: &Path, host: &str) -> Result<Vec<Certificate>, Refusal> {
    let folder = certs.join(host);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == "crt") {
            let data = std::fs::read(&path).map_err(|error| {
                Refusal::internal(format!("{} cannot be read: {error}", path.display()))
            })?;
            found.push(Certificate {
                encoding: CertificateEncoding::Pem,
                data,
            });
        }
    }
    Ok(found)
}

/// rustls takes its cryptography from the process. The binary installs it; tests and the lab
/// may come here first.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// An error with all its causes, without repeating those that quote their cause.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = next.source();
    }
    text
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_listed_hosts_are_insecure() {
        let listed = ["10.0.0.1:5000".to_owned(), "lab".to_owned()];
        for (host, insecure) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", true),
            ("10.0.0.1:5001", false),
            ("lab:5000", true),
            ("docker.io", false),
        ] {
            assert_eq!(is_insecure(host, &listed), insecure, "{host}");
        }
    }

    #[test]
    fn names_without_a_registry_go_to_the_default_one() {
        for (name, default, host, repository) in [
            ("a", None, "docker.io", "library/a"),
            ("a", Some("reg:5000"), "reg:5000", "library/a"),
            ("me/a", Some("reg:5000"), "reg:5000", "me/a"),
            ("docker.io/me/a", Some("reg:5000"), "reg:5000", "me/a"),
            ("other:1/me/a", Some("reg:5000"), "other:1", "me/a"),
        ] {
            let name: Reference = name.parse().unwrap();
            let found = host_of(&name, default);
            assert_eq!(found, host, "{name} {default:?}");
            assert_eq!(on_the_wire(found, &name).repository(), repository);
        }
    }

    #[test]
    fn a_registrys_errors_become_classes() {
        for (code, kind) in [
            (OciErrorCode::ManifestUnknown, RefusalKind::NotFound),
            (OciErrorCode::NameUnknown, RefusalKind::NotFound),
            (OciErrorCode::Unauthorized, RefusalKind::Unauthorized),
            (OciErrorCode::Denied, RefusalKind::Unauthorized),
            (OciErrorCode::Toomanyrequests, RefusalKind::Unavailable),
            (OciErrorCode::BlobUploadInvalid, RefusalKind::Internal),
        ] {
            assert_eq!(
                said("a:b", ("reg", "reg"), vec![(&code, "because")]).kind,
                kind,
                "{code:?}"
            );
        }
    }
}
