//! The cluster's root certificate is replaced by another.
//!
//! At the beginning the new root's key is certified by the present root (cross-signing). From then
//! on it signs, and that certificate is part of every chain: who knows only the present root
//! accepts what the new key has signed, so nobody has to change at the same moment as another. Once
//! every node has a certificate of the new root, that one alone is the cluster's.

use std::time::Duration;

use model::{
    Cluster, Node,
    cluster::RootRotation,
    control::GivenRoot,
    node::{Role, TlsInfo},
};
use time::OffsetDateTime;

use super::{
    Authority, CaError, Subject, certificate_request, new_tokens,
    read::{self, Facts},
};
use crate::{store::ClusterRecord, tls};

impl ClusterRecord {
    /// What signs certificates now.
    pub(crate) fn authority(&self) -> Result<Authority, CaError> {
        let Some(rotation) = &self.public.rotation else {
            return Authority::from_pem(&self.public.root_ca_pem, &self.ca_key_pem);
        };
        let key = self.next_ca_key_pem.as_deref();
        let key = key.ok_or_else(|| CaError::Root("the new root has no key".to_owned()))?;
        let next = Authority::from_pem(&rotation.root_ca_pem, key)?;
        Ok(next.behind(&rotation.cross_signed_pem))
    }
}

/// The root that nodes are to trust, and who is to have issued their certificates.
pub fn announced(cluster: &Cluster) -> Result<TlsInfo, CaError> {
    let next = cluster.rotation.as_ref();
    let issuer = Facts::of_pem(next.map_or(&cluster.root_ca_pem, |next| &next.root_ca_pem))?;
    Ok(TlsInfo {
        trust_root_pem: cluster.root_ca_pem.clone(),
        issuer_subject_der: issuer.subject_der,
        issuer_public_key_der: issuer.public_key_der,
    })
}

/// The nodes that a rotation waits for: those that have not said that they have a certificate of
/// its root.
pub fn waiting<'a>(
    announced: &TlsInfo,
    nodes: impl Iterator<Item = &'a Node>,
) -> impl Iterator<Item = &'a Node> {
    nodes.filter(|node| {
        let has = node.description.tls.as_ref();
        has.is_none_or(|has| {
            has.issuer_public_key_der != announced.issuer_public_key_der
                || has.issuer_subject_der != announced.issuer_subject_der
        })
    })
}

/// Begins to replace the root, by the given one or by one that is made now. A rotation that is
/// under way is given up for it: everybody knows the present root still. The present root, given
/// again, ends a rotation without another.
pub fn begin(
    record: &mut ClusterRecord,
    given: Option<&GivenRoot>,
    now: OffsetDateTime,
) -> Result<(), CaError> {
    let next = match given {
        Some(given) => accepted(given, now)?,
        None => Authority::create(now)?,
    };
    if next.root_pem() == record.public.root_ca_pem {
        record.public.rotation = None;
        record.next_ca_key_pem = None;
        return Ok(());
    }
    let present = Authority::from_pem(&record.public.root_ca_pem, &record.ca_key_pem)?;
    let cross_signed_pem = present.cross_sign(&next, now)?;
    let root_ca_pem = next.root_pem().to_owned();
    record.next_ca_key_pem = Some(next.key_pem().to_owned());
    try_out(&next.behind(&cross_signed_pem), present.root_pem(), now)?;
    record.public.rotation = Some(RootRotation {
        root_ca_pem,
        cross_signed_pem,
    });
    Ok(())
}

/// Makes the new root the only one, with join tokens that vouch for it.
pub fn finish(record: &mut ClusterRecord) -> Result<(), CaError> {
    let (Some(rotation), Some(key)) =
        (record.public.rotation.take(), record.next_ca_key_pem.take())
    else {
        return Err(CaError::Root("no rotation is under way".to_owned()));
    };
    let token = new_tokens(&rotation.root_ca_pem)?;
    record.public.join_tokens.worker = token();
    record.public.join_tokens.manager = token();
    record.public.root_ca_pem = rotation.root_ca_pem;
    record.ca_key_pem = key;
    Ok(())
}

/// A root that a user brings.
fn accepted(given: &GivenRoot, now: OffsetDateTime) -> Result<Authority, CaError> {
    let wrong = |what: &str| Err(CaError::Root(what.to_owned()));
    let all = read::certificates(&given.certificate_pem);
    let [root_pem] = all.as_slice() else {
        return wrong(
            "the new root has to be exactly one certificate in PEM, without intermediate ones",
        );
    };
    let facts = Facts::of_pem(root_pem)?;
    if !facts.is_ca {
        return wrong(
            "the certificate is not that of an authority: make it with basicConstraints=critical,CA:TRUE",
        );
    }
    if !facts.self_issued {
        return wrong(
            "the certificate is not a root but issued by another authority; bring one that is issued by itself",
        );
    }
    if facts.path_length == Some(0) {
        return wrong(
            "the certificate's path length is 0, which would leave no way to the next root; make it without pathlen, or with 1",
        );
    }
    if now < facts.not_before || facts.not_after < now {
        return wrong("the certificate is not valid today");
    }
    read::name_of(root_pem)?;
    let Ok(key_pem) = std::str::from_utf8(&given.key_pem.0) else {
        return wrong("the key is not PEM");
    };
    let Ok(authority) = Authority::from_pem(root_pem, key_pem) else {
        return wrong(
            "the key cannot be read: it has to be PKCS#8 without a password (BEGIN PRIVATE KEY), ECDSA P-256 or P-384, Ed25519 or RSA; `openssl pkcs8 -topk8 -nodes -in KEY` makes that form",
        );
    };
    if authority.public_key_der() != facts.public_key_der {
        return wrong("the key is not that of the certificate");
    }
    Ok(authority)
}

/// Whether those who know either root accept what the new one signs: found out before anything
/// depends on it.
fn try_out(next: &Authority, present_pem: &str, now: OffsetDateTime) -> Result<(), CaError> {
    let (_, request) = certificate_request()?;
    let subject = Subject {
        node: "trial".into(),
        role: Role::Worker,
        cluster: "trial".into(),
    };
    let chain = next.issue(&request, &subject, Duration::ZERO, now)?;
    let since = now - OffsetDateTime::UNIX_EPOCH;
    let since = since.try_into().map_err(read::unreadable)?;
    for root in [present_pem, next.root_pem()] {
        tls::accepts(root, &chain, since).map_err(|error| {
            CaError::Root(format!(
                "certificates of the new root would not be accepted: {error}"
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
