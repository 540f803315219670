//! The node's side of the cluster: identity, membership, session with the leader, ledger.
//!
//! [`ClusterNode`] is the only door. Whatever is in front of it (the HTTP edge, the network
//! glue) never knows whether this host is the leader, another manager or a worker.

mod address;
mod ask;
mod enter;
mod files;
mod heartbeat;
mod leader;
mod leaving;
mod ledger;
mod lock;
mod logs;
mod member;
mod moving;
mod office;
mod ports;
mod renewal;
mod restore;
mod seal;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod traffic;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use ipnetwork::IpNetwork;
use manager::tls::LiveIdentity;
use model::{
    Assignments, ClusterId, ClusterSpec, Generation, Increment, NodeId, Refusal,
    cluster::JoinTokens,
    control::{Answer, ClusterEvent, Verb},
    node::{Availability, NodeDescription, Role},
};
use tokio::sync::{Mutex, broadcast, watch};

use self::{
    files::KeptIdentity,
    lock::Locked,
    member::{Member, Shared},
};
pub use self::{
    logs::LogSource,
    ports::PortKeeper,
    restore::{RestoreRequest, RestoredCluster},
    stream::AssignmentStream,
    traffic::TrafficSource,
};

/// How long init and join wait for the session.
const SESSION_LIMIT: Duration = Duration::from_secs(20);

/// What the daemon tells the cluster's side once, at its start.
pub struct Config {
    /// ovnd's `--root`; everything of the cluster lies in its folder `swarm` (mode 0700).
    pub root: PathBuf,
    /// The period this node asks for when it makes a cluster; members are told the cluster's.
    pub heartbeat: Duration,
    /// What this host is: called at each registration and every 20 s, so it has to be quick.
    /// `advertise`, `data_path` and `tls` are filled in here and may be left empty.
    pub describe: Arc<dyn Fn() -> NodeDescription + Send + Sync>,
}

/// Docker's word for where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// In no cluster.
    #[default]
    Inactive,
    /// A member on disk, no session yet.
    Pending,
    Active,
    /// [`LocalState::error`] says why.
    Error,
    Locked,
}

impl Standing {
    /// Docker's word: `inactive`, `pending`, `active`, `error`, `locked`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// `Swarm` in `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalState {
    pub state: Standing,
    /// Empty when in no cluster.
    pub node_id: NodeId,
    pub role: Option<Role>,
    /// Why the state is not `active`, for people; empty when there is nothing to say.
    pub error: String,
    /// This node's advertised address.
    pub address: Option<IpAddr>,
    /// This node's VXLAN tunnel endpoint.
    pub data_path: Option<IpAddr>,
    /// The managers this node knows, with the address of their one port.
    pub managers: Vec<(NodeId, SocketAddr)>,
    pub cluster_id: Option<ClusterId>,
    /// This node's manager runs, and the other managers have let it in.
    pub serves: bool,
}

impl LocalState {
    /// Docker's `ControlAvailable`: this node is a manager that answers verbs itself.
    pub fn control_available(&self) -> bool {
        self.role == Some(Role::Manager) && self.state == Standing::Active && self.serves
    }
}

/// `POST /swarm/init`. Addresses are as the user wrote them: an IP address or an interface's
/// name, with an optional `:port` where Docker allows one; empty means "choose".
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    pub advertise_addr: String,
    /// Empty: `0.0.0.0:2377`. Port 0 takes any free one.
    pub listen_addr: String,
    pub data_path_addr: String,
    /// 0 means 4789.
    pub data_path_port: u16,
    /// Empty: 10.0.0.0/8.
    pub default_addr_pool: Vec<IpNetwork>,
    /// 0 means 24.
    pub subnet_size: u8,
    /// 0 means 20.
    pub ingress_size: u8,
    pub force_new_cluster: bool,
    pub spec: Option<ClusterSpec>,
    pub availability: Availability,
}

