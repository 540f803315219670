//! Several managers in one process, over a network that can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, Weak},
    time::Instant,
};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{super::*, key, node};
use crate::store::Tables;

const LIMIT: Duration = Duration::from_secs(60);

/// Carries calls between those that are not parted.
#[derive(Default)]
struct Mesh {
    members: Mutex<BTreeMap<u64, Weak<Consensus>>>,
    cut_off: Mutex<BTreeSet<u64>>,
    chunks: Mutex<u32>,
}

impl Carrier for Mesh {
    fn carry<'a>(
        &'a self,
        _peer: &'a Peer,
        call: RaftCall,
        _limit: Duration,
    ) -> BoxFuture<'a, Result<RaftSaid, CarryError>> {
        async move {
            let unreachable = || CarryError::Unreachable("it is cut off".to_owned());
            let parted = |id: &u64| self.cut_off.lock().expect("whole").contains(id);
            if parted(&call.from) || parted(&call.to) {
                return Err(unreachable());
            }
            let member = self.members.lock().expect("whole").get(&call.to).cloned();
            let member = member.and_then(|m| m.upgrade()).ok_or_else(unreachable)?;
            if let RaftAsk::Snapshot(_) = call.ask {
                *self.chunks.lock().expect("whole") += 1;
            }
            let (from, to) = (call.from, call.to);
            let said = member.answer(call).await.map_err(CarryError::Refused);
            if parted(&from) || parted(&to) {
                return Err(unreachable());
            }
            said
        }
        .boxed()
    }
}

struct Seat {
    consensus: Arc<Consensus>,
    store: Store,
    path: PathBuf,
    folder: Arc<tempfile::TempDir>,
}

impl Seat {
    fn id(&self) -> u64 {
        self.consensus.raft_id()
    }

    fn leads(&self) -> bool {
        self.consensus.lead().borrow().leading
    }

    async fn write(&self, number: u32) -> Result<Arc<Tables>, model::Refusal> {
        let write = self.store.update(move |tx| {
            tx.set_node(node(number));
            Ok(())
        });
        write.await.map(|((), tables)| tables)
    }

    fn has(&self, number: u32) -> bool {
        self.store.view().node(&node(number).id).is_some()
    }
}

fn seat(mesh: &Arc<Mesh>, consensus: Consensus, rest: (Store, crate::store::StoreWriter)) -> Seat {
    let (store, writer) = rest;
    let consensus = super::run(consensus, &store, writer);
    let id = consensus.raft_id();
    let weak = Arc::downgrade(&consensus);
    mesh.members.lock().expect("whole").insert(id, weak);
    Seat {
        consensus,
        store,
        path: PathBuf::new(),
        folder: Arc::new(tempfile::tempdir().expect("a folder")),
    }
}

fn peer(number: usize) -> Peer {
    Peer {
        node: format!("m{number}").into(),
        address: None,
    }
}

async fn newcomer(mesh: &Arc<Mesh>) -> Seat {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("raft.redb");
    let (store, writer) = Store::new();
    let carrier = Arc::clone(mesh) as Arc<dyn Carrier>;
    let joined = Consensus::join(&path, &key(), store.clone(), carrier).await;
    Seat {
        path,
        folder,
        ..seat(mesh, joined.expect("a new log"), (store, writer))
    }
}

async fn cluster(mesh: &Arc<Mesh>, managers: usize) -> Vec<Seat> {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("raft.redb");
    let (store, writer) = Store::new();
    let carrier = Arc::clone(mesh) as Arc<dyn Carrier>;
    let first = Consensus::create(&path, &key(), store.clone(), carrier, peer(1)).await;
    let mut seats = vec![Seat {
        path,
        folder,
        ..seat(mesh, first.expect("a new cluster"), (store, writer))
    }];
    for number in 2..=managers {
        let next = newcomer(mesh).await;
        let admitted = seats[0].consensus.admit(next.id(), peer(number)).await;
        admitted.expect("let in");
        seats.push(next);
    }
    seats
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{what}: {:?}", begun.elapsed());
}

fn part(mesh: &Mesh, ids: &[u64]) {
    *mesh.cut_off.lock().expect("whole") = ids.iter().copied().collect();
}

