//! `stack deploy`.

use std::collections::BTreeSet;

use clap::Args;

use super::apply::{Apply, Deployed};
use super::decide::{self, Resolve};
use super::observe::{self, Observed};
use super::read::{self, FileFlags};
use super::remove;
use super::version::Wanted;
use crate::commands::text;
use crate::compose::convert::{Kind, Stack};
use crate::failure::Failure;
use crate::progress;
use crate::session::Session;

/// Deploy a stack, or bring one up to date with its files
///
/// What did not change is left alone. A deploy that stopped in the middle goes on with the next.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl stack deploy -c ch03-webapi.yml echo\n  ovnctl stack deploy -c base.yml -c production.yml --prune --detach=false shop\n  generate | ovnctl stack deploy -c - shop"
)]
pub struct DeployArgs {
    #[command(flatten)]
    files: FileFlags,
    /// Return at once instead of waiting until all services have converged (default true)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::flags::boolean)]
    detach: Option<bool>,
    /// Remove services that the files do not have any more, and old versions of secrets and configs
    #[arg(long)]
    prune: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// When to ask the registry for the image's digest
    #[arg(
        long,
        value_enum,
        value_name = "always|changed|never",
        default_value = "always"
    )]
    resolve_image: Resolve,
    /// Send the registry's credentials to the hosts
    #[arg(long)]
    with_registry_auth: bool,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    stack: String,
}

/// `stack deploy`.
pub async fn deploy(session: &Session, args: DeployArgs) -> Result<(), Failure> {
    let files = read::files(session, &args.files, false).await?;
    let stack = read::stack(session, &files, &args.stack)?;
    observe::manager(session).await?;
    let wanted: Vec<Wanted<'_>> = stack.objects.iter().map(Wanted::of).collect();
    let observed = observe::observe(session, &stack, &wanted).await?;
    if args.prune {
        for service in decide::surplus(&stack, &observed.services) {
            remove::service(session, &service).await?;
        }
    }
    let mut apply = Apply::new(
        session,
        &observed,
        args.resolve_image,
        args.with_registry_auth,
    );
    let changed = match apply.all(&stack, &wanted).await {
        Ok(changed) => changed,
        Err(failure) => return Err(interrupted(failure, &apply.done)),
    };
    if args.prune {
        prune_versions(session, &stack, &wanted).await?;
    }
    if args.detach == Some(false) {
        converge(session, &changed, args.quiet).await?;
    }
    Ok(())
}

/// Adds to a failure what was made before it.
fn interrupted(failure: Failure, done: &[String]) -> Failure {
    let before = if done.is_empty() {
        "nothing was created before that".to_owned()
    } else {
        format!("created before that: {}", done.join(", "))
    };
    Failure {
        message: Some(format!(
            "{}\n{before}; the next deploy of the same files goes on from here",
            failure.text()
        )),
        ..failure
    }
}

async fn prune_versions(
    session: &Session,
    stack: &Stack,
    wanted: &[Wanted<'_>],
) -> Result<(), Failure> {
    for kind in [Kind::Secret, Kind::Config] {
        let there = observe::objects(session, kind, &stack.name).await?;
        if there.is_empty() {
            continue;
        }
        let now: Observed = observe::observe(session, stack, wanted).await?;
        let in_use: BTreeSet<String> = wanted
            .iter()
            .filter(|w| w.object.kind == kind)
            .filter_map(|w| {
                let of = |name: &str| now.objects.get(&(kind, name.to_owned()));
                match w.decide(of(&w.object.name), of(&w.versioned)) {
                    super::version::Step::Keep(found) | super::version::Step::Relabel(found) => {
                        Some(found.id)
                    }
                    super::version::Step::Create(_) => None,
                }
            })
            .collect();
        for found in decide::superseded(&there, &in_use, &now.services) {
            session.line(&format!("Removing {} {}", kind.word(), found.name))?;
            let client = session.client().await?;
            client
                .delete(format!("/{}s/{}", kind.word(), found.id))
                .done()
                .await?;
        }
    }
    Ok(())
}

/// Waits for each service in turn; goes on after one that failed and tells all at the end.
async fn converge(session: &Session, changed: &[Deployed], quiet: bool) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (name, id) in changed {
        if !quiet {
            session.line(&format!("service {name}"))?;
        }
        if let Err(failure) = progress::show(session, id, progress::Asked::Change, quiet).await {
            failures.push(format!("service {name}: {}", failure.text()));
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(failures.join("\n")))
    }
}

/// The name of a service, for messages.
pub fn name_of(service: &serde_json::Value) -> &str {
    text(service, "/Spec/Name")
}
