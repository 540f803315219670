//! What a service's tasks are made from: `TaskTemplate`, and `Spec` of a task.

use std::collections::BTreeMap;

use model::{
    Refusal, TaskSpec,
    task::{
        Driver, GenericResource, Limits, NetworkAttachment, Placement, Platform, Reservations,
        RestartPolicy,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container::ContainerSpecView;
use crate::{duration, omit, word::Word};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskTemplate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpecView>,
    /// Refused: there are no plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_spec: Option<Value>,
    /// Refused: containers are attached without a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_attachment_spec: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub networks: Vec<AttachmentConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<DriverView>,
    pub force_update: u64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub runtime: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachmentConfig {
    #[serde(skip_serializing_if = "omit::empty")]
    pub target: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub driver_opts: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DriverView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub name: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourcesView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<ReservationView>,
    /// Refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<i64>,
    /// Refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LimitView {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "omit::empty")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub pids: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReservationView {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "omit::empty")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub generic_resources: Vec<GenericView>,
}

/// One of them is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GenericView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_resource_spec: Option<NamedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NamedView {
    pub kind: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiscreteView {
    pub kind: String,
    pub value: i64,
}

/// Durations in nanoseconds; absent fields have their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlacementView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub constraints: Vec<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub preferences: Vec<PreferenceView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub max_replicas: u64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub platforms: Vec<PlatformView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PreferenceView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadView {
    pub spread_descriptor: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlatformView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "omit::empty")]
    pub os: String,
}

impl TaskTemplate {
    pub fn into_model(self) -> Result<TaskSpec, Refusal> {
        if self.plugin_spec.is_some() || self.runtime.eq_ignore_ascii_case("plugin") {
            return Err(Refusal::not_implemented(
                "TaskTemplate.PluginSpec: services of plugins are not there; run the program in a container (ContainerSpec)",
            ));
        }
        if self.network_attachment_spec.is_some() || self.runtime.eq_ignore_ascii_case("attachment")
        {
            return Err(Refusal::invalid(
                "TaskTemplate.NetworkAttachmentSpec: containers come to an attachable network without a service; start the container with the network",
            ));
        }
        if !matches!(self.runtime.to_ascii_lowercase().as_str(), "" | "container") {
            return Err(Refusal::invalid(format!(
                "TaskTemplate.Runtime: {:?} is not known; only container is",
                self.runtime
            )));
        }
        let container = self.container_spec.ok_or_else(|| {
            Refusal::invalid("TaskTemplate.ContainerSpec is missing; it names the image to run")
        })?;
        let (limits, reservations) = self.resources.unwrap_or_default().into_model()?;
        Ok(TaskSpec {
            container: container.into_model()?,
            limits,
            reservations,
            restart: self
                .restart_policy
                .map(|policy| policy.to_model())
                .transpose()?,
            placement: self.placement.unwrap_or_default().into_model()?,
            networks: self
                .networks
                .into_iter()
                .map(|network| NetworkAttachment {
                    target: network.target,
                    aliases: network.aliases,
                    driver_options: network.driver_opts,
                })
                .collect(),
            log_driver: self.log_driver.map(DriverView::into_model),
            force_update: self.force_update,
            runtime: "container".to_owned(),
        })
    }
}

impl From<&TaskSpec> for TaskTemplate {
    fn from(spec: &TaskSpec) -> Self {
        Self {
            container_spec: Some(ContainerSpecView::from(&spec.container)),
            plugin_spec: None,
            network_attachment_spec: None,
            resources: Some(ResourcesView {
                limits: Some(LimitView {
                    nano_cpus: spec.limits.nano_cpus,
                    memory_bytes: spec.limits.memory_bytes,
                    pids: spec.limits.pids,
                }),
                reservations: Some(ReservationView {
                    nano_cpus: spec.reservations.nano_cpus,
                    memory_bytes: spec.reservations.memory_bytes,
                    generic_resources: spec
                        .reservations
                        .generic
                        .iter()
                        .map(GenericView::from)
                        .collect(),
                }),
                ..ResourcesView::default()
            }),
            restart_policy: spec.restart.as_ref().map(RestartView::from),
            placement: Some(PlacementView::from(&spec.placement)),
            networks: spec
                .networks
                .iter()
                .map(|network| AttachmentConfig {
                    target: network.target.clone(),
                    aliases: network.aliases.clone(),
                    driver_opts: network.driver_options.clone(),
                })
                .collect(),
            log_driver: spec.log_driver.as_ref().map(DriverView::from),
            force_update: spec.force_update,
            runtime: if spec.runtime.is_empty() {
                "container".to_owned()
            } else {
                spec.runtime.clone()
            },
        }
    }
}