#[path = "old_disks.rs"]
mod old_disks;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_cut_off_does_not_disturb() {
    let mesh = Arc::new(Mesh::default());
    let seats = cluster(&mesh, 3).await;
    let term = seats[0].consensus.roster().term;
    for _ in 0..2 {
        part(&mesh, &[seats[2].id()]);
        seats[0].write(1).await.expect("two are a majority");
        // Longer than it waits before it asks for an election.
        tokio::time::sleep(Duration::from_secs(3)).await;
        part(&mesh, &[]);
        let number = u32::try_from(seats[0].store.view().index()).expect("small");
        seats[0].write(number).await.expect("nothing has changed");
        until("it has caught up", || seats[2].has(number)).await;
    }
    assert!(seats[0].leads());
    assert_eq!(seats[0].consensus.roster().term, term, "nobody was elected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_majority_gives_up_and_follows_later() {
    let mesh = Arc::new(Mesh::default());
    let seats = cluster(&mesh, 3).await;
    seats[0].write(1).await.expect("all are there");
    part(&mesh, &[seats[0].id()]);
    let begun = Instant::now();
    let refused = seats[0].write(2).await.expect_err("a minority");
    println!("refused after {:?}: {refused}", begun.elapsed());
    assert!(refused.message.contains("not known"), "{refused}");
    until("it does not lead", || !seats[0].leads()).await;
    let refused = seats[0].write(3).await.expect_err("it does not lead");
    assert!(refused.message.contains("nothing was done"), "{refused}");
    until("another leads", || seats[1].leads() || seats[2].leads()).await;
    let next = if seats[1].leads() {
        &seats[1]
    } else {
        &seats[2]
    };
    next.write(4).await.expect("two are a majority");
    part(&mesh, &[]);
    until("the old one has what was written", || seats[0].has(4)).await;
    for seat in &seats {
        assert!(seat.has(1) && !seat.has(2) && !seat.has(3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_takes_itself_out() {
    let mesh = Arc::new(Mesh::default());
    let seats = cluster(&mesh, 3).await;
    seats[0].write(1).await.expect("committed");
    let own = BTreeSet::from([seats[0].id()]);
    let removed = seats[0].consensus.remove(own).await;
    println!("{removed:?}");
    until("another leads", || seats[1].leads() || seats[2].leads()).await;
    let next = if seats[1].leads() {
        &seats[1]
    } else {
        &seats[2]
    };
    for number in 2..5 {
        let written = next.write(number).await;
        written.unwrap_or_else(|e| panic!("{e}: {:?}", next.consensus.raft.metrics().borrow()));
    }
    until("both have it", || seats[1].has(4) && seats[2].has(4)).await;
    assert!(next.leads() && !seats[0].leads());
    assert_eq!(next.consensus.roster().voting(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_a_snapshot_in_parts() {
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 1).await;
    let writes = (0..700).map(|number| {
        seats[0].store.update(move |tx| {
            let mut node = node(number);
            node.description.engine_version = "x".repeat(4096);
            tx.set_node(node);
            Ok(())
        })
    });
    for done in futures_util::future::join_all(writes).await {
        done.expect("committed");
    }
    // What a snapshot replaces is cut behind it, but for the entries of those a little late.
    for number in 1000..1600 {
        seats[0].write(number).await.expect("committed");
    }
    seats[0].consensus.snapshot().await.expect("taken");
    let raft = seats[0].consensus.raft.clone();
    until("the log is cut", || {
        raft.metrics().borrow().purged.is_some()
    })
    .await;
    seats.push(newcomer(&mesh).await);
    let admitted = seats[0].consensus.admit(seats[1].id(), peer(2)).await;
    admitted.expect("let in");
    seats[0].write(2000).await.expect("both are there");
    until("the newcomer has all of it", || seats[1].has(2000)).await;
    assert_eq!(*seats[0].store.view(), *seats[1].store.view());
    let chunks = *mesh.chunks.lock().expect("whole");
    println!("{chunks} parts");
    assert!(chunks > 2, "{chunks} parts");
}

/// The last handle of a file goes when the stopped Raft's tasks have ended.
async fn open(mesh: &Arc<Mesh>, path: &Path) -> ((Consensus, Store), crate::store::StoreWriter) {
    let begun = Instant::now();
    loop {
        let (store, writer) = Store::new();
        let carrier = Arc::clone(mesh) as Arc<dyn Carrier>;
        match Consensus::open(path, &key(), store.clone(), carrier).await {
            Ok(consensus) => return ((consensus, store), writer),
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two of three managers are taken for lost, and were not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_majority_hears_that_the_cluster_was_begun_anew() {
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 3).await;
    let founded = seats[0].store.update(|tx| {
        tx.set_cluster(crate::example::cluster_record());
        Ok(())
    });
    founded.await.expect("committed");
    let known = |seat: &Seat| seat.store.view().cluster().is_some();
    until("all know the cluster", || seats.iter().all(known)).await;
    let before = seats[2].id();
    let mut stopped = Vec::new();
    for seat in seats.drain(..) {
        seat.consensus.shutdown().await;
        stopped.push((seat.path, seat.folder));
    }
    let begun = Instant::now();
    while let Err(error) = go_alone(&stopped[2].0, &key(), peer(3)).await {
        assert!(begun.elapsed() < LIMIT, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (path, folder) in stopped {
        let ((consensus, store), writer) = open(&mesh, &path).await;
        seats.push(Seat {
            path,
            folder,
            ..seat(&mesh, consensus, (store, writer))
        });
    }
    let survivor = seats.pop().expect("three");
    survivor.write(1).await.expect("it leads alone");
    // Nobody has told them yet.
    until("the old majority elects", || seats.iter().any(Seat::leads)).await;
    let old = seats.iter().find(|seat| seat.leads()).expect("one leads");
    old.write(2).await.expect("two of three");
    // Where the third manager is, they find the new cluster's.
    let weak = Arc::downgrade(&survivor.consensus);
    mesh.members.lock().expect("whole").insert(before, weak);
    let outlived = |seat: &Seat| {
        let lead = seat.consensus.lead().borrow().clone();
        seat.consensus.pulse.outlived() == Some(2) && !lead.leading && lead.leader.is_none()
    };
    until("both have given up", || seats.iter().all(outlived)).await;
    for seat in &seats {
        let refused = seat.write(3).await.expect_err("it counts no longer");
        assert!(refused.message.contains("nothing was done"), "{refused}");
    }
    survivor.write(4).await.expect("it leads still");
    assert!(survivor.has(1) && !survivor.has(2));
}
