//! Nodes and the cluster's own object.

use std::collections::BTreeSet;

use model::{
    ClusterSpec, Meta, Node, NodeId, NodeSpec, Refusal, TaskState,
    control::{GivenRoot, TokenRotation},
    node::{Availability, NodeDescription, NodeState, NodeStatus, Role},
};

use time::OffsetDateTime;

use super::in_sequence;
use crate::leader::begin_rotation;
use crate::{
    ca,
    store::{Tables, Transaction},
    unlock::UnlockKey,
};

/// A new member; it is down until its first session.
pub fn admit(
    tx: &mut Transaction,
    id: NodeId,
    role: Role,
    description: NodeDescription,
    availability: Availability,
) -> Node {
    let node = newcomer(tx.tables(), id, role, description, availability);
    tx.set_node(node.clone());
    node
}

/// The object of a node that is not in the tables yet.
pub(crate) fn newcomer(
    tables: &Tables,
    id: NodeId,
    role: Role,
    description: NodeDescription,
    availability: Availability,
) -> Node {
    let taken: BTreeSet<u32> = tables.nodes().map(|node| node.number).collect();
    // Fewer nodes than numbers exist, so one is free.
    let number = (1..u32::MAX)
        .find(|number| !taken.contains(number))
        .unwrap_or(u32::MAX);
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec {
            name: None,
            labels: std::collections::BTreeMap::default(),
            role,
            availability,
        },
        number,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: "has joined, no session yet".to_owned(),
            address: description.advertise,
        },
        description,
        manager: None,
    }
}

/// By full id, exact host name, or unique id prefix.
pub fn find_node<'a>(tables: &'a Tables, reference: &str) -> Result<&'a Node, Refusal> {
    if let Some(node) = tables.node(&reference.into()) {
        return Ok(node);
    }
    let unique =
        |mut found: Box<dyn Iterator<Item = &'a Node> + 'a>| match (found.next(), found.next()) {
            (Some(node), None) => Ok(Some(node)),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(Refusal::invalid(format!(
                "node {reference} is ambiguous (2 matches found); use its full id"
            ))),
        };
    let wanted = reference.to_owned();
    let named = tables
        .nodes()
        .filter(move |node| node.description.hostname == wanted);
    if let Some(node) = unique(Box::new(named))? {
        return Ok(node);
    }
    let prefix = reference.to_owned();
    let begun = tables
        .nodes()
        .filter(move |node| !prefix.is_empty() && node.id.as_str().starts_with(&prefix));
    unique(Box::new(begun))?
        .ok_or_else(|| Refusal::not_found(format!("node {reference} not found")))
}

pub fn node_update(
    tx: &mut Transaction,
    reference: &str,
    version: u64,
    spec: NodeSpec,
) -> Result<(), Refusal> {
    let mut node = find_node(tx.tables(), reference)?.clone();
    in_sequence(version, node.meta.version)?;
    let managers = tx.tables().nodes();
    let managers = managers
        .filter(|node| node.spec.role == Role::Manager)
        .count();
    if spec.role == Role::Worker && node.spec.role == Role::Manager && managers == 1 {
        return Err(Refusal::invalid(
            "attempting to demote the last manager of the swarm: nobody would hold the cluster's state; promote another node first",
        ));
    }
    node.spec = spec;
    tx.set_node(node);
    Ok(())
}

/// Removes a node and what it held; it has to be down unless forced.
pub fn node_remove(tx: &mut Transaction, reference: &str, force: bool) -> Result<Node, Refusal> {
    let node = find_node(tx.tables(), reference)?.clone();
    if node.spec.role == Role::Manager {
        return Err(Refusal::invalid(format!(
            "node {0} is a manager and holds the cluster's state; demote it first with `ovnctl node demote {0}`",
            node.description.hostname
        )));
    }
    if node.status.state == NodeState::Ready && !force {
        return Err(Refusal::invalid(format!(
            "node {} is not down and can't be removed; run `swarm leave` on it first, or use --force",
            node.description.hostname
        )));
    }
    // Its tasks are given up: nobody is left to say that they have ended.
    let tasks: Vec<_> = tx.tables().work().tasks_at(&node.id).cloned().collect();
    for mut task in tasks {
        if !task.status.state.is_final() {
            task.status.state = TaskState::Orphaned;
            task.status.at = tx.now();
            "the task's node was removed".clone_into(&mut task.status.message);
            task.endpoints.clear();
            tx.set_task(task);
        }
    }
    let held: Vec<_> = tx
        .tables()
        .endpoints_at(&node.id)
        .map(|e| e.id.clone())
        .collect();
    for endpoint in held {
        tx.remove_endpoint(&endpoint);
    }
    tx.remove_node(&node.id);
    bury(tx, &node.id);
    Ok(node)
}

