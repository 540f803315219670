//! From what a client sends to the engine's wish. Every field Docker knows is looked at: it is
//! taken, refused by name, or named in a warning.

mod host;
mod ports;

use api::docker::{ContainerCreateBody, HealthConfig, NetworkingConfig};
use model::{ContainerId, Refusal};
use runtime::engine::{ContainerSpec, Healthcheck};
use serde::Deserialize;

use self::host::host;
pub(super) use self::host::{limit, restart};

/// What else is looked up while a wish is read.
pub(super) struct Lookup<'a> {
    /// The full id of a container named by the user.
    pub container: &'a dyn Fn(&str) -> Result<ContainerId, Refusal>,
    /// Names that `Runtime` may have.
    pub runtimes: &'a [&'a str],
}

/// Fields that clients send and the API's own description has lost.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leftover {
    #[serde(rename = "MacAddress")]
    mac_address: String,
    #[serde(rename = "HostConfig")]
    host_config: LeftoverHost,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LeftoverHost {
    #[serde(rename = "KernelMemory")]
    kernel_memory: i64,
    #[serde(rename = "KernelMemoryTCP")]
    kernel_memory_tcp: i64,
}

/// What cannot be honoured, for the refusal's sentence.
pub(super) fn absent(option: &str) -> Refusal {
    Refusal::not_implemented(format!("{option} is not there yet; leave it out"))
}

pub(super) fn refuse_if(given: bool, option: &str) -> Result<(), Refusal> {
    if given { Err(absent(option)) } else { Ok(()) }
}

pub(super) fn filled<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

pub(super) fn text(given: Option<String>) -> String {
    given.unwrap_or_default()
}

/// Reads a whole creation request; gives the wish and what the user should be warned of.
pub(super) fn read(
    name: Option<String>,
    body: ContainerCreateBody,
    leftover: &Leftover,
    lookup: &Lookup<'_>,
) -> Result<(ContainerSpec, Vec<String>), Refusal> {
    let mut warnings = Vec::new();
    let opaque = serde_json::to_value(&body.host_config).unwrap_or_default();
    let ContainerCreateBody {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        // Windows only; Docker ignores it on Linux too.
        args_escaped: _,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        on_build,
        labels,
        stop_signal,
        stop_timeout,
        shell,
        host_config,
        networking_config,
    } = body;
    let image = text(image);
    if image.is_empty() {
        return Err(Refusal::invalid(
            "no image specified; give Image a name such as busybox:latest",
        ));
    }
    refuse_if(
        !leftover.mac_address.is_empty(),
        "MacAddress (--mac-address)",
    )?;
    refuse_if(
        leftover.host_config.kernel_memory > 0,
        "HostConfig.KernelMemory",
    )?;
    refuse_if(
        leftover.host_config.kernel_memory_tcp > 0,
        "HostConfig.KernelMemoryTCP",
    )?;
    for (given, field) in [
        (filled(on_build.as_ref()), "OnBuild"),
        (filled(shell.as_ref()), "Shell"),
    ] {
        if given {
            warnings.push(format!(
                "{field} concerns building images and has no effect here"
            ));
        }
    }
    let host_config = host_config.unwrap_or_default();
    let NetworkingConfig { endpoints_config } = networking_config.unwrap_or_default();
    let read = host(
        host_config,
        endpoints_config.unwrap_or_default(),
        lookup,
        &mut warnings,
    )?;
    let host_network = matches!(read.network, runtime::network::NetworkMode::Host);
    let spec = ContainerSpec {
        name,
        image,
        command: cmd.filter(|words| !words.is_empty()),
        entrypoint: entrypoint.filter(|words| !words.is_empty()),
        env: env.unwrap_or_default(),
        labels: labels.unwrap_or_default().into_iter().collect(),
        hostname: text(hostname),
        domainname: text(domainname),
        user: text(user),
        working_dir: text(working_dir),
        tty: tty.unwrap_or(false),
        open_stdin: open_stdin.unwrap_or(false),
        stdin_once: stdin_once.unwrap_or(false),
        attach_stdin: attach_stdin.unwrap_or(false),
        attach_stdout: attach_stdout.unwrap_or(false),
        attach_stderr: attach_stderr.unwrap_or(false),
        stop_signal: stop_signal.filter(|signal| !signal.is_empty()),
        stop_timeout,
        health: healthcheck.map(health).transpose()?.flatten(),
        exposed_ports: exposed_ports.unwrap_or_default().into_iter().collect(),
        volumes: volumes.unwrap_or_default().into_iter().collect(),
        host: read.host,
        network: if network_disabled.unwrap_or(false) {
            runtime::network::NetworkMode::None
        } else {
            read.network
        },
        dns: read.dns,
        dns_search: read.dns_search,
        dns_options: read.dns_options,
        extra_hosts: read.extra_hosts,
        opaque,
    };
    if host_network && !spec.exposed_ports.is_empty() {
        tracing::debug!("exposed ports mean nothing in the host's network");
    }
    Ok((spec, warnings))
}

fn health(config: HealthConfig) -> Result<Option<Healthcheck>, Refusal> {
    let HealthConfig {
        test,
        interval,
        timeout,
        retries,
        start_period,
        start_interval,
    } = config;
    let test = test.unwrap_or_default();
    match test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => {}
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "Healthcheck.Test: {other:?} is not one of NONE, CMD, CMD-SHELL"
            )));
        }
    }
    let span = |field: &str, nanos: Option<i64>| match nanos.unwrap_or(0) {
        0 => Ok(std::time::Duration::ZERO),
        nanos if nanos < 1_000_000 => Err(Refusal::invalid(format!(
            "{field} in Healthcheck cannot be less than one millisecond"
        ))),
        nanos => Ok(std::time::Duration::from_nanos(nanos.unsigned_abs())),
    };
    let retries = u32::try_from(retries.unwrap_or(0))
        .map_err(|_| Refusal::invalid("Healthcheck.Retries cannot be negative"))?;
    let check = Healthcheck {
        test,
        interval: span("Interval", interval)?,
        timeout: span("Timeout", timeout)?,
        start_period: span("StartPeriod", start_period)?,
        start_interval: span("StartInterval", start_interval)?,
        retries,
    };
    Ok((check != Healthcheck::default()).then_some(check))
}

#[cfg(test)]
mod tests;
