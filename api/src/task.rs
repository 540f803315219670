//! Tasks: `/tasks…`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use model::{Network, Task, task::TaskStatus};
use serde::{Deserialize, Serialize};

use crate::{
    node::ObjectVersion,
    omit,
    service::{DriverView, GenericView, PortView, TaskTemplate},
    shared::Shared,
    timestamp,
    word::Word,
};

/// What `GET /tasks/{x}` answers, and each entry of `GET /tasks`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub labels: BTreeMap<String, String>,
    pub spec: Shared<TaskTemplate>,
    #[serde(rename = "ServiceID", skip_serializing_if = "omit::empty")]
    pub service_id: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "omit::empty")]
    pub node_id: String,
    pub status: TaskStatusView,
    pub desired_state: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub networks_attachments: Vec<AttachmentView>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub generic_resources: Vec<GenericView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<ObjectVersion>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskStatusView {
    pub timestamp: String,
    pub state: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub message: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub err: String,
    /// Always there once the task has a node, because clients read it without looking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatusView>,
    pub port_status: PortStatusView,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerStatusView {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i64,
    pub exit_code: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortStatusView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub ports: Vec<PortView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachmentView {
    pub network: Shared<TaskNetworkView>,
    /// With the subnet's prefix length.
    pub addresses: Vec<String>,
}

/// A network as tasks show it, which is not as `/networks` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskNetworkView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: TaskNetworkSpec,
    pub driver_state: DriverView,
    #[serde(rename = "IPAMOptions")]
    pub ipam_options: TaskIpam,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskNetworkSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub driver_configuration: DriverView,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "omit::empty")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub internal: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub attachable: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub ingress: bool,
    pub scope: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskIpam {
    pub driver: DriverView,
    pub configs: Vec<TaskIpamConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskIpamConfig {
    pub subnet: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub range: String,
    pub gateway: String,
}

impl TaskView {
    /// `spec` is the view of the task's own spec; `attachments` are in the task's order.
    pub fn new(task: &Task, spec: Shared<TaskTemplate>, attachments: Vec<AttachmentView>) -> Self {
        Self {
            id: task.id.to_string(),
            version: ObjectVersion {
                index: task.meta.version,
            },
            created_at: timestamp::rfc3339(task.meta.created_at),
            updated_at: timestamp::rfc3339(task.meta.updated_at),
            // Docker shows the task's own labels here, which nobody can set.
            labels: BTreeMap::new(),
            spec,
            service_id: task.service.to_string(),
            slot: task.slot,
            node_id: task
                .node
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            status: TaskStatusView::new(&task.status, task.node.is_some()),
            desired_state: task.desired.word().to_owned(),
            networks_attachments: attachments,
            generic_resources: task
                .generic_resources
                .iter()
                .map(GenericView::from)
                .collect(),
            job_iteration: task.job_iteration.map(|index| ObjectVersion { index }),
        }
    }
}

impl TaskStatusView {
    fn new(status: &TaskStatus, placed: bool) -> Self {
        let container = status
            .container
            .as_ref()
            .map(|container| ContainerStatusView {
                container_id: container.id.to_string(),
                pid: container.pid,
                exit_code: container.exit_code,
            });
        Self {
            timestamp: timestamp::rfc3339(status.at),
            state: status.state.word().to_owned(),
            message: status.message.clone(),
            err: status.error.clone(),
            container_status: container.or_else(|| placed.then(ContainerStatusView::default)),
            port_status: PortStatusView {
                ports: status.ports.iter().map(PortView::from).collect(),
            },
        }
    }
}

impl AttachmentView {
    pub fn new(network: Shared<TaskNetworkView>, addresses: &[IpNetwork]) -> Self {
        Self {
            network,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Network> for TaskNetworkView {
    fn from(network: &Network) -> Self {
        let spec = &network.spec;
        let vni = (
            "com.docker.network.driver.overlay.vxlanid_list",
            network.vni,
        );
        Self {
            id: network.id.to_string(),
            version: ObjectVersion {
                index: network.meta.version,
            },
            created_at: timestamp::rfc3339(network.meta.created_at),
            updated_at: timestamp::rfc3339(network.meta.updated_at),
            spec: TaskNetworkSpec {
                name: spec.name.clone(),
                labels: spec.labels.clone(),
                driver_configuration: DriverView {
                    name: spec.driver.clone(),
                    options: spec.options.clone(),
                },
                ipv6_enabled: spec.ipv6,
                internal: spec.internal,
                attachable: spec.attachable,
                ingress: spec.ingress,
                scope: "swarm".to_owned(),
            },
            driver_state: DriverView {
                name: spec.driver.clone(),
                options: [(vni.0.to_owned(), vni.1.to_string())].into(),
            },
            ipam_options: TaskIpam {
                driver: DriverView {
                    name: if spec.ipam_driver.is_empty() {
                        "default".to_owned()
                    } else {
                        spec.ipam_driver.clone()
                    },
                    options: spec.ipam_options.clone(),
                },
                configs: network
                    .subnets
                    .iter()
                    .map(|subnet| TaskIpamConfig {
                        subnet: subnet.subnet.to_string(),
                        range: if subnet.range == subnet.subnet {
                            String::new()
                        } else {
                            subnet.range.to_string()
                        },
                        gateway: subnet.gateway.to_string(),
                    })
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        ContainerId, Meta, TaskState,
        network::{NetworkSpec, Subnet},
        service::ServiceMode,
        task::{ContainerSpec, ContainerStatus, Handover, TaskSpec},
    };

    use super::*;
    use crate::body;

    fn task() -> Task {
        let spec = TaskSpec {
            container: ContainerSpec {
                image: "nginx".into(),
                env: vec!["A=b".into()],
                ..ContainerSpec::default()
            },
            ..TaskSpec::default()
        };
        Task {
            id: "tasktasktasktasktasktaskt".into(),
            meta: Meta {
                version: 9,
                created_at: 1_700_000_000_000_000_000,
                updated_at: 1_700_000_000_000_000_001,
                trace: None,
            },
            service: "serviceserviceserviceserv".into(),
            service_name: "web".into(),
            slot: 2,
            node: Some("nodenodenodenodenodenoden".into()),
            spec: Arc::new(spec),
            spec_version: 5,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            mode: ServiceMode::default(),
            status: TaskStatus {
                state: TaskState::Preparing,
                at: 1_700_000_000_000_000_000,
                message: "preparing".into(),
                ..TaskStatus::default()
            },
            desired: TaskState::Running,
            start_after: 0,
            endpoints: Vec::new(),
            ports: Vec::new(),
            generic_resources: Vec::new(),
            job_iteration: None,
            handover: Handover::Pending,
            in_since: 0,
            attempt: 0,
            drain: std::time::Duration::ZERO,
        }
    }

    fn network() -> Network {
        Network {
            id: "netnetnetnetnetnetnetnetn".into(),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: "ch03".into(),
                driver: "overlay".into(),
                attachable: true,
                ..NetworkSpec::default()
            },
            vni: 4097,
            subnets: vec![Subnet {
                subnet: "10.0.1.0/24".parse().unwrap(),
                range: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.1".parse().unwrap(),
                aux_addresses: BTreeMap::new(),
            }],
        }
    }

    fn view(task: &Task) -> TaskView {
        let network = Shared::new(TaskNetworkView::from(&network()));
        TaskView::new(
            task,
            Shared::new(TaskTemplate::from(&*task.spec)),
            vec![AttachmentView::new(
                network,
                &["10.0.1.5/24".parse().unwrap()],
            )],
        )
    }

    #[test]
    fn a_task_as_docker_shows_it() {
        let view = view(&task());
        let text = serde_json::to_string(&view).unwrap();
        assert!(!text.contains("null"), "{text}");
        assert_eq!(body::read::<TaskView>(text.as_bytes()).unwrap(), view);
        // The text is what clients see; what is shared is kept as text already.
        let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
        insta::assert_json_snapshot!(seen, @r#"
        {
          "ID": "tasktasktasktasktasktaskt",
          "Version": {
            "Index": 9
          },
          "CreatedAt": "2023-11-14T22:13:20Z",
          "UpdatedAt": "2023-11-14T22:13:20.000000001Z",
          "Labels": {},
          "Spec": {
            "ContainerSpec": {
              "Image": "nginx",
              "Env": [
                "A=b"
              ],
              "DNSConfig": {},
              "Isolation": "default"
            },
            "Resources": {
              "Limits": {},
              "Reservations": {}
            },
            "Placement": {},
            "ForceUpdate": 0,
            "Runtime": "container"
          },
          "ServiceID": "serviceserviceserviceserv",
          "Slot": 2,
          "NodeID": "nodenodenodenodenodenoden",
          "Status": {
            "Timestamp": "2023-11-14T22:13:20Z",
            "State": "preparing",
            "Message": "preparing",
            "ContainerStatus": {
              "ContainerID": "",
              "PID": 0,
              "ExitCode": 0
            },
            "PortStatus": {}
          },
          "DesiredState": "running",
          "NetworksAttachments": [
            {
              "Network": {
                "ID": "netnetnetnetnetnetnetnetn",
                "Version": {
                  "Index": 0
                },
                "CreatedAt": "0001-01-01T00:00:00Z",
                "UpdatedAt": "0001-01-01T00:00:00Z",
                "Spec": {
                  "Name": "ch03",
                  "Labels": {},
                  "DriverConfiguration": {
                    "Name": "overlay"
                  },
                  "Attachable": true,
                  "Scope": "swarm"
                },
                "DriverState": {
                  "Name": "overlay",
                  "Options": {
                    "com.docker.network.driver.overlay.vxlanid_list": "4097"
                  }
                },
                "IPAMOptions": {
                  "Driver": {
                    "Name": "default"
                  },
                  "Configs": [
                    {
                      "Subnet": "10.0.1.0/24",
                      "Gateway": "10.0.1.1"
                    }
                  ]
                }
              },
              "Addresses": [
                "10.0.1.5/24"
              ]
            }
          ]
        }
        "#);
    }

    /// The visualizer reads the container's id of every task that has a node.
    #[test]
    fn a_placed_task_has_a_container_status() {
        let mut task = task();
        for (placed, container, id) in [
            (true, false, Some("")),
            (true, true, Some("cc")),
            (false, false, None),
        ] {
            task.node = placed.then(|| "node".into());
            task.status.container = container.then(|| ContainerStatus {
                id: ContainerId::new("cc"),
                pid: 7,
                exit_code: 0,
            });
            let value = serde_json::to_value(view(&task)).unwrap();
            assert_eq!(
                value["Status"]["ContainerStatus"]["ContainerID"].as_str(),
                id
            );
            assert_eq!(value.get("NodeID").is_some(), placed);
            assert!(value["Labels"].is_object());
        }
    }
}
