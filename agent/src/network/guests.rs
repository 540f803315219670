//! Places on overlay networks for network namespaces that are not ours: those of another engine's
//! containers, of services, of virtual machines.
//!
//! A guest has a sandbox record like a container, under an id of its own. Its namespace is held by a
//! mount among those of our sandboxes for as long as its owner has it where it was when it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dataplane::{guests, view};
use model::{
    ContainerId, Refusal,
    control::{Answer, Verb},
    name::check_container_name,
};
use runtime::network::{
    ConnectRequest, Connected, ConnectedEndpoint, NetworkMode, NetworkWish, find_wish,
};

use super::{
    Inner, Networks,
    record::{Guest, SandboxRecord},
    unexpected,
};

/// How often it is looked whether the owners still have their namespaces. It costs two calls of
/// the kernel a guest.
const LOOK: Duration = Duration::from_secs(1);
/// IFNAMSIZ without the end.
const LONGEST_NAME: usize = 15;

/// A wish for a place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestWish {
    /// Where the namespace is: a file that it is bound at, or `/proc/PID/ns/net`.
    pub netns: PathBuf,
    pub network: String,
    /// Of the endpoint, in DNS; absent: made of the path.
    pub name: Option<String>,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub interface: Option<String>,
    /// Gives it a way out of the network and a default route.
    pub gateway: bool,
    /// What who asks calls it.
    pub owner: String,
}

/// Which attachments are meant: those that meet all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    pub netns: Option<PathBuf>,
    /// Name, id or beginning of an id.
    pub network: Option<String>,
    pub owner: Option<String>,
}

/// A guest's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEndpoint {
    pub netns: PathBuf,
    /// Where we hold it.
    pub bound: PathBuf,
    pub owner: String,
    pub interface: String,
    pub endpoint: ConnectedEndpoint,
    /// Its way out, with the interface of it.
    pub gateway: Option<WayOut>,
    /// Hosts that had not confirmed in time.
    pub late: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    pub interface: String,
    pub mac: [u8; 6],
    pub addresses: Vec<(IpAddr, u8)>,
    pub via: Vec<IpAddr>,
}

impl Networks {
    /// Gives a namespace a place on a network. Asked again for the same, it answers what is there.
    pub async fn attach_guest(&self, wish: GuestWish) -> Result<GuestEndpoint, Refusal> {
        let name = checked_name(&wish)?;
        if self.local_networks().find(&wish.network).is_some() {
            return Err(Refusal::invalid(format!(
                "network {} is of this host alone; namespaces of others come to overlay networks",
                wish.network
            )));
        }
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
        let (mut request, mut guest) = (
            record.request.clone(),
            record.guest.clone().ok_or_else(gone)?,
        );
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
        guest
            .owners
            .insert(wish.network.clone(), wish.owner.clone());
        let more = NetworkWish {
            network: wish.network.clone(),
            aliases: wish.aliases.clone(),
            addresses: wish.addresses.clone(),
            interface: wish.interface.clone(),
            endpoint: None,
        };
        request.name = name;
        let mut wishes = wishes_of(&record).to_vec();
        wishes.push(more);
        request.mode = NetworkMode::Networks(wishes);
        self.rewire_networks(&request, Some(guest)).await?;
        let inner = self.inner.lock().await;
        let record = inner.sandboxes.get(&request.container);
        let record = record.ok_or_else(gone)?;
        let endpoint = on(record, &wish.network).ok_or_else(gone)?;
        Ok(told(record, endpoint))
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
        let container = ContainerId::from_random(rand::random());
        let target = self.config.run_dir.join("netns");
        let target = target.join(view::guest_name(container.as_str()));
        let record = SandboxRecord {
            request: ConnectRequest {
                container: container.clone(),
                name: String::new(),
                hostname: String::new(),
                mode: NetworkMode::Networks(Vec::new()),
                dns: Vec::new(),
                dns_search: Vec::new(),
                dns_options: Vec::new(),
                ports: Vec::new(),
            },
            connected: Connected {
                netns: Some(target.clone()),
                ..Connected::default()
            },
            interfaces: Vec::new(),
            endpoints: Vec::new(),
            local: Vec::new(),
            running: true,
            guest: Some(Guest {
                source: netns.to_owned(),
                gateway: false,
                taken: BTreeSet::new(),
                owners: BTreeMap::new(),
            }),
        };
        self.keep(&record)?;
        if let Err(error) = guests::bind(netns, &target) {
            if let Err(error) = self.records.remove(&container) {
                tracing::warn!(%container, %error, "the sandbox record could not be removed");
            }
            return Err(Refusal::internal(format!(
                "{} cannot be held: {error}",
                netns.display()
            )));
        }
        inner.sandboxes.insert(container, record.clone());
        Ok(record)
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

    /// Leaves namespaces whose owners have them no longer.
    pub(super) async fn follow_guests(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let left: Vec<ContainerId> = {
                let inner = self.inner.lock().await;
                if !inner.adopted {
                    continue;
                }
                let gone = |record: &&SandboxRecord| record.guest.is_some() && !is_held(record);
                let records = inner.sandboxes.values().filter(gone);
                let ids = records.map(|record| &record.request.container);
                ids.filter(|id| !inner.connecting.contains(*id))
                    .cloned()
                    .collect()
            };
            for id in left {
                tracing::info!(guest = %id, "its namespace has gone");
                if let Err(refusal) = self.let_go(&id).await {
                    tracing::debug!(guest = %id, %refusal, "it is left later");
                }
            }
        }
    }
}

