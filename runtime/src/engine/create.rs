//! Making a container: the wish is checked and merged with the image's defaults.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use model::{Refusal, name::check_container_name};
use serde::Deserialize;
use trace::Instrument as _;

use super::{
    ContainerSpec, Created, Effective, Engine, Healthcheck, ImageDefaults, ResolvedImage,
    container::Container, machine::Life, mount_points, now, random_id, record::Record,
};
use crate::{
    images::Image,
    network::{Connected, NetworkMode},
    oci::{bundle, bundle::merge_environment, capability},
};

impl Engine {
    /// Checks and keeps the wish; nothing runs yet.
    pub async fn create(&self, mut spec: ContainerSpec) -> Result<Created, Refusal> {
        let warnings = check(&spec)?;
        if let Some(name) = &mut spec.name {
            *name = name.trim_start_matches('/').to_owned();
            check_container_name(name)?;
        }
        let image = self.config.images.resolve(&spec.image).await?;
        let id = random_id();
        spec.network = self.resolve_mode(spec.network)?;
        let effective = merge(&spec, &image.defaults, id.short(), &host_name())?;
        let name = if let Some(name) = &spec.name {
            self.take_name(name, &id)?;
            name.clone()
        } else {
            let mut name = random_name();
            while self.take_name(&name, &id).is_err() {
                name = random_name();
            }
            name
        };
        let made = self.create_named(&id, &name, spec, effective, image);
        let result = made
            .instrument(trace::part!("create", container = name))
            .await;
        match result {
            Ok(()) => Ok(Created { id, warnings }),
            Err(refusal) => {
                self.free_name(&name, &id);
                let directory = self.container_dir(&id);
                let _ = fs::remove_dir_all(directory);
                Err(refusal)
            }
        }
    }

    async fn create_named(
        &self,
        id: &model::ContainerId,
        name: &str,
        spec: ContainerSpec,
        effective: Effective,
        image: ResolvedImage,
    ) -> Result<(), Refusal> {
        let mounted = self.mounted_images(&spec).await?;
        let layers = [&image].into_iter().chain(mounted.values());
        let layers: Vec<PathBuf> = layers.flat_map(|image| image.layers.clone()).collect();
        let pin = self.config.images.pin(&layers)?;
        let directory = self.container_dir(id);
        for part in ["upper", "work", "rootfs"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(|error| {
                Refusal::internal(format!("making {}: {error}", path.display()))
            })?;
        }
        let life = Life {
            policy: spec.host.restart,
            auto_remove: spec.host.auto_remove,
            ..Life::default()
        };
        let mut record = Record {
            id: id.clone(),
            name: name.to_owned(),
            created_at: now(),
            image_id: image.id,
            layers: image.layers,
            effective,
            mounts: Vec::new(),
            life,
            error: String::new(),
            oom_killed: false,
            network: Connected::default(),
            process: None,
            monitor: None,
            boot: String::new(),
            health: None,
            spec,
        };
        let probe = Container::new(self, record.clone());
        self.config.network.check(&probe.connect_request()).await?;
        record.mounts = self
            .mount_points(&record.spec, &record.effective, &mounted)
            .await?;
        let container = Arc::new(Container::new(self, record));
        *container.pin.lock().expect("no panic under this lock") = Some(pin);
        container.change_durably(|_| ())?;
        self.table
            .write()
            .expect("no panic under this lock")
            .by_id
            .insert(id.clone(), container.clone());
        self.tell(&container.record(), "create", &[]);
        Ok(())
    }
}

/// What is wrong with a wish by itself; the answer is warnings.
fn check(spec: &ContainerSpec) -> Result<Vec<String>, Refusal> {
    let host = &spec.host;
    capability::effective(host.privileged, &host.cap_add, &host.cap_drop)?;
    bundle::Security::parse(host)?;
    if host.auto_remove && host.restart != super::RestartPolicy::No {
        return Err(Refusal::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    super::update::check(&host.resources, &super::update::Host::read())?;
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Refusal::invalid(format!(
            "invalid user namespace mode {:?}: only \"host\" is there",
            host.userns_mode
        )));
    }
    if !matches!(
        host.log.driver.as_str(),
        "" | "json-file" | "local" | "none"
    ) {
        return Err(Refusal::invalid(format!(
            "logger: no log driver named '{}' is registered",
            host.log.driver
        )));
    }
    if let Some(signal) = &spec.stop_signal {
        signal_number(signal)?;
    }
    if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
        return Err(Refusal::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            spec.working_dir
        )));
    }
    mount_points::check(&host.mounts)?;
    let mut warnings = Vec::new();
    if host
        .security_opt
        .iter()
        .any(|option| option.starts_with("apparmor"))
    {
        warnings.push("AppArmor profiles are not applied".to_owned());
    }
    Ok(warnings)
}

