mod mesh;

use openraft::{
    StorageError,
    testing::{StoreBuilder, Suite},
};

use super::*;

/// There is nobody else.
struct Nobody;

impl Carrier for Nobody {
    fn carry<'a>(
        &'a self,
        _peer: &'a Peer,
        _call: RaftCall,
        _limit: Duration,
    ) -> futures_util::future::BoxFuture<'a, Result<RaftSaid, CarryError>> {
        Box::pin(async { Err(CarryError::Unreachable("there is nobody".to_owned())) })
    }
}

fn nobody() -> Arc<dyn Carrier> {
    Arc::new(Nobody)
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<u64>> {
        let folder = tempfile::tempdir().expect("a folder");
        let key = WrappingKey::from_node_key(b"test");
        let disk = Disk::create(&folder.path().join("raft.redb"), &key, 1)
            .await
            .expect("a new log");
        let (store, writer) = Store::new();
        // Nothing proposes here; the suite writes through Raft's own traits.
        drop(writer);
        let machine = Machine::load(disk.clone(), store).expect("empty");
        Ok((folder, LogStore::new(disk), machine))
    }
}

#[test]
fn openrafts_own_storage_suite_passes() {
    Suite::test_all(OnDisk).expect("the suite");
}

fn key() -> WrappingKey {
    WrappingKey::from_node_key(b"node key")
}

fn run(consensus: Consensus, store: &Store, writer: crate::store::StoreWriter) -> Arc<Consensus> {
    let consensus = Arc::new(consensus);
    let proposer: Arc<dyn Proposer> = Arc::clone(&consensus) as _;
    tokio::spawn(writer.run(store.clone(), proposer));
    consensus
}

fn node(number: u32) -> model::Node {
    model::Node {
        id: format!("node{number:05}").into(),
        meta: model::Meta::default(),
        spec: model::NodeSpec {
            name: None,
            labels: BTreeMap::new(),
            role: model::node::Role::Worker,
            availability: model::node::Availability::Active,
        },
        number,
        description: model::node::NodeDescription::default(),
        status: model::node::NodeStatus {
            state: model::node::NodeState::Ready,
            message: String::new(),
            address: None,
        },
        manager: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_restart_with_and_without_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("raft.redb");
    let begin = std::time::Instant::now();
    let (store, writer) = Store::new();
    let consensus = Consensus::create(&path, &key(), store.clone(), nobody(), Peer::default())
        .await
        .expect("a new cluster");
    println!("Raft of one made in {:?}", begin.elapsed());
    let consensus = run(consensus, &store, writer);
    for number in 1..=20 {
        let write = store.update(move |tx| {
            tx.set_node(node(number));
            Ok(())
        });
        write.await.expect("committed");
        if number == 10 {
            consensus.snapshot().await.expect("snapshot");
        }
    }
    let before = store.view();
    consensus.shutdown().await;
    drop((consensus, store));

    let other = WrappingKey::from_node_key(b"another");
    let again = open_when_released(&path, &key()).await;
    assert_eq!(before.nodes().count(), 20);
    assert_eq!(
        again.0.1.view().nodes().collect::<Vec<_>>(),
        before.nodes().collect::<Vec<_>>()
    );
    let ((consensus, store), writer) = again;
    let consensus = run(consensus, &store, writer);
    consensus.add_key(&other).await.expect("a second key");
    consensus.rotate(&other).await.expect("one key");
    // What was written before and what comes after are read again, twice.
    let write = store.update(move |tx| {
        tx.set_node(node(21));
        Ok(())
    });
    write.await.expect("committed");
    consensus.shutdown().await;
    drop((consensus, store));

    for _ in 0..2 {
        let ((consensus, store), _writer) = open_when_released(&path, &other).await;
        assert_eq!(store.view().nodes().count(), 21);
        consensus.shutdown().await;
        drop((consensus, store));
    }
    let late = disk_when_released(&path, &key()).await.err();
    let late = late.expect("the old key");
    assert!(late.contains("another key"), "{late}");

    // A change that was broken off opens under both, and is completed by the next start.
    let disk = disk_when_released(&path, &other).await.expect("the key");
    for wanted in [&key(), &key(), &other] {
        disk.add_key(wanted).await.expect("a second key");
        assert_eq!(disk.wraps().expect("read").len(), 2, "each key once");
    }
    disk.close();
    drop(disk);
    let disk = disk_when_released(&path, &key()).await;
    drop(disk.expect("the next key"));
    let late = disk_when_released(&path, &other).await.err();
    assert!(late.expect("the old key").contains("another key"));
}

async fn disk_when_released(path: &Path, key: &WrappingKey) -> Result<Disk, String> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Disk::open(path, key)
            .await
            .map_err(|error| error.to_string())
        {
            Err(error) if error.contains("already open") => {
                assert!(std::time::Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => return opened,
        }
    }
}

/// The last handle of a file goes when the stopped Raft's tasks have ended.
async fn open_when_released(
    path: &Path,
    key: &WrappingKey,
) -> ((Consensus, Store), crate::store::StoreWriter) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let (store, writer) = Store::new();
        match Consensus::open(path, key, store.clone(), nobody()).await {
            Ok(consensus) => return ((consensus, store), writer),
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_wait_become_one_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = Store::new();
    let path = folder.path().join("raft.redb");
    let consensus = Consensus::create(&path, &key(), store.clone(), nobody(), Peer::default())
        .await
        .expect("a new cluster");
    let _consensus = run(consensus, &store, writer);
    let first = store.view().index();
    let begin = std::time::Instant::now();
    let writes = (0..1000).map(|number| {
        store.update(move |tx| {
            tx.set_node(node(number));
            Ok(())
        })
    });
    for done in futures_util::future::join_all(writes).await {
        done.expect("committed");
    }
    let entries = store.view().index() - first;
    println!(
        "1000 transactions in {entries} entries, {:?}",
        begin.elapsed()
    );
    assert!(entries <= 10, "{entries} entries");
}
