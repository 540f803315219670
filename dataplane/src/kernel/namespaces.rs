//! Making and unmaking the namespaces of overlay networks and sandboxes.

use std::{io, path::Path};

use ipnetwork::IpNetwork;

use super::{
    deeds::{allow_absent, gone_is_fine, index, no_namespace},
    links,
    linux::Linux,
    place::{inside, open_or_make, set, unbind},
    sight,
};
use crate::{
    balance, firewall,
    plan::Pair,
    rules::TableName,
    view::{PORT, Place, is_guest},
};

impl Linux {
    pub(super) fn make_namespace(&mut self, segment: &str) -> io::Result<()> {
        let place = Place::Overlay(segment.to_owned());
        let namespace = open_or_make(&self.path(&place))?;
        inside(&namespace, || {
            // Frames of tenants are not the host's to filter; the module may be absent.
            for table in ["iptables", "ip6tables", "arptables"] {
                allow_absent(set(&format!("net/bridge/bridge-nf-call-{table}"), "0"))?;
            }
            // The bridge answers for others and has no address of its own.
            allow_absent(set("net/ipv6/conf/default/addr_gen_mode", "1"))?;
            quiet_ipv6()
        })?;
        self.space(&place)?.ok_or_else(no_namespace)?;
        Ok(())
    }

    /// The kernel ends a namespace some time after its last user; the VNI and the containers'
    /// interfaces are to be free at once.
    pub(super) fn drop_namespace(&mut self, segment: &str) -> io::Result<()> {
        let place = Place::Overlay(segment.to_owned());
        if let Some(space) = self.space(&place)? {
            let route = &mut space.sockets.route;
            let sight = sight::look(route, false, false)?;
            for link in sight.links.values() {
                if link.kind == "vxlan" || link.kind == "veth" {
                    gone_is_fine(route.request(links::delete_link(&link.name)))?;
                }
            }
        }
        self.overlays.remove(segment);
        unbind(&self.path(&place))
    }

    pub(super) fn make_sandbox(&mut self, sandbox: &Path) -> io::Result<()> {
        if !is_guest(sandbox) {
            inside(open_or_make(sandbox)?, quiet_ipv6)?;
        }
        let route = self.route(&Place::Sandbox(sandbox.to_owned()))?;
        let loopback = index(route, "lo")?;
        route.request(links::set_link(loopback, None, None, None))
    }

    /// A guest's settings are its own, but for those of the interface that it gets: one of a
    /// namespace without IPv6 takes no address of it.
    pub(super) fn open_guest(&mut self, pair: &Pair) -> io::Result<()> {
        if !pair.interface.addresses.iter().any(IpNetwork::is_ipv6) {
            return Ok(());
        }
        let place = Place::Sandbox(pair.sandbox.clone());
        let space = self.space(&place)?.ok_or_else(no_namespace)?;
        inside(&space.namespace, || {
            let settings = [("disable_ipv6", "0"), ("accept_ra", "0")];
            settings.iter().try_for_each(|(name, value)| {
                allow_absent(set(&format!("net/ipv6/conf/{}/{name}", pair.inner), value))
            })
        })
    }

    /// Takes all that is ours out of a namespace that lives on without us.
    pub(super) fn leave_guest(&mut self, sandbox: &Path) -> io::Result<()> {
        let place = Place::Sandbox(sandbox.to_owned());
        let Some(space) = self.space(&place)? else {
            return Ok(());
        };
        let route = &mut space.sockets.route;
        let sight = sight::look(route, false, false)?;
        let ours = |link: &&sight::Link| link.kind == "veth" && link.alias.starts_with(PORT);
        for link in sight.links.values().filter(ours) {
            gone_is_fine(route.request(links::delete_link(&link.name)))?;
        }
        let nft = self.nft(&place)?;
        for table in [TableName::Overnet, TableName::Ingress, TableName::Back] {
            firewall::remove(nft, table)?;
        }
        balance::nft::remove(nft)
    }
}

/// In namespaces of ours nobody advertises and addresses are unique by the leader's word.
fn quiet_ipv6() -> io::Result<()> {
    for name in ["accept_ra", "accept_dad"] {
        for scope in ["all", "default"] {
            allow_absent(set(&format!("net/ipv6/conf/{scope}/{name}"), "0"))?;
        }
    }
    Ok(())
}
