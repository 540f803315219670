//! A node's own key and certificate, and what a certificate says of its holder.

use std::time::{Duration, SystemTime};

use model::{ClusterId, NodeId, node::Role, node::TlsInfo};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    CaError,
    read::{Facts, certificates, unreadable},
};

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
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
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

/// A node's key, its certificate with what leads to a root, and the roots that it trusts; checked
/// to belong together as far as reading goes.
#[derive(Clone)]
pub struct Identity {
    key_pem: String,
    chain_pem: String,
    roots_pem: String,
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
    pub fn new(key_pem: String, chain_pem: String, roots_pem: &str) -> Result<Self, CaError> {
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(unreadable)?;
        let certificate =
            CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(unreadable)?;
        let leaf = Facts::of(&certificate)?;
        let roots = certificates(roots_pem);
        let trusted = roots
            .first()
            .ok_or_else(|| unreadable("there is no root certificate"))?;
        let mut issuer = Facts::of_pem(trusted)?;
        // A chain that passes a cross-signed certificate was signed by that one's key.
        for other in certificates(&chain_pem).iter().skip(1).chain(&roots) {
            let other = Facts::of_pem(other)?;
            if leaf.signer_id.as_ref() == Some(&other.key_id) {
                issuer = other;
                break;
            }
        }
        let tls = TlsInfo {
            trust_root_pem: trusted.clone(),
            issuer_subject_der: issuer.subject_der,
            issuer_public_key_der: issuer.public_key_der,
        };
        Ok(Self {
            member: member_of(&certificate)?,
            not_before: leaf.not_before.into(),
            not_after: leaf.not_after.into(),
            tls,
            key_pem,
            chain_pem,
            roots_pem: roots.concat(),
        })
    }

    /// The same key and certificate with other roots to trust.
    pub fn trusting(&self, roots_pem: &str) -> Result<Self, CaError> {
        Self::new(self.key_pem.clone(), self.chain_pem.clone(), roots_pem)
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

    /// The roots that this node trusts, the cluster's first: one, or two while they change.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Whether its issuer is the one that certificates are to have.
    pub fn is_issued_by(&self, public_key_der: &[u8]) -> bool {
        self.tls.issuer_public_key_der == public_key_der
    }

    /// For `TLSInfo` of the node's description: the cluster's root, and who has issued the
    /// certificate.
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
