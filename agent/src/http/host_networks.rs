//! The network glue as the HTTP edge sees it.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::future::BoxFuture;
use model::{HostTraffic, NetworkSpec, NodeId, Refusal};
use tokio::sync::watch;

use super::{HostEndpoint, HostNetworks, Sight, TunnelEnd, TunnelReading};
use crate::{
    network::{
        Networks,
        guests::{GuestEndpoint, GuestWish, Which},
        local::LocalNetwork,
    },
    paths::Measured,
};

impl HostNetworks for Networks {
    fn list(&self) -> Vec<LocalNetwork> {
        self.local_networks().iter().cloned().collect()
    }

    fn create(&self, spec: NetworkSpec) -> BoxFuture<'_, Result<LocalNetwork, Refusal>> {
        Box::pin(self.create_network(spec))
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(self.remove_network(id))
    }

    fn endpoints<'a>(&'a self, network_id: &'a str) -> BoxFuture<'a, Vec<HostEndpoint>> {
        Box::pin(async move {
            let attachments = self.attachments(network_id).await;
            attachments
                .into_iter()
                .map(|attachment| HostEndpoint {
                    container_id: attachment.container.to_string(),
                    container_name: attachment.name,
                    endpoint_id: attachment.endpoint.endpoint_id,
                    mac: attachment.endpoint.mac,
                    addresses: attachment.endpoint.addresses,
                })
                .collect()
        })
    }

    fn attach_guest(&self, wish: GuestWish) -> BoxFuture<'_, Result<GuestEndpoint, Refusal>> {
        Box::pin(Self::attach_guest(self, wish))
    }

    fn detach_guests<'a>(
        &'a self,
        which: &'a Which,
    ) -> BoxFuture<'a, Result<Vec<GuestEndpoint>, Refusal>> {
        Box::pin(Self::detach_guests(self, which))
    }

    fn guests<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Vec<GuestEndpoint>> {
        Box::pin(self.guest_endpoints(which))
    }

    fn search_list(&self) -> Vec<String> {
        Self::search_list(self)
    }

    fn traffic(&self) -> BoxFuture<'_, Result<watch::Receiver<TunnelReading>, Refusal>> {
        Box::pin(self.tunnel_readings())
    }

    fn by_host<'a>(&'a self, reading: &'a TunnelReading) -> BoxFuture<'a, HostTraffic> {
        Box::pin(Self::by_host(self, reading))
    }

    fn tunnel_ends(&self) -> BoxFuture<'_, BTreeMap<IpAddr, TunnelEnd>> {
        Box::pin(Self::tunnel_ends(self))
    }

    fn paths(&self) -> BTreeMap<NodeId, Measured> {
        self.measured_paths()
    }

    fn status(&self) -> dataplane::Status {
        self.dataplane().status().borrow().clone()
    }

    fn sight(&self) -> BoxFuture<'_, Result<Sight, Refusal>> {
        Box::pin(async move {
            let dataplane = self.dataplane();
            let observed = dataplane.observe().await;
            let counters = dataplane.counters().await;
            Ok(Sight {
                desired: self.desired().await,
                observed: observed.map_err(|error| Refusal::internal(error.to_string()))?,
                counters: counters.map_err(|error| Refusal::internal(error.to_string()))?,
                obstacles: dataplane.probe().await,
                status: Some(dataplane.status().borrow().clone()),
            })
        })
    }
}
