//! Who bears a name on a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::members::Members;

/// The addresses behind one name on one network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    endpoints: Bearers,
    /// When a virtual IP bears the name, it alone is answered.
    vips: Bearers,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Bearers {
    /// How many bear the name, with or without addresses.
    count: usize,
    v4: Members<Ipv4Addr>,
    v6: Members<Ipv6Addr>,
}

impl Entry {
    pub fn v4(&self) -> &Members<Ipv4Addr> {
        &self.answering().v4
    }

    pub fn v6(&self) -> &Members<Ipv6Addr> {
        &self.answering().v6
    }

    fn answering(&self) -> &Bearers {
        if self.vips.count > 0 {
            &self.vips
        } else {
            &self.endpoints
        }
    }

    /// One more that bears the name; without addresses it still makes the name known.
    pub fn announce(&mut self, addresses: &[IpAddr], virtual_ip: bool) {
        let bearers = self.bearers(virtual_ip);
        bearers.count += 1;
        for address in addresses {
            match *address {
                IpAddr::V4(address) => bearers.v4.add(address),
                IpAddr::V6(address) => bearers.v6.add(address),
            }
        }
    }

    pub fn withdraw(&mut self, addresses: &[IpAddr], virtual_ip: bool) {
        let bearers = self.bearers(virtual_ip);
        bearers.count -= 1;
        for address in addresses {
            match address {
                IpAddr::V4(address) => bearers.v4.subtract(address),
                IpAddr::V6(address) => bearers.v6.subtract(address),
            }
        }
    }

    pub fn is_unknown(&self) -> bool {
        self.endpoints.count + self.vips.count == 0
    }

    fn bearers(&mut self, virtual_ip: bool) -> &mut Bearers {
        if virtual_ip {
            &mut self.vips
        } else {
            &mut self.endpoints
        }
    }
}
