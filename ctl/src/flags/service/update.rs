//! The flags of `service update`: edits of what the daemon has.

use clap::Args;
use serde_json::{Value, json};

use super::References;
use super::container::{CONTAINER, ContainerFlags};
use super::create::{attached, mounts, targets};
use super::edit::{at, edit_map, edit_texts, list, object, put, texts};
use super::file::{self, FileRequest, Kind, references, request};
use super::policy::PolicyFlags;
use super::port::{self, Published, published};
use super::value::{
    Words, address, generic, host, label, network, preference, shell_words, ulimit,
};
use crate::flags::variables::environment;
use crate::session::Surroundings;

/// What changes in a service.
#[derive(Args, Debug, Default, PartialEq)]
pub struct UpdateFlags {
    #[command(flatten)]
    pub container: ContainerFlags,
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// Run with these arguments
    #[arg(long, value_name = "COMMAND", value_parser = shell_words)]
    pub args: Option<Words>,
    /// Add or change a config
    #[arg(long, value_name = "CONFIG", value_parser = request)]
    pub config_add: Vec<FileRequest>,
    /// Remove a config
    #[arg(long, value_name = "NAME")]
    pub config_rm: Vec<String>,
    /// Add a constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_rm: Vec<String>,
    /// Add or change a label of the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub container_label_add: Vec<String>,
    /// Remove a label of the containers
    #[arg(long, value_name = "KEY")]
    pub container_label_rm: Vec<String>,
    /// Add a name server
    #[arg(long, value_name = "IP", value_parser = address)]
    pub dns_add: Vec<String>,
    /// Add a resolver option
    #[arg(long, value_name = "OPTION")]
    pub dns_option_add: Vec<String>,
    /// Remove a resolver option
    #[arg(long, value_name = "OPTION")]
    pub dns_option_rm: Vec<String>,
    /// Remove a name server
    #[arg(long, value_name = "IP")]
    pub dns_rm: Vec<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_add: Vec<String>,
    /// Remove a search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_rm: Vec<String>,
    /// Add or change a variable
    #[arg(long, value_name = "NAME=VALUE")]
    pub env_add: Vec<String>,
    /// Remove a variable
    #[arg(long, value_name = "NAME")]
    pub env_rm: Vec<String>,
    /// Replace all tasks even when nothing requires it
    #[arg(long)]
    pub force: bool,
    /// Add a resource of your own, such as GPU=2
    #[arg(long, value_name = "KIND=N", value_parser = generic)]
    pub generic_resource_add: Vec<Value>,
    /// Remove a resource of your own
    #[arg(long, value_name = "KIND")]
    pub generic_resource_rm: Vec<String>,
    /// Add a group to the user's groups
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Remove a group from the user's groups
    #[arg(long, value_name = "GROUP")]
    pub group_rm: Vec<String>,
    /// Add a line NAME:IP to /etc/hosts
    #[arg(long, value_name = "NAME:IP", value_parser = host)]
    pub host_add: Vec<String>,
    /// Remove the lines of a name, or of NAME:IP, from /etc/hosts
    #[arg(long, value_name = "NAME[:IP]")]
    pub host_rm: Vec<String>,
    /// Run this image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Add or change a label of the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label_add: Vec<String>,
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Add or change a mount
    #[arg(long, value_name = "SPEC")]
    pub mount_add: Vec<String>,
    /// Remove the mount at this place
    #[arg(long, value_name = "TARGET")]
    pub mount_rm: Vec<String>,
    /// Attach to one more network
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub network_add: Vec<Value>,
    /// Detach from a network
    #[arg(long, value_name = "NETWORK")]
    pub network_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "PREFERENCE", value_parser = preference)]
    pub placement_pref_add: Vec<Value>,
    /// Remove a placement preference
    #[arg(long, value_name = "PREFERENCE", value_parser = preference)]
    pub placement_pref_rm: Vec<Value>,
    /// Add a published port
    #[arg(long, value_name = "PORT", value_parser = published)]
    pub publish_add: Vec<Published>,
    /// Remove a published port, by its target port
    #[arg(long, value_name = "TARGET", value_parser = published)]
    pub publish_rm: Vec<Published>,
    /// Add or change a secret
    #[arg(long, value_name = "SECRET", value_parser = request)]
    pub secret_add: Vec<FileRequest>,
    /// Remove a secret
    #[arg(long, value_name = "NAME")]
    pub secret_rm: Vec<String>,
    /// Add or change a kernel parameter
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl_add: Vec<String>,
    /// Remove a kernel parameter
    #[arg(long, value_name = "KEY")]
    pub sysctl_rm: Vec<String>,
    /// Add or change a resource limit of the processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimit_add: Vec<Value>,
    /// Remove a resource limit of the processes
    #[arg(long, value_name = "NAME")]
    pub ulimit_rm: Vec<String>,
}

