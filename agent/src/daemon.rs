//! The daemon from start to end: every part is built in order of dependence, then served, then
//! taken down in reverse. The kernel's networks and the containers stay when it ends.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use dataplane::{Dataplane, dns::DnsConfig};
use model::{ContainerId, node::NodeDescription};
use runtime::{
    engine::{Engine, EngineConfig},
    images::{self, ImageStore},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api_socket,
    cluster::{self, ClusterNode},
    config::{Remote, Settings},
    data_format, docker_plugin, doctor, host,
    http::{self, AppState},
    network::{self, HostKeys, Networks},
    notify::{self, Notifier},
    worker::{self, Worker},
};

/// The period of a cluster that this host makes, unless a setting says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT. What the host lacks is named in the log.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let ended = serve(settings.clone()).await;
    if ended.is_err() {
        name_what_is_missing(&settings).await;
    }
    ended
}

async fn name_what_is_missing(settings: &Settings) {
    for sentence in doctor::lacks(settings).await {
        tracing::warn!("{sentence}");
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let notifier = Notifier::from_env();
    let mut inherited = notify::inherited_fds();
    let kept_socket = api_socket::take_kept(&mut inherited);
    for folder in [&settings.root, &settings.run] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("folder {} cannot be made", folder.display()))?;
    }
    data_format::take_over(&settings.root)?;
    let dataplane = Dataplane::start(dataplane::Config {
        run_dir: settings.run.clone(),
        dns: DnsConfig {
            inherited,
            keeper: Arc::new(notifier.clone()),
        },
    })?;
    for sentence in dataplane.probe().await {
        tracing::warn!("{sentence}");
    }
    let images = ImageStore::open(images::Config {
        insecure_registries: settings.insecure_registries.clone(),
        default_registry: settings.default_registry.clone(),
        ..images::Config::new(settings.root.join("images"))
    })?;
    let declared = Arc::new(settings.declared());
    let of_worker = Arc::clone(&declared);
    let by = dataplane::kernel::wireguard_here();
    if let Err(why) = &by {
        tracing::warn!("this host cannot have encrypted networks: {why}");
    }
    let keys = HostKeys::open(&settings.run, settings.wireguard_port, by)
        .context("the keys for encrypted networks cannot be kept")?;
    let keys = Arc::new(keys);
    let own = Arc::clone(&keys);
    let cluster = ClusterNode::start(cluster::Config {
        root: settings.root.clone(),
        heartbeat: settings.heartbeat.unwrap_or(HEARTBEAT),
        describe: Arc::new(move || NodeDescription {
            encryption: Some(own.described()),
            ..host::describe(&declared)
        }),
    })
    .await?;
    let networks = Networks::start(
        network::Config {
            root: settings.root.clone(),
            run_dir: settings.run.clone(),
            resolv_conf: settings.resolv_conf.clone(),
            keys,
        },
        dataplane,
        Arc::clone(&cluster),
    )
    .await?;
    let engine = Engine::start(EngineConfig {
        root: settings.root.clone(),
        run_dir: settings.run.clone(),
        runtime: settings.runtime.clone(),
        monitor: None,
        cgroup_parent: settings.cgroup_parent.clone(),
        init: None,
        images: Arc::new(images.clone()),
        network: Arc::clone(&networks) as Arc<dyn runtime::network::Network>,
    })
    .await?;
    let worker = Worker::start(
        worker::Config {
            root: settings.root.clone(),
            run_dir: settings.run.clone(),
            socket: settings.api_socket(),
            describe: Arc::new(move || host::describe(&of_worker)),
        },
        Arc::clone(&engine),
        images.clone(),
        Arc::clone(&cluster) as Arc<dyn worker::Leader>,
        Arc::clone(&networks) as Arc<dyn worker::Flows>,
    )?;
    cluster.serve_traffic(Arc::clone(&networks) as Arc<dyn cluster::TrafficSource>);
    cluster.serve_ports(Arc::clone(&networks) as Arc<dyn cluster::PortKeeper>);
    cluster.serve_logs(Arc::clone(&worker) as Arc<dyn cluster::LogSource>);
    let shutdown = CancellationToken::new();
    let state = AppState::new(
        Arc::clone(&engine),
        images,
        Arc::clone(&cluster),
        Arc::clone(&networks) as Arc<dyn http::HostNetworks>,
        Arc::new(settings.clone()),
        engine_id(&settings)?,
        shutdown.clone(),
    );
    let mut servers = JoinSet::new();
    for path in &settings.sockets {
        let listener = http::bind(path)
            .with_context(|| format!("API socket {} cannot be made", path.display()))?;
        servers.spawn(http::serve(http::Door::Unix(listener), state.clone()));
        tracing::info!(socket = %path.display(), "the API is served");
    }
    if let Some(path) = settings.api_socket().path {
        let listener = api_socket::listen(&path, kept_socket, &notifier)
            .with_context(|| format!("API socket {} cannot be made", path.display()))?;
        servers.spawn(http::serve(http::Door::Unix(listener), state.clone()));
    }
    for door in remote_doors(&settings.remote).await? {
        servers.spawn(http::serve(door, state.clone()));
    }
    if let Some(path) = &settings.docker_plugin {
        let listener = http::bind(path)
            .with_context(|| format!("socket {} cannot be made", path.display()))?;
        let (state, networks) = (state.clone(), Arc::clone(&networks));
        let root = settings.root.clone();
        servers.spawn(async move { docker_plugin::serve(listener, state, networks, &root).await });
        tracing::info!(socket = %path.display(), "Docker's network plugin is served");
    }
    state.visualizer.resume(&state).await;
    if let Some(address) = settings.metrics {
        // Bound before the daemon says that it is ready, so that a port that is taken is a failed start.
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("metrics address {address} cannot be listened on"))?;
        servers.spawn(http::serve_metrics(listener, state.clone()));
        tracing::info!(%address, "metrics are served");
    }
    notifier
        .ready()
        .context("the service manager could not be told")?;
    tokio::spawn(keep_watchdog_quiet(notifier.clone(), shutdown.clone()));
    // Programs are asked for their versions, which nobody has to wait for.
    let needs = settings.clone();
    tokio::spawn(async move { name_what_is_missing(&needs).await });

    wait_for_end(&mut servers).await?;

    if let Err(error) = notifier.stopping() {
        tracing::warn!(%error, "the service manager could not be told");
    }
    shutdown.cancel();
    while servers.join_next().await.is_some() {}
    worker.shutdown().await;
    engine.shutdown().await;
    cluster.shutdown().await;
    tracing::info!("ovnd ends; containers and networks go on");
    Ok(())
}

