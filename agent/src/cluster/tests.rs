//! Two nodes in one process, over loopback.

mod heartbeat;
mod lock;
mod restore;

use std::{sync::Arc, time::Duration};

use model::{
    RefusalKind,
    control::{Answer, Verb},
    node::{NodeDescription, NodeState, Role},
};

use super::{ClusterNode, Config, InitRequest, JoinRequest, Standing, Update, renewal};

async fn node(root: &std::path::Path, hostname: &str) -> Arc<ClusterNode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hostname = hostname.to_owned();
    let started = ClusterNode::start(Config {
        root: root.to_owned(),
        heartbeat: Duration::from_millis(200),
        describe: Arc::new(move || NodeDescription {
            hostname: hostname.clone(),
            ..NodeDescription::default()
        }),
    });
    started.await.expect("started")
}

async fn until(node: &ClusterNode, standing: Standing) {
    let mut state = node.local_state();
    let reached = state.wait_for(|state| state.state == standing);
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(
        reached.is_ok(),
        "not {standing:?}: {:?}",
        node.local_state()
    );
}

async fn said(node: &ClusterNode, otherwise: &str, expected: impl Fn(&str) -> bool) {
    let mut state = node.local_state();
    let reached = state.wait_for(|state| expected(&state.error));
    let reached = tokio::time::timeout(Duration::from_secs(30), reached).await;
    assert!(reached.is_ok(), "{otherwise}");
}

/// A manager keeps its key, which its log needs at the next start.
async fn renewed(node: &ClusterNode, same_key: bool) {
    let member = node.member.load_full().expect("a member");
    let before = member.identity.current();
    let renewal = renewal::renew(&node.shared, &member).await;
    renewal.expect("renewed");
    let after = member.identity.current();
    assert_ne!(before.chain_pem(), after.chain_pem());
    assert_eq!(before.member(), after.member());
    assert_eq!(before.key_pem() == after.key_pem(), same_key);
}

