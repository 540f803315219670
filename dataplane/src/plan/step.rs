//! The deeds, and the order in which they are carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    balance,
    desired::HostPort,
    ingress,
    rules::{Ruleset, TableName},
    view::{Bridge, Forwarding, Interface, Mac, Place, Port, Tunnel, Vxlan, Way},
};

/// One deed; [`Step::rank`] is its place in the order of carrying out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    DropTable {
        place: Place,
        table: TableName,
    },
    /// Unbinds a namespace that we made; its devices go by `DropPort`.
    DropSandbox(PathBuf),
    DropInterface {
        sandbox: PathBuf,
        name: String,
    },
    DropRoutes {
        sandbox: PathBuf,
        routes: BTreeSet<(IpAddr, String)>,
    },
    DropPort {
        place: Place,
        segment: String,
        port: String,
    },
    DropAddresses {
        segment: String,
        addresses: BTreeSet<IpNetwork>,
    },
    DropVxlan {
        segment: String,
    },
    DropBridge {
        place: Place,
        segment: String,
    },
    /// The namespace of an overlay network, with all that is in it.
    DropNamespace {
        segment: String,
    },
    SetForwarding(Forwarding),
    /// Lets our devices through Docker's firewall, or no more.
    SetPassage {
        ipv6: bool,
        open: bool,
    },
    /// The namespace of an overlay network, br_netfilter off.
    MakeNamespace {
        segment: String,
    },
    MakeBridge {
        place: Place,
        segment: String,
        bridge: Bridge,
    },
    SetBridge {
        place: Place,
        segment: String,
        bridge: Bridge,
    },
    MakeVxlan {
        segment: String,
        vxlan: Vxlan,
    },
    SetVxlan {
        segment: String,
        port: Port,
    },
    MakeSandbox {
        sandbox: PathBuf,
        id: String,
    },
    /// A veth pair whose far end is born in the sandbox.
    MakePair(Box<Pair>),
    SetPort {
        place: Place,
        segment: String,
        name: String,
        port: Port,
    },
    SetInterface {
        sandbox: PathBuf,
        name: String,
        interface: Interface,
    },
    SetRoutes {
        sandbox: PathBuf,
        routes: BTreeSet<(IpAddr, String)>,
    },
    SetEntries {
        segment: String,
        place: Place,
        entries: Entries,
    },
    DropEntries {
        segment: String,
        entries: Entries,
    },
    /// Replaces the whole table in one transaction.
    SetTable {
        place: Place,
        rules: Box<Ruleset>,
    },
    DropGateway {
        segment: String,
    },
    /// This host's own end on an ingress network.
    MakeGateway {
        segment: String,
        gateway: Interface,
    },
    SetGateway {
        segment: String,
        gateway: Interface,
    },
    /// Ends flows into `subnets` to tasks that no published port leads to any more, as far as
    /// they can begin anew; by [`crate::conntrack::place`] the tasks that one does lead to.
    CutPublished {
        allowed: BTreeMap<u32, BTreeSet<IpAddr>>,
        subnets: Vec<IpNetwork>,
    },
    /// Ports, tasks and hosts that come to the table of published ports or leave it, in one
    /// transaction. What is not held leads nowhere.
    SetPorts(Box<ingress::Change>),
    /// Keeps other programs from a published port.
    HoldPort(HostPort),
    FreePort(HostPort),
    /// The table of virtual IPs.
    DropBalance(PathBuf),
    /// Virtual IPs of a sandbox, in one transaction.
    SetBalance {
        sandbox: PathBuf,
        change: Box<balance::Change>,
    },
    /// Makes a WireGuard device, or brings the one that is there, with its process, to this.
    SetTunnel {
        device: String,
        tunnel: Tunnel,
        /// Where its datagrams leave from.
        local: IpAddr,
        /// Of the private key.
        key: PathBuf,
    },
    DropTunnel {
        device: String,
    },
    /// Routes that come or change, routes that go, and the rule.
    SetWay {
        ipv6: bool,
        set: Way,
        gone: BTreeSet<IpAddr>,
        /// A rule for another port that stands in its place.
        old: Option<u16>,
    },
    /// All of it.
    DropWay {
        ipv6: bool,
        way: Way,
    },
    /// Elements of one set of the host's table.
    SetElements {
        set: String,
        add: BTreeSet<Vec<u8>>,
        remove: BTreeSet<Vec<u8>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub place: Place,
    pub segment: String,
    pub name: String,
    pub port: Port,
    pub sandbox: PathBuf,
    pub inner: String,
    pub interface: Interface,
}

