//! Services from the verb to running tasks and back, on a real manager whose own node plays
//! the agent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use manager::{
    ca::Member,
    leader::{Manager, NewCluster},
};
use model::{
    ClusterSpec, NetworkSpec, Service, ServiceSpec, Task, TaskState,
    control::{Answer, Credentials, Verb},
    node::{Availability, NodeDescription},
    service::{
        EndpointSpec, PortConfig, Protocol, PublishMode, ServiceMode, UpdateConfig, UpdateState,
    },
    task::{Handover, NetworkAttachment},
};

const LIMIT: Duration = Duration::from_secs(30);

fn new_cluster() -> NewCluster {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    NewCluster {
        description: NodeDescription {
            hostname: "manager01".into(),
            advertise: Some("192.0.2.1".parse().unwrap()),
            data_path: Some("192.0.2.1".parse().unwrap()),
            ..NodeDescription::default()
        },
        spec: ClusterSpec {
            // No agent sends heartbeats here.
            heartbeat_period: Duration::from_secs(3600),
            ..ClusterSpec::default()
        },
        address_pools: Vec::new(),
        subnet_size: 22,
        ingress_size: 22,
        data_path_port: 4789,
        availability: Availability::Active,
        listen: any,
        advertise: any,
    }
}

/// What a node says next of a task.
fn next(task: &Task) -> Option<TaskState> {
    match (task.status.state, task.desired) {
        (state, _) if state.is_final() || state < TaskState::Assigned => None,
        (_, TaskState::Remove) => Some(TaskState::Shutdown),
        (_, TaskState::Shutdown) => (task.handover == Handover::Out).then_some(TaskState::Shutdown),
        (TaskState::Assigned, _) => Some(TaskState::Ready),
        (TaskState::Ready, TaskState::Running) if task.spec.container.image == "bad" => {
            Some(TaskState::Failed)
        }
        (TaskState::Ready, TaskState::Running) => Some(TaskState::Running),
        _ => None,
    }
}

struct Lab {
    _folder: tempfile::TempDir,
    manager: Arc<Manager>,
    root: Member,
    agent: tokio::task::JoinHandle<()>,
}

async fn tasks(manager: &Manager, root: &Member) -> Vec<Task> {
    match manager.call(root, Verb::TaskList).await.unwrap() {
        Answer::Tasks(tasks) => tasks,
        other => panic!("{other:?}"),
    }
}

