//! The daemon itself: `/_ping`, `/version`, `/info`, `/system/df`, `/auth`.

use api::{
    swarm::{RemoteManager, SwarmInfo},
    system::{
        About, Commit, IndexConfig, InfoView, Plugins, RegistryConfig, RuntimePath, VersionView,
    },
    timestamp,
    version::SERVER_VERSION,
};
use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use model::{
    control::{Answer as Reply, Verb},
    node::Role,
};
use runtime::engine::{ListOptions, Status};

use super::{Answer, AppState, json, swarm};
use crate::{
    clock,
    cluster::{LocalState, Standing},
    config::Settings,
    host,
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
}

async fn ping() -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
            (header::PRAGMA, "no-cache"),
        ],
        "OK",
    )
        .into_response()
}

/// The `Swarm` header: `inactive`, `pending`, `error`, `locked`, `active/worker` or
/// `active/manager`.
pub(super) fn swarm_header(local: &LocalState) -> String {
    match (local.state, local.role) {
        (Standing::Active, Some(Role::Manager)) => "active/manager".to_owned(),
        (Standing::Active, _) => "active/worker".to_owned(),
        (state, _) => state.word().to_owned(),
    }
}

async fn version(State(state): State<AppState>) -> Response {
    let (name, version, _) = state.engine.runtime_version();
    let (machine, kernel) = machine_and_kernel();
    json(&VersionView::of(&About {
        machine,
        kernel,
        runtime: (name, version),
    }))
}

fn machine_and_kernel() -> (String, String) {
    match nix::sys::utsname::uname() {
        Ok(name) => (
            name.machine().to_string_lossy().into_owned(),
            name.release().to_string_lossy().into_owned(),
        ),
        Err(_) => (String::new(), String::new()),
    }
}

async fn info(State(state): State<AppState>) -> Answer {
    let containers = state.engine.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })?;
    let count = |wanted: &[Status]| {
        containers
            .iter()
            .filter(|container| wanted.contains(&container.state.status))
            .count()
    };
    let running = count(&[Status::Running, Status::Restarting]);
    let paused = count(&[Status::Paused]);
    let about = host::describe(&state.settings.declared());
    let (machine, kernel) = machine_and_kernel();
    let (runtime, _, runtime_path) = state.engine.runtime_version();
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (swarm, warnings) = swarm_info(&state).await;
    Ok(json(&InfoView {
        id: state.engine_id.to_string(),
        containers: containers.len(),
        containers_running: running,
        containers_paused: paused,
        containers_stopped: containers.len() - running - paused,
        images: state.images.list().len(),
        driver: "overlay2".to_owned(),
        driver_status: Vec::new(),
        plugins: Plugins {
            volume: words(&["local"]),
            network: words(&["bridge", "host", "null", "overlay"]),
            authorization: Vec::new(),
            log: words(&["json-file", "local", "none"]),
        },
        memory_limit: true,
        swap_limit: std::path::Path::new("/proc/swaps").exists(),
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        oom_kill_disable: true,
        ipv4_forwarding: read_line("/proc/sys/net/ipv4/ip_forward") == "1",
        debug: false,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        tasks: std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
        system_time: timestamp::rfc3339(clock::now_nanos()),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            "2".to_owned()
        } else {
            "1".to_owned()
        },
        event_listeners: state.events.listeners(),
        kernel_version: kernel,
        operating_system: os_release("PRETTY_NAME"),
        os_version: os_release("VERSION_ID"),
        os_type: "linux".to_owned(),
        architecture: machine,
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: registries(&state.settings),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: about.memory_bytes,
        docker_root_dir: state.settings.root.display().to_string(),
        name: about.hostname,
        labels: state
            .settings
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        server_version: SERVER_VERSION.to_owned(),
        runtimes: [(
            runtime.clone(),
            RuntimePath {
                path: runtime_path.display().to_string(),
            },
        )]
        .into(),
        default_runtime: runtime,
        swarm,
        live_restore_enabled: true,
        init_binary: "docker-init".to_owned(),
        containerd_commit: Commit {
            id: "N/A".to_owned(),
        },
        runc_commit: Commit {
            id: "N/A".to_owned(),
        },
        init_commit: Commit {
            id: "N/A".to_owned(),
        },
        security_options: words(&["name=seccomp,profile=builtin"]),
        warnings,
        ..InfoView::default()
    }))
}

