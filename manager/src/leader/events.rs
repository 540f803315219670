//! Events of the cluster, read off the commits.

use std::{collections::BTreeMap, sync::Arc};

use model::{Node, Payload, Service, Task, TaskState, control::ClusterEvent, service::ServiceMode};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    store::{Store, StoreChange, Tables, Watched},
};

pub(super) async fn run(
    store: Store,
    events: broadcast::Sender<ClusterEvent>,
    ending: CancellationToken,
) {
    let (mut before, mut watch) = store.view_and_watch();
    loop {
        let watched = tokio::select! {
            watched = watch.next() => watched,
            () = ending.cancelled() => return,
        };
        match watched {
            Watched::StartOver(tables) => {
                before = tables;
                // Nobody listening is no error.
                let _ = events.send(ClusterEvent::missed(0, clock::now()));
            }
            Watched::Commit(commit) => {
                for event in tell(&before, &commit.tables, &commit.changes, clock::now()) {
                    // Nobody listening is no error.
                    let _ = events.send(event);
                }
                before = Arc::clone(&commit.tables);
            }
        }
    }
}

/// What the changes of one commit mean to people, in order. An object that was written twice
/// is compared with itself before the commit each time.
fn tell(before: &Tables, after: &Tables, changes: &[StoreChange], now: i64) -> Vec<ClusterEvent> {
    changes
        .iter()
        .flat_map(|change| events(before, after, change))
        .map(|told| ClusterEvent {
            kind: told.kind.to_owned(),
            action: told.action.to_owned(),
            id: told.id.to_string(),
            attributes: told.attributes,
            time: now,
        })
        .collect()
}

struct Told<'a> {
    kind: &'static str,
    action: &'static str,
    id: &'a model::Id,
    attributes: BTreeMap<String, String>,
}

fn events<'a>(before: &Tables, after: &Tables, change: &'a StoreChange) -> Vec<Told<'a>> {
    let told = |kind, action, id, attributes| {
        vec![Told {
            kind,
            action,
            id,
            attributes,
        }]
    };
    match change {
        StoreChange::SetNetwork(network) => {
            let action = created(before.network(&network.id).is_none());
            let mut attributes = named(&network.spec.name);
            attributes.insert("type".to_owned(), network.spec.driver.clone());
            told("network", action, &network.id, attributes)
        }
        StoreChange::RemoveNetwork(id) => before.network(id).map_or_else(Vec::new, |network| {
            told("network", "remove", id, named(&network.spec.name))
        }),
        StoreChange::SetNode(node) => {
            let mut attributes = named(&node.description.hostname);
            match before.node(&node.id) {
                None => told("node", "create", &node.id, attributes),
                Some(old) => {
                    let differences = differences(words(old), words(node));
                    if differences.is_empty() {
                        return Vec::new();
                    }
                    attributes.extend(differences);
                    told("node", "update", &node.id, attributes)
                }
            }
        }
        StoreChange::RemoveNode(id) => before.node(id).map_or_else(Vec::new, |node| {
            told("node", "remove", id, named(&node.description.hostname))
        }),
        StoreChange::SetService(service) => {
            let mut attributes = named(&service.spec.name);
            match before.work().service(&service.id) {
                None => told("service", "create", &service.id, attributes),
                Some(old) => {
                    let differences = differences(progress(old), progress(service));
                    // What the allocator writes is nobody's concern.
                    if differences.is_empty() && old.spec == service.spec {
                        return Vec::new();
                    }
                    attributes.extend(differences);
                    told("service", "update", &service.id, attributes)
                }
            }
        }
        StoreChange::RemoveService(id) => {
            before.work().service(id).map_or_else(Vec::new, |service| {
                told("service", "remove", id, named(&service.spec.name))
            })
        }
        StoreChange::SetTask(task) => {
            let old = before.work().task(&task.id);
            let step = |action| Told {
                kind: "task",
                action,
                id: &task.id,
                attributes: of_task(after, task),
            };
            steps(old, task).into_iter().map(step).collect()
        }
        StoreChange::RemoveTask(id) => before.work().task(id).map_or_else(Vec::new, |task| {
            told("task", "removed", id, of_task(before, task))
        }),
        StoreChange::SetPayload(payload) => {
            let action = created(before.work().payload(&payload.id).is_none());
            told(
                kind(payload),
                action,
                &payload.id,
                named(&payload.spec.name),
            )
        }
        StoreChange::RemovePayload(id) => {
            before.work().payload(id).map_or_else(Vec::new, |payload| {
                told(kind(payload), "remove", id, named(&payload.spec.name))
            })
        }
        StoreChange::SetCluster(_)
        | StoreChange::SetEndpoint(_)
        | StoreChange::RemoveEndpoint(_)
        | StoreChange::SetCursor { .. }
        | StoreChange::EndRest { .. } => Vec::new(),
    }
}

