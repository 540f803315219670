//! Tasks with what belongs to them, for lists.

use std::collections::BTreeMap;

use model::{
    Network, NetworkId, Service, Task,
    control::{TaskSelection, TaskSheet},
};

use crate::store::Tables;

/// The tasks that were chosen, ordered by id. Costs as much as the narrowest index that the
/// selection names: ids, services, nodes, or else all tasks.
pub fn task_sheet(tables: &Tables, selection: &TaskSelection) -> TaskSheet {
    let work = tables.work();
    let mut candidates: Vec<&Task> = if !selection.ids.is_empty() {
        selection
            .ids
            .iter()
            .filter_map(|id| work.task(id))
            .collect()
    } else if !selection.services.is_empty() {
        let of = |service| work.tasks_of(service);
        selection.services.iter().flat_map(of).collect()
    } else if !selection.nodes.is_empty() {
        let at = |node| work.tasks_at(node);
        selection.nodes.iter().flat_map(at).collect()
    } else {
        work.tasks().collect()
    };
    // Tasks are large: what is moved about is where they lie.
    candidates.retain(|task| chosen(|| work.service(&task.service), task, selection));
    candidates.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    candidates.dedup_by(|a, b| a.id == b.id);
    let shared = |task: &Task| work.shared_task(&task.id);
    let mut sheet = TaskSheet {
        tasks: candidates.into_iter().filter_map(shared).collect(),
        ..TaskSheet::default()
    };
    let mut networks: BTreeMap<&NetworkId, &Network> = BTreeMap::new();
    for id in sheet.tasks.iter().flat_map(|task| &task.endpoints) {
        let Some(endpoint) = tables.endpoint(id) else {
            continue;
        };
        sheet.endpoints.push(endpoint.clone());
        if let Some(network) = tables.network(&endpoint.network) {
            networks.insert(&endpoint.network, network);
        }
    }
    sheet.networks = networks.into_values().cloned().collect();
    sheet
}

fn chosen<'a>(
    service: impl FnOnce() -> Option<&'a Service>,
    task: &Task,
    selection: &TaskSelection,
) -> bool {
    let label = |(key, value): &(String, Option<String>)| match value {
        Some(value) => task.labels.get(key) == Some(value),
        None => task.labels.contains_key(key),
    };
    (selection.services.is_empty() || selection.services.contains(&task.service))
        && (selection.nodes.is_empty()
            || task
                .node
                .as_ref()
                .is_some_and(|node| selection.nodes.contains(node)))
        && selection.labels.iter().all(label)
        && (!selection.up_to_date || service().is_some_and(|service| up_to_date(service, task)))
}