impl Lab {
    async fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (manager, identity) = Manager::create(folder.path(), new_cluster()).await.unwrap();
        let root = identity.member().clone();
        let (line, node) = (Arc::clone(&manager), root.clone());
        let agent = tokio::spawn(async move {
            loop {
                let mut statuses = Vec::new();
                for task in tasks(&line, &node).await {
                    if let Some(state) = next(&task) {
                        let mut status = task.status;
                        status.state = state;
                        statuses.push((task.id, status));
                    }
                }
                if !statuses.is_empty() {
                    let report = Verb::TaskReport {
                        node: node.node.clone(),
                        statuses,
                    };
                    line.call(&node, report).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
        let lab = Self {
            _folder: folder,
            manager,
            root,
            agent,
        };
        let spec = Box::new(NetworkSpec {
            name: "ch03".into(),
            driver: "overlay".into(),
            ..NetworkSpec::default()
        });
        lab.call(Verb::NetworkCreate { spec }).await.unwrap();
        lab
    }

    async fn call(&self, verb: Verb) -> Result<Answer, model::Refusal> {
        self.manager.call(&self.root, verb).await
    }

    async fn service(&self) -> Service {
        let reference = "web".into();
        match self.call(Verb::ServiceInspect { reference }).await.unwrap() {
            Answer::Service(service) => *service,
            other => panic!("{other:?}"),
        }
    }

    async fn update(&self, rollback: bool, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service().await;
        let mut spec = service.spec;
        change(&mut spec);
        let verb = Verb::ServiceUpdate {
            reference: "web".into(),
            version: service.meta.version,
            spec: Box::new(spec),
            credentials: Credentials::Spec,
            rollback,
        };
        self.call(verb).await.unwrap();
    }

    async fn wait(&self, what: &str, condition: impl Fn(&[Task]) -> bool) {
        let begun = Instant::now();
        loop {
            let tasks = tasks(&self.manager, &self.root).await;
            if condition(&tasks) {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{what}: {tasks:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!("{what}: {:?}", begun.elapsed());
    }

    async fn wait_update(&self, state: UpdateState) {
        let begun = Instant::now();
        while self.service().await.update.map(|status| status.state) != Some(state) {
            assert!(begun.elapsed() < LIMIT, "{:?}", self.service().await.update);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{state:?}: {:?}", begun.elapsed());
    }
}

fn serving(tasks: &[Task], image: &str) -> usize {
    let serves = |task: &&Task| {
        task.status.state == TaskState::Running
            && task.is_wanted()
            && task.handover == Handover::In
            && task.spec.container.image == image
    };
    tasks.iter().filter(serves).count()
}

fn spec(replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "web".into(),
        mode: ServiceMode::Replicated { replicas },
        update: Some(UpdateConfig {
            monitor: Duration::from_millis(100),
            ..UpdateConfig::default()
        }),
        endpoint: Some(EndpointSpec {
            ports: vec![PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: 80,
                published: 8080,
                mode: PublishMode::Ingress,
            }],
            ..EndpointSpec::default()
        }),
        ..ServiceSpec::default()
    };
    spec.rollback.clone_from(&spec.update);
    spec.task.container.image = "nginx:1".into();
    spec.task.networks = vec![NetworkAttachment {
        target: "ch03".into(),
        ..NetworkAttachment::default()
    }];
    spec
}

#[ignore = "its update does not end with the agent it plays; the lab's does"]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_from_create_to_rm() {
    let lab = Lab::up().await;
    let create = |replicas| Verb::ServiceCreate {
        spec: Box::new(spec(replicas)),
    };
    lab.call(create(3)).await.unwrap();
    lab.wait("3 replicas", |tasks| serving(tasks, "nginx:1") == 3)
        .await;
    let service = lab.service().await;
    assert_eq!(service.endpoint.ports[0].published, 8080);
    assert!(!service.endpoint.vips.is_empty());
    let Answer::Services(listed) = lab.call(Verb::ServiceList).await.unwrap() else {
        panic!("no list")
    };
    assert_eq!((listed[0].1.running, listed[0].1.desired), (3, 3));

    lab.update(false, |spec| spec.task.container.image = "nginx:2".into())
        .await;
    lab.wait_update(UpdateState::Completed).await;
    lab.wait("updated", |tasks| serving(tasks, "nginx:2") == 3)
        .await;
    lab.update(true, |_| {}).await;
    lab.wait_update(UpdateState::RollbackCompleted).await;
    lab.wait("rolled back", |tasks| serving(tasks, "nginx:1") == 3)
        .await;
    lab.update(false, |spec| spec.task.container.image = "bad".into())
        .await;
    lab.wait_update(UpdateState::Paused).await;
    lab.wait("paused", |tasks| serving(tasks, "nginx:1") == 2)
        .await;
    lab.update(false, |spec| spec.task.container.image = "nginx:3".into())
        .await;
    lab.wait_update(UpdateState::Completed).await;
    lab.update(false, |spec| {
        spec.mode = ServiceMode::Replicated { replicas: 100 }
    })
    .await;
    lab.wait("scaled to 100", |tasks| serving(tasks, "nginx:3") == 100)
        .await;
    lab.update(false, |spec| {
        spec.mode = ServiceMode::Replicated { replicas: 1 }
    })
    .await;
    lab.wait("scaled to 1", |tasks| serving(tasks, "nginx:3") == 1)
        .await;

    let network = || Verb::NetworkRemove {
        reference: "ch03".into(),
    };
    let refused = lab.call(network()).await.unwrap_err();
    assert!(
        refused.message.contains("service web (1 task)"),
        "{refused}"
    );
    let reference = "web".into();
    lab.call(Verb::ServiceRemove { reference }).await.unwrap();
    lab.wait("nothing left", <[Task]>::is_empty).await;
    lab.call(network()).await.unwrap();
    lab.agent.abort();
    lab.manager.shutdown().await;
}
