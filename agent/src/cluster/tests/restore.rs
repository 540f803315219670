//! A cluster out of an archive.

use model::{
    control::{Answer, Verb},
    node::NodeState,
};

use super::{super::RestoreRequest, ClusterNode, InitRequest, JoinRequest, node, ready, said};

pub(super) const PASSPHRASE: &str = "correct horse";

pub(super) async fn archive_of(manager: &ClusterNode) -> Vec<u8> {
    let Ok(Answer::State(copy)) = manager.call(Verb::ClusterBackup).await else {
        panic!("no copy of the state");
    };
    let about = manager::archive::About {
        cluster: copy.cluster,
        made_at: crate::clock::now_nanos(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        index: copy.index,
    };
    manager::archive::write(about, &copy.state.0, PASSPHRASE).expect("sealed")
}

async fn networks(node: &ClusterNode) -> Vec<String> {
    let Ok(Answer::Networks(networks)) = node.call(Verb::NetworkList).await else {
        panic!("no networks");
    };
    let mut names: Vec<_> = networks.into_iter().map(|n| n.spec.name).collect();
    names.sort();
    names
}

async fn make_network(node: &ClusterNode, name: &str) {
    let spec = Box::new(model::NetworkSpec {
        name: name.to_owned(),
        driver: "overlay".to_owned(),
        ..model::NetworkSpec::default()
    });
    let made = node.call(Verb::NetworkCreate { spec }).await;
    made.expect("a network");
}

fn epoch(node: &ClusterNode) -> u64 {
    node.shared.feed.current().generation.epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_where_it_was_and_elsewhere() {
    let folders: Vec<_> = (0..3)
        .map(|_| tempfile::tempdir().expect("a folder"))
        .collect();
    let init = InitRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        ..InitRequest::default()
    };
    let one = node(folders[0].path(), "one").await;
    let id = one.init(init.clone()).await.expect("made");
    let tokens = one.join_tokens().await.expect("tokens");
    let address = one.local_state().borrow().managers[0].1;
    let worker = node(folders[1].path(), "two").await;
    let join = JoinRequest {
        remotes: vec![address.to_string()],
        token: tokens.worker.clone(),
        ..JoinRequest::default()
    };
    worker.join(join).await.expect("joined");
    let worker_id = worker.local_state().borrow().node_id.clone();
    make_network(&one, "before").await;
    let archive = archive_of(&one).await;
    make_network(&one, "after").await;
    assert!(worker.call(Verb::ClusterBackup).await.is_err(), "a worker");

    // Refused, and nothing has changed.
    let restore = |archive: &[u8], passphrase: &str, force: bool| RestoreRequest {
        archive: archive.to_vec(),
        passphrase: passphrase.to_owned(),
        listen_addr: String::new(),
        force,
        ..RestoreRequest::default()
    };
    for (request, words) in [
        (restore(&archive, PASSPHRASE, false), "already part of"),
        (restore(&archive, "another one", true), "passphrase is not"),
        (restore(&archive[..500], PASSPHRASE, true), "is cut"),
        (restore(b"something", PASSPHRASE, true), "is no archive"),
    ] {
        let refused = one.restore(request).await.expect_err(words);
        assert!(refused.message.contains(words), "{refused}");
    }
    let refused = worker.restore(restore(&archive, PASSPHRASE, true)).await;
    let refused = refused.expect_err("its manager answers");
    assert!(refused.message.contains("other managers"), "{refused}");
    let refused = worker.rejoin("127.0.0.1:1").await.expect_err("a session");
    assert!(refused.message.contains("has a session"), "{refused}");
    assert_eq!(networks(&one).await, ["after", "before", "ingress"]);

    // Back to the archive, at the same place: the worker comes back by itself.
    let before = epoch(&worker);
    let restored = one.restore(restore(&archive, PASSPHRASE, true)).await;
    let restored = restored.expect("restored");
    assert_eq!((restored.node, restored.address), (id, address));
    assert_eq!(restored.before, [address]);
    assert_eq!(networks(&one).await, ["before", "ingress"]);
    ready(&one, 2).await;
    said(&worker, "no session", str::is_empty).await;
    assert!(epoch(&worker) > before);
    assert_eq!(one.join_tokens().await.expect("tokens"), tokens);

    // Another cluster's members are left alone.
    let three = node(folders[2].path(), "three").await;
    three.init(init).await.expect("made");
    let refused = three.restore(restore(&archive, PASSPHRASE, true)).await;
    let refused = refused.expect_err("another cluster");
    assert!(refused.message.contains("another cluster"), "{refused}");
    three.leave(true).await.expect("left");

    // The host is lost; another takes over, and the worker is told.
    let archive = archive_of(&one).await;
    one.shutdown().await;
    drop(one);
    let request = RestoreRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        advertise_addr: "127.0.0.1:0".to_owned(),
        ..restore(&archive, PASSPHRASE, false)
    };
    let restored = three.restore(request).await.expect("restored");
    assert_eq!(networks(&three).await, ["before", "ingress"]);
    let port = {
        let member = three.member.load_full().expect("a member");
        member.manager().expect("it serves").listen_address().port()
    };
    said(&worker, "its manager is gone", |error| !error.is_empty()).await;
    let refused = worker.rejoin("127.0.0.1:1").await.expect_err("nobody");
    assert!(refused.message.contains("answers there"), "{refused}");
    let rejoined = worker.rejoin(&format!("127.0.0.1:{port}")).await;
    rejoined.expect("found");
    assert_eq!(worker.local_state().borrow().node_id, worker_id);
    let Ok(Answer::Nodes(nodes)) = three.call(Verb::NodeList).await else {
        panic!("no nodes");
    };
    let of = |id: &model::NodeId| nodes.iter().find(|node| node.id == *id);
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert!(of(&restored.node).expect("itself").manager.is_some());
    assert_eq!(of(&worker_id).expect("it").status.state, NodeState::Ready);
    for node in [&worker, &three] {
        node.shutdown().await;
    }
}
