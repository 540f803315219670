//! Established connections into a container, for whoever waits for them to end; ports that are
//! kept for services to be.

use std::time::Duration;

use dataplane::{desired::HostPort, firewall::foreign};
use futures_util::future::BoxFuture;
use model::{
    ContainerId,
    interface::InterfaceName,
    publish::{HeldPort, PortSight},
};

use super::{
    Networks,
    port_sights::{self, host_port},
};
use crate::{cluster::PortKeeper, worker::Flows};

impl Flows for Networks {
    fn established<'a>(&'a self, container: &'a ContainerId) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            match self.dataplane.flows(container.as_str()).await {
                Ok(count) => count,
                Err(error) => {
                    // Whoever waits for them stops waiting: its container is about to end anyway.
                    tracing::warn!(%container, %error, "connections cannot be counted");
                    0
                }
            }
        })
    }
}

impl Networks {
    /// What a manager's ports mean on this host.
    async fn host_ports(&self, ports: &[HeldPort]) -> Vec<HostPort> {
        let mut all = Vec::new();
        for port in ports {
            let interface = port.interface.as_ref().map(InterfaceName::as_str);
            all.extend(self.places(host_port(port), interface).await);
        }
        all
    }
}

impl PortKeeper for Networks {
    fn keep<'a>(&'a self, ports: &'a [HeldPort], time: Duration) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let ports = self.host_ports(ports).await;
            let inner = self.inner.lock().await;
            let taken: Vec<String> = ports
                .iter()
                .filter_map(|port| {
                    let name = Self::container_with(&inner, port)?;
                    Some(format!("port {port}: container {name} has published it"))
                })
                .collect();
            if !taken.is_empty() {
                return taken;
            }
            let kept = self.dataplane.keep_ports(ports, time).await;
            let refused = kept.err().unwrap_or_default().into_iter();
            refused
                .map(|(port, why)| format!("port {port}: {why}"))
                .collect()
        })
    }

    fn release<'a>(&'a self, ports: &'a [HeldPort]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let ports = self.host_ports(ports).await;
            self.dataplane.release_ports(ports);
        })
    }

    fn look<'a>(&'a self, ports: &'a [HeldPort]) -> BoxFuture<'a, Vec<PortSight>> {
        Box::pin(async move {
            let (observed, counters) =
                tokio::join!(self.dataplane.observe(), self.dataplane.counters());
            let (Ok(observed), Ok(counters)) = (observed, counters) else {
                // Nothing is better than a guess: the manager says that this host did not answer.
                return Vec::new();
            };
            let status = self.dataplane.status();
            let failures: Vec<_> = {
                let status = status.borrow();
                let failed = status.failed.iter();
                failed.map(|standing| standing.failure.clone()).collect()
            };
            let desired = self.desired().await;
            // Netlink blocks.
            let dropping = tokio::task::spawn_blocking(foreign::dropping).await;
            let dropping = dropping.map(Result::unwrap_or_default).unwrap_or_default();
            let seen = port_sights::Seen {
                desired: &desired,
                facts: &observed.facts,
                held: &observed.view.ports,
                failures: &failures,
                counters: &counters,
                dropping: &dropping,
            };
            port_sights::sights(ports, seen)
        })
    }
}
