//! What certificates say.

use rcgen::{DistinguishedName, DnType, DnValue};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::{
    der_parser::asn1_rs::Tag,
    extensions::ParsedExtension,
    prelude::{FromDer as _, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

use super::CaError;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Length of a key's identifier that is derived from the key (RFC 7093, method 1).
const KEY_ID: usize = 20;

/// The certificates of a text, each with a line end after it and nothing else.
pub(super) fn certificates(pem: &str) -> Vec<String> {
    let blocks = pem.split(BEGIN).skip(1);
    let bodies = blocks.filter_map(|block| block.split_once(END));
    bodies
        .map(|(body, _)| format!("{BEGIN}{body}{END}\n").replace('\r', ""))
        .collect()
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> CaError {
    CaError::Read(error.to_string())
}

/// What matters of a certificate here.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) subject_der: Vec<u8>,
    pub(super) public_key_der: Vec<u8>,
    /// Identifies the certificate's key.
    pub(super) key_id: Vec<u8>,
    /// Identifies the key that has signed it.
    pub(super) signer_id: Option<Vec<u8>>,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    pub(super) self_issued: bool,
    pub(super) is_ca: bool,
    /// How many authorities may stand between it and a node.
    pub(super) path_length: Option<u32>,
}

impl Facts {
    /// Of the first certificate of a text.
    pub(super) fn of_pem(pem: &str) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unreadable)?;
        Self::of(&der)
    }

    pub(super) fn of(der: &CertificateDer<'_>) -> Result<Self, CaError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(unreadable)?;
        let public_key_der = parsed.public_key().raw.to_vec();
        let mut facts = Self {
            subject_der: parsed.subject().as_raw().to_vec(),
            key_id: Sha256::digest(&public_key_der)[..KEY_ID].to_vec(),
            public_key_der,
            signer_id: None,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            is_ca: false,
            path_length: None,
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = id.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(signer) => {
                    facts.signer_id = signer.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    facts.is_ca = constraints.ca;
                    facts.path_length = constraints.path_len_constraint;
                }
                _ => {}
            }
        }
        Ok(facts)
    }
}

/// The subject of a root, in the form in which certificates are made.
pub(super) fn name_of(root_pem: &str) -> Result<DistinguishedName, CaError> {
    let der = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(unreadable)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(unreadable)?;
    name(parsed.subject()).ok_or_else(|| {
        CaError::Root(format!(
            "the root certificate's subject {:?} cannot be written the same again; give it a plain one, such as CN=swarm-ca",
            parsed.subject().to_string()
        ))
    })
}

fn name(subject: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for part in subject.iter() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return None;
        };
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let kind = DnType::from_oid(&oid);
        if name.get(&kind).is_some() {
            return None;
        }
        name.push(kind, value(attribute)?);
    }
    name.iter().next()?;
    Some(name)
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<DnValue> {
    let text = std::str::from_utf8(attribute.attr_value().data).ok()?;
    match attribute.attr_value().header.tag() {
        Tag::Utf8String => Some(DnValue::Utf8String(text.to_owned())),
        Tag::PrintableString => Some(DnValue::PrintableString(text.try_into().ok()?)),
        Tag::Ia5String => Some(DnValue::Ia5String(text.try_into().ok()?)),
        _ => None,
    }
}
