//! Containers as Docker shows them: from the engine's view to the API's shapes.

use std::collections::BTreeMap;

use api::{
    ApiVersion,
    container::{
        self, Config, EndpointIpam, EndpointSettings, GraphDriver, Health, Inspect,
        NetworkSettings, Port, Probe, State, Summary, SummaryHostConfig, SummaryNetworks,
    },
    timestamp,
};
use runtime::{
    engine::{ContainerView, HealthStatus, Healthcheck, MountPoint, StateView, Status},
    network::{ConnectedEndpoint, NetworkMode, NetworkWish, PortBinding, find_wish},
};

use super::update;

/// One entry of `/containers/json`. `now` in nanoseconds since the epoch.
pub(super) fn summary(view: &ContainerView, now: i64) -> Summary {
    Summary {
        id: view.id.to_string(),
        names: vec![format!("/{}", view.name)],
        image: view.spec.image.clone(),
        image_id: view.image_id.clone(),
        command: command_line(&view.effective.argv),
        created: timestamp::seconds(view.created_at),
        ports: ports(view),
        size_rw: None,
        size_root_fs: None,
        labels: labels(view),
        state: view.state.status.as_str().to_owned(),
        status: status(&view.state, now),
        host_config: SummaryHostConfig {
            network_mode: mode_word(&view.spec.network),
        },
        network_settings: SummaryNetworks {
            networks: networks(view, ApiVersion::default()),
        },
        mounts: view.mounts.iter().map(mount).collect(),
    }
}

/// Hosts that had not confirmed the container's endpoints in time; Docker has no field for it.
const LABEL_LATE: &str = "overnet.late-hosts";

fn labels(view: &ContainerView) -> BTreeMap<String, String> {
    let mut labels = view.effective.labels.clone();
    if !view.network.late.is_empty() && view.state.pid != 0 {
        labels.insert(LABEL_LATE.to_owned(), view.network.late.join(","));
    }
    labels
}

fn command_line(argv: &[String]) -> String {
    argv.iter()
        .map(|word| {
            if word.contains(char::is_whitespace) {
                format!("'{word}'")
            } else {
                word.clone()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Exposed and published ports of a container that runs.
fn ports(view: &ContainerView) -> Vec<Port> {
    if view.state.pid == 0 {
        return Vec::new();
    }
    let published = &view.network.ports;
    let is_published = |text: &&String| published.iter().any(|port| port.target() == **text);
    let exposed = view.effective.exposed_ports.iter();
    let exposed = exposed.filter(|text| !is_published(text));
    let mut ports: Vec<Port> = exposed.filter_map(|port| read_port(port)).collect();
    for port in published {
        ports.extend(bindings(port).into_iter().map(|binding| Port {
            ip: binding.host_ip,
            private_port: port.target,
            public_port: binding.host_port.parse().ok(),
            protocol: port.protocol.as_str().to_owned(),
        }));
    }
    ports
}

/// Docker's two lines for a port of all addresses, one for that of an address.
fn bindings(port: &PortBinding) -> Vec<container::PortBinding> {
    let all = vec!["0.0.0.0".to_owned(), "::".to_owned()];
    let addresses = port
        .address
        .map_or(all, |address| vec![address.to_string()]);
    let number = match port.published {
        Some((first, last)) if first != last => format!("{first}-{last}"),
        Some((only, _)) => only.to_string(),
        None => String::new(),
    };
    addresses
        .into_iter()
        .map(|host_ip| container::PortBinding {
            host_ip,
            host_port: number.clone(),
        })
        .collect()
}

/// `8080/tcp`.
fn read_port(text: &str) -> Option<Port> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(Port {
        private_port: port.parse().ok()?,
        protocol: protocol.to_owned(),
        ..Port::default()
    })
}

/// Docker's sentence about a container's state.
pub(super) fn status(state: &StateView, now: i64) -> String {
    let since = |moment: i64| timestamp::human(now.saturating_sub(moment).max(0));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => {
            format!(
                "Exited ({}) {} ago",
                state.exit_code,
                since(state.finished_at)
            )
        }
        Status::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                state.exit_code,
                since(state.finished_at)
            )
        }
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Running => {
            let up = format!("Up {}", since(state.started_at));
            match state.health.as_ref().map(|health| health.status) {
                None => up,
                Some(HealthStatus::Starting) => format!("{up} (health: starting)"),
                Some(HealthStatus::Healthy) => format!("{up} (healthy)"),
                Some(HealthStatus::Unhealthy) => format!("{up} (unhealthy)"),
            }
        }
    }
}

