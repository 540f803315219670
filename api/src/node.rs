//! Nodes: `/nodes…`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{
    Node, NodeSpec, Refusal,
    node::{Availability, NodeState, Reachability, Role, TlsInfo},
};
use serde::{Deserialize, Serialize};

use crate::{service::GenericView, timestamp};

/// `Version` of every cluster object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ObjectVersion {
    pub index: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SpecView,
    pub description: Description,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
}

/// What `POST /nodes/{x}/update` takes: the whole of it, as Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpecView {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub role: String,
    pub availability: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Description {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Resources,
    pub engine: Engine,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfoView,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Platform {
    pub architecture: String,
    #[serde(rename = "OS")]
    pub os: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Resources {
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Engine {
    pub engine_version: String,
    pub labels: BTreeMap<String, String>,
    pub plugins: Vec<Plugin>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Plugin {
    #[serde(rename = "Type")]
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TlsInfoView {
    pub trust_root: String,
    /// Base64 of the DER.
    pub cert_issuer_subject: String,
    pub cert_issuer_public_key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Status {
    pub state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub addr: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManagerStatus {
    /// Left out when false, as Docker does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leader: bool,
    pub reachability: String,
    pub addr: String,
}

/// Docker's words.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

pub fn availability_word(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

fn reachability_word(reachability: Reachability) -> &'static str {
    match reachability {
        Reachability::Unknown => "unknown",
        Reachability::Unreachable => "unreachable",
        Reachability::Reachable => "reachable",
    }
}

/// Reads `active`, `pause`, `drain`; empty is `active`.
pub fn read_availability(word: &str) -> Result<Availability, Refusal> {
    match word.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(Refusal::invalid(format!(
            "Availability: {word:?} is not one of active, pause, drain"
        ))),
    }
}

/// Reads `worker` or `manager`.
pub fn read_role(word: &str) -> Result<Role, Refusal> {
    match word.to_ascii_lowercase().as_str() {
        "worker" => Ok(Role::Worker),
        "manager" => Ok(Role::Manager),
        _ => Err(Refusal::invalid(format!(
            "Role: {word:?} is not one of worker, manager"
        ))),
    }
}

impl From<&TlsInfo> for TlsInfoView {
    fn from(tls: &TlsInfo) -> Self {
        Self {
            trust_root: tls.trust_root_pem.clone(),
            cert_issuer_subject: STANDARD.encode(&tls.issuer_subject_der),
            cert_issuer_public_key: STANDARD.encode(&tls.issuer_public_key_der),
        }
    }
}

impl From<&NodeSpec> for SpecView {
    fn from(spec: &NodeSpec) -> Self {
        Self {
            name: spec.name.clone().unwrap_or_default(),
            labels: spec.labels.clone(),
            role: role_word(spec.role).to_owned(),
            availability: availability_word(spec.availability).to_owned(),
        }
    }
}

impl SpecView {
    pub fn to_model(self) -> Result<NodeSpec, Refusal> {
        Ok(NodeSpec {
            role: read_role(&self.role)?,
            availability: read_availability(&self.availability)?,
            name: (!self.name.is_empty()).then_some(self.name),
            labels: self.labels,
        })
    }
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        let about = &node.description;
        let plugin = |kind: &str, name: &str| Plugin {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let address = node
            .status
            .address
            .or(about.advertise)
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        Self {
            id: node.id.to_string(),
            version: ObjectVersion {
                index: node.meta.version,
            },
            created_at: timestamp::rfc3339(node.meta.created_at),
            updated_at: timestamp::rfc3339(node.meta.updated_at),
            spec: SpecView::from(&node.spec),
            description: Description {
                hostname: about.hostname.clone(),
                platform: Platform {
                    architecture: about.architecture.clone(),
                    os: about.os.clone(),
                },
                resources: Resources {
                    nano_cpus: about.nano_cpus,
                    memory_bytes: about.memory_bytes,
                    generic_resources: about
                        .generic_resources
                        .iter()
                        .map(GenericView::from)
                        .collect(),
                },
                engine: Engine {
                    engine_version: about.engine_version.clone(),
                    labels: about.engine_labels.clone(),
                    plugins: vec![
                        plugin("Log", "json-file"),
                        plugin("Network", "bridge"),
                        plugin("Network", "host"),
                        plugin("Network", "null"),
                        plugin("Network", "overlay"),
                        plugin("Volume", "local"),
                    ],
                },
                tls_info: about
                    .tls
                    .as_ref()
                    .map(TlsInfoView::from)
                    .unwrap_or_default(),
            },
            status: Status {
                state: state_word(node.status.state).to_owned(),
                message: node.status.message.clone(),
                addr: address,
            },
            manager_status: node.manager.as_ref().map(|manager| ManagerStatus {
                leader: manager.leader,
                reachability: reachability_word(manager.reachability).to_owned(),
                addr: manager.address.to_string(),
            }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::{
        node::{self, NodeDescription, NodeStatus},
        task::GenericResource,
    };

    pub(crate) fn sample() -> Node {
        Node {
            id: "nodenodenodenodenodenoden".into(),
            meta: model::Meta {
                version: 12,
                created_at: 1_700_000_000_000_000_000,
                updated_at: 1_700_000_001_500_000_000,
                trace: None,
            },
            spec: NodeSpec {
                name: None,
                labels: BTreeMap::new(),
                role: Role::Manager,
                availability: Availability::Active,
            },
            number: 1,
            description: NodeDescription {
                hostname: "manager01".into(),
                architecture: "x86_64".into(),
                os: "linux".into(),
                nano_cpus: 2_000_000_000,
                memory_bytes: 4096,
                generic_resources: vec![GenericResource::Named {
                    kind: "gpu".into(),
                    value: "card0".into(),
                }],
                engine_version: "0.1.0".into(),
                tls: Some(TlsInfo {
                    trust_root_pem: "PEM".into(),
                    issuer_subject_der: vec![1, 2],
                    issuer_public_key_der: vec![3],
                }),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: "192.0.2.1".parse().ok(),
            },
            manager: Some(node::ManagerStatus {
                leader: true,
                reachability: Reachability::Reachable,
                address: "192.0.2.1:2377".parse().unwrap(),
            }),
        }
    }

    #[test]
    fn a_node_as_docker_shows_it() {
        insta::assert_json_snapshot!(NodeView::from(&sample()), @r#"
        {
          "ID": "nodenodenodenodenodenoden",
          "Version": {
            "Index": 12
          },
          "CreatedAt": "2023-11-14T22:13:20Z",
          "UpdatedAt": "2023-11-14T22:13:21.5Z",
          "Spec": {
            "Labels": {},
            "Role": "manager",
            "Availability": "active"
          },
          "Description": {
            "Hostname": "manager01",
            "Platform": {
              "Architecture": "x86_64",
              "OS": "linux"
            },
            "Resources": {
              "NanoCPUs": 2000000000,
              "MemoryBytes": 4096,
              "GenericResources": [
                {
                  "NamedResourceSpec": {
                    "Kind": "gpu",
                    "Value": "card0"
                  }
                }
              ]
            },
            "Engine": {
              "EngineVersion": "0.1.0",
              "Labels": {},
              "Plugins": [
                {
                  "Type": "Log",
                  "Name": "json-file"
                },
                {
                  "Type": "Network",
                  "Name": "bridge"
                },
                {
                  "Type": "Network",
                  "Name": "host"
                },
                {
                  "Type": "Network",
                  "Name": "null"
                },
                {
                  "Type": "Network",
                  "Name": "overlay"
                },
                {
                  "Type": "Volume",
                  "Name": "local"
                }
              ]
            },
            "TLSInfo": {
              "TrustRoot": "PEM",
              "CertIssuerSubject": "AQI=",
              "CertIssuerPublicKey": "Aw=="
            }
          },
          "Status": {
            "State": "ready",
            "Addr": "192.0.2.1"
          },
          "ManagerStatus": {
            "Leader": true,
            "Reachability": "reachable",
            "Addr": "192.0.2.1:2377"
          }
        }
        "#);
    }

    #[test]
    fn specs_go_there_and_back_and_wrong_words_are_refused() {
        let spec = sample().spec;
        assert_eq!(SpecView::from(&spec).to_model().unwrap(), spec);
        for (role, availability, words) in [
            ("boss", "active", "Role"),
            ("worker", "asleep", "active, pause, drain"),
            ("", "active", "Role"),
        ] {
            let view = SpecView {
                role: role.into(),
                availability: availability.into(),
                ..SpecView::default()
            };
            assert!(view.to_model().unwrap_err().message.contains(words));
        }
    }
}
