//! The first manager of a new cluster.

use std::{net::Ipv6Addr, path::Path, sync::Arc};

use ipnetwork::{IpNetwork, Ipv6Network};
use model::{
    Cluster, Meta, NetworkSpec, Refusal,
    cluster::JoinTokens,
    node::{ManagerStatus, NodeState, NodeStatus, Reachability, Role},
};
use time::OffsetDateTime;

use super::{LOG, Manager, NewCluster, Parts, bind};
use crate::{
    ca::{self, Authority, Identity, Subject},
    control,
    lines::Lines,
    raft::{Carrier, Consensus, Peer, WrappingKey},
    store::{ClusterRecord, Store},
    tls::LiveIdentity,
    unlock::UnlockKey,
};

/// Name of the network of published ports.
const INGRESS: &str = "ingress";

pub(super) async fn create(
    folder: &Path,
    new: NewCluster,
) -> Result<(Arc<Manager>, Identity), Refusal> {
    let internal = |error: &dyn std::fmt::Display| Refusal::internal(error.to_string());
    check(&new)?;
    let listener = bind(new.listen).await?;
    let bound = listener.local_addr().map_err(|error| internal(&error))?;
    let mut advertise = new.advertise;
    if advertise.port() == 0 {
        advertise.set_port(bound.port());
    }
    let subject = Subject {
        node: control::new_id(),
        role: Role::Manager,
        cluster: control::new_id(),
    };
    let authority =
        Authority::create(OffsetDateTime::now_utc()).map_err(|error| internal(&error))?;
    let (key, request) = ca::certificate_request().map_err(|error| internal(&error))?;
    let chain = authority
        .issue(
            &request,
            &subject,
            new.spec.node_cert_expiry,
            OffsetDateTime::now_utc(),
        )
        .map_err(|error| internal(&error))?;
    let identity =
        Identity::new(key, chain, authority.root_pem()).map_err(|error| internal(&error))?;
    let live = LiveIdentity::new(identity.clone()).map_err(|error| internal(&error))?;
    let record = record(&new, &authority, &subject)?;
    let (store, writer) = Store::new();
    std::fs::create_dir_all(folder).map_err(|error| internal(&error))?;
    let wrapping = WrappingKey::from_node_key(identity.key_pem().as_bytes());
    let lines = Arc::new(Lines::new(Arc::clone(&live)));
    let peer = Peer {
        node: subject.node.clone(),
        address: Some(advertise),
    };
    let carrier = Arc::clone(&lines) as Arc<dyn Carrier>;
    let consensus = Consensus::create(&folder.join(LOG), &wrapping, store.clone(), carrier, peer)
        .await
        .map_err(|error| internal(&error))?;
    let parts = Parts {
        store,
        writer,
        consensus,
        lines,
        identity: live,
    };
    let manager = Manager::assemble(parts, &listener, advertise)?;
    let mut description = new.description;
    description.tls = Some(identity.tls_info().clone());
    let ipv6 = description.routes.iter().any(IpNetwork::is_ipv6);
    let laid = manager
        .store
        .update(move |tx| {
            tx.set_cluster(record);
            let mut node = control::admit(
                tx,
                subject.node,
                Role::Manager,
                description,
                new.availability,
            );
            node.status = NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: Some(advertise.ip()),
            };
            node.manager = Some(ManagerStatus {
                leader: false,
                reachability: Reachability::Unknown,
                address: advertise,
            });
            tx.set_node(node);
            control::network_create(
                tx,
                NetworkSpec {
                    name: INGRESS.to_owned(),
                    driver: "overlay".to_owned(),
                    ingress: true,
                    ipv6,
                    ..NetworkSpec::default()
                },
            )
        })
        .await;
    if let Err(refusal) = laid {
        manager.shutdown().await;
        return Err(refusal);
    }
    manager.run(listener);
    manager.await_lead().await?;
    Ok((manager, identity))
}

fn check(new: &NewCluster) -> Result<(), Refusal> {
    for size in [new.subnet_size, new.ingress_size] {
        if !(8..=29).contains(&size) {
            return Err(Refusal::invalid(format!(
                "subnet size {size} is not possible; use a prefix length from 8 to 29"
            )));
        }
    }
    for pool in &new.address_pools {
        if !pool.is_ipv4() {
            return Err(Refusal::invalid(format!(
                "address pool {pool}: pools are IPv4; IPv6 subnets come from the cluster's own prefix"
            )));
        }
        if pool.prefix() > new.subnet_size {
            return Err(Refusal::invalid(format!(
                "address pool {pool} is smaller than one subnet of /{}",
                new.subnet_size
            )));
        }
    }
    Ok(())
}

fn record(
    new: &NewCluster,
    authority: &Authority,
    subject: &Subject,
) -> Result<ClusterRecord, Refusal> {
    let token = ca::new_tokens(authority.root_pem())
        .map_err(|error| Refusal::internal(error.to_string()))?;
    let address_pools = if new.address_pools.is_empty() {
        vec![
            "10.0.0.0/8"
                .parse()
                .map_err(|error| Refusal::internal(format!("pool: {error}")))?,
        ]
    } else {
        new.address_pools.clone()
    };
    let unlock_key = if new.spec.autolock {
        let made = UnlockKey::generate();
        Some(made.map_err(|error| Refusal::internal(error.to_string()))?)
    } else {
        None
    };
    Ok(ClusterRecord {
        public: Cluster {
            id: subject.cluster.clone(),
            meta: Meta::default(),
            spec: new.spec.clone(),
            address_pools,
            subnet_size: new.subnet_size,
            ingress_size: new.ingress_size,
            ipv6_pool: unique_local_prefix()?,
            data_path_port: new.data_path_port,
            root_ca_pem: authority.root_pem().to_owned(),
            rotation: None,
            join_tokens: JoinTokens {
                worker: token(),
                manager: token(),
            },
            network_keys: model::encryption::KeyPhase::default(),
        },
        ca_key_pem: authority.key_pem().to_owned(),
        next_ca_key_pem: None,
        epoch: 1,
        removed: std::collections::BTreeMap::new(),
        unlock_key,
    })
}

/// A random /48 of fd00::/8 (RFC 4193).
fn unique_local_prefix() -> Result<Ipv6Network, Refusal> {
    let random: [u8; 5] = rand::random();
    let mut bytes = [0u8; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&random);
    Ipv6Network::new(Ipv6Addr::from(bytes), 48)
        .map_err(|error| Refusal::internal(error.to_string()))
}