/// Whether an update of the service would leave the task alone: scaling and a change of the
/// placement alone replace nothing.
fn up_to_date(service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version || *task.spec == service.spec.task {
        return true;
    }
    let mut spec = model::TaskSpec::clone(&task.spec);
    spec.placement.clone_from(&service.spec.task.placement);
    spec == service.spec.task
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        Endpoint, EndpointOwner, EndpointState, Meta, ServiceSpec, TaskSpec, TaskState, TaskStatus,
        endpoint::MacAddress,
        network::NetworkSpec,
        service::{ServiceEndpoint, ServiceMode},
        task::Handover,
    };

    use super::*;
    use crate::store::{Proposal, StoreChange};

    fn spec(image: &str) -> TaskSpec {
        let mut spec = TaskSpec::default();
        spec.container.image = image.into();
        spec
    }

    fn service(id: &str, image: &str) -> Service {
        Service {
            id: id.into(),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: format!("name-{id}"),
                task: spec(image),
                ..ServiceSpec::default()
            },
            spec_version: 0,
            previous: None,
            endpoint: ServiceEndpoint::default(),
            update: None,
            job: None,
        }
    }

    fn task(id: &str, service: &str, node: Option<&str>, image: &str) -> Task {
        Task {
            id: id.into(),
            meta: Meta::default(),
            service: service.into(),
            service_name: format!("name-{service}"),
            slot: 1,
            node: node.map(Into::into),
            spec: Arc::new(spec(image)),
            spec_version: 0,
            labels: [("stack".to_owned(), service.to_owned())].into(),
            mode: ServiceMode::default(),
            status: TaskStatus::default(),
            desired: TaskState::Running,
            start_after: 0,
            endpoints: vec![format!("e-{id}").into()],
            ports: Vec::new(),
            generic_resources: Vec::new(),
            job_iteration: None,
            handover: Handover::Pending,
            in_since: 0,
            attempt: 0,
            drain: std::time::Duration::ZERO,
        }
    }

    fn endpoint(task: &str) -> Endpoint {
        Endpoint {
            id: format!("e-{task}").into(),
            meta: Meta::default(),
            network: "net".into(),
            node: "n1".into(),
            owner: EndpointOwner::Task {
                id: task.into(),
                service: "a".into(),
                name: String::new(),
            },
            addresses: Vec::new(),
            mac: MacAddress::default(),
            names: Vec::new(),
            state: EndpointState::Active,
        }
    }

    fn tables() -> Tables {
        let network = Network {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec::default(),
            vni: 4097,
            subnets: Vec::new(),
        };
        let mut tables = Tables::default();
        tables.apply(
            7,
            &Proposal {
                time: 1,
                base: None,
                changes: vec![
                    StoreChange::SetNetwork(Box::new(network)),
                    StoreChange::SetService(Box::new(service("a", "new"))),
                    StoreChange::SetService(Box::new(service("b", "same"))),
                    StoreChange::SetTask(Box::new(task("t1", "a", Some("n1"), "old"))),
                    StoreChange::SetTask(Box::new(task("t2", "a", Some("n2"), "new"))),
                    StoreChange::SetTask(Box::new(task("t3", "b", Some("n1"), "same"))),
                    StoreChange::SetTask(Box::new(task("t4", "b", None, "same"))),
                    StoreChange::SetEndpoint(Box::new(endpoint("t1"))),
                    StoreChange::SetEndpoint(Box::new(endpoint("t3"))),
                ],
            },
        );
        tables
    }

    #[test]
    fn selections() {
        let tables = tables();
        let all = TaskSelection::default;
        let label = |value: Option<&str>| vec![("stack".to_owned(), value.map(Into::into))];
        for (selection, tasks, endpoints) in [
            (all(), &["t1", "t2", "t3", "t4"][..], 2),
            (
                TaskSelection {
                    ids: vec!["t3".into(), "t3".into(), "x".into()],
                    ..all()
                },
                &["t3"],
                1,
            ),
            (
                TaskSelection {
                    services: vec!["b".into()],
                    ..all()
                },
                &["t3", "t4"],
                1,
            ),
            (
                TaskSelection {
                    services: vec!["x".into()],
                    ..all()
                },
                &[],
                0,
            ),
            (
                TaskSelection {
                    nodes: vec!["n1".into()],
                    ..all()
                },
                &["t1", "t3"],
                2,
            ),
            (
                TaskSelection {
                    services: vec!["a".into()],
                    nodes: vec!["n2".into()],
                    ..all()
                },
                &["t2"],
                0,
            ),
            (
                TaskSelection {
                    labels: label(Some("a")),
                    ..all()
                },
                &["t1", "t2"],
                1,
            ),
            (
                TaskSelection {
                    labels: label(None),
                    ..all()
                },
                &["t1", "t2", "t3", "t4"],
                2,
            ),
            (
                TaskSelection {
                    up_to_date: true,
                    ..all()
                },
                &["t2", "t3", "t4"],
                1,
            ),
        ] {
            let sheet = task_sheet(&tables, &selection);
            let found: Vec<_> = sheet.tasks.iter().map(|task| task.id.as_str()).collect();
            assert_eq!(found, tasks, "{selection:?}");
            assert_eq!(sheet.endpoints.len(), endpoints, "{selection:?}");
            assert_eq!(sheet.networks.len(), usize::from(endpoints > 0));
        }
    }

    #[test]
    fn a_change_of_the_placement_alone_leaves_tasks_alone() {
        let mut service = service("a", "same");
        service.spec_version = 9;
        let task = task("t", "a", None, "same");
        service.spec.task.placement.constraints = vec!["node.role==worker".into()];
        assert!(up_to_date(&service, &task));
        service.spec.task.force_update = 1;
        assert!(!up_to_date(&service, &task));
    }
}
