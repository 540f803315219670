//! `/overnet/traffic`: what goes through the tunnels, every two seconds for as long as somebody
//! listens: on a manager a line of each host, elsewhere of this one. It is counted only then.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::traffic::{PeerTraffic, TrafficView};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use dataplane::traffic::Flow;
use futures_util::stream::BoxStream;
use model::{
    HostTraffic, NodeId, Refusal,
    control::{Answer as Reply, Verb},
    traffic::TunnelTraffic,
};
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Answer, AppState, unexpected};

/// Between two questions to all hosts; a host reads its counters as often.
const PERIOD: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/overnet/traffic", get(follow))
}

/// A host at the other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnd {
    pub node: NodeId,
    pub hostname: String,
}

/// Counters of this host's tunnels at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelReading {
    /// Nanoseconds since the epoch; 0 before the first reading.
    pub time: i64,
    /// By the addresses of the other ends.
    pub flows: BTreeMap<IpAddr, Flow>,
}

/// Lines of all hosts as of one moment.
type Lines = Arc<Vec<u8>>;

/// What all hosts count, asked for once for all who look at it here.
#[derive(Clone, Default)]
pub(super) struct TrafficBoard(Arc<Mutex<Option<watch::Sender<Lines>>>>);

impl TrafficBoard {
    fn subscribe(&self, state: &AppState) -> watch::Receiver<Lines> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = &*slot {
            return lines.subscribe();
        }
        let (lines, receiver) = watch::channel(Lines::default());
        *slot = Some(lines);
        tokio::spawn(ask(self.clone(), state.clone()));
        receiver
    }

    /// Whether anybody still looks; if not, whoever comes next begins anew.
    fn show(&self, lines: Option<Vec<u8>>) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = slot.as_ref().filter(|shown| shown.receiver_count() > 0);
        match (watched, lines) {
            (Some(shown), Some(lines)) => {
                shown.send_replace(Arc::new(lines));
            }
            (Some(_), None) => {}
            (None, _) => *slot = None,
        }
        slot.is_some()
    }
}

/// Asks all hosts until nobody looks.
async fn ask(board: TrafficBoard, state: AppState) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let lines = match counted(&state).await {
            Ok(hosts) => {
                let lines = hosts.iter().flat_map(|(node, traffic)| line(node, traffic));
                Some(lines.collect())
            }
            Err(error) => {
                tracing::debug!(%error, "what goes through the tunnels is not known");
                None
            }
        };
        if !board.show(lines) {
            return;
        }
    }
}

async fn counted(state: &AppState) -> Result<Vec<(NodeId, HostTraffic)>, Refusal> {
    match state.call(Verb::TrafficList).await? {
        Reply::Traffic(mut hosts) => {
            hosts.retain(|(_, traffic)| traffic.time != 0);
            Ok(hosts)
        }
        other => Err(unexpected("traffic list", &other)),
    }
}

async fn follow(State(state): State<AppState>) -> Answer {
    let lines: BoxStream<'static, Vec<u8>> = if state.manager_only().await.is_ok() {
        Box::pin(of_all(state))
    } else {
        let readings = state.networks.traffic().await?;
        Box::pin(of_this_host(state, readings))
    };
    let lines = futures_util::StreamExt::map(lines, Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    let kind = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn of_all(state: AppState) -> impl futures_util::Stream<Item = Vec<u8>> {
    let mut shown = state.traffic.subscribe(&state);
    async_stream::stream! {
        while next(&state, &mut shown).await {
            let lines = Arc::clone(&shown.borrow_and_update());
            yield lines.to_vec();
        }
    }
}

fn of_this_host(
    state: AppState,
    mut readings: watch::Receiver<TunnelReading>,
) -> impl futures_util::Stream<Item = Vec<u8>> {
    async_stream::stream! {
        while next(&state, &mut readings).await {
            let reading = readings.borrow_and_update().clone();
            let traffic = state.networks.by_host(&reading).await;
            yield line(&state.local().node_id, &traffic);
        }
    }
}

/// Whether something new was seen; false at the end of either side.
async fn next<T>(state: &AppState, watched: &mut watch::Receiver<T>) -> bool {
    // Both arms are cancel-safe: the receiver keeps what was not taken.
    tokio::select! {
        () = state.shutdown.cancelled() => false,
        changed = watched.changed() => changed.is_ok(),
    }
}

fn line(node: &NodeId, traffic: &HostTraffic) -> Vec<u8> {
    let view = TrafficView {
        time: traffic.time,
        node_id: node.to_string(),
        peers: traffic.tunnels.iter().map(peer).collect(),
    };
    let mut bytes = serde_json::to_vec(&view).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn peer(tunnel: &TunnelTraffic) -> PeerTraffic {
    PeerTraffic {
        node_id: tunnel.to.to_string(),
        tx_packets: tunnel.sent.packets,
        tx_bytes: tunnel.sent.bytes,
        rx_packets: tunnel.received.packets,
        rx_bytes: tunnel.received.bytes,
        path: tunnel.path.as_ref().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use model::traffic::Count;

    use super::*;

    #[test]
    fn a_reading_is_one_line() {
        let tunnel = TunnelTraffic {
            to: "n2".into(),
            sent: Count {
                packets: 2,
                bytes: 300,
            },
            received: Count::default(),
            path: None,
        };
        let traffic = HostTraffic {
            time: 5,
            tunnels: vec![tunnel],
        };
        assert_eq!(
            String::from_utf8(line(&"n1".into(), &traffic)).unwrap(),
            "{\"Time\":5,\"NodeID\":\"n1\",\"Peers\":[{\"NodeID\":\"n2\",\"TxPackets\":2,\"TxBytes\":300,\"RxPackets\":0,\"RxBytes\":0}]}\n"
        );
    }
}
