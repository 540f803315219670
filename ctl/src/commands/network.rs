//! `network create`, `ls`, `inspect`, `rm`, `prune`, `connect`, `disconnect`.

use clap::{Args, Subcommand};
use ipnet::Net;
use serde_json::{Map, Value, json};

use super::network_attach::{self, AttachArgs, DetachArgs};
use super::network_check::{self, CheckArgs};
use super::{ListFlags, joined_pairs, natural_key, text};
use crate::failure::Failure;
use crate::flags::network::Attachment;
use crate::flags::{Filters, pairs, strict_pairs};
use crate::output::Listing;
use crate::output::table::short_id;
use crate::session::Session;

/// Manage networks
#[derive(Subcommand, Debug)]
pub enum NetworkCommand {
    Attach(AttachArgs),
    Check(CheckArgs),
    Connect(ConnectArgs),
    Create(Box<CreateArgs>),
    Detach(DetachArgs),
    Disconnect(DisconnectArgs),
    Inspect(InspectArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(PruneArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Create a network
///
/// Without --driver it is one of this host alone. With --driver overlay it spans all hosts of the
/// cluster; --attachable lets plain containers join it.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl network create front\n  ovnctl network create --driver overlay --attachable ch03\n  ovnctl network create -d overlay --attachable --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ipv6 front"
)]
pub struct CreateArgs {
    /// Let plain containers attach
    #[arg(long)]
    attachable: bool,
    /// Address to keep free, with a name
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Network to take the configuration from
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    /// Make a network that only holds a configuration
    #[arg(long)]
    config_only: bool,
    /// overlay (all hosts) or bridge (this host)
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Gateway of a subnet
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Make it the network of published ports
    #[arg(long)]
    ingress: bool,
    /// No way to the outside
    #[arg(long)]
    internal: bool,
    /// Give containers addresses of this part of a subnet
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Driver of addresses
    #[arg(long, value_name = "NAME", default_value = "default")]
    ipam_driver: String,
    /// Option of the driver of addresses
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// Give containers IPv4 addresses (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::flags::boolean)]
    ipv4: Option<bool>,
    /// Give containers IPv6 addresses too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::flags::boolean)]
    ipv6: Option<bool>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Option of the driver, such as com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// local or swarm
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Subnet; repeatable, one IPv4 and one IPv6
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// List networks
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl network ls\n  ovnctl network ls --filter driver=overlay -q"
)]
pub struct LsArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
}

