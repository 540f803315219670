//! Constraints of a placement: `node.labels.zone==a`, `node.role!=manager`.

use ipnetwork::IpNetwork;
use model::{
    Node, Refusal,
    node::Role,
    task::{Placement, Platform},
};

/// One constraint, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    /// In lower case.
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    /// Within this network.
    Ip(IpNetwork),
    Role,
    Os,
    Architecture,
    NodeLabel(String),
    EngineLabel(String),
}

/// Understands constraints as the user wrote them; the refusal names the one that is wrong.
pub fn parse(constraints: &[String]) -> Result<Vec<Constraint>, Refusal> {
    constraints.iter().map(|text| parse_one(text)).collect()
}

fn parse_one(text: &str) -> Result<Constraint, Refusal> {
    let wrong = |why: String| Refusal::invalid(format!("constraint {text:?}: {why}"));
    let (at, equal) = match (text.find("=="), text.find("!=")) {
        (Some(equal), Some(unequal)) if unequal < equal => (unequal, false),
        (Some(equal), _) => (equal, true),
        (None, Some(unequal)) => (unequal, false),
        (None, None) => {
            return Err(wrong(
                "it has no operator; write KEY==VALUE or KEY!=VALUE".to_owned(),
            ));
        }
    };
    let (name, value) = (text[..at].trim(), text[at + 2..].trim());
    if value.is_empty() {
        return Err(wrong(format!("it has no value; write {name}==VALUE")));
    }
    if value.contains(['=', '!', '"', '\'', ',', ';', '<', '>', '&', '%', '#']) {
        return Err(wrong(format!(
            "the value {value:?} has a character that no value can have; use letters, digits and - _ . : / without quotes"
        )));
    }
    let label = |prefix: &str| {
        let (head, tail) = (name.get(..prefix.len())?, name.get(prefix.len()..)?);
        (head.eq_ignore_ascii_case(prefix) && !tail.is_empty()).then(|| tail.to_owned())
    };
    let key = if let Some(label) = label("node.labels.") {
        Key::NodeLabel(label)
    } else if let Some(label) = label("engine.labels.") {
        Key::EngineLabel(label)
    } else {
        match name.to_ascii_lowercase().as_str() {
            "node.id" => Key::Id,
            "node.hostname" => Key::Hostname,
            "node.role" => Key::Role,
            "node.platform.os" => Key::Os,
            "node.platform.arch" => Key::Architecture,
            "node.ip" => Key::Ip(value.parse().map_err(|_| {
                wrong(format!(
                    "{value:?} is neither an address nor a network such as 192.0.2.0/24"
                ))
            })?),
            _ => {
                return Err(wrong(format!(
                    "key {name:?} is not known; use node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME"
                )));
            }
        }
    };
    if key == Key::Role && !matches!(value.to_ascii_lowercase().as_str(), "manager" | "worker") {
        return Err(wrong(format!(
            "{value:?} is no role; a node is a manager or a worker"
        )));
    }
    Ok(Constraint {
        key,
        value: value.to_lowercase(),
        equal,
    })
}

impl Constraint {
    /// Whether the node fulfils it. A label that is missing is empty.
    pub fn is_met(&self, node: &Node) -> bool {
        let is = |text: &str| text.to_lowercase() == self.value;
        let about = &node.description;
        let holds = match &self.key {
            Key::Id => is(node.id.as_str()),
            Key::Hostname => is(&about.hostname),
            Key::Ip(network) => node.status.address.is_some_and(|ip| network.contains(ip)),
            Key::Role => match node.spec.role {
                Role::Manager => is("manager"),
                Role::Worker => is("worker"),
            },
            Key::Os => is(&about.os),
            Key::Architecture => architecture(&about.architecture) == architecture(&self.value),
            Key::NodeLabel(label) => is(node.spec.labels.get(label).map_or("", String::as_str)),
            Key::EngineLabel(label) => {
                is(about.engine_labels.get(label).map_or("", String::as_str))
            }
        };
        holds == self.equal
    }
}

