//! Networks that a running container comes to and goes from.

use std::{collections::BTreeSet, net::IpAddr};

use dataplane::desired::Interface;
use ipnetwork::IpNetwork;
use model::{EndpointOwner, Refusal, RefusalKind, control::Attached};
use runtime::network::{ConnectRequest, Connected, NetworkMode, NetworkWish, find_wish};

use super::{
    Inner, Networks,
    connect::made,
    endpoints::endpoints_of,
    local::LocalNetwork,
    record::{GivenEndpoint, Guest, SandboxRecord},
    report,
    sandbox::{self, Given},
};

impl Networks {
    /// See [`runtime::network::Network::rewire`]; `guest` is what a guest's record says from then on.
    pub(super) async fn rewire_networks(
        &self,
        request: &ConnectRequest,
        guest: Option<Guest>,
    ) -> Result<Connected, Refusal> {
        let before = {
            let mut inner = self.inner.lock().await;
            let Some(record) = inner.sandboxes.get(&request.container).cloned() else {
                return Err(Refusal::conflict(format!(
                    "container {} has no network namespace of its own; it is about to start or to end",
                    request.name
                )));
            };
            if !inner.connecting.insert(request.container.clone()) {
                return Err(Refusal::conflict(format!(
                    "container {} is being connected already; wait for it",
                    request.name
                )));
            }
            record
        };
        let outcome = self.rewire_record(before, request, guest).await;
        let mut inner = self.inner.lock().await;
        inner.connecting.remove(&request.container);
        if outcome.is_ok() {
            // It is where it should be by the newest word.
            inner.left.remove(&request.container);
        }
        outcome
    }

    /// Takes containers back to the networks that the engine has of them: a kill between the two
    /// left them on others. The error: no manager answers, it is to be tried again.
    pub(super) async fn rewire_left(&self) -> Result<(), Refusal> {
        let left = self.inner.lock().await.left.clone();
        for request in left.values() {
            tracing::warn!(container = request.name, "goes back to the networks it had");
            match self.rewire_networks(request, None).await {
                Ok(_) => {}
                Err(refusal) if refusal.kind == RefusalKind::Unavailable => return Err(refusal),
                Err(refusal) => {
                    tracing::error!(container = request.name, %refusal, "its networks stay as they are");
                    self.inner.lock().await.left.remove(&request.container);
                }
            }
        }
        Ok(())
    }

    async fn rewire_record(
        &self,
        before: SandboxRecord,
        request: &ConnectRequest,
        guest: Option<Guest>,
    ) -> Result<Connected, Refusal> {
        let (old, new) = (wishes(&before.request.mode), wishes(&request.mode));
        let more: Vec<NetworkWish> = new.iter().filter(|w| !old.contains(w)).cloned().collect();
        let gone = |wish: &NetworkWish| !new.contains(wish);
        for wish in &more {
            self.check_wish(wish).await?;
        }
        let attached = self.attach_all(request, &more).await?;
        let undo = endpoints_of(&attached);
        let newest = attached.iter().flatten().map(|one| one.generation).max();
        if let Some(generation) = newest
            && let Err(refusal) = self.wait_reached(generation).await
        {
            self.detach_all(undo).await;
            return Err(refusal);
        }
        let mut inner = self.inner.lock().await;
        let mut after = before.clone();
        after.request = request.clone();
        after.guest = guest.or(after.guest);
        let left = leave(&mut after, old, gone);
        let joined = self.join(&mut inner, &mut after, &more, &attached);
        let started = joined.and_then(|()| {
            self.route(&mut inner, &mut after)?;
            self.program(&mut inner, &after)
        });
        drop(inner);
        let outcome = match started {
            Ok(report) => made(&after, &report.await),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.restore(&before, &after).await;
            self.detach_all(undo).await;
            return Err(refusal);
        }
        let mut inner = self.inner.lock().await;
        for (network, address) in before.local.iter().filter(|one| !after.local.contains(one)) {
            inner.addresses.take_back(network, *address);
        }
        drop(inner);
        self.detach_all(left).await;
        // Its new names are told as soon as it is known to run.
        self.untidy.notify_one();
        Ok(after.connected)
    }

    /// What was before, after a failure.
    async fn restore(&self, before: &SandboxRecord, after: &SandboxRecord) {
        let mut inner = self.inner.lock().await;
        for (network, address) in after.local.iter().filter(|one| !before.local.contains(one)) {
            inner.addresses.take_back(network, *address);
        }
        let restored = self.program(&mut inner, before);
        drop(inner);
        match restored {
            Ok(outcome) => report("networks as they were", &outcome.await),
            Err(refusal) => tracing::error!(%refusal, "networks as they were"),
        }
    }

    /// Adds what was given for further networks.
    fn join(
        &self,
        inner: &mut Inner,
        record: &mut SandboxRecord,
        more: &[NetworkWish],
        attached: &[Option<Attached>],
    ) -> Result<(), Refusal> {
        for (wish, attached) in more.iter().zip(attached) {
            let aliases = wish.aliases.clone();
            let given = match (attached, self.local_of(wish)) {
                (Some(attached), _) => {
                    record.endpoints.push(GivenEndpoint {
                        endpoint: attached.endpoint.id.clone(),
                        network: attached.network.id.clone(),
                        names: attached.endpoint.names.clone(),
                        task: matches!(attached.endpoint.owner, EndpointOwner::Task { .. }),
                    });
                    Given::Overlay {
                        attached: Box::new(attached.clone()),
                        aliases,
                    }
                }
                (None, Some(network)) => Given::Local {
                    addresses: give_local(inner, record, &network, &wish.addresses)?,
                    names: sandbox::local_names(&record.request, wish, &network),
                    network: Box::new(network),
                    aliases,
                },
                (None, None) => {
                    return Err(Refusal::not_found(format!(
                        "network {} not found",
                        wish.network
                    )));
                }
            };
            add(record, given, Name::of(wish));
        }
        Ok(())
    }

