//! Services: `/services…`.

mod container;
mod defaults;
mod mount;
mod spec;
mod template;
#[cfg(test)]
mod tests;

pub use container::{
    AppArmorView, ConfigReference, ContainerSpecView, DnsView, FileView, HealthView,
    PrivilegesView, SeccompView, SecretReference, UlimitView,
};
pub use mount::{BindView, ImageView, MountView, TmpfsView, VolumeView};
pub use spec::{
    EndpointSpecView, JobModeView, ModeView, Nothing, PortView, ReplicatedView, SpecView,
    UpdateConfigView, mode_word,
};
pub use template::{
    AttachmentConfig, DiscreteView, DriverView, GenericView, LimitView, NamedView, PlacementView,
    PlatformView, PreferenceView, ReservationView, ResourcesView, RestartView, SpreadView,
    TaskTemplate,
};

use model::{
    Service,
    control::DryRun,
    service::{JobStatus, ServiceEndpoint, ServiceStatus, UpdateStatus},
};
use serde::{Deserialize, Serialize};

use crate::{node::ObjectVersion, omit, timestamp, word::Word};

/// What `GET /services/{x}` answers, and each entry of `GET /services`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SpecView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<SpecView>,
    pub endpoint: EndpointView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatusView>,
    /// Only in lists that ask with `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatusView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatusView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointView {
    pub spec: EndpointSpecView,
    #[serde(skip_serializing_if = "omit::empty")]
    pub ports: Vec<PortView>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "omit::empty")]
    pub virtual_ips: Vec<VirtualIpView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VirtualIpView {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// With the subnet's prefix length.
    pub addr: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStatusView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub message: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceStatusView {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStatusView {
    pub job_iteration: ObjectVersion,
    pub last_execution: String,
}

/// `POST /services/create` answers it with 201.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
    pub warnings: Vec<String>,
}

/// `POST /services/{x}/update` answers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateResponse {
    pub warnings: Vec<String>,
}

/// `POST /services/create?dryRun=1` answers it; Docker has no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DryRunView {
    pub assignments: Vec<DryAssignment>,
    pub unplaced: Vec<DryUnplaced>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DryAssignment {
    pub slot: u64,
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub hostname: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DryUnplaced {
    pub count: u64,
    pub reason: String,
}

/// `POST /services/{x}/rebalance` answers it; Docker has no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RebalanceResponse {
    pub moved: u64,
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        Self {
            id: service.id.to_string(),
            version: ObjectVersion {
                index: service.meta.version,
            },
            created_at: timestamp::rfc3339(service.meta.created_at),
            updated_at: timestamp::rfc3339(service.meta.updated_at),
            spec: SpecView::from(&service.spec),
            previous_spec: service.previous.as_deref().map(SpecView::from),
            endpoint: EndpointView::from(&service.endpoint),
            update_status: service.update.as_ref().map(UpdateStatusView::from),
            service_status: None,
            job_status: service.job.map(JobStatusView::from),
        }
    }
}

impl ServiceView {
    #[must_use]
    pub fn with_status(mut self, status: ServiceStatus) -> Self {
        self.service_status = Some(ServiceStatusView {
            running_tasks: status.running,
            desired_tasks: status.desired,
            completed_tasks: status.completed,
        });
        self
    }

    /// Fills in what applies where the spec says nothing (`insertDefaults`).
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        defaults::insert(&mut self.spec);
        self
    }
}

impl From<&ServiceEndpoint> for EndpointView {
    fn from(endpoint: &ServiceEndpoint) -> Self {
        let ports: Vec<PortView> = endpoint.ports.iter().map(PortView::from).collect();
        Self {
            spec: EndpointSpecView {
                mode: endpoint.mode.word().to_owned(),
                ports: ports.clone(),
            },
            ports,
            virtual_ips: endpoint
                .vips
                .iter()
                .map(|vip| VirtualIpView {
                    network_id: vip.network.to_string(),
                    addr: vip.address.to_string(),
                })
                .collect(),
        }
    }
}

impl From<&UpdateStatus> for UpdateStatusView {
    fn from(status: &UpdateStatus) -> Self {
        Self {
            state: status.state.word().to_owned(),
            started_at: Some(timestamp::rfc3339(status.started_at)),
            completed_at: status.completed_at.map(timestamp::rfc3339),
            message: status.message.clone(),
        }
    }
}

impl From<JobStatus> for JobStatusView {
    fn from(status: JobStatus) -> Self {
        Self {
            job_iteration: ObjectVersion {
                index: status.iteration,
            },
            last_execution: timestamp::rfc3339(status.last_execution),
        }
    }
}

impl From<&DryRun> for DryRunView {
    fn from(run: &DryRun) -> Self {
        Self {
            assignments: run
                .placed
                .iter()
                .map(|placed| DryAssignment {
                    slot: placed.slot,
                    node_id: placed.node.to_string(),
                    hostname: placed.hostname.clone(),
                })
                .collect(),
            unplaced: run
                .unplaced
                .iter()
                .map(|(count, reason)| DryUnplaced {
                    count: *count,
                    reason: reason.clone(),
                })
                .collect(),
        }
    }
}
