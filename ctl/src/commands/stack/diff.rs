//! `stack diff`.

use std::fmt::Write as _;

use clap::Args;

use super::decide::{self, Known, Resolve, ServiceStep};
use super::deploy::name_of;
use super::observe;
use super::read::{self, FileFlags};
use super::version::{Step, Wanted};
use crate::failure::Failure;
use crate::session::Session;

/// Show what a deploy would change
///
/// A line begins with + for what would be created, ~ for what would be updated, - for what
/// --prune would remove, and = for what stays. Registries are not asked. Nothing is changed.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stack diff -c ch03-webapi.yml echo")]
pub struct DiffArgs {
    #[command(flatten)]
    files: FileFlags,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    stack: String,
}

/// `stack diff`.
pub async fn diff(session: &Session, args: DiffArgs) -> Result<(), Failure> {
    let files = read::files(session, &args.files, false).await?;
    let stack = read::stack(session, &files, &args.stack)?;
    observe::manager(session).await?;
    let wanted: Vec<Wanted<'_>> = stack.objects.iter().map(Wanted::of).collect();
    let observed = observe::observe(session, &stack, &wanted).await?;
    let mut out = String::new();
    for network in decide::networks(&stack, &observed.networks) {
        let _ = writeln!(out, "+ network {}", network.name);
    }
    let mut known = Known::of(&observed);
    for wanted in &wanted {
        let kind = wanted.object.kind;
        let there = |name: &str| observed.objects.get(&(kind, name.to_owned()));
        let (id, name) = match wanted.decide(there(&wanted.object.name), there(&wanted.versioned)) {
            Step::Create(name) => {
                let _ = writeln!(out, "+ {} {name}", kind.word());
                ("(new)".to_owned(), name)
            }
            Step::Relabel(found) => {
                let _ = writeln!(out, "~ {} {}\n    Labels", kind.word(), found.name);
                (found.id, found.name)
            }
            Step::Keep(found) => (found.id, found.name),
        };
        known
            .objects
            .insert((kind, wanted.object.name.clone()), (id, name));
    }
    for service in &stack.services {
        let now = observed.service(&service.name);
        let mut spec = service.spec.clone();
        decide::bind(&mut spec, &known);
        match decide::service(service, spec, now) {
            ServiceStep::Create(_) => {
                let _ = writeln!(out, "+ service {}", service.name);
            }
            ServiceStep::Update { differences, .. } => {
                let _ = writeln!(out, "~ service {}", service.name);
                for difference in differences {
                    let _ = writeln!(out, "    {difference}");
                }
                if decide::asks_registry(service, now, Resolve::Changed) {
                    let _ = writeln!(
                        out,
                        "    (the registry will be asked for the digest of {})",
                        service.image
                    );
                }
            }
            ServiceStep::Keep => {
                let _ = writeln!(out, "= service {}", service.name);
            }
        }
    }
    for service in decide::surplus(&stack, &observed.services) {
        let _ = writeln!(out, "- service {}", name_of(&service));
    }
    session.print(&out)
}