/// `/containers/{id}/json`.
pub(super) fn inspect(view: &ContainerView, version: ApiVersion) -> Inspect {
    let (path, args) = match view.effective.argv.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let path_text = |path: &std::path::Path| path.display().to_string();
    let mut host_config = container::host_config(&view.spec.opaque);
    host_config["NetworkMode"] = mode_word(&view.spec.network).into();
    update::show(&mut host_config, &view.spec.host);
    Inspect {
        id: view.id.to_string(),
        created: timestamp::rfc3339(view.created_at),
        path,
        args,
        state: state(&view.state),
        image: view.image_id.clone(),
        resolv_conf_path: path_text(&view.resolv_conf_path),
        hostname_path: path_text(&view.hostname_path),
        hosts_path: path_text(&view.hosts_path),
        log_path: path_text(&view.log_path),
        name: format!("/{}", view.name),
        restart_count: view.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        exec_ids: (!view.exec_ids.is_empty()).then(|| view.exec_ids.clone()),
        host_config,
        graph_driver: GraphDriver {
            name: "overlay2".to_owned(),
            data: [
                (
                    "LowerDir".to_owned(),
                    view.lower_dirs
                        .iter()
                        .map(|dir| dir.display().to_string())
                        .collect::<Vec<_>>()
                        .join(":"),
                ),
                ("UpperDir".to_owned(), path_text(&view.upper_dir)),
            ]
            .into(),
        },
        mounts: view.mounts.iter().map(mount).collect(),
        config: config(view),
        network_settings: network_settings(view, version),
        ..Inspect::default()
    }
}

fn state(state: &StateView) -> State {
    State {
        status: state.status.as_str().to_owned(),
        running: matches!(
            state.status,
            Status::Running | Status::Paused | Status::Restarting
        ),
        paused: state.paused,
        restarting: state.restarting,
        oom_killed: state.oom_killed,
        dead: state.dead,
        pid: state.pid,
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: timestamp::rfc3339(state.started_at),
        finished_at: timestamp::rfc3339(state.finished_at),
        health: state.health.as_ref().map(|health| Health {
            status: match health.status {
                HealthStatus::Starting => "starting",
                HealthStatus::Healthy => "healthy",
                HealthStatus::Unhealthy => "unhealthy",
            }
            .to_owned(),
            failing_streak: health.failing_streak,
            log: health
                .log
                .iter()
                .map(|probe| Probe {
                    start: timestamp::rfc3339(probe.start),
                    end: timestamp::rfc3339(probe.end),
                    exit_code: probe.exit_code,
                    output: probe.output.clone(),
                })
                .collect(),
        }),
    }
}

fn config(view: &ContainerView) -> Config {
    let (spec, effective) = (&view.spec, &view.effective);
    Config {
        hostname: effective.hostname.clone(),
        domainname: effective.domainname.clone(),
        user: effective.user.clone(),
        attach_stdin: spec.attach_stdin,
        attach_stdout: spec.attach_stdout,
        attach_stderr: spec.attach_stderr,
        exposed_ports: effective.exposed_ports.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: effective.env.clone(),
        cmd: effective.command.clone(),
        healthcheck: effective.health.as_ref().map(healthcheck),
        image: spec.image.clone(),
        volumes: effective.volumes.clone(),
        working_dir: effective.working_dir.clone(),
        entrypoint: effective.entrypoint.clone(),
        on_build: None,
        labels: labels(view),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout,
    }
}

fn healthcheck(check: &Healthcheck) -> container::Healthcheck {
    let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    container::Healthcheck {
        test: check.test.clone(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: check.retries,
    }
}

fn mount(point: &MountPoint) -> container::MountPoint {
    container::MountPoint {
        kind: point.kind.clone(),
        name: point.name.clone(),
        source: point.source.display().to_string(),
        destination: point.destination.clone(),
        driver: point.driver.clone(),
        mode: point.mode.clone(),
        rw: point.writable,
        propagation: point.propagation.clone(),
    }
}

/// `HostConfig.NetworkMode` as Docker writes it.
fn mode_word(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Networks(wishes) => wishes
            .first()
            .map_or_else(|| "bridge".to_owned(), |wish| wish.network.clone()),
    }
}

