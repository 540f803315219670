//! What the cluster has of a stack. Only reads.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::of_stack;
use super::version::{Found, Wanted};
use crate::commands::text;
use crate::compose::convert::{Kind, Stack};
use crate::failure::Failure;
use crate::flags::Filters;
use crate::session::Session;

/// The cluster's side.
#[derive(Debug, Default)]
pub struct Observed {
    /// Ids by name of the stack's networks and of external ones.
    pub networks: BTreeMap<String, String>,
    /// Secrets and configs by name: those the stack needs, under any version.
    pub objects: BTreeMap<(Kind, String), Found>,
    /// Services of the stack.
    pub services: Vec<Value>,
}

impl Observed {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Value> {
        self.services.iter().find(|s| text(s, "/Spec/Name") == name)
    }
}

/// Refuses unless the daemon is a manager.
pub async fn manager(session: &Session) -> Result<(), Failure> {
    let info = session.client().await?.get("/info").value().await?;
    if info["Swarm"]["ControlAvailable"] == true {
        return Ok(());
    }
    Err(Failure::new(
        "this node is not a swarm manager. Use \"ovnctl swarm init\" or \"ovnctl swarm join\" to connect this node to swarm and try again",
    ))
}

/// Reads everything, and refuses when something that must exist does not.
pub async fn observe(
    session: &Session,
    stack: &Stack,
    wanted: &[Wanted<'_>],
) -> Result<Observed, Failure> {
    let mut external = BTreeMap::new();
    for (name, _) in &stack.external_networks {
        if let Some(id) = external_network(session, name).await? {
            external.insert(name.clone(), id);
        }
    }
    let client = session.client().await?;
    let networks = client
        .get("/networks")
        .filters(&of_stack(&stack.name))
        .value()
        .await?;
    let mut observed = Observed {
        networks: external,
        ..Observed::default()
    };
    let pairs = networks.as_array().into_iter().flatten();
    let pairs = pairs.map(|n| (text(n, "/Name").to_owned(), text(n, "/Id").to_owned()));
    observed.networks.extend(pairs);
    for wanted in wanted {
        let kind = wanted.object.kind;
        let plain = object(session, kind, &wanted.object.name).await?;
        let step = wanted.decide(plain.as_ref(), None);
        if let Some(plain) = plain {
            observed
                .objects
                .insert((kind, wanted.object.name.clone()), plain);
        }
        // Only when the plain name has other content, or was pruned.
        if matches!(step, super::version::Step::Create(_))
            && let Some(found) = object(session, kind, &wanted.versioned).await?
        {
            observed
                .objects
                .insert((kind, wanted.versioned.clone()), found);
        }
    }
    for kind in [Kind::Secret, Kind::Config] {
        let names: BTreeSet<&str> = stack
            .external_objects
            .iter()
            .filter(|(k, ..)| *k == kind)
            .map(|(_, name, _)| name.as_str())
            .collect();
        external_objects(session, kind, &names, &mut observed).await?;
    }
    let services = client
        .get("/services")
        .filters(&of_stack(&stack.name))
        .value()
        .await?;
    observed.services = services.as_array().cloned().unwrap_or_default();
    Ok(observed)
}

/// The id of a network of the cluster; none for those that each host has.
async fn external_network(session: &Session, name: &str) -> Result<Option<String>, Failure> {
    if matches!(name, "host" | "bridge" | "none" | "default") {
        return Ok(None);
    }
    let found = session
        .client()
        .await?
        .get(format!("/networks/{name}"))
        .value()
        .await
        .map_err(Failure::from);
    match found {
        Ok(network) if text(&network, "/Scope") == "swarm" => {
            Ok(Some(text(&network, "/Id").to_owned()))
        }
        Ok(network) => Err(Failure::new(format!(
            "network \"{name}\" is declared as external, but it is not in the right scope: \"{}\" instead of \"swarm\"",
            text(&network, "/Scope")
        ))),
        Err(failure) if failure.is_not_found() => Err(Failure::new(format!(
            "network \"{name}\" is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed: ovnctl network create --driver overlay {name}"
        ))),
        Err(failure) => Err(failure),
    }
}

async fn external_objects(
    session: &Session,
    kind: Kind,
    names: &BTreeSet<&str>,
    observed: &mut Observed,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut filters = Filters::default();
    for name in names {
        filters.add("name", name);
    }
    let list = session
        .client()
        .await?
        .get(format!("/{}s", kind.word()))
        .filters(&filters)
        .value()
        .await?;
    for value in list.as_array().into_iter().flatten() {
        let found = found(value);
        observed.objects.insert((kind, found.name.clone()), found);
    }
    match names
        .iter()
        .find(|name| !observed.objects.contains_key(&(kind, (**name).to_owned())))
    {
        None => Ok(()),
        Some(name) => Err(Failure::new(format!(
            "{word} \"{name}\" is declared as external, but could not be found. Create it before the stack is deployed: ovnctl {word} create {name} FILE",
            word = kind.word()
        ))),
    }
}

/// A secret or config by its name.
async fn object(session: &Session, kind: Kind, name: &str) -> Result<Option<Found>, Failure> {
    let call = session
        .client()
        .await?
        .get(format!("/{}s/{name}", kind.word()));
    match call.value().await.map_err(Failure::from) {
        // A name may also be the begin of an id.
        Ok(value) if text(&value, "/Spec/Name") == name => Ok(Some(found(&value))),
        Ok(_) => Ok(None),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// All secrets or configs of a stack.
pub async fn objects(session: &Session, kind: Kind, stack: &str) -> Result<Vec<Found>, Failure> {
    let call = session.client().await?.get(format!("/{}s", kind.word()));
    let list = call.filters(&of_stack(stack)).value().await?;
    Ok(list.as_array().into_iter().flatten().map(found).collect())
}

fn found(value: &Value) -> Found {
    Found {
        id: text(value, "/ID").to_owned(),
        name: text(value, "/Spec/Name").to_owned(),
        version: value
            .pointer("/Version/Index")
            .and_then(Value::as_u64)
            .unwrap_or(0),
        labels: value["Spec"]["Labels"]
            .as_object()
            .cloned()
            .unwrap_or_default(),
        data: value["Spec"]["Data"].as_str().map(str::to_owned),
    }
}
