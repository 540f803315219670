//! Making a cluster and joining one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use manager::{
    ca::{self, Identity, Token},
    client::{ClientError, Connection},
    clock,
    leader::{Manager, NewCluster},
    tls::{self, LiveIdentity},
    unlock::UnlockKey,
    wire::{IssueReply, IssueRequest},
};
use model::{
    ClusterSpec, Refusal,
    cluster::{DEFAULT_DATA_PATH_PORT, DEFAULT_MANAGER_PORT},
    node::{NodeDescription, Role},
};

use super::{
    InitRequest, JoinRequest,
    address::{self, Host, InterfaceAddress},
    files::Membership,
    member::{Member, Shared},
};

fn internal(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Refusal + '_ {
    move |error| Refusal::internal(format!("{what}: {error}"))
}

fn or(size: u8, default: u8) -> u8 {
    if size == 0 { default } else { size }
}

/// Makes a cluster; its session is not up yet.
pub(super) async fn init(shared: &Arc<Shared>, ask: InitRequest) -> Result<Arc<Member>, Refusal> {
    let data_path_port = match ask.data_path_port {
        0 => DEFAULT_DATA_PATH_PORT,
        port @ 1024..=49151 => port,
        port => {
            return Err(Refusal::invalid(format!(
                "data path port {port} is not possible; use one from 1024 to 49151"
            )));
        }
    };
    let OwnAddresses {
        listen,
        advertise,
        data_path,
    } = first_addresses(&ask.listen_addr, &ask.advertise_addr, &ask.data_path_addr)?;
    let new = NewCluster {
        description: NodeDescription {
            advertise: Some(advertise.ip()),
            data_path: Some(data_path),
            ..(shared.config.describe)()
        },
        spec: ask.spec.unwrap_or_else(|| ClusterSpec {
            heartbeat_period: shared.config.heartbeat,
            ..ClusterSpec::default()
        }),
        address_pools: ask.default_addr_pool,
        subnet_size: or(ask.subnet_size, 24),
        ingress_size: or(ask.ingress_size, 20),
        data_path_port,
        availability: ask.availability,
        listen,
        advertise,
    };
    let folder = &shared.folder;
    // Remains of an attempt that failed would be taken for the new cluster's log.
    folder
        .wipe()
        .and_then(|()| folder.make())
        .map_err(|error| internal("the folder of the cluster cannot be made")(&error))?;
    let (manager, identity) = match Manager::create(&folder.manager(), new).await {
        Ok(made) => made,
        Err(refusal) => {
            clear_away(shared);
            return Err(refusal);
        }
    };
    let own = OwnAddresses {
        listen: manager.listen_address(),
        advertise: manager.advertise_address(),
        data_path,
    };
    let membership = first_membership(&identity, &own);
    if let Err(refusal) = keep(shared, &identity, &membership, None) {
        manager.shutdown().await;
        clear_away(shared);
        return Err(refusal);
    }
    let live = manager.identity();
    Ok(Member::start(shared, membership, live, Some(manager), None))
}

/// The membership of a cluster's only manager.
pub(super) fn first_membership(identity: &Identity, own: &OwnAddresses) -> Membership {
    let member = identity.member();
    Membership {
        node_id: member.node.clone(),
        cluster_id: member.cluster.clone(),
        role: Role::Manager,
        listen: Some(own.listen),
        advertise: own.advertise.ip(),
        seen: false,
        advertise_port: Some(own.advertise.port()).filter(|port| *port != 0),
        data_path: own.data_path,
        joined_by: None,
        managers: vec![(member.node.clone(), own.advertise)],
    }
}

/// Becomes a member; its session is not up yet.
pub(super) async fn join(shared: &Arc<Shared>, ask: JoinRequest) -> Result<Arc<Member>, Refusal> {
    let token = Token::parse(&ask.token)?;
    let known = address::of_this_host()?;
    let mut failures = Vec::new();
    for remote in &ask.remotes {
        for address in remote_addresses(remote).await? {
            match join_at(shared, &ask, &token, address, &known).await {
                Ok(Ok(member)) => return Ok(member),
                Ok(Err(refusal)) => return Err(refusal),
                Err(error) => failures.push(error.to_string()),
            }
        }
    }
    if failures.is_empty() {
        return Err(Refusal::invalid(
            "at least one manager's address is needed to join",
        ));
    }
    Err(Refusal::unavailable(format!(
        "{}; check the address, and that its port is open in both hosts' firewalls",
        failures.join("; ")
    )))
}

