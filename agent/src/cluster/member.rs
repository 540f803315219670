//! What a membership consists of while the daemon runs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use manager::{
    ca::Identity,
    client::Connection,
    leader::Manager,
    tls::LiveIdentity,
    unlock::{self, UnlockKey},
    wire::Trust,
};
use model::{
    Generation, Node, NodeId,
    control::ClusterEvent,
    node::{NodeDescription, Role},
};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, LocalState, Standing, address,
    files::{Folder, Membership},
    ledger::Ledger,
    logs::LogSource,
    moving, office,
    ports::PortKeeper,
    renewal, session,
    stream::Feed,
    traffic::TrafficSource,
};

/// Events that a slow listener may be behind.
const EVENT_DEPTH: usize = 1024;

/// What outlives memberships.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) folder: Folder,
    pub(super) state: watch::Sender<LocalState>,
    pub(super) feed: Arc<Feed>,
    /// The highest generation that the kernel has reached.
    pub(super) reached: watch::Sender<Generation>,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    pub(super) logs: OnceLock<Arc<dyn LogSource>>,
    pub(super) ports: OnceLock<Arc<dyn PortKeeper>>,
    pub(super) traffic: OnceLock<Arc<dyn TrafficSource>>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            folder: Folder::new(&config.root),
            config,
            state: watch::Sender::default(),
            feed: Arc::new(Feed::new()),
            reached: watch::Sender::default(),
            events: broadcast::channel(EVENT_DEPTH).0,
            logs: OnceLock::new(),
            ports: OnceLock::new(),
            traffic: OnceLock::new(),
        }
    }

    /// Changes the state and wakes listeners only if it is another one then.
    pub(super) fn change(&self, edit: impl FnOnce(&mut LocalState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            edit(state);
            *state != before
        });
    }

    /// Something is in the way, and is tried again; what works goes on.
    pub(super) fn trouble(&self, reason: &str) {
        tracing::error!("{reason}");
        self.change(|state| reason.clone_into(&mut state.error));
    }

    pub(super) fn fail(&self, reason: &str) {
        tracing::error!("{reason}");
        self.change(|state| {
            state.state = Standing::Error;
            reason.clone_into(&mut state.error);
        });
    }
}

/// What the leader says of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) role: Role,
    /// Whether its manager has a part in consensus.
    pub(super) part: bool,
}

impl From<&Node> for Told {
    fn from(node: &Node) -> Self {
        Self {
            role: node.spec.role,
            part: node.manager.is_some(),
        }
    }
}

/// One membership in one cluster.
pub(super) struct Member {
    pub(super) identity: Arc<LiveIdentity>,
    pub(super) ledger: Ledger,
    pub(super) stop: CancellationToken,
    membership: Mutex<Membership>,
    manager: ArcSwapOption<Manager>,
    /// What the node's certificate says it is.
    role: watch::Sender<Role>,
    /// What the leader says it is.
    told: watch::Sender<Told>,
    /// What the leader says is to be trusted.
    trust: watch::Sender<Option<Trust>>,
    /// The address that others are told.
    advertised: watch::Sender<IpAddr>,
    stale_reads: AtomicU64,
    /// This node has something new to say of itself.
    pub(super) news: Notify,
    connection: Mutex<Option<Connection>>,
    /// What the private key is sealed under on disk; held while the identity is written.
    unlock_key: Mutex<Option<UnlockKey>>,
    tasks: TaskTracker,
}

