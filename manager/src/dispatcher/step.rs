//! The step of a host's assignments from one commit to the next.

use model::{
    Assignments, Change, Endpoint, EndpointId, Increment, NetworkId, NodeId, SecretId, ServiceId,
    Task, TaskId, service::PublishMode,
};

use super::opening::chooses;
use super::sight::{assignments, generation, is_reached, is_told, payloads_of, peer, route};
use crate::store::{StoreChange, Tables};

/// Brings `sent` to the state after a commit and says what that takes; nothing if the commit
/// does not concern the node. Costs what has changed, unless the node's own networks did. `changes`
/// are those that the node has to look at, see [`Concerns`](super::Concerns).
pub fn increment<'a>(
    sent: &mut Assignments,
    tables: &Tables,
    mut changes: impl Iterator<Item = &'a StoreChange> + Clone,
    node: &NodeId,
) -> Option<Increment> {
    let mut step = Step {
        sent,
        tables,
        node,
        changes: Vec::new(),
    };
    let looked = step
        .ingress(changes.clone())
        .and_then(|()| changes.try_for_each(|change| step.look(change)));
    let changes = if looked.is_ok() {
        step.changes
    } else {
        let target = assignments(tables, node);
        let changes = sent.diff(&target);
        sent.data_path_port = target.data_path_port;
        changes
    };
    if changes.is_empty() {
        return None;
    }
    let increment = Increment {
        generation: generation(tables),
        changes,
    };
    sent.apply(&increment);
    Some(increment)
}

/// The node's own networks may have changed: compare all.
struct Everything;

/// Every look is at the state after the whole commit, so the order of changes does not matter.
struct Step<'a> {
    sent: &'a Assignments,
    tables: &'a Tables,
    node: &'a NodeId,
    changes: Vec<Change>,
}

