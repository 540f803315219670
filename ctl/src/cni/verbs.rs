//! Carrying out what a runtime asks, by calls to ovnd.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use api::attachment::{AttachRequest, AttachmentView};
use serde_json::{Value, json};

use super::{
    answer::{self, CONFIGURATION, LATER, NO_CONTAINER, NOT_AVAILABLE, NOT_READ, OTHER, Refusal},
    request::{Command, Request},
};
use crate::client::{Client, ClientError, NEWEST};

/// Longer than the manager waits for an address and the hosts of the network together.
const PATIENCE: Duration = Duration::from_secs(90);
const ATTACHMENTS: &str = "/overnet/attachments";

/// The text on standard output; nothing for what has no result.
pub async fn carry_out(
    request: Request,
    variables: &BTreeMap<String, String>,
) -> Result<String, Refusal> {
    if request.command == Command::Version {
        return Ok(answer::versions(&request.version));
    }
    let debug = variables
        .get("OVERNET_DEBUG")
        .is_some_and(|on| !on.is_empty());
    let done = async {
        let connected = Client::connect(request.host.clone(), None, Some(NEWEST), debug).await;
        let client = connected.map_err(|error| told(&error))?;
        match request.command {
            Command::Add => add(&client, &request).await,
            Command::Del => del(&client, &request).await,
            Command::Check => check(&client, &request).await,
            Command::Gc => collect(&client, &request).await,
            Command::Status => status(&client, &request).await,
            Command::Version => Ok(String::new()),
        }
    };
    let done = tokio::time::timeout(PATIENCE, done).await;
    done.unwrap_or_else(|_| {
        let message = format!("ovnd does not answer within {} s", PATIENCE.as_secs());
        Err(Refusal::new(LATER, message, ""))
    })
}

/// By which an attachment is found again.
fn owner(name: &str, container: &str, interface: &str) -> String {
    format!("cni/{name}/{container}/{interface}")
}

fn own(request: &Request) -> String {
    let place = &request.place;
    owner(&request.name, &place.container, &place.interface)
}

async fn add(client: &Client, request: &Request) -> Result<String, Refusal> {
    let place = &request.place;
    if !Path::new(&place.netns).exists() {
        let message = format!("CNI_NETNS: there is no network namespace {}", place.netns);
        return Err(Refusal::new(NO_CONTAINER, message, ""));
    }
    let short: String = place.container.chars().take(12).collect();
    let name = request
        .container_name
        .clone()
        .unwrap_or_else(|| short.clone());
    let mut aliases = request.aliases.clone();
    aliases.push(short);
    aliases.retain(|alias| *alias != name);
    aliases.dedup();
    let asked = AttachRequest {
        netns: place.netns.clone(),
        network: request.network.clone(),
        name,
        aliases,
        ip_addresses: request.addresses.clone(),
        interface: place.interface.clone(),
        gateway: request.gateway,
        owner: own(request),
    };
    let call = client.post(ATTACHMENTS).json(&json!(asked));
    let attached: AttachmentView = read(call.value().await.map_err(|error| told(&error))?)?;
    let netns = &place.netns;
    Ok(answer::result(
        &request.version,
        &attached,
        netns,
        &request.dns,
    ))
}

/// What is not there is detached.
async fn del(client: &Client, request: &Request) -> Result<String, Refusal> {
    remove(client, &own(request)).await.map(|()| String::new())
}

async fn remove(client: &Client, owner: &str) -> Result<(), Refusal> {
    match client
        .delete(ATTACHMENTS)
        .query("owner", owner)
        .done()
        .await
    {
        Ok(()) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
        Err(error) => Err(told(&error)),
    }
}

async fn check(client: &Client, request: &Request) -> Result<String, Refusal> {
    let call = client.get(ATTACHMENTS).query("owner", own(request));
    let found = call.flag("check", true).value().await;
    let found: Vec<AttachmentView> = read(found.map_err(|error| told(&error))?)?;
    let place = &request.place;
    let wrong = |what: String| Err(Refusal::new(OTHER, what, ""));
    let Some(attached) = found.first() else {
        return wrong(format!(
            "container {} is not attached to network {}",
            place.container, request.network
        ));
    };
    if !attached.fault.is_empty() {
        return wrong(format!("container {}: {}", place.container, attached.fault));
    }
    let out = attached.gateway.iter().flat_map(|way| &way.ip_addresses);
    let held: Vec<&String> = attached.ip_addresses.iter().chain(out).collect();
    match request
        .before
        .iter()
        .find(|address| !held.contains(address))
    {
        Some(address) => wrong(format!(
            "prevResult: address {address} is not that of container {}",
            place.container
        )),
        None => Ok(String::new()),
    }
}

/// Takes away what the runtime does not know any more.
async fn collect(client: &Client, request: &Request) -> Result<String, Refusal> {
    let found = client.get(ATTACHMENTS).value().await;
    let found: Vec<AttachmentView> = read(found.map_err(|error| told(&error))?)?;
    let kept: Vec<String> = request
        .valid
        .iter()
        .map(|(container, interface)| owner(&request.name, container, interface))
        .collect();
    let ours = format!("cni/{}/", request.name);
    for one in found {
        if one.owner.starts_with(&ours) && !kept.contains(&one.owner) {
            remove(client, &one.owner).await?;
        }
    }
    Ok(String::new())
}

/// Whether an `ADD` can be met.
async fn status(client: &Client, request: &Request) -> Result<String, Refusal> {
    let unavailable = |message: String| Refusal::new(NOT_AVAILABLE, message, "");
    let network = client.get(format!("/networks/{}", request.network));
    let network = network.value().await;
    let network = network.map_err(|error| unavailable(told(&error).message))?;
    if network["Scope"] != "swarm" || network["Attachable"] != true {
        return Err(unavailable(format!(
            "network {} is no attachable overlay network",
            request.network
        )));
    }
    Ok(String::new())
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Refusal> {
    serde_json::from_value(answer).map_err(|error| {
        let message = "ovnd's answer is not understood; is it of the same version?";
        Refusal::new(NOT_READ, message, error.to_string())
    })
}

/// The code that says whether to try again, or to change the configuration.
fn told(error: &ClientError) -> Refusal {
    match error {
        ClientError::Refused { status, message } => {
            let code = match status {
                400 | 403 | 404 => CONFIGURATION,
                503 => LATER,
                _ => OTHER,
            };
            Refusal::new(code, message.clone(), "")
        }
        ClientError::Unreachable { .. } | ClientError::Broken { .. } => {
            Refusal::new(LATER, error.to_string(), "")
        }
        ClientError::Unreadable { .. } | ClientError::TooOld { .. } => {
            Refusal::new(OTHER, error.to_string(), "")
        }
    }
}
