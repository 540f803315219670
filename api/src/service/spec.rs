//! What a user asks of a service: the body of create and update.

use std::collections::BTreeMap;

use model::{
    Refusal, ServiceSpec,
    service::{EndpointSpec, PortConfig, ServiceMode, UpdateConfig},
};
use serde::{Deserialize, Serialize, Serializer};

use super::template::{AttachmentConfig, TaskTemplate};
use crate::{duration, omit, word::Word};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpecView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub task_template: TaskTemplate,
    pub mode: ModeView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfigView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfigView>,
    /// Where clients before API 1.25 name the networks; counts if the template names none.
    #[serde(skip_serializing_if = "omit::empty")]
    pub networks: Vec<AttachmentConfig>,
    /// Always there in answers, because clients read it without looking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpecView>,
}

/// One of them is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ModeView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<ReplicatedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Nothing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<JobModeView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Nothing>,
}

/// `{}`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReplicatedView {
    /// Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobModeView {
    /// Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// Absent: as many as run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
}

/// Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfigView {
    /// 0: all at once.
    pub parallelism: u64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub delay: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub failure_action: String,
    /// 0: the default.
    #[serde(skip_serializing_if = "omit::empty")]
    pub monitor: i64,
    /// From 0 to 1.
    #[serde(serialize_with = "ratio")]
    pub max_failure_ratio: f64,
    pub order: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpecView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub mode: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub ports: Vec<PortView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub name: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub protocol: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub target_port: u32,
    #[serde(skip_serializing_if = "omit::empty")]
    pub published_port: u32,
    #[serde(skip_serializing_if = "omit::empty")]
    pub publish_mode: String,
}

/// Go writes whole floats without a fraction.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn ratio<S: Serializer>(ratio: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if ratio.fract() == 0.0 {
        serializer.serialize_i64(*ratio as i64)
    } else {
        serializer.serialize_f64(*ratio)
    }
}

/// Millionths in one.
const MILLION: f64 = 1_000_000.0;

impl SpecView {
    /// Refused, naming the field: wrong values, and what this product does not have.
    pub fn into_model(self) -> Result<ServiceSpec, Refusal> {
        let mut template = self.task_template;
        if template.networks.is_empty() {
            template.networks = self.networks;
        }
        let update = |field: &str, view: Option<UpdateConfigView>| {
            view.map(|view| view.to_model(field)).transpose()
        };
        let mode = self.mode.to_model()?;
        Ok(ServiceSpec {
            task: template.into_model()?,
            mode,
            update: update("UpdateConfig", self.update_config)?,
            rollback: update("RollbackConfig", self.rollback_config)?,
            endpoint: Some(self.endpoint_spec.unwrap_or_default().to_model()?),
            name: self.name,
            labels: self.labels,
        })
    }
}

impl From<&ServiceSpec> for SpecView {
    fn from(spec: &ServiceSpec) -> Self {
        Self {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            task_template: TaskTemplate::from(&spec.task),
            mode: ModeView::from(spec.mode),
            update_config: spec.update.as_ref().map(UpdateConfigView::from),
            rollback_config: spec.rollback.as_ref().map(UpdateConfigView::from),
            networks: Vec::new(),
            endpoint_spec: Some(
                spec.endpoint
                    .as_ref()
                    .map_or_else(|| (&EndpointSpec::default()).into(), EndpointSpecView::from),
            ),
        }
    }
}

impl ModeView {
    pub(super) fn to_model(&self) -> Result<ServiceMode, Refusal> {
        let given = [
            self.replicated.map(|mode| ServiceMode::Replicated {
                replicas: mode.replicas.unwrap_or(1),
            }),
            self.global.map(|_| ServiceMode::Global),
            self.replicated_job.map(|mode| {
                let concurrent = mode.max_concurrent.unwrap_or(1);
                ServiceMode::ReplicatedJob {
                    concurrent,
                    total: mode.total_completions.unwrap_or(concurrent),
                }
            }),
            self.global_job.map(|_| ServiceMode::GlobalJob),
        ];
        let mut given = given.into_iter().flatten();
        let mode = given.next().unwrap_or_default();
        if given.next().is_some() {
            return Err(Refusal::invalid(
                "Mode: must specify only one service mode; leave all but one out",
            ));
        }
        Ok(mode)
    }
}