/// `POST /swarm/join`.
#[derive(Debug, Clone, Default)]
pub struct JoinRequest {
    /// `ADDR[:PORT]` of managers; the first that answers is used.
    pub remotes: Vec<String>,
    pub token: String,
    pub advertise_addr: String,
    pub listen_addr: String,
    pub data_path_addr: String,
    pub availability: Availability,
}

/// What the glue turns into the dataplane's wish.
#[derive(Debug, Clone)]
pub enum Update {
    /// Replaces everything; also sent, empty, when the node leaves its cluster.
    Full(Arc<Assignments>),
    Increment(Arc<Increment>),
}

/// This host's place in a cluster, or outside any.
pub struct ClusterNode {
    shared: Arc<Shared>,
    member: ArcSwapOption<Member>,
    /// Instead of a member: its key is sealed.
    locked: Mutex<Option<Locked>>,
    /// Held by init, join, leave and shutdown: one at a time.
    turn: Mutex<()>,
}

impl ClusterNode {
    /// Takes up the membership found on disk, if there is one, and goes on in the background:
    /// it returns without having seen any manager, [`Self::assignments`] already has the ledger.
    pub async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(config));
        let folder = shared.folder.clone();
        let loaded = tokio::task::spawn_blocking(move || folder.load()).await??;
        let (member, locked) = match loaded {
            Some((membership, KeptIdentity::Open(identity))) => {
                let identity = LiveIdentity::new(identity)?;
                let member = Member::start(&shared, membership, identity, None, None);
                (Some(member), None)
            }
            Some((membership, KeptIdentity::Locked(identity))) => {
                (None, Some(Locked::begin(&shared, membership, identity)))
            }
            None => (None, None),
        };
        Ok(Arc::new(Self {
            shared,
            member: ArcSwapOption::from(member),
            locked: Mutex::new(locked),
            turn: Mutex::default(),
        }))
    }

    pub fn local_state(&self) -> watch::Receiver<LocalState> {
        self.shared.state.subscribe()
    }

    /// From when to when this node's certificate is valid; absent outside any cluster.
    pub fn certificate_life(&self) -> Option<(SystemTime, SystemTime)> {
        let member = self.member.load_full()?;
        let identity = member.identity.current();
        Some((identity.not_before(), identity.not_after()))
    }

    /// Makes a new cluster with this node as its first manager.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, Refusal> {
        let _turn = self.turn.lock().await;
        self.refuse_locked()?;
        if request.force_new_cluster {
            return self.go_alone().await;
        }
        self.refuse_members()?;
        let member = enter::init(&self.shared, request).await?;
        self.member.store(Some(Arc::clone(&member)));
        self.session_up().await?;
        Ok(member.membership().node_id)
    }

    /// Joins the cluster that one of the remotes belongs to; returns when the session is up
    /// (limit 20 s, then 503 and the attempt goes on in the background, as Docker does).
    pub async fn join(&self, request: JoinRequest) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        self.refuse_locked()?;
        self.refuse_members()?;
        let member = enter::join(&self.shared, request).await?;
        self.member.store(Some(member));
        self.session_up().await
    }

    fn refuse_members(&self) -> Result<(), Refusal> {
        if self.member.load().is_none() {
            return Ok(());
        }
        Err(Refusal::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        ))
    }

    async fn session_up(&self) -> Result<(), Refusal> {
        let mut state = self.shared.state.subscribe();
        let up = state.wait_for(|state| match state.role {
            Some(Role::Manager) => state.control_available(),
            _ => state.state == Standing::Active,
        });
        if tokio::time::timeout(SESSION_LIMIT, up).await.is_ok() {
            return Ok(());
        }
        let error = self.shared.state.borrow().error.clone();
        Err(Refusal::unavailable(format!(
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node. {error}"
        )))
    }

    /// Leaves the cluster and deletes what is known of it on this host. A manager demands `force`.
    pub async fn leave(&self, force: bool) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        if self.is_locked() {
            if !force {
                return Err(Refusal::unavailable(lock::LEAVE_LOCKED));
            }
            *self.locked.lock().await = None;
            self.shared.feed.replace(Assignments::default());
            return self.forget();
        }
        let Some(member) = self.member.load_full() else {
            return Err(Refusal::unavailable("This node is not part of a swarm"));
        };
        let manager = member.membership().role == Role::Manager;
        if manager && !force {
            return Err(leaving::refusal(&member).await);
        }
        // Before: a new session would make a node that has left ready again.
        member.end_work().await;
        if manager {
            leaving::step_down(&member).await;
        } else {
            leaving::say_goodbye(&member).await;
        }
        member.end().await;
        self.member.store(None);
        member.ledger.close();
        self.forget()
    }

    /// Deletes what is known of a cluster that was left.
    fn forget(&self) -> Result<(), Refusal> {
        self.shared.reached.send_replace(Generation::default());
        let wiped = self.shared.folder.wipe();
        self.shared.state.send_replace(LocalState::default());
        wiped.map_err(|error| {
            Refusal::internal(format!(
                "this node has left, but {} cannot be deleted: {error}",
                self.shared.config.root.join("swarm").display()
            ))
        })
    }

    /// Asks the leader, wherever it is. Reads and a node's own attachments pass from any
    /// node; what changes the cluster is refused on workers with Docker's sentence (503).
    pub async fn call(&self, verb: Verb) -> Result<Answer, Refusal> {
        self.refuse_locked()?;
        match self.member.load_full() {
            Some(member) => ask::call(&member, verb).await,
            None => Err(Refusal::unavailable(ask::NO_MEMBER)),
        }
    }

    /// A full set now (empty outside a cluster), then every change. A reader that lags is given
    /// a full set again.
    pub fn assignments(&self) -> AssignmentStream {
        AssignmentStream::new(&self.shared.feed)
    }

    /// Has the leader told at once what this host says of itself.
    pub fn describe(&self) {
        if let Some(member) = self.member.load_full() {
            member.news.notify_one();
        }
    }

    /// Tells the leader that this host's kernel has reached the generation. Never blocks; the
    /// highest one is sent, again after each reconnect.
    pub fn acknowledge(&self, generation: Generation) {
        // A late word about a cluster that was left must not speak for the next one.
        if generation > self.shared.feed.current().generation {
            return;
        }
        self.shared.reached.send_if_modified(|reached| {
            let higher = generation > *reached;
            if higher {
                *reached = generation;
            }
            higher
        });
    }

    /// The key that unlocks managers; managers only. Empty while autolock is off.
    pub async fn unlock_key(&self) -> Result<String, Refusal> {
        match self.call(Verb::UnlockKey).await? {
            Answer::UnlockKey(text) => Ok(String::from_utf8_lossy(&text.0).into_owned()),
            _ => Err(Refusal::internal(
                "the manager answered something else than its unlock key",
            )),
        }
    }

    /// The join tokens; managers only.
    pub async fn join_tokens(&self) -> Result<JoinTokens, Refusal> {
        match self.call(Verb::ClusterInspect).await? {
            Answer::Cluster(cluster) => Ok(cluster.join_tokens),
            _ => Err(Refusal::internal(
                "the manager answered something else than its cluster",
            )),
        }
    }

    /// How many reads this node's manager has answered without a leader: what it said may have
    /// been old.
    pub fn stale_reads(&self) -> u64 {
        let member = self.member.load_full();
        member.map_or(0, |member| member.stale_reads())
    }

    /// Events of the cluster from now on; silent on workers. Survives init, join and leave.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.shared.events.subscribe()
    }

    /// Stops the background work and, on a manager, closes its store; the membership stays.
    pub async fn shutdown(&self) {
        let _turn = self.turn.lock().await;
        if let Some(member) = self.member.load_full() {
            member.end().await;
        }
    }
}

impl Drop for ClusterNode {
    fn drop(&mut self) {
        if let Some(member) = self.member.load_full() {
            member.stop.cancel();
        }
    }
}
