//! `/nodes…`

use api::{
    Filters,
    node::{NodeView, SpecView},
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use model::{
    Node, Refusal,
    control::{Answer as Reply, Verb},
};

use super::{Answer, AppState, Asked, Given, json, unexpected};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(remove))
        .route("/nodes/{id}/update", post(update))
}

const FILTERS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(FILTERS)?;
    filters.check("role", &["worker", "manager"])?;
    filters.check("membership", &["accepted", "pending"])?;
    match state.call(Verb::NodeList).await? {
        Reply::Nodes(mut nodes) => {
            nodes.sort_by(|a, b| a.id.cmp(&b.id));
            let views: Vec<NodeView> = nodes
                .iter()
                .filter(|node| fits(node, &filters))
                .map(NodeView::from)
                .collect();
            Ok(json(&views))
        }
        other => Err(unexpected("node list", &other).into()),
    }
}

/// Names and ids are prefixes, as in Docker; every node we know is accepted.
fn fits(node: &Node, filters: &Filters) -> bool {
    filters.prefix("id", node.id.as_str())
        && filters.prefix("name", &node.description.hostname)
        && filters.exact("role", api::node::role_word(node.spec.role))
        && filters.exact("membership", "accepted")
        && filters.labels("node.label", |key| {
            node.spec.labels.get(key).map(String::as_str)
        })
        && filters.labels("label", |key| {
            node.description.engine_labels.get(key).map(String::as_str)
        })
}

pub(super) async fn find(state: &AppState, reference: &str) -> Result<Node, Refusal> {
    match state
        .call(Verb::NodeInspect {
            reference: reference.to_owned(),
        })
        .await?
    {
        Reply::Node(node) => Ok(*node),
        other => Err(unexpected("node inspect", &other)),
    }
}

async fn inspect(State(state): State<AppState>, Path(id): Path<String>) -> Answer {
    Ok(json(&NodeView::from(&find(&state, &id).await?)))
}

async fn update(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
    Given(spec): Given<SpecView>,
) -> Answer {
    let verb = Verb::NodeUpdate {
        reference: id,
        version: query.version()?,
        spec: spec.to_model()?,
    };
    state.call(verb).await?;
    Ok(empty())
}

async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Asked(query): Asked,
) -> Answer {
    state
        .call(Verb::NodeRemove {
            reference: id,
            force: query.flag("force"),
        })
        .await?;
    Ok(empty())
}

/// 200 without a body: Docker's answer to changes of nodes and of the cluster.
pub(super) fn empty() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::OK;
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{
        Meta, NodeSpec,
        node::{Availability, NodeDescription, NodeState, NodeStatus, Role},
    };

    use super::*;

    #[test]
    fn filters_choose_nodes() {
        let node = Node {
            id: "abcdef".into(),
            meta: Meta::default(),
            spec: NodeSpec {
                name: None,
                labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
                role: Role::Worker,
                availability: Availability::Active,
            },
            number: 1,
            description: NodeDescription {
                hostname: "worker01".into(),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                address: None,
            },
            manager: None,
        };
        for (text, expected) in [
            ("", true),
            (r#"{"name":["worker"]}"#, true),
            (r#"{"name":["manager"]}"#, false),
            (r#"{"id":{"abc":true}}"#, true),
            (r#"{"role":["manager"]}"#, false),
            (r#"{"node.label":["zone=a"]}"#, true),
            (r#"{"label":["zone=a"]}"#, false),
            (r#"{"membership":["pending"]}"#, false),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            assert_eq!(fits(&node, &filters), expected, "{text}");
        }
    }
}
