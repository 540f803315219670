//! `/tasks…`

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use api::{
    Filters,
    service::{ContainerSpecView, TaskTemplate},
    shared::Shared,
    task::{AttachmentView, TaskNetworkView, TaskView},
    word::Word,
};
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use model::{
    Endpoint, EndpointId, NetworkId, Refusal, ServiceId, Task, TaskSpec, TaskState,
    control::{Answer as Reply, TaskSelection, TaskSheet, Verb},
};

use super::{Answer, AppState, Asked, json, nodes, services, unexpected};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
}

const FILTERS: &[&str] = &[
    "_up-to-date",
    "desired-state",
    "id",
    "label",
    "name",
    "node",
    "runtime",
    "service",
];

async fn list(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let filters = query.filters(FILTERS)?;
    let wanted = wanted(&filters)?;
    let mut selection = selection(&filters)?;
    // Services and nodes are named by id, name or beginning of the id; unknown ones are 404.
    for reference in filters.values("service") {
        let service = services::find(&state, reference).await?;
        selection.services.push(service.id);
    }
    for reference in filters.values("node") {
        selection
            .nodes
            .push(nodes::find(&state, reference).await?.id);
    }
    let sheet = sheet(&state, selection).await?;
    let kept = |task: &Task| fits(task, &filters, &wanted);
    Ok(json(&views(&sheet, query.flag("brief"), kept)))
}

/// The part of the filters that the manager sees to.
fn selection(filters: &Filters) -> Result<TaskSelection, Refusal> {
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    Ok(TaskSelection {
        labels: filters.values("label").iter().map(label).collect(),
        up_to_date: filters.boolean("_up-to-date")?.unwrap_or(false),
        ..TaskSelection::default()
    })
}

/// The states of the filter `desired-state`.
fn wanted(filters: &Filters) -> Result<Vec<TaskState>, Refusal> {
    filters
        .values("desired-state")
        .iter()
        .map(|word| TaskState::read("invalid filter \"desired-state\"", word))
        .collect()
}

/// Names and ids are prefixes, as in Docker.
fn fits(task: &Task, filters: &Filters, wanted: &[TaskState]) -> bool {
    (wanted.is_empty() || wanted.contains(&task.desired))
        && filters.prefix("id", task.id.as_str())
        && (!filters.has("name") || filters.prefix("name", &task.name()))
        && filters.any("runtime", services::is_container)
}

/// The chosen tasks with what belongs to them.
pub(super) async fn sheet(
    state: &AppState,
    selection: TaskSelection,
) -> Result<TaskSheet, Refusal> {
    match state.call(Verb::TaskSheet(Box::new(selection))).await? {
        Reply::TaskSheet(sheet) => Ok(*sheet),
        other => Err(unexpected("task list", &other)),
    }
}

/// Views of the tasks that are kept. What tasks have in common is made once: the spec of one
/// version of a service, and each network. A brief view has of the spec its image only, and no
/// attachments.
fn views(sheet: &TaskSheet, brief: bool, kept: impl Fn(&Task) -> bool) -> Vec<TaskView> {
    let networks: HashMap<&NetworkId, Shared<TaskNetworkView>> = sheet
        .networks
        .iter()
        .map(|network| (&network.id, Shared::new(TaskNetworkView::from(network))))
        .collect();
    let endpoints: HashMap<&EndpointId, &Endpoint> = sheet
        .endpoints
        .iter()
        .map(|endpoint| (&endpoint.id, endpoint))
        .collect();
    let mut specs = Specs {
        brief,
        made: HashMap::new(),
    };
    sheet
        .tasks
        .iter()
        .filter(|task| kept(task))
        .map(|task| {
            let attachments = task
                .endpoints
                .iter()
                .filter(|_| !brief)
                .filter_map(|id| {
                    let endpoint = endpoints.get(id)?;
                    let network = networks.get(&endpoint.network)?;
                    Some(AttachmentView::new(network.clone(), &endpoint.addresses))
                })
                .collect();
            TaskView::new(task, specs.of(task), attachments)
        })
        .collect()
}

/// Views of specs, by service and version.
struct Specs<'a> {
    brief: bool,
    made: HashMap<(&'a ServiceId, u64), Made<'a>>,
}

