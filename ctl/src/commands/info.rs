//! `info` and `version`.

use clap::Args;
use serde_json::{Value, json};

use super::text;
use crate::client::NEWEST;
use crate::failure::Failure;
use crate::output::listing::render_one;
use crate::output::units::{binary_size, go_duration};
use crate::session::Session;

/// Show what the daemon and the cluster are like
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl info -f '{{.Swarm.LocalNodeState}}'")]
pub struct InfoArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show the versions of this program and of the daemon
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl version -f '{{.Server.Version}}'")]
pub struct VersionArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `info`.
pub async fn info(session: &Session, args: InfoArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut info = client.get("/info").value().await?;
    if let Some(format) = args.format.as_deref().filter(|f| !f.is_empty()) {
        info["ClientInfo"] =
            json!({"Version": env!("CARGO_PKG_VERSION"), "Host": client.host().to_string()});
        return session.print(&render_one(&info, format)?);
    }
    session.print(&described(&info, &client.host().to_string()))?;
    for warning in info["Warnings"].as_array().into_iter().flatten() {
        session.note(warning.as_str().unwrap_or_default());
    }
    Ok(())
}

fn described(info: &Value, host: &str) -> String {
    let mut lines = vec![
        "Client:".to_owned(),
        format!(" Version:    {}", env!("CARGO_PKG_VERSION")),
        format!(" Host:       {host}"),
        String::new(),
        "Server:".to_owned(),
    ];
    let number = |pointer: &str| info.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    lines.push(format!(" Containers: {}", number("/Containers")));
    lines.push(format!("  Running: {}", number("/ContainersRunning")));
    lines.push(format!("  Paused: {}", number("/ContainersPaused")));
    lines.push(format!("  Stopped: {}", number("/ContainersStopped")));
    lines.push(format!(" Images: {}", number("/Images")));
    for (title, pointer) in [
        ("Server Version", "/ServerVersion"),
        ("Storage Driver", "/Driver"),
        ("Logging Driver", "/LoggingDriver"),
        ("Cgroup Driver", "/CgroupDriver"),
        ("Cgroup Version", "/CgroupVersion"),
    ] {
        if !text(info, pointer).is_empty() {
            lines.push(format!(" {title}: {}", text(info, pointer)));
        }
    }
    let plugins: Vec<&str> = info
        .pointer("/Plugins/Network")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !plugins.is_empty() {
        lines.push(format!(" Plugins:\n  Network: {}", plugins.join(" ")));
    }
    lines.push(format!(" Swarm: {}", text(info, "/Swarm/LocalNodeState")));
    if !matches!(
        text(info, "/Swarm/LocalNodeState"),
        "" | "inactive" | "locked"
    ) {
        lines.extend(swarm_lines(&info["Swarm"]));
    }
    for (title, pointer) in [
        ("Default Runtime", "/DefaultRuntime"),
        ("Init Binary", "/InitBinary"),
        ("Kernel Version", "/KernelVersion"),
        ("Operating System", "/OperatingSystem"),
        ("OSType", "/OSType"),
        ("Architecture", "/Architecture"),
    ] {
        if !text(info, pointer).is_empty() {
            lines.push(format!(" {title}: {}", text(info, pointer)));
        }
    }
    lines.push(format!(" CPUs: {}", number("/NCPU")));
    lines.push(format!(
        " Total Memory: {}",
        binary_size(number("/MemTotal") as f64)
    ));
    for (title, pointer) in [
        ("Name", "/Name"),
        ("ID", "/ID"),
        ("Docker Root Dir", "/DockerRootDir"),
    ] {
        if !text(info, pointer).is_empty() {
            lines.push(format!(" {title}: {}", text(info, pointer)));
        }
    }
    let insecure: Vec<&str> = info
        .pointer("/RegistryConfig/InsecureRegistryCIDRs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !insecure.is_empty() {
        lines.push(format!(
            " Insecure Registries:\n  {}",
            insecure.join("\n  ")
        ));
    }
    lines.join("\n") + "\n"
}

