//! Managers and members in one process, over real mutual TLS on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "no test uses all of it")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use manager::{
    ca::{self, Identity},
    client::Connection,
    leader::NewCluster,
    tls::{self, LiveIdentity},
    wire::IssueRequest,
};
use model::{
    ClusterSpec,
    node::{Availability, NodeDescription},
};

pub const LIMIT: Duration = Duration::from_secs(60);

pub fn description(name: &str, address: &str) -> NodeDescription {
    NodeDescription {
        hostname: name.into(),
        advertise: Some(address.parse().unwrap()),
        data_path: Some(address.parse().unwrap()),
        ..NodeDescription::default()
    }
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn new_cluster() -> NewCluster {
    NewCluster {
        description: description("manager01", "192.0.2.1"),
        spec: ClusterSpec {
            heartbeat_period: Duration::from_millis(200),
            ..ClusterSpec::default()
        },
        address_pools: Vec::new(),
        subnet_size: 24,
        ingress_size: 20,
        data_path_port: 4789,
        availability: Availability::Active,
        listen: any_port(),
        advertise: any_port(),
    }
}

pub async fn join(
    address: SocketAddr,
    token: &str,
    name: &str,
    own: &str,
) -> Result<Arc<LiveIdentity>, model::Refusal> {
    let stranger = Connection::open(address, tls::stranger().unwrap())
        .await
        .unwrap();
    let root = stranger.root().await.unwrap().unwrap();
    let newcomer = Connection::open(address, tls::newcomer(&root.root_pem).unwrap())
        .await
        .unwrap();
    let (key, csr_pem) = ca::certificate_request().unwrap();
    let request = IssueRequest {
        csr_pem,
        token: Some(token.to_owned()),
        description: description(name, own),
        availability: Availability::Active,
    };
    let reply = newcomer.issue(&request).await.unwrap()?;
    let identity = Identity::new(key, reply.chain_pem, &reply.root_pem).unwrap();
    Ok(LiveIdentity::new(identity).unwrap())
}