/// A spec and its view.
type Made<'a> = (&'a Arc<TaskSpec>, Shared<TaskTemplate>);

impl<'a> Specs<'a> {
    fn of(&mut self, task: &'a Task) -> Shared<TaskTemplate> {
        let brief = self.brief;
        let make = || Shared::new(template(&task.spec, brief));
        match self.made.entry((&task.service, task.spec_version)) {
            Entry::Vacant(entry) => entry.insert((&task.spec, make())).1.clone(),
            Entry::Occupied(entry) => {
                let (spec, view) = entry.get();
                if Arc::ptr_eq(spec, &task.spec) || **spec == task.spec {
                    view.clone()
                } else {
                    make()
                }
            }
        }
    }
}

fn template(spec: &TaskSpec, brief: bool) -> TaskTemplate {
    if !brief {
        return TaskTemplate::from(spec);
    }
    TaskTemplate {
        container_spec: Some(ContainerSpecView {
            image: spec.container.image.clone(),
            ..ContainerSpecView::default()
        }),
        ..TaskTemplate::default()
    }
}

/// By full id, name, or unique id prefix.
pub(super) async fn find(state: &AppState, reference: &str) -> Result<Task, Refusal> {
    let verb = Verb::TaskInspect {
        reference: reference.to_owned(),
    };
    match state.call(verb).await? {
        Reply::Task(task) => Ok(*task),
        other => Err(unexpected("task inspect", &other)),
    }
}

