//! Whether ports can be published as a service asks.

use std::collections::BTreeSet;

use model::{
    Refusal, ServiceId, ServiceSpec,
    publish::{self, PublishOptions},
    service::{EndpointMode, PortConfig, PublishMode},
};

use crate::{scheduler::constraint, store::Tables};

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::invalid(message))
}

/// What the labels of published ports say.
pub(super) fn labels(spec: &ServiceSpec) -> Result<(), Refusal> {
    for (label, options) in &spec.labels {
        let Some(target) = publish::labelled(label) else {
            continue;
        };
        target.map_err(Refusal::invalid)?;
        // Of a port that is not published it says nothing, and may wait for it.
        let read = PublishOptions::parse(options).and_then(|read| {
            let nodes = constraint::parse(&read.nodes);
            nodes.map_err(|refusal| format!("nodes: {}", refusal.message))
        });
        if let Err(why) = read {
            return invalid(format!("label {label}={options}: {why}"));
        }
    }
    Ok(())
}

/// Whether the ports of a spec can be published; `own` is the service that it is for.
pub(super) fn ports(
    tables: &Tables,
    own: Option<&ServiceId>,
    spec: &ServiceSpec,
) -> Result<(), Refusal> {
    let Some(endpoint) = &spec.endpoint else {
        return Ok(());
    };
    let mut ingress = endpoint.ports.iter();
    if tables.ingress().is_none() && ingress.any(|port| port.mode == PublishMode::Ingress) {
        return invalid(
            "service needs ingress network, but no ingress network is present; make one with `network create --ingress`",
        );
    }
    let mut seen = BTreeSet::new();
    for port in &endpoint.ports {
        if port.target == 0 {
            return invalid("a published port has no target port; write [PUBLISHED:]TARGET");
        }
        if port.mode == PublishMode::Ingress && endpoint.mode == EndpointMode::Dnsrr {
            return invalid(format!(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode; publish {} with mode=host or use --endpoint-mode vip",
                port.target
            ));
        }
        if port.mode == PublishMode::Host {
            host_mode(spec, port)?;
        }
        if port.published == 0 {
            continue;
        }
        if !seen.insert((port.protocol, port.published)) {
            return invalid(format!(
                "EndpointSpec: duplicate published ports provided: {}/{}",
                port.published,
                port.protocol.as_str()
            ));
        }
        free(tables, own, port)?;
    }
    Ok(())
}

/// An ingress port is open on every node, so nobody else may have it, not even on one host.
fn free(tables: &Tables, own: Option<&ServiceId>, port: &PortConfig) -> Result<(), Refusal> {
    let work = tables.work();
    let taken = |service: &model::Service, how: &str| {
        invalid(format!(
            "port '{}' is already in use by service '{}' ({}) as {how} port; choose another or leave the published port out",
            port.published, service.spec.name, service.id
        ))
    };
    let asked = |service: &model::Service, mode: PublishMode| {
        service.spec.endpoint.as_ref().is_some_and(|endpoint| {
            endpoint.ports.iter().any(|other| {
                other.mode == mode
                    && other.protocol == port.protocol
                    && other.published == port.published
            })
        })
    };
    let holder = work.port_user(port.protocol, port.published);
    if let Some(holder) = holder
        .filter(|holder| Some(*holder) != own)
        .and_then(|id| work.service(id))
    {
        return taken(holder, "an ingress");
    }
    for other in work.services().filter(|other| Some(&other.id) != own) {
        if asked(other, PublishMode::Ingress) {
            return taken(other, "an ingress");
        }
        if port.mode == PublishMode::Ingress && asked(other, PublishMode::Host) {
            return taken(other, "a host-published");
        }
    }
    Ok(())
}

/// A port of host mode is where its task is, and takes no more of these options than an address.
fn host_mode(spec: &ServiceSpec, port: &PortConfig) -> Result<(), Refusal> {
    let options = PublishOptions::of(&spec.labels, port);
    let wrong = match (options.interface, options.nodes.first()) {
        (Some(interface), _) => format!("host_ip={interface} names an interface"),
        (None, Some(expression)) => format!("nodes={expression} chooses hosts"),
        (None, None) => return Ok(()),
    };
    invalid(format!(
        "port {}/{} is published with mode=host, and {wrong}: that is for mode=ingress; leave it out or say mode=ingress",
        port.target,
        port.protocol.as_str()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{network, publish, service, set_network, tables};

    #[test]
    fn options_of_ports_are_read_before_anything_changes() {
        let tables = tables(vec![set_network(network("ingress", &["10.0.0.0/24"]))]);
        for (mode, options, said) in [
            (PublishMode::Ingress, "host_ip=eth1", ""),
            (
                PublishMode::Ingress,
                "nodes=node.labels.edge==true,nodes=node.role!=manager",
                "",
            ),
            (PublishMode::Ingress, "nodes=edge", "no operator"),
            (
                PublishMode::Ingress,
                "nodes=node.labels.edge=true",
                "no operator",
            ),
            (PublishMode::Ingress, "nodes=role==worker", "not known"),
            (PublishMode::Ingress, "host_ip=a/b", "name of an interface"),
            (PublishMode::Host, "host_ip=192.0.2.1", ""),
            (PublishMode::Host, "host_ip=eth1", "names an interface"),
            (
                PublishMode::Host,
                "nodes=node.role==worker",
                "chooses hosts",
            ),
        ] {
            let mut web = service("web", 1, &[]);
            publish(&mut web, 80, 8080, mode);
            let label = "overnet.publish.80/tcp".to_owned();
            web.spec.labels.insert(label, options.to_owned());
            let found = labels(&web.spec).and_then(|()| ports(&tables, None, &web.spec));
            match found {
                Ok(()) => assert_eq!(said, "", "{options}"),
                Err(refusal) => assert!(
                    !said.is_empty() && refusal.message.contains(said),
                    "{options}: {}",
                    refusal.message
                ),
            }
        }
    }
}
