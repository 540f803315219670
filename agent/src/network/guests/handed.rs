//! Interfaces that another engine takes into its containers by itself.
//!
//! Such a guest begins without a namespace: its interface is born in the host's, with a name by
//! which the owner finds it. Once the owner has taken it to where he said he would, the namespace
//! is held and looked after like every guest's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dataplane::{desired::Change as Step, guests, view};
use model::{ContainerId, Refusal};
use runtime::network::{NetworkMode, NetworkWish};

use super::{
    GuestEndpoint, Which, gone, hold, look,
    places::{on, wishes_of},
    wish::check_names,
};
use crate::network::{Inner, Networks, connect::made, record::SandboxRecord};

/// How soon it is looked again for an interface that is on its way: the container's first program
/// runs some tens of milliseconds after it has arrived, and is to find its name server.
const SOON: Duration = Duration::from_millis(3);
/// For how long it is looked so often.
const HASTE: Duration = Duration::from_secs(30);
/// What nobody has taken after this time is given back: its owner has died over it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A wish for an interface that its owner takes away himself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandedWish {
    pub network: String,
    /// In DNS.
    pub name: String,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// What who asks calls it.
    pub owner: String,
}

/// What the owner is to know of an interface that he takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// What it is called in the host's namespace.
    pub device: String,
    /// Nothing on its network has a way out.
    pub internal: bool,
}

/// Since when guests are waited for.
pub(super) type Awaited = BTreeMap<ContainerId, Instant>;

/// Whether its owner has not taken it yet.
pub(super) fn waits(record: &SandboxRecord) -> bool {
    let bound = record.connected.netns.as_deref();
    let handed = record.guest.as_ref().is_some_and(|guest| guest.handed);
    handed && !bound.is_some_and(guests::is_namespace)
}

impl Networks {
    /// Makes such an interface. Asked again by the same owner, it answers what is there.
    pub async fn hand_out(&self, wish: HandedWish) -> Result<GuestEndpoint, Refusal> {
        check_names(&wish.name, &wish.aliases)?;
        self.check_overlay(&wish.network)?;
        let there = self.guest_endpoints(&by(&wish.owner)).await;
        if let Some(there) = there.into_iter().next() {
            return Ok(there);
        }
        let record = self.newcomer(Path::new(""), true);
        let id = record.request.container.clone();
        let guest = record.guest.clone().ok_or_else(gone)?;
        self.inner
            .lock()
            .await
            .sandboxes
            .insert(id.clone(), record.clone());
        let more = NetworkWish {
            aliases: wish.aliases,
            addresses: wish.addresses,
            ..NetworkWish::named(wish.network)
        };
        let joined = self.join_network(&record, guest, more, wish.name, &wish.owner);
        let joined = joined.await;
        if joined.is_err() {
            self.take_back(&id).await;
        }
        self.guests_come.notify_one();
        joined
    }

    /// Another owner has it from now on.
    pub async fn hand_on(&self, from: &str, to: &str) -> Result<GuestEndpoint, Refusal> {
        let mut inner = self.inner.lock().await;
        let (id, endpoint) = inner.owned(from)?;
        let record = inner.sandboxes.get_mut(&id).ok_or_else(gone)?;
        if let Some(guest) = &mut record.guest {
            for owner in guest.owners.values_mut().filter(|owner| *owner == from) {
                to.clone_into(owner);
            }
        }
        self.keep(record)?;
        Ok(GuestEndpoint {
            owner: to.to_owned(),
            ..endpoint
        })
    }

    /// The owner is about to take it to the namespace that is there, or will be.
    pub async fn hand_to(&self, owner: &str, netns: PathBuf) -> Result<Handed, Refusal> {
        let mut inner = self.inner.lock().await;
        let (id, endpoint) = inner.owned(owner)?;
        let network = &endpoint.endpoint.network_id;
        let others = inner.sandboxes.values().filter(|one| {
            let guest = one.guest.as_ref();
            one.request.container != id && guest.is_some_and(|guest| guest.source == netns)
        });
        for other in others {
            if on(other, network).is_some() {
                return Err(Refusal::conflict(format!(
                    "the container is on network {} already, by another network of its engine",
                    endpoint.endpoint.network_name
                )));
            }
        }
        let internal = inner.assignments.networks.iter();
        let mut internal = internal.filter(|(id, _)| id.as_str() == network);
        let internal = internal.any(|(_, network)| network.spec.internal);
        let record = inner.sandboxes.get_mut(&id).ok_or_else(gone)?;
        if let Some(guest) = &mut record.guest {
            guest.source = netns;
        }
        self.keep(record)?;
        self.guests_come.notify_one();
        Ok(Handed {
            device: view::handed_device(&endpoint.endpoint.endpoint_id),
            internal,
        })
    }

    /// Looks for interfaces on their way and goes after them; after which time to look again.
    pub(super) async fn follow_handed(&self, awaited: &mut Awaited) -> Option<Duration> {
        let waiting: Vec<SandboxRecord> = {
            let inner = self.inner.lock().await;
            let waiting = inner.sandboxes.values().filter(|record| {
                inner.adopted
                    && waits(record)
                    && !inner.connecting.contains(&record.request.container)
            });
            waiting.cloned().collect()
        };
        let now = Instant::now();
        awaited.retain(|id, _| waiting.iter().any(|one| one.request.container == *id));
        let mut soon = false;
        for record in waiting {
            let id = record.request.container.clone();
            let since = *awaited.entry(id.clone()).or_insert(now);
            if now.duration_since(since) > PATIENCE {
                tracing::warn!(guest = %id, "nobody has taken its interface; it is given back");
                let _ = self.let_go(&id).await;
                continue;
            }
            let source = record.guest.map(|guest| guest.source).unwrap_or_default();
            if source.as_os_str().is_empty() {
                continue;
            }
            soon |= now.duration_since(since) < HASTE;
            if guests::is_namespace(&source)
                && let Err(refusal) = self.follow_into(&id, &source).await
            {
                tracing::debug!(guest = %id, %refusal, "its interface cannot be followed yet");
            }
        }
        soon.then_some(SOON)
    }

