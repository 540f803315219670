//! How long the containers of other hosts take to be programmed: 10,000 and 100,000 of them in
//! one network, and one more after that. In a network namespace of its own; as root.

use std::{net::IpAddr, path::Path, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use dataplane::{
    Change, Config, Dataplane, Desired,
    desired::{Network, NetworkKind, PeerFacts, Remote, Subnet, Underlay},
    dns::{DnsConfig, Forgetful},
};
use tests::yardstick::enter_own_namespaces;

const ROUNDS: usize = 3;
const MORE: u32 = 50;

fn main() -> Result<()> {
    enter_own_namespaces()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    println!("| remote endpoints | all at once | each | one more, p50 | one more, p99 |");
    println!("|---|---|---|---|---|");
    for count in [10_000, 100_000] {
        let mut all = Vec::new();
        let mut more = Vec::new();
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir()?;
            let (took, single) = runtime.block_on(round(count, folder.path()))?;
            all.push(took);
            more.extend(single);
        }
        all.sort_by(f64::total_cmp);
        more.sort_by(f64::total_cmp);
        let took = all[ROUNDS / 2];
        println!(
            "| {count} | {took:.3} s | {:.1} µs | {:.0} µs | {:.0} µs |",
            took / f64::from(count) * 1e6,
            more[more.len() / 2] * 1e6,
            more[more.len() * 99 / 100] * 1e6
        );
    }
    Ok(())
}

/// Seconds for all, and for each of some more.
async fn round(count: u32, folder: &Path) -> Result<(f64, Vec<f64>)> {
    let dataplane = Dataplane::start(Config {
        run_dir: folder.to_owned(),
        dns: DnsConfig {
            inherited: Vec::new(),
            keeper: Arc::new(Forgetful),
        },
    })?;
    let mut wish = empty()?;
    // The network stands already; it is the endpoints that are measured.
    clean(&dataplane.replace(wish.clone()).await)?;
    wish.remotes.extend((0..count).map(remote));
    let start = Instant::now();
    clean(&dataplane.replace(wish).await)?;
    let all = start.elapsed().as_secs_f64();
    let mut more = Vec::new();
    for number in count..count + MORE {
        let (id, remote) = remote(number);
        let start = Instant::now();
        clean(&dataplane.change(vec![Change::SetRemote(id, remote)]).await)?;
        more.push(start.elapsed().as_secs_f64());
    }
    clean(&dataplane.purge().await)?;
    dataplane.shutdown().await;
    Ok((all, more))
}

fn clean(report: &dataplane::Report) -> Result<()> {
    ensure!(report.is_clean(), "{:?}", report.failures.first());
    Ok(())
}

fn empty() -> Result<Desired> {
    let mut wish = Desired {
        underlay: Some(Underlay {
            address: "192.0.2.1".parse()?,
            port: 4789,
            peers: [("192.0.2.2".parse()?, PeerFacts::default())].into(),
            tunnels: dataplane::desired::Tunnels::default(),
        }),
        ..Desired::default()
    };
    let network = Network {
        name: "bench".into(),
        kind: NetworkKind::Overlay {
            vni: 4096,
            encrypted: false,
        },
        subnets: vec![Subnet {
            subnet: "10.0.0.0/8".parse()?,
            gateway: "10.0.0.1".parse()?,
        }],
        mtu: None,
    };
    wish.networks.insert("bench".into(), network);
    Ok(wish)
}

fn remote(number: u32) -> (String, Remote) {
    let [_, b, c, d] = number.to_be_bytes();
    let remote = Remote {
        network: "bench".into(),
        addresses: vec![IpAddr::from([10, 64 + b, c, d])],
        mac: [2, 0x42, 10, b, c, d],
        vtep: IpAddr::from([192, 0, 2, 2]),
        names: vec![format!("c{number}")],
    };
    (format!("e{number:06}"), remote)
}