/// Show everything known of networks
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl network inspect ch03\n  ovnctl network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' ch03"
)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the endpoints on all hosts
    #[arg(short, long)]
    verbose: bool,
    /// Names or ids of networks
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove networks
///
/// A network in use is not removed; the answer names who uses it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl network rm ch03")]
pub struct RmArgs {
    /// A network that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Names or ids of networks
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove all networks that nothing uses
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl network prune --filter until=24h")]
pub struct PruneArgs {
    /// Only those that fit: until=24h, label=…
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Attach a container to a network
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl network connect --alias db ch03 postgres")]
pub struct ConnectArgs {
    /// Further name of the container on the network
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    alias: Vec<String>,
    /// Option of the driver
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    driver_opt: Vec<String>,
    /// The network with the highest number gives the default route
    #[arg(long, value_name = "N")]
    gw_priority: Option<i64>,
    /// Fixed IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Fixed IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<String>,
    /// Name another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// Link-local address
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    link_local_ip: Vec<String>,
    /// Network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Detach a container from a network
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl network disconnect ch03 postgres")]
pub struct DisconnectArgs {
    /// Detach even a container that is gone
    #[arg(short, long)]
    force: bool,
    /// Network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// The columns of `network ls`.
pub const NETWORKS: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    quiet: "{{.ID}}",
};

/// Runs one of them.
pub async fn run(session: &Session, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Attach(args) => network_attach::attach(session, args).await,
        NetworkCommand::Detach(args) => network_attach::detach(session, args).await,
        NetworkCommand::Check(args) => network_check::check(session, args).await,
        NetworkCommand::Connect(args) => connect(session, args).await,
        NetworkCommand::Create(args) => create(session, *args).await,
        NetworkCommand::Disconnect(args) => {
            let body = json!({"Container": args.container, "Force": args.force});
            let client = session.client().await?;
            Ok(client
                .post(format!("/networks/{}/disconnect", args.network))
                .json(&body)
                .done()
                .await?)
        }
        NetworkCommand::Inspect(args) => {
            let client = session.client().await?;
            super::inspect::print_all(
                session,
                &args.networks,
                args.format.as_deref(),
                async |name| {
                    let call = client.get(format!("/networks/{name}"));
                    let call = if args.verbose {
                        call.query("verbose", "true")
                    } else {
                        call
                    };
                    Ok(call.value().await?)
                },
            )
            .await
        }
        NetworkCommand::Ls(args) => ls(session, args).await,
        NetworkCommand::Prune(args) => prune(session, args).await,
        NetworkCommand::Rm(args) => rm(session, args).await,
    }
}

impl CreateArgs {
    /// The body of `POST /networks/create`.
    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({
            "Name": self.name,
            "Driver": if self.config_from.is_some() && self.driver == "bridge" { "" } else { &self.driver },
            "Scope": self.scope.clone().unwrap_or_default(),
            "IPAM": {
                "Driver": self.ipam_driver,
                "Options": strict_pairs("--ipam-opt", &self.ipam_opt)?,
                "Config": ipam(&self.subnet, &self.ip_range, &self.gateway, &self.aux_address)?,
            },
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": self.ingress,
            "ConfigOnly": self.config_only,
            "ConfigFrom": self.config_from.as_ref().map_or(Value::Null, |n| json!({"Network": n})),
            "Options": pairs(&self.opt),
            "Labels": pairs(&self.label),
        });
        if let Some(on) = self.ipv4 {
            body["EnableIPv4"] = json!(on);
        }
        if let Some(on) = self.ipv6 {
            body["EnableIPv6"] = json!(on);
        }
        Ok(body)
    }
}

/// Finds each range, gateway and reserved address its subnet.
fn ipam(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    reserved: &[String],
) -> Result<Value, String> {
    let mut nets: Vec<(Net, Map<String, Value>)> = Vec::new();
    for text in subnets {
        let net = Net::parse(text)
            .ok_or_else(|| format!("--subnet {text:?} is not of the form ADDRESS/BITS"))?;
        if let Some((other, _)) = nets.iter().find(|(other, _)| other.overlaps(&net)) {
            return Err(format!("--subnet {text}: it overlaps with {}", other.text));
        }
        nets.push((net, Map::from_iter([("Subnet".to_owned(), json!(text))])));
    }
    let place = |nets: &mut Vec<(Net, Map<String, Value>)>,
                 flag: &str,
                 text: &str,
                 address: std::net::IpAddr| {
        nets.iter_mut()
            .find(|(net, _)| net.contains(address))
            .map(|(_, config)| std::mem::take(config))
            .ok_or_else(|| format!("{flag} {text}: no --subnet contains it"))
    };
    for (flag, field, texts) in [
        ("--ip-range", "IPRange", ranges),
        ("--gateway", "Gateway", gateways),
    ] {
        for text in texts {
            let address = if field == "IPRange" {
                Net::parse(text).map(|n| n.address)
            } else {
                text.parse().ok()
            };
            let address = address.ok_or_else(|| format!("{flag} {text:?} cannot be read"))?;
            let mut config = place(&mut nets, flag, text, address)?;
            if config.insert(field.to_owned(), json!(text)).is_some() {
                return Err(format!("{flag} {text}: its subnet has one already"));
            }
            put_back(&mut nets, address, config);
        }
    }
    for pair in reserved {
        let address = pair
            .split_once('=')
            .and_then(|(name, ip)| Some((name, ip, ip.parse().ok()?)));
        let Some((name, ip, address)) = address else {
            return Err(format!("--aux-address {pair:?} is not of the form NAME=IP"));
        };
        let mut config = place(&mut nets, "--aux-address", ip, address)?;
        let map = config
            .entry("AuxiliaryAddresses")
            .or_insert_with(|| json!({}));
        map[name] = json!(ip);
        put_back(&mut nets, address, config);
    }
    Ok(Value::Array(
        nets.into_iter()
            .map(|(_, config)| Value::Object(config))
            .collect(),
    ))
}

fn put_back(
    nets: &mut [(Net, Map<String, Value>)],
    address: std::net::IpAddr,
    config: Map<String, Value>,
) {
    if let Some((_, slot)) = nets.iter_mut().find(|(net, _)| net.contains(address)) {
        *slot = config;
    }
}

mod ipnet {
    use std::net::IpAddr;