fn swarm_lines(swarm: &Value) -> Vec<String> {
    let mut lines = vec![format!("  NodeID: {}", text(swarm, "/NodeID"))];
    if !text(swarm, "/Error").is_empty() {
        lines.push(format!("  Error: {}", text(swarm, "/Error")));
    }
    let manager = swarm["ControlAvailable"].as_bool().unwrap_or(false);
    lines.push(format!("  Is Manager: {manager}"));
    if manager {
        lines.push(format!("  ClusterID: {}", text(swarm, "/Cluster/ID")));
        lines.push(format!(
            "  Managers: {}",
            swarm["Managers"].as_i64().unwrap_or(0)
        ));
        lines.push(format!("  Nodes: {}", swarm["Nodes"].as_i64().unwrap_or(0)));
        let pools: Vec<&str> = swarm
            .pointer("/Cluster/DefaultAddrPool")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !pools.is_empty() {
            lines.push(format!("  Default Address Pool: {}", pools.join("  ")));
            lines.push(format!(
                "  SubnetSize: {}",
                swarm
                    .pointer("/Cluster/SubnetSize")
                    .and_then(Value::as_i64)
                    .unwrap_or(0)
            ));
        }
        if let Some(port) = swarm
            .pointer("/Cluster/DataPathPort")
            .and_then(Value::as_i64)
        {
            lines.push(format!("  Data Path Port: {port}"));
        }
        if let Some(nanos) = swarm
            .pointer("/Cluster/Spec/Dispatcher/HeartbeatPeriod")
            .and_then(Value::as_i64)
        {
            lines.push(format!(
                "  Dispatcher:\n   Heartbeat Period: {}",
                go_duration(nanos)
            ));
        }
    }
    lines.push(format!("  Node Address: {}", text(swarm, "/NodeAddr")));
    let mut managers: Vec<&str> = swarm["RemoteManagers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| text(m, "/Addr"))
        .collect();
    managers.sort_unstable();
    if !managers.is_empty() {
        lines.push(format!(
            "  Manager Addresses:\n   {}",
            managers.join("\n   ")
        ));
    }
    lines
}

/// `version`. Without a daemon the client's part is printed before the failure.
pub async fn version(session: &Session, args: VersionArgs) -> Result<(), Failure> {
    let answer = async {
        let client = session.client().await?;
        Ok::<_, Failure>((
            client.version().to_owned(),
            client.get("/version").value().await?,
        ))
    }
    .await;
    let agreed = answer
        .as_ref()
        .map_or_else(|_| NEWEST.to_owned(), |(agreed, _)| agreed.clone());
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": agreed, "DefaultAPIVersion": NEWEST,
        "Os": std::env::consts::OS, "Arch": if cfg!(target_arch = "x86_64") { "amd64" } else { std::env::consts::ARCH },
    });
    if let Some(format) = args.format.as_deref().filter(|f| !f.is_empty()) {
        let server = answer
            .as_ref()
            .map_or(Value::Null, |(_, server)| server.clone());
        session.print(&render_one(
            &json!({"Client": client, "Server": server}),
            format,
        )?)?;
        return answer.map(drop);
    }
    session.print(&format!(
        "Client:\n Version:           {}\n API version:       {agreed}\n OS/Arch:           {}/{}\n",
        text(&client, "/Version"), text(&client, "/Os"), text(&client, "/Arch")
    ))?;
    let (_, server) = answer?;
    session.print(&format!(
        "\nServer:\n Version:          {}\n API version:      {} (minimum version {})\n OS/Arch:          {}/{}\n Kernel:           {}\n",
        text(&server, "/Version"), text(&server, "/ApiVersion"), text(&server, "/MinAPIVersion"),
        text(&server, "/Os"), text(&server, "/Arch"), text(&server, "/KernelVersion")
    ))
}