/// The wish with the image's defaults.
pub(super) fn merge(
    spec: &ContainerSpec,
    image: &ImageDefaults,
    short_id: &str,
    host_name: &str,
) -> Result<Effective, Refusal> {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let given = spec.entrypoint.as_ref().map(|list| {
        list.iter()
            .filter(|word| list.len() > 1 || !word.is_empty())
            .cloned()
            .collect::<Vec<_>>()
    });
    let entrypoint = given
        .as_deref()
        .map_or_else(|| some(&image.entrypoint), some);
    let command = match (&spec.command, &given) {
        (Some(command), _) if !command.is_empty() => some(command),
        (_, Some(_)) => None,
        _ => some(&image.command),
    };
    let argv: Vec<String> = entrypoint
        .iter()
        .chain(&command)
        .flatten()
        .cloned()
        .collect();
    if argv.is_empty() {
        return Err(Refusal::invalid("no command specified"));
    }
    let mut env = image.env.clone();
    merge_environment(&mut env, &spec.env);
    let mut labels = image.labels.clone();
    labels.extend(spec.labels.clone());
    let hostname = match (&spec.hostname, &spec.network) {
        (name, _) if !name.is_empty() => name.clone(),
        (_, NetworkMode::Host) => host_name.to_owned(),
        _ => short_id.to_owned(),
    };
    let or_image = |own: &String, image: &String| {
        if own.is_empty() {
            image.clone()
        } else {
            own.clone()
        }
    };
    let stop_signal = spec
        .stop_signal
        .clone()
        .or_else(|| image.stop_signal.clone())
        .unwrap_or_else(|| "SIGTERM".to_owned());
    Ok(Effective {
        argv,
        entrypoint,
        command,
        env,
        user: or_image(&spec.user, &image.user),
        working_dir: or_image(&spec.working_dir, &image.working_dir),
        hostname,
        domainname: spec.domainname.clone(),
        labels,
        exposed_ports: image
            .exposed_ports
            .iter()
            .chain(&spec.exposed_ports)
            .cloned()
            .collect(),
        volumes: image.volumes.iter().chain(&spec.volumes).cloned().collect(),
        stop_signal,
        health: health(spec.health.as_ref(), image.health.as_ref()),
    })
}

/// Fields that were not given come from the image's check; `NONE` switches it off.
fn health(own: Option<&Healthcheck>, image: Option<&Healthcheck>) -> Option<Healthcheck> {
    let mut check = own.or(image)?.clone();
    if let Some(image) = image {
        if check.test.is_empty() {
            check.test.clone_from(&image.test);
        }
        for (field, value) in [
            (&mut check.interval, image.interval),
            (&mut check.timeout, image.timeout),
            (&mut check.start_period, image.start_period),
            (&mut check.start_interval, image.start_interval),
        ] {
            if field.is_zero() {
                *field = value;
            }
        }
        if check.retries == 0 {
            check.retries = image.retries;
        }
    }
    (!check.test.is_empty() && check.test[0] != "NONE").then_some(check)
}

/// What Docker's image format has and OCI's has not.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawHealth {
    test: Vec<String>,
    /// Nanoseconds, as the others.
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// An image of the store, as the engine needs it.
pub(super) fn resolved(image: &Image) -> ResolvedImage {
    let config = image.config.config().clone().unwrap_or_default();
    let health = serde_json::from_slice::<serde_json::Value>(&image.raw_config)
        .ok()
        .and_then(|raw| raw.get("config")?.get("Healthcheck").cloned())
        .and_then(|raw| serde_json::from_value::<RawHealth>(raw).ok())
        .map(|raw| Healthcheck {
            test: raw.test,
            interval: Duration::from_nanos(raw.interval),
            timeout: Duration::from_nanos(raw.timeout),
            start_period: Duration::from_nanos(raw.start_period),
            start_interval: Duration::from_nanos(raw.start_interval),
            retries: raw.retries,
        });
    let list = |field: &Option<Vec<String>>| field.clone().unwrap_or_default();
    ResolvedImage {
        id: image.id.to_string(),
        layers: image.layers.clone(),
        defaults: ImageDefaults {
            entrypoint: list(config.entrypoint()),
            command: list(config.cmd()),
            env: list(config.env()),
            user: config.user().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            labels: config
                .labels()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            exposed_ports: list(config.exposed_ports()),
            volumes: list(config.volumes()),
            stop_signal: config.stop_signal().clone(),
            health,
        },
    }
}