async fn inspect(State(state): State<AppState>, Path(reference): Path<String>) -> Answer {
    let task = find(&state, &reference).await?;
    let selection = TaskSelection {
        ids: vec![task.id],
        ..TaskSelection::default()
    };
    let sheet = sheet(&state, selection).await?;
    match views(&sheet, false, |_| true).first() {
        Some(view) => Ok(json(view)),
        None => Err(Refusal::not_found(format!("task {reference} not found")).into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use model::{
        EndpointOwner, EndpointState, Meta, Network, TaskStatus,
        endpoint::MacAddress,
        network::NetworkSpec,
        service::ServiceMode,
        task::{ContainerSpec, Handover},
    };

    use super::*;

    pub(crate) fn task(id: &str, slot: u64, node: &str) -> Task {
        Task {
            id: id.into(),
            meta: Meta::default(),
            service: "service".into(),
            service_name: "web".into(),
            slot,
            node: (!node.is_empty()).then(|| node.into()),
            spec: Arc::new(TaskSpec {
                container: ContainerSpec {
                    image: "nginx:latest".into(),
                    env: vec!["SERVICE_PORTS=80".into()],
                    ..ContainerSpec::default()
                },
                ..TaskSpec::default()
            }),
            spec_version: 1,
            labels: std::collections::BTreeMap::new(),
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

    fn with_endpoints(tasks: Vec<Task>) -> TaskSheet {
        let endpoint = |task: &Task| Endpoint {
            id: task.endpoints[0].clone(),
            meta: Meta::default(),
            network: "net".into(),
            node: task.node.clone().unwrap_or_default(),
            owner: EndpointOwner::Task {
                id: task.id.clone(),
                service: task.service.clone(),
                name: task.name(),
            },
            addresses: vec!["10.0.1.5/24".parse().unwrap()],
            mac: MacAddress::default(),
            names: Vec::new(),
            state: EndpointState::Active,
        };
        TaskSheet {
            endpoints: tasks.iter().map(endpoint).collect(),
            networks: vec![Network {
                id: "net".into(),
                meta: Meta::default(),
                spec: NetworkSpec {
                    name: "ch03".into(),
                    driver: "overlay".into(),
                    ..NetworkSpec::default()
                },
                vni: 4097,
                subnets: Vec::new(),
            }],
            tasks: tasks.into_iter().map(Arc::new).collect(),
        }
    }

    #[test]
    fn filters_choose_tasks() {
        let mut stopped = task("bb1", 2, "n");
        stopped.desired = TaskState::Shutdown;
        let sheet = with_endpoints(vec![task("aa1", 1, "n"), stopped, task("ab1", 3, "")]);
        for (text, ids) in [
            ("", &["aa1", "bb1", "ab1"][..]),
            (r#"{"desired-state": ["running"]}"#, &["aa1", "ab1"]),
            (r#"{"desired-state":{"Shutdown":true}}"#, &["bb1"]),
            (r#"{"id":["a"]}"#, &["aa1", "ab1"]),
            (r#"{"name":["web.2"]}"#, &["bb1"]),
            (r#"{"runtime":["plugin"]}"#, &[]),
        ] {
            let filters = Filters::parse(text, FILTERS).unwrap();
            let wanted = wanted(&filters).unwrap();
            let found: Vec<_> = views(&sheet, false, |task| fits(task, &filters, &wanted))
                .into_iter()
                .map(|view| view.id)
                .collect();
            assert_eq!(found, ids, "{text}");
        }
        let filters = Filters::parse(r#"{"desired-state":["asleep"]}"#, FILTERS).unwrap();
        assert_eq!(wanted(&filters).unwrap_err().kind.status(), 400);
        let filters = Filters::parse(
            r#"{"label":["a=b=c","d"],"_up-to-date":{"true":true}}"#,
            FILTERS,
        );
        let selection = selection(&filters.unwrap()).unwrap();
        assert!(selection.up_to_date);
        assert_eq!(
            selection.labels,
            [("a".into(), Some("b=c".into())), ("d".into(), None)]
        );
    }

    /// What the load balancer and the visualizer read.
    #[test]
    fn attachments_have_networks_and_addresses() {
        let sheet = with_endpoints(vec![task("a", 1, "n")]);
        let value = serde_json::to_value(views(&sheet, false, |_| true)).unwrap();
        let attachment = &value[0]["NetworksAttachments"][0];
        assert_eq!(attachment["Addresses"][0], "10.0.1.5/24");
        assert_eq!(attachment["Network"]["ID"], "net");
        assert_eq!(attachment["Network"]["Spec"]["Name"], "ch03");
        assert_eq!(
            value[0]["Spec"]["ContainerSpec"]["Env"][0],
            "SERVICE_PORTS=80"
        );
        assert_eq!(value[0]["Status"]["ContainerStatus"]["ContainerID"], "");
    }

    /// What the visualizer reads of thousands of tasks.
    #[test]
    fn a_brief_view_has_no_more_than_its_image() {
        let sheet = with_endpoints(vec![task("a", 1, "n")]);
        let value = serde_json::to_value(views(&sheet, true, |_| true)).unwrap();
        let spec = &value[0]["Spec"]["ContainerSpec"];
        assert_eq!(*spec, serde_json::json!({"Image": "nginx:latest"}));
        assert!(value[0].get("NetworksAttachments").is_none());
        assert_eq!(value[0]["NodeID"], "n");
    }

    /// The figure is for whoever changes this; what is held is that the spec is made once.
    #[test]
    fn thousands_of_tasks_have_one_spec() {
        let tasks = (1..=5_000).map(|slot| task(&format!("task{slot:021}"), slot, "n"));
        let sheet = with_endpoints(tasks.collect());
        let begun = std::time::Instant::now();
        let views = views(&sheet, false, |_| true);
        let text = serde_json::to_vec(&views).unwrap();
        eprintln!(
            "{} tasks, {} bytes, {:?}",
            views.len(),
            text.len(),
            begun.elapsed()
        );
        assert!(views.iter().all(|view| view.spec.is(&views[0].spec)));
        let network = |view: &TaskView| view.networks_attachments[0].network.clone();
        assert!(
            views
                .iter()
                .all(|view| network(view).is(&network(&views[0])))
        );
    }

    #[test]
    fn specs_of_one_version_are_shared_and_never_confused() {
        let (one, mut other) = (task("a", 1, "n"), task("b", 2, "n"));
        let mut changed = TaskSpec::clone(&other.spec);
        changed.container.image = "other".into();
        let views = views(
            &with_endpoints(vec![one.clone(), other.clone()]),
            false,
            |_| true,
        );
        assert!(views[0].spec.is(&views[1].spec));
        other.spec = Arc::new(changed);
        let views = super::views(&with_endpoints(vec![one, other]), false, |_| true);
        let image = |view: &TaskView| view.spec.container_spec.as_ref().unwrap().image.clone();
        assert_eq!(image(&views[1]), "other");
    }
}