/// Whether the node runs one of the platforms; none given: any will do.
pub fn runs_platform(platforms: &[Platform], node: &Node) -> bool {
    let about = &node.description;
    platforms.is_empty()
        || platforms.iter().any(|platform| {
            let any = |asked: &str, has: &str| asked.is_empty() || asked.eq_ignore_ascii_case(has);
            any(&platform.os, &about.os)
                && any(
                    architecture(&platform.architecture),
                    architecture(&about.architecture),
                )
        })
}

/// Whether a task placed so may be on the node, whatever else is there: what decides for
/// global services, and whether a running task has to go when labels change. Constraints that
/// cannot be understood are never met.
pub fn allows(placement: &Placement, node: &Node) -> bool {
    runs_platform(&placement.platforms, node)
        && parse(&placement.constraints)
            .is_ok_and(|all| all.iter().all(|constraint| constraint.is_met(node)))
}

/// One word for each architecture: images and kernels name them differently.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armhf" => "arm",
        "i386" | "i686" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use model::node::{Availability, NodeDescription, NodeState, NodeStatus};
    use model::{Meta, NodeSpec};

    use super::*;

    fn node() -> Node {
        Node {
            id: "abc123".into(),
            meta: Meta::default(),
            spec: NodeSpec {
                name: None,
                labels: [("zone".to_owned(), "Alpha".to_owned())].into(),
                role: Role::Worker,
                availability: Availability::Active,
            },
            number: 1,
            description: NodeDescription {
                hostname: "Worker01".to_owned(),
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
                engine_labels: [("disk".to_owned(), "ssd".to_owned())].into(),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: "192.0.2.7".parse().ok(),
            },
            manager: None,
        }
    }

    #[test]
    fn each_key_compares_without_case() {
        for (text, met) in [
            ("node.id==ABC123", true),
            ("node.id!=abc123", false),
            ("node.hostname==worker01", true),
            ("node.hostname == worker02", false),
            ("node.role==worker", true),
            ("Node.Role!=Manager", true),
            ("node.role==manager", false),
            ("node.ip==192.0.2.7", true),
            ("node.ip==192.0.2.0/24", true),
            ("node.ip!=192.0.2.0/24", false),
            ("node.ip==2001:db8::/32", false),
            ("node.platform.os==Linux", true),
            ("node.platform.arch==amd64", true),
            ("node.platform.arch==x86_64", true),
            ("node.platform.arch!=arm64", true),
            ("node.labels.zone==alpha", true),
            ("node.labels.zone!=alpha", false),
            ("node.labels.rack==1", false),
            ("node.labels.rack!=1", true),
            ("engine.labels.disk==SSD", true),
            ("engine.labels.disk!=ssd", false),
        ] {
            let constraint = parse_one(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(constraint.is_met(&node()), met, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("node.role", "no operator"),
            ("node.role=manager", "no operator"),
            ("node.role==", "no value"),
            ("node.role==boss", "no role"),
            ("node.ip==here", "neither an address"),
            ("role==manager", "not known"),
            ("node.labels.==a", "not known"),
            ("node.labels.a==b==c", "character"),
        ] {
            let sentence = parse_one(text).expect_err(text).message;
            assert!(
                sentence.contains(said) && sentence.contains(text),
                "{sentence}"
            );
        }
    }

    #[test]
    fn platforms_have_two_names() {
        let platform = |os: &str, arch: &str| Platform {
            os: os.to_owned(),
            architecture: arch.to_owned(),
        };
        for (platforms, runs) in [
            (vec![], true),
            (vec![platform("linux", "amd64")], true),
            (vec![platform("linux", "x86_64")], true),
            (vec![platform("", "")], true),
            (vec![platform("linux", "arm64")], false),
            (vec![platform("windows", "amd64")], false),
            (
                vec![platform("linux", "arm64"), platform("linux", "amd64")],
                true,
            ),
        ] {
            assert_eq!(runs_platform(&platforms, &node()), runs, "{platforms:?}");
        }
    }
}