    /// An address range as written.
    pub struct Net {
        pub text: String,
        pub address: IpAddr,
        bits: u32,
    }

    fn number(address: IpAddr) -> (u128, u32) {
        match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        }
    }

    impl Net {
        /// Reads `10.0.0.0/24`.
        pub fn parse(text: &str) -> Option<Self> {
            let (address, bits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let bits = bits
                .parse::<u32>()
                .ok()
                .filter(|bits| *bits <= number(address).1)?;
            Some(Self {
                text: text.to_owned(),
                address,
                bits,
            })
        }

        /// True when the address lies in it.
        pub fn contains(&self, other: IpAddr) -> bool {
            let ((own, width), (other, other_width)) = (number(self.address), number(other));
            let mask = if self.bits == 0 {
                0
            } else {
                u128::MAX << (128 - self.bits)
            };
            width == other_width && own & mask == other & mask
        }

        /// True when the two share an address.
        pub fn overlaps(&self, other: &Self) -> bool {
            self.contains(other.address) || other.contains(self.address)
        }
    }
}

async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let body = args.body()?;
    let answer = session
        .client()
        .await?
        .post("/networks/create")
        .json(&body)
        .value()
        .await?;
    if let Some(warning) = answer["Warning"].as_str().filter(|w| !w.is_empty()) {
        session.note(&format!("WARNING: {warning}"));
    }
    session.line(text(&answer, "/Id"))
}

/// The rows of `network ls`, sorted by name as people count.
pub fn rows(networks: &Value, whole: bool) -> Vec<Value> {
    let mut networks: Vec<&Value> = networks.as_array().into_iter().flatten().collect();
    networks.sort_by_cached_key(|network| natural_key(text(network, "/Name")));
    networks
        .into_iter()
        .map(|network| {
            let id = text(network, "/Id");
            let flag =
                |name: &str, absent: bool| network[name].as_bool().unwrap_or(absent).to_string();
            json!({
                "ID": if whole { id } else { short_id(id) },
                "Name": text(network, "/Name"),
                "Driver": text(network, "/Driver"),
                "Scope": text(network, "/Scope"),
                "IPv4": flag("EnableIPv4", true),
                "IPv6": flag("EnableIPv6", false),
                "Internal": flag("Internal", false),
                "Labels": joined_pairs(network.get("Labels")),
                "CreatedAt": text(network, "/Created"),
            })
        })
        .collect()
}

async fn ls(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.list.filter)?;
    let networks = session
        .client()
        .await?
        .get("/networks")
        .filters(&filters)
        .value()
        .await?;
    let format = session.format(
        args.list.format.as_deref(),
        "networksFormat",
        args.list.quiet,
    )?;
    let rows = rows(&networks, args.no_trunc);
    session.print(&NETWORKS.render(&rows, format.as_deref(), args.list.quiet)?)
}

