//! The kernel as one object: the namespaces we hold sockets in, and the look at them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    place::{Sockets, inside, is_namespace},
    ports::HeldPorts,
    sight,
    tables::{HostTables, Tables},
    tunnels::Tunnels,
    ways,
};
use ipnetwork::IpNetwork;

use crate::{
    firewall,
    report::Error,
    rules::TableName,
    view::{Forwarding, Observed, Passages, Place, bridge_name, vxlan_name},
};

/// Files of overlay networks among the containers' in `netns/`, which are named by their ids.
const OVERLAY: &str = "overlay-";

/// Owns all sockets; used by one thread, in the host's network namespace.
pub struct Linux {
    pub(super) folder: PathBuf,
    pub(super) host: Sockets,
    /// What was read of the host's nftables last.
    pub(super) tables: Option<HostTables>,
    pub(super) overlays: BTreeMap<String, Space>,
    pub(super) sandboxes: BTreeMap<PathBuf, Space>,
    /// Sandboxes that are bound outside our folder; they are not found again by a scan.
    foreign: BTreeSet<PathBuf>,
    pub(super) ports: HeldPorts,
    pub(super) tunnels: Tunnels,
}

/// A namespace that is open.
pub(super) struct Space {
    pub namespace: File,
    pub sockets: Sockets,
    /// What was read last; of a sandbox only.
    pub tables: Option<Tables>,
}

impl Space {
    fn open(path: &Path, overlay: bool) -> io::Result<Self> {
        let namespace = File::open(path)?;
        let sockets = inside(&namespace, || Sockets::open_here(!overlay, overlay))?;
        Ok(Self {
            namespace,
            sockets,
            tables: None,
        })
    }

    /// Another namespace may have been bound at the same path since.
    fn is_at(&self, path: &Path) -> bool {
        let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (self.namespace.metadata(), fs::metadata(path)) {
            (Ok(own), Ok(found)) => place(own) == place(found),
            _ => false,
        }
    }
}

impl Linux {
    /// In the calling thread's network namespace.
    pub fn open(run_dir: &Path) -> Result<Self, Error> {
        let folder = run_dir.join("netns");
        fs::create_dir_all(&folder).map_err(|source| Error::Folder {
            path: folder.clone(),
            source,
        })?;
        let host = Sockets::open_here(true, true).map_err(Error::Host)?;
        Ok(Self {
            folder,
            host,
            tables: None,
            overlays: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            foreign: BTreeSet::new(),
            ports: HeldPorts::new(),
            tunnels: Tunnels::open(run_dir),
        })
    }

    /// Lets later looks find a sandbox wherever it is bound.
    pub fn remember(&mut self, sandbox: &Path) {
        if sandbox.parent() != Some(&self.folder) {
            self.foreign.insert(sandbox.to_owned());
        }
    }

    pub(super) fn forget(&mut self, sandbox: &Path) {
        self.foreign.remove(sandbox);
        self.sandboxes.remove(sandbox);
    }