impl Inner {
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

    fn guest_endpoints(&self, which: &Which) -> Vec<(ContainerId, GuestEndpoint)> {
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

/// Whether it is a guest that is to be kept after a start: one without a network was not attached
/// to the end.
pub(super) fn is_there(record: &SandboxRecord) -> bool {
    !record.endpoints.is_empty() && is_held(record)
}

/// Whether the namespace that we hold is still where its owner had it.
fn is_held(record: &SandboxRecord) -> bool {
    let bound = record.connected.netns.as_deref();
    match (&record.guest, bound) {
        (Some(guest), Some(bound)) => guests::same(bound, &guest.source),
        _ => false,
    }
}

/// What the members of a network call it.
pub(super) fn name_of<'a>(record: &'a SandboxRecord, endpoint: &'a ConnectedEndpoint) -> &'a str {
    let name = endpoint
        .dns_names
        .first()
        .filter(|_| record.guest.is_some());
    name.unwrap_or(&record.request.name)
}

fn wishes_of(record: &SandboxRecord) -> &[NetworkWish] {
    match &record.request.mode {
        NetworkMode::Networks(wishes) => wishes,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => &[],
    }
}

/// Its endpoint on the network of that name, id or beginning of an id.
fn on<'a>(record: &'a SandboxRecord, network: &str) -> Option<&'a ConnectedEndpoint> {
    let endpoints = &record.connected.endpoints;
    let by_name = endpoints.iter().find(|one| one.network_name == network);
    by_name.or_else(|| {
        let part = |one: &&ConnectedEndpoint| one.network_id.starts_with(network);
        endpoints.iter().find(part).filter(|_| !network.is_empty())
    })
}

/// What is there already of a wish; an error where there is another attachment to the network.
fn standing(
    record: &SandboxRecord,
    wish: &GuestWish,
    name: &str,
) -> Result<Option<GuestEndpoint>, Refusal> {
    let Some(endpoint) = on(record, &wish.network) else {
        return Ok(None);
    };
    let there = told(record, endpoint);
    let given = |address: &IpAddr| endpoint.addresses.iter().any(|(one, _)| one == address);
    let same = there.owner == wish.owner
        && name_of(record, endpoint) == name
        && endpoint.aliases == wish.aliases
        && wish.addresses.iter().all(given)
        && wish
            .interface
            .as_ref()
            .is_none_or(|one| there.interface == *one)
        && (there.gateway.is_some() || !wish.gateway);
    if same {
        return Ok(Some(there));
    }
    Err(Refusal::conflict(format!(
        "{} is on network {} already, as {} with interface {}; detach it first",
        wish.netns.display(),
        endpoint.network_name,
        name_of(record, endpoint),
        there.interface
    )))
}

