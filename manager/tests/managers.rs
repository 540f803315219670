//! Several managers in one process, over real mutual TLS on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod members;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use manager::{
    client::Connection,
    leader::{Manager, Start},
    tls::{self, LiveIdentity},
    wire::{Register, SessionMessage, Welcome},
};
use model::{
    Generation, NetworkSpec, Node, Refusal, RefusalKind,
    control::{Answer, Verb},
    node::{NodeState, Reachability, Role},
};

use self::members::{LIMIT, any_port, description, join, new_cluster};

/// One manager, up or down.
struct Seat {
    name: String,
    folder: tempfile::TempDir,
    identity: Arc<LiveIdentity>,
    address: SocketAddr,
    manager: Option<Arc<Manager>>,
}

impl Seat {
    fn manager(&self) -> &Arc<Manager> {
        self.manager.as_ref().expect("the manager is up")
    }

    /// As after `kill -9`: nobody is told.
    async fn kill(&mut self) {
        self.manager.take().expect("up").shutdown().await;
    }

    async fn start(&mut self, remotes: Vec<SocketAddr>) {
        let start = Start {
            identity: Arc::clone(&self.identity),
            unlock_key: None,
            listen: self.address,
            advertise: self.address,
            remotes,
        };
        let manager = Manager::start(self.folder.path(), start).await.unwrap();
        self.manager = Some(manager);
    }

    async fn call(&self, verb: Verb) -> Result<Answer, Refusal> {
        let member = self.identity.current().member().clone();
        self.manager().call(&member, verb).await
    }

    async fn network(&self, name: &str) -> Result<Answer, Refusal> {
        let spec = NetworkSpec {
            name: name.into(),
            driver: "overlay".into(),
            attachable: true,
            ..NetworkSpec::default()
        };
        let spec = Box::new(spec);
        self.call(Verb::NetworkCreate { spec }).await
    }

    async fn has(&self, network: &str) -> bool {
        let reference = network.to_owned();
        let found = self.call(Verb::NetworkInspect { reference }).await;
        found.is_ok()
    }

    async fn nodes(&self) -> Vec<Node> {
        match self.call(Verb::NodeList).await.unwrap() {
            Answer::Nodes(mut nodes) => {
                nodes.sort_by(|a, b| a.description.hostname.cmp(&b.description.hostname));
                nodes
            }
            other => panic!("{other:?}"),
        }
    }

    /// `manager01 leader`, as `node ls` shows them.
    async fn statuses(&self) -> Vec<String> {
        let word = |node: &Node| {
            let status = match &node.manager {
                None => "worker",
                Some(manager) if manager.leader => "leader",
                Some(manager) if manager.reachability == Reachability::Reachable => "reachable",
                Some(_) => "unreachable",
            };
            format!("{} {status}", node.description.hostname)
        };
        self.nodes().await.iter().map(word).collect()
    }

