//! `start`, `stop`, `restart`, `kill`, `rm`, `wait`, `rename`, `pause`, `unpause`, `top`, `port`, `update`, `attach`.

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::text;
use crate::attach::{Ended, Resized, Wiring, exit_status, follow_size, forward_signals, pump};
use crate::failure::Failure;
use crate::flags::{Filters, resource, restart_policy};
use crate::output::units::{parse_memory, size};
use crate::session::Session;
use crate::terminal::DetachKeys;

/// Start containers
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl start api\n  ovnctl start -ai shell")]
pub struct StartArgs {
    /// Show what it writes and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Keys that detach (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Connect to a running container's streams
///
/// The detach keys give the terminal back and leave it running.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl attach shell")]
pub struct AttachArgs {
    /// Keys that detach (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass the signals this program gets on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Stop containers: the stop signal, then a kill when the time is over
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl stop -t 30 api")]
pub struct StopArgs {
    /// Signal to send in place of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds until the kill; -1 waits for ever
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS")]
    timeout: Option<i64>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Kill containers, or send them a signal
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl kill -s HUP api")]
pub struct KillArgs {
    /// Signal to send (default KILL)
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Remove containers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl rm -f api")]
pub struct RmArgs {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Remove only the link of that name
    #[arg(short, long)]
    link: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Containers by name, without flags.
#[derive(Args, Debug)]
pub struct NamesArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Give a container another name
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl rename api api-old")]
pub struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// New name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

/// Show a container's processes
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl top api\n  ovnctl top api -o pid,rss,args")]
pub struct TopArgs {
    /// Name or id, then options of ps
    #[arg(
        value_name = "CONTAINER [PS OPTIONS]",
        trailing_var_arg = true,
        required = true
    )]
    container_and_options: Vec<String>,
}

/// Show a container's published ports
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl port api 8080/tcp")]
pub struct PortArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Change limits and the restart policy of containers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl update --memory 512m --cpus 1.5 api")]
pub struct UpdateArgs {
    /// Relative weight of access to disks, from 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<i64>,
    /// Length of a period of processor time in microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<i64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "N")]
    cpu_quota: Option<i64>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Relative weight of processor time
    #[arg(short = 'c', long, value_name = "N")]
    cpu_shares: Option<i64>,
    /// Processors to run on
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE")]
    memory_swap: Option<String>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// Restart policy
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Remove all containers that do not run
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl container prune -f --filter until=24h")]
pub struct PruneArgs {
    /// Only those that fit: until=24h, label=…
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// `start`.
pub async fn start(session: &Session, args: StartArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    if !args.attach && !args.interactive {
        return session
            .each(&args.containers, async |name| {
                client
                    .post(format!("/containers/{name}/start"))
                    .maybe("detachKeys", args.detach_keys.as_deref())
                    .done()
                    .await?;
                Ok(name.to_owned())
            })
            .await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new(
            "only one container can be started with --attach or --interactive",
        ));
    };
    connect(
        session,
        name,
        args.interactive,
        true,
        args.detach_keys.as_deref(),
        true,
    )
    .await
}

/// `attach`.
pub async fn attach(session: &Session, args: AttachArgs) -> Result<(), Failure> {
    connect(
        session,
        &args.container,
        !args.no_stdin,
        args.sig_proxy,
        args.detach_keys.as_deref(),
        false,
    )
    .await
}

/// Attaches to a container, starting it first if asked, and ends with its exit status.
async fn connect(
    session: &Session,
    name: &str,
    input: bool,
    proxy: bool,
    detach_keys: Option<&str>,
    starts: bool,
) -> Result<(), Failure> {
    let keys = DetachKeys::parse(detach_keys.unwrap_or_default())?;
    let client = session.client().await?;
    let container = client
        .get(format!("/containers/{name}/json"))
        .value()
        .await?;
    let id = text(&container, "/Id").to_owned();
    let is = |pointer: &str| {
        container
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    };
    if !starts {
        if !is("/State/Running") {
            return Err(Failure::new(
                "You cannot attach to a stopped container, start it first",
            ));
        }
        if is("/State/Paused") {
            return Err(Failure::new(
                "You cannot attach to a paused container, unpause it first",
            ));
        }
    }
    let tty = is("/Config/Tty");
    let input = input && is("/Config/OpenStdin");
    if tty && input && !session.io.input_is_terminal && !starts {
        return Err(Failure::new(
            "the input device is not a TTY: use --no-stdin to only watch",
        ));
    }
    let mut tasks = JoinSet::new();
    if proxy && !tty {
        forward_signals(session, client, &id, &mut tasks);
    }
    let stream = client
        .post(format!("/containers/{id}/attach"))
        .flag("stream", true)
        .flag("stdin", input)
        .flag("stdout", true)
        .flag("stderr", true)
        .maybe("detachKeys", detach_keys)
        .hijack()
        .await?;
    let condition = match (starts, is("/HostConfig/AutoRemove")) {
        (true, true) => "removed",
        (true, false) => "next-exit",
        (false, _) => "not-running",
    };
    let waiting = client
        .post(format!("/containers/{id}/wait"))
        .query("condition", condition)
        .values()
        .await?;
    if starts {
        client
            .post(format!("/containers/{id}/start"))
            .done()
            .await?;
    }
    if tty && session.io.output_is_terminal {
        follow_size(client, Resized::Container(id), &mut tasks);
    }
    if pump(session, stream, &Wiring { tty, input, keys }).await? == Ended::Detached {
        session.note("\r\nread escape sequence");
        return Ok(());
    }
    match exit_status(waiting).await? {
        0 => Ok(()),
        status => Err(Failure::silent(status)),
    }
}

/// `stop` and `restart`.
pub async fn stop(session: &Session, args: StopArgs, verb: &str) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            client
                .post(format!("/containers/{name}/{verb}"))
                .maybe("signal", args.signal.as_deref())
                .maybe("t", args.timeout)
                .done()
                .await?;
            Ok(name.to_owned())
        })
        .await
}

/// `kill`.
pub async fn kill(session: &Session, args: KillArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            client
                .post(format!("/containers/{name}/kill"))
                .maybe("signal", args.signal.as_deref())
                .done()
                .await?;
            Ok(name.to_owned())
        })
        .await
}