    /// The way out: over the first local network that is not internal; over the gateway bridge where there is none and
    /// a network wants one.
    fn route(&self, inner: &mut Inner, record: &mut SandboxRecord) -> Result<(), Refusal> {
        let local = self.local_networks();
        let bridge = &local.gateway_bridge;
        let networks = &inner.assignments.networks;
        let specs = record.endpoints.iter().filter_map(|given| {
            let network = networks.get(&given.network)?;
            Some(&network.spec)
        });
        let (ingress, own): (Vec<_>, Vec<_>) = specs.partition(|spec| spec.ingress);
        let wants = if let Some(guest) = &record.guest {
            guest.gateway
        } else if own.is_empty() {
            !ingress.is_empty()
        } else {
            own.iter().any(|spec| !spec.internal)
        };
        let ways_out = |interface: &Interface| {
            let network = local.get(&interface.network);
            network.map(LocalNetwork::ways_out).unwrap_or_default()
        };
        let mut others = record.interfaces.iter();
        let has_other = others.any(|one| !ways_out(one).is_empty() && one.network != bridge.id);
        if has_other || !wants {
            record.interfaces.retain(|one| one.network != bridge.id);
            record.local.retain(|(network, _)| *network != bridge.id);
        } else if !record.interfaces.iter().any(|one| one.network == bridge.id) {
            let given = Given::Local {
                addresses: give_local(inner, record, bridge, &[])?,
                network: Box::new(bridge.clone()),
                aliases: Vec::new(),
                names: Vec::new(),
            };
            let name = Name::of_way_out(record);
            add(record, given, name);
        }
        let mut routed = BTreeSet::new();
        for interface in &mut record.interfaces {
            interface.default_via = ways_out(interface);
            // One of each family.
            let first = |via: &IpAddr| routed.insert(via.is_ipv6());
            interface.default_via.retain(first);
        }
        Ok(())
    }
}

fn give_local(
    inner: &mut Inner,
    record: &mut SandboxRecord,
    network: &LocalNetwork,
    wanted: &[IpAddr],
) -> Result<Vec<IpNetwork>, Refusal> {
    let addresses = inner.addresses.give(network, wanted)?;
    let given = addresses.iter().map(|one| (network.id.clone(), one.ip()));
    record.local.extend(given);
    Ok(addresses)
}

fn wishes(mode: &NetworkMode) -> &[NetworkWish] {
    match mode {
        NetworkMode::Networks(wishes) => wishes,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => &[],
    }
}

/// What an interface is called.
#[derive(Clone, Copy)]
enum Name<'a> {
    Wished(&'a str),
    /// The next free one that begins so.
    Next(&'a str),
}

impl<'a> Name<'a> {
    fn of(wish: &'a NetworkWish) -> Self {
        let wished = wish.interface.as_deref();
        wished.map_or(Self::Next("eth"), Self::Wished)
    }

    /// Who brings a guest to a network may have the names `eth0`, `eth1`, … for the next ones.
    fn of_way_out(record: &SandboxRecord) -> Self {
        let guest = record.guest.is_some();
        Self::Next(if guest { "gw" } else { "eth" })
    }
}

/// Adds an interface, and what `inspect` shows of it.
fn add(record: &mut SandboxRecord, given: Given, name: Name<'_>) {
    let container = record.request.container.clone();
    let given = [given];
    for mut interface in sandbox::interfaces(&container, &given) {
        let of_others = record.guest.as_ref().map(|guest| &guest.taken);
        let taken = |name: &str| {
            let ours = record.interfaces.iter().any(|one| one.name == name);
            ours || of_others.is_some_and(|names| names.contains(name))
        };
        interface.name = match name {
            Name::Wished(name) => name.to_owned(),
            Name::Next(prefix) => {
                let mut names = (0u32..).map(|number| format!("{prefix}{number}"));
                names.find(|name| !taken(name)).unwrap_or_default()
            }
        };
        record.interfaces.push(interface);
    }
    let shown = sandbox::shown(&given, &container);
    record.connected.endpoints.extend(shown);
}

/// Takes out networks that are not wished for any more; the endpoints to be given back.
fn leave(
    record: &mut SandboxRecord,
    old: &[NetworkWish],
    gone: impl Fn(&NetworkWish) -> bool,
) -> Vec<model::EndpointId> {
    let mut networks = Vec::new();
    record.connected.endpoints.retain(|endpoint| {
        let place = find_wish(old, &endpoint.network_name, &endpoint.network_id);
        let goes = place.and_then(|place| old.get(place)).is_some_and(&gone);
        if goes {
            networks.push(endpoint.network_id.clone());
        }
        !goes
    });
    let left = |network: &str| networks.iter().any(|one| one == network);
    record.interfaces.retain(|one| !left(&one.network));
    record.local.retain(|(network, _)| !left(network));
    let (back, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut record.endpoints)
        .into_iter()
        .partition(|given| left(given.network.as_str()));
    record.endpoints = kept;
    let own = back.into_iter().filter(|given| !given.task);
    own.map(|given| given.endpoint).collect()
}
