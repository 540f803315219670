//! The next certificate: long before the present one ends, or at once when the node's role or the
//! cluster's root is another.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use manager::{
    ca::{self, Identity},
    wire::{IssueRequest, Trust},
};
use model::node::{Availability, Role};
use rand::Rng as _;

use super::member::{Member, Shared};

/// Sleeps are cut to this length, because the wall clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The same for a certificate that somebody waits for: of another role, or of another root.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why the next certificate is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Role,
    /// The issuer is to be another; at any moment within this time.
    Issuer(Duration),
    Age,
}

/// What there is an occasion for, besides age.
fn occasion(identity: &Identity, told: Role, trust: Option<&Trust>) -> Occasion {
    if told != identity.member().role {
        return Occasion::Role;
    }
    match trust {
        Some(trust) if !identity.is_issued_by(&trust.issuer_public_key_der) => {
            Occasion::Issuer(trust.within)
        }
        _ => Occasion::Age,
    }
}

/// Renews until the membership stops.
pub(super) async fn run(shared: Arc<Shared>, member: Arc<Member>) {
    let mut share = rand::rng().random();
    let mut told = member.told();
    let mut trust = member.trust();
    // When it is this node's turn to ask for a certificate of that issuer.
    let mut turn: Option<(Vec<u8>, Instant)> = None;
    loop {
        let role = told.borrow_and_update().role;
        let wanted = trust.borrow_and_update().clone();
        if let Some(wanted) = &wanted
            && let Err(error) = adopt(&shared, &member, wanted)
        {
            tracing::error!("the roots that the cluster trusts cannot be taken up: {error:#}");
        }
        let identity = member.identity.current();
        let occasion = occasion(&identity, role, wanted.as_ref());
        let issuer = wanted.map_or_else(Vec::new, |wanted| wanted.issuer_public_key_der);
        let wait = match occasion {
            Occasion::Role => Duration::ZERO,
            Occasion::Issuer(within) => {
                let (_, at) = match turn.take() {
                    Some(turn) if turn.0 == issuer => turn,
                    _ => {
                        let wait = within.mul_f64(rand::rng().random());
                        (issuer.clone(), Instant::now() + wait)
                    }
                };
                turn = Some((issuer, at));
                at.saturating_duration_since(Instant::now())
            }
            Occasion::Age => {
                let due = identity.renew_at(share);
                let left = due.duration_since(SystemTime::now());
                left.unwrap_or(Duration::ZERO).min(LOOK_EVERY)
            }
        };
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The senders live in the member.
                _ = told.changed() => {}
                _ = trust.changed() => {}
            }
            continue;
        }
        match renew(&shared, &member).await {
            Ok(()) => {
                tracing::info!("this node's certificate was renewed");
                share = rand::rng().random();
            }
            Err(error) => tracing::warn!("this node's certificate is not renewed yet: {error:#}"),
        }
        let pause = if occasion == Occasion::Age {
            RETRY_AFTER
        } else {
            LOOK_AGAIN
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = told.changed() => {}
            _ = trust.changed() => {}
        }
    }
}

/// Trusts the roots that the cluster trusts, from the next connection on.
fn adopt(shared: &Shared, member: &Member, trust: &Trust) -> anyhow::Result<()> {
    let identity = member.identity.current();
    let next = identity.trusting(&trust.roots_pem)?;
    if next.roots_pem() == identity.roots_pem() {
        return Ok(());
    }
    member.take_identity(shared, next)?;
    tracing::info!("this node trusts other root certificates now");
    Ok(())
}

/// Fetches the next certificate now and uses it from then on.
pub(super) async fn renew(shared: &Shared, member: &Member) -> anyhow::Result<()> {
    let connection = member.connection().context("no session with a manager")?;
    let (key_pem, csr_pem) = match member.identity.current().member().role {
        // A manager's key also opens its log, so it stays.
        Role::Manager => {
            let key = member.identity.current().key_pem().to_owned();
            let request = ca::request_with(&key)?;
            (key, request)
        }
        Role::Worker => ca::certificate_request()?,
    };
    let request = IssueRequest {
        csr_pem,
        token: None,
        description: member.description(shared),
        availability: Availability::default(),
    };
    let reply = connection.issue(&request).await??;
    let identity = Identity::new(key_pem, reply.chain_pem, &reply.root_pem)?;
    let (before, role) = (
        member.identity.current().member().role,
        identity.member().role,
    );
    member.take_identity(shared, identity)?;
    if before != role {
        tracing::info!(?role, "this node has another role");
        member.change_role(shared, role);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use manager::ca::{Authority, Subject};

    use super::*;

    #[test]
    fn another_role_or_issuer_is_an_occasion() {
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::create(now).expect("an authority");
        let (key, request) = ca::certificate_request().expect("a request");
        let subject = Subject {
            node: "n1".into(),
            role: Role::Worker,
            cluster: "c1".into(),
        };
        let life = Duration::from_secs(7200);
        let chain = authority.issue(&request, &subject, life, now);
        let chain = chain.expect("a certificate");
        let identity = Identity::new(key, chain, authority.root_pem()).expect("an identity");
        let trust = |issuer: &[u8]| Trust {
            roots_pem: authority.root_pem().to_owned(),
            issuer_public_key_der: issuer.to_vec(),
            within: LOOK_AGAIN,
        };
        let (own, other) = (
            trust(&identity.tls_info().issuer_public_key_der),
            trust(b"another key"),
        );
        for (role, trust, expected) in [
            (Role::Worker, None, Occasion::Age),
            (Role::Worker, Some(&own), Occasion::Age),
            (Role::Worker, Some(&other), Occasion::Issuer(LOOK_AGAIN)),
            (Role::Manager, Some(&own), Occasion::Role),
        ] {
            assert_eq!(occasion(&identity, role, trust), expected, "{role:?}");
        }
    }
}