    async fn shows(&self, expected: &[&str]) {
        let begun = Instant::now();
        loop {
            let statuses = self.statuses().await;
            if statuses == expected {
                println!("{expected:?}: {:?}", begun.elapsed());
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{statuses:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn set_role(&self, name: &str, role: Role) -> Result<Answer, Refusal> {
        let nodes = self.nodes().await;
        let node = nodes.iter().find(|n| n.description.hostname == name);
        let node = node.unwrap();
        let mut spec = node.spec.clone();
        spec.role = role;
        self.call(Verb::NodeUpdate {
            reference: node.id.to_string(),
            version: node.meta.version,
            spec,
        })
        .await
    }
}

/// A cluster of so many managers.
async fn cluster(managers: usize) -> Vec<Seat> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (manager, identity) = Manager::create(folder.path(), new_cluster()).await.unwrap();
    let address = manager.listen_address();
    let mut seats = vec![Seat {
        name: "manager01".to_owned(),
        folder,
        identity: LiveIdentity::new(identity).unwrap(),
        address,
        manager: Some(manager),
    }];
    for number in 2..=managers {
        let by = seats.last().unwrap().address;
        add(&mut seats, number, by).await;
    }
    seats
}

/// Joins one more manager by the manager at that address, leader or not.
async fn add(seats: &mut Vec<Seat>, number: usize, by: SocketAddr) {
    let token = seats[0].manager().cluster().unwrap().join_tokens.manager;
    let (name, own) = (format!("manager{number:02}"), format!("192.0.2.{number}"));
    let begun = Instant::now();
    let identity = join(by, &token, &name, &own).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = Start {
        identity: Arc::clone(&identity),
        unlock_key: None,
        listen: any_port(),
        advertise: any_port(),
        remotes: seats.iter().map(|seat| seat.address).collect(),
    };
    let manager = Manager::start(folder.path(), start).await.unwrap();
    println!("{name} joined: {:?}", begun.elapsed());
    seats.push(Seat {
        name,
        folder,
        identity,
        address: manager.listen_address(),
        manager: Some(manager),
    });
}

async fn down(seats: Vec<Seat>) {
    for mut seat in seats {
        if seat.manager.is_some() {
            seat.kill().await;
        }
    }
}

/// Tries until the write is accepted; what may have been done counts as done.
async fn until_written(seat: &Seat, network: &str) -> Duration {
    let begun = Instant::now();
    loop {
        match seat.network(network).await {
            Ok(_) => return begun.elapsed(),
            Err(refusal) if refusal.kind == RefusalKind::Conflict => return begun.elapsed(),
            Err(refusal) => assert!(
                begun.elapsed() < LIMIT,
                "{refusal}: {:?}",
                seat.manager().roster()
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_dies_and_comes_back() {
    let mut seats = cluster(3).await;
    for seat in &seats {
        seat.shows(&[
            "manager01 leader",
            "manager02 reachable",
            "manager03 reachable",
        ])
        .await;
    }
    for (number, seat) in seats.iter().enumerate() {
        seat.network(&format!("n{number}")).await.unwrap();
    }
    seats[0].kill().await;
    let begun = Instant::now();
    until_written(&seats[2], "after").await;
    println!("leader killed, write accepted: {:?}", begun.elapsed());
    for network in ["n0", "n1", "n2", "after"] {
        assert!(seats[1].has(network).await, "{network} is lost");
    }
    let statuses = seats[1].statuses().await;
    assert_eq!(statuses.iter().filter(|s| s.contains("leader")).count(), 1);
    let remotes = vec![seats[1].address];
    seats[0].start(remotes).await;
    let begun = Instant::now();
    loop {
        let statuses = seats[0].statuses().await;
        if statuses[0] == "manager01 reachable" && !statuses.concat().contains("unreachable") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{statuses:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seats[0].has("after").await);
    down(seats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_to_write_and_recovers_by_itself() {
    let mut seats = cluster(3).await;
    seats[0].network("before").await.unwrap();
    seats[1].kill().await;
    seats[2].kill().await;
    // The first read already: it has waited for a leader, and nobody has confirmed what it says.
    assert!(seats[0].has("before").await);
    assert_eq!(seats[0].manager().stale_reads(), 1);
    let begun = Instant::now();
    let refused = loop {
        let refused = seats[0].network("lost").await.unwrap_err();
        if refused.message.contains("does not have a leader") {
            break refused;
        }
        assert!(begun.elapsed() < LIMIT, "{refused}");
    };
    println!("{:?}: {refused}", begun.elapsed());
    assert_eq!(refused.kind, RefusalKind::Unavailable);
    for words in [
        "1 of 3 managers",
        "2 are needed",
        "manager02, manager03",
        "--force-new-cluster",
    ] {
        assert!(refused.message.contains(words), "{words}: {refused}");
    }
    // What it knew is still told.
    assert!(seats[0].has("before").await);
    assert!(seats[0].manager().stale_reads() > 0);
    seats[0]
        .shows(&[
            "manager01 reachable",
            "manager02 unreachable",
            "manager03 unreachable",
        ])
        .await;
    let remotes = vec![seats[0].address];
    seats[2].start(remotes).await;
    let took = until_written(&seats[0], "after").await;
    println!("majority back, write accepted: {took:?}");
    assert!(seats[2].has("before").await && seats[2].has("after").await);
    down(seats).await;
}

/// Opens a session wherever one is to be had, as an agent does.
async fn session(
    from: SocketAddr,
    identity: &Arc<LiveIdentity>,
) -> (Connection, Welcome, manager::client::SessionStream) {
    let mut at = from;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "no session");
        let opened = async {
            let connection = Connection::open(at, tls::member(identity).unwrap()).await?;
            let register = Register {
                description: description("worker01", "192.0.2.101"),
                generation: Generation::default(),
                level: manager::wire::LEVEL,
            };
            let mut stream = connection.session(&register).await?;
            let first = stream.next().await?;
            Ok::<_, manager::client::ClientError>((connection, first, stream))
        };
        match opened.await {
            Ok((connection, SessionMessage::Welcome(welcome), stream)) => {
                return (connection, *welcome, stream);
            }
            Ok((_, SessionMessage::Elsewhere(elsewhere), _)) => {
                at = elsewhere.leader.unwrap_or(from);
            }
            Ok((_, other, _)) => panic!("{other:?}"),
            Err(_) => at = from,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_and_no_host_is_marked_down() {
    let mut seats = cluster(3).await;
    let token = seats[0].manager().cluster().unwrap().join_tokens.worker;
    // By a follower, which has the leader do it.
    let identity = join(seats[1].address, &token, "worker01", "192.0.2.101")
        .await
        .unwrap();
    let (_, welcome, mut stream) = session(seats[2].address, &identity).await;
    assert_eq!(welcome.managers.len(), 3);
    let state = |nodes: Vec<Node>| nodes.last().unwrap().status.state;
    assert_eq!(state(seats[1].nodes().await), NodeState::Ready);
    seats[0].kill().await;
    while stream.next().await.is_ok() {}
    let begun = Instant::now();
    let (connection, welcome, _stream) = session(seats[1].address, &identity).await;
    println!("session moved: {:?}", begun.elapsed());
    let beating = tokio::spawn(async move {
        while connection.beat(&welcome.session).await.is_ok() {
            tokio::time::sleep(welcome.heartbeat_period).await;
        }
    });
    // Longer than a host may be silent, at 200 ms a heartbeat.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(state(seats[2].nodes().await), NodeState::Ready);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    beating.abort();
    down(seats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_are_demoted_and_leave() {
    let mut seats = cluster(3).await;
    // The leader itself: the others elect another, and it has no part any more.
    seats[1].set_role("manager01", Role::Worker).await.unwrap();
    let begun = Instant::now();
    loop {
        let roster = seats[1].manager().roster();
        let known = roster.voters.iter().any(|v| v.leads && v.reachable);
        if roster.voters.len() == 2 && known {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{roster:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("leader demoted: {:?}", begun.elapsed());
    until_written(&seats[1], "after").await;
    // Of two, the one that answers must not be the one that goes.
    seats[2].kill().await;
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let refused = seats[1].network("never").await;
        match refused {
            Err(refusal) if refusal.message.contains("leader") => break,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let remotes = vec![seats[1].address];
    seats[2].start(remotes).await;
    until_written(&seats[1], "again").await;
    let member = seats[2].identity.current().member().clone();
    seats[2].manager().leave(member).await.unwrap();
    seats[1]
        .shows(&["manager01 worker", "manager02 leader", "manager03 worker"])
        .await;
    let refused = seats[1]
        .set_role("manager02", Role::Worker)
        .await
        .unwrap_err();
    assert!(refused.message.contains("last manager"), "{refused}");
    println!("{} is alone", seats[1].name);
    seats[1].network("alone").await.unwrap();
    down(seats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_is_not_given_away() {
    let mut seats = cluster(3).await;
    seats[2].kill().await;
    seats[0]
        .shows(&[
            "manager01 leader",
            "manager02 reachable",
            "manager03 unreachable",
        ])
        .await;
    let refused = seats[0].set_role("manager02", Role::Worker).await;
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("loss of quorum"), "{refused}");
    // The one that is away may go.
    seats[1].set_role("manager03", Role::Worker).await.unwrap();
    seats[0]
        .shows(&[
            "manager01 leader",
            "manager02 reachable",
            "manager03 worker",
        ])
        .await;
    let reference = "manager03".to_owned();
    let verb = Verb::NodeRemove {
        reference,
        force: true,
    };
    seats[1].call(verb).await.unwrap();
    // A removed manager's certificate opens nothing.
    let tls = tls::member(&seats[2].identity).unwrap();
    let connection = Connection::open(seats[0].address, tls).await.unwrap();
    assert!(connection.call(&Verb::NetworkList).await.is_err());
    down(seats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_goes_on_alone() {
    let mut seats = cluster(3).await;
    seats[0].network("before").await.unwrap();
    while !seats[1].has("before").await {}
    for seat in &mut seats {
        seat.kill().await;
    }
    let survivor = &mut seats[1];
    Manager::go_alone(
        survivor.folder.path(),
        &survivor.identity,
        None,
        survivor.address,
    )
    .await
    .unwrap();
    let begun = Instant::now();
    survivor.start(Vec::new()).await;
    survivor.network("after").await.unwrap();
    println!("alone and written: {:?}", begun.elapsed());
    assert!(survivor.has("before").await);
    let statuses = survivor.statuses().await;
    assert_eq!(statuses[1], "manager02 leader");
    assert_eq!(statuses.concat().matches("reachable").count(), 0);
    // Hosts believe it whatever they have seen: its epoch is higher.
    let token = survivor.manager().cluster().unwrap().join_tokens.worker;
    let address = survivor.address;
    let identity = join(address, &token, "worker01", "192.0.2.101")
        .await
        .unwrap();
    let (_, _, mut stream) = session(address, &identity).await;
    let SessionMessage::Full(full) = stream.next().await.unwrap() else {
        panic!("no full set");
    };
    assert_eq!(full.generation.epoch, 2);
    // And other managers join it, under the same certificates.
    let manager03 = seats[2].identity.current().member().clone();
    let folder = tempfile::tempdir().unwrap();
    seats[2].folder = folder;
    seats[2].start(vec![address]).await;
    let answer = seats[2].manager().call(&manager03, Verb::NodeList).await;
    assert!(answer.is_ok(), "{answer:?}");
    seats[1]
        .shows(&[
            "manager01 worker",
            "manager02 leader",
            "manager03 reachable",
            "worker01 worker",
        ])
        .await;
    down(seats).await;
}
