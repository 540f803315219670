//! Follows this host's address when it becomes another one: a lease that ended, a host that was
//! moved. Peers, tunnels and the other managers are told the new one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dataplane::addresses::AddressNews;
use tokio::time::Instant;

use super::{
    address::{self, InterfaceAddress},
    files::Membership,
    member::{Member, Shared},
};

/// Between looks while the address is away; until then the kernel tells of changes.
const LOOK: Duration = Duration::from_secs(1);
/// An address that is away for less is on an interface that goes down and up.
const GONE_FOR: Duration = Duration::from_secs(4);

/// What an advertised address is to this host.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Here,
    Gone,
    /// It never was on an interface: a router leads it here.
    Elsewhere,
}

fn sight(membership: &Membership, known: &[InterfaceAddress]) -> Sight {
    if known.iter().any(|one| one.address == membership.advertise) {
        Sight::Here
    } else if membership.seen {
        Sight::Gone
    } else {
        Sight::Elsewhere
    }
}

/// The membership of a host whose advertised address is another. What was set to an address of its
/// own stays there.
fn moved(membership: &mut Membership, to: IpAddr) {
    let before = std::mem::replace(&mut membership.advertise, to);
    if membership.data_path == before {
        membership.data_path = to;
    }
    if let Some(listen) = membership.listen.as_mut().filter(|at| at.ip() == before) {
        listen.set_ip(to);
    }
}

/// The address that the way to other managers leaves by, or the only one there is.
fn next(others: &[SocketAddr], known: &[InterfaceAddress]) -> Option<IpAddr> {
    let has = |ip: &IpAddr| known.iter().any(|one| one.address == *ip);
    let leaving = others
        .iter()
        .filter_map(|other| address::towards(*other).ok());
    let mut leaving = leaving.filter(|ip| address::usable(ip) && has(ip));
    leaving.next().or_else(|| {
        let alone = others.is_empty();
        alone.then(|| address::choose(known).ok()).flatten()
    })
}

/// Follows until the membership stops.
pub(super) async fn run(shared: Arc<Shared>, member: Arc<Member>) {
    let mut news = match AddressNews::subscribe() {
        Ok(news) => news,
        Err(error) => {
            tracing::warn!(%error, "this host's address is not followed when it changes");
            return;
        }
    };
    let mut gone: Option<Instant> = None;
    let mut first = true;
    loop {
        if gone.is_some() {
            tokio::time::sleep(LOOK).await;
        } else if !std::mem::take(&mut first)
            && let Err(error) = news.next().await
        {
            tracing::warn!(%error, "changes of this host's addresses are not heard");
            tokio::time::sleep(LOOK).await;
        }
        // That is said where it is asked for, too.
        let Ok(known) = address::of_this_host() else {
            continue;
        };
        let membership = member.membership();
        match sight(&membership, &known) {
            Sight::Here => {
                gone = None;
                member.edit(&shared, |membership| membership.seen = true);
            }
            Sight::Elsewhere => {}
            Sight::Gone if gone.get_or_insert_with(Instant::now).elapsed() < GONE_FOR => {}
            Sight::Gone => {
                let Some(to) = next(&member.others(), &known) else {
                    continue;
                };
                let from = membership.advertise;
                tracing::warn!(%from, %to, "this host has another address; the cluster is told");
                member.edit(&shared, |membership| moved(membership, to));
                member.announce(&shared);
                gone = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(advertise: &str, data_path: &str, listen: &str, seen: bool) -> Membership {
        let ip = |text: &str| text.parse().expect("an address");
        Membership {
            node_id: "n1".into(),
            cluster_id: "c1".into(),
            role: model::node::Role::Manager,
            listen: Some(listen.parse().expect("an address")),
            advertise: ip(advertise),
            seen,
            advertise_port: None,
            data_path: ip(data_path),
            joined_by: None,
            managers: Vec::new(),
        }
    }

    #[test]
    fn an_address_that_was_here_can_go() {
        let known = [InterfaceAddress {
            interface: "eth0".to_owned(),
            address: [10, 0, 0, 2].into(),
        }];
        for (advertise, seen, expected) in [
            ("10.0.0.2", false, Sight::Here),
            ("10.0.0.2", true, Sight::Here),
            ("10.0.0.1", true, Sight::Gone),
            ("203.0.113.1", false, Sight::Elsewhere),
        ] {
            let membership = membership(advertise, advertise, "0.0.0.0:2377", seen);
            assert_eq!(sight(&membership, &known), expected, "{advertise} {seen}");
        }
    }

    #[test]
    fn what_stood_on_the_address_goes_with_it() {
        let to = [10, 0, 0, 2].into();
        for (data_path, listen, expected_path, expected_listen) in [
            ("10.0.0.1", "0.0.0.0:2377", "10.0.0.2", "0.0.0.0:2377"),
            ("10.0.0.1", "10.0.0.1:2377", "10.0.0.2", "10.0.0.2:2377"),
            ("10.9.0.1", "10.9.0.1:2377", "10.9.0.1", "10.9.0.1:2377"),
        ] {
            let mut membership = membership("10.0.0.1", data_path, listen, true);
            moved(&mut membership, to);
            assert_eq!(membership.advertise, to);
            assert_eq!(membership.data_path.to_string(), expected_path);
            let listen = membership.listen.map(|at| at.to_string());
            assert_eq!(listen.as_deref(), Some(expected_listen));
        }
    }
}