impl Member {
    /// Takes up the membership: what the ledger has is published, the rest goes on in the
    /// background. `manager` is given when it runs already, `unlock_key` when the private key is
    /// sealed on disk.
    pub(super) fn start(
        shared: &Arc<Shared>,
        membership: Membership,
        identity: Arc<LiveIdentity>,
        manager: Option<Arc<Manager>>,
        unlock_key: Option<UnlockKey>,
    ) -> Arc<Self> {
        let local = LocalState {
            state: Standing::Pending,
            node_id: membership.node_id.clone(),
            role: Some(membership.role),
            error: String::new(),
            address: Some(membership.advertise),
            data_path: Some(membership.data_path),
            managers: membership.managers.clone(),
            cluster_id: Some(membership.cluster_id.clone()),
            serves: manager.is_some(),
        };
        let member = Arc::new(Self {
            ledger: Ledger::open(
                &shared.folder,
                Arc::clone(&shared.feed),
                &unlock::at_rest(identity.current().key_pem(), unlock_key.as_ref()),
                unlock_key.is_some(),
            ),
            identity,
            stop: CancellationToken::new(),
            role: watch::Sender::new(membership.role),
            told: watch::Sender::new(Told {
                role: membership.role,
                part: true,
            }),
            trust: watch::Sender::default(),
            advertised: watch::Sender::new(membership.advertise),
            stale_reads: AtomicU64::default(),
            news: Notify::new(),
            membership: Mutex::new(membership),
            manager: ArcSwapOption::from(manager),
            connection: Mutex::default(),
            unlock_key: Mutex::new(unlock_key),
            tasks: TaskTracker::new(),
        });
        shared.state.send_replace(local);
        let work = Box::pin(background(Arc::clone(shared), Arc::clone(&member)));
        let stop = member.stop.clone();
        member.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
        member
    }

