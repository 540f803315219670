use model::payload::Content;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair,
};

use super::*;
use crate::{
    ca::{Identity, root_digest},
    example,
};

const LIFE: Duration = Duration::from_secs(7200);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// What a node of the cluster gets now.
fn identity(record: &ClusterRecord) -> Identity {
    let (key, request) = certificate_request().expect("a request");
    let subject = Subject {
        node: "n1".into(),
        role: Role::Worker,
        cluster: "c1".into(),
    };
    let authority = record.authority().expect("an authority");
    let chain = authority
        .issue(&request, &subject, LIFE, now())
        .expect("a certificate");
    Identity::new(key, chain, &record.public.trusted_pem()).expect("an identity")
}

fn accepts(who: &Identity, other: &Identity) -> bool {
    let since = (now() - OffsetDateTime::UNIX_EPOCH)
        .try_into()
        .expect("after 1970");
    tls::accepts(who.roots_pem(), other.chain_pem(), since).is_ok()
}

/// Nodes of every moment of a rotation accept each other until it has ended; then those who have
/// taken part in it still do.
#[test]
fn everybody_accepts_everybody_until_the_end() {
    let before = example::signing_cluster_record();
    let mut first = before.clone();
    begin(&mut first, None, now()).expect("begun");
    let mut second = first.clone();
    begin(&mut second, None, now()).expect("begun again");
    let mut end = second.clone();
    finish(&mut end).expect("ended");
    let [old, given_up, turned, fresh] = [&before, &first, &second, &end].map(identity);
    let told_again = given_up
        .trusting(&second.public.trusted_pem())
        .expect("roots");
    let all = [&old, &given_up, &told_again, &turned];
    for (n, who) in all.iter().enumerate() {
        for (m, other) in all.iter().enumerate() {
            assert!(accepts(who, other), "{n} does not accept {m}");
        }
    }
    // Who has taken part has both roots: the end may come while it is away.
    let told = turned.trusting(&end.public.trusted_pem()).expect("roots");
    for (who, other) in [
        (&told, &fresh),
        (&fresh, &told),
        (&turned, &fresh),
        (&fresh, &turned),
    ] {
        assert!(accepts(who, other));
    }
    // The old root, and one that was given up, open nothing any more.
    for old in [&old, &given_up] {
        assert!(!accepts(&told, old) && !accepts(&fresh, old));
    }
    assert!(!accepts(&old, &fresh));
}

#[test]
fn an_identity_knows_its_issuer() {
    let before = example::signing_cluster_record();
    let mut turning = before.clone();
    begin(&mut turning, None, now()).expect("begun");
    let mut end = turning.clone();
    finish(&mut end).expect("ended");
    let [old, new, last] = [&before, &turning, &end].map(identity);
    let [was, will, is] = [&before, &turning, &end].map(|record| announced(&record.public));
    let (was, will, is) = (was.expect("a"), will.expect("b"), is.expect("c"));
    assert_eq!(
        (old.tls_info(), new.tls_info(), last.tls_info()),
        (&was, &will, &is)
    );
    assert_eq!(was.trust_root_pem, will.trust_root_pem);
    assert_ne!(was.issuer_public_key_der, will.issuer_public_key_der);
    assert_eq!(will.issuer_public_key_der, is.issuer_public_key_der);
    // Other roots to trust do not make another issuer.
    let told = old.trusting(&turning.public.trusted_pem()).expect("roots");
    assert_eq!(told.tls_info(), &was);
    let told = new.trusting(&end.public.trusted_pem()).expect("roots");
    assert_eq!(told.tls_info(), &is);
    assert_eq!(told.roots_pem(), end.public.root_ca_pem);
    // Newcomers are shown one root.
    assert!(root_digest(&turning.public.root_ca_pem).is_ok());
    assert!(root_digest(&turning.public.trusted_pem()).is_err());
}

#[test]
fn nothing_ends_that_has_not_begun() {
    let before = example::signing_cluster_record();
    let mut record = before.clone();
    assert!(finish(&mut record).is_err());
    assert!(record.public.rotation.is_none());
}

fn params(edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(
        DnType::CountryName,
        DnValue::PrintableString("FR".try_into().expect("printable")),
    );
    name.push(DnType::OrganizationName, "Très Bien");
    name.push(DnType::CommonName, "root of our own");
    params.not_before = now() - time::Duration::DAY;
    params.not_after = now() + time::Duration::DAY * 400;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    edit(&mut params);
    params
}

fn given(certificate_pem: &str, key_pem: &str) -> GivenRoot {
    GivenRoot {
        certificate_pem: certificate_pem.to_owned(),
        key_pem: Content(key_pem.into()),
    }
}

#[test]
fn a_root_of_the_users_own() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let root = params(|_| {}).self_signed(&key).expect("a root");
        // As an editor of another system leaves it, with text before it.
        let text = format!("Our root\n{}", root.pem()).replace('\n', "\r\n");
        let before = example::signing_cluster_record();
        let mut turning = before.clone();
        let ours = given(&text, &key.serialize_pem());
        begin(&mut turning, Some(&ours), now()).expect("accepted");
        let mut end = turning.clone();
        finish(&mut end).expect("ended");
        let [old, new, last] = [&before, &turning, &end].map(identity);
        assert!(accepts(&old, &new) && accepts(&new, &old) && accepts(&new, &last));
        assert_eq!(end.public.root_ca_pem, root.pem());
        // The next one follows it, and the same again ends that.
        let mut next = end.clone();
        begin(&mut next, None, now()).expect("begun");
        assert!(accepts(&last, &identity(&next)));
        begin(&mut next, Some(&ours), now()).expect("given up");
        assert_eq!(next, end);
    }
}

#[test]
fn roots_that_would_not_do_are_refused_with_the_reason() {
    let key = KeyPair::generate().expect("a key");
    let key_pem = key.serialize_pem();
    let root = |edit: fn(&mut CertificateParams)| {
        let made = params(edit).self_signed(&key);
        made.expect("a certificate").pem()
    };
    let good = root(|_| {});
    let other = KeyPair::generate().expect("a key");
    let issued = params(|p| p.distinguished_name.push(DnType::CommonName, "between"))
        .signed_by(&key, &Issuer::new(params(|_| {}), &other))
        .expect("a certificate")
        .pem();
    let before = example::signing_cluster_record();
    for (certificate, key, words) in [
        ("nothing", key_pem.as_str(), "exactly one certificate"),
        (
            &format!("{good}{good}"),
            &key_pem,
            "exactly one certificate",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key_pem,
            "cannot be read",
        ),
        (
            &root(|p| p.is_ca = IsCa::NoCa),
            &key_pem,
            "not that of an authority",
        ),
        (&issued, &key_pem, "issued by another authority"),
        (
            &root(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            &key_pem,
            "path length is 0",
        ),
        (
            &root(|p| p.not_after = now() - time::Duration::HOUR),
            &key_pem,
            "not valid today",
        ),
        (
            &root(|p| p.not_before = now() + time::Duration::HOUR),
            &key_pem,
            "not valid today",
        ),
        (
            &root(|p| p.distinguished_name = DistinguishedName::new()),
            &key_pem,
            "subject",
        ),
        (&good, "nothing", "PKCS#8"),
        (&good, &other.serialize_pem(), "not that of the certificate"),
    ] {
        let mut record = before.clone();
        let refused = begin(&mut record, Some(&given(certificate, key)), now());
        let refused = refused.expect_err(words).to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}
