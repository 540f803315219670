//! `inspect`: things of any kind by name or id.

use clap::Args;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::listing::render_one;
use crate::session::Session;
use crate::template::pretty_json;

/// Show everything known of containers, images, networks, volumes or nodes
///
/// Without --type the kinds are tried in that order.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl inspect api\n  ovnctl inspect -f '{{.State.Status}}' api\n  ovnctl inspect --type network ch03"
)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show a container's size
    #[arg(short, long)]
    size: bool,
    /// container, image, network, volume, node, service, task, secret or config
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<String>,
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

/// `inspect` within a group, where the kind is known.
#[derive(Args, Debug)]
pub struct TypedArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show a container's size
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

/// Kinds in the order they are tried, with their path; swarm's kinds only on a manager.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("container", "/containers/", "/json", false),
    ("image", "/images/", "/json", false),
    ("network", "/networks/", "", false),
    ("volume", "/volumes/", "", false),
    ("service", "/services/", "", true),
    ("task", "/tasks/", "", true),
    ("node", "/nodes/", "", true),
    ("secret", "/secrets/", "", true),
    ("config", "/configs/", "", true),
];

/// `inspect`.
pub async fn inspect(session: &Session, args: InspectArgs) -> Result<(), Failure> {
    if let Some(kind) = &args.kind
        && !KINDS.iter().any(|(name, ..)| name == kind)
    {
        let all: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
        return Err(Failure::new(format!(
            "--type {kind:?}: use one of {}",
            all.join(", ")
        )));
    }
    print_all(session, &args.names, args.format.as_deref(), async |name| {
        find(session, name, args.kind.as_deref(), args.size).await
    })
    .await
}

/// `container inspect`, `image inspect`, `volume inspect`.
pub async fn typed(session: &Session, args: TypedArgs, kind: &str) -> Result<(), Failure> {
    print_all(session, &args.names, args.format.as_deref(), async |name| {
        find(session, name, Some(kind), args.size).await
    })
    .await
}

async fn find(
    session: &Session,
    name: &str,
    wanted: Option<&str>,
    size: bool,
) -> Result<Value, Failure> {
    let client = session.client().await?;
    let mut manager = None;
    for (kind, before, after, swarm) in KINDS {
        if wanted.is_some_and(|w| w != *kind) {
            continue;
        }
        if *swarm && wanted.is_none() {
            if manager.is_none() {
                let info = client.get("/info").value().await?;
                manager = info
                    .pointer("/Swarm/ControlAvailable")
                    .and_then(Value::as_bool);
            }
            if manager != Some(true) {
                continue;
            }
        }
        let call = client.get(format!("{before}{name}{after}"));
        let call = call.flag("size", size && *kind == "container");
        let call = if *kind == "service" {
            call.query("insertDefaults", "true")
        } else {
            call
        };
        match call.value().await.map_err(Failure::from) {
            Err(failure) if wanted.is_none() && failure.is_not_found() => {}
            // A name that this kind cannot have is not there either.
            Err(failure) if wanted.is_none() && matches!(failure.refusal, Some(400 | 503)) => {}
            other => return other,
        }
    }
    Err(Failure::new(format!("No such object: {name}")))
}

/// Prints all that was found as one JSON list, or each through the template; failures are told at the end.
pub async fn print_all(
    session: &Session,
    names: &[String],
    format: Option<&str>,
    fetch: impl AsyncFn(&str) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match fetch(name).await {
            Ok(value) => found.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    match format.filter(|f| !f.trim().is_empty()) {
        None => session.line(&pretty_json(&Value::Array(found)))?,
        Some(format) => {
            for value in &found {
                session.print(&render_one(value, format)?)?;
            }
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Failure::new(
            failures
                .iter()
                .map(Failure::text)
                .collect::<Vec<_>>()
                .join("\n"),
        )),
    }
}