fn told(record: &SandboxRecord, endpoint: &ConnectedEndpoint) -> GuestEndpoint {
    let mut interfaces = record.interfaces.iter();
    let interface = interfaces.find(|one| one.endpoint == endpoint.endpoint_id);
    let wishes = wishes_of(record);
    let wish = find_wish(wishes, &endpoint.network_name, &endpoint.network_id);
    let wish = wish.and_then(|place| wishes.get(place));
    let mut ways = record.interfaces.iter();
    let way = ways.find(|one| !one.default_via.is_empty());
    let guest = record.guest.as_ref();
    GuestEndpoint {
        netns: guest.map(|guest| guest.source.clone()).unwrap_or_default(),
        owner: guest
            .and_then(|guest| guest.owners.get(&wish?.network).cloned())
            .unwrap_or_default(),
        bound: record.connected.netns.clone().unwrap_or_default(),
        interface: interface.map(|one| one.name.clone()).unwrap_or_default(),
        endpoint: endpoint.clone(),
        gateway: way.map(|one| WayOut {
            interface: one.name.clone(),
            mac: one.mac,
            addresses: one
                .addresses
                .iter()
                .map(|net| (net.ip(), net.prefix()))
                .collect(),
            via: one.default_via.clone(),
        }),
        late: record.connected.late.clone(),
    }
}

/// The name in DNS, all else that the user gave looked at too.
fn checked_name(wish: &GuestWish) -> Result<String, Refusal> {
    if !wish.netns.is_absolute() {
        return Err(Refusal::invalid(format!(
            "{:?} is no absolute path of a network namespace, as /run/netns/NAME or /proc/PID/ns/net are",
            wish.netns.display().to_string()
        )));
    }
    if let Some(interface) = &wish.interface {
        let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let reserved = matches!(interface.as_str(), "." | ".." | "lo");
        if interface.is_empty()
            || interface.len() > LONGEST_NAME
            || !interface.chars().all(fits)
            || reserved
        {
            return Err(Refusal::invalid(format!(
                "{interface:?} is no name for an interface: 1 to {LONGEST_NAME} visible characters without / and :"
            )));
        }
    }
    let name = match &wish.name {
        Some(name) => name.clone(),
        None => name_by_path(&wish.netns),
    };
    let names = std::iter::once(&name).chain(&wish.aliases);
    for name in names {
        check_container_name(name)?;
    }
    Ok(name)
}

/// `/run/netns/web` is `web`, `/proc/12/ns/net` is `pid-12`.
fn name_by_path(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        [.., "proc", pid, "ns", "net"] => format!("pid-{pid}"),
        [.., last] => last.to_owned(),
        [] => String::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_paths() {
        for (path, name) in [
            ("/run/netns/web", "web"),
            ("/proc/12/ns/net", "pid-12"),
            ("/run/docker/netns/0a1b", "0a1b"),
            ("/", "/"),
        ] {
            assert_eq!(name_by_path(Path::new(path)), name);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_asked() {
        let good = GuestWish {
            netns: "/run/netns/web".into(),
            network: "ch03".into(),
            ..GuestWish::default()
        };
        assert_eq!(checked_name(&good).unwrap(), "web");
        let bad = |change: &dyn Fn(&mut GuestWish)| {
            let mut wish = good.clone();
            change(&mut wish);
            checked_name(&wish).unwrap_err().message
        };
        for (said, part) in [
            (bad(&|w| w.netns = "run/netns/web".into()), "absolute"),
            (bad(&|w| w.netns = "/".into()), "container name"),
            (bad(&|w| w.name = Some("a b".into())), "container name"),
            (bad(&|w| w.aliases = vec!["-x".into()]), "container name"),
            (
                bad(&|w| w.interface = Some("a/b".into())),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some("lo".into())),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some("x".repeat(16))),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some(String::new())),
                "no name for an interface",
            ),
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