    /// Everything of ours.
    pub fn observe(&mut self) -> io::Result<Observed> {
        let mut places = vec![Place::Host];
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            places.push(match name.strip_prefix(OVERLAY) {
                Some(tag) => Place::Overlay(tag.to_owned()),
                None => Place::Sandbox(entry.path()),
            });
        }
        places.extend(self.foreign.iter().cloned().map(Place::Sandbox));
        self.overlays
            .retain(|tag, _| places.contains(&Place::Overlay(tag.clone())));
        self.sandboxes
            .retain(|path, _| places.contains(&Place::Sandbox(path.clone())));
        let mut observed = Observed::default();
        for place in &places {
            self.look(place, &mut observed)?;
        }
        Ok(observed)
    }

    /// Renews what `observed` says of one place.
    pub fn look(&mut self, place: &Place, observed: &mut Observed) -> io::Result<()> {
        match place {
            Place::Host => self.look_host(observed),
            Place::Overlay(tag) => {
                // A local bridge of the same tag belongs to the look at the host.
                let segments = &mut observed.view.segments;
                if segments.get(tag).is_some_and(|found| found.own_namespace) {
                    segments.remove(tag);
                }
                let Some(space) = self.space(place)? else {
                    return Ok(());
                };
                let sight = sight::look(&mut space.sockets.route, true, false)?;
                let segment = sight.segment(&bridge_name(tag), &vxlan_name(tag), true);
                observed.view.segments.insert(tag.clone(), segment);
                Ok(())
            }
            Place::Sandbox(path) => {
                observed.view.sandboxes.remove(path);
                let Some(space) = self.space(place)? else {
                    return Ok(());
                };
                let sight = sight::look(&mut space.sockets.route, false, true)?;
                let mut sandbox = sight.sandbox();
                let tables = space.tables()?;
                sandbox.table.clone_from(&tables.resolver);
                sandbox.balance.clone_from(&tables.balance);
                sandbox.ingress.clone_from(&tables.ingress);
                sandbox.back.clone_from(&tables.back);
                observed.view.sandboxes.insert(path.clone(), sandbox);
                Ok(())
            }
        }
    }

    fn look_host(&mut self, observed: &mut Observed) -> io::Result<()> {
        let sight = sight::look(&mut self.host.route, true, true)?;
        let view = &mut observed.view;
        view.segments.retain(|_, segment| segment.own_namespace);
        for link in sight.links.values().filter(|link| link.kind == "bridge") {
            if let Some((tag, _)) = link.bridge_tag() {
                let segment = sight.segment(&link.name, &vxlan_name(tag), false);
                view.segments.insert(tag.to_owned(), segment);
            }
        }
        (view.table, view.ingress, view.passages) = match self.host_tables()? {
            Some(tables) => (tables.host.clone(), tables.ingress.clone(), tables.passages),
            None => (None, None, Passages::default()),
        };
        view.gateways = sight
            .sandbox()
            .interfaces
            .into_iter()
            .filter_map(|(name, end)| Some((name.strip_prefix("ovtg")?.to_owned(), end)))
            .collect();
        view.ports = self.ports.published();
        view.tunnels = self.tunnels.look(&sight);
        let link = |index| sight.links.get(&index);
        view.ways = ways::read(&mut self.host.route, &sight.ways, link)?;
        let on = |name: &str| {
            fs::read_to_string(Path::new("/proc/sys/net").join(name))
                .is_ok_and(|text| text.trim() != "0")
        };
        view.forwarding = Forwarding {
            ipv4: on("ipv4/ip_forward"),
            ipv6: on("ipv6/conf/all/forwarding"),
        };
        let facts = &mut observed.facts;
        facts.addresses.clear();
        facts.interfaces.clear();
        for (index, addresses) in &sight.addresses {
            // Our own bridges say nothing of the host.
            let Some(link) = sight.links.get(index).filter(|link| !link.is_ours()) else {
                continue;
            };
            for address in addresses {
                facts.addresses.insert(address.ip(), link.mtu);
            }
            let own = sight.own_addresses(*index);
            if !own.is_empty() {
                let own = own.iter().map(IpNetwork::ip).collect();
                facts.interfaces.insert(link.name.clone(), own);
            }
        }
        let default = sight.routes.first();
        facts.default_mtu = default
            .and_then(|(_, index)| sight.links.get(index))
            .map(|link| link.mtu);
        Ok(())
    }

    pub(super) fn path(&self, place: &Place) -> PathBuf {
        match place {
            Place::Host => PathBuf::from("/proc/thread-self/ns/net"),
            Place::Overlay(tag) => self.folder.join(format!("{OVERLAY}{tag}")),
            Place::Sandbox(path) => path.clone(),
        }
    }

    /// The namespace of an overlay network or a sandbox; none where none is bound.
    pub(super) fn space(&mut self, place: &Place) -> io::Result<Option<&mut Space>> {
        let path = self.path(place);
        let bound = is_namespace(&path);
        match place {
            Place::Host => Ok(None),
            Place::Overlay(tag) => keep(&mut self.overlays, tag, &path, bound, true),
            Place::Sandbox(at) => keep(&mut self.sandboxes, at, &path, bound, false),
        }
    }

    /// Where the bridge of a segment is.
    pub(super) fn place_of(&self, segment: &str) -> Place {
        let overlay = Place::Overlay(segment.to_owned());
        if is_namespace(&self.path(&overlay)) {
            overlay
        } else {
            Place::Host
        }
    }

    /// Everything that can become readable by an event.
    pub fn event_sockets(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        let overlays = self.overlays.values().map(|space| &space.sockets);
        std::iter::once(&self.host)
            .chain(overlays)
            .flat_map(|sockets| &sockets.events)
            .map(|events| events.socket.as_fd())
            .chain(self.tunnels.ends())
    }

    /// Takes all events that wait and adds the places they are about; answers whether some were
    /// lost, so that anything may have changed.
    pub fn hear(&mut self, places: &mut BTreeSet<Place>) -> bool {
        let (foreign, mut lost) = self.host.hear(true);
        if foreign {
            places.insert(Place::Host);
        }
        for (tag, space) in &mut self.overlays {
            let (heard, missed) = space.sockets.hear(false);
            lost |= missed;
            if heard {
                places.insert(Place::Overlay(tag.clone()));
            }
        }
        lost
    }

    /// Forgets processes that have ended; answers whether there were any.
    pub fn reap(&mut self) -> bool {
        self.tunnels.reap()
    }

    /// What this host cannot do, as sentences.
    pub fn probe(&mut self) -> Vec<String> {
        let mut sentences = Vec::new();
        if let Some(nft) = &mut self.host.nft
            && let Err(error) = firewall::read(nft, TableName::Overnet)
        {
            sentences.push(format!(
                "nftables does not answer: {error}; load the kernel module nf_tables"
            ));
        }
        let forward = "/proc/sys/net/ipv4/ip_forward";
        if let Err(error) = File::options().write(true).open(forward) {
            sentences.push(format!(
                "{forward} cannot be written: {error}; local networks need it to be 1"
            ));
        }
        match sight::look(&mut self.host.route, false, false) {
            Ok(sight) => sentences.extend(
                sight
                    .links
                    .values()
                    .filter(|link| link.kind == "vxlan" && !link.name.starts_with("ovt"))
                    .map(|link| {
                        format!(
                            "VXLAN device {} occupies VNI {} on UDP port {}; no network of ours \
                             can have both",
                            link.name, link.vxlan_id, link.vxlan_port
                        )
                    }),
            ),
            Err(error) => sentences.push(format!("rtnetlink does not answer: {error}")),
        }
        sentences
    }
}

fn keep<'a, K: Ord + Clone>(
    spaces: &'a mut BTreeMap<K, Space>,
    key: &K,
    path: &Path,
    bound: bool,
    overlay: bool,
) -> io::Result<Option<&'a mut Space>> {
    if !bound {
        spaces.remove(key);
        return Ok(None);
    }
    if !spaces.get(key).is_some_and(|space| space.is_at(path)) {
        spaces.insert(key.clone(), Space::open(path, overlay)?);
    }
    Ok(spaces.get_mut(key))
}