/// What runs shows what it was given, what does not run what it asked for.
fn networks(view: &ContainerView, version: ApiVersion) -> BTreeMap<String, EndpointSettings> {
    let wishes: &[NetworkWish] = match &view.spec.network {
        NetworkMode::Host => return [("host".to_owned(), EndpointSettings::default())].into(),
        NetworkMode::None => return [("none".to_owned(), EndpointSettings::default())].into(),
        NetworkMode::Container(_) => return BTreeMap::new(),
        NetworkMode::Networks(wishes) => wishes,
    };
    let running = view.state.pid != 0;
    if running && !view.network.endpoints.is_empty() {
        return view
            .network
            .endpoints
            .iter()
            .map(|endpoint| {
                let place = find_wish(wishes, &endpoint.network_name, &endpoint.network_id);
                let wish = place.and_then(|place| wishes.get(place));
                (
                    endpoint.network_name.clone(),
                    connected(endpoint, wish, view, version),
                )
            })
            .collect();
    }
    wishes
        .iter()
        .map(|wish| {
            let settings = EndpointSettings {
                ipam_config: ipam(wish),
                aliases: wish.aliases.clone(),
                ..EndpointSettings::default()
            };
            (wish.network.clone(), settings)
        })
        .collect()
}

fn ipam(wish: &NetworkWish) -> Option<EndpointIpam> {
    let find = |v4: bool| {
        wish.addresses
            .iter()
            .find(|address| address.is_ipv4() == v4)
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    (!wish.addresses.is_empty()).then(|| EndpointIpam {
        ipv4_address: find(true),
        ipv6_address: find(false),
    })
}

fn connected(
    endpoint: &ConnectedEndpoint,
    wish: Option<&NetworkWish>,
    view: &ContainerView,
    version: ApiVersion,
) -> EndpointSettings {
    let address = |v4: bool| {
        endpoint
            .addresses
            .iter()
            .find(|(address, _)| address.is_ipv4() == v4)
            .map_or((String::new(), 0), |(address, prefix)| {
                (address.to_string(), *prefix)
            })
    };
    let gateway = |v4: bool| {
        endpoint
            .gateways
            .iter()
            .find(|address| address.is_ipv4() == v4)
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let mut aliases = endpoint.aliases.clone();
    let short = view.id.short().to_owned();
    // Before 1.45 the short id stood among the aliases, and clients look for it there.
    if version < ApiVersion::new(1, 45) && !aliases.contains(&short) {
        aliases.push(short);
    }
    let ((ip_address, ip_prefix_len), (v6_address, v6_prefix)) = (address(true), address(false));
    EndpointSettings {
        ipam_config: wish.and_then(ipam),
        links: None,
        aliases,
        mac_address: endpoint.mac.clone(),
        driver_opts: None,
        gw_priority: 0,
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        gateway: gateway(true),
        ip_address,
        ip_prefix_len,
        ipv6_gateway: gateway(false),
        global_ipv6_address: v6_address,
        global_ipv6_prefix_len: v6_prefix,
        dns_names: endpoint.dns_names.clone(),
    }
}

fn network_settings(view: &ContainerView, version: ApiVersion) -> NetworkSettings {
    let networks = networks(view, version);
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let netns = view.network.netns.as_ref().filter(|_| view.state.pid != 0);
    let mut published = BTreeMap::<String, Vec<container::PortBinding>>::new();
    if view.state.pid != 0 {
        for port in &view.network.ports {
            published
                .entry(port.target())
                .or_default()
                .extend(bindings(port));
        }
    }
    NetworkSettings {
        sandbox_id: netns.map(|_| view.id.to_string()).unwrap_or_default(),
        sandbox_key: netns
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        ports: view
            .effective
            .exposed_ports
            .iter()
            .filter(|_| view.state.pid != 0)
            .map(|port| (port.clone(), None))
            .chain(
                published
                    .into_iter()
                    .map(|(port, places)| (port, Some(places))),
            )
            .collect(),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

#[cfg(test)]
mod tests;
