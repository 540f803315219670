//! Which hosts publish a port: those that meet what its label says of nodes.

use std::collections::BTreeMap;

use model::{
    Node,
    publish::PublishOptions,
    service::{LABEL_PUBLISH, PortConfig, PublishMode},
};

use crate::scheduler::constraint;

/// Whether this node publishes the port of a service with these labels. A port of host mode goes
/// with its task, wherever that is; a node that is not known meets nothing.
pub fn opens(labels: &BTreeMap<String, String>, port: &PortConfig, node: Option<&Node>) -> bool {
    if port.mode != PublishMode::Ingress {
        return true;
    }
    let expressions = PublishOptions::of(labels, port).nodes;
    if expressions.is_empty() {
        return true;
    }
    let met = |node: &Node| {
        let all = constraint::parse(&expressions);
        all.is_ok_and(|all| all.iter().all(|one| one.is_met(node)))
    };
    node.is_some_and(met)
}

/// Whether ports may go to some nodes only, so that a change of a node matters to them.
pub(super) fn chooses(labels: &BTreeMap<String, String>) -> bool {
    let mut labels = labels.iter();
    labels.any(|(label, options)| label.starts_with(LABEL_PUBLISH) && options.contains("nodes="))
}

#[cfg(test)]
mod tests {
    use model::publish::label;

    use super::*;
    use crate::example::{node, publish, service};

    #[test]
    fn a_port_opens_where_all_expressions_are_met() {
        let mut web = service("web", 1, &[]);
        publish(&mut web, 80, 8080, PublishMode::Ingress);
        publish(&mut web, 81, 8081, PublishMode::Host);
        let ports = web.spec.endpoint.map(|spec| spec.ports).unwrap_or_default();
        let mut edge = node("n1");
        edge.spec.labels.insert("edge".into(), "true".into());
        let plain = node("n2");
        for (options, on_edge, on_plain, unknown) in [
            ("", true, true, true),
            ("policy=local", true, true, true),
            ("nodes=node.labels.edge==true", true, false, false),
            ("nodes=node.labels.edge!=true", false, true, false),
            ("nodes=node.role==worker", true, true, false),
            (
                "nodes=node.labels.edge==true,nodes=node.hostname==n2",
                false,
                false,
                false,
            ),
            // Nobody could store it; if it stood there, nothing would be opened by mistake.
            ("nodes=edge", false, false, false),
        ] {
            let labels = [(80, options), (81, options)]
                .map(|(target, options)| (label(target, ports[0].protocol), options.to_owned()))
                .into();
            let open = |at| opens(&labels, &ports[0], at);
            let found = (open(Some(&edge)), open(Some(&plain)), open(None));
            assert_eq!(found, (on_edge, on_plain, unknown), "{options}");
            assert!(opens(&labels, &ports[1], None), "host mode: {options}");
            assert_eq!(chooses(&labels), options.contains("nodes"), "{options}");
        }
    }
}
