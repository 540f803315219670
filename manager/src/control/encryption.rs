//! Which hosts may have encrypted networks.

use model::{
    Network, NodeId, Refusal,
    encryption::Encryptor,
    node::{NodeDescription, NodeState},
};

use crate::store::{StoreChange, Tables, Transaction};

/// The option has no value, or one that says yes.
pub(super) fn check_value(value: &str) -> Result<(), Refusal> {
    match value {
        "" | "true" | "1" => Ok(()),
        _ => Err(Refusal::invalid(format!(
            "option encrypted={value}: write encrypted, or encrypted=true; leave it out for a \
             network that is not encrypted"
        ))),
    }
}

/// Every host that is there has to be of a version that encrypts: to another the network would be
/// one like any, and what its containers send would leave in clear.
pub(super) fn check_hosts(tables: &Tables, network: &str) -> Result<(), Refusal> {
    let there = tables
        .nodes()
        .filter(|node| node.status.state != NodeState::Down);
    let old: Vec<String> = there
        .filter(|node| node.description.encryption.is_none())
        .map(|node| {
            let NodeDescription {
                hostname,
                engine_version,
                ..
            } = &node.description;
            format!("{hostname} (ovnd {engine_version})")
        })
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    Err(Refusal::conflict(format!(
        "network {network}: option encrypted: {} cannot encrypt networks; upgrade ovnd there first",
        old.join(", ")
    )))
}

/// From the first encrypted network on keys grow old.
pub(super) fn begin_to_use(tx: &mut Transaction) {
    let tables = tx.tables();
    if tables.networks().any(Network::is_encrypted) {
        return;
    }
    if let Some(record) = tables.cluster() {
        let mut record = record.clone();
        record.public.network_keys.since = tx.now();
        tx.push(StoreChange::SetCluster(Box::new(record)));
    }
}

/// Whether a container of that host may come onto the network.
pub(super) fn check_host(tables: &Tables, network: &str, node: &NodeId) -> Result<(), Refusal> {
    let Some(node) = tables.node(node) else {
        return Ok(());
    };
    let why = match &node.description.encryption {
        None => "its ovnd is of a version that cannot; upgrade it",
        Some(own) => match &own.by {
            Encryptor::Nothing(why) => why.as_str(),
            Encryptor::Kernel | Encryptor::Process => return Ok(()),
        },
    };
    Err(Refusal::conflict(format!(
        "network {network} is encrypted, and host {} cannot encrypt: {why}",
        node.description.hostname
    )))
}

/// A host that cannot encrypt has no place in a cluster with encrypted networks.
pub(crate) fn check_newcomer(
    tables: &Tables,
    description: &NodeDescription,
) -> Result<(), Refusal> {
    if description.encryption.is_some() {
        return Ok(());
    }
    match tables.networks().find(|one| one.is_encrypted()) {
        None => Ok(()),
        Some(network) => Err(Refusal::conflict(format!(
            "the cluster has encrypted networks ({}), and ovnd {} on {} cannot encrypt; upgrade it",
            network.spec.name, description.engine_version, description.hostname
        ))),
    }
}