impl UpdateFlags {
    /// True when any of these flags was given.
    pub fn given(&self) -> bool {
        *self != Self::default()
    }

    /// The names of the networks, those to add and those to remove.
    pub fn networks(&self) -> Vec<String> {
        let mut names = self.network_rm.clone();
        names.extend(targets(&self.network_add));
        names
    }

    /// Edits the whole specification.
    pub fn edit(
        &self,
        spec: &mut Value,
        around: &Surroundings,
        found: &References,
    ) -> Result<(), String> {
        self.mode(spec)?;
        edit_map(spec, &["Labels"], &self.label_add, &self.label_rm);
        self.container.apply(spec)?;
        self.policy.apply(spec);
        self.edit_container(spec, around, found)?;
        self.edit_task(spec, found)?;
        if !self.publish_add.is_empty() || !self.publish_rm.is_empty() {
            let now = list(spec, &["EndpointSpec", "Ports"]);
            let mut added: Vec<Value> = self.publish_add.iter().flat_map(|p| p.0.clone()).collect();
            for (label, options) in port::labels(&mut added) {
                put(spec, &["Labels", &label], json!(options));
            }
            let ports = port::edited(&now, &[Published(added)], &self.publish_rm);
            put(spec, &["EndpointSpec", "Ports"], Value::Array(ports));
        }
        if self.force {
            let counter = object(at(spec, &["TaskTemplate"])).entry("ForceUpdate");
            let counter = counter.or_insert_with(|| json!(0));
            *counter = json!(counter.as_u64().unwrap_or(0).wrapping_add(1));
        }
        Ok(())
    }

    fn mode(&self, spec: &mut Value) -> Result<(), String> {
        let policy = &self.policy;
        let has = |name: &str| spec["Mode"].get(name).is_some_and(|m| !m.is_null());
        let (replicated, job) = (has("Replicated"), has("ReplicatedJob"));
        if (job || has("GlobalJob")) && policy.is_about_updates() {
            return Err("update and rollback configuration is not supported for jobs".to_owned());
        }
        if policy.max_concurrent.is_some() && !job {
            return Err("max-concurrent can only be used with replicated-job mode".to_owned());
        }
        if let Some(number) = policy.replicas {
            let path = match () {
                () if replicated => ["Mode", "Replicated", "Replicas"],
                () if job => ["Mode", "ReplicatedJob", "TotalCompletions"],
                () => {
                    return Err(
                        "replicas can only be used with replicated or replicated-job mode"
                            .to_owned(),
                    );
                }
            };
            // Zero replicas is a wish, not a field left out.
            *at(spec, &path) = json!(number);
        }
        if let Some(number) = policy.max_concurrent {
            *at(spec, &["Mode", "ReplicatedJob", "MaxConcurrent"]) = json!(number);
        }
        Ok(())
    }

    fn edit_container(
        &self,
        spec: &mut Value,
        around: &Surroundings,
        found: &References,
    ) -> Result<(), String> {
        let container = at(spec, &CONTAINER);
        if let Some(image) = &self.image {
            put(container, &["Image"], json!(image));
        }
        if let Some(words) = &self.args {
            put(container, &["Args"], json!(words.0));
        }
        edit_map(
            container,
            &["Labels"],
            &self.container_label_add,
            &self.container_label_rm,
        );
        edit_map(container, &["Sysctls"], &self.sysctl_add, &self.sysctl_rm);
        edit_texts(container, &["Groups"], &self.group_add, &self.group_rm);
        for (field, add, remove) in [
            ("Nameservers", &self.dns_add, &self.dns_rm),
            ("Search", &self.dns_search_add, &self.dns_search_rm),
            ("Options", &self.dns_option_add, &self.dns_option_rm),
        ] {
            edit_texts(container, &["DNSConfig", field], add, remove);
        }
        if !self.env_add.is_empty() || !self.env_rm.is_empty() {
            let add = environment(&[], &self.env_add, &around.directory, &around.variables)?;
            put(
                container,
                &["Env"],
                json!(variables(texts(container, &["Env"]), &add, &self.env_rm)),
            );
        }
        self.edit_hosts(container);
        if !self.mount_add.is_empty() || !self.mount_rm.is_empty() {
            let now = list(container, &["Mounts"]);
            let add = mounts(&self.mount_add, around)?;
            let place = |mount: &Value| mount["Target"].as_str().unwrap_or_default().to_owned();
            let mut edited = keyed(now, add, &self.mount_rm, place);
            edited.sort_by_key(|mount| mount["Source"].as_str().unwrap_or_default().to_owned());
            put(container, &["Mounts"], json!(edited));
        }
        if !self.ulimit_add.is_empty() || !self.ulimit_rm.is_empty() {
            let name = |limit: &Value| limit["Name"].as_str().unwrap_or_default().to_owned();
            let now = list(container, &["Ulimits"]);
            let edited = keyed(now, self.ulimit_add.clone(), &self.ulimit_rm, name);
            put(container, &["Ulimits"], json!(edited));
        }
        for (kind, add, remove, ids) in [
            (
                Kind::Secret,
                &self.secret_add,
                &self.secret_rm,
                &found.secrets,
            ),
            (
                Kind::Config,
                &self.config_add,
                &self.config_rm,
                &found.configs,
            ),
        ] {
            if !add.is_empty() || !remove.is_empty() {
                let now = list(container, &[kind.list_field()]);
                let add = references(kind, add, ids)?;
                let edited = file::edited(kind, &now, add, remove);
                put(container, &[kind.list_field()], json!(edited));
            }
        }
        Ok(())
    }

