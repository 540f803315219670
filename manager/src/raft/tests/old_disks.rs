//! Disks that were put back from an old copy: no leader takes them for what they were.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// Environment variable: the one seed to play.
const SEED: &str = "OVERNET_OLD_DISKS_SEED";

/// What an old copy of a disk is made of.
struct Copy {
    path: PathBuf,
    /// What was written when it was taken.
    written: u32,
}

async fn stop(seat: Seat) -> (PathBuf, Arc<tempfile::TempDir>) {
    seat.consensus.shutdown().await;
    (seat.path, seat.folder)
}

async fn start(mesh: &Arc<Mesh>, (path, folder): (PathBuf, Arc<tempfile::TempDir>)) -> Seat {
    let ((consensus, store), writer) = open(mesh, &path).await;
    Seat {
        path,
        folder,
        ..seat(mesh, consensus, (store, writer))
    }
}

/// Copies the disk of one that is down.
fn copy(path: &Path, written: u32) -> Copy {
    let copied = path.with_extension(format!("copy{written}"));
    std::fs::copy(path, &copied).expect("copied");
    Copy {
        path: copied,
        written,
    }
}

async fn leader(seats: &[Seat]) -> &Seat {
    let begun = Instant::now();
    loop {
        if let Some(seat) = seats.iter().find(|seat| seat.leads()) {
            return seat;
        }
        assert!(begun.elapsed() < LIMIT, "nobody leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Tries until it is committed.
async fn write(seats: &[Seat], number: u32) {
    let begun = Instant::now();
    while let Err(refusal) = leader(seats).await.write(number).await {
        assert!(begun.elapsed() < LIMIT, "{refusal}");
    }
}

/// The same, and has it on disk.
async fn until_known(seats: &[Seat]) {
    until_all_know(seats).await;
    let on_disk = |seat: &Seat| {
        let written = positions::read(&seat.consensus.disk).ok();
        written == Some(seat.consensus.pulse.positions())
    };
    until("and have written it down", || seats.iter().all(on_disk)).await;
}

async fn until_found_out(seats: &[Seat], id: u64) {
    let found = || {
        seats
            .iter()
            .any(|seat| seat.leads() && seat.consensus.outdated().contains_key(&id))
    };
    until("the leader has found it out", found).await;
}

/// The old disk's manager leaves and joins anew, as the leader's loop and its host do it.
async fn exchange(mesh: &Arc<Mesh>, seats: &mut Vec<Seat>, id: u64, number: usize) {
    let begun = Instant::now();
    while let Err(error) = leader(seats)
        .await
        .consensus
        .remove(BTreeSet::from([id]))
        .await
    {
        assert!(begun.elapsed() < LIMIT, "{error}");
    }
    let new = newcomer(mesh).await;
    while let Err(error) = leader(seats)
        .await
        .consensus
        .admit(new.id(), peer(number))
        .await
    {
        assert!(begun.elapsed() < LIMIT, "{error}");
    }
    seats.push(new);
}

/// Which manager gets its old disk, and who is restarted meanwhile; the first is the leader.
async fn found_out(victim: usize, restarted: &[usize]) {
    println!("{victim} has an old disk, {restarted:?} are restarted");
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 3).await;
    write(&seats, 1).await;
    until("all have it", || seats.iter().all(|seat| seat.has(1))).await;
    let down = stop(seats.remove(victim)).await;
    let old = copy(&down.0, 1);
    seats.insert(victim, start(&mesh, down).await);
    for number in 2..10 {
        write(&seats, number).await;
    }
    until("all have it", || seats.iter().all(|seat| seat.has(9))).await;
    until_known(&seats).await;
    let (path, folder) = stop(seats.remove(victim)).await;
    let mut stopped = Vec::new();
    for at in restarted.iter().rev() {
        let at = if *at > victim { at - 1 } else { *at };
        stopped.push((at, stop(seats.remove(at)).await));
    }
    for (at, down) in stopped.into_iter().rev() {
        seats.insert(at, start(&mesh, down).await);
    }
    // So that the old copy is not found out by the entry before the first of the new leader.
    for number in 10..40 {
        write(&seats, number).await;
    }
    std::fs::rename(&old.path, &path).expect("restored");
    let restored = start(&mesh, (path, folder)).await;
    let id = restored.id();
    until_found_out(&seats, id).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!restored.has(9), "nothing is added to it");
    let roster = leader(&seats).await.consensus.roster();
    assert!(roster.survives_without(&peer(victim + 1).node));
    exchange(&mesh, &mut seats, id, victim + 1).await;
    until("it has everything", || seats[2].has(39)).await;
    drop(restored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_disk_is_found_out_whoever_leads() {
    // By the leader that had it acknowledged; by another; of the leader itself; by such as have
    // nothing but what is on their disks.
    found_out(2, &[]).await;
    found_out(2, &[0]).await;
    found_out(0, &[]).await;
    found_out(1, &[0, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_disk_makes_no_majority() {
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 3).await;
    write(&seats, 1).await;
    until("all have it", || seats.iter().all(|seat| seat.has(1))).await;
    let down = stop(seats.pop().expect("three")).await;
    let old = copy(&down.0, 1);
    seats.push(start(&mesh, down).await);
    write(&seats, 2).await;
    until_known(&seats).await;
    let (path, folder) = stop(seats.pop().expect("three")).await;
    let first = stop(seats.remove(0)).await;
    std::fs::rename(&old.path, &path).expect("restored");
    let restored = start(&mesh, (path, folder)).await;
    let id = restored.id();
    until("it is found out without a leader", || {
        seats[0].consensus.outdated().contains_key(&id)
    })
    .await;
    // Several elections' worth.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!seats[0].leads() && !restored.leads());
    assert!(!restored.has(2));
    seats.push(start(&mesh, first).await);
    write(&seats, 3).await;
    until_found_out(&seats, id).await;
    assert!(seats.iter().all(|seat| seat.has(2)) && !restored.has(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_restarts_alone_tells_what_it_knew() {
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 3).await;
    for number in 1..20 {
        write(&seats, number).await;
    }
    until("all have it", || seats.iter().all(|seat| seat.has(19))).await;
    until_known(&seats).await;
    let mut down = Vec::new();
    while let Some(seat) = seats.pop() {
        down.push(stop(seat).await);
    }
    let alone = start(&mesh, down.pop().expect("three")).await;
    assert!(!alone.leads() && alone.has(19), "nobody else is there");
}

/// Managers are restarted, and some of them get old disks, while entries are written.
async fn play(seed: u64) {
    println!("seed {seed}; play it again with {SEED}={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mesh = Arc::new(Mesh::default());
    let mut seats = cluster(&mesh, 3).await;
    let mut old: BTreeMap<PathBuf, Copy> = BTreeMap::new();
    let mut written = 0;
    for _ in 0..6 {
        for _ in 0..rng.random_range(1..12) {
            written += 1;
            write(&seats, written).await;
        }
        until("all have it", || seats.iter().all(|seat| seat.has(written))).await;
        until_known(&seats).await;
        let victim = rng.random_range(0..seats.len());
        let number = written as usize;
        let (path, folder) = stop(seats.remove(victim)).await;
        let restored = old.remove(&path).filter(|_| rng.random_ratio(2, 3));
        if restored.is_none() {
            old.insert(path.clone(), copy(&path, written));
        }
        if rng.random_ratio(1, 2) {
            let another = rng.random_range(0..seats.len());
            let down = stop(seats.remove(another)).await;
            seats.insert(another, start(&mesh, down).await);
        }
        let Some(copy) = restored else {
            seats.insert(victim, start(&mesh, (path, folder)).await);
            continue;
        };
        println!("an old disk of {} entries, of {written}", copy.written);
        std::fs::rename(&copy.path, &path).expect("restored");
        let back = start(&mesh, (path, folder)).await;
        written += 1;
        write(&seats, written).await;
        let id = back.id();
        until_found_out(&seats, id).await;
        exchange(&mesh, &mut seats, id, number + 10).await;
        back.consensus.shutdown().await;
    }
    written += 1;
    write(&seats, written).await;
    until("all have the last", || {
        seats.iter().all(|seat| seat.has(written))
    })
    .await;
    for seat in &seats {
        let lost: Vec<u32> = (1..=written).filter(|number| !seat.has(*number)).collect();
        assert!(
            lost.is_empty(),
            "seed {seed}: {lost:?} of {written} are lost"
        );
    }
}

/// Waits until each manager that runs knows that all have the newest entry.
async fn until_all_know(seats: &[Seat]) {
    let known = || {
        let of_all: Vec<_> = seats
            .iter()
            .map(|seat| seat.consensus.pulse.positions())
            .collect();
        let newest = of_all.iter().flat_map(BTreeMap::values).max().copied();
        let of = |known: &positions::Positions, seat: &Seat| known.get(&seat.id()).copied();
        of_all
            .iter()
            .all(|known| seats.iter().all(|seat| of(known, seat) == newest))
    };
    until("all know how far the logs are", known).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_disks_lose_nothing() {
    let one = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    for seed in one.map_or(vec![1, 2, 3], |seed| vec![seed]) {
        play(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; for the night"]
async fn many_old_disks_lose_nothing() {
    for seed in 100..140 {
        play(seed).await;
    }
}
