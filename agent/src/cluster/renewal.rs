//! The next certificate, long before the present one ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use manager::{
    ca::{self, Identity},
    wire::IssueRequest,
};
use model::node::{Availability, Role};
use rand::Rng as _;

use super::member::{Member, Shared};

/// Sleeps are cut to this length, because the wall clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The same for a certificate of another role, which somebody waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Renews until the membership stops.
pub(super) async fn run(shared: Arc<Shared>, member: Arc<Member>) {
    let mut share = rand::rng().random();
    let mut told = member.told();
    loop {
        let role = member.identity.current().member().role;
        let promoted = told.borrow_and_update().role != role;
        let due = member.identity.current().renew_at(share);
        if let Ok(left) = due.duration_since(SystemTime::now())
            && !left.is_zero()
            && !promoted
        {
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
                // The sender lives in the member.
                _ = told.changed() => {}
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
        let pause = if promoted { LOOK_AGAIN } else { RETRY_AFTER };
        tokio::time::sleep(pause).await;
    }
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
    let identity = Identity::new(key_pem, reply.chain_pem, reply.root_pem)?;
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
