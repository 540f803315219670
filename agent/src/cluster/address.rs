//! Addresses as users write them, and the one to advertise when they write none.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use model::Refusal;

/// The part before `:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// An interface's name, or for remotes a host's name.
    Name(String),
}

/// One address of one interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    pub(super) interface: String,
    pub(super) address: IpAddr,
}

/// Reads `IP`, `IP:port`, `[IPv6]:port`, `name` or `name:port`.
pub(super) fn parse(text: &str) -> Result<(Host, Option<u16>), Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid address {text:?}: it has to be an IP address or a name, with an optional :port"
        ))
    };
    let bare = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Ok((Host::Ip(ip), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Host::Ip(address.ip()), Some(address.port())));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let plain = |c: char| !c.is_whitespace() && !matches!(c, ':' | '/' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(wrong());
    }
    Ok((Host::Name(host.to_owned()), port))
}

/// The address that a host part stands for on this host; a name is an interface's.
pub(super) fn resolve(host: &Host, known: &[InterfaceAddress]) -> Result<IpAddr, Refusal> {
    let name = match host {
        Host::Ip(ip) => return Ok(*ip),
        Host::Name(name) => name,
    };
    let of_interface: Vec<IpAddr> = known
        .iter()
        .filter(|found| found.interface == *name)
        .map(|found| found.address)
        .filter(usable)
        .collect();
    match preferred(&of_interface, |ip| *ip)[..] {
        [one] => Ok(*one),
        [] => Err(Refusal::invalid(format!(
            "interface {name} has no usable IP address, or there is no such interface"
        ))),
        [first, second, ..] => Err(Refusal::invalid(format!(
            "interface {name} has more than one IP address ({first} and {second}); name the address itself"
        ))),
    }
}

/// The address to advertise when the user named none: the only candidate, or a question back.
pub(super) fn choose(known: &[InterfaceAddress]) -> Result<IpAddr, Refusal> {
    let candidates: Vec<&InterfaceAddress> = known
        .iter()
        .filter(|found| !of_containers(&found.interface) && usable(&found.address))
        .collect();
    match preferred(&candidates, |found| found.address)[..] {
        [one] => Ok(one.address),
        [] => Err(Refusal::invalid(
            "could not find the system's IP address - specify one with --advertise-addr",
        )),
        [first, second, ..] if first.interface == second.interface => {
            Err(Refusal::invalid(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on interface {} ({} and {}) - specify one with --advertise-addr",
                first.interface, first.address, second.address
            )))
        }
        [first, second, ..] => Err(Refusal::invalid(format!(
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({} on {} and {} on {}) - specify one with --advertise-addr",
            first.address, first.interface, second.address, second.interface
        ))),
    }
}

/// The IPv4 ones, or all if there is none.
fn preferred<T>(all: &[T], address: impl Fn(&T) -> IpAddr) -> Vec<&T> {
    let v4: Vec<&T> = all.iter().filter(|one| address(one).is_ipv4()).collect();
    if v4.is_empty() {
        all.iter().collect()
    } else {
        v4
    }
}

pub(super) fn usable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !link_local
}

/// Bridges and cables that container engines make; no other host reaches them.
fn of_containers(interface: &str) -> bool {
    let hashed = |rest: &str| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    interface.strip_prefix("br-").is_some_and(hashed)
        || ["docker", "veth", "ovt"]
            .iter()
            .any(|prefix| interface.starts_with(prefix))
}

/// The addresses of this host's interfaces that are up.
pub(super) fn of_this_host() -> Result<Vec<InterfaceAddress>, Refusal> {
    let all = nix::ifaddrs::getifaddrs().map_err(|error| {
        Refusal::internal(format!(
            "this host's addresses cannot be read: {}",
            error.desc()
        ))
    })?;
    Ok(all
        .filter(|found| found.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|found| {
            let address = found.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            Some(InterfaceAddress {
                interface: found.interface_name,
                address: v4.or_else(v6)?,
            })
        })
        .collect())
}

/// The address this host would use towards another; nothing is sent.
pub(super) fn towards(remote: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if remote.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Where a manager reaches itself.
pub(super) fn dialled(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if !ip.is_unspecified() => listen,
        IpAddr::V4(_) => ([127, 0, 0, 1], listen.port()).into(),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, listen.port()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn known(all: &[(&str, &str)]) -> Vec<InterfaceAddress> {
        all.iter()
            .map(|(interface, address)| InterfaceAddress {
                interface: (*interface).to_owned(),
                address: ip(address),
            })
            .collect()
    }

    #[test]
    fn addresses_are_read() {
        for (text, host, port) in [
            ("10.0.0.1", Host::Ip(ip("10.0.0.1")), None),
            ("10.0.0.1:2377", Host::Ip(ip("10.0.0.1")), Some(2377)),
            ("fd00::1", Host::Ip(ip("fd00::1")), None),
            ("[fd00::1]", Host::Ip(ip("fd00::1")), None),
            ("[fd00::1]:1", Host::Ip(ip("fd00::1")), Some(1)),
            ("eth0", Host::Name("eth0".into()), None),
            ("eth0:0", Host::Name("eth0".into()), Some(0)),
        ] {
            assert_eq!(parse(text), Ok((host, port)), "{text}");
        }
        for wrong in [
            "",
            ":1",
            "eth0:",
            "eth0:x",
            "a:b:1",
            "10.0.0.1:70000",
            "a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_only_candidate_is_advertised() {
        let lo = ("lo", "127.0.0.1");
        for (all, expected) in [
            (vec![lo, ("eth0", "10.0.0.1")], Ok("10.0.0.1")),
            (
                vec![("eth0", "10.0.0.1"), ("docker0", "172.17.0.1")],
                Ok("10.0.0.1"),
            ),
            (
                vec![("eth0", "10.0.0.1"), ("eth0", "fd00::1")],
                Ok("10.0.0.1"),
            ),
            (
                vec![lo, ("eth0", "fe80::1"), ("eth0", "fd00::1")],
                Ok("fd00::1"),
            ),
            (
                vec![("eth0", "10.0.0.1"), ("br-lan", "10.1.0.1")],
                Err("could not choose an IP address to advertise"),
            ),
            (
                vec![("eth0", "10.0.0.1"), ("eth0", "10.0.0.2")],
                Err("on interface eth0"),
            ),
            (vec![lo], Err("could not find the system's IP address")),
        ] {
            match (choose(&known(&all)), expected) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, ip(wanted), "{all:?}"),
                (Err(said), Err(words)) => assert!(said.message.contains(words), "{said}"),
                (found, _) => panic!("{all:?} gave {found:?}"),
            }
        }
    }

    #[test]
    fn interfaces_stand_for_their_address() {
        let all = known(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("b", "10.0.0.3")]);
        assert_eq!(resolve(&Host::Name("a".into()), &all), Ok(ip("10.0.0.1")));
        assert!(resolve(&Host::Name("b".into()), &all).is_err());
        assert!(resolve(&Host::Name("c".into()), &all).is_err());
    }
}
