//! A cluster out of an archive: the state as it was, with one manager, in a new epoch.

use std::{net::SocketAddr, path::Path, time::Duration};

use model::{
    ClusterId, Node, NodeId, Refusal,
    node::{
        Availability, ManagerStatus, NodeDescription, NodeState, NodeStatus, Reachability, Role,
    },
};
use time::OffsetDateTime;

use super::{LOG, Manager, bind};
use crate::{
    ca::{self, CaError, Identity, Subject},
    clock, control,
    raft::{self, Peer, WrappingKey},
    store::{ClusterRecord, Proposal, StoreChange, Tables, TablesImage},
    unlock::{self, UnlockKey},
};

/// The state of an archive, looked at before anything is changed.
pub struct Restored {
    tables: Tables,
    record: ClusterRecord,
}

/// Who is to be the only manager of a restored cluster.
pub struct Founder {
    /// Absent: a node that the archive does not know.
    pub node: Option<NodeId>,
    /// The node's private key, where it has one already.
    pub key_pem: Option<String>,
    /// What that key is sealed under on disk, and the log with it.
    pub unlock_key: Option<UnlockKey>,
    /// With host name and addresses.
    pub description: NodeDescription,
    pub listen: SocketAddr,
    pub advertise: SocketAddr,
    /// Higher than what this host has accepted.
    pub least_epoch: u64,
}

impl Restored {
    pub fn read(state: &[u8]) -> Result<Self, Refusal> {
        let strange = |reason: &dyn std::fmt::Display| {
            Refusal::invalid(format!(
                "the archive opens, but its state cannot be read ({reason}); was it made by another version?"
            ))
        };
        let image: TablesImage = rmp_serde::from_slice(state).map_err(|error| strange(&error))?;
        let tables = Tables::from(image);
        let record = tables.cluster().cloned();
        let record = record.ok_or_else(|| strange(&"it holds no cluster"))?;
        record.authority().map_err(|error| strange(&error))?;
        Ok(Self { tables, record })
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.record.public.id
    }

    /// The root certificates that the cluster's nodes trusted, PEM.
    pub fn trusted_pem(&self) -> String {
        self.record.public.trusted_pem()
    }

    /// Where the archive's managers were.
    pub fn managers(&self) -> Vec<SocketAddr> {
        self.tables.managers().map(|(_, address)| address).collect()
    }

    /// The node that a host with this name and address was: a machine that was set up again.
    pub fn node_of(&self, hostname: &str, address: std::net::IpAddr) -> Option<NodeId> {
        let mut same = self.tables.nodes().filter(|node| {
            node.description.hostname == hostname && node.description.advertise == Some(address)
        });
        match (same.next(), same.next()) {
            (Some(node), None) => Some(node.id.clone()),
            _ => None,
        }
    }
}

impl Manager {
    /// Writes a restored state as the log of this host's manager, and makes its certificate. The
    /// caller keeps the identity; until then nothing has changed but the log.
    pub async fn restore(
        folder: &Path,
        restored: Restored,
        founder: Founder,
    ) -> Result<Identity, Refusal> {
        let internal = |error: &dyn std::fmt::Display| Refusal::internal(error.to_string());
        // A port that another program has is said before anything is changed.
        drop(bind(founder.listen).await?);
        let node = founder.node.clone().unwrap_or_else(control::new_id);
        let key = founder.key_pem.clone();
        let identity =
            identity(&restored.record, node.clone(), key).map_err(|error| internal(&error))?;
        let secret = unlock::at_rest(identity.key_pem(), founder.unlock_key.as_ref());
        let key = WrappingKey::from_node_key(secret.as_bytes());
        let own = Peer {
            node,
            address: Some(founder.advertise),
        };
        let tables = refound(restored, founder, &identity, clock::now());
        std::fs::create_dir_all(folder).map_err(|error| internal(&error))?;
        let written = raft::from_state(&folder.join(LOG), &key, own, &tables).await;
        written.map_err(|error| internal(&error))?;
        Ok(identity)
    }
}

fn identity(
    record: &ClusterRecord,
    node: NodeId,
    key_pem: Option<String>,
) -> Result<Identity, CaError> {
    let (key, request) = match key_pem {
        Some(key) => {
            let request = ca::request_with(&key)?;
            (key, request)
        }
        None => ca::certificate_request()?,
    };
    let authority = record.authority()?;
    let subject = Subject {
        node,
        role: Role::Manager,
        cluster: record.public.id.clone(),
    };
    let expiry = record.public.spec.node_cert_expiry;
    let chain = authority.issue(&request, &subject, expiry, OffsetDateTime::now_utc())?;
    Identity::new(key, chain, &record.public.trusted_pem())
}