async fn ready(manager: &ClusterNode, wanted: usize) {
    let looking = async {
        loop {
            if let Ok(Answer::Nodes(nodes)) = manager.call(Verb::NodeList).await {
                let ready = nodes.iter().filter(|n| n.status.state == NodeState::Ready);
                if ready.count() == wanted {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
    assert!(found.is_ok(), "not {wanted} nodes are ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_joined_resumed_and_left() {
    let (one, two) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let manager = node(one.path(), "one").await;
    let refused = manager.call(Verb::NodeList).await.expect_err("no member");
    assert_eq!(refused.kind, RefusalKind::Unavailable);
    let init = InitRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        ..InitRequest::default()
    };
    let id = manager.init(init.clone()).await.expect("made");
    assert_eq!(manager.local_state().borrow().node_id, id);
    assert!(manager.local_state().borrow().control_available());
    assert!(manager.init(init).await.is_err(), "a member already");
    let address = manager.local_state().borrow().managers[0].1;
    let token = manager.join_tokens().await.expect("tokens").worker;

    let worker = node(two.path(), "two").await;
    let join = |token: &str| JoinRequest {
        remotes: vec![address.to_string()],
        token: token.to_owned(),
        ..JoinRequest::default()
    };
    assert!(worker.join(join("nonsense")).await.is_err());
    let foreign = manager::ca::Token {
        digest: "a".repeat(50),
        secret: "b".repeat(25),
    };
    let refused = worker.join(join(&foreign.to_string())).await;
    assert!(
        refused
            .expect_err("another cluster")
            .message
            .contains("root certificate")
    );
    worker.join(join(&token)).await.expect("joined");
    assert_eq!(worker.local_state().borrow().role, Some(Role::Worker));
    let Ok(Answer::Nodes(nodes)) = manager.call(Verb::NodeList).await else {
        panic!("no nodes");
    };
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(matches!(
        worker.call(Verb::NetworkList).await,
        Ok(Answer::Networks(_))
    ));
    let refused = worker.call(Verb::NodeList).await.expect_err("a worker");
    assert!(
        refused
            .message
            .starts_with("This node is not a swarm manager. Worker")
    );
    assert!(
        matches!(worker.assignments().next().await, Some(Update::Full(full)) if full.data_path_port == 4789)
    );

    renewed(&manager, true).await;
    renewed(&worker, false).await;

    worker.shutdown().await;
    drop(worker);
    let worker = node(two.path(), "two").await;
    assert!(
        matches!(worker.assignments().next().await, Some(Update::Full(full)) if full.data_path_port == 4789)
    );
    until(&worker, Standing::Active).await;
    manager.shutdown().await;
    drop(manager);
    said(&worker, "nothing lost", |error| !error.is_empty()).await;
    let manager = node(one.path(), "one").await;
    until(&manager, Standing::Active).await;

    said(&worker, "no session again", str::is_empty).await;
    ready(&manager, 2).await;

    worker.leave(false).await.expect("left");
    let Ok(Answer::Nodes(nodes)) = manager.call(Verb::NodeList).await else {
        panic!("no nodes");
    };
    let gone = nodes.iter().find(|node| node.spec.role == Role::Worker);
    let status = &gone.expect("still listed").status;
    assert_eq!(status.state, NodeState::Down, "{status:?}");
    assert_eq!(status.message, "the node has left");
    assert!(!two.path().join("swarm").exists());
    assert_eq!(worker.local_state().borrow().state, Standing::Inactive);
    let refused = manager.leave(false).await.expect_err("needs force");
    assert!(refused.message.contains("last manager"));
    manager.leave(true).await.expect("left");
    assert!(!one.path().join("swarm").exists());
}

async fn change_role(by: &ClusterNode, hostname: &str, role: Role) {
    let reference = hostname.to_owned();
    let Ok(Answer::Node(node)) = by.call(Verb::NodeInspect { reference }).await else {
        panic!("{hostname} is not known");
    };
    let mut spec = node.spec.clone();
    spec.role = role;
    let change = Verb::NodeUpdate {
        reference: node.id.to_string(),
        version: node.meta.version,
        spec,
    };
    by.call(change).await.expect("changed");
}

async fn is_manager(node: &ClusterNode, manager: bool) {
    let mut state = node.local_state();
    let reached =
        state.wait_for(|state| state.role.is_some() && state.control_available() == manager);
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    assert!(reached.is_ok(), "{:?}", node.local_state());
}

async fn until_answered(node: &ClusterNode) {
    let begun = std::time::Instant::now();
    while let Err(refusal) = node.call(Verb::NodeList).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{refusal}");
    }
    println!("answered after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_become_managers_and_workers_again() {
    let folders: Vec<_> = (0..3)
        .map(|_| tempfile::tempdir().expect("a folder"))
        .collect();
    let one = node(folders[0].path(), "one").await;
    let init = InitRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        ..InitRequest::default()
    };
    one.init(init).await.expect("made");
    let tokens = one.join_tokens().await.expect("tokens");
    let address = one.local_state().borrow().managers[0].1;
    let join = |token: &str| JoinRequest {
        remotes: vec![address.to_string()],
        token: token.to_owned(),
        listen_addr: "127.0.0.1:0".to_owned(),
        ..JoinRequest::default()
    };
    let two = node(folders[1].path(), "two").await;
    two.join(join(&tokens.worker)).await.expect("joined");
    is_manager(&two, false).await;
    change_role(&one, "two", Role::Manager).await;
    is_manager(&two, true).await;
    let three = node(folders[2].path(), "three").await;
    three.join(join(&tokens.manager)).await.expect("joined");
    // Joining by the manager's token is over when the others have let it in.
    assert!(three.local_state().borrow().control_available());
    ready(&three, 3).await;

    // The leader dies; sessions go on with another, and nobody is marked down but it.
    one.shutdown().await;
    until_answered(&three).await;
    until(&two, Standing::Active).await;
    let again = node(folders[0].path(), "one").await;
    until(&again, Standing::Active).await;
    ready(&again, 3).await;

    change_role(&two, "three", Role::Worker).await;
    is_manager(&three, false).await;
    let begun = std::time::Instant::now();
    while folders[2].path().join("swarm/manager").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "state is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = three.call(Verb::NodeList).await.expect_err("a worker");
    assert!(refused.message.contains("Worker nodes"), "{refused}");
    assert!(three.call(Verb::NetworkList).await.is_ok());

    // One of two is lost for ever.
    again.shutdown().await;
    let force = InitRequest {
        force_new_cluster: true,
        ..InitRequest::default()
    };
    let refused = three.init(force.clone()).await.expect_err("a worker");
    assert!(refused.message.contains("no manager"), "{refused}");
    two.init(force).await.expect("alone");
    until_answered(&two).await;
    until(&three, Standing::Active).await;
    for node in [&two, &three] {
        node.shutdown().await;
    }
}
