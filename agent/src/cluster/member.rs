//! What a membership consists of while the daemon runs.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use manager::{client::Connection, leader::Manager, tls::LiveIdentity};
use model::{
    Generation, NodeId,
    control::ClusterEvent,
    node::{NodeDescription, Role},
};
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, LocalState, Standing, address,
    files::{Folder, Membership},
    ledger::Ledger,
    logs::LogSource,
    ports::PortKeeper,
    renewal, session,
    stream::Feed,
};
use crate::clock;

/// Events that a slow listener may be behind.
const EVENT_DEPTH: usize = 1024;
/// How often a manager that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(2);

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

    pub(super) fn fail(&self, reason: &str) {
        tracing::error!("{reason}");
        self.change(|state| {
            state.state = Standing::Error;
            reason.clone_into(&mut state.error);
        });
    }
}

/// One membership in one cluster.
pub(super) struct Member {
    pub(super) identity: Arc<LiveIdentity>,
    pub(super) ledger: Ledger,
    pub(super) stop: CancellationToken,
    membership: Mutex<Membership>,
    manager: OnceLock<Arc<Manager>>,
    connection: Mutex<Option<Connection>>,
    tasks: TaskTracker,
}

impl Member {
    /// Takes up the membership: what the ledger has is published, the rest goes on in the
    /// background. `manager` is given when it runs already.
    pub(super) fn start(
        shared: &Arc<Shared>,
        membership: Membership,
        identity: Arc<LiveIdentity>,
        manager: Option<Arc<Manager>>,
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
            root_ca_pem: identity.current().root_pem().to_owned(),
        };
        let member = Arc::new(Self {
            ledger: Ledger::open(
                shared.folder.ledger(),
                Arc::clone(&shared.feed),
                identity.current().key_pem(),
            ),
            identity,
            stop: CancellationToken::new(),
            membership: Mutex::new(membership),
            manager: manager.map(OnceLock::from).unwrap_or_default(),
            connection: Mutex::default(),
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

    pub(super) fn manager(&self) -> Option<&Arc<Manager>> {
        self.manager.get()
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

    /// Where to look for a manager, best first.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        let membership = self.membership();
        if let Some(listen) = membership
            .listen
            .filter(|_| membership.role == Role::Manager)
        {
            return vec![address::dialled(listen)];
        }
        let mut all: Vec<SocketAddr> = Vec::new();
        let known = membership.managers.iter().map(|(_, address)| *address);
        for address in known.chain(membership.joined_by) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    pub(super) fn adopt_managers(&self, shared: &Shared, managers: Vec<(NodeId, SocketAddr)>) {
        let mut membership = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if managers.is_empty() || membership.managers == managers {
            return;
        }
        membership.managers.clone_from(&managers);
        if let Err(error) = shared.folder.write_membership(&membership) {
            tracing::warn!("the managers' addresses cannot be kept: {error}");
        }
        shared.change(|state| state.managers = managers);
    }

    /// What this host says of itself now.
    pub(super) fn description(&self, shared: &Shared) -> NodeDescription {
        let membership = self.membership();
        NodeDescription {
            hostname: shared.config.hostname.clone(),
            advertise: Some(membership.advertise),
            data_path: Some(membership.data_path),
            tls: Some(self.identity.current().tls_info().clone()),
            ..(shared.config.describe)()
        }
    }

    /// Ends the background work and the manager.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.set_connection(None);
        if let Some(manager) = self.manager() {
            manager.shutdown().await;
        }
    }
}

async fn background(shared: Arc<Shared>, member: Arc<Member>) {
    if member.membership().role == Role::Manager {
        let manager = opened(&shared, &member).await;
        let forwarding = forward(manager.events(), shared.events.clone());
        tokio::join!(
            forwarding,
            renewal::run(Arc::clone(&shared), Arc::clone(&member)),
            session::run(shared, member),
        );
    } else {
        tokio::join!(
            renewal::run(Arc::clone(&shared), Arc::clone(&member)),
            session::run(shared, member),
        );
    }
}

/// The manager of this node; opened again and again if something (a taken port, for example)
/// is in its way.
async fn opened(shared: &Shared, member: &Member) -> Arc<Manager> {
    loop {
        if let Some(manager) = member.manager() {
            return Arc::clone(manager);
        }
        let listen = member
            .membership()
            .listen
            .unwrap_or_else(|| ([0, 0, 0, 0], model::cluster::DEFAULT_MANAGER_PORT).into());
        let identity = Arc::clone(&member.identity);
        match Manager::open(&shared.folder.manager(), identity, listen).await {
            Ok(manager) => {
                shared.change(|state| {
                    state.state = Standing::Pending;
                    state.error.clear();
                });
                return Arc::clone(member.manager.get_or_init(|| manager));
            }
            Err(refusal) => shared.fail(&refusal.message),
        }
        tokio::time::sleep(OPEN_AGAIN).await;
    }
}

async fn forward(mut from: broadcast::Receiver<ClusterEvent>, to: broadcast::Sender<ClusterEvent>) {
    loop {
        match from.recv().await {
            Ok(event) => {
                // Nobody listening is fine.
                let _ = to.send(event);
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!("{missed} events of the cluster were missed");
                let _ = to.send(ClusterEvent::missed(missed, clock::now_nanos()));
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
