//! What a runtime asks: the command and its parameters from the environment, the network
//! configuration from standard input.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::{
    CONFIGURATION, ENVIRONMENT, FIELD, NEWEST, NOT_READ, Refusal, VERSION, VERSIONS,
};
use crate::client::{DEFAULT_HOST, Host};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// A container's place on the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub container: String,
    pub netns: String,
    pub interface: String,
}

/// Everything of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub command: Command,
    /// Of the specification.
    pub version: String,
    /// The name of the configuration, by which the runtime knows it.
    pub name: String,
    /// The overlay network.
    pub network: String,
    pub host: Host,
    pub place: Place,
    /// What the container is called; by `CNI_ARGS`.
    pub container_name: Option<String>,
    pub aliases: Vec<String>,
    pub addresses: Vec<String>,
    pub gateway: bool,
    /// `dns` of the configuration.
    pub dns: Map<String, Value>,
    /// Addresses of the result of `ADD`, for `CHECK`.
    pub before: Vec<String>,
    /// Attachments that are still there, for `GC`: container and interface.
    pub valid: Vec<(String, String)>,
}

impl Request {
    pub fn read(variables: &BTreeMap<String, String>, input: &[u8]) -> Result<Self, Refusal> {
        let command = command(variables)?;
        if command == Command::Version {
            return Ok(Self::bare(command, version_of(input)));
        }
        let config = object(input)?;
        let version = version(&config, command)?;
        let place = place(variables, command)?;
        let name = text(&config, "name")?.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(invalid(format!(
                "name: {name:?} is no name of a network configuration"
            )));
        }
        let network = text(&config, "network")?.filter(|network| !network.is_empty());
        refuse_foreign(&config, command)?;
        let host = text(&config, "host")?.or_else(|| variables.get("OVERNET_HOST").cloned());
        let host = host.filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let arguments = arguments(variables);
        let run = match config.get("runtimeConfig") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(run)) => run.clone(),
            Some(_) => return Err(invalid("runtimeConfig is no object")),
        };
        let mut addresses = strings(&run, "ips")?;
        if addresses.is_empty() {
            let given = arguments
                .get("IP")
                .into_iter()
                .flat_map(|ips| ips.split(','));
            addresses = given.map(str::to_owned).collect();
        }
        Ok(Self {
            network: network.unwrap_or_else(|| name.clone()),
            host: Host::parse(&host).map_err(|error| invalid(format!("host: {error}")))?,
            place,
            container_name: arguments.get("K8S_POD_NAME").cloned(),
            aliases: aliases(&run, &name)?,
            addresses: addresses.iter().map(|text| bare_address(text)).collect(),
            gateway: flag(&config, "isDefaultGateway")?,
            dns: match config.get("dns") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(dns)) => dns.clone(),
                Some(_) => return Err(invalid("dns is no object")),
            },
            before: before(&config),
            valid: valid(&config, command)?,
            name,
            ..Self::bare(command, version)
        })
    }

    fn bare(command: Command, version: String) -> Self {
        Self {
            command,
            version,
            name: String::new(),
            network: String::new(),
            host: Host::Unix(DEFAULT_HOST.into()),
            place: Place::default(),
            container_name: None,
            aliases: Vec::new(),
            addresses: Vec::new(),
            gateway: false,
            dns: Map::new(),
            before: Vec::new(),
            valid: Vec::new(),
        }
    }
}

/// The version that an answer to this input is written in, whatever is wrong with it.
pub fn version_of(input: &[u8]) -> String {
    let read: Option<Value> = serde_json::from_slice(input).ok();
    let named = read.as_ref().and_then(|read| read["cniVersion"].as_str());
    let known = named.filter(|named| VERSIONS.contains(named));
    known.unwrap_or(NEWEST).to_owned()
}

fn command(variables: &BTreeMap<String, String>) -> Result<Command, Refusal> {
    match variable(variables, "CNI_COMMAND") {
        "ADD" => Ok(Command::Add),
        "DEL" => Ok(Command::Del),
        "CHECK" => Ok(Command::Check),
        "GC" => Ok(Command::Gc),
        "STATUS" => Ok(Command::Status),
        "VERSION" => Ok(Command::Version),
        "" => Err(Refusal::new(
            ENVIRONMENT,
            "CNI_COMMAND is missing in the environment",
            "overnet-cni is called by container runtimes; see https://www.cni.dev/docs/spec",
        )),
        other => Err(Refusal::new(
            ENVIRONMENT,
            format!("CNI_COMMAND: {other:?} is unknown"),
            "there are ADD, DEL, CHECK, GC, STATUS and VERSION",
        )),
    }
}

fn variable<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    variables.get(name).map(String::as_str).unwrap_or_default()
}

fn object(input: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(input) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(Refusal::new(
            NOT_READ,
            "the network configuration is no JSON object",
            "",
        )),
        Err(error) => Err(Refusal::new(
            NOT_READ,
            "the network configuration on standard input is no JSON",
            error.to_string(),
        )),
    }
}