impl ResourcesView {
    fn into_model(self) -> Result<(Limits, Reservations), Refusal> {
        // A client that edits what it read sends 0 for swap it did not ask for.
        if self.swap_bytes.is_some_and(|bytes| bytes != 0) || self.memory_swappiness.is_some() {
            return Err(Refusal::not_implemented(
                "TaskTemplate.Resources: limits of swap are not there yet; leave SwapBytes and MemorySwappiness out",
            ));
        }
        let limits = self.limits.unwrap_or_default();
        let reservations = self.reservations.unwrap_or_default();
        let generic = |view: GenericView| view.into_model();
        Ok((
            Limits {
                nano_cpus: limits.nano_cpus,
                memory_bytes: limits.memory_bytes,
                pids: limits.pids,
            },
            Reservations {
                nano_cpus: reservations.nano_cpus,
                memory_bytes: reservations.memory_bytes,
                generic: reservations
                    .generic_resources
                    .into_iter()
                    .map(generic)
                    .collect::<Result<_, _>>()?,
            },
        ))
    }
}

impl GenericView {
    fn into_model(self) -> Result<GenericResource, Refusal> {
        match (self.named_resource_spec, self.discrete_resource_spec) {
            (Some(named), None) => Ok(GenericResource::Named {
                kind: named.kind,
                value: named.value,
            }),
            (None, Some(discrete)) => Ok(GenericResource::Discrete {
                kind: discrete.kind,
                value: discrete.value,
            }),
            _ => Err(Refusal::invalid(
                "TaskTemplate.Resources.Reservations.GenericResources: each entry has either NamedResourceSpec or DiscreteResourceSpec",
            )),
        }
    }
}

impl From<&GenericResource> for GenericView {
    fn from(resource: &GenericResource) -> Self {
        let mut view = Self::default();
        match resource {
            GenericResource::Named { kind, value } => {
                view.named_resource_spec = Some(NamedView {
                    kind: kind.clone(),
                    value: value.clone(),
                });
            }
            GenericResource::Discrete { kind, value } => {
                view.discrete_resource_spec = Some(DiscreteView {
                    kind: kind.clone(),
                    value: *value,
                });
            }
        }
        view
    }
}

impl RestartView {
    fn to_model(&self) -> Result<RestartPolicy, Refusal> {
        let default = RestartPolicy::default();
        let time = |field: &str, nanos: Option<i64>, absent| match nanos {
            None => Ok(absent),
            Some(nanos) => duration::read(&format!("TaskTemplate.RestartPolicy.{field}"), nanos),
        };
        Ok(RestartPolicy {
            condition: Word::read("TaskTemplate.RestartPolicy.Condition", &self.condition)?,
            delay: time("Delay", self.delay, default.delay)?,
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            window: time("Window", self.window, default.window)?,
        })
    }
}

impl From<&RestartPolicy> for RestartView {
    fn from(policy: &RestartPolicy) -> Self {
        Self {
            condition: policy.condition.word().to_owned(),
            delay: Some(duration::nanos(policy.delay)),
            max_attempts: Some(policy.max_attempts),
            window: (!policy.window.is_zero()).then(|| duration::nanos(policy.window)),
        }
    }
}

impl PlacementView {
    fn into_model(self) -> Result<Placement, Refusal> {
        let descriptor = |preference: PreferenceView| match preference.spread {
            Some(spread) if !spread.spread_descriptor.is_empty() => Ok(spread.spread_descriptor),
            _ => Err(Refusal::invalid(
                "TaskTemplate.Placement.Preferences: only spread is known; write it as Spread.SpreadDescriptor node.labels.zone",
            )),
        };
        Ok(Placement {
            constraints: self.constraints,
            preferences: self
                .preferences
                .into_iter()
                .map(descriptor)
                .collect::<Result<_, _>>()?,
            max_replicas: self.max_replicas,
            platforms: self
                .platforms
                .into_iter()
                .map(|platform| Platform {
                    architecture: platform.architecture,
                    os: platform.os,
                })
                .collect(),
        })
    }
}

impl From<&Placement> for PlacementView {
    fn from(placement: &Placement) -> Self {
        Self {
            constraints: placement.constraints.clone(),
            preferences: placement
                .preferences
                .iter()
                .map(|descriptor| PreferenceView {
                    spread: Some(SpreadView {
                        spread_descriptor: descriptor.clone(),
                    }),
                })
                .collect(),
            max_replicas: placement.max_replicas,
            platforms: placement
                .platforms
                .iter()
                .map(|platform| PlatformView {
                    architecture: platform.architecture.clone(),
                    os: platform.os.clone(),
                })
                .collect(),
        }
    }
}

impl DriverView {
    pub(crate) fn into_model(self) -> Driver {
        Driver {
            name: self.name,
            options: self.options,
        }
    }
}

impl From<&Driver> for DriverView {
    fn from(driver: &Driver) -> Self {
        Self {
            name: driver.name.clone(),
            options: driver.options.clone(),
        }
    }
}
