//! `/swarm…`: making, joining, leaving and changing a cluster.

use api::{
    node::read_availability,
    swarm::{self, ClusterView, JoinTokensView, LABEL_INGRESS_SIZE, SpecView},
};
use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use manager::ca;
use model::{
    Cluster, ClusterSpec, Refusal,
    control::{Answer as Reply, TokenRotation, Verb},
};

use super::{Answer, AppState, Asked, Given, json, nodes::empty, unexpected};
use crate::cluster;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlock", post(unlock))
        .route("/swarm/unlockkey", get(unlock_key))
}

async fn find(state: &AppState) -> Result<Cluster, Refusal> {
    match state.call(Verb::ClusterInspect).await? {
        Reply::Cluster(cluster) => Ok(*cluster),
        other => Err(unexpected("cluster inspect", &other)),
    }
}

async fn inspect(State(state): State<AppState>) -> Answer {
    // Asked first, because on a worker it is refused with the sentence that says why.
    let tokens = if state.is_member() {
        Some(state.cluster.join_tokens().await?)
    } else {
        None
    };
    let cluster = find(&state).await?;
    let mut view = shown(&cluster)?;
    view.join_tokens = tokens.map(|tokens| JoinTokensView {
        worker: tokens.worker,
        manager: tokens.manager,
    });
    Ok(json(&view))
}

/// The cluster as Docker shows it: while its root is replaced, with the present root and the new
/// issuer.
pub(super) fn shown(cluster: &Cluster) -> Result<ClusterView, Refusal> {
    let tls = ca::announced(cluster).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(ClusterView::of(cluster, &tls))
}

async fn init(State(state): State<AppState>, Given(request): Given<swarm::InitRequest>) -> Answer {
    let node = state.cluster.init(read_init(request)?).await?;
    Ok(json(&node))
}

fn read_init(request: swarm::InitRequest) -> Result<cluster::InitRequest, Refusal> {
    let mut ingress_size = 0;
    let spec = request
        .spec
        .map(|mut spec| {
            if let Some(text) = spec.labels.remove(LABEL_INGRESS_SIZE) {
                let size = text.parse().map_err(|_| {
                    Refusal::invalid(format!(
                        "label {LABEL_INGRESS_SIZE}: {text:?} is not a prefix length such as 20"
                    ))
                })?;
                ingress_size = swarm::read_size(LABEL_INGRESS_SIZE, size)?;
            }
            if spec.given_root()?.is_some() {
                return Err(Refusal::invalid(
                    "a new cluster makes its own root certificate; replace it afterwards with `swarm ca --rotate --ca-cert FILE --ca-key FILE`",
                ));
            }
            is_given(&spec)
                .then(|| spec.to_model(&ClusterSpec::default()))
                .transpose()
        })
        .transpose()?
        .flatten();
    // Older clients say it here, newer ones in the specification.
    let spec = if request.auto_lock_managers {
        let mut spec = spec.unwrap_or_default();
        spec.autolock = true;
        Some(spec)
    } else {
        spec
    };
    Ok(cluster::InitRequest {
        advertise_addr: request.advertise_addr,
        listen_addr: request.listen_addr,
        data_path_addr: request.data_path_addr,
        data_path_port: swarm::read_data_path_port(request.data_path_port)?,
        default_addr_pool: swarm::read_pools(&request.default_addr_pool)?,
        subnet_size: swarm::read_size("SubnetSize", request.subnet_size)?,
        ingress_size,
        force_new_cluster: request.force_new_cluster,
        spec,
        availability: read_availability(&request.availability)?,
    })
}

/// The client sends an empty specification when no flag was given; then the cluster's side
/// keeps its own defaults (the daemon's heartbeat setting among them).
fn is_given(spec: &SpecView) -> bool {
    *spec != SpecView::default()
}

async fn join(State(state): State<AppState>, Given(request): Given<swarm::JoinRequest>) -> Answer {
    if request
        .remote_addrs
        .iter()
        .all(|address| address.trim().is_empty())
    {
        return Err(Refusal::invalid("RemoteAddrs is empty; name a manager as HOST:2377").into());
    }
    if request.join_token.trim().is_empty() {
        return Err(Refusal::invalid(
            "JoinToken is empty; `swarm join-token worker` on a manager prints it",
        )
        .into());
    }
    state
        .cluster
        .join(cluster::JoinRequest {
            remotes: request.remote_addrs,
            token: request.join_token.trim().to_owned(),
            advertise_addr: request.advertise_addr,
            listen_addr: request.listen_addr,
            data_path_addr: request.data_path_addr,
            availability: read_availability(&request.availability)?,
        })
        .await?;
    Ok(empty())
}

async fn leave(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    if !state.is_member() {
        return Err(Refusal::unavailable("This node is not part of a swarm").into());
    }
    state.cluster.leave(query.flag("force")).await?;
    Ok(empty())
}

async fn update(
    State(state): State<AppState>,
    Asked(query): Asked,
    Given(spec): Given<SpecView>,
) -> Answer {
    let version = query.version()?;
    let rotate = TokenRotation {
        worker: query.flag("rotateWorkerToken"),
        manager: query.flag("rotateManagerToken"),
        unlock_key: query.flag("rotateManagerUnlockKey"),
        network_keys: query.flag("rotateNetworkKeys"),
    };
    let current = find(&state).await?;
    let root = spec.given_root()?.map(Box::new);
    let spec = Box::new(spec.to_model(&current.spec)?);
    state
        .call(Verb::ClusterUpdate {
            version,
            spec,
            rotate,
            root,
        })
        .await?;
    Ok(empty())
}

async fn unlock(
    State(state): State<AppState>,
    Given(request): Given<swarm::UnlockRequest>,
) -> Answer {
    state.cluster.unlock(&request.unlock_key).await?;
    Ok(empty())
}

async fn unlock_key(State(state): State<AppState>) -> Answer {
    state.manager_only().await?;
    Ok(json(&swarm::UnlockRequest {
        unlock_key: state.cluster.unlock_key().await?,
    }))
}

#[cfg(test)]
mod tests {
    use model::node::Availability;

    use super::*;

    #[test]
    fn what_the_client_sends_for_a_plain_init() {
        let body = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"192.0.2.1","DataPathAddr":"",
            "DataPathPort":0,"ForceNewCluster":false,"Spec":{"Labels":null,"Orchestration":{},"Raft":
            {"ElectionTick":0,"HeartbeatTick":0},"Dispatcher":{},"CAConfig":{},"TaskDefaults":{},
            "EncryptionConfig":{"AutoLockManagers":false}},"AutoLockManagers":false,
            "Availability":"active","DefaultAddrPool":null,"SubnetSize":24}"#;
        let request = read_init(api::read(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(request.advertise_addr, "192.0.2.1");
        assert_eq!(
            (
                request.subnet_size,
                request.data_path_port,
                request.ingress_size
            ),
            (24, 0, 0)
        );
        assert_eq!(request.spec, None);
        assert_eq!(request.availability, Availability::Active);
    }

    #[test]
    fn the_ingress_size_travels_as_a_label() {
        let spec = |size: &str| swarm::InitRequest {
            spec: Some(SpecView {
                labels: [(LABEL_INGRESS_SIZE.to_owned(), size.to_owned())].into(),
                ..SpecView::default()
            }),
            ..swarm::InitRequest::default()
        };
        assert_eq!(read_init(spec("22")).unwrap().ingress_size, 22);
        assert!(read_init(spec("many")).is_err());
    }
}
