//! Places on overlay networks for network namespaces that are not ours: those of another engine's
//! containers, of services, of virtual machines.
//!
//! A guest has a sandbox record like a container, under an id of its own. Its namespace is held by a
//! mount among those of our sandboxes for as long as its owner has it where it was when it came.

mod follow;
mod handed;
mod places;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use dataplane::{guests, view};
use model::{
    ContainerId, Refusal,
    control::{Answer, Verb},
};
use runtime::network::{ConnectRequest, Connected, NetworkMode, NetworkWish, find_wish};

use follow::hold;
use places::{on, standing, told, wishes_of};
use wish::checked_name;

pub(super) use follow::{is_there, is_up};
pub use handed::{Handed, HandedWish};
pub use places::name_of;
pub(super) use wish::check_names;
pub use wish::{GuestEndpoint, GuestWish, WayOut, Which};

use super::{
    Inner, Networks,
    record::{Guest, SandboxRecord},
    unexpected,
};

impl Networks {
    /// Gives a namespace a place on a network. Asked again for the same, it answers what is there.
    pub async fn attach_guest(&self, wish: GuestWish) -> Result<GuestEndpoint, Refusal> {
        let name = checked_name(&wish)?;
        self.check_overlay(&wish.network)?;
        let seen = look(&wish.netns).await?;
        if wish.gateway {
            self.check_gateway(&wish.network).await?;
        }
        let (record, fresh) = {
            let mut inner = self.inner.lock().await;
            inner.is_nobodys(&wish.netns)?;
            match inner.guest_in(&wish.netns) {
                Some(record) => (record.clone(), false),
                None => (self.welcome(&mut inner, &wish.netns)?, true),
            }
        };
        let id = record.request.container.clone();
        let done = match standing(&record, &wish, &name) {
            Ok(Some(there)) => return Ok(there),
            Ok(None) => self.join_guest(record, &wish, name, seen).await,
            Err(refusal) => Err(refusal),
        };
        if done.is_err() && fresh {
            self.take_back(&id).await;
        }
        done
    }

    async fn join_guest(
        &self,
        record: SandboxRecord,
        wish: &GuestWish,
        name: String,
        seen: guests::Surroundings,
    ) -> Result<GuestEndpoint, Refusal> {
        let mut guest = record.guest.clone().ok_or_else(gone)?;
        let ours = |name: &String| record.interfaces.iter().any(|one| one.name == *name);
        let routed_by_us = record
            .interfaces
            .iter()
            .any(|one| !one.default_via.is_empty());
        if wish.gateway && seen.routed && !routed_by_us {
            return Err(Refusal::conflict(format!(
                "{} has a default route already; attach it without a gateway, or take that route away first",
                wish.netns.display()
            )));
        }
        if let Some(interface) = wish
            .interface
            .as_ref()
            .filter(|name| seen.devices.contains(*name))
        {
            return Err(Refusal::conflict(format!(
                "there is an interface {interface} in {} already; ask for another name, or for none",
                wish.netns.display()
            )));
        }
        guest.taken = seen
            .devices
            .iter()
            .filter(|name| !ours(name))
            .cloned()
            .collect();
        guest.gateway |= wish.gateway;
        let more = NetworkWish {
            network: wish.network.clone(),
            aliases: wish.aliases.clone(),
            addresses: wish.addresses.clone(),
            interface: wish.interface.clone(),
            endpoint: None,
        };
        self.join_network(&record, guest, more, name, &wish.owner)
            .await
    }

