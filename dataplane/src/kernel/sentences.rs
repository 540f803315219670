//! What a step is called when it fails, and whose failure it is.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    desired::{HostPort, Protocol},
    plan::Step,
    report::TUNNELS,
    view::{Place, bridge_name, gateway_name, vxlan_name},
};

pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn scope(step: &Step) -> String {
    let of_place = |place: &Place| match place {
        Place::Host => "host".to_owned(),
        Place::Overlay(tag) => tag.clone(),
        Place::Sandbox(sandbox) => path(sandbox),
    };
    match step {
        Step::DropTable { place, .. } | Step::SetTable { place, .. } => of_place(place),
        Step::MakePair(pair) => path(&pair.sandbox),
        Step::DropSandbox(sandbox)
        | Step::DropInterface { sandbox, .. }
        | Step::DropRoutes { sandbox, .. }
        | Step::MakeSandbox { sandbox, .. }
        | Step::SetInterface { sandbox, .. }
        | Step::SetRoutes { sandbox, .. }
        | Step::DropBalance(sandbox)
        | Step::SetBalance { sandbox, .. } => path(sandbox),
        Step::DropEntries { segment, .. }
        | Step::DropPort { segment, .. }
        | Step::DropAddresses { segment, .. }
        | Step::DropVxlan { segment }
        | Step::DropBridge { segment, .. }
        | Step::DropNamespace { segment }
        | Step::MakeNamespace { segment }
        | Step::MakeBridge { segment, .. }
        | Step::SetBridge { segment, .. }
        | Step::MakeVxlan { segment, .. }
        | Step::SetVxlan { segment, .. }
        | Step::SetPort { segment, .. }
        | Step::SetEntries { segment, .. }
        | Step::DropGateway { segment }
        | Step::MakeGateway { segment, .. }
        | Step::SetGateway { segment, .. } => segment.clone(),
        Step::SetForwarding(_)
        | Step::SetPassage { .. }
        | Step::SetElements { .. }
        | Step::CutPublished { .. }
        | Step::SetPorts(_)
        | Step::HoldPort(..)
        | Step::FreePort(..) => "host".to_owned(),
        Step::SetTunnel { .. }
        | Step::DropTunnel { .. }
        | Step::SetWay { .. }
        | Step::DropWay { .. } => TUNNELS.to_owned(),
    }
}

pub(super) fn what(step: &Step) -> String {
    let at = |sandbox: &PathBuf| sandbox.display().to_string();
    match step {
        Step::DropTable { table, .. } => format!("remove the nftables table {}", table.text()),
        Step::SetTable { rules, .. } => format!("write the nftables table {}", rules.name.text()),
        Step::DropGateway { segment } => format!("remove the gateway {}", gateway_name(segment)),
        Step::MakeGateway { segment, .. } => format!("make the gateway {}", gateway_name(segment)),
        Step::SetGateway { segment, .. } => format!("set the gateway {}", gateway_name(segment)),
        Step::CutPublished { .. } => "end flows to tasks that left".into(),
        Step::SetPorts(_) => "change the table of published ports".into(),
        Step::HoldPort(port) => format!("publish port {port}"),
        Step::FreePort(port) => format!("free port {port}"),
        Step::SetTunnel { device, tunnel, .. } => {
            format!(
                "set up the WireGuard device {device} (UDP port {})",
                tunnel.port
            )
        }
        Step::DropTunnel { device } => format!("remove the WireGuard device {device}"),
        Step::SetWay { .. } => "set the routes of encrypted networks".into(),
        Step::DropWay { .. } => "remove the routes of encrypted networks".into(),
        Step::SetElements { set, .. } => format!("change the nftables set {set}"),
        Step::DropSandbox(sandbox) => format!("unbind {}", at(sandbox)),
        Step::MakeSandbox { sandbox, .. } => format!("make the namespace {}", at(sandbox)),
        Step::DropInterface { name, .. } => format!("remove the interface {name}"),
        Step::DropRoutes { .. } => "remove a default route".into(),
        Step::SetRoutes { .. } => "set the default route".into(),
        Step::DropEntries { .. } => "remove forwarding or neighbour entries".into(),
        Step::SetEntries { .. } => "write forwarding or neighbour entries".into(),
        Step::DropPort { port, .. } => format!("remove the port {port}"),
        Step::DropAddresses { segment, .. } => {
            format!("remove addresses of {}", bridge_name(segment))
        }
        Step::DropVxlan { segment } => format!("remove {}", vxlan_name(segment)),
        Step::DropBridge { segment, .. } => format!("remove {}", bridge_name(segment)),
        Step::DropNamespace { .. } => "unbind the network's namespace".into(),
        Step::MakeNamespace { .. } => "make the network's namespace".into(),
        Step::SetForwarding(_) => "turn forwarding on".into(),
        Step::SetPassage { open: true, .. } => "open Docker's firewall for our networks".into(),
        Step::SetPassage { .. } => "take our rules out of Docker's firewall".into(),
        Step::MakeBridge { segment, .. } => format!("make the bridge {}", bridge_name(segment)),
        Step::SetBridge { segment, .. } => format!("set the bridge {}", bridge_name(segment)),
        Step::MakeVxlan { segment, vxlan } => format!(
            "make the VXLAN device {} (VNI {}, UDP port {}, local {})",
            vxlan_name(segment),
            vxlan.id,
            vxlan.udp_port,
            vxlan.local
        ),
        Step::SetVxlan { segment, .. } => format!("set the VXLAN device {}", vxlan_name(segment)),
        Step::SetPort { name, .. } => format!("set the port {name}"),
        Step::MakePair(pair) => format!("connect the interface {} ({})", pair.inner, pair.name),
        Step::SetInterface { name, .. } => format!("set the interface {name}"),
        Step::DropBalance(_) => "remove the rules of virtual IPs".into(),
        Step::SetBalance { .. } => "write the rules of virtual IPs".into(),
    }
}

pub(super) fn reason(step: &Step, error: &io::Error) -> String {
    match (step, error.raw_os_error()) {
        (Step::MakeVxlan { vxlan, .. }, Some(libc::EEXIST)) => format!(
            "VNI {} on UDP port {} is occupied by another VXLAN device of this host; find it with \
             `ip -d link show type vxlan` and remove it, or make the network with another VNI",
            vxlan.id, vxlan.udp_port
        ),
        (Step::MakeVxlan { vxlan, .. }, Some(libc::EADDRINUSE)) => format!(
            "UDP port {} is occupied by another program; find it with `ss -lunp`, or give the \
             cluster another data port",
            vxlan.udp_port
        ),
        (Step::HoldPort(port), _) => not_held(port, error),
        _ => error.to_string(),
    }
}

/// Why a port is not ours.
pub(super) fn not_held(port: &HostPort, error: &io::Error) -> String {
    let number = port.port;
    let flags = if port.protocol == Protocol::Udp {
        "-lunp"
    } else {
        "-ltnp"
    };
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            "it is already in use on this host; find the program with `ss {flags} sport = \
             :{number}` and end it, or publish another port than {port}"
        ),
        _ => error.to_string(),
    }
}
