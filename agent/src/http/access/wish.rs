//! What of a wish would make its container root of the host: pure, over the wish as it would be
//! carried out.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use model::{
    service::ServiceSpec,
    task::{MountKind as TaskMount, TaskSpec},
};
use runtime::{
    engine::{ContainerSpec, MountKind},
    network::NetworkMode,
};

/// What every container may have, as Docker's default set.
const USUAL_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The first thing of a container's wish that reaches out of the container. `payloads` is where
/// this host lays the secrets and configs of tasks, which nobody but the worker mounts.
pub(super) fn of_container(spec: &ContainerSpec, payloads: &Path) -> Option<String> {
    let host = &spec.host;
    if host.privileged {
        return Some("is privileged".to_owned());
    }
    for mount in &host.mounts {
        match &mount.kind {
            MountKind::Bind { source, .. } if !lies_in(source, payloads) => {
                return Some(format!("mounts {source} of the host"));
            }
            MountKind::Volume { options, .. } => {
                if let Some(reason) = of_volume(options) {
                    return Some(reason);
                }
            }
            MountKind::Bind { .. } | MountKind::Image { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
    if let Some(capability) = unusual(&host.cap_add) {
        return Some(format!("adds the capability {capability}"));
    }
    if let Some(device) = host.devices.first() {
        return Some(format!(
            "has the device {} of the host",
            device.host.display()
        ));
    }
    if !host.device_cgroup_rules.is_empty() {
        return Some("has rules for devices".to_owned());
    }
    for (mode, what) in [
        (&host.pid_mode, "process"),
        (&host.ipc_mode, "IPC"),
        (&host.uts_mode, "UTS"),
    ] {
        match mode.as_str() {
            "host" => return Some(format!("is in the host's {what} namespace")),
            mode if mode.starts_with("container:") => {
                return Some(format!("is in another container's {what} namespace"));
            }
            _ => {}
        }
    }
    match &spec.network {
        NetworkMode::Host => return Some("is on the host's own network".to_owned()),
        NetworkMode::Container(_) => {
            return Some("is in another container's network namespace".to_owned());
        }
        NetworkMode::None | NetworkMode::Networks(_) => {}
    }
    // The others are without effect, or take rights away.
    let loosens =
        |option: &&String| option.starts_with("seccomp") || option.starts_with("systempaths");
    if let Some(option) = host.security_opt.iter().find(loosens) {
        let name = option.split('=').next().unwrap_or_default();
        return Some(format!("has a security option {name} of its own"));
    }
    if host.masked_paths.is_some() || host.readonly_paths.is_some() {
        return Some("says itself which paths of the kernel are hidden".to_owned());
    }
    None
}

fn lies_in(path: &str, folder: &Path) -> bool {
    let path = Path::new(path);
    path.starts_with(folder) && !path.components().any(|part| part == Component::ParentDir)
}

/// The same of a service.
pub(super) fn of_service(spec: &ServiceSpec) -> Option<String> {
    of_task(&spec.task)
}

fn of_task(task: &TaskSpec) -> Option<String> {
    let spec = &task.container;
    for mount in &spec.mounts {
        match mount.kind {
            TaskMount::Bind => return Some(format!("mounts {} of the host", mount.source)),
            TaskMount::Volume => {
                let driver = mount
                    .volume
                    .as_ref()
                    .and_then(|volume| volume.driver.as_ref());
                if let Some(reason) = driver.and_then(|driver| of_volume(&driver.options)) {
                    return Some(reason);
                }
            }
            // The last two are refused for everybody.
            TaskMount::Tmpfs | TaskMount::Image | TaskMount::Npipe | TaskMount::Cluster => {}
        }
    }
    if let Some(capability) = unusual(&spec.cap_add) {
        return Some(format!("adds the capability {capability}"));
    }
    if !matches!(spec.privileges.seccomp_mode.as_str(), "" | "default") {
        return Some("has a security option seccomp of its own".to_owned());
    }
    let on_host = |target: &str| target == "host";
    if task.networks.iter().any(|network| on_host(&network.target)) {
        return Some("is on the host's own network".to_owned());
    }
    None
}

/// Memory is the only thing that is mounted without touching what others have.
pub(super) fn of_volume(options: &BTreeMap<String, String>) -> Option<String> {
    if options.is_empty() || options.get("type").is_some_and(|kind| kind == "tmpfs") {
        return None;
    }
    let device = options.get("device").map_or("a device", String::as_str);
    Some(format!("mounts {device} in a volume"))
}

fn unusual(capabilities: &[String]) -> Option<&str> {
    let mut given = capabilities.iter().map(String::as_str);
    given.find(|name| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        !USUAL_CAPABILITIES.contains(&bare)
    })
}

#[cfg(test)]
mod tests {
    use api::service::SpecView;
    use runtime::engine::{HostSpec, MountSpec};
    use serde_json::{Value, json};

    use super::*;

    fn container(change: impl FnOnce(&mut HostSpec)) -> ContainerSpec {
        let mut spec = ContainerSpec {
            network: NetworkMode::Networks(Vec::new()),
            ..ContainerSpec::default()
        };
        change(&mut spec.host);
        spec
    }

    fn mount(kind: MountKind) -> Vec<MountSpec> {
        vec![MountSpec {
            target: "/x".into(),
            read_only: true,
            kind,
        }]
    }

    fn bind(source: &str) -> MountKind {
        MountKind::Bind {
            source: source.into(),
            create_source: false,
            propagation: String::new(),
            non_recursive: false,
        }
    }

    fn volume(options: &[(&str, &str)]) -> MountKind {
        let options = options.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        MountKind::Volume {
            name: Some("v".into()),
            no_copy: false,
            labels: BTreeMap::new(),
            options: options.collect(),
            subpath: String::new(),
        }
    }

    #[test]
    fn what_reaches_out_of_a_container_is_found() {
        type Change = fn(&mut HostSpec);
        let harmful: [(Change, &str); 14] = [
            (|host| host.privileged = true, "privileged"),
            (|host| host.mounts = mount(bind("/")), "mounts / of"),
            (
                |host| host.mounts = mount(bind("/run/o/payloads/../x")),
                "mounts",
            ),
            (
                |host| host.mounts = mount(volume(&[("o", "bind"), ("device", "/")])),
                "in a volume",
            ),
            (
                |host| host.cap_add = vec!["cap_sys_admin".into()],
                "cap_sys_admin",
            ),
            (|host| host.cap_add = vec!["ALL".into()], "ALL"),
            (
                |host| host.device_cgroup_rules = vec!["a *:* rwm".into()],
                "devices",
            ),
            (|host| host.pid_mode = "host".into(), "host's process"),
            (
                |host| host.ipc_mode = "container:x".into(),
                "another container's IPC",
            ),
            (|host| host.uts_mode = "host".into(), "UTS"),
            (
                |host| host.security_opt = vec!["seccomp=unconfined".into()],
                "seccomp",
            ),
            (
                |host| host.security_opt = vec!["systempaths=unconfined".into()],
                "systempaths",
            ),
            (|host| host.masked_paths = Some(Vec::new()), "hidden"),
            (|host| host.readonly_paths = Some(Vec::new()), "hidden"),
        ];
        let payloads = Path::new("/run/o/payloads");
        for (change, words) in harmful {
            let found = of_container(&container(change), payloads).unwrap_or_default();
            assert!(found.contains(words), "{words}: {found:?}");
        }
        for network in [
            NetworkMode::Host,
            NetworkMode::Container(model::ContainerId::from_random([1; 32])),
        ] {
            let spec = ContainerSpec {
                network,
                ..ContainerSpec::default()
            };
            assert!(of_container(&spec, payloads).unwrap().contains("network"));
        }
        let harmless: [Change; 6] = [
            |_| {},
            |host| host.mounts = mount(volume(&[])),
            |host| host.mounts = mount(volume(&[("type", "tmpfs"), ("device", "tmpfs")])),
            |host| host.mounts = mount(bind("/run/o/payloads/t/secrets")),
            |host| host.cap_add = vec!["CAP_NET_BIND_SERVICE".into(), "chown".into()],
            |host| host.security_opt = vec!["no-new-privileges".into()],
        ];
        for (number, change) in harmless.into_iter().enumerate() {
            assert_eq!(of_container(&container(change), payloads), None, "{number}");
        }
    }

    fn service(container: &Value, networks: &Value) -> Option<String> {
        let body = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container, "Networks": networks}});
        let view: SpecView = api::read(body.to_string().as_bytes()).unwrap();
        of_service(&view.into_model().unwrap())
    }

    #[test]
    fn what_reaches_out_of_a_service_is_found() {
        let none = json!([]);
        for (container, words) in [
            (
                json!({"Image": "a", "Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s"}]}),
                "docker.sock",
            ),
            (
                json!({"image": "a", "mounts": [{"type": "bind", "source": "/", "target": "/s"}]}),
                "mounts /",
            ),
            (
                json!({"Image": "a", "Mounts": [{"Type": "volume", "Source": "v", "Target": "/s",
                "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"o": "bind", "device": "/etc"}}}}]}),
                "/etc",
            ),
            (
                json!({"Image": "a", "CapabilityAdd": ["CAP_SYS_ADMIN"]}),
                "CAP_SYS_ADMIN",
            ),
            (
                json!({"Image": "a", "Privileges": {"Seccomp": {"Mode": "unconfined"}}}),
                "seccomp",
            ),
        ] {
            let found = service(&container, &none).unwrap_or_default();
            assert!(found.contains(words), "{container}: {found:?}");
        }
        let plain = json!({"Image": "a", "Mounts": [{"Type": "volume", "Source": "v", "Target": "/s"}],
            "CapabilityAdd": ["NET_BIND_SERVICE"], "Privileges": {"NoNewPrivileges": true}});
        assert_eq!(service(&plain, &json!([{"Target": "ch03"}])), None);
        let host = service(&plain, &json!([{"Target": "host"}]));
        assert!(host.unwrap().contains("host's own network"));
    }
}
