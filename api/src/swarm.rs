//! The cluster: `/swarm…` and the cluster's part of `/info`.

use std::{collections::BTreeMap, time::Duration};

use ipnetwork::IpNetwork;
use model::{Cluster, ClusterSpec, Refusal, control::GivenRoot, node::TlsInfo, payload::Content};
use serde::{Deserialize, Serialize};

use crate::{
    node::{ObjectVersion, TlsInfoView},
    timestamp,
};

/// Labels that carry what Docker's shapes have no field for.
pub const LABEL_INGRESS_SIZE: &str = "overnet.ingress-size";

/// `Cluster` of `/info`, and with the join tokens `GET /swarm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterView {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SpecView,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfoView,
    pub root_rotation_in_progress: bool,
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
    pub data_path_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_tokens: Option<JoinTokensView>,
}

/// Join tokens; they are credentials, so `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinTokensView {
    pub worker: String,
    pub manager: String,
}

impl std::fmt::Debug for JoinTokensView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokensView(hidden)")
    }
}

/// Docker's cluster specification. Fields that have no effect here (`KeepOldSnapshots` and the
/// ticks) are shown with Docker's defaults, so that a client's read-edit-write keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpecView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub orchestration: Orchestration,
    pub raft: Raft,
    pub dispatcher: Dispatcher,
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    pub task_defaults: TaskDefaults,
    pub encryption_config: EncryptionConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Orchestration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Raft {
    pub snapshot_interval: u64,
    pub keep_old_snapshots: Option<u64>,
    pub log_entries_for_slow_followers: u64,
    pub election_tick: i64,
    pub heartbeat_tick: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Dispatcher {
    /// Nanoseconds.
    pub heartbeat_period: i64,
}

/// A key comes with it, so `Debug` hides that.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CaConfig {
    /// Nanoseconds.
    pub node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "Vec::is_empty")]
    pub external_cas: Vec<serde_json::Value>,
    #[serde(rename = "SigningCACert", skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing_if = "String::is_empty")]
    pub signing_ca_key: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
}

impl std::fmt::Debug for CaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaConfig")
            .field("node_cert_expiry", &self.node_cert_expiry)
            .field("force_rotate", &self.force_rotate)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EncryptionConfig {
    pub auto_lock_managers: bool,
}

/// `POST /swarm/init`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InitRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub data_path_port: u32,
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
    pub force_new_cluster: bool,
    pub spec: Option<SpecView>,
    pub auto_lock_managers: bool,
    pub availability: String,
}

/// `POST /swarm/unlock`, and the answer of `GET /swarm/unlockkey`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UnlockRequest {
    pub unlock_key: String,
}

/// `POST /swarm/join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub remote_addrs: Vec<String>,
    pub join_token: String,
    pub availability: String,
}

/// `Swarm` of `/info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmInfo {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub node_addr: String,
    pub local_node_state: String,
    pub control_available: bool,
    pub error: String,
    /// `null` outside a cluster, as Docker has it.
    pub remote_managers: Option<Vec<RemoteManager>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managers: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<ClusterView>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RemoteManager {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub addr: String,
}

impl ClusterView {
    /// The cluster without its join tokens; `tls` is what its nodes are to have.
    pub fn of(cluster: &Cluster, tls: &TlsInfo) -> Self {
        Self {
            id: cluster.id.to_string(),
            version: ObjectVersion {
                index: cluster.meta.version,
            },
            created_at: timestamp::rfc3339(cluster.meta.created_at),
            updated_at: timestamp::rfc3339(cluster.meta.updated_at),
            spec: SpecView::from(&cluster.spec),
            tls_info: TlsInfoView::from(tls),
            root_rotation_in_progress: cluster.rotation.is_some(),
            default_addr_pool: cluster
                .address_pools
                .iter()
                .map(ToString::to_string)
                .collect(),
            subnet_size: u32::from(cluster.subnet_size),
            data_path_port: u32::from(cluster.data_path_port),
            join_tokens: None,
        }
    }
}

