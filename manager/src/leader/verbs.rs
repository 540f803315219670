//! One place that answers every verb.

use std::time::{Duration, Instant};

use model::{
    Generation, NodeId, Refusal,
    control::{Answer, Askers, AttachRequest, Attached, StateCopy, Verb},
    node::Role,
    payload::Content,
};

use super::Manager;
use crate::{
    ca::Member,
    clock,
    control::{self, Attempt},
    dispatcher::REST,
    orchestrator::handover::LATE,
    server::Word,
    store::{Rest, Tables},
};

/// How often a wait for a resting address looks at the clock.
const LOOK: Duration = Duration::from_millis(100);

impl Manager {
    /// Carries out a verb here: on the leader, or, if it is a read, where no leader is.
    pub(super) async fn act(&self, caller: &Member, verb: Verb) -> Result<Answer, Refusal> {
        allowed(caller, &verb)?;
        let store = self.store();
        let own = (caller.role == Role::Worker).then(|| caller.node.clone());
        match verb {
            Verb::ClusterInspect => self
                .cluster()
                .map(|cluster| Answer::Cluster(Box::new(cluster)))
                .ok_or_else(|| {
                    Refusal::unavailable("the cluster is not ready; try again in a moment")
                }),
            Verb::ClusterUpdate {
                version,
                spec,
                rotate,
                root,
            } => {
                let change = move |tx: &mut crate::store::Transaction| {
                    control::cluster_update(tx, version, *spec, rotate, root.as_deref())
                };
                store.update(change).await?;
                Ok(Answer::Done)
            }
            Verb::UnlockKey => {
                let view = store.view();
                let key = view.cluster().and_then(|record| record.unlock_key.as_ref());
                let text = key.map(ToString::to_string).unwrap_or_default();
                Ok(Answer::UnlockKey(Content(text.into_bytes())))
            }
            Verb::ClusterBackup => copy(&store.view()).map(|copy| Answer::State(Box::new(copy))),
            Verb::NodeList => {
                let view = store.view();
                Ok(Answer::Nodes(
                    view.nodes().map(|node| self.shown(node)).collect(),
                ))
            }
            Verb::ManagerList => Ok(Answer::Managers(self.positions())),
            Verb::NodeInspect { reference } => {
                let node = self.shown(control::find_node(&store.view(), &reference)?);
                Ok(Answer::Node(Box::new(node)))
            }
            Verb::NodeUpdate {
                reference,
                version,
                spec,
            } => {
                let view = store.view();
                let node = control::find_node(&view, &reference)?;
                if spec.role == Role::Worker && node.spec.role == Role::Manager {
                    self.may_lose(node)?;
                }
                store
                    .update(move |tx| control::node_update(tx, &reference, version, spec))
                    .await?;
                Ok(Answer::Done)
            }
            Verb::NodeRemove { reference, force } => {
                let removed = store.update(move |tx| control::node_remove(tx, &reference, force));
                let (node, _) = removed.await?;
                self.sessions().forget(&node.id);
                Ok(Answer::Done)
            }
            Verb::NetworkCreate { spec } => {
                let made = store.update(move |tx| control::network_create(tx, *spec));
                let (network, tables) = made.await?;
                let network = tables.network(&network.id).cloned().unwrap_or(network);
                Ok(Answer::Network(Box::new(network)))
            }
            Verb::NetworkList => Ok(Answer::Networks(store.view().networks().cloned().collect())),
            Verb::NetworkInspect { reference } => {
                let network = control::find_network(&store.view(), &reference)?.clone();
                Ok(Answer::Network(Box::new(network)))
            }
            Verb::NetworkRemove { reference } => self.remove_network(reference).await,
            Verb::Attach(request) => self.attach(*request).await,
            Verb::EndpointAdvance { endpoint, state } => {
                let moved = store.update(move |tx| {
                    control::endpoint_advance(tx, own.as_ref(), &endpoint, state)
                });
                moved.await?;
                Ok(Answer::Done)
            }
            Verb::EndpointName { endpoint, names } => {
                let named = store
                    .update(move |tx| control::endpoint_name(tx, own.as_ref(), &endpoint, names));
                named.await?;
                Ok(Answer::Done)
            }
            Verb::Detach { endpoint } => {
                store
                    .update(move |tx| control::detach(tx, own.as_ref(), &endpoint))
                    .await?;
                Ok(Answer::Done)
            }
            Verb::EndpointList { network } => {
                let view = store.view();
                Ok(Answer::Endpoints(
                    view.endpoints_on(&network).cloned().collect(),
                ))
            }
            Verb::NodeEndpoints { node } => {
                let view = store.view();
                Ok(Answer::Endpoints(
                    view.endpoints_at(&node).cloned().collect(),
                ))
            }
            Verb::TaskSheet(selection) => Ok(Answer::TaskSheet(Box::new(control::task_sheet(
                &store.view(),
                &selection,
            )))),
            Verb::ServiceDryRun { spec } => self.dry_run(*spec),
            Verb::PortsKept {
                node,
                order,
                refused,
            } => {
                let word = Word::Refused(refused);
                self.desk().answer(&order, node, word);
                Ok(Answer::Done)
            }
            Verb::PortsSeen {
                node,
                order,
                sights,
            } => {
                let word = Word::Seen(sights);
                self.desk().answer(&order, node, word);
                Ok(Answer::Done)
            }
            Verb::TrafficSeen {
                node,
                order,
                traffic,
            } => {
                let word = Word::Counted(*traffic);
                self.desk().answer(&order, node, word);
                Ok(Answer::Done)
            }
            Verb::TrafficList => Ok(Answer::Traffic(self.traffic_list().await)),
            Verb::PortList { service } => {
                Ok(Answer::Ports(self.port_list(service.as_deref()).await?))
            }
            Verb::PathReport(report) => {
                let (view, mut report) = (store.view(), *report);
                report.paths.retain(|path| view.node(&path.to).is_some());
                report.paths.truncate(view.nodes().count());
                self.path_desk().note(report, Instant::now());
                Ok(Answer::Done)
            }
            Verb::PathList => {
                let view = store.view();
                let is_member = |node: &NodeId| view.node(node).is_some();
                Ok(Answer::Paths(
                    self.path_desk().all(is_member, Instant::now()),
                ))
            }
            verb @ (Verb::ServiceCreate { .. }
            | Verb::ServiceUpdate { .. }
            | Verb::ServiceList
            | Verb::ServiceInspect { .. }
            | Verb::ServiceRemove { .. }
            | Verb::ServiceRebalance { .. }
            | Verb::TaskList
            | Verb::TaskInspect { .. }
            | Verb::TaskReport { .. }
            | Verb::PayloadCreate { .. }
            | Verb::PayloadList { .. }
            | Verb::PayloadInspect { .. }
            | Verb::PayloadUpdate { .. }
            | Verb::PayloadRemove { .. }) => self.work(verb).await,
        }
    }

