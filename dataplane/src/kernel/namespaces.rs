//! Making and unmaking the namespaces of overlay networks and sandboxes.

use std::{io, path::Path};

use super::{
    deeds::{allow_absent, gone_is_fine, index, no_namespace},
    links,
    linux::Linux,
    place::{inside, open_or_make, set, unbind},
    sight,
};
use crate::view::Place;

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
        let namespace = open_or_make(sandbox)?;
        inside(&namespace, quiet_ipv6)?;
        let route = self.route(&Place::Sandbox(sandbox.to_owned()))?;
        let loopback = index(route, "lo")?;
        route.request(links::set_link(loopback, None, None, None))
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