impl From<&ClusterSpec> for SpecView {
    fn from(spec: &ClusterSpec) -> Self {
        Self {
            name: "default".to_owned(),
            labels: spec.labels.clone(),
            orchestration: Orchestration {
                task_history_retention_limit: Some(spec.task_history_limit),
            },
            raft: Raft {
                snapshot_interval: spec.snapshot_interval,
                keep_old_snapshots: Some(spec.keep_old_snapshots),
                log_entries_for_slow_followers: 500,
                election_tick: 10,
                heartbeat_tick: 1,
            },
            dispatcher: Dispatcher {
                heartbeat_period: nanos(spec.heartbeat_period),
            },
            ca_config: CaConfig {
                node_cert_expiry: nanos(spec.node_cert_expiry),
                force_rotate: spec.force_rotate,
                ..CaConfig::default()
            },
            task_defaults: TaskDefaults::default(),
            encryption_config: EncryptionConfig {
                auto_lock_managers: spec.autolock,
            },
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A duration in nanoseconds; zero means "as `otherwise` says".
fn duration(field: &str, nanos: i64, otherwise: Duration) -> Result<Duration, Refusal> {
    match u64::try_from(nanos) {
        Ok(0) => Ok(otherwise),
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => Err(Refusal::invalid(format!(
            "{field}: {nanos} is negative; give nanoseconds"
        ))),
    }
}

impl SpecView {
    /// What the cluster is asked to be. What is zero or missing keeps the value of `current`.
    pub fn to_model(self, current: &ClusterSpec) -> Result<ClusterSpec, Refusal> {
        if !matches!(self.name.as_str(), "" | "default") {
            return Err(Refusal::invalid(format!(
                "Spec.Name: {:?} cannot be set; a cluster is always named default",
                self.name
            )));
        }
        let absent = |what: &str| {
            Err(Refusal::not_implemented(format!(
                "{what} is not there yet; leave it out"
            )))
        };
        if !self.ca_config.external_cas.is_empty() {
            return Err(Refusal::not_implemented(
                "Spec.CAConfig.ExternalCAs (--external-ca): an authority outside of the cluster is not supported, the managers sign certificates themselves; a root of your own becomes theirs with `swarm ca --rotate --ca-cert FILE --ca-key FILE`",
            ));
        }
        if self.task_defaults.log_driver.is_some() {
            return absent("Spec.TaskDefaults.LogDriver");
        }
        let expiry = duration(
            "Spec.CAConfig.NodeCertExpiry",
            self.ca_config.node_cert_expiry,
            current.node_cert_expiry,
        )?;
        if expiry < Duration::from_secs(3600) {
            return Err(Refusal::invalid(format!(
                "Spec.CAConfig.NodeCertExpiry: {expiry:?} is too short; the minimum is one hour"
            )));
        }
        Ok(ClusterSpec {
            labels: self.labels,
            task_history_limit: self
                .orchestration
                .task_history_retention_limit
                .unwrap_or(current.task_history_limit),
            heartbeat_period: duration(
                "Spec.Dispatcher.HeartbeatPeriod",
                self.dispatcher.heartbeat_period,
                current.heartbeat_period,
            )?,
            node_cert_expiry: expiry,
            snapshot_interval: if self.raft.snapshot_interval == 0 {
                current.snapshot_interval
            } else {
                self.raft.snapshot_interval
            },
            keep_old_snapshots: self
                .raft
                .keep_old_snapshots
                .unwrap_or(current.keep_old_snapshots),
            autolock: self.encryption_config.auto_lock_managers,
            force_rotate: self.ca_config.force_rotate,
        })
    }

    /// The root certificate and key that are to become the cluster's.
    pub fn given_root(&self) -> Result<Option<GivenRoot>, Refusal> {
        let CaConfig {
            signing_ca_cert: certificate,
            signing_ca_key: key,
            ..
        } = &self.ca_config;
        match (certificate.trim().is_empty(), key.trim().is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(GivenRoot {
                certificate_pem: certificate.clone(),
                key_pem: Content(key.clone().into_bytes()),
            })),
            (false, true) => Err(Refusal::invalid(
                "Spec.CAConfig.SigningCACert (--ca-cert) needs its key, because the managers sign certificates with it: give SigningCAKey (--ca-key), too",
            )),
            (true, false) => Err(Refusal::invalid(
                "Spec.CAConfig.SigningCAKey (--ca-key) needs its certificate: give SigningCACert (--ca-cert), too",
            )),
        }
    }
}

/// Reads address pools such as `10.20.0.0/16`.
pub fn read_pools(pools: &[String]) -> Result<Vec<IpNetwork>, Refusal> {
    pools
        .iter()
        .map(|text| {
            text.parse::<IpNetwork>()
                .ok()
                .filter(|_| text.contains('/'))
                .ok_or_else(|| {
                    Refusal::invalid(format!(
                        "DefaultAddrPool: {text:?} is not a subnet; write it as 10.20.0.0/16"
                    ))
                })
        })
        .collect()
}

/// Reads a prefix length; zero means the default.
pub fn read_size(field: &str, size: u32) -> Result<u8, Refusal> {
    u8::try_from(size)
        .ok()
        .filter(|size| *size <= 29)
        .ok_or_else(|| {
            Refusal::invalid(format!("{field}: /{size} is no prefix length from 1 to 29"))
        })
}

/// Reads a UDP port for VXLAN; zero means the default.
pub fn read_data_path_port(port: u32) -> Result<u16, Refusal> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port == 0 || (1024..=49151).contains(port))
        .ok_or_else(|| {
            Refusal::invalid(format!(
                "invalid DataPathPort number {port}; valid are 1024 to 49151, or 0 for 4789"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            id: "clusterclusterclusterclus".into(),
            meta: model::Meta {
                version: 9,
                created_at: 1_700_000_000_000_000_000,
                updated_at: 1_700_000_000_000_000_000,
                trace: None,
            },
            spec: ClusterSpec::default(),
            address_pools: vec!["10.0.0.0/8".parse().unwrap()],
            subnet_size: 24,
            ingress_size: 20,
            ipv6_pool: "fd00::/48".parse().unwrap(),
            data_path_port: 4789,
            root_ca_pem: "PEM".into(),
            rotation: None,
            join_tokens: model::cluster::JoinTokens::default(),
            network_keys: model::encryption::KeyPhase::default(),
        }
    }

    #[test]
    fn a_cluster_as_docker_shows_it() {
        let tls = TlsInfo {
            trust_root_pem: "PEM".into(),
            ..TlsInfo::default()
        };
        insta::assert_json_snapshot!(ClusterView::of(&cluster(), &tls), @r#"
        {
          "ID": "clusterclusterclusterclus",
          "Version": {
            "Index": 9
          },
          "CreatedAt": "2023-11-14T22:13:20Z",
          "UpdatedAt": "2023-11-14T22:13:20Z",
          "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {
              "TaskHistoryRetentionLimit": 5
            },
            "Raft": {
              "SnapshotInterval": 10000,
              "KeepOldSnapshots": 0,
              "LogEntriesForSlowFollowers": 500,
              "ElectionTick": 10,
              "HeartbeatTick": 1
            },
            "Dispatcher": {
              "HeartbeatPeriod": 1000000000
            },
            "CAConfig": {
              "NodeCertExpiry": 7776000000000000
            },
            "TaskDefaults": {},
            "EncryptionConfig": {
              "AutoLockManagers": false
            }
          },
          "TLSInfo": {
            "TrustRoot": "PEM",
            "CertIssuerSubject": "",
            "CertIssuerPublicKey": ""
          },
          "RootRotationInProgress": false,
          "DefaultAddrPool": [
            "10.0.0.0/8"
          ],
          "SubnetSize": 24,
          "DataPathPort": 4789
        }
        "#);
    }

    #[test]
    fn specs_go_there_and_back() {
        assert_eq!(SpecView::default().given_root().unwrap(), None);
        let spec = ClusterSpec {
            autolock: true,
            task_history_limit: 3,
            force_rotate: 2,
            heartbeat_period: Duration::from_millis(1500),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..ClusterSpec::default()
        };
        assert_eq!(
            SpecView::from(&spec)
                .to_model(&ClusterSpec::default())
                .unwrap(),
            spec
        );
        assert_eq!(
            SpecView::default()
                .to_model(&ClusterSpec::default())
                .unwrap(),
            ClusterSpec::default()
        );
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let spec = |edit: fn(&mut SpecView)| {
            let mut view = SpecView::from(&ClusterSpec::default());
            edit(&mut view);
            view.to_model(&ClusterSpec::default()).unwrap_err().message
        };
        let root = |certificate: &str, key: &str| {
            let mut view = SpecView::default();
            view.ca_config.signing_ca_cert = certificate.to_owned();
            view.ca_config.signing_ca_key = key.to_owned();
            view.given_root().unwrap_err().message
        };
        for (message, words) in [
            (spec(|s| s.name = "other".into()), "always named default"),
            (
                spec(|s| s.dispatcher.heartbeat_period = -1),
                "HeartbeatPeriod",
            ),
            (
                spec(|s| s.ca_config.node_cert_expiry = 5),
                "minimum is one hour",
            ),
            (
                spec(|s| s.ca_config.external_cas = vec![serde_json::Value::Null]),
                "swarm ca --rotate --ca-cert",
            ),
            (root("PEM", ""), "--ca-key"),
            (root("", "PEM"), "--ca-cert"),
            (
                read_data_path_port(80).unwrap_err().message,
                "DataPathPort number 80",
            ),
            (
                read_size("SubnetSize", 99).unwrap_err().message,
                "SubnetSize",
            ),
            (
                read_pools(&["10.0.0.1".into()]).unwrap_err().message,
                "is not a subnet",
            ),
        ] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(read_data_path_port(0).unwrap(), 0);
    }
}
