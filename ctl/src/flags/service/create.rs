//! The flags of `service create`.

use clap::Args;
use serde_json::{Value, json};

use super::References;
use super::container::{CONTAINER, ContainerFlags};
use super::edit::{at, put};
use super::file::{FileRequest, Kind, references, request};
use super::policy::PolicyFlags;
use super::port::{self, Published, published};
use super::value::{address, generic, host, label, network, preference, ulimit};
use crate::flags::mount::mount;
use crate::flags::variables::environment;
use crate::flags::{pairs, strict_pairs};
use crate::session::Surroundings;

/// What a new service is made of.
#[derive(Args, Debug, Default)]
pub struct CreateFlags {
    #[command(flatten)]
    pub container: ContainerFlags,
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// Give tasks a config as a file: NAME or source=…,target=…,uid=…,gid=…,mode=…
    #[arg(long, value_name = "CONFIG", value_parser = request)]
    pub config: Vec<FileRequest>,
    /// Only hosts that fit, such as node.role==worker or node.labels.disk!=hdd; repeatable, all must hold
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint: Vec<String>,
    /// Set a label on the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub container_label: Vec<String>,
    /// Use this name server
    #[arg(long, value_name = "IP", value_parser = address)]
    pub dns: Vec<String>,
    /// Add a resolver option, such as ndots:1
    #[arg(long, value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Set a variable; NAME alone takes its value from here; templates such as '{{.Task.Slot}}' are filled in on the host
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Only hosts with so much of a resource of your own, such as GPU=2
    #[arg(long, value_name = "KIND=N", value_parser = generic)]
    pub generic_resource: Vec<Value>,
    /// Add a group to the user's groups
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Add a line NAME:IP to /etc/hosts
    #[arg(long, value_name = "NAME:IP", value_parser = host)]
    pub host: Vec<String>,
    /// Set a label on the service
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<String>,
    /// replicated, global (one on each host), replicated-job or global-job
    #[arg(long, value_name = "MODE", default_value = "replicated")]
    pub mode: String,
    /// Mount a bind, volume, tmpfs or image: type=…,source=…,target=…
    #[arg(long, value_name = "SPEC")]
    pub mount: Vec<String>,
    /// Name of the service
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Attach to a network, by name or as name=…,alias=…,driver-opt=…; repeatable
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub network: Vec<Value>,
    /// Spread over the values of a label: spread=node.labels.rack
    #[arg(long, value_name = "PREFERENCE", value_parser = preference)]
    pub placement_pref: Vec<Value>,
    /// Publish a port on all hosts: `[PUBLISHED:]TARGET[/PROTOCOL]` or published=…,target=…,protocol=…,mode=host,policy=local,host_ip=…,nodes=…
    #[arg(short, long, value_name = "PORT", value_parser = published)]
    pub publish: Vec<Published>,
    /// Give tasks a secret as a file in /run/secrets: NAME or source=…,target=…,uid=…,gid=…,mode=…
    #[arg(long, value_name = "SECRET", value_parser = request)]
    pub secret: Vec<FileRequest>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl: Vec<String>,
    /// Resource limit of the processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimit: Vec<Value>,
}

impl CreateFlags {
    /// The names of the networks.
    pub fn networks(&self) -> Vec<String> {
        targets(&self.network)
    }

    /// Refuses what is wrong in itself, before anything is asked of a daemon.
    pub fn check(&self) -> Result<(), String> {
        self.mode()?;
        self.container.apply(&mut json!({}))
    }

    /// The body of `POST /services/create`, the image as written.
    pub fn spec(
        &self,
        image: &str,
        arguments: &[String],
        around: &Surroundings,
        references: &References,
    ) -> Result<Value, String> {
        let mut spec = json!({
            "Name": self.name,
            "Labels": pairs(&self.label),
            "TaskTemplate": {
                "ContainerSpec": {"Image": image, "Init": false, "DNSConfig": {}},
                "Resources": {"Limits": {}, "Reservations": {}},
                "Placement": {},
                "ForceUpdate": 0,
            },
            "Mode": self.mode()?,
            "EndpointSpec": {"Mode": "vip"},
        });
        put(&mut spec, &["Name"], json!(self.name));
        self.container.apply(&mut spec)?;
        self.policy.apply(&mut spec);
        self.fill(&mut spec, arguments, around, references)?;
        let mut ports: Vec<Value> = self.publish.iter().flat_map(|p| p.0.clone()).collect();
        for (label, options) in port::labels(&mut ports) {
            put(&mut spec, &["Labels", &label], json!(options));
        }
        put(&mut spec, &["EndpointSpec", "Ports"], Value::Array(ports));
        for (path, list) in [
            (
                ["Resources", "Reservations", "GenericResources"].as_slice(),
                json!(self.generic_resource),
            ),
            (&["Placement", "Constraints"], json!(self.constraint)),
            (&["Placement", "Preferences"], json!(self.placement_pref)),
            (&["Networks"], json!(attached(&self.network, references)?)),
        ] {
            put(at(&mut spec, &["TaskTemplate"]), path, list);
        }
        Ok(spec)
    }