    async fn attach(&self, request: AttachRequest) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + request.patience;
        let mut moved = self.sessions().moved();
        let (attached, tables) = loop {
            let (view, asked) = (self.store().view(), request.clone());
            let free = self.rested_ones(&view, &asked.network);
            let attempt = self
                .store()
                .update(move |tx| control::attach(tx, &asked, &|rest: &Rest| free(rest)));
            match attempt.await? {
                (Attempt::Attached(attached), tables) => break (*attached, tables),
                (Attempt::Resting { network }, _) if Instant::now() >= deadline => {
                    return Err(Refusal::conflict(format!(
                        "network {network} has only addresses that rest after their last use (up to {} s); try again in a moment, or make a network with a larger --subnet",
                        REST.as_secs()
                    )));
                }
                (Attempt::Resting { .. }, _) => {
                    moved.mark_unchanged();
                    // The end of a rest is a moment, not an event; an acknowledgement is one.
                    let _ = tokio::time::timeout(LOOK, moved.changed()).await;
                }
            }
        };
        let (endpoint, network) = attached;
        let endpoint = tables.endpoint(&endpoint.id).cloned().unwrap_or(endpoint);
        let index = endpoint.meta.version;
        let late = self
            .wait_for_hosts(&tables.hosts_of(&network.id), index)
            .await;
        let name = |node: &NodeId| {
            tables
                .node(node)
                .map_or(node.to_string(), |node| node.description.hostname.clone())
        };
        Ok(Answer::Attached(Box::new(Attached {
            generation: Generation {
                epoch: tables.cluster().map_or(0, |record| record.epoch),
                index,
            },
            late: late.iter().map(name).collect(),
            endpoint,
            network,
        })))
    }

    /// Waits until all hosts with a session have reached the index; names those that have not.
    async fn wait_for_hosts(&self, hosts: &[NodeId], index: u64) -> Vec<NodeId> {
        let mut moved = self.sessions().moved();
        let wait = async {
            loop {
                moved.mark_unchanged();
                if self.sessions().behind(hosts, index).is_empty() {
                    return;
                }
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(LATE, wait).await {
            Ok(()) => Vec::new(),
            Err(_) => self.sessions().behind(hosts, index),
        }
    }

    /// Tells of the addresses of a network that rest now whether their rest is over: the time
    /// has passed, and no host still forwards to the old owner.
    fn rested_ones(&self, view: &Tables, network: &str) -> impl Fn(&Rest) -> bool + Send + 'static {
        let now = clock::now();
        let over: Vec<u64> = control::find_network(view, network)
            .map(|network| {
                view.resting(&network.id)
                    .filter(|(_, r)| self.sessions().has_rested(r, now))
                    .map(|(_, r)| r.released)
                    .collect()
            })
            .unwrap_or_default();
        move |rest: &Rest| over.contains(&rest.released)
    }
}

/// The whole state as of one moment.
fn copy(tables: &Tables) -> Result<StateCopy, Refusal> {
    let cluster = tables
        .cluster()
        .ok_or_else(|| Refusal::unavailable("the cluster is not ready; try again in a moment"))?;
    let state = rmp_serde::to_vec_named(&tables.image())
        .map_err(|error| Refusal::internal(format!("the state cannot be written: {error}")))?;
    Ok(StateCopy {
        cluster: cluster.public.id.clone(),
        index: tables.index(),
        state: Content(state),
    })
}

fn allowed(caller: &Member, verb: &Verb) -> Result<(), Refusal> {
    let fine = caller.role == Role::Manager
        || match verb.askers() {
            Askers::Managers => false,
            Askers::Members => true,
            Askers::Node(node) => *node == caller.node,
        };
    if fine {
        return Ok(());
    }
    Err(Refusal::forbidden(
        "this node is a worker and may not do that; run the command on a manager",
    ))
}