/// Rows of a segment's forwarding and neighbour tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    pub forwards: Vec<(Mac, IpAddr)>,
    pub locals: Vec<(Mac, String)>,
    pub neighbours: Vec<(IpAddr, Mac)>,
}

impl Entries {
    pub fn is_empty(&self) -> bool {
        self.forwards.is_empty() && self.locals.is_empty() && self.neighbours.is_empty()
    }

    pub fn len(&self) -> usize {
        self.forwards.len() + self.locals.len() + self.neighbours.len()
    }
}

impl Step {
    /// Place in the order of carrying out.
    pub fn rank(&self) -> u8 {
        match self {
            Self::DropTable { .. } | Self::DropBalance(_) | Self::FreePort(..) => 0,
            Self::DropRoutes { .. } => 1,
            Self::DropInterface { .. } => 3,
            Self::DropPort { .. } | Self::DropGateway { .. } => 4,
            Self::DropSandbox(_) => 5,
            Self::DropAddresses { .. } => 6,
            Self::DropVxlan { .. } => 7,
            Self::DropBridge { .. } => 8,
            Self::DropNamespace { .. } => 9,
            // After the last network that is led by it, and before the first.
            Self::DropWay { .. } => 10,
            Self::SetTunnel { .. } => 12,
            Self::SetWay { .. } => 13,
            Self::DropTunnel { .. } => 14,
            // A port that another program has leads nowhere.
            Self::HoldPort(..) => 19,
            // The filter stands before the first tunnel.
            Self::SetTable {
                place: Place::Host, ..
            } => 20,
            Self::SetElements { .. } => 21,
            Self::SetForwarding(_) | Self::SetPassage { .. } => 22,
            Self::MakeNamespace { .. } => 23,
            Self::MakeBridge { .. } => 24,
            Self::SetBridge { .. } => 25,
            Self::MakeVxlan { .. } => 26,
            Self::SetVxlan { .. } => 27,
            Self::MakeSandbox { .. } => 28,
            // Its chains hang on interfaces.
            Self::SetTable { rules, .. } if rules.name == TableName::Back => 38,
            Self::SetTable { .. } => 29,
            // Who is chosen can be reached, and nobody is chosen who cannot be reached any more;
            // and who may be reached is known before there is anyone to reach them.
            Self::SetEntries { entries, .. } if entries.locals.is_empty() => 29,
            Self::SetBalance { .. } | Self::SetPorts(_) => 30,
            Self::CutPublished { .. } => 31,
            Self::DropEntries { .. } => 32,
            Self::MakePair(_) | Self::MakeGateway { .. } => 33,
            Self::SetPort { .. } => 34,
            Self::SetEntries { .. } => 35,
            Self::SetInterface { .. } | Self::SetGateway { .. } => 36,
            Self::SetRoutes { .. } => 37,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is led to a task by a virtual IP or a port finds it, at any instant of a pass.
    #[test]
    fn only_who_can_be_reached_is_chosen() {
        let entries = || Entries {
            neighbours: vec![([10, 0, 0, 1].into(), Mac([2; 6]))],
            ..Entries::default()
        };
        let segment = || "n".to_owned();
        let come = Step::SetEntries {
            segment: segment(),
            place: Place::Host,
            entries: entries(),
        };
        let leave = Step::DropEntries {
            segment: segment(),
            entries: entries(),
        };
        let choices = [
            Step::SetBalance {
                sandbox: PathBuf::new(),
                change: Box::default(),
            },
            Step::SetPorts(Box::default()),
        ];
        for choice in choices {
            assert!(come.rank() < choice.rank(), "{choice:?}");
            assert!(choice.rank() < leave.rank(), "{choice:?}");
        }
    }
}