    fn fill(
        &self,
        spec: &mut Value,
        arguments: &[String],
        around: &Surroundings,
        found: &References,
    ) -> Result<(), String> {
        let variables = last_of_each(environment(
            &self.env_file,
            &self.env,
            &around.directory,
            &around.variables,
        )?);
        let mounts = mounts(&self.mount, around)?;
        let container = at(spec, &CONTAINER);
        for (path, value) in [
            (["Labels"].as_slice(), pairs(&self.container_label)),
            (&["Args"], json!(arguments)),
            (&["Env"], json!(variables)),
            (&["Groups"], json!(self.group)),
            (&["Mounts"], json!(mounts)),
            (&["Hosts"], json!(self.host)),
            (&["DNSConfig", "Nameservers"], json!(self.dns)),
            (&["DNSConfig", "Search"], json!(self.dns_search)),
            (&["DNSConfig", "Options"], json!(self.dns_option)),
            (
                &["Secrets"],
                json!(references(Kind::Secret, &self.secret, &found.secrets)?),
            ),
            (
                &["Configs"],
                json!(references(Kind::Config, &self.config, &found.configs)?),
            ),
            (&["Sysctls"], strict_pairs("--sysctl", &self.sysctl)?),
            (&["Ulimits"], json!(self.ulimit)),
        ] {
            put(container, path, value);
        }
        Ok(())
    }

    fn mode(&self) -> Result<Value, String> {
        let policy = &self.policy;
        let refuse = |given: bool, flag: &str, modes: &str| {
            if given {
                Err(format!("{flag} can only be used with {modes} mode"))
            } else {
                Ok(())
            }
        };
        let job = self.mode.ends_with("-job");
        if job && policy.is_about_updates() {
            return Err("update and rollback configuration is not supported for jobs".to_owned());
        }
        if self.mode.starts_with("global") {
            let several = "replicated or replicated-job";
            refuse(policy.replicas.is_some(), "replicas", several)?;
            refuse(
                policy.replicas_max_per_node.is_some_and(|n| n > 0),
                "replicas-max-per-node",
                several,
            )?;
        }
        if self.mode != "replicated-job" {
            refuse(
                policy.max_concurrent.is_some(),
                "max-concurrent",
                "replicated-job",
            )?;
        }
        let mut mode = json!({});
        match self.mode.as_str() {
            "replicated" => {
                mode["Replicated"] = policy
                    .replicas
                    .map_or_else(|| json!({}), |n| json!({"Replicas": n}));
            }
            "global" => mode["Global"] = json!({}),
            "global-job" => mode["GlobalJob"] = json!({}),
            "replicated-job" => {
                let mut part = json!({});
                if let Some(most) = policy.max_concurrent.or(policy.replicas) {
                    part["MaxConcurrent"] = json!(most);
                }
                if let Some(total) = policy.replicas {
                    part["TotalCompletions"] = json!(total);
                }
                mode["ReplicatedJob"] = part;
            }
            other => {
                return Err(format!(
                    "Unknown mode: {other}, only replicated, global, replicated-job and global-job supported"
                ));
            }
        }
        Ok(mode)
    }
}

/// The names in network flags.
pub fn targets(networks: &[Value]) -> Vec<String> {
    networks
        .iter()
        .filter_map(|attachment| attachment["Target"].as_str())
        .map(str::to_owned)
        .collect()
}

/// Attachments with ids in place of names, sorted by id as Docker sends them.
pub fn attached(networks: &[Value], references: &References) -> Result<Vec<Value>, String> {
    let mut list = Vec::new();
    for attachment in networks {
        let name = attachment["Target"].as_str().unwrap_or_default();
        let Some(id) = references.networks.get(name) else {
            return Err(format!("network {name} not found"));
        };
        let mut attachment = attachment.clone();
        put(&mut attachment, &["Target"], json!(id));
        list.push(attachment);
    }
    list.sort_by_key(|attachment| attachment["Target"].as_str().unwrap_or_default().to_owned());
    Ok(list)
}

/// Mounts; two at the same place are refused.
pub fn mounts(flags: &[String], around: &Surroundings) -> Result<Vec<Value>, String> {
    let mut list: Vec<Value> = Vec::new();
    for text in flags {
        let one = mount(text, &around.directory)?;
        if let Some(twice) = list.iter().find(|other| other["Target"] == one["Target"]) {
            return Err(format!("duplicate mount target {}", twice["Target"]));
        }
        list.push(one);
    }
    Ok(list)
}

/// Of variables set twice the last one, at its place.
fn last_of_each(variables: Vec<String>) -> Vec<String> {
    let name = |text: &str| text.split('=').next().unwrap_or(text).to_owned();
    let mut list: Vec<String> = Vec::new();
    for variable in variables {
        list.retain(|other| name(other) != name(&variable));
        list.push(variable);
    }
    list
}
