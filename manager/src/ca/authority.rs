//! A root and what it signs: certificates of nodes, and the key of the root that follows it.

use std::time::Duration;

use model::{ClusterId, NodeId, node::Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use time::OffsetDateTime;

use super::{
    CaError,
    identity::organizational_unit,
    read::{self, Facts},
};

/// Validity of the root certificate.
const ROOT_YEARS: i64 = 20;
/// Certificates are dated back, because clocks of hosts differ.
const BACKDATED: time::Duration = time::Duration::HOUR;

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub node: NodeId,
    pub role: Role,
    pub cluster: ClusterId,
}

/// The key that signs, and its root certificate.
pub struct Authority {
    root_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// The key, certified by the root before: part of every chain.
    cross_signed_pem: Option<String>,
}

impl Authority {
    /// A new root: ECDSA P-256, 20 years.
    pub fn create(now: OffsetDateTime) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "swarm-ca");
        params.not_before = now - BACKDATED;
        params.not_after = now + time::Duration::days(ROOT_YEARS * 365);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?;
        let (root_pem, key_pem) = (root.pem(), key.serialize_pem());
        Ok(Self {
            root_pem,
            key_pem,
            issuer: Issuer::new(params, key),
            cross_signed_pem: None,
        })
    }

    pub fn from_pem(root_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self {
            root_pem: root_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer: Issuer::from_ca_cert_pem(root_pem, key)?,
            cross_signed_pem: None,
        })
    }

    /// The same for a root that those who know only the one before are to accept.
    pub fn behind(mut self, cross_signed_pem: &str) -> Self {
        self.cross_signed_pem = Some(cross_signed_pem.to_owned());
        self
    }

    /// Certifies the key of the root that follows this one.
    pub fn cross_sign(&self, next: &Self, now: OffsetDateTime) -> Result<String, CaError> {
        let [own, other] = [&self.root_pem, &next.root_pem].map(|pem| Facts::of_pem(pem));
        let (own, other) = (own?, other?);
        let mut params = CertificateParams::default();
        params.distinguished_name = read::name_of(&next.root_pem)?;
        params.key_identifier_method = KeyIdMethod::PreSpecified(other.key_id);
        params.not_before = now - BACKDATED;
        params.not_after = own.not_after.min(other.not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params.signed_by(next.issuer.key(), &self.issuer)?.pem())
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(super) fn public_key_der(&self) -> Vec<u8> {
        self.issuer.key().subject_public_key_info()
    }

    /// PKCS#8 PEM; for the store alone.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Signs a request's public key for `subject`; answers the certificate and what stands between
    /// it and a root. Nothing else of the request is believed.
    /// `expiry` is clamped to at least an hour.
    pub fn issue(
        &self,
        request_pem: &str,
        subject: &Subject,
        expiry: Duration,
        now: OffsetDateTime,
    ) -> Result<String, CaError> {
        // Reading the request checks that it is signed by the key it asks for.
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let expiry = expiry.max(Duration::from_secs(3600));
        let unit = organizational_unit(subject.role);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, subject.cluster.as_str());
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::CommonName, subject.node.as_str());
        for san in [unit, subject.node.as_str()] {
            params
                .subject_alt_names
                .push(SanType::DnsName(san.try_into()?));
        }
        params.not_before = now - BACKDATED;
        params.not_after = now + expiry;
        params.is_ca = IsCa::NoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        request.params = params;
        let leaf = request.signed_by(&self.issuer)?.pem();
        let behind = self.cross_signed_pem.as_deref().unwrap_or_default();
        Ok(format!("{leaf}{behind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Identity, certificate_request};

    #[test]
    fn what_a_request_asks_for_is_not_believed() {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::create(now).expect("a root");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut evil = CertificateParams::new(vec!["swarm-manager".to_owned()]).expect("params");
        evil.distinguished_name
            .push(DnType::CommonName, "someone-else");
        evil.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = evil
            .serialize_request(&key)
            .expect("csr")
            .pem()
            .expect("pem");
        let subject = Subject {
            node: "node1".into(),
            role: Role::Worker,
            cluster: "cluster1".into(),
        };
        let chain = authority
            .issue(&request, &subject, Duration::from_secs(7200), now)
            .expect("signed");
        let identity = Identity::new(key.serialize_pem(), chain.clone(), authority.root_pem())
            .expect("an identity");
        assert_eq!(identity.member().node.as_str(), "node1");
        assert_eq!(identity.member().role, Role::Worker);
        assert_eq!(identity.member().cluster.as_str(), "cluster1");
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).expect("pem");
        let leaf = pem.parse_x509().expect("x509");
        assert!(!leaf.is_ca());
        let sans = format!("{:?}", leaf.subject_alternative_name());
        assert!(!sans.contains("swarm-manager"), "{sans}");
    }

    #[test]
    fn a_stored_authority_signs_as_before() {
        let now = OffsetDateTime::now_utc();
        let first = Authority::create(now).expect("a root");
        let again = Authority::from_pem(first.root_pem(), first.key_pem()).expect("read back");
        let (key, request) = certificate_request().expect("a request");
        let subject = Subject {
            node: "n".into(),
            role: Role::Manager,
            cluster: "c".into(),
        };
        let chain = again
            .issue(&request, &subject, Duration::ZERO, now)
            .expect("signed");
        let identity = Identity::new(key, chain, first.root_pem()).expect("identity");
        let life = identity
            .not_after()
            .duration_since(identity.not_before())
            .unwrap();
        assert!(life >= Duration::from_secs(7200));
    }
}
