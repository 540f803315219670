//! The daemon itself: `/version` and `/info`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    swarm::SwarmInfo,
    version::{MAXIMUM, MINIMUM, SERVER_VERSION},
};

/// `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VersionView {
    pub platform: PlatformName,
    pub components: Vec<Component>,
    pub version: String,
    pub api_version: String,
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    pub git_commit: String,
    pub go_version: String,
    pub os: String,
    pub arch: String,
    pub kernel_version: String,
    pub build_time: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlatformName {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    pub name: String,
    pub version: String,
    pub details: BTreeMap<String, String>,
}

/// What of the host `/version` shows.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// As `uname -m`.
    pub machine: String,
    /// As `uname -r`.
    pub kernel: String,
    /// Name and version of the OCI runtime.
    pub runtime: (String, String),
}

/// Go's word for a machine: `amd64` for `x86_64`.
pub fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}

impl VersionView {
    pub fn of(about: &About) -> Self {
        let arch = go_architecture(&about.machine).to_owned();
        let details = [
            ("ApiVersion", MAXIMUM.to_string()),
            ("MinAPIVersion", MINIMUM.to_string()),
            ("Os", "linux".to_owned()),
            ("Arch", arch.clone()),
            ("KernelVersion", about.kernel.clone()),
            ("Experimental", "false".to_owned()),
            // The client prints these three without looking whether they are there.
            ("GitCommit", String::new()),
            ("GoVersion", String::new()),
            ("BuildTime", String::new()),
        ];
        let details = details.map(|(name, value)| (name.to_owned(), value)).into();
        Self {
            platform: PlatformName {
                name: "Overnet".to_owned(),
            },
            components: vec![
                Component {
                    // The client looks for this name to print the first paragraph.
                    name: "Engine".to_owned(),
                    version: SERVER_VERSION.to_owned(),
                    details,
                },
                Component {
                    name: about.runtime.0.clone(),
                    version: about.runtime.1.clone(),
                    details: [("GitCommit".to_owned(), String::new())].into(),
                },
            ],
            version: SERVER_VERSION.to_owned(),
            api_version: MAXIMUM.to_string(),
            min_api_version: MINIMUM.to_string(),
            git_commit: String::new(),
            go_version: String::new(),
            os: "linux".to_owned(),
            arch,
            kernel_version: about.kernel.clone(),
            build_time: String::new(),
        }
    }
}

/// `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InfoView {
    #[serde(rename = "ID")]
    pub id: String,
    pub containers: usize,
    pub containers_running: usize,
    pub containers_paused: usize,
    pub containers_stopped: usize,
    pub images: usize,
    pub driver: String,
    pub driver_status: Vec<[String; 2]>,
    pub plugins: Plugins,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    pub pids_limit: bool,
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    pub debug: bool,
    #[serde(rename = "NFd")]
    pub open_files: usize,
    #[serde(rename = "OomKillDisable")]
    pub oom_kill_disable: bool,
    #[serde(rename = "NGoroutines")]
    pub tasks: usize,
    pub system_time: String,
    pub logging_driver: String,
    pub cgroup_driver: String,
    pub cgroup_version: String,
    #[serde(rename = "NEventsListener")]
    pub event_listeners: usize,
    pub kernel_version: String,
    pub operating_system: String,
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    #[serde(rename = "OSType")]
    pub os_type: String,
    pub architecture: String,
    pub index_server_address: String,
    pub registry_config: RegistryConfig,
    #[serde(rename = "NCPU")]
    pub cpus: usize,
    pub mem_total: i64,
    pub docker_root_dir: String,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub name: String,
    pub labels: Vec<String>,
    pub experimental_build: bool,
    pub server_version: String,
    pub runtimes: BTreeMap<String, RuntimePath>,
    pub default_runtime: String,
    pub swarm: SwarmInfo,
    pub live_restore_enabled: bool,
    pub isolation: String,
    pub init_binary: String,
    pub containerd_commit: Commit,
    pub runc_commit: Commit,
    pub init_commit: Commit,
    pub security_options: Vec<String>,
    pub product_license: String,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Plugins {
    pub volume: Vec<String>,
    pub network: Vec<String>,
    pub authorization: Vec<String>,
    pub log: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RegistryConfig {
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    pub index_configs: BTreeMap<String, IndexConfig>,
    pub mirrors: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IndexConfig {
    pub name: String,
    pub mirrors: Vec<String>,
    pub secure: bool,
    pub official: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimePath {
    pub path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Commit {
    #[serde(rename = "ID")]
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_docker_shows_them() {
        let view = VersionView::of(&About {
            machine: "x86_64".into(),
            kernel: "6.1".into(),
            runtime: ("crun".into(), "1.8".into()),
        });
        assert_eq!((view.arch.as_str(), view.os.as_str()), ("amd64", "linux"));
        assert_eq!(
            (view.api_version.as_str(), view.min_api_version.as_str()),
            ("1.53", "1.24")
        );
        assert_eq!(view.components[0].name, "Engine");
    }

    #[test]
    fn nothing_in_info_is_null_but_what_docker_has_so() {
        let value = serde_json::to_value(InfoView::default()).unwrap();
        let nulls: Vec<_> = value
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, v)| v.is_null())
            .collect();
        assert!(nulls.is_empty(), "{nulls:?}");
    }
}
