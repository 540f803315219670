//! Ports that the cluster chooses: chosen and kept on all hosts before the service is stored, so
//! that none is chosen that a program of some host has.

use std::time::{Duration, Instant};

use model::{
    Node, Refusal, Service, ServiceId, ServiceSpec,
    service::{PortConfig, PublishMode, ServiceEndpoint},
};

use super::ports::{Kept, held};
use crate::{
    allocator::{free_ports, with_choices},
    leader::Manager,
    store::{Tables, Transaction},
};

/// How long one choice may take; hosts keep what they are asked for for longer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Ports that hosts keep for a service, those that were chosen for it among them.
pub(crate) struct Taken<'a> {
    kept: Vec<Kept<'a>>,
    chosen: Vec<PortConfig>,
}

impl Taken<'_> {
    pub fn chosen(&self) -> Vec<PortConfig> {
        self.chosen.clone()
    }

    /// The service is there: its own word holds the ports from now on.
    pub fn used(self) {
        self.kept.into_iter().for_each(Kept::used);
    }
}

impl Manager {
    /// Has all hosts keep the ports that such a service would take, and chooses those that it
    /// leaves open: the first that all hosts can have.
    pub(crate) async fn take_ports(
        &self,
        spec: &ServiceSpec,
        own: Option<&Service>,
    ) -> Result<Taken<'_>, Refusal> {
        let mut taken = Taken {
            kept: Vec::from_iter(self.keep_ports(spec, own).await?),
            chosen: Vec::new(),
        };
        let until = Instant::now() + PATIENCE;
        let endpoint = own.map(|service| service.endpoint.clone());
        let mut endpoint = endpoint.unwrap_or_default();
        for port in open(spec, &endpoint) {
            if let Some((kept, port)) = self.choose(spec, &endpoint, &port, until).await? {
                taken.kept.extend(kept);
                taken.chosen.push(port.clone());
                // The next choice is another one.
                endpoint.ports.push(port);
            }
        }
        Ok(taken)
    }

    /// The first choice for the port that all hosts can have; none if the cluster has none left,
    /// which the allocator says of the service.
    async fn choose(
        &self,
        spec: &ServiceSpec,
        endpoint: &ServiceEndpoint,
        port: &PortConfig,
        until: Instant,
    ) -> Result<Option<(Option<Kept<'_>>, PortConfig)>, Refusal> {
        let tables = self.store().view();
        let mut refused = None;
        for published in free_ports(&tables, spec, endpoint, port.protocol) {
            let port = PortConfig {
                published,
                ..port.clone()
            };
            let at = |node: &Node| {
                let held = held(&spec.labels, &port, node);
                (node.id.clone(), held.into_iter().collect())
            };
            match self.keep(tables.nodes().map(at).collect()).await {
                Ok(kept) => return Ok(Some((kept, port))),
                Err(refusal) => refused = Some(refusal),
            }
            if Instant::now() > until {
                break;
            }
        }
        match refused {
            None => Ok(None),
            Some(refusal) => Err(Refusal::conflict(format!(
                "no port was found for target {}/{} that all hosts can have; publish one of your choice; the last that was tried: {}",
                port.target,
                port.protocol.as_str(),
                refusal.message
            ))),
        }
    }
}

/// The ports whose choice is still to be made.
fn open(spec: &ServiceSpec, endpoint: &ServiceEndpoint) -> Vec<PortConfig> {
    let mut ports = with_choices(spec, endpoint);
    ports.retain(|port| port.mode == PublishMode::Ingress && port.published == 0);
    ports
}

/// Gives a service that has just been set the ports that were chosen for it. What another has
/// taken meanwhile is chosen anew by the allocator.
pub(crate) fn give(tx: &mut Transaction, id: &ServiceId, chosen: Vec<PortConfig>) {
    let free = |tables: &Tables, port: &PortConfig| {
        let user = tables.work().port_user(port.protocol, port.published);
        user.is_none()
    };
    let Some(mut service) = tx.tables().work().service(id).cloned() else {
        return;
    };
    let before = service.endpoint.ports.len();
    let still = chosen.into_iter().filter(|port| free(tx.tables(), port));
    service.endpoint.ports.extend(still);
    if service.endpoint.ports.len() > before {
        tx.set_service(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator,
        example::{SECOND, apply, network, publish, service, set_network, set_service, tables},
    };

    fn ports(service: &Service) -> Vec<(u16, u16)> {
        let ports = service.endpoint.ports.iter();
        ports.map(|port| (port.target, port.published)).collect()
    }

    #[test]
    fn what_was_chosen_stays_chosen() {
        let mut web = service("web", 0, &[]);
        publish(&mut web, 80, 0, PublishMode::Ingress);
        publish(&mut web, 81, 8081, PublishMode::Ingress);
        publish(&mut web, 82, 0, PublishMode::Host);
        let mut other = service("other", 0, &[]);
        publish(&mut other, 80, 30_000, PublishMode::Ingress);
        let mut tables = tables(vec![
            set_network(network("ingress", &["10.0.0.0/24"])),
            set_service(other),
        ]);
        let decided = allocator::decide(&tables, SECOND, &|_| true).changes;
        apply(&mut tables, SECOND, decided);
        let left = open(&web.spec, &web.endpoint);
        assert_eq!(left.len(), 1, "{left:?}");
        let free: Vec<u16> = free_ports(&tables, &web.spec, &web.endpoint, left[0].protocol)
            .take(2)
            .collect();
        assert_eq!(free, [30_001, 30_002], "30000 is another's");
        // A host could not have the first; a port that is another's by now is not given.
        let choice = |published| PortConfig {
            published,
            ..left[0].clone()
        };
        for (published, given) in [(30_002, 30_002), (30_000, 30_001)] {
            let mut tables = tables.clone();
            let mut tx = Transaction::on(&tables, SECOND);
            tx.set_service(web.clone());
            give(&mut tx, &web.id, vec![choice(published)]);
            let changes = tx.changes().to_vec();
            apply(&mut tables, SECOND, changes);
            let decided = allocator::decide(&tables, SECOND, &|_| true).changes;
            apply(&mut tables, SECOND, decided);
            let stored = tables.work().service(&web.id).expect("the service");
            assert_eq!(ports(stored), [(80, given), (81, 8081), (82, 0)]);
            assert!(open(&stored.spec, &stored.endpoint).is_empty());
            assert!(
                allocator::decide(&tables, SECOND, &|_| true)
                    .changes
                    .is_empty()
            );
        }
    }
}
