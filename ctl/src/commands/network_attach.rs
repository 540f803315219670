//! `network attach` and `detach`: network namespaces that are no container's of the daemon.

use std::path::PathBuf;

use api::attachment::AttachRequest;
use clap::Args;
use serde_json::{Value, json};

use super::text;
use crate::client::ClientError;
use crate::failure::Failure;
use crate::session::Session;

/// Which namespace.
#[derive(Args, Debug)]
pub struct Handle {
    /// File that the network namespace is bound at, as ip-netns binds it at /run/netns/NAME
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "pid",
        conflicts_with = "pid"
    )]
    netns: Option<PathBuf>,
    /// Process in the network namespace; it stays attached until the process ends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
}

impl Handle {
    /// As the daemon finds it.
    fn path(&self, session: &Session) -> String {
        let path = match (&self.netns, self.pid) {
            (Some(path), _) => session.surroundings.directory.join(path),
            (None, pid) => PathBuf::from(format!("/proc/{}/ns/net", pid.unwrap_or_default())),
        };
        path.display().to_string()
    }
}

/// Attach another program's network namespace to an overlay network
///
/// For a systemd unit, another engine's container or a virtual machine: the namespace gets an interface with
/// an address of the network, and its name is known on the network like a container's. Printed are the interface
/// and its addresses. The name server of the network is 127.0.0.11 in the namespace. It is detached by `network
/// detach`, or when its owner takes the namespace away.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ip netns add web\n  ovnctl network attach --netns /run/netns/web --name web ch03\n  ovnctl network attach --pid 4711 --name db --ip 10.0.1.9 --gateway ch03"
)]
pub struct AttachArgs {
    /// Further name on the network
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    alias: Vec<String>,
    /// Give it a way out of the network too, with a default route
    #[arg(long)]
    gateway: bool,
    /// Name of the interface; otherwise the next free one of eth0, eth1, …
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Fixed IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Fixed IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<String>,
    /// Name on the network; otherwise that of the file, or pid-N
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    handle: Handle,
    /// Attachable overlay network
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// Detach another program's network namespace from an overlay network
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl network detach --netns /run/netns/web ch03")]
pub struct DetachArgs {
    #[command(flatten)]
    handle: Handle,
    /// Overlay network
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// `network attach`.
pub async fn attach(session: &Session, args: AttachArgs) -> Result<(), Failure> {
    let request = AttachRequest {
        netns: args.handle.path(session),
        network: args.network,
        name: args.name.unwrap_or_default(),
        aliases: args.alias,
        ip_addresses: args.ip.into_iter().chain(args.ip6).collect(),
        interface: args.interface.unwrap_or_default(),
        gateway: args.gateway,
        owner: String::new(),
    };
    let client = session.client().await?;
    let call = client.post("/overnet/attachments").json(&json!(request));
    let answer = call.value().await.map_err(told)?;
    for host in answer["Late"].as_array().into_iter().flatten() {
        let host = host.as_str().unwrap_or_default();
        session.note(&format!("WARNING: {host} does not know the address yet"));
    }
    let addresses = answer["IPAddresses"].as_array().into_iter().flatten();
    for address in addresses.filter_map(Value::as_str) {
        session.line(&format!("{} {address}", text(&answer, "/Interface")))?;
    }
    Ok(())
}

/// `network detach`.
pub async fn detach(session: &Session, args: DetachArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let call = client
        .delete("/overnet/attachments")
        .query("netns", args.handle.path(session))
        .query("network", args.network);
    call.done().await.map_err(told)
}

/// A daemon that has no such page has no word for it either.
fn told(error: ClientError) -> Failure {
    let failure = Failure::from(error);
    if failure.is_not_found() && failure.text().contains("page not found") {
        return Failure::new("this daemon attaches no namespaces: it is not ovnd, or an older one");
    }
    failure
}