async fn join_at(
    shared: &Arc<Shared>,
    ask: &JoinRequest,
    token: &Token,
    remote: SocketAddr,
    known: &[InterfaceAddress],
) -> Result<Result<Arc<Member>, Refusal>, ClientError> {
    let setup = |error: tls::TlsError| ClientError::Refused {
        address: remote,
        reason: error.to_string(),
    };
    let stranger = Connection::open(remote, tls::stranger().map_err(setup)?).await?;
    let root = match stranger.root().await? {
        Ok(root) => root,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if ca::root_digest(&root.root_pem).ok().as_ref() != Some(&token.digest) {
        return Ok(Err(Refusal::invalid(format!(
            "the token is not of the cluster that manager {remote} belongs to: its root certificate is another one; ask that cluster for a token with `ovnctl swarm join-token worker`"
        ))));
    }
    if let Err(refusal) = clock::check_agreement(clock::now(), root.now) {
        return Ok(Err(refusal));
    }
    let own = match own_addresses(ask, remote, known) {
        Ok(own) => own,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let newcomer = Connection::open(remote, tls::newcomer(&root.root_pem).map_err(setup)?).await?;
    let (key, csr_pem) = match ca::certificate_request() {
        Ok(both) => both,
        Err(error) => return Ok(Err(Refusal::internal(error.to_string()))),
    };
    let request = IssueRequest {
        csr_pem,
        token: Some(token.to_string()),
        description: NodeDescription {
            advertise: Some(own.advertise.ip()),
            data_path: Some(own.data_path),
            ..(shared.config.describe)()
        },
        availability: ask.availability,
    };
    let reply = match newcomer.issue(&request).await? {
        Ok(reply) => reply,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(admitted(shared, key, reply, remote, own).await)
}

/// The manager has made a node: become it, or undo it.
async fn admitted(
    shared: &Arc<Shared>,
    key: String,
    reply: IssueReply,
    remote: SocketAddr,
    own: OwnAddresses,
) -> Result<Arc<Member>, Refusal> {
    let unusable = internal("the certificate from the manager cannot be used");
    let identity =
        Identity::new(key, reply.chain_pem, &reply.root_pem).map_err(|error| unusable(&error))?;
    let live = LiveIdentity::new(identity.clone()).map_err(|error| unusable(&error))?;
    let membership = Membership {
        node_id: reply.node_id,
        cluster_id: reply.cluster_id,
        role: reply.role,
        listen: Some(own.listen),
        advertise: own.advertise.ip(),
        seen: false,
        advertise_port: Some(own.advertise.port()).filter(|port| *port != 0),
        data_path: own.data_path,
        joined_by: Some(remote),
        managers: reply.managers,
    };
    let folder = &shared.folder;
    let kept = folder
        .wipe()
        .and_then(|()| folder.make())
        .map_err(|error| internal("the folder of the cluster cannot be made")(&error))
        .and_then(|()| keep(shared, &identity, &membership, None));
    if let Err(refusal) = kept {
        clear_away(shared);
        take_back(remote, &live).await;
        return Err(refusal);
    }
    Ok(Member::start(shared, membership, live, None, None))
}

/// Gives up a node that was made a moment ago.
async fn take_back(remote: SocketAddr, identity: &Arc<LiveIdentity>) {
    let leaving = async {
        let tls = tls::member(identity).map_err(|error| Refusal::internal(error.to_string()))?;
        Connection::open(remote, tls).await?.leave().await?
    };
    if let Err(refusal) = leaving.await {
        tracing::warn!("the node made for this host stays in the cluster's list: {refusal}");
    }
}

/// Writes who this node is; its private key is sealed under `unlock_key`, if there is one.
pub(super) fn keep(
    shared: &Shared,
    identity: &Identity,
    membership: &Membership,
    unlock_key: Option<&UnlockKey>,
) -> Result<(), Refusal> {
    let folder = &shared.folder;
    folder
        .write_identity(identity, unlock_key)
        .and_then(|()| folder.write_membership(membership))
        .map_err(|error| internal("the membership cannot be written")(&error))
}

pub(super) fn clear_away(shared: &Shared) {
    if let Err(error) = shared.folder.wipe() {
        tracing::warn!("remains of the attempt cannot be deleted: {error}");
    }
}

fn listen_address(text: &str, known: &[InterfaceAddress]) -> Result<SocketAddr, Refusal> {
    if text.is_empty() {
        return Ok(([0, 0, 0, 0], DEFAULT_MANAGER_PORT).into());
    }
    let (host, port) = address::parse(text)?;
    let ip = address::resolve(&host, known)?;
    Ok((ip, port.unwrap_or(DEFAULT_MANAGER_PORT)).into())
}

/// What stands for all addresses of IPv4 (clients say so where the user says nothing) stands for those of
/// IPv6 too, where it is one of those that others are told.
fn on_all(listen: SocketAddr, advertise: SocketAddr) -> SocketAddr {
    if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && advertise.is_ipv6() {
        return (Ipv6Addr::UNSPECIFIED, listen.port()).into();
    }
    listen
}

fn advertise_address(
    text: &str,
    listen: SocketAddr,
    known: &[InterfaceAddress],
) -> Result<SocketAddr, Refusal> {
    if !text.is_empty() {
        let (host, port) = address::parse(text)?;
        let ip = specified(address::resolve(&host, known)?, "advertise")?;
        return Ok((ip, port.unwrap_or(listen.port())).into());
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    Ok((address::choose(known)?, listen.port()).into())
}

fn data_path(text: &str, advertise: IpAddr, known: &[InterfaceAddress]) -> Result<IpAddr, Refusal> {
    if text.is_empty() {
        return Ok(advertise);
    }
    match address::parse(text)? {
        (host, None) => specified(address::resolve(&host, known)?, "data path"),
        (_, Some(_)) => Err(Refusal::invalid(format!(
            "data path address {text:?} has a port; it is set for the whole cluster with --data-path-port"
        ))),
    }
}

fn specified(ip: IpAddr, what: &str) -> Result<IpAddr, Refusal> {
    if ip.is_unspecified() {
        return Err(Refusal::invalid(format!(
            "{what} address must be a non-zero IP address or network interface (with optional port number)"
        )));
    }
    Ok(ip)
}

/// Where a node that joins is reached, now or once it is a manager.
pub(super) struct OwnAddresses {
    pub(super) listen: SocketAddr,
    /// Port 0: the one it listens at.
    pub(super) advertise: SocketAddr,
    pub(super) data_path: IpAddr,
}

/// Those of a manager that asks nobody, as the user wrote them.
pub(super) fn first_addresses(
    listen: &str,
    advertise: &str,
    path: &str,
) -> Result<OwnAddresses, Refusal> {
    let known = address::of_this_host()?;
    let asked = listen_address(listen, &known)?;
    let advertise = advertise_address(advertise, asked, &known)?;
    Ok(OwnAddresses {
        listen: on_all(asked, advertise),
        advertise,
        data_path: data_path(path, advertise.ip(), &known)?,
    })
}

/// Advertised address and tunnel endpoint are, unless the user says otherwise, those that the
/// manager is reached with.
fn own_addresses(
    ask: &JoinRequest,
    remote: SocketAddr,
    known: &[InterfaceAddress],
) -> Result<OwnAddresses, Refusal> {
    let listen = listen_address(&ask.listen_addr, known)?;
    let advertise = if !ask.advertise_addr.is_empty() {
        let (host, port) = address::parse(&ask.advertise_addr)?;
        let ip = specified(address::resolve(&host, known)?, "advertise")?;
        (ip, port.unwrap_or(listen.port())).into()
    } else if listen.ip().is_unspecified() {
        let ip = address::towards(remote)
            .map_err(|error| internal("this host's address cannot be found")(&error))?;
        (ip, listen.port()).into()
    } else {
        listen
    };
    let data_path = data_path(&ask.data_path_addr, advertise.ip(), known)?;
    Ok(OwnAddresses {
        listen: on_all(listen, advertise),
        advertise,
        data_path,
    })
}

pub(super) async fn remote_addresses(text: &str) -> Result<Vec<SocketAddr>, Refusal> {
    let (host, port) = address::parse(text)?;
    let port = port.unwrap_or(DEFAULT_MANAGER_PORT);
    match host {
        Host::Ip(ip) => Ok(vec![(ip, port).into()]),
        Host::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), port)).await;
            let found = found.map_err(|error| {
                Refusal::unavailable(format!("manager {name} cannot be found: {error}"))
            })?;
            Ok(found.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_each_other() {
        let known = [InterfaceAddress {
            interface: "eth0".to_owned(),
            address: [10, 0, 0, 1].into(),
        }];
        for (listen, advertise, expected) in [
            ("", "", "10.0.0.1:2377"),
            ("0.0.0.0:0", "", "10.0.0.1:0"),
            ("0.0.0.0:5000", "eth0", "10.0.0.1:5000"),
            ("0.0.0.0", "eth0:6000", "10.0.0.1:6000"),
            ("127.0.0.1:7", "", "127.0.0.1:7"),
            ("", "192.0.2.1", "192.0.2.1:2377"),
        ] {
            let listen = listen_address(listen, &known).expect(listen);
            let found = advertise_address(advertise, listen, &known).expect(advertise);
            assert_eq!(found.to_string(), expected);
        }
        for (listen, advertise, expected) in [
            ("", "10.0.0.1:2377", "0.0.0.0:2377"),
            ("", "[fd00::1]:2377", "[::]:2377"),
            ("0.0.0.0:5000", "[fd00::1]:5000", "[::]:5000"),
            ("10.0.0.1", "[fd00::1]:2377", "10.0.0.1:2377"),
        ] {
            let listen = listen_address(listen, &known).expect(listen);
            let found = on_all(listen, advertise.parse().expect(advertise));
            assert_eq!(found.to_string(), expected, "{listen} {advertise}");
        }
        let any = SocketAddr::from(([0, 0, 0, 0], 1));
        assert!(advertise_address("0.0.0.0", any, &known).is_err());
        assert!(data_path("eth0:1", any.ip(), &known).is_err());
        assert_eq!(
            data_path("eth0", any.ip(), &known),
            Ok([10, 0, 0, 1].into())
        );
    }
}