impl From<ServiceMode> for ModeView {
    fn from(mode: ServiceMode) -> Self {
        let mut view = Self::default();
        match mode {
            ServiceMode::Replicated { replicas } => {
                view.replicated = Some(ReplicatedView {
                    replicas: Some(replicas),
                });
            }
            ServiceMode::Global => view.global = Some(Nothing {}),
            ServiceMode::ReplicatedJob { concurrent, total } => {
                view.replicated_job = Some(JobModeView {
                    max_concurrent: Some(concurrent),
                    total_completions: Some(total),
                });
            }
            ServiceMode::GlobalJob => view.global_job = Some(Nothing {}),
        }
        view
    }
}

/// Docker's word for the filter `mode`.
pub fn mode_word(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob => "global-job",
    }
}

impl UpdateConfigView {
    fn to_model(&self, field: &str) -> Result<UpdateConfig, Refusal> {
        if !(0.0..=1.0).contains(&self.max_failure_ratio) {
            return Err(Refusal::invalid(format!(
                "{field}.MaxFailureRatio: {} cannot be less than 0 or bigger than 1",
                self.max_failure_ratio
            )));
        }
        let named = |name: &str| format!("{field}.{name}");
        Ok(UpdateConfig {
            parallelism: self.parallelism,
            delay: duration::read(&named("Delay"), self.delay)?,
            failure_action: Word::read(&named("FailureAction"), &self.failure_action)?,
            monitor: duration::read_set(&named("Monitor"), self.monitor)?
                .unwrap_or(UpdateConfig::default().monitor),
            max_failure_ppm: (self.max_failure_ratio * MILLION).round() as u32,
            order: Word::read(&named("Order"), &self.order)?,
        })
    }
}

impl From<&UpdateConfig> for UpdateConfigView {
    fn from(config: &UpdateConfig) -> Self {
        Self {
            parallelism: config.parallelism,
            delay: duration::nanos(config.delay),
            failure_action: config.failure_action.word().to_owned(),
            monitor: duration::nanos(config.monitor),
            max_failure_ratio: f64::from(config.max_failure_ppm) / MILLION,
            order: config.order.word().to_owned(),
        }
    }
}

impl EndpointSpecView {
    fn to_model(&self) -> Result<EndpointSpec, Refusal> {
        Ok(EndpointSpec {
            mode: Word::read("EndpointSpec.Mode", &self.mode)?,
            ports: self
                .ports
                .iter()
                .map(PortView::to_model)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&EndpointSpec> for EndpointSpecView {
    fn from(spec: &EndpointSpec) -> Self {
        Self {
            mode: spec.mode.word().to_owned(),
            ports: spec.ports.iter().map(PortView::from).collect(),
        }
    }
}

impl PortView {
    fn to_model(&self) -> Result<PortConfig, Refusal> {
        let number = |field: &str, port: u32| {
            u16::try_from(port).map_err(|_| {
                Refusal::invalid(format!(
                    "EndpointSpec.Ports.{field}: {port} is not a port; ports end at 65535"
                ))
            })
        };
        Ok(PortConfig {
            name: self.name.clone(),
            protocol: Word::read("EndpointSpec.Ports.Protocol", &self.protocol)?,
            target: number("TargetPort", self.target_port)?,
            published: number("PublishedPort", self.published_port)?,
            mode: Word::read("EndpointSpec.Ports.PublishMode", &self.publish_mode)?,
        })
    }
}

impl From<&PortConfig> for PortView {
    fn from(port: &PortConfig) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol.word().to_owned(),
            target_port: port.target.into(),
            published_port: port.published.into(),
            publish_mode: port.mode.word().to_owned(),
        }
    }
}
