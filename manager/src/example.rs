//! Small states for tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{
    Cluster, ClusterSpec, Meta, Network, NetworkSpec, Node, NodeSpec, Service, ServiceSpec, Task,
    TaskSpec, TaskState, TaskStatus,
    cluster::JoinTokens,
    network::Subnet,
    node::{Availability, NodeDescription, NodeState, NodeStatus, Role},
    service::{EndpointSpec, PortConfig, Protocol, PublishMode, ServiceEndpoint, ServiceMode},
    task::{Handover, NetworkAttachment},
};

use time::OffsetDateTime;

use crate::{
    ca::Authority,
    store::{ClusterRecord, Proposal, StoreChange, Tables},
};

pub const SECOND: i64 = 1_000_000_000;

/// One entry of the log.
pub fn apply(tables: &mut Tables, time: i64, changes: Vec<StoreChange>) {
    let index = tables.index() + 1;
    tables.apply(
        index,
        &Proposal {
            time,
            changes,
            base: None,
        },
    );
}

pub fn tables(changes: Vec<StoreChange>) -> Tables {
    let mut tables = Tables::default();
    apply(&mut tables, 0, changes);
    tables
}

/// A cluster whose authority has no key.
pub fn cluster_record() -> ClusterRecord {
    ClusterRecord {
        public: Cluster {
            id: "cluster".into(),
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            address_pools: Vec::new(),
            subnet_size: 24,
            ingress_size: 24,
            ipv6_pool: "fd00::/48".parse().expect("a literal prefix"),
            data_path_port: 4789,
            root_ca_pem: String::new(),
            rotation: None,
            join_tokens: JoinTokens::default(),
            network_keys: model::encryption::KeyPhase::default(),
        },
        ca_key_pem: String::new(),
        next_ca_key_pem: None,
        epoch: 1,
        removed: BTreeMap::new(),
        unlock_key: None,
    }
}

/// A cluster with an authority of its own.
pub fn signing_cluster_record() -> ClusterRecord {
    let authority = Authority::create(OffsetDateTime::now_utc()).expect("a root");
    let mut record = cluster_record();
    authority
        .root_pem()
        .clone_into(&mut record.public.root_ca_pem);
    authority.key_pem().clone_into(&mut record.ca_key_pem);
    record
}

/// A ready worker with 4 CPUs and 8 GiB.
pub fn node(name: &str) -> Node {
    let number: u32 = name
        .chars()
        .filter(char::is_ascii_digit)
        .fold(0, |sum, digit| sum * 10 + digit as u32 - '0' as u32);
    Node {
        id: name.into(),
        meta: Meta::default(),
        spec: NodeSpec {
            name: None,
            labels: BTreeMap::new(),
            role: Role::Worker,
            availability: Availability::Active,
        },
        number,
        description: NodeDescription {
            hostname: name.to_owned(),
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 << 30,
            data_path: Some(std::net::Ipv4Addr::from(0xc000_0200 + number).into()),
            ..NodeDescription::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            address: None,
        },
        manager: None,
    }
}

/// An overlay network with these subnets; the gateway is the first address.
pub fn network(name: &str, subnets: &[&str]) -> Network {
    let subnet = |text: &&str| {
        let subnet: ipnetwork::IpNetwork = text.parse().expect("a literal subnet");
        Subnet {
            subnet,
            range: subnet,
            gateway: subnet.iter().nth(1).expect("more than one address"),
            aux_addresses: BTreeMap::new(),
        }
    };
    Network {
        id: name.into(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            driver: "overlay".to_owned(),
            ingress: name == "ingress",
            ..NetworkSpec::default()
        },
        vni: 4096,
        subnets: subnets.iter().map(subnet).collect(),
    }
}

pub fn attachments(networks: &[&str]) -> Vec<NetworkAttachment> {
    let attachment = |name: &&str| NetworkAttachment {
        target: (*name).to_owned(),
        ..NetworkAttachment::default()
    };
    networks.iter().map(attachment).collect()
}

pub fn service(name: &str, replicas: u64, networks: &[&str]) -> Service {
    Service {
        id: name.into(),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: name.to_owned(),
            mode: ServiceMode::Replicated { replicas },
            task: TaskSpec {
                networks: attachments(networks),
                ..TaskSpec::default()
            },
            ..ServiceSpec::default()
        },
        spec_version: 0,
        previous: None,
        endpoint: ServiceEndpoint::default(),
        update: None,
        job: None,
    }
}

pub fn publish(service: &mut Service, target: u16, published: u16, mode: PublishMode) {
    let spec = service.spec.endpoint.get_or_insert(EndpointSpec::default());
    spec.ports.push(PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target,
        published,
        mode,
    });
}

/// A new task of the service, wanted to run.
pub fn task(service: &Service, slot: u64) -> Task {
    Task {
        id: format!("{}t{slot}", service.id).into(),
        meta: Meta::default(),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot,
        node: None,
        spec: Arc::new(service.spec.task.clone()),
        spec_version: service.spec_version,
        labels: service.spec.labels.clone(),
        mode: service.spec.mode,
        status: TaskStatus::default(),
        desired: TaskState::Running,
        start_after: 0,
        endpoints: Vec::new(),
        ports: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: None,
        handover: Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: Duration::ZERO,
    }
}

pub fn set_node(node: Node) -> StoreChange {
    StoreChange::SetNode(Box::new(node))
}

pub fn set_network(network: Network) -> StoreChange {
    StoreChange::SetNetwork(Box::new(network))
}

pub fn set_service(service: Service) -> StoreChange {
    StoreChange::SetService(Box::new(service))
}

pub fn set_task(task: Task) -> StoreChange {
    StoreChange::SetTask(Box::new(task))
}
