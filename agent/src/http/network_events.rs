//! Docker tells of containers that come to a network and go from it; the engine knows no
//! networks, so its starts and ends are translated here.

use std::{collections::BTreeMap, sync::Arc};

use api::event::EventView;
use runtime::{
    engine::{Engine, Event, EventKind, ListOptions},
    network::ConnectedEndpoint,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::EventBus;

/// Publishes connects and disconnects until the daemon ends.
pub(super) fn follow(engine: &Arc<Engine>, bus: EventBus, shutdown: CancellationToken) {
    let engine = Arc::clone(engine);
    let mut events = engine.events();
    tokio::spawn(async move {
        // What removed containers were on, because the engine forgets them at once.
        let running = engine.list(&ListOptions::default()).unwrap_or_default();
        let mut connected: BTreeMap<String, Vec<ConnectedEndpoint>> = running
            .into_iter()
            .map(|view| (view.id.to_string(), view.network.endpoints))
            .collect();
        loop {
            // Both arms are cancel-safe: a receiver keeps what was not taken.
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => event,
            };
            let event = match event {
                Ok(event) if event.kind != EventKind::Volume => event,
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let seen = || engine.inspect(&event.id).map(|view| view.network.endpoints);
            let (action, endpoints) = match event.action.as_str() {
                "start" => {
                    let endpoints = seen().unwrap_or_default();
                    connected.insert(event.id.clone(), endpoints.clone());
                    ("connect", endpoints)
                }
                "die" => {
                    let endpoints = connected.remove(&event.id);
                    (
                        "disconnect",
                        endpoints.or_else(|| seen().ok()).unwrap_or_default(),
                    )
                }
                _ if event.kind == EventKind::Networks => {
                    let now = seen().unwrap_or_default();
                    let before = connected.insert(event.id.clone(), now.clone());
                    let before = before.unwrap_or_default();
                    let gone = without(&before, &now);
                    for endpoint in gone {
                        bus.publish(translate("disconnect", &event, endpoint));
                    }
                    ("connect", without(&now, &before).cloned().collect())
                }
                _ => continue,
            };
            for endpoint in endpoints {
                bus.publish(translate(action, &event, &endpoint));
            }
        }
    });
}

/// A network of this host's own comes or goes.
pub(super) fn of_network(action: &str, id: &str, name: &str, time: i64) -> EventView {
    let attributes = [("name", name), ("type", "bridge")];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
    EventView::new("local", "network", action, id, attributes.into(), time)
}

/// Those of the first that the second has not.
fn without<'a>(
    first: &'a [ConnectedEndpoint],
    second: &'a [ConnectedEndpoint],
) -> impl Iterator<Item = &'a ConnectedEndpoint> {
    let has = |id: &str| second.iter().any(|other| other.network_id == id);
    first.iter().filter(move |one| !has(&one.network_id))
}

/// How long the ids of networks are that only this host knows; the cluster's are shorter.
const LOCAL_ID: usize = 64;

fn translate(action: &str, event: &Event, endpoint: &ConnectedEndpoint) -> EventView {
    let driver = if endpoint.network_id.len() == LOCAL_ID {
        "bridge"
    } else {
        "overlay"
    };
    let attributes = [
        ("container", event.id.as_str()),
        ("name", &endpoint.network_name),
        ("type", driver),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    EventView::new(
        "local",
        "network",
        action,
        &endpoint.network_id,
        attributes.into(),
        event.time,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_on_an_overlay_is_a_connect() {
        let event = Event {
            kind: EventKind::Container,
            action: "start".into(),
            id: "c".into(),
            attributes: BTreeMap::new(),
            time: 5,
        };
        let mut endpoint = ConnectedEndpoint {
            network_name: "ch03".into(),
            network_id: "net".into(),
            endpoint_id: "e".into(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: String::new(),
            aliases: Vec::new(),
            dns_names: Vec::new(),
        };
        let told = translate("connect", &event, &endpoint);
        assert_eq!(
            (told.kind.as_str(), told.action.as_str()),
            ("network", "connect")
        );
        assert_eq!(told.actor.attributes["type"], "overlay");
        assert_eq!(told.actor.attributes["container"], "c");
        endpoint.network_id = "ab".repeat(32);
        let told = translate("connect", &event, &endpoint);
        assert_eq!(told.actor.attributes["type"], "bridge");
    }
}