fn created(new: bool) -> &'static str {
    if new { "create" } else { "update" }
}

fn kind(payload: &Payload) -> &'static str {
    payload.kind.as_str()
}

fn named(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), name.to_owned())])
}

/// What a task went through with this write.
fn steps(old: Option<&Task>, new: &Task) -> Vec<&'static str> {
    let mut steps = Vec::new();
    if old.is_none() {
        steps.push("create");
    }
    if new.node.is_some() && old.is_none_or(|old| old.node.is_none()) {
        steps.push("assigned");
    }
    let state = new.status.state;
    if old.is_none_or(|old| old.status.state != state) {
        match state {
            TaskState::Preparing => steps.push("preparing"),
            TaskState::Starting => steps.push("starting"),
            TaskState::Running => steps.push("running"),
            TaskState::Complete => steps.push("complete"),
            TaskState::Shutdown => steps.push("shutdown"),
            TaskState::Failed | TaskState::Rejected | TaskState::Orphaned => steps.push("failed"),
            TaskState::New
            | TaskState::Pending
            | TaskState::Assigned
            | TaskState::Accepted
            | TaskState::Ready
            | TaskState::Remove => {}
        }
    }
    let asked = |task: &Task| task.desired > TaskState::Running;
    if state <= TaskState::Running && asked(new) && old.is_some_and(|old| !asked(old)) {
        steps.push("stopping");
    }
    steps
}

fn of_task(tables: &Tables, task: &Task) -> BTreeMap<String, String> {
    let mut attributes = named(&task.name());
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    };
    put("service", &task.service_name);
    put("service.id", task.service.as_str());
    if let Some(id) = &task.node {
        put("node.id", id.as_str());
        put(
            "node",
            tables
                .node(id)
                .map_or("", |node| &node.description.hostname),
        );
    }
    if !task.mode.is_global() {
        put("slot", &task.slot.to_string());
    }
    put("image", &task.spec.container.image);
    put("error", &task.status.error);
    attributes
}

/// What of a node is told when it changes.
fn words(node: &Node) -> [(&'static str, String); 3] {
    [
        ("state", format!("{:?}", node.status.state).to_lowercase()),
        (
            "availability",
            format!("{:?}", node.spec.availability).to_lowercase(),
        ),
        ("role", format!("{:?}", node.spec.role).to_lowercase()),
    ]
}

/// What of a service is told when it changes.
fn progress(service: &Service) -> [(&'static str, String); 3] {
    let replicas = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas.to_string(),
        ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            String::new()
        }
    };
    let state = service.update.as_ref().map(|update| {
        use model::service::UpdateState as State;
        match update.state {
            State::Updating => "updating",
            State::Paused => "paused",
            State::Completed => "completed",
            State::RollbackStarted => "rollback_started",
            State::RollbackPaused => "rollback_paused",
            State::RollbackCompleted => "rollback_completed",
        }
    });
    [
        ("image", service.spec.task.container.image.clone()),
        ("replicas", replicas),
        ("updatestate", state.unwrap_or_default().to_owned()),
    ]
}

