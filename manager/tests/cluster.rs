//! A manager and members in one process, over real mutual TLS on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod members;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use manager::{
    ca::{Identity, Member},
    client::Connection,
    leader::{Manager, Start},
    tls::{self, LiveIdentity},
    wire::{BeatReply, Register, SessionMessage},
};
use model::{
    Assignments, ContainerId, EndpointId, EndpointState, Generation, Id, NetworkSpec, RefusalKind,
    control::{Answer, AttachRequest, Attached, TokenRotation, Verb},
    node::{NodeState, Role},
};
use tokio::sync::watch;

use self::members::{LIMIT, description, join, new_cluster};

struct Lab {
    folder: tempfile::TempDir,
    manager: Arc<Manager>,
    identity: Identity,
}

impl Lab {
    async fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let (manager, identity) = Manager::create(folder.path(), new_cluster()).await.unwrap();
        println!("init: {:?}", begun.elapsed());
        Self {
            folder,
            manager,
            identity,
        }
    }

    fn root(&self) -> Member {
        self.identity.member().clone()
    }

    fn worker_token(&self) -> String {
        self.manager.cluster().unwrap().join_tokens.worker
    }

    async fn call(&self, verb: Verb) -> Result<Answer, model::Refusal> {
        self.manager.call(&self.root(), verb).await
    }

    async fn network(&self, name: &str) -> Result<Answer, model::Refusal> {
        let spec = NetworkSpec {
            name: name.into(),
            driver: "overlay".into(),
            attachable: true,
            ..NetworkSpec::default()
        };
        self.call(Verb::NetworkCreate {
            spec: Box::new(spec),
        })
        .await
    }

    async fn node(&self, name: &str) -> model::Node {
        match self
            .call(Verb::NodeInspect {
                reference: name.into(),
            })
            .await
            .unwrap()
        {
            Answer::Node(node) => *node,
            other => panic!("{other:?}"),
        }
    }

    async fn wait_node(&self, name: &str, state: NodeState) {
        let begun = Instant::now();
        while self.node(name).await.status.state != state {
            assert!(begun.elapsed() < LIMIT, "{name} is not {state:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{name} {state:?}: {:?}", begun.elapsed());
    }
}

/// A host that acknowledges whatever it is told.
struct Host {
    connection: Connection,
    identity: Arc<LiveIdentity>,
    told: watch::Receiver<Assignments>,
    id: Id,
    session: tokio::task::JoinHandle<()>,
    beats: tokio::task::JoinHandle<()>,
}

impl Host {
    async fn start(
        address: SocketAddr,
        identity: Arc<LiveIdentity>,
        name: &str,
        own: &str,
    ) -> Self {
        let connection = Connection::open(address, tls::member(&identity).unwrap())
            .await
            .unwrap();
        let register = Register {
            description: description(name, own),
            generation: Generation::default(),
            level: manager::wire::LEVEL,
        };
        let mut stream = connection.session(&register).await.unwrap();
        let SessionMessage::Welcome(welcome) = stream.next().await.unwrap() else {
            panic!("no welcome")
        };
        let (publish, told) = watch::channel(Assignments::default());
        let (line, id) = (connection.clone(), welcome.session.clone());
        let session = tokio::spawn(async move {
            while let Ok(message) = stream.next().await {
                match message {
                    SessionMessage::Full(full) => {
                        publish.send_replace(*full);
                    }
                    SessionMessage::Increment(step) => {
                        publish.send_modify(|told| told.apply(&step));
                    }
                    _ => continue,
                }
                let generation = publish.borrow().generation;
                line.acknowledge(&id, generation).await.unwrap().unwrap();
            }
        });
        let (line, id) = (connection.clone(), welcome.session.clone());
        let period = welcome.heartbeat_period;
        let beats = tokio::spawn(async move {
            while line.beat(&id).await.is_ok() {
                tokio::time::sleep(period).await;
            }
        });
        Self {
            connection,
            identity,
            told,
            id: welcome.session,
            session,
            beats,
        }
    }

    fn stop(&self) {
        self.session.abort();
        self.beats.abort();
    }