fn registries(settings: &Settings) -> RegistryConfig {
    // Docker has mirrors of its Hub, which is the nearest to what is done here.
    let mirrors: Vec<String> = settings
        .default_registry
        .iter()
        .map(|registry| {
            let plain = settings.insecure_registries.contains(registry);
            format!("{}://{registry}/", if plain { "http" } else { "https" })
        })
        .collect();
    let entry = |name: &str, secure: bool, official: bool| {
        let config = IndexConfig {
            name: name.to_owned(),
            mirrors: if official {
                mirrors.clone()
            } else {
                Vec::new()
            },
            secure,
            official,
        };
        (name.to_owned(), config)
    };
    RegistryConfig {
        insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
        index_configs: settings
            .insecure_registries
            .iter()
            .map(|name| entry(name, false, false))
            .chain([entry("docker.io", true, true)])
            .collect(),
        mirrors,
    }
}

/// The cluster's part, and what a user should be warned of.
async fn swarm_info(state: &AppState) -> (SwarmInfo, Vec<String>) {
    state.settled().await;
    let local = state.local();
    let mut info = local_info(&local);
    if !local.control_available() {
        return (info, Vec::new());
    }
    let mut warnings = Vec::new();
    match state.call(Verb::NodeList).await {
        Ok(Reply::Nodes(nodes)) => {
            let managers = nodes.iter().filter(|node| node.manager.is_some()).count();
            if managers == 2 {
                warnings.push(
                    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         no fault tolerance, and poses a high risk to lose control over the cluster.\n         Run three managers, or one."
                        .to_owned(),
                );
            }
            info.nodes = i64::try_from(nodes.len()).ok();
            info.managers = i64::try_from(managers).ok();
            if let Ok(Reply::Cluster(cluster)) = state.call(Verb::ClusterInspect).await {
                info.cluster = swarm::shown(&cluster).ok().map(Box::new);
            }
        }
        Ok(_) => {}
        // The rest of /info stays true without a leader, so the reason goes along.
        Err(refusal) => info.error = refusal.message,
    }
    (info, warnings)
}

fn local_info(local: &LocalState) -> SwarmInfo {
    SwarmInfo {
        node_id: local.node_id.to_string(),
        node_addr: local.address.map(|ip| ip.to_string()).unwrap_or_default(),
        local_node_state: local.state.word().to_owned(),
        control_available: local.control_available(),
        error: local.error.clone(),
        remote_managers: (local.state != Standing::Inactive).then(|| {
            local
                .managers
                .iter()
                .map(|(id, address)| RemoteManager {
                    node_id: id.to_string(),
                    addr: address.to_string(),
                })
                .collect()
        }),
        ..SwarmInfo::default()
    }
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// A value of os-release(5).
fn os_release(key: &str) -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                let value = line.strip_prefix(key)?.strip_prefix('=')?;
                Some(value.trim_matches('"').to_owned())
            })
        })
        .unwrap_or_else(|| "Linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_swarm_header() {
        for (state, role, text) in [
            (Standing::Inactive, None, "inactive"),
            (Standing::Pending, Some(Role::Worker), "pending"),
            (Standing::Active, Some(Role::Worker), "active/worker"),
            (Standing::Active, Some(Role::Manager), "active/manager"),
            (Standing::Error, Some(Role::Manager), "error"),
        ] {
            let local = LocalState {
                state,
                role,
                ..LocalState::default()
            };
            assert_eq!(swarm_header(&local), text);
        }
    }

    #[test]
    fn outside_a_cluster_there_are_no_remote_managers() {
        let value = serde_json::to_value(local_info(&LocalState::default())).unwrap();
        assert!(value["RemoteManagers"].is_null());
        assert_eq!(value["LocalNodeState"], "inactive");
    }
}