async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.networks, async |name| {
            let network = match client.get(format!("/networks/{name}")).value().await.map_err(Failure::from) {
                Err(failure) if args.force && failure.is_not_found() => return Ok(String::new()),
                other => other?,
            };
            if network["Ingress"].as_bool().unwrap_or(false) {
                let question = "WARNING! Without its routing-mesh network the swarm publishes no ports; services \
                                that do would stop being reachable. Are you sure you want to continue?";
                if !session.confirm(question).await? {
                    return Ok(String::new());
                }
            }
            client.delete(format!("/networks/{name}")).done().await?;
            Ok(name.to_owned())
        })
        .await
}

async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?";
    if !args.force && !session.confirm(question).await? {
        return Err(Failure::new("network prune has been cancelled"));
    }
    let answer = session
        .client()
        .await?
        .post("/networks/prune")
        .filters(&filters)
        .value()
        .await?;
    let names: Vec<&str> = answer["NetworksDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if names.is_empty() {
        Ok(())
    } else {
        session.line(&format!("Deleted Networks:\n{}\n", names.join("\n")))
    }
}

async fn connect(session: &Session, args: ConnectArgs) -> Result<(), Failure> {
    let attachment = Attachment {
        network: args.network.clone(),
        aliases: args.alias,
        ip: args.ip,
        ip6: args.ip6,
        link_local: args.link_local_ip,
        mac: None,
        driver_options: pairs(&args.driver_opt)
            .as_object()
            .cloned()
            .unwrap_or_default(),
        gateway_priority: args.gw_priority,
        links: args.link,
    };
    let body = json!({"Container": args.container, "EndpointConfig": attachment.endpoint().unwrap_or_else(|| json!({}))});
    Ok(session
        .client()
        .await?
        .post(format!("/networks/{}/connect", args.network))
        .json(&body)
        .done()
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn addresses_find_their_subnet() {
        let both = strings(&["10.9.0.0/24", "fd00::/64"]);
        let config = ipam(
            &both,
            &strings(&["10.9.0.128/25"]),
            &strings(&["fd00::1", "10.9.0.1"]),
            &strings(&["a=10.9.0.5", "b=10.9.0.6"]),
        );
        assert_eq!(
            config.unwrap(),
            json!([
                {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.1",
                 "AuxiliaryAddresses": {"a": "10.9.0.5", "b": "10.9.0.6"}},
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"}])
        );
        let bad: [(&[&str], &[&str], &[&str]); 6] = [
            (&["10.0.0.0"], &[], &[]),
            (&["10.0.0.0/33"], &[], &[]),
            (&["10.0.0.0/24", "10.0.0.128/25"], &[], &[]),
            (&["10.0.0.0/24"], &["10.0.1.0/25"], &[]),
            (&["10.0.0.0/24"], &[], &["10.0.1.1"]),
            (&[], &[], &["10.0.1.1"]),
        ];
        for (subnets, ranges, gateways) in bad {
            assert!(
                ipam(&strings(subnets), &strings(ranges), &strings(gateways), &[]).is_err(),
                "{subnets:?}"
            );
        }
    }

    #[test]
    fn the_table() {
        let networks = json!([
            {"Id": "0123456789abcdef", "Name": "ch10", "Driver": "overlay", "Scope": "swarm", "Labels": {"b": "2", "a": "1"}},
            {"Id": "fedcba9876543210", "Name": "ch9", "Driver": "overlay", "Scope": "swarm"},
            {"Id": "aaaaaaaaaaaaaaaa", "Name": "网络", "Driver": "bridge", "Scope": "local", "EnableIPv6": true},
        ]);
        let table = |format| {
            NETWORKS
                .render(&rows(&networks, false), format, false)
                .unwrap()
        };
        insta::assert_snapshot!(table(None), @r"
        NETWORK ID     NAME      DRIVER    SCOPE
        fedcba987654   ch9       overlay   swarm
        0123456789ab   ch10      overlay   swarm
        aaaaaaaaaaaa   网络      bridge    local
        ");
        insta::assert_snapshot!(table(Some("table {{.Name}}\t{{.IPv6}}\t{{.Labels}}")), @r"
        NAME      IPV6      LABELS
        ch9       false     
        ch10      false     a=1,b=2
        网络      true      
        ");
    }
}