    async fn attach(&self, network: &str, container: u8) -> Result<Attached, model::Refusal> {
        let request = AttachRequest {
            network: network.into(),
            node: self.identity.current().member().node.clone(),
            container: ContainerId::from_random([container; 32]),
            container_name: format!("c{container}"),
            aliases: vec!["web".into()],
            addresses: Vec::new(),
            patience: Duration::from_secs(2),
        };
        match self
            .connection
            .call(&Verb::Attach(Box::new(request)))
            .await
            .unwrap()?
        {
            Answer::Attached(attached) => Ok(*attached),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_join_attach_and_learn_of_each_other() {
    let lab = Lab::up().await;
    let address = lab.manager.listen_address();
    let token = lab.worker_token();
    let begun = Instant::now();
    let one = join(address, &token, "worker01", "192.0.2.11")
        .await
        .unwrap();
    let one = Host::start(address, one, "worker01", "192.0.2.11").await;
    println!("join: {:?}", begun.elapsed());
    let two = join(address, &token, "worker02", "192.0.2.12")
        .await
        .unwrap();
    let two = Host::start(address, two, "worker02", "192.0.2.12").await;
    lab.wait_node("worker01", NodeState::Ready).await;
    let refused = one.attach("ch03", 1).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::NotFound);
    lab.network("ch03").await.unwrap();
    assert_eq!(
        lab.network("ch03").await.unwrap_err().kind,
        RefusalKind::Conflict
    );

    let begun = Instant::now();
    let first = one.attach("ch03", 1).await.unwrap();
    println!("attach: {:?}", begun.elapsed());
    let second = two.attach("ch03", 2).await.unwrap();
    assert!(first.late.is_empty() && second.late.is_empty());
    assert_eq!(first.endpoint.addresses[0].to_string(), "10.0.16.2/24");
    assert_eq!(second.endpoint.addresses[0].to_string(), "10.0.16.3/24");
    assert_eq!(
        one.attach("ch03", 1).await.unwrap().endpoint,
        first.endpoint
    );
    // The answer came after both hosts had acknowledged, so both know both.
    for host in [&one, &two] {
        let told = host.told.borrow();
        assert_eq!(told.endpoints.len(), 2);
        assert_eq!(told.peers.len(), 2);
        assert!(told.generation >= second.generation);
    }
    let refused = lab
        .call(Verb::NetworkRemove {
            reference: "ch03".into(),
        })
        .await
        .unwrap_err();
    assert!(refused.message.contains("c1 on worker01"), "{refused}");

    let active = EndpointState::Active;
    let advance = Verb::EndpointAdvance {
        endpoint: first.endpoint.id.clone(),
        state: active,
    };
    one.connection.call(&advance).await.unwrap().unwrap();
    let mut told = two.told.clone();
    let learnt = told.wait_for(|told| told.endpoints[&first.endpoint.id].state == active);
    tokio::time::timeout(LIMIT, learnt).await.unwrap().unwrap();

    // What its container is called from now on all hosts learn.
    let name = |endpoint: &EndpointId, names: &[&str]| Verb::EndpointName {
        endpoint: endpoint.clone(),
        names: names.iter().map(ToString::to_string).collect(),
    };
    let named = name(&first.endpoint.id, &["web", "www"]);
    one.connection.call(&named).await.unwrap().unwrap();
    let mut told = two.told.clone();
    let learnt = told.wait_for(|told| told.endpoints[&first.endpoint.id].names == ["web", "www"]);
    tokio::time::timeout(LIMIT, learnt).await.unwrap().unwrap();
    for (verb, kind) in [
        (name(&second.endpoint.id, &["web"]), RefusalKind::Forbidden),
        (name(&first.endpoint.id, &[]), RefusalKind::Invalid),
        (name(&first.endpoint.id, &["-x"]), RefusalKind::Invalid),
        (
            name(&EndpointId::new("none"), &["web"]),
            RefusalKind::NotFound,
        ),
    ] {
        let refused = one.connection.call(&verb).await.unwrap().unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
    }

    // Another host's endpoint is not a worker's to take.
    let foreign = Verb::Detach {
        endpoint: second.endpoint.id.clone(),
    };
    let refused = one.connection.call(&foreign).await.unwrap().unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Forbidden);
    let created = one.connection.call(&Verb::NodeList).await.unwrap();
    assert_eq!(created.unwrap_err().kind, RefusalKind::Forbidden);

    for (host, endpoint) in [(&one, &first), (&two, &second)] {
        let verb = Verb::Detach {
            endpoint: endpoint.endpoint.id.clone(),
        };
        host.connection.call(&verb).await.unwrap().unwrap();
    }
    let mut told = one.told.clone();
    let empty = told.wait_for(|told| told.networks.is_empty() && told.endpoints.is_empty());
    tokio::time::timeout(LIMIT, empty).await.unwrap().unwrap();
    // Addresses rest: the next one is new.
    assert_eq!(
        one.attach("ch03", 3).await.unwrap().endpoint.addresses[0].to_string(),
        "10.0.16.4/24"
    );
    lab.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_and_rotate() {
    let lab = Lab::up().await;
    let other = Lab::up().await;
    let address = lab.manager.listen_address();
    let old = lab.worker_token();
    for (token, words) in [
        ("nonsense", "SWMTKN-1-"),
        (other.worker_token().as_str(), "not valid"),
    ] {
        let refused = join(address, token, "w", "192.0.2.9").await.unwrap_err();
        assert!(refused.message.contains(words), "{refused}");
    }
    let cluster = lab.manager.cluster().unwrap();
    let rotate = TokenRotation {
        worker: true,
        ..TokenRotation::default()
    };
    let verb = Verb::ClusterUpdate {
        version: cluster.meta.version,
        spec: Box::new(cluster.spec.clone()),
        rotate,
        root: None,
    };
    lab.call(verb.clone()).await.unwrap();
    assert_eq!(
        lab.call(verb).await.unwrap_err().kind,
        RefusalKind::OutOfSequence
    );
    assert!(
        join(address, &old, "w", "192.0.2.9")
            .await
            .unwrap_err()
            .message
            .contains("rotated")
    );
    join(address, &lab.worker_token(), "w", "192.0.2.9")
        .await
        .unwrap();
    lab.manager.shutdown().await;
    other.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_hosts_are_down_and_come_back() {
    let lab = Lab::up().await;
    let address = lab.manager.listen_address();
    let identity = join(address, &lab.worker_token(), "worker01", "192.0.2.11")
        .await
        .unwrap();
    let host = Host::start(address, Arc::clone(&identity), "worker01", "192.0.2.11").await;
    lab.wait_node("worker01", NodeState::Ready).await;
    let kept = Verb::NodeRemove {
        reference: "worker01".into(),
        force: false,
    };
    assert_eq!(
        lab.call(kept.clone()).await.unwrap_err().kind,
        RefusalKind::Invalid
    );
    host.stop();
    lab.wait_node("worker01", NodeState::Down).await;
    let again = Host::start(address, Arc::clone(&identity), "worker01", "192.0.2.11").await;
    lab.wait_node("worker01", NodeState::Ready).await;
    again.stop();
    lab.wait_node("worker01", NodeState::Down).await;
    lab.call(kept).await.unwrap();
    // A removed node's certificate is worth nothing.
    let line = Connection::open(address, tls::member(&identity).unwrap())
        .await
        .unwrap();
    assert!(line.call(&Verb::NetworkList).await.is_err());
    lab.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_only_late_goes_on_in_its_session() {
    let lab = Lab::up().await;
    let address = lab.manager.listen_address();
    let identity = join(address, &lab.worker_token(), "worker01", "192.0.2.11")
        .await
        .unwrap();
    let host = Host::start(address, identity, "worker01", "192.0.2.11").await;
    lab.wait_node("worker01", NodeState::Ready).await;
    host.beats.abort();
    lab.wait_node("worker01", NodeState::Down).await;
    let answer = host.connection.beat(&host.id).await.unwrap().unwrap();
    assert_eq!(answer, BeatReply::Fine);
    // It beats on, or a slow machine would find it down again.
    let (line, id) = (host.connection.clone(), host.id.clone());
    let beating = tokio::spawn(async move {
        while line.beat(&id).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    lab.wait_node("worker01", NodeState::Ready).await;
    assert_eq!(lab.node("worker01").await.status.message, "");
    // What it is told comes as before.
    lab.network("late").await.unwrap();
    let attached = host.attach("late", 7).await.unwrap();
    let mut told = host.told.clone();
    let known = |told: &Assignments| told.endpoints.contains_key(&attached.endpoint.id);
    let waiting = tokio::time::timeout(LIMIT, told.wait_for(known));
    waiting.await.expect("it is told").unwrap();
    // One that has left does not come back by a heartbeat.
    host.connection.leave().await.unwrap().unwrap();
    let late = host.connection.beat(&host.id).await.unwrap().unwrap();
    assert_eq!(late, BeatReply::UnknownSession);
    assert_eq!(lab.node("worker01").await.status.state, NodeState::Down);
    beating.abort();
    lab.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_goes_on_from_its_disk() {
    let lab = Lab::up().await;
    lab.network("ch03").await.unwrap();
    let (nodes, member) = (lab.call(Verb::NodeList).await.unwrap(), lab.root());
    assert_eq!(member.role, Role::Manager);
    let listen = lab.manager.listen_address();
    lab.manager.shutdown().await;
    let live = LiveIdentity::new(lab.identity.clone()).unwrap();
    let start = Start {
        unlock_key: None,
        identity: live,
        listen,
        advertise: listen,
        remotes: Vec::new(),
    };
    let again = Manager::start(lab.folder.path(), start).await.unwrap();
    assert_eq!(again.call(&member, Verb::NodeList).await.unwrap(), nodes);
    let found = again
        .call(
            &member,
            Verb::NetworkInspect {
                reference: "ch03".into(),
            },
        )
        .await;
    assert!(matches!(found, Ok(Answer::Network(_))));
    again.shutdown().await;
}