/// The archive's state with the founder as its only manager. `now` in nanoseconds since the Unix
/// epoch.
fn refound(restored: Restored, founder: Founder, identity: &Identity, now: i64) -> Tables {
    let Restored { mut tables, record } = restored;
    let own = &identity.member().node;
    // Two attempts with the same archive are told apart by the time.
    let seconds = Duration::from_nanos(u64::try_from(now).unwrap_or(0)).as_secs();
    tables.begin_epoch(seconds.max(founder.least_epoch));
    let mut changes = Vec::new();
    if record.removed.contains_key(own)
        && let Some(record) = tables.cluster()
    {
        let mut record = record.clone();
        record.removed.remove(own);
        changes.push(StoreChange::SetCluster(Box::new(record)));
    }
    // The others have no part in consensus; whoever comes back asks for one.
    let others = tables.nodes().filter(|node| node.id != *own);
    for node in others.filter(|node| node.manager.is_some()) {
        let node = Node {
            manager: None,
            ..node.clone()
        };
        changes.push(StoreChange::SetNode(Box::new(node)));
    }
    let address = Some(founder.advertise.ip());
    let mut description = founder.description;
    description.tls = Some(identity.tls_info().clone());
    let mut node = match tables.node(own) {
        Some(node) => Node {
            description,
            ..node.clone()
        },
        None => control::newcomer(
            &tables,
            own.clone(),
            Role::Manager,
            description,
            Availability::Active,
        ),
    };
    node.spec.role = Role::Manager;
    node.status = NodeStatus {
        state: NodeState::Ready,
        message: String::new(),
        address,
    };
    node.manager = Some(ManagerStatus {
        leader: false,
        reachability: Reachability::Unknown,
        address: founder.advertise,
    });
    changes.push(StoreChange::SetNode(Box::new(node)));
    let proposal = Proposal {
        time: now,
        changes,
        base: None,
    };
    tables.apply(tables.index() + 1, &proposal);
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{example, tls::LiveIdentity};

    const NOW: i64 = 2_000_000_000 * example::SECOND;

    fn founder(least_epoch: u64) -> Founder {
        Founder {
            node: None,
            key_pem: None,
            unlock_key: None,
            description: NodeDescription {
                hostname: "fresh".to_owned(),
                ..NodeDescription::default()
            },
            listen: ([0, 0, 0, 0], 2377).into(),
            advertise: ([192, 0, 2, 9], 2377).into(),
            least_epoch,
        }
    }

    fn manager(name: &str) -> Node {
        let mut node = example::node(name);
        node.spec.role = Role::Manager;
        node.description.advertise = Some([192, 0, 2, 1].into());
        node.manager = Some(ManagerStatus {
            leader: name == "m1",
            reachability: Reachability::Reachable,
            address: ([192, 0, 2, 1], 2377).into(),
        });
        node
    }

    fn archive(epoch: u64) -> Restored {
        archive_of(epoch, |_| {})
    }

    fn archive_of(epoch: u64, edit: impl FnOnce(&mut ClusterRecord)) -> Restored {
        let mut record = example::signing_cluster_record();
        record.epoch = epoch;
        record.removed.insert("w9".into(), i64::MAX);
        edit(&mut record);
        let mut worker = example::node("w1");
        worker.spec.labels.insert("zone".into(), "a".into());
        let nodes = [manager("m1"), manager("m2"), worker];
        let nodes = nodes.map(|node| StoreChange::SetNode(Box::new(node)));
        let cluster = StoreChange::SetCluster(Box::new(record));
        let tables = example::tables(nodes.into_iter().chain([cluster]).collect());
        let state = rmp_serde::to_vec_named(&tables.image()).expect("written");
        Restored::read(&state).expect("a state")
    }

    fn founded(epoch: u64, node: &str, least_epoch: u64) -> Tables {
        let restored = archive(epoch);
        let founder = founder(least_epoch);
        let identity = identity(&restored.record, node.into(), None).expect("a certificate");
        assert_eq!(identity.member().node.as_str(), node);
        assert_eq!(identity.member().role, Role::Manager);
        refound(restored, founder, &identity, NOW)
    }

    #[test]
    fn the_founder_is_the_only_manager_of_the_old_state() {
        for (node, known) in [("new", false), ("w1", true), ("m2", true), ("w9", false)] {
            let tables = founded(1, node, 0);
            let own = tables.node(&node.into()).expect(node);
            assert_eq!(own.spec.role, Role::Manager);
            assert_eq!(own.description.hostname, "fresh");
            assert_eq!(tables.nodes().count(), if known { 3 } else { 4 });
            let serving = tables.nodes().filter(|node| node.manager.is_some());
            assert_eq!(serving.count(), 1, "{node}");
            let removed = &tables.cluster().expect("a cluster").removed;
            assert_eq!(removed.contains_key("w9"), node != "w9");
            if node == "w1" {
                assert_eq!(own.spec.labels.len(), 1, "it keeps what it had");
            }
        }
    }

    /// Hosts that have followed, and those that have not, accept the founder: the rotation goes on.
    #[test]
    fn a_rotation_of_the_root_goes_on_from_an_archive() {
        let restored = archive_of(1, |record| {
            ca::begin(record, None, OffsetDateTime::now_utc()).expect("begun");
        });
        let cluster = restored.record.public.clone();
        let identity = identity(&restored.record, "m1".into(), None).expect("a certificate");
        let announced = ca::announced(&cluster).expect("a root");
        assert_eq!(identity.tls_info(), &announced);
        assert_eq!(identity.roots_pem(), restored.trusted_pem());
        let next = cluster.rotation.expect("under way").root_ca_pem;
        let since =
            Duration::from_secs(u64::try_from(clock::now() / example::SECOND).expect("now"));
        for root in [&cluster.root_ca_pem, &next] {
            crate::tls::accepts(root, identity.chain_pem(), since).expect("accepted");
        }
        let tables = refound(restored, founder(0), &identity, NOW);
        let record = tables.cluster().expect("a cluster");
        assert!(record.public.rotation.is_some() && record.next_ca_key_pem.is_some());
        let waiting: Vec<_> = ca::waiting(&announced, tables.nodes())
            .map(|node| node.id.as_str())
            .collect();
        assert_eq!(waiting, ["m2", "w1"]);

        // Half of one is none.
        let mut tables = Tables::default();
        let mut half = record.clone();
        half.next_ca_key_pem = None;
        example::apply(
            &mut tables,
            0,
            vec![StoreChange::SetCluster(Box::new(half))],
        );
        let state = rmp_serde::to_vec_named(&tables.image()).expect("written");
        let refused = Restored::read(&state).err().expect("refused");
        assert!(refused.message.contains("new root has no key"), "{refused}");
    }

    #[test]
    fn the_epoch_is_newer_than_all_that_hosts_have_accepted() {
        for (archived, least, expected) in [
            (1, 0, 2_000_000_000),
            (1, 3_000_000_000, 3_000_000_000),
            (2_500_000_000, 7, 2_500_000_001),
        ] {
            let tables = founded(archived, "new", least);
            assert_eq!(tables.cluster().expect("a cluster").epoch, expected);
        }
    }

    #[tokio::test]
    async fn the_log_opens_under_the_founders_unlock_key_only() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let unlock_key = UnlockKey::generate().expect("random");
        let founder = Founder {
            listen: ([127, 0, 0, 1], 0).into(),
            unlock_key: Some(unlock_key.clone()),
            ..founder(0)
        };
        let advertise = founder.advertise;
        let restored = Manager::restore(folder.path(), archive(1), founder).await;
        let live = LiveIdentity::new(restored.expect("restored")).expect("an identity");
        for (key, opens) in [(None, false), (Some(&unlock_key), true)] {
            let opened = Manager::go_alone(folder.path(), &live, key, advertise).await;
            assert_eq!(opened.is_ok(), opens, "{opened:?}");
        }
    }

    #[test]
    fn a_machine_that_was_set_up_again_is_known_by_name_and_address() {
        let restored = archive(1);
        let at = |last| std::net::IpAddr::from([192, 0, 2, last]);
        assert_eq!(restored.node_of("m1", at(1)), Some("m1".into()));
        assert_eq!(restored.node_of("m1", at(2)), None);
        assert_eq!(restored.node_of("other", at(1)), None);
        assert!(Restored::read(b"\x80").is_err(), "no cluster");
    }
}