/// Docker's attributes of an update: `state.old`, `state.new` and the like.
fn differences<const N: usize>(
    old: [(&'static str, String); N],
    new: [(&'static str, String); N],
) -> BTreeMap<String, String> {
    old.into_iter()
        .zip(new)
        .filter(|(old, new)| old.1 != new.1)
        .flat_map(|((key, old), (_, new))| {
            [(format!("{key}.old"), old), (format!("{key}.new"), new)]
        })
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use model::{
        Meta, PayloadKind, PayloadSpec, ServiceSpec, TaskSpec, TaskStatus,
        service::{ServiceEndpoint, UpdateState, UpdateStatus},
        task::Handover,
    };

    use super::*;
    use crate::store::Proposal;

    fn service(replicas: u64, image: &str) -> Service {
        let mut task = TaskSpec::default();
        task.container.image = image.into();
        Service {
            id: "s".into(),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: "web".into(),
                task,
                mode: ServiceMode::Replicated { replicas },
                ..ServiceSpec::default()
            },
            spec_version: 0,
            previous: None,
            endpoint: ServiceEndpoint::default(),
            update: None,
            job: None,
        }
    }

    fn task(node: Option<&str>, state: TaskState, error: &str) -> Task {
        Task {
            id: "t".into(),
            meta: Meta::default(),
            service: "s".into(),
            service_name: "web".into(),
            slot: 2,
            node: node.map(Into::into),
            spec: Arc::default(),
            spec_version: 0,
            labels: BTreeMap::new(),
            mode: ServiceMode::default(),
            status: TaskStatus {
                state,
                error: error.into(),
                ..TaskStatus::default()
            },
            desired: TaskState::Running,
            start_after: 0,
            endpoints: Vec::new(),
            ports: Vec::new(),
            generic_resources: Vec::new(),
            job_iteration: None,
            handover: Handover::Pending,
            in_since: 0,
            attempt: 0,
            drain: std::time::Duration::ZERO,
        }
    }

    fn secret(label: &str) -> Payload {
        Payload {
            id: "p".into(),
            meta: Meta::default(),
            kind: PayloadKind::Secret,
            spec: PayloadSpec {
                name: "key".into(),
                labels: [(label.to_owned(), String::new())].into(),
                ..PayloadSpec::default()
            },
        }
    }

    /// Writes one change after the other and gives what each is told as.
    fn story(changes: Vec<StoreChange>) -> Vec<String> {
        let mut tables = Tables::default();
        let mut told = Vec::new();
        for (change, index) in changes.into_iter().zip(1..) {
            let before = tables.clone();
            let changes = vec![change];
            let proposal = Proposal {
                time: 1,
                changes: changes.clone(),
                base: None,
            };
            tables.apply(index, &proposal);
            told.extend(
                tell(&before, &tables, &changes, 5)
                    .into_iter()
                    .map(|event| {
                        let attributes: Vec<_> = event
                            .attributes
                            .iter()
                            .map(|(key, value)| format!("{key}={value}"))
                            .collect();
                        format!(
                            "{} {} {} {}",
                            event.kind,
                            event.action,
                            event.id,
                            attributes.join(" ")
                        )
                    }),
            );
        }
        told
    }

    #[test]
    fn services() {
        let mut updating = service(3, "b");
        updating.update = Some(UpdateStatus {
            state: UpdateState::Updating,
            started_at: 1,
            completed_at: None,
            message: String::new(),
        });
        let mut relabelled = updating.clone();
        relabelled.spec.labels.insert("a".into(), "b".into());
        let mut allocated = relabelled.clone();
        allocated.job = Some(model::service::JobStatus {
            iteration: 1,
            last_execution: 1,
        });
        let set = |service| StoreChange::SetService(Box::new(service));
        assert_eq!(
            story(vec![
                set(service(1, "a")),
                set(service(3, "b")),
                set(updating),
                set(relabelled),
                set(allocated),
                StoreChange::RemoveService("s".into()),
                StoreChange::RemoveService("s".into()),
            ]),
            [
                "service create s name=web",
                "service update s image.new=b image.old=a name=web replicas.new=3 replicas.old=1",
                "service update s name=web updatestate.new=updating",
                "service update s name=web",
                "service remove s name=web",
            ]
        );
    }

    #[test]
    fn tasks() {
        let set = |task| StoreChange::SetTask(Box::new(task));
        assert_eq!(
            story(vec![
                set(task(None, TaskState::New, "")),
                set(task(Some("n"), TaskState::Assigned, "")),
                set(task(Some("n"), TaskState::Preparing, "")),
                set(task(Some("n"), TaskState::Running, "")),
                set(task(Some("n"), TaskState::Running, "")),
                set(task(Some("n"), TaskState::Failed, "exit 1")),
                StoreChange::RemoveTask("t".into()),
            ]),
            [
                "task create t name=web.2.t service=web service.id=s slot=2",
                "task assigned t name=web.2.t node.id=n service=web service.id=s slot=2",
                "task preparing t name=web.2.t node.id=n service=web service.id=s slot=2",
                "task running t name=web.2.t node.id=n service=web service.id=s slot=2",
                "task failed t error=exit 1 name=web.2.t node.id=n service=web service.id=s slot=2",
                "task removed t error=exit 1 name=web.2.t node.id=n service=web service.id=s slot=2",
            ]
        );
        assert_eq!(
            steps(None, &task(Some("n"), TaskState::Complete, "")),
            ["create", "assigned", "complete"]
        );
        let old = task(Some("n"), TaskState::Running, "");
        let mut asked = old.clone();
        asked.desired = TaskState::Shutdown;
        assert_eq!(steps(Some(&old), &asked), ["stopping"]);
        assert!(steps(Some(&asked), &asked).is_empty());
        asked.status.state = TaskState::Shutdown;
        assert_eq!(steps(Some(&old), &asked), ["shutdown"]);
        for (state, told) in [
            (TaskState::Shutdown, "shutdown"),
            (TaskState::Rejected, "failed"),
            (TaskState::Orphaned, "failed"),
        ] {
            assert_eq!(steps(Some(&old), &task(Some("n"), state, "")), [told]);
        }
    }

    #[test]
    fn secrets() {
        let set = |payload| StoreChange::SetPayload(Box::new(payload));
        assert_eq!(
            story(vec![
                set(secret("a")),
                set(secret("b")),
                StoreChange::RemovePayload("p".into()),
            ]),
            [
                "secret create p name=key",
                "secret update p name=key",
                "secret remove p name=key",
            ]
        );
    }
}