/// `rm`.
pub async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            let name = name.trim_matches('/');
            let removed = client
                .delete(format!("/containers/{name}"))
                .flag("force", args.force)
                .flag("link", args.link)
                .flag("v", args.volumes)
                .done()
                .await
                .map_err(Failure::from);
            match removed {
                // As with rm(1), force makes absence no error.
                Err(failure) if args.force && failure.is_not_found() => {
                    session.note(failure.text());
                    Ok(String::new())
                }
                other => other.map(|()| name.to_owned()),
            }
        })
        .await
}

/// `pause` and `unpause`.
pub async fn plain(session: &Session, args: NamesArgs, verb: &str) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            client
                .post(format!("/containers/{name}/{verb}"))
                .done()
                .await?;
            Ok(name.to_owned())
        })
        .await
}

/// `wait`: prints each exit status.
pub async fn wait(session: &Session, args: NamesArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            let waiting = client
                .post(format!("/containers/{name}/wait"))
                .values()
                .await?;
            Ok(exit_status(waiting).await?.to_string())
        })
        .await
}

/// `rename`.
pub async fn rename(session: &Session, args: RenameArgs) -> Result<(), Failure> {
    if args.name.trim().is_empty() {
        return Err(Failure::new("the new name must not be empty"));
    }
    let client = session.client().await?;
    Ok(client
        .post(format!("/containers/{}/rename", args.container))
        .query("name", args.name)
        .done()
        .await?)
}

/// `top`.
pub async fn top(session: &Session, args: TopArgs) -> Result<(), Failure> {
    let Some((container, options)) = args.container_and_options.split_first() else {
        return Ok(());
    };
    let client = session.client().await?;
    let options = (!options.is_empty()).then(|| options.join(" "));
    let answer = client
        .get(format!("/containers/{container}/top"))
        .maybe("ps_args", options)
        .value()
        .await?;
    session.print(&super::exec::process_table(&answer))
}

