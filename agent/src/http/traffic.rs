//! `/overnet/traffic`: what goes through this host's tunnels, one line every two seconds for as
//! long as somebody listens. It is counted only then.

use std::{collections::BTreeMap, convert::Infallible, net::IpAddr};

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
use model::NodeId;

use super::{Answer, AppState};
use crate::paths::Measured;

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

async fn follow(State(state): State<AppState>) -> Answer {
    let mut readings = state.networks.traffic().await?;
    let lines = async_stream::stream! {
        loop {
            // Both arms are cancel-safe: the receiver keeps what was not taken.
            tokio::select! {
                () = state.shutdown.cancelled() => return,
                changed = readings.changed() => if changed.is_err() {
                    return;
                },
            }
            let reading = readings.borrow_and_update().clone();
            let ends = state.networks.tunnel_ends().await;
            let paths = state.networks.paths();
            yield Ok::<_, Infallible>(line(&state.local().node_id, &reading, &ends, &paths));
        }
    };
    let mut response = Response::new(Body::from_stream(lines));
    let kind = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// An address that is no host's is left out: it sent us something and got no answer.
fn line(
    node: &NodeId,
    reading: &TunnelReading,
    ends: &BTreeMap<IpAddr, TunnelEnd>,
    paths: &BTreeMap<NodeId, Measured>,
) -> Vec<u8> {
    let peers = reading.flows.iter();
    let view = TrafficView {
        time: reading.time,
        node_id: node.to_string(),
        peers: peers
            .filter_map(|(address, flow)| {
                let node = &ends.get(address)?.node;
                Some(peer(node, *flow, paths.get(node)))
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&view).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn peer(node: &NodeId, flow: Flow, path: Option<&Measured>) -> PeerTraffic {
    PeerTraffic {
        node_id: node.to_string(),
        tx_packets: flow.sent.packets,
        tx_bytes: flow.sent.bytes,
        rx_packets: flow.received.packets,
        rx_bytes: flow.received.bytes,
        path: path.map(|path| (&path.sight).into()),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::traffic::Counter;

    use super::*;

    #[test]
    fn a_reading_is_one_line() {
        let flow = Flow {
            sent: Counter {
                packets: 2,
                bytes: 300,
            },
            received: Counter::default(),
        };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let reading = TunnelReading {
            time: 5,
            flows: [(address("192.0.2.2"), flow), (address("192.0.2.9"), flow)].into(),
        };
        let end = TunnelEnd {
            node: "n2".into(),
            hostname: "worker02".to_owned(),
        };
        let ends = [(address("192.0.2.2"), end)].into();
        let none = BTreeMap::new();
        assert_eq!(
            String::from_utf8(line(&"n1".into(), &reading, &ends, &none)).unwrap(),
            "{\"Time\":5,\"NodeID\":\"n1\",\"Peers\":[{\"NodeID\":\"n2\",\"TxPackets\":2,\"TxBytes\":300,\"RxPackets\":0,\"RxBytes\":0}]}\n"
        );
    }
}