    pub(super) fn membership(&self) -> Membership {
        let membership = self.membership.lock();
        membership.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node's manager, while it has a vote.
    pub(super) fn manager(&self) -> Option<Arc<Manager>> {
        self.manager.load_full()
    }

    /// Answers the one before.
    pub(super) fn set_manager(&self, manager: Option<Arc<Manager>>) -> Option<Arc<Manager>> {
        self.manager.swap(manager)
    }

    pub(super) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    pub(super) fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// The leader has spoken of this node.
    pub(super) fn tell(&self, node: &Node) {
        let told = Told::from(node);
        self.told.send_if_modified(|before| {
            let news = *before != told;
            *before = told;
            news
        });
    }

    pub(super) fn trust(&self) -> watch::Receiver<Option<Trust>> {
        self.trust.subscribe()
    }

    /// The leader has said what is to be trusted.
    pub(super) fn be_told_trust(&self, trust: Trust) {
        self.trust.send_replace(Some(trust));
    }

    /// The certificate says another role from now on.
    pub(super) fn change_role(&self, shared: &Shared, role: Role) {
        self.edit(shared, |membership| membership.role = role);
        shared.change(|state| {
            state.role = Some(role);
            state.serves = false;
        });
        self.role.send_replace(role);
    }

    fn sealed_under(&self) -> MutexGuard<'_, Option<UnlockKey>> {
        let unlock_key = self.unlock_key.lock();
        unlock_key.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the private key is sealed under on disk.
    pub(super) fn unlock_key(&self) -> Option<UnlockKey> {
        self.sealed_under().clone()
    }

    /// Seals the private key on disk under another key, or under none.
    pub(super) fn lock_with(
        &self,
        shared: &Shared,
        unlock_key: Option<UnlockKey>,
    ) -> anyhow::Result<()> {
        let mut sealed_under = self.sealed_under();
        // What the host goes on with is there before its key is sealed, and until it is not.
        if unlock_key.is_some() {
            self.ledger.keep_open(true)?;
        }
        let identity = self.identity.current();
        let secret = unlock::at_rest(identity.key_pem(), unlock_key.as_ref());
        self.ledger.expect_key(&secret)?;
        shared
            .folder
            .write_identity(&identity, unlock_key.as_ref())?;
        self.ledger.settle_key(&secret)?;
        if unlock_key.is_none() {
            self.ledger.keep_open(false)?;
        }
        *sealed_under = unlock_key;
        Ok(())
    }

    /// The next certificate is this node's from now on. A worker's key is not sealed.
    pub(super) fn take_identity(&self, shared: &Shared, identity: Identity) -> anyhow::Result<()> {
        let mut sealed_under = self.sealed_under();
        let worker = identity.member().role == Role::Worker;
        let under = sealed_under.as_ref().filter(|_| !worker);
        let secret = unlock::at_rest(identity.key_pem(), under);
        self.ledger.expect_key(&secret)?;
        shared.folder.write_identity(&identity, under)?;
        self.ledger.settle_key(&secret)?;
        if worker && sealed_under.take().is_some() {
            self.ledger.keep_open(false)?;
        }
        self.identity.replace(identity)?;
        self.news.notify_one();
        Ok(())
    }

    /// The manager's port is bound; it stays the same from now on.
    pub(super) fn bound(&self, shared: &Shared, listen: SocketAddr) {
        self.edit(shared, |membership| membership.listen = Some(listen));
    }

    pub(super) fn edit(&self, shared: &Shared, change: impl FnOnce(&mut Membership)) {
        let mut membership = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = membership.clone();
        change(&mut membership);
        if *membership != before
            && let Err(error) = shared.folder.write_membership(&membership)
        {
            tracing::warn!("the membership cannot be kept: {error}");
        }
    }

    pub(super) fn note_stale_reads(&self, count: u64) {
        self.stale_reads.fetch_add(count, Ordering::Relaxed);
    }

    /// How many reads were answered without a leader.
    pub(super) fn stale_reads(&self) -> u64 {
        self.stale_reads.load(Ordering::Relaxed)
    }

    /// This host's address, now and from now on.
    pub(super) fn advertised(&self) -> watch::Receiver<IpAddr> {
        self.advertised.subscribe()
    }

    /// Tells everybody the address that the membership has now.
    pub(super) fn announce(&self, shared: &Shared) {
        let membership = self.membership();
        shared.change(|state| {
            state.address = Some(membership.advertise);
            state.data_path = Some(membership.data_path);
        });
        self.advertised.send_replace(membership.advertise);
        self.news.notify_one();
    }

    /// The connection of the session, while there is one.
    pub(super) fn connection(&self) -> Option<Connection> {
        let connection = self.connection.lock();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_connection(&self, new: Option<Connection>) {
        let connection = self.connection.lock();
        *connection.unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Where to look for a manager, best first: a manager asks itself first, where the leader is.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let membership = self.membership();
        let own = membership
            .listen
            .filter(|_| membership.role == Role::Manager)
            .map(address::dialled);
        own.into_iter().chain(self.others()).collect()
    }

    /// The managers on other hosts.
    pub(super) fn others(&self) -> Vec<SocketAddr> {
        let membership = self.membership();
        let mut all: Vec<SocketAddr> = Vec::new();
        let known = membership
            .managers
            .iter()
            .filter(|(node, _)| *node != membership.node_id)
            .map(|(_, address)| *address);
        for address in known.chain(membership.joined_by) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    pub(super) fn adopt_managers(&self, shared: &Shared, managers: Vec<(NodeId, SocketAddr)>) {
        if managers.is_empty() {
            return;
        }
        self.edit(shared, |membership| {
            membership.managers.clone_from(&managers);
        });
        shared.change(|state| state.managers = managers);
    }

    /// From now on this is the only manager that is looked for, until it names others.
    pub(super) fn only_manager(&self, shared: &Shared, address: SocketAddr) {
        self.edit(shared, |membership| {
            membership.managers.clear();
            membership.joined_by = Some(address);
        });
    }

    /// What this host says of itself now.
    pub(super) fn description(&self, shared: &Shared) -> NodeDescription {
        let membership = self.membership();
        let identity = self.identity.current();
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        NodeDescription {
            advertise: Some(membership.advertise),
            data_path: Some(membership.data_path),
            tls: Some(identity.tls_info().clone()),
            certificate: Some((
                seconds(identity.not_before()),
                seconds(identity.not_after()),
            )),
            ..(shared.config.describe)()
        }
    }

    /// Ends the background work: there is no session from then on, and no new one.
    pub(super) async fn end_work(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.set_connection(None);
    }

    /// Ends the background work and the manager.
    pub(super) async fn end(&self) {
        self.end_work().await;
        if let Some(manager) = self.set_manager(None) {
            manager.shutdown().await;
        }
    }
}

async fn background(shared: Arc<Shared>, member: Arc<Member>) {
    tokio::join!(
        renewal::run(Arc::clone(&shared), Arc::clone(&member)),
        office::run(Arc::clone(&shared), Arc::clone(&member)),
        moving::run(Arc::clone(&shared), Arc::clone(&member)),
        session::run(shared, member),
    );
}