impl Step<'_> {
    /// The first published port brings the ingress network to every node, and every node to
    /// it; the last takes that back.
    fn ingress<'a>(
        &self,
        mut changes: impl Iterator<Item = &'a StoreChange>,
    ) -> Result<(), Everything> {
        let Some(ingress) = self.tables.ingress() else {
            return Ok(());
        };
        let told = self.sent.networks.contains_key(&ingress.id);
        if told != self.tables.takes_part(self.node, &ingress.id) {
            return Err(Everything);
        }
        let of_service = |change: &StoreChange| {
            let set = matches!(change, StoreChange::SetService(_));
            set || matches!(change, StoreChange::RemoveService(_))
        };
        if told && changes.any(of_service) {
            // Whoever is on the ingress network is told of all that publish there.
            let was_busy = self.sent.services.values().any(|route| {
                let mut ports = route.endpoint.ports.iter();
                route.elsewhere
                    || ports.any(|port| port.mode == PublishMode::Ingress && port.published != 0)
            });
            if was_busy != self.tables.busy_ingress().is_some() {
                return Err(Everything);
            }
        }
        Ok(())
    }

    fn look(&mut self, change: &StoreChange) -> Result<(), Everything> {
        match change {
            StoreChange::SetEndpoint(endpoint) => self.endpoint_set(&endpoint.id),
            StoreChange::RemoveEndpoint(id) => self.endpoint_gone(id),
            StoreChange::SetNetwork(network) if self.sent.networks.contains_key(&network.id) => {
                match self.tables.network(&network.id) {
                    Some(stored) => self.say(Change::SetNetwork(Box::new(stored.clone()))),
                    None => return Err(Everything),
                }
                Ok(())
            }
            StoreChange::RemoveNetwork(id) if self.sent.networks.contains_key(id) => {
                Err(Everything)
            }
            StoreChange::SetNetwork(_)
            | StoreChange::RemoveNetwork(_)
            | StoreChange::SetCursor { .. }
            | StoreChange::EndRest { .. } => Ok(()),
            // It says which generations of keys there are.
            StoreChange::SetCluster(_) => {
                self.peer_changed(self.node);
                Ok(())
            }
            StoreChange::SetNode(node) => self.node_changed(&node.id),
            StoreChange::RemoveNode(id) => self.node_changed(id),
            StoreChange::SetService(service) => {
                self.service_changed(&service.id);
                Ok(())
            }
            StoreChange::RemoveService(id) => {
                self.service_changed(id);
                Ok(())
            }
            StoreChange::SetTask(task) => {
                self.task_changed(&task.id);
                Ok(())
            }
            StoreChange::RemoveTask(id) => {
                self.task_changed(id);
                Ok(())
            }
            StoreChange::SetPayload(payload) => {
                self.payload_changed(&payload.id);
                Ok(())
            }
            StoreChange::RemovePayload(id) => {
                self.payload_changed(id);
                Ok(())
            }
        }
    }

    fn say(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Whether the two nodes share a network.
    fn is_neighbour(&self, other: &NodeId) -> bool {
        let on = self.sent.networks.keys();
        other == self.node || on.into_iter().any(|id| self.tables.takes_part(other, id))
    }

    fn endpoint_set(&mut self, id: &EndpointId) -> Result<(), Everything> {
        let Some(stored) = self.tables.endpoint(id) else {
            return self.endpoint_gone(id);
        };
        if stored.node.is_empty() {
            // One commit may take away an endpoint that the host knows and bring it back unplaced.
            let told = self.sent.endpoints.contains_key(id);
            return if told { Err(Everything) } else { Ok(()) };
        }
        if !self.sent.networks.contains_key(&stored.network) {
            let own = stored.node == *self.node && self.tables.network(&stored.network).is_some();
            return if own { Err(Everything) } else { Ok(()) };
        }
        if let Some(old) = self.sent.endpoints.get(id)
            && old.node != stored.node
        {
            return Err(Everything);
        }
        if !self.sent.peers.contains_key(&stored.node)
            && let Some(peer) = peer(self.tables, &stored.node, self.node)
        {
            self.say(Change::SetPeer(stored.node.clone(), peer));
        }
        self.say(Change::SetEndpoint(Box::new(Endpoint::clone(stored))));
        Ok(())
    }

    fn endpoint_gone(&mut self, id: &EndpointId) -> Result<(), Everything> {
        let Some(gone) = self.sent.endpoints.get(id) else {
            return Ok(());
        };
        // Set again by the same commit, which says so.
        if self.tables.endpoint(id).is_some() {
            return Ok(());
        }
        if gone.node == *self.node && !self.tables.takes_part(self.node, &gone.network) {
            return Err(Everything);
        }
        self.say(Change::RemoveEndpoint(id.clone()));
        if !self.is_neighbour(&gone.node) {
            self.say(Change::RemovePeer(gone.node.clone()));
        }
        Ok(())
    }

    fn node_changed(&mut self, id: &NodeId) -> Result<(), Everything> {
        if id == self.node && self.tables.node(id).is_none() {
            return Err(Everything);
        }
        if id == self.node {
            self.own_ports_changed();
        }
        self.peer_changed(id);
        Ok(())
    }

    fn peer_changed(&mut self, id: &NodeId) {
        let now = if self.is_neighbour(id) {
            peer(self.tables, id, self.node)
        } else {
            None
        };
        if now.as_ref() == self.sent.peers.get(id) {
            return;
        }
        let change = match now {
            Some(peer) => Change::SetPeer(id.clone(), peer),
            None => Change::RemovePeer(id.clone()),
        };
        self.say(change);
    }

    /// The node is another than before: ports that name nodes may open or close on it.
    fn own_ports_changed(&mut self) {
        let services = self.tables.work().services();
        let choosy: Vec<ServiceId> = services
            .filter(|service| chooses(&service.spec.labels))
            .map(|service| service.id.clone())
            .collect();
        for id in &choosy {
            self.service_changed(id);
        }
    }

    fn service_changed(&mut self, id: &ServiceId) {
        let on = |network: &NetworkId| self.sent.networks.contains_key(network);
        let service = self.tables.work().service(id);
        let service = service.filter(|service| is_reached(service, self.tables, on));
        let own = self.tables.node(self.node);
        let now = service.map(|service| route(service, own));
        match (now, self.sent.services.get(id)) {
            (None, None) => {}
            (Some(route), Some(told)) if route == *told => {}
            (Some(route), _) => self.say(Change::SetService(Box::new(route))),
            (None, Some(_)) => self.say(Change::RemoveService(id.clone())),
        }
    }

    fn task_changed(&mut self, id: &TaskId) {
        let own = |task: &&Task| task.node.as_ref() == Some(self.node) && is_told(task);
        let (now, told) = (
            self.tables.work().task(id).filter(own),
            self.sent.tasks.get(id),
        );
        let named = |task: Option<&Task>| -> Vec<_> {
            task.into_iter().flat_map(payloads_of).cloned().collect()
        };
        let (needs, needed) = (named(now), named(told));
        for payload in &needs {
            if !self.sent.payloads.contains_key(payload)
                && let Some(stored) = self.tables.work().payload(payload)
            {
                self.say(Change::SetPayload(Box::new(stored.clone())));
            }
        }
        match (now, told) {
            (None, None) => {}
            (Some(task), _) => self.say(Change::SetTask(Box::new(task.clone()))),
            (None, Some(_)) => self.say(Change::RemoveTask(id.clone())),
        }
        for payload in needed.iter().filter(|id| !needs.contains(id)) {
            if !self.is_needed(payload) {
                self.say(Change::RemovePayload(payload.clone()));
            }
        }
    }

    fn payload_changed(&mut self, id: &SecretId) {
        let stored = self.tables.work().payload(id);
        match stored.filter(|_| self.is_needed(id)) {
            Some(stored) => self.say(Change::SetPayload(Box::new(stored.clone()))),
            None if self.sent.payloads.contains_key(id) => {
                self.say(Change::RemovePayload(id.clone()));
            }
            None => {}
        }
    }

    fn is_needed(&self, payload: &SecretId) -> bool {
        let mut own = self.tables.work().tasks_at(self.node);
        own.any(|task| is_told(task) && payloads_of(task).any(|id| id == payload))
    }
}