/// `port`.
pub async fn port(session: &Session, args: PortArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let container = client
        .get(format!("/containers/{}/json", args.container))
        .value()
        .await?;
    let wanted = args.port.map(|p| {
        if p.contains('/') {
            p
        } else {
            format!("{p}/tcp")
        }
    });
    let lines = port_lines(
        container
            .pointer("/NetworkSettings/Ports")
            .unwrap_or(&Value::Null),
        wanted.as_deref(),
    );
    if let Some(wanted) = wanted.filter(|_| lines.is_empty()) {
        return Err(Failure::new(format!(
            "no public port {wanted:?} published for {}",
            args.container
        )));
    }
    for line in lines {
        session.line(&line)?;
    }
    Ok(())
}

fn port_lines(ports: &Value, wanted: Option<&str>) -> Vec<String> {
    let mut entries: Vec<_> = ports.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| super::natural_key(key));
    let mut lines = Vec::new();
    for (key, bindings) in entries {
        if wanted.is_some_and(|w| w != key) {
            continue;
        }
        for binding in bindings.as_array().into_iter().flatten() {
            let (ip, host) = (text(binding, "/HostIp"), text(binding, "/HostPort"));
            let address = if ip.contains(':') {
                format!("[{ip}]:{host}")
            } else {
                format!("{ip}:{host}")
            };
            lines.push(if wanted.is_some() {
                address
            } else {
                format!("{key} -> {address}")
            });
        }
    }
    lines
}

impl UpdateArgs {
    /// The body of `POST /containers/{id}/update`.
    fn body(&self) -> Result<Value, String> {
        let mut body = Map::new();
        if let Some(cpus) = &self.cpus {
            body.insert("NanoCpus".to_owned(), json!(resource::cpus(cpus)?));
        }
        for (name, number) in [
            ("BlkioWeight", self.blkio_weight),
            ("CpuPeriod", self.cpu_period),
            ("CpuQuota", self.cpu_quota),
            ("CpuShares", self.cpu_shares),
            ("PidsLimit", self.pids_limit),
        ] {
            if let Some(number) = number {
                body.insert(name.to_owned(), json!(number));
            }
        }
        for (name, list) in [
            ("CpusetCpus", &self.cpuset_cpus),
            ("CpusetMems", &self.cpuset_mems),
        ] {
            if let Some(list) = list {
                body.insert(name.to_owned(), json!(list));
            }
        }
        for (name, size) in [
            ("Memory", &self.memory),
            ("MemoryReservation", &self.memory_reservation),
        ] {
            if let Some(size) = size {
                body.insert(name.to_owned(), json!(parse_memory(size)?));
            }
        }
        if let Some(swap) = &self.memory_swap {
            body.insert("MemorySwap".to_owned(), json!(resource::swap(swap)?));
        }
        if let Some(policy) = &self.restart {
            body.insert("RestartPolicy".to_owned(), restart_policy(policy)?);
        }
        if body.is_empty() {
            Err("nothing to change: give at least one flag".to_owned())
        } else {
            Ok(Value::Object(body))
        }
    }
}

/// `update`.
pub async fn update(session: &Session, args: UpdateArgs) -> Result<(), Failure> {
    let body = args.body()?;
    let client = session.client().await?;
    session
        .each(&args.containers, async |name| {
            let answer = client
                .post(format!("/containers/{name}/update"))
                .json(&body)
                .value()
                .await?;
            for warning in answer["Warnings"].as_array().into_iter().flatten() {
                session.note(&format!(
                    "WARNING: {}",
                    warning.as_str().unwrap_or_default()
                ));
            }
            Ok(name.to_owned())
        })
        .await
}

/// `container prune`.
pub async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let question =
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    if !args.force && !session.confirm(question).await? {
        return Err(Failure::new("container prune has been cancelled"));
    }
    let answer = session
        .client()
        .await?
        .post("/containers/prune")
        .filters(&filters)
        .value()
        .await?;
    let ids: Vec<&str> = answer["ContainersDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !ids.is_empty() {
        session.line(&format!("Deleted Containers:\n{}\n", ids.join("\n")))?;
    }
    session.line(&format!(
        "Total reclaimed space: {}",
        size(answer["SpaceReclaimed"].as_f64().unwrap_or(0.0))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports() {
        let ports = json!({"9000/tcp": null, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]});
        assert_eq!(
            port_lines(&ports, None),
            ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
        );
        assert_eq!(
            port_lines(&ports, Some("80/tcp")),
            ["0.0.0.0:8080", "[::]:8080"]
        );
        assert!(port_lines(&ports, Some("9000/tcp")).is_empty());
    }
}
