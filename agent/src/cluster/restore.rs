//! A cluster that has lost its managers goes on with one: with the state of a survivor or out of an
//! archive; and the way of the hosts that still run to it.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use manager::{
    archive,
    client::Connection,
    leader::{Founder, Manager, Restored},
    tls::{self, LiveIdentity},
};
use model::{
    NodeId, Refusal,
    control::Verb,
    node::{NodeDescription, Role},
};
use tokio::time::{Duration, Instant};

use super::{
    ClusterNode,
    enter::{self, OwnAddresses},
    files::Membership,
    member::Member,
    office,
};

/// How long a host may take to find the manager it was told of.
const FIND_WITHIN: Duration = Duration::from_secs(30);
/// How long a manager may take to answer one that asks whether it is there.
const ANSWER: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);

/// What `cluster restore` asks for. Addresses are as in an [`super::InitRequest`]; on a member
/// empty ones mean those that it has.
#[derive(Default)]
pub struct RestoreRequest {
    pub archive: Vec<u8>,
    pub passphrase: String,
    pub advertise_addr: String,
    pub listen_addr: String,
    pub data_path_addr: String,
    /// Also on a host that is a member of the archive's cluster, or where a manager of it answers.
    pub force: bool,
}

/// A cluster that was restored.
#[derive(Debug)]
pub struct RestoredCluster {
    pub node: NodeId,
    pub about: archive::About,
    /// Where its manager is.
    pub address: SocketAddr,
    /// Where its managers were.
    pub before: Vec<SocketAddr>,
}

impl ClusterNode {
    /// Goes on with this manager's state and without the other managers.
    pub(super) async fn go_alone(&self) -> Result<NodeId, Refusal> {
        let member = self.member.load_full();
        let Some(member) = member.filter(|m| m.membership().role == Role::Manager) else {
            return Err(Refusal::unavailable(
                "this node is no manager, so it has no state that a new cluster could be made of; run the command on a manager that is left, or leave out --force-new-cluster",
            ));
        };
        let membership = member.membership();
        member.end().await;
        let advertise = office::advertise(&membership);
        let (folder, identity) = (self.shared.folder.manager(), Arc::clone(&member.identity));
        let key = member.unlock_key();
        let alone = Manager::go_alone(&folder, &identity, key.as_ref(), advertise).await;
        // Whatever came of it, this node goes on with what it has.
        let again = Member::start(&self.shared, membership, identity, None, key);
        self.member.store(Some(Arc::clone(&again)));
        alone?;
        self.session_up().await?;
        Ok(again.membership().node_id)
    }

    /// Makes this host the only manager of the cluster in an archive. Nothing has changed when it
    /// is refused.
    pub async fn restore(&self, request: RestoreRequest) -> Result<RestoredCluster, Refusal> {
        let _turn = self.turn.lock().await;
        self.refuse_locked()?;
        let member = self.member.load_full();
        if member.is_some() && !request.force {
            return Err(Refusal::unavailable(
                "this node is already part of a swarm, and what it knows would be replaced by the archive; leave with `ovnctl swarm leave --force` first, or restore with --force if its cluster is the archive's and is lost",
            ));
        }
        let (about, state) = open(&request).await?;
        let restored = Restored::read(&state)?;
        let before = restored.managers();
        let own = match &member {
            None => {
                if !request.force {
                    nobody_left(&before, &restored.trusted_pem()).await?;
                }
                enter::first_addresses(
                    &request.listen_addr,
                    &request.advertise_addr,
                    &request.data_path_addr,
                )?
            }
            Some(member) => {
                lost(member, &about)?;
                addresses_again(&member.membership(), &request)?
            }
        };
        if let Some(member) = &member {
            member.end().await;
        }
        // Not before: until then its keys may change.
        let founder = self.founder(member.as_deref(), &restored, &own);
        let founded = self.found(restored, founder, &own, member.is_some()).await;
        let begun = match (founded, &member) {
            (Ok(begun), _) => Ok(begun),
            // This node goes on with what it has.
            (Err(refusal), Some(member)) => {
                let identity = Arc::clone(&member.identity);
                let old = Member::start(
                    &self.shared,
                    member.membership(),
                    identity,
                    None,
                    member.unlock_key(),
                );
                self.member.store(Some(old));
                Err(refusal)
            }
            (Err(refusal), None) => {
                enter::clear_away(&self.shared);
                Err(refusal)
            }
        }?;
        self.member.store(Some(Arc::clone(&begun)));
        self.session_up().await?;
        Ok(RestoredCluster {
            node: begun.membership().node_id,
            about,
            address: office::advertise(&begun.membership()),
            before,
        })
    }

    fn founder(&self, member: Option<&Member>, restored: &Restored, own: &OwnAddresses) -> Founder {
        let description = (self.shared.config.describe)();
        Founder {
            node: match member {
                Some(member) => Some(member.membership().node_id),
                None => restored.node_of(&description.hostname, own.advertise.ip()),
            },
            // The ledger opens with the key that it has.
            key_pem: member.map(|member| member.identity.current().key_pem().to_owned()),
            // The disk stays as it is sealed; what the archive says is followed afterwards.
            unlock_key: member.and_then(Member::unlock_key),
            description: NodeDescription {
                advertise: Some(own.advertise.ip()),
                data_path: Some(own.data_path),
                ..description
            },
            listen: own.listen,
            advertise: own.advertise,
            least_epoch: self.shared.feed.current().generation.epoch + 1,
        }
    }