fn version(config: &Map<String, Value>, command: Command) -> Result<String, Refusal> {
    let asked = text(config, "cniVersion")?.unwrap_or_default();
    let Some(place) = VERSIONS.iter().position(|one| *one == asked) else {
        return Err(Refusal::new(
            VERSION,
            format!("cniVersion {asked:?} is not supported"),
            format!("there are {}", VERSIONS.join(", ")),
        ));
    };
    let since = match command {
        Command::Check => "0.4.0",
        Command::Gc | Command::Status => "1.1.0",
        Command::Add | Command::Del | Command::Version => "0.3.0",
    };
    if VERSIONS.iter().position(|one| *one == since) > Some(place) {
        return Err(Refusal::new(
            VERSION,
            format!("{command:?} is none of cniVersion {asked}'s commands: it came with {since}"),
            "",
        ));
    }
    Ok(asked)
}

fn place(variables: &BTreeMap<String, String>, command: Command) -> Result<Place, Refusal> {
    let needed: &[&str] = match command {
        Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
        Command::Gc | Command::Status | Command::Version => return Ok(Place::default()),
    };
    let missing = |name: &&&str| variable(variables, name).is_empty();
    let missing: Vec<&str> = needed.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        return Err(Refusal::new(
            ENVIRONMENT,
            format!("missing in the environment: {}", missing.join(", ")),
            "",
        ));
    }
    let place = Place {
        container: variable(variables, "CNI_CONTAINERID").to_owned(),
        netns: variable(variables, "CNI_NETNS").to_owned(),
        interface: variable(variables, "CNI_IFNAME").to_owned(),
    };
    let bad = |name: &str, value: &str| {
        let message = format!("{name}: {value:?} is not valid");
        Err(Refusal::new(ENVIRONMENT, message, ""))
    };
    if !is_identifier(&place.container) {
        return bad("CNI_CONTAINERID", &place.container);
    }
    let named = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let length = place.interface.len();
    if length > 15 || !place.interface.chars().all(named) || matches!(&*place.interface, "." | "..")
    {
        return bad("CNI_IFNAME", &place.interface);
    }
    Ok(place)
}

/// A letter or digit, then those and `_`, `.`, `-`.
fn is_identifier(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(word) && text.chars().all(|c| word(c) || "_.-".contains(c))
}

/// What would have no effect is refused.
fn refuse_foreign(config: &Map<String, Value>, command: Command) -> Result<(), Refusal> {
    // What was attached goes, whatever the configuration has become.
    if command != Command::Add {
        return Ok(());
    }
    let filled =
        |value: &&Value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty());
    if let Some(ipam) = config.get("ipam").filter(filled) {
        return Err(Refusal::new(
            FIELD,
            format!("ipam: {ipam} is not supported"),
            "the cluster gives the addresses; the runtime asks for fixed ones by the capability ips",
        ));
    }
    let interfaces = config.get("prevResult").map(|result| &result["interfaces"]);
    if interfaces
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
    {
        return Err(invalid(
            "prevResult: another plugin has made an interface; overnet-cni is the first of its list",
        ));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(CONFIGURATION, message, "")
}

fn text(config: &Map<String, Value>, key: &str) -> Result<Option<String>, Refusal> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(invalid(format!("{key}: {} is no text", short(other)))),
    }
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<bool, Refusal> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(invalid(format!(
            "{key}: {} is neither true nor false",
            short(other)
        ))),
    }
}

/// Of what may be very long.
fn short(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => list(value).ok_or_else(|| invalid(format!("{key} is no list of texts"))),
    }
}

fn list(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts.map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The capability `aliases`: lists by the name of the configuration.
fn aliases(run: &Map<String, Value>, name: &str) -> Result<Vec<String>, Refusal> {
    match run.get("aliases") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(lists)) => strings(lists, name),
        Some(_) => Err(invalid("runtimeConfig.aliases is no object of lists")),
    }
}

/// `CNI_ARGS` is `KEY=VALUE;KEY=VALUE`.
fn arguments(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let pairs = variable(variables, "CNI_ARGS").split(';');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Runtimes write fixed addresses with a prefix length or without.
fn bare_address(text: &str) -> String {
    text.split_once('/')
        .map_or(text, |(address, _)| address)
        .to_owned()
}

fn before(config: &Map<String, Value>) -> Vec<String> {
    let ips = config
        .get("prevResult")
        .and_then(|result| result["ips"].as_array());
    let texts = ips
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str());
    texts.map(str::to_owned).collect()
}

fn valid(config: &Map<String, Value>, command: Command) -> Result<Vec<(String, String)>, Refusal> {
    if command != Command::Gc {
        return Ok(Vec::new());
    }
    // Without the list nothing may be taken for left over.
    let key = "cni.dev/valid-attachments";
    let listed = config.get(key).and_then(Value::as_array);
    let listed = listed.ok_or_else(|| invalid(format!("{key} is missing, or no list")))?;
    let one = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        Some((text("containerID")?, text("ifname")?))
    };
    let all: Option<Vec<_>> = listed.iter().map(one).collect();
    all.ok_or_else(|| invalid(format!("{key}: an entry has no containerID or no ifname")))
}

#[cfg(test)]
mod tests;