    /// Lines are `IP NAME [ALIAS…]`; a removal is `NAME` or `NAME:IP`.
    fn edit_hosts(&self, container: &mut Value) {
        let gone: Vec<String> = texts(container, &["Hosts"])
            .into_iter()
            .filter(|line| {
                let mut words = line.split_whitespace();
                let (ip, name) = (
                    words.next().unwrap_or_default(),
                    words.next().unwrap_or_default(),
                );
                self.host_rm.iter().any(|text| match text.split_once(':') {
                    Some((host, address)) => host == name && address == ip,
                    None => text == name,
                })
            })
            .collect();
        edit_texts(container, &["Hosts"], &self.host_add, &gone);
    }

    fn edit_task(&self, spec: &mut Value, found: &References) -> Result<(), String> {
        let legacy = list(spec, &["Networks"]);
        let task = at(spec, &["TaskTemplate"]);
        edit_texts(
            task,
            &["Placement", "Constraints"],
            &self.constraint_add,
            &self.constraint_rm,
        );
        if !self.placement_pref_add.is_empty() || !self.placement_pref_rm.is_empty() {
            let mut preferences = list(task, &["Placement", "Preferences"]);
            preferences.retain(|preference| !self.placement_pref_rm.contains(preference));
            preferences.extend(self.placement_pref_add.iter().cloned());
            put(
                task,
                &["Placement", "Preferences"],
                Value::Array(preferences),
            );
        }
        if !self.generic_resource_add.is_empty() || !self.generic_resource_rm.is_empty() {
            let path = ["Resources", "Reservations", "GenericResources"];
            let kind = |resource: &Value| {
                let field = |pointer: &str| resource.pointer(pointer).and_then(Value::as_str);
                field("/DiscreteResourceSpec/Kind")
                    .or_else(|| field("/NamedResourceSpec/Kind"))
                    .unwrap_or_default()
                    .to_owned()
            };
            let now = list(task, &path);
            let edited = keyed(
                now,
                self.generic_resource_add.clone(),
                &self.generic_resource_rm,
                kind,
            );
            put(task, &path, json!(edited));
        }
        if self.network_add.is_empty() && self.network_rm.is_empty() {
            return Ok(());
        }
        let mut now = list(task, &["Networks"]);
        if now.is_empty() {
            // Where specifications of old clients hold them.
            now = legacy;
        }
        let id = |name: &String| found.networks.get(name).unwrap_or(name).clone();
        let gone: Vec<String> = self.network_rm.iter().map(id).collect();
        let target = |network: &Value| network["Target"].as_str().unwrap_or_default().to_owned();
        now.retain(|network| {
            !gone.contains(&target(network)) && !self.network_rm.contains(&target(network))
        });
        for network in &self.network_add {
            let name = target(network);
            if now.iter().any(|have| target(have) == id(&name)) {
                return Err(format!("service is already attached to network {name}"));
            }
        }
        let add = attached(&self.network_add, found)?;
        now.extend(add);
        now.sort_by_key(target);
        put(task, &["Networks"], Value::Array(now));
        put(spec, &["Networks"], Value::Null);
        Ok(())
    }
}

/// Entries by key: those added replace those of the same key, those removed go; sorted by key.
fn keyed(
    mut now: Vec<Value>,
    add: Vec<Value>,
    remove: &[String],
    key: impl Fn(&Value) -> String,
) -> Vec<Value> {
    now.retain(|have| !add.iter().any(|new| key(new) == key(have)));
    now.extend(add);
    now.retain(|entry| !remove.contains(&key(entry)));
    now.sort_by_key(|entry| key(entry));
    now
}

/// Variables: those added replace those of the same name at their place, those removed go.
fn variables(mut now: Vec<String>, add: &[String], remove: &[String]) -> Vec<String> {
    let name = |text: &str| text.split('=').next().unwrap_or(text).to_owned();
    for variable in add {
        match now.iter_mut().find(|have| name(have) == name(variable)) {
            Some(have) => have.clone_from(variable),
            None => now.push(variable.clone()),
        }
    }
    now.retain(|variable| !remove.contains(&name(variable)));
    now
}