    async fn follow_into(&self, id: &ContainerId, source: &Path) -> Result<(), Refusal> {
        let seen = look(source).await?;
        let mut inner = self.inner.lock().await;
        let Some(mut record) = inner.sandboxes.get(id).cloned() else {
            return Ok(());
        };
        let Some(interface) = record.interfaces.first_mut() else {
            return Ok(());
        };
        // Once it is up its owner has given it its name and its addresses. It comes in a moment.
        let born = view::handed_device(&interface.endpoint);
        let name = seen.ours.get(&view::port_name(&interface.endpoint));
        let Some(name) = name.filter(|name| **name != born) else {
            return Ok(());
        };
        interface.name.clone_from(name);
        let mut steps = Vec::new();
        let mut stays = match inner.guest_in(source).cloned() {
            Some(other) if inner.connecting.contains(&other.request.container) => return Ok(()),
            Some(mut other) => {
                steps.push(Step::RemoveSandbox(id.to_string()));
                merge(&mut other, record);
                other
            }
            None => {
                hold(&record)?;
                record
            }
        };
        let ours: Vec<&String> = seen.ours.values().collect();
        if let Some(guest) = &mut stays.guest {
            let of_others = seen.devices.iter().filter(|name| !ours.contains(name));
            guest.taken = of_others.cloned().collect();
        }
        stays.running = true;
        self.keep(&stays)?;
        if stays.request.container != *id {
            inner.sandboxes.remove(id);
            if let Err(error) = self.records.remove(id) {
                tracing::warn!(guest = %id, %error, "the sandbox record could not be removed");
            }
        }
        let container = stays.request.container.clone();
        inner.sandboxes.insert(container, stays.clone());
        steps.extend(self.sandbox_step(&inner, &stays));
        let laid = self.dataplane.change(steps);
        drop(inner);
        let laid = made(&stays, &laid.await);
        self.untidy.notify_one();
        laid
    }
}

impl Inner {
    fn owned(&self, owner: &str) -> Result<(ContainerId, GuestEndpoint), Refusal> {
        let mut found = self.guest_endpoints(&by(owner));
        found
            .pop()
            .ok_or_else(|| Refusal::not_found(format!("there is no interface of {owner}")))
    }
}

fn by(owner: &str) -> Which {
    Which {
        owner: Some(owner.to_owned()),
        ..Which::default()
    }
}

/// One namespace is one guest, with all its networks. After a kill it may have been done already.
fn merge(stays: &mut SandboxRecord, comes: SandboxRecord) {
    let known = |endpoint: &str| {
        let mut there = stays.interfaces.iter();
        there.any(|one| one.endpoint == endpoint)
    };
    if comes.interfaces.iter().any(|one| known(&one.endpoint)) {
        return;
    }
    let mut wishes = wishes_of(stays).to_vec();
    wishes.extend(wishes_of(&comes).iter().cloned());
    stays.request.mode = NetworkMode::Networks(wishes);
    stays.interfaces.extend(comes.interfaces);
    stays.endpoints.extend(comes.endpoints);
    stays.connected.endpoints.extend(comes.connected.endpoints);
    stays.connected.late.extend(comes.connected.late);
    if let (Some(guest), Some(other)) = (&mut stays.guest, comes.guest) {
        guest.owners.extend(other.owners);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::guests::places::told;

    fn guest(number: u8, network: &str) -> SandboxRecord {
        let text = serde_json::json!({
            "request": {
                "container": ContainerId::from_random([number; 32]), "name": "web", "hostname": "",
                "mode": {"Networks": [{"network": network}]},
            },
            "connected": {"netns": format!("/nonexistent/guest-handed-{number}"), "resolv_conf": "",
                "hosts": [], "endpoints": [{
                    "network_name": network, "network_id": network, "endpoint_id": network,
                    "addresses": [], "gateways": [], "mac": "", "aliases": [], "dns_names": ["web"],
                }]},
            "interfaces": [{"endpoint": network, "network": network, "name": "eth0",
                "addresses": [], "mac": [2, 0, 0, 0, 0, number], "default_via": []}],
            "endpoints": [{"endpoint": network, "network": network, "names": ["web"]}],
            "local": [], "running": false,
            "guest": {"source": "", "handed": true, "gateway": false, "taken": [],
                "owners": {network: format!("owner {number}")}},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn two_of_one_namespace_become_one_and_only_once() {
        let (mut stays, comes) = (guest(1, "ch03"), guest(2, "red"));
        assert!(waits(&stays));
        merge(&mut stays, comes.clone());
        let once = stays.clone();
        merge(&mut stays, comes);
        assert_eq!(stays, once);
        assert_eq!(wishes_of(&stays).len(), 2);
        for (network, owner) in [("ch03", "owner 1"), ("red", "owner 2")] {
            let endpoint = on(&stays, network).unwrap();
            assert_eq!(told(&stays, endpoint).owner, owner);
        }
        assert_eq!((stays.interfaces.len(), stays.endpoints.len()), (2, 2));
    }
}
