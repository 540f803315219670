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

use super::{EventBus, HostNetworks};

/// Publishes connects and disconnects until the daemon ends.
pub(super) fn follow(
    engine: &Arc<Engine>,
    networks: &Arc<dyn HostNetworks>,
    bus: EventBus,
    shutdown: CancellationToken,
) {
    let (engine, networks) = (Arc::clone(engine), Arc::clone(networks));
    let mut events = engine.events();
    tokio::spawn(async move {
        let local: Vec<String> = networks
            .list()
            .into_iter()
            .map(|network| network.id)
            .collect();
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
                        bus.publish(translate("disconnect", &event, endpoint, &local));
                    }
                    ("connect", without(&now, &before).cloned().collect())
                }
                _ => continue,
            };
            for endpoint in endpoints {
                bus.publish(translate(action, &event, &endpoint, &local));
            }
        }
    });
}

/// Those of the first that the second has not.
fn without<'a>(
    first: &'a [ConnectedEndpoint],
    second: &'a [ConnectedEndpoint],
) -> impl Iterator<Item = &'a ConnectedEndpoint> {
    let has = |id: &str| second.iter().any(|other| other.network_id == id);
    first.iter().filter(move |one| !has(&one.network_id))
}

fn translate(
    action: &str,
    event: &Event,
    endpoint: &ConnectedEndpoint,
    local: &[String],
) -> EventView {
    let driver = if local.contains(&endpoint.network_id) {
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
        let endpoint = ConnectedEndpoint {
            network_name: "ch03".into(),
            network_id: "net".into(),
            endpoint_id: "e".into(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: String::new(),
            aliases: Vec::new(),
            dns_names: Vec::new(),
        };
        let told = translate("connect", &event, &endpoint, &["bridge-id".into()]);
        assert_eq!(
            (told.kind.as_str(), told.action.as_str()),
            ("network", "connect")
        );
        assert_eq!(told.actor.attributes["type"], "overlay");
        assert_eq!(told.actor.attributes["container"], "c");
        let told = translate("connect", &event, &endpoint, &["net".into()]);
        assert_eq!(told.actor.attributes["type"], "bridge");
    }
}