/// The API's TCP addresses, bound before the daemon says that it is ready.
async fn remote_doors(remote: &Remote) -> anyhow::Result<Vec<http::Door>> {
    let roles = &remote.roles;
    let tls = remote.tls.clone();
    let tls = tls.map(|files| http::Tls::open(files, roles.clone()));
    let tls = tls.transpose()?.map(Arc::new);
    let mut doors = Vec::new();
    for address in &remote.addresses {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("the API's address {address} cannot be listened on"))?;
        tracing::info!(%address, tls = tls.is_some(), "the API is served");
        doors.push(match &tls {
            Some(tls) => http::Door::Tls(listener, Arc::clone(tls)),
            None => http::Door::Plain(listener, roles.others),
        });
    }
    Ok(doors)
}

/// Every container's name server has two sockets here, and each question that is passed on one.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn wait_for_end(servers: &mut JoinSet<std::io::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = servers.join_next() => {
            ended.context("a server of the API has panicked")?.context("a server of the API ended")
        }
    }
}

async fn keep_watchdog_quiet(notifier: Notifier, shutdown: CancellationToken) {
    let Some(period) = notifier.watchdog_period() else {
        return;
    };
    let mut tick = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if let Err(error) = notifier.ping_watchdog() {
                    tracing::warn!(%error, "the watchdog could not be pinged");
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// `ID` of `/info`: made at the first start, the same ever after.
fn engine_id(settings: &Settings) -> anyhow::Result<String> {
    let path = settings.root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = ContainerId::from_random(rand::random()).to_string();
            network::write_atomically(&path, id.as_bytes(), network::Survives::PowerLoss)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            Ok(id)
        }
    }
}