    /// Gives a guest a further network, under a name there that may be another than it has elsewhere.
    async fn join_network(
        &self,
        record: &SandboxRecord,
        mut guest: Guest,
        more: NetworkWish,
        name: String,
        owner: &str,
    ) -> Result<GuestEndpoint, Refusal> {
        let network = more.network.clone();
        guest.owners.insert(network.clone(), owner.to_owned());
        let mut request = record.request.clone();
        request.name = name;
        let mut wishes = wishes_of(record).to_vec();
        wishes.push(more);
        request.mode = NetworkMode::Networks(wishes);
        self.rewire_networks(&request, Some(guest)).await?;
        let inner = self.inner.lock().await;
        let record = inner.sandboxes.get(&request.container);
        let record = record.ok_or_else(gone)?;
        let endpoint = on(record, &network).ok_or_else(gone)?;
        Ok(told(record, endpoint))
    }

    fn check_overlay(&self, network: &str) -> Result<(), Refusal> {
        if self.local_networks().find(network).is_none() {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "network {network} is of this host alone; namespaces of others come to overlay networks"
        )))
    }

    /// Takes places away, and leaves namespaces that have none any more.
    pub async fn detach_guests(&self, which: &Which) -> Result<Vec<GuestEndpoint>, Refusal> {
        let meant = self.inner.lock().await.guest_endpoints(which);
        let mut gone = Vec::new();
        for (id, endpoint) in meant {
            self.part_guest(&id, &endpoint).await?;
            gone.push(endpoint);
        }
        Ok(gone)
    }

    async fn part_guest(&self, id: &ContainerId, leaves: &GuestEndpoint) -> Result<(), Refusal> {
        let Some(record) = self.inner.lock().await.sandboxes.get(id).cloned() else {
            return Ok(());
        };
        let mut wishes = wishes_of(&record).to_vec();
        let endpoint = &leaves.endpoint;
        let place = find_wish(&wishes, &endpoint.network_name, &endpoint.network_id);
        let gone = place.map(|place| wishes.remove(place));
        if wishes.is_empty() {
            return self.let_go(id).await;
        }
        let mut request = record.request.clone();
        request.mode = NetworkMode::Networks(wishes);
        let mut guest = record.guest.clone();
        if let (Some(guest), Some(gone)) = (&mut guest, gone) {
            guest.owners.remove(&gone.network);
        }
        self.rewire_networks(&request, guest).await.map(drop)
    }

    /// Leaves a namespace, unless somebody is about to change something of it.
    async fn let_go(&self, id: &ContainerId) -> Result<(), Refusal> {
        if !self.inner.lock().await.connecting.insert(id.clone()) {
            return Err(Refusal::conflict(
                "the namespace is being attached just now; wait for it",
            ));
        }
        self.take_back(id).await;
        self.inner.lock().await.connecting.remove(id);
        Ok(())
    }

    /// All attachments that are meant.
    pub async fn guest_endpoints(&self, which: &Which) -> Vec<GuestEndpoint> {
        let found = self.inner.lock().await.guest_endpoints(which);
        found.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// The search list of the host, for those who write a resolv.conf.
    pub fn search_list(&self) -> Vec<String> {
        crate::host::Resolvers::read(&self.config.resolv_conf).search
    }

    /// A record before the kernel is touched, and the mount that holds the namespace.
    fn welcome(&self, inner: &mut Inner, netns: &Path) -> Result<SandboxRecord, Refusal> {
        let record = self.newcomer(netns, false);
        self.keep(&record)?;
        if let Err(refusal) = hold(&record) {
            let container = &record.request.container;
            if let Err(error) = self.records.remove(container) {
                tracing::warn!(%container, %error, "the sandbox record could not be removed");
            }
            return Err(refusal);
        }
        let container = record.request.container.clone();
        inner.sandboxes.insert(container, record.clone());
        self.guests_come.notify_one();
        Ok(record)
    }

    /// The record of a guest that is on no network yet.
    fn newcomer(&self, source: &Path, handed: bool) -> SandboxRecord {
        let container = ContainerId::from_random(rand::random());
        let file = if handed {
            view::handed_name(container.as_str())
        } else {
            view::guest_name(container.as_str())
        };
        SandboxRecord {
            request: ConnectRequest {
                container,
                name: String::new(),
                hostname: String::new(),
                mode: NetworkMode::Networks(Vec::new()),
                dns: Vec::new(),
                dns_search: Vec::new(),
                dns_options: Vec::new(),
                ports: Vec::new(),
            },
            connected: Connected {
                netns: Some(self.config.run_dir.join("netns").join(file)),
                ..Connected::default()
            },
            interfaces: Vec::new(),
            endpoints: Vec::new(),
            local: Vec::new(),
            running: !handed,
            guest: Some(Guest {
                source: source.to_owned(),
                handed,
                gateway: false,
                taken: BTreeSet::new(),
                owners: BTreeMap::new(),
            }),
        }
    }

    async fn check_gateway(&self, network: &str) -> Result<(), Refusal> {
        let verb = Verb::NetworkInspect {
            reference: network.to_owned(),
        };
        match self.cluster.call(verb).await? {
            Answer::Network(network) if network.spec.internal => Err(Refusal::invalid(format!(
                "network {} is internal: nothing on it has a way out; attach without a gateway",
                network.spec.name
            ))),
            Answer::Network(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

impl Inner {
    fn has_guests(&self) -> bool {
        self.sandboxes.values().any(|record| record.guest.is_some())
    }

    fn guest_in(&self, netns: &Path) -> Option<&SandboxRecord> {
        let here = |record: &&SandboxRecord| {
            let bound = record.connected.netns.as_deref();
            record.guest.is_some() && bound.is_some_and(|bound| guests::same(bound, netns))
        };
        self.sandboxes.values().find(here)
    }

    /// Neither the host's own namespace nor a container's of ours.
    fn is_nobodys(&self, netns: &Path) -> Result<(), Refusal> {
        if guests::same(Path::new("/proc/self/ns/net"), netns) {
            return Err(Refusal::invalid(format!(
                "{} is the network namespace of this host itself; give the program one of its own",
                netns.display()
            )));
        }
        let ours = self.sandboxes.values().find(|record| {
            let bound = record.connected.netns.as_deref();
            record.guest.is_none() && bound.is_some_and(|bound| guests::same(bound, netns))
        });
        match ours {
            None => Ok(()),
            Some(record) => Err(Refusal::conflict(format!(
                "{} is the network namespace of container {1}; use: ovnctl network connect NETWORK {1}",
                netns.display(),
                record.request.name
            ))),
        }
    }

    pub(super) fn guest_endpoints(&self, which: &Which) -> Vec<(ContainerId, GuestEndpoint)> {
        let mut found = Vec::new();
        for (id, record) in &self.sandboxes {
            let Some(guest) = &record.guest else {
                continue;
            };
            if let Some(netns) = &which.netns {
                let bound = record.connected.netns.as_deref();
                let same = bound.is_some_and(|bound| guests::same(bound, netns));
                if guest.source != *netns && !same {
                    continue;
                }
            }
            let on_network = which.network.as_ref().map(|network| on(record, network));
            for endpoint in &record.connected.endpoints {
                let told = told(record, endpoint);
                let by_network = on_network.is_none_or(|meant| meant == Some(endpoint));
                let by_owner = which
                    .owner
                    .as_ref()
                    .is_none_or(|owner| told.owner == *owner);
                if by_network && by_owner {
                    found.push((id.clone(), told));
                }
            }
        }
        found
    }
}

async fn look(netns: &Path) -> Result<guests::Surroundings, Refusal> {
    let path = netns.to_owned();
    let looked = tokio::task::spawn_blocking(move || guests::look(&path)).await;
    let looked = looked.map_err(|error| Refusal::internal(error.to_string()))?;
    looked.map_err(|error| {
        let sentence = format!("network namespace {}: {error}", netns.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Refusal::not_found(sentence),
            _ => Refusal::invalid(sentence),
        }
    })
}

fn gone() -> Refusal {
    Refusal::conflict("the namespace was detached meanwhile; attach it again")
}