    /// Writes everything to disk and takes it up.
    async fn found(
        &self,
        restored: Restored,
        founder: Founder,
        own: &OwnAddresses,
        is_member: bool,
    ) -> Result<Arc<Member>, Refusal> {
        let folder = &self.shared.folder;
        if !is_member {
            // Remains of an attempt that failed would be taken for parts of this one.
            folder
                .wipe()
                .and_then(|()| folder.make())
                .map_err(|error| {
                    Refusal::internal(format!("the folder of the cluster cannot be made: {error}"))
                })?;
        }
        let unlock_key = founder.unlock_key.clone();
        let identity = Manager::restore(&folder.manager(), restored, founder).await?;
        let membership = enter::first_membership(&identity, own);
        enter::keep(&self.shared, &identity, &membership, unlock_key.as_ref())?;
        let live =
            LiveIdentity::new(identity).map_err(|error| Refusal::internal(error.to_string()))?;
        Ok(Member::start(
            &self.shared,
            membership,
            live,
            None,
            unlock_key,
        ))
    }

    /// Tells this member where a manager of its cluster is, when those that it knows are gone.
    pub async fn rejoin(&self, manager: &str) -> Result<(), Refusal> {
        let turn = self.turn.lock().await;
        self.refuse_locked()?;
        let Some(member) = self.member.load_full() else {
            return Err(Refusal::unavailable("This node is not part of a swarm"));
        };
        if let Some(connection) = member.connection() {
            if answers(&connection).await {
                return Err(Refusal::conflict(format!(
                    "this host has a session with manager {}: it does not have to look for another",
                    connection.address()
                )));
            }
            // The session notices by itself, in a moment.
            member.set_connection(None);
        }
        let address = reachable(&member, manager).await?;
        member.only_manager(&self.shared, address);
        // Who waits for the session keeps nobody from leaving.
        drop(turn);
        let begun = Instant::now();
        while member.connection().is_none() {
            if begun.elapsed() > FIND_WITHIN {
                let error = self.shared.state.borrow().error.clone();
                return Err(Refusal::unavailable(format!(
                    "manager {address} answers, but there is no session with it yet; it is tried again and again. {error}"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Whether the manager at the other end is there, and finds a leader.
async fn answers(connection: &Connection) -> bool {
    let asked = tokio::time::timeout(ANSWER, connection.call(&Verb::NetworkList)).await;
    matches!(asked, Ok(Ok(_)))
}

/// The first address of a manager that answers with a certificate of the member's cluster.
async fn reachable(member: &Member, manager: &str) -> Result<SocketAddr, Refusal> {
    let mut failures = Vec::new();
    for address in enter::remote_addresses(manager).await? {
        let tls =
            tls::member(&member.identity).map_err(|error| Refusal::internal(error.to_string()))?;
        match Connection::open(address, tls).await {
            Ok(_) => return Ok(address),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(Refusal::unavailable(format!(
        "no manager of this host's cluster answers there: {}; check the address, and that it is a manager of the same cluster",
        failures.join("; ")
    )))
}

async fn open(request: &RestoreRequest) -> Result<(archive::About, Vec<u8>), Refusal> {
    let (archive, passphrase) = (request.archive.clone(), request.passphrase.clone());
    let opening = tokio::task::spawn_blocking(move || {
        archive::read(&archive, &passphrase, env!("CARGO_PKG_VERSION"))
    });
    let opened = opening
        .await
        .map_err(|error| Refusal::internal(error.to_string()))?;
    opened.map_err(|error| Refusal::invalid(error.to_string()))
}

/// Refuses while a manager of the archive's cluster answers where one was.
async fn nobody_left(before: &[SocketAddr], root: &str) -> Result<(), Refusal> {
    let left = before.iter().map(|address| async move {
        let stranger = tls::stranger().ok()?;
        let asked = async {
            let connection = Connection::open(*address, stranger).await.ok()?;
            connection.root().await.ok()?.ok()
        };
        let reply = tokio::time::timeout(ANSWER, asked).await.ok()??;
        (reply.root_pem.trim() == root.trim()).then_some(*address)
    });
    let left = join_all(left).await.into_iter().flatten().next();
    match left {
        None => Ok(()),
        Some(address) => Err(Refusal::unavailable(format!(
            "a manager of the archive's cluster answers at {address}, and would go on beside the restored one: look at it with `ovnctl cluster status` there; `ovnctl swarm init --force-new-cluster` there keeps what is newer than the archive. Stop it first, or restore all the same with --force"
        ))),
    }
}

/// Refuses where the cluster is another one, or lives without this host.
fn lost(member: &Member, about: &archive::About) -> Result<(), Refusal> {
    if member.membership().cluster_id != about.cluster {
        return Err(Refusal::unavailable(format!(
            "this node is a member of another cluster than the archive's, which is {}; leave with `ovnctl swarm leave --force` first",
            about.cluster
        )));
    }
    let alive = match member.manager() {
        Some(manager) => {
            let roster = manager.roster();
            roster.voting() > 1 && roster.has_quorum()
        }
        None => member.connection().is_some(),
    };
    if alive {
        return Err(Refusal::unavailable(
            "the cluster has other managers, and they answer: they would go on beside the restored one; stop them or demote them first, then restore on the last one",
        ));
    }
    Ok(())
}

/// A member's addresses, but for those that the user gives.
fn addresses_again(
    membership: &Membership,
    request: &RestoreRequest,
) -> Result<OwnAddresses, Refusal> {
    let or = |given: &str, own: String| {
        if given.is_empty() {
            own
        } else {
            given.to_owned()
        }
    };
    let listen = membership.listen.map(|listen| listen.to_string());
    let advertise = office::advertise(membership).to_string();
    enter::first_addresses(
        &or(&request.listen_addr, listen.unwrap_or_default()),
        &or(&request.advertise_addr, advertise),
        &or(&request.data_path_addr, membership.data_path.to_string()),
    )
}