/// Remembers a removed node until its certificate has ended, and forgets those whose has.
fn bury(tx: &mut Transaction, node: &NodeId) {
    let Some(mut record) = tx.tables().cluster().cloned() else {
        return;
    };
    let life = record.public.spec.node_cert_expiry.as_nanos();
    let end = tx
        .now()
        .saturating_add(i64::try_from(life).unwrap_or(i64::MAX));
    let now = tx.now();
    record.removed.retain(|_, end| *end > now);
    record.removed.insert(node.clone(), end);
    tx.set_cluster(record);
}

pub fn cluster_update(
    tx: &mut Transaction,
    version: u64,
    mut spec: ClusterSpec,
    rotate: TokenRotation,
    root: Option<&GivenRoot>,
) -> Result<(), Refusal> {
    let mut record = tx
        .tables()
        .cluster()
        .ok_or_else(|| Refusal::unavailable("the cluster is not ready; try again in a moment"))?
        .clone();
    in_sequence(version, record.public.meta.version)?;
    if rotate.unlock_key && !spec.autolock {
        return Err(Refusal::invalid(
            "autolock is not turned on, so there is no unlock key to rotate; turn it on with `ovnctl swarm update --autolock=true`",
        ));
    }
    let token = ca::new_tokens(&record.public.root_ca_pem)
        .map_err(|error| Refusal::internal(error.to_string()))?;
    if rotate.worker {
        record.public.join_tokens.worker = token();
    }
    if rotate.network_keys {
        let phase = record.public.network_keys;
        if phase.is_rotating() {
            return Err(Refusal::conflict(
                "the keys of encrypted networks are being rotated already; try again when that is over",
            ));
        }
        record.public.network_keys = begin_rotation(&phase, tx.now());
    }
    if rotate.manager {
        record.public.join_tokens.manager = token();
    }
    if !spec.autolock {
        record.unlock_key = None;
    } else if record.unlock_key.is_none() || rotate.unlock_key {
        let made = UnlockKey::generate();
        record.unlock_key = Some(made.map_err(|error| Refusal::internal(error.to_string()))?);
    }
    // Whoever writes a specification of their own leaves the number out.
    if spec.force_rotate == 0 {
        spec.force_rotate = record.public.spec.force_rotate;
    }
    if root.is_some() || spec.force_rotate != record.public.spec.force_rotate {
        ca::begin(&mut record, root, OffsetDateTime::now_utc())
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        tracing::info!("the cluster's root certificate is being replaced");
    }
    record.public.spec = spec;
    tx.set_cluster(record);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{example, store::StoreChange};

    fn cluster() -> Tables {
        let authority = ca::Authority::create(OffsetDateTime::now_utc()).expect("a root");
        let mut record = example::cluster_record();
        authority
            .root_pem()
            .clone_into(&mut record.public.root_ca_pem);
        authority.key_pem().clone_into(&mut record.ca_key_pem);
        example::tables(vec![StoreChange::SetCluster(Box::new(record))])
    }

    fn update(tables: &mut Tables, force_rotate: u64, root: Option<&GivenRoot>) {
        let record = tables.cluster().expect("there").clone();
        let spec = ClusterSpec {
            force_rotate,
            ..record.public.spec
        };
        let mut tx = Transaction::on(tables, 0);
        cluster_update(
            &mut tx,
            record.public.meta.version,
            spec,
            TokenRotation::default(),
            root,
        )
        .expect("accepted");
        *tables = tx.tables().clone();
    }

    #[test]
    fn another_number_asks_for_another_root() {
        let mut tables = cluster();
        let next = |tables: &Tables| {
            let record = tables.cluster().expect("there");
            let rotation = record.public.rotation.as_ref();
            rotation.map(|rotation| rotation.root_ca_pem.clone())
        };
        update(&mut tables, 0, None);
        assert_eq!(next(&tables), None);
        update(&mut tables, 1, None);
        let first = next(&tables).expect("begun");
        // Neither the same number nor none is another.
        for same in [1, 0] {
            update(&mut tables, same, None);
            assert_eq!(next(&tables).as_ref(), Some(&first));
        }
        update(&mut tables, 2, None);
        assert_ne!(next(&tables), Some(first));
        let given = ca::Authority::create(OffsetDateTime::now_utc()).expect("a root");
        let root = GivenRoot {
            certificate_pem: given.root_pem().to_owned(),
            key_pem: model::payload::Content(given.key_pem().into()),
        };
        update(&mut tables, 2, Some(&root));
        assert_eq!(next(&tables).as_deref(), Some(given.root_pem()));
    }
}
