//! A node's own key and certificate, and what a certificate says of its holder.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{ClusterId, NodeId, node::Role, node::TlsInfo};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::CaError;

/// Who the holder of a certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub role: Role,
    pub cluster: ClusterId,
}

pub(super) fn organizational_unit(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => "swarm-manager",
    }
}

/// A new key and the request for its certificate, both PEM.
pub fn certificate_request() -> Result<(String, String), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key.serialize_pem(), request.pem()?))
}

/// The request for another certificate of a key that stays.
pub fn request_with(key_pem: &str) -> Result<String, CaError> {
    let key = KeyPair::from_pem(key_pem)?;
    Ok(CertificateParams::default()
        .serialize_request(&key)?
        .pem()?)
}

/// Reads node (CN), role (OU) and cluster (O) from a certificate that TLS has verified.
pub fn member_of(certificate: &CertificateDer<'_>) -> Result<Member, CaError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CaError::Read(error.to_string()))?;
    let subject = parsed.subject();
    let text = |found: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>, what: &str| {
        found
            .and_then(|value| value.as_str().ok())
            .map(str::to_owned)
            .ok_or_else(|| CaError::NoMember(format!("no {what} in {subject}")))
    };
    let unit = text(subject.iter_organizational_unit().next(), "role")?;
    let role = match unit.as_str() {
        "swarm-worker" => Role::Worker,
        "swarm-manager" => Role::Manager,
        other => return Err(CaError::NoMember(format!("unknown role {other:?}"))),
    };
    Ok(Member {
        node: text(subject.iter_common_name().next(), "node")?.into(),
        role,
        cluster: text(subject.iter_organization().next(), "cluster")?.into(),
    })
}

/// A node's key, certificate and root, checked to belong together as far as reading goes.
#[derive(Clone)]
pub struct Identity {
    key_pem: String,
    chain_pem: String,
    root_pem: String,
    member: Member,
    not_before: SystemTime,
    not_after: SystemTime,
    tls: TlsInfo,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Identity {
    pub fn new(key_pem: String, chain_pem: String, root_pem: String) -> Result<Self, CaError> {
        let read = |error: &dyn std::fmt::Display| CaError::Read(error.to_string());
        let leaf =
            CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|error| read(&error))?;
        let root =
            CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|error| read(&error))?;
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| read(&error))?;
        let member = member_of(&leaf)?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| read(&error))?;
        let (_, parsed_root) = X509Certificate::from_der(&root).map_err(|error| read(&error))?;
        let tls = TlsInfo {
            trust_root_pem: root_pem.clone(),
            issuer_subject_der: parsed_root.subject().as_raw().to_vec(),
            issuer_public_key_der: parsed_root.public_key().raw.to_vec(),
        };
        Ok(Self {
            member,
            not_before: at(parsed.validity().not_before.timestamp()),
            not_after: at(parsed.validity().not_after.timestamp()),
            tls,
            key_pem,
            chain_pem,
            root_pem,
        })
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// For `TLSInfo` of the node's description.
    pub fn tls_info(&self) -> &TlsInfo {
        &self.tls
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// When to ask for the next certificate: `share` of 0 to 1 chooses a point between 50 and
    /// 80 % of its life, so that the nodes of a cluster do not all ask at once.
    pub fn renew_at(&self, share: f64) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before);
        let life = life.unwrap_or(Duration::ZERO);
        self.not_before + life.mul_f64(0.5 + 0.3 * share.clamp(0.0, 1.0))
    }
}

fn at(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
