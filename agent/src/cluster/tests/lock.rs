//! A manager that waits for its unlock key.

use std::{fs, path::Path};

use manager::unlock::UnlockKey;
use model::{ClusterSpec, RefusalKind, control::TokenRotation};

use super::{super::RestoreRequest, *};

async fn cluster(node: &ClusterNode) -> model::Cluster {
    match node.call(Verb::ClusterInspect).await {
        Ok(Answer::Cluster(cluster)) => *cluster,
        other => panic!("no cluster: {other:?}"),
    }
}

async fn update(node: &ClusterNode, autolock: bool, rotate: bool) -> Result<(), model::Refusal> {
    let cluster = cluster(node).await;
    let change = Verb::ClusterUpdate {
        version: cluster.meta.version,
        spec: Box::new(ClusterSpec {
            autolock,
            ..cluster.spec
        }),
        rotate: TokenRotation {
            unlock_key: rotate,
            ..TokenRotation::default()
        },
        root: None,
    };
    node.call(change).await.map(|_| ())
}

/// Waits until the key on disk is sealed under the key, or under none.
async fn until_sealed(node: &ClusterNode, root: &Path, key: &str) {
    let wanted = UnlockKey::parse(key).ok();
    let begun = std::time::Instant::now();
    loop {
        let member = node.member.load_full().expect("a member");
        if member.unlock_key() == wanted {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never sealed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = fs::read_to_string(root.join("swarm/identity.pem")).expect("an identity");
    assert_eq!(text.contains("PRIVATE KEY"), key.is_empty(), "{text}");
    let open = root.join("swarm/ledger.open");
    assert_eq!(open.exists(), !key.is_empty());
}

async fn restarted(node_: Arc<ClusterNode>, root: &Path) -> Arc<ClusterNode> {
    node_.shutdown().await;
    drop(node_);
    node(root, "one").await
}

async fn refused(node: &ClusterNode, key: &str) -> RefusalKind {
    let refused = node.unlock(key).await.expect_err("not this key");
    assert!(
        refused.message.contains("invalid key provided"),
        "{refused}"
    );
    assert!(node.is_locked());
    refused.kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_waits_for_its_unlock_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let one = node(root, "one").await;
    let init = InitRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        spec: Some(ClusterSpec {
            autolock: true,
            ..ClusterSpec::default()
        }),
        ..InitRequest::default()
    };
    let id = one.init(init).await.expect("made");
    let key = one.unlock_key().await.expect("a key");
    until_sealed(&one, root, &key).await;
    // A certificate is renewed under the same seal.
    renewed(&one, true).await;
    until_sealed(&one, root, &key).await;
    let told = one.shared.feed.current();
    assert_eq!(
        one.unlock(&key).await.expect_err("open").kind,
        RefusalKind::Conflict
    );

    let one = restarted(one, root).await;
    assert!(one.is_locked());
    assert_eq!(one.local_state().borrow().node_id, id);
    assert_eq!(
        one.shared.feed.current().generation,
        told.generation,
        "the host goes on with what it was told"
    );
    for refused in [
        one.call(Verb::NodeList).await.expect_err("locked"),
        one.init(InitRequest::default()).await.expect_err("locked"),
        one.join(JoinRequest::default()).await.expect_err("locked"),
        one.rejoin("127.0.0.1").await.expect_err("locked"),
        one.leave(false).await.expect_err("locked"),
    ] {
        assert_eq!(refused.kind, RefusalKind::Unavailable);
        assert!(
            refused.message.starts_with("Swarm is encrypted"),
            "{refused}"
        );
    }
    let other = UnlockKey::generate().expect("random").to_string();
    assert_eq!(refused(&one, &other).await, RefusalKind::Unauthorized);
    assert_eq!(refused(&one, "SWMKEY-1-").await, RefusalKind::Invalid);
    one.unlock(&key).await.expect("its key");
    until(&one, Standing::Active).await;
    assert_eq!(one.unlock_key().await, Ok(key.clone()));

    update(&one, true, true).await.expect("rotated");
    let next = one.unlock_key().await.expect("a key");
    assert_ne!(next, key);
    until_sealed(&one, root, &next).await;
    let one = restarted(one, root).await;
    assert_eq!(refused(&one, &key).await, RefusalKind::Unauthorized);
    one.unlock(&next).await.expect("its key");
    until(&one, Standing::Active).await;

    // A cluster out of its archive has the same key.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let two = node(elsewhere.path(), "two").await;
    let archive = restore::archive_of(&one).await;
    let request = |force| RestoreRequest {
        archive: archive.clone(),
        passphrase: restore::PASSPHRASE.to_owned(),
        listen_addr: "127.0.0.1:0".to_owned(),
        advertise_addr: "127.0.0.1:0".to_owned(),
        force,
        ..RestoreRequest::default()
    };
    let left = two.restore(request(false)).await;
    let left = left.expect_err("its manager answers");
    assert!(left.message.contains("go on beside"), "{left}");
    assert!(!elsewhere.path().join("swarm").exists());
    two.restore(request(true)).await.expect("restored");
    until_sealed(&two, elsewhere.path(), &next).await;
    two.shutdown().await;

    // Where it was, too, and its disk opens under that key at any moment.
    let before = one.shared.feed.current().generation;
    let again = RestoreRequest {
        listen_addr: String::new(),
        advertise_addr: String::new(),
        ..request(true)
    };
    one.restore(again).await.expect("restored");
    until_sealed(&one, root, &next).await;
    assert!(one.shared.feed.current().generation > before);
    let one = restarted(one, root).await;
    assert!(one.is_locked());
    one.unlock(&next).await.expect("its key");
    until(&one, Standing::Active).await;

    update(&one, false, false).await.expect("turned off");
    until_sealed(&one, root, "").await;
    assert_eq!(one.unlock_key().await, Ok(String::new()));
    let nothing = update(&one, false, true).await.expect_err("no key");
    assert_eq!(nothing.kind, RefusalKind::Invalid);
    let one = restarted(one, root).await;
    until(&one, Standing::Active).await;

    // What is locked may be left.
    update(&one, true, false).await.expect("turned on");
    let key = one.unlock_key().await.expect("a key");
    until_sealed(&one, root, &key).await;
    let one = restarted(one, root).await;
    one.leave(true).await.expect("left");
    assert!(!root.join("swarm").exists());
    assert_eq!(one.local_state().borrow().state, Standing::Inactive);
    assert_eq!(*one.shared.feed.current(), model::Assignments::default());
    let refused = one.unlock(&key).await.expect_err("no member");
    assert!(refused.message.contains("not part of a swarm"), "{refused}");
}
