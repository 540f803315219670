//! The tunnels' counters for those who look: one thread reads them for all.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dataplane::traffic::Traffic;
use model::{NodeId, Refusal, assignment::Peer};
use tokio::sync::watch;

use super::Networks;
use crate::{
    clock,
    http::{TunnelEnd, TunnelReading},
};

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(2);

/// Counts as long as somebody holds a receiver.
#[derive(Default)]
pub(super) struct TrafficDesk(Arc<Mutex<Option<watch::Sender<TunnelReading>>>>);

impl TrafficDesk {
    fn subscribe(&self, port: u16) -> Result<watch::Receiver<TunnelReading>, Refusal> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*slot {
            return Ok(sender.subscribe());
        }
        let failed = |error: std::io::Error| {
            Refusal::internal(format!("the tunnels' packets cannot be counted: {error}"))
        };
        let traffic = Traffic::open(port).map_err(failed)?;
        let (sender, receiver) = watch::channel(TunnelReading::default());
        let desk = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name("traffic".into())
            .spawn(move || count(traffic, &desk))
            .map_err(failed)?;
        *slot = Some(sender);
        Ok(receiver)
    }
}

/// Reads until nobody looks; under the lock, so that nobody comes just then.
fn count(mut traffic: Traffic, desk: &Mutex<Option<watch::Sender<TunnelReading>>>) {
    loop {
        std::thread::sleep(PERIOD);
        let read = traffic.read();
        let mut slot = desk.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = slot.as_ref().filter(|sender| sender.receiver_count() > 0);
        match (watched, read) {
            (Some(sender), Ok(flows)) => {
                let time = clock::now_nanos();
                sender.send_replace(TunnelReading { time, flows });
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
        let port = self.inner.lock().await.assignments.data_path_port;
        self.traffic.subscribe(port)
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
}
