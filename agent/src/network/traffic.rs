//! The tunnels' counters for those who look: one thread reads them for all.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dataplane::traffic::{Counter, Flow, Traffic};
use futures_util::future::BoxFuture;
use model::{
    HostTraffic, NodeId, PathState, Refusal,
    assignment::Peer,
    traffic::{Count, TunnelTraffic},
};
use tokio::sync::watch;

use super::Networks;
use crate::{
    clock,
    cluster::TrafficSource,
    http::{TunnelEnd, TunnelReading},
};

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a question of a manager is reason to count.
const LEASE: Duration = Duration::from_secs(10);
/// Tunnels that a manager is told of: of each host to each other there are too many.
const TOLD: usize = 32;

/// Counts as long as somebody holds a receiver, or has asked lately.
#[derive(Default)]
pub(super) struct TrafficDesk(Arc<Mutex<Option<Counting>>>);

struct Counting {
    readings: watch::Sender<TunnelReading>,
    until: Instant,
}

impl Counting {
    fn is_watched(&self, now: Instant) -> bool {
        self.readings.receiver_count() > 0 || now < self.until
    }
}

impl TrafficDesk {
    /// With a lease it counts on for so long without a receiver.
    fn subscribe(
        &self,
        port: u16,
        lease: Duration,
    ) -> Result<watch::Receiver<TunnelReading>, Refusal> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + lease;
        if let Some(counting) = &mut *slot {
            counting.until = counting.until.max(until);
            return Ok(counting.readings.subscribe());
        }
        let failed = |error: std::io::Error| {
            Refusal::internal(format!("the tunnels' packets cannot be counted: {error}"))
        };
        let traffic = Traffic::open(port).map_err(failed)?;
        let (readings, receiver) = watch::channel(TunnelReading::default());
        let desk = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name("traffic".into())
            .spawn(move || count(traffic, &desk))
            .map_err(failed)?;
        *slot = Some(Counting { readings, until });
        Ok(receiver)
    }
}

/// Reads until nobody looks; under the lock, so that nobody comes just then.
fn count(mut traffic: Traffic, desk: &Mutex<Option<Counting>>) {
    loop {
        std::thread::sleep(PERIOD);
        let read = traffic.read();
        let mut slot = desk.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let watched = slot.as_ref().filter(|counting| counting.is_watched(now));
        match (watched, read) {
            (Some(counting), Ok(flows)) => {
                let time = clock::now_nanos();
                counting
                    .readings
                    .send_replace(TunnelReading { time, flows });
            }
            (Some(_), Err(error)) => {
                tracing::warn!(%error, "the tunnels' counters cannot be read");
                *slot = None;
                return;
            }
            (None, _) => {
                // Before the lock is free, because the next one makes the table anew.
                drop(traffic);
                *slot = None;
                return;
            }
        }
    }
}

impl Networks {
    /// What goes through the tunnels from now on, for as long as the receiver lives.
    pub async fn tunnel_readings(&self) -> Result<watch::Receiver<TunnelReading>, Refusal> {
        self.subscribe(Duration::ZERO).await
    }

    async fn subscribe(&self, lease: Duration) -> Result<watch::Receiver<TunnelReading>, Refusal> {
        let port = self.inner.lock().await.assignments.data_path_port;
        self.traffic.subscribe(port, lease)
    }

    /// The other hosts by the addresses of their tunnels.
    pub async fn tunnel_ends(&self) -> BTreeMap<IpAddr, TunnelEnd> {
        let inner = self.inner.lock().await;
        let peers = inner.assignments.peers.iter();
        let end = |(node, peer): (&NodeId, &Peer)| {
            let end = TunnelEnd {
                node: node.clone(),
                hostname: peer.hostname.clone(),
            };
            (peer.data_path, end)
        };
        peers.map(end).collect()
    }

    /// A reading by the hosts at the other ends. An address that is no host's is left out: it
    /// sent us something and got no answer.
    pub async fn by_host(&self, reading: &TunnelReading) -> HostTraffic {
        let ends = self.tunnel_ends().await;
        let paths = self.measured_paths();
        let tunnel = |(address, flow): (&IpAddr, &Flow)| {
            let to = ends.get(address)?.node.clone();
            Some(TunnelTraffic {
                sent: counted(flow.sent),
                received: counted(flow.received),
                path: paths.get(&to).map(|path| path.sight.clone()),
                to,
            })
        };
        HostTraffic {
            time: reading.time,
            tunnels: reading.flows.iter().filter_map(tunnel).collect(),
        }
    }
}

impl TrafficSource for Networks {
    fn traffic(&self) -> BoxFuture<'_, HostTraffic> {
        Box::pin(async move {
            let reading = match self.subscribe(LEASE).await {
                Ok(readings) => readings.borrow().clone(),
                Err(error) => {
                    tracing::debug!(%error, "a manager asked for what goes through the tunnels");
                    return HostTraffic::default();
                }
            };
            let mut traffic = self.by_host(&reading).await;
            told(&mut traffic.tunnels);
            traffic
        })
    }
}

fn counted(counter: Counter) -> Count {
    Count {
        packets: counter.packets,
        bytes: counter.bytes,
    }
}

/// Leaves those that somebody would look for: bad ones first, then by what went through.
fn told(tunnels: &mut Vec<TunnelTraffic>) {
    let weight = |tunnel: &TunnelTraffic| {
        let state = tunnel
            .path
            .as_ref()
            .map(|path| path.state)
            .unwrap_or_default();
        let bad = !matches!(state, PathState::Unknown | PathState::Fine);
        (bad, tunnel.sent.bytes.saturating_add(tunnel.received.bytes))
    };
    tunnels.sort_by_cached_key(|tunnel| std::cmp::Reverse(weight(tunnel)));
    tunnels.truncate(TOLD);
}

#[cfg(test)]
mod tests {
    use model::PathSight;

    use super::*;

    #[test]
    fn of_many_tunnels_the_bad_and_the_busy_are_told() {
        let tunnel = |number: u64, state| TunnelTraffic {
            to: format!("n{number}").into(),
            sent: Count {
                packets: number,
                bytes: number * 100,
            },
            received: Count::default(),
            path: Some(PathSight {
                to: format!("n{number}").into(),
                state,
                small: model::Tally::default(),
                full: model::Tally::default(),
                full_size: 0,
                median: None,
                worst: None,
            }),
        };
        let mut tunnels: Vec<_> = (0..100).map(|n| tunnel(n, PathState::Fine)).collect();
        tunnels.push(tunnel(0, PathState::Unreachable));
        told(&mut tunnels);
        assert_eq!(tunnels.len(), TOLD);
        assert_eq!(
            tunnels[0].path.as_ref().unwrap().state,
            PathState::Unreachable
        );
        assert_eq!(tunnels[1].sent.packets, 99);
        assert_eq!(tunnels[31].sent.packets, 69);
    }
}