/// `SIGTERM`, `term`, `15` and real-time ones as `SIGRTMIN+3`.
pub(super) fn signal_number(text: &str) -> Result<i32, Refusal> {
    let invalid = || Refusal::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(invalid);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let more = rest.strip_prefix('+').unwrap_or("0");
        return more
            .parse::<i32>()
            .ok()
            .filter(|more| (0..=30).contains(more))
            .map(|more| 34 + more)
            .ok_or_else(invalid);
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| invalid())
}

/// Without `.`, `..` and double slashes.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// A name for who was given none: two words and a number, valid for containers and services.
pub fn random_name() -> String {
    const HOW: &[&str] = &[
        "amber", "brave", "calm", "clever", "eager", "fair", "gentle", "golden", "happy", "keen",
        "kind", "lively", "lucid", "merry", "mild", "noble", "patient", "proud", "quick", "quiet",
        "rapid", "silver", "smart", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise",
    ];
    const WHAT: &[&str] = &[
        "alder", "badger", "beaver", "birch", "cedar", "crane", "dolphin", "eagle", "falcon",
        "finch", "fox", "hare", "heron", "ibis", "jay", "kite", "larch", "lynx", "maple", "marten",
        "oak", "osprey", "otter", "pine", "raven", "rowan", "seal", "stork", "swan", "willow",
    ];
    let number: u32 = rand::random();
    format!(
        "{}_{}{}",
        HOW[number as usize % HOW.len()],
        WHAT[(number >> 8) as usize % WHAT.len()],
        (number >> 16) % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entrypoints_and_commands() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let image = ImageDefaults {
            entrypoint: words("/entry -x"),
            command: words("serve"),
            ..ImageDefaults::default()
        };
        for (entrypoint, command, wanted) in [
            (None, None, Some("/entry -x serve")),
            (None, Some("other"), Some("/entry -x other")),
            (Some(words("/mine")), None, Some("/mine")),
            (Some(words("/mine")), Some("a b"), Some("/mine a b")),
            (Some(vec![String::new()]), Some("a b"), Some("a b")),
            (Some(Vec::new()), None, None),
        ] {
            let spec = ContainerSpec {
                entrypoint: entrypoint.clone(),
                command: command.map(words),
                ..ContainerSpec::new("x")
            };
            let merged = merge(&spec, &image, "0123456789ab", "host");
            assert_eq!(
                merged
                    .ok()
                    .map(|effective| effective.argv.join(" "))
                    .as_deref(),
                wanted,
                "{entrypoint:?} {command:?}"
            );
        }
    }

    #[test]
    fn signals() {
        for (text, wanted) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("0", None),
            ("SIGFOO", None),
        ] {
            assert_eq!(signal_number(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn wishes_that_contradict_themselves() {
        let with = |change: fn(&mut ContainerSpec)| {
            let mut spec = ContainerSpec::new("x");
            change(&mut spec);
            check(&spec).map(drop).map_err(|refusal| refusal.message)
        };
        assert_eq!(with(|_| ()), Ok(()));
        for (change, words) in [
            (
                (|spec| {
                    spec.host.auto_remove = true;
                    spec.host.restart = super::super::RestartPolicy::Always;
                }) as fn(&mut ContainerSpec),
                "restart policy",
            ),
            (|spec| spec.host.resources.memory = 1, "6MB"),
            (|spec| spec.host.cap_add = vec!["FLY".into()], "FLY"),
            (
                |spec| spec.host.security_opt = vec!["x=y".into()],
                "security-opt",
            ),
            (|spec| spec.host.log.driver = "syslog".into(), "syslog"),
            (|spec| spec.stop_signal = Some("SIGX".into()), "SIGX"),
            (|spec| spec.working_dir = "rel".into(), "absolute"),
            (
                |spec| spec.host.userns_mode = "auto".into(),
                "user namespace",
            ),
        ] {
            let refusal = with(change).unwrap_err();
            assert!(refusal.contains(words), "{words}: {refusal}");
        }
    }

    #[test]
    fn paths() {
        for (path, wanted) in [("/a//b/./c", "/a/b/c"), ("/..", "/"), ("a/../b", "/b")] {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }
}
