//! The image store as the container engine sees it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use model::Refusal;
use runtime::{
    engine::{Healthcheck, ImageDefaults, Images, ResolvedImage},
    images::ImageStore,
};
use serde::Deserialize;

/// Gives the engine what it needs of an image: layers and defaults.
#[derive(Clone)]
pub struct ImageSource(pub ImageStore);

impl Images for ImageSource {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ResolvedImage, Refusal>> {
        Box::pin(async move {
            let image = self.0.resolve(reference)?;
            Ok(ResolvedImage {
                id: image.id.to_string(),
                layers: image.layers,
                defaults: defaults(&image.raw_config).map_err(|error| {
                    Refusal::internal(format!(
                        "the configuration of image {reference} is not understood: {error}"
                    ))
                })?,
            })
        })
    }
}

/// The part of an image configuration that concerns running; read from the bytes themselves,
/// because Docker's `Healthcheck` is not in the OCI type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Configuration {
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Health>,
}

/// Times are nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Health {
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

fn defaults(raw: &[u8]) -> serde_json::Result<ImageDefaults> {
    let config = serde_json::from_slice::<Configuration>(raw)?.config.unwrap_or_default();
    Ok(ImageDefaults {
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: config.volumes.unwrap_or_default().into_keys().collect(),
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        health: config.healthcheck.map(|health| Healthcheck {
            test: health.test,
            interval: Duration::from_nanos(health.interval),
            timeout: Duration::from_nanos(health.timeout),
            start_period: Duration::from_nanos(health.start_period),
            start_interval: Duration::from_nanos(health.start_interval),
            retries: health.retries,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_absent_parts_are_fine() {
        for raw in [
            r#"{"architecture":"amd64"}"#,
            r#"{"config":null}"#,
            r#"{"config":{"Cmd":null,"Volumes":null,"StopSignal":""}}"#,
        ] {
            assert_eq!(defaults(raw.as_bytes()).unwrap(), ImageDefaults::default(), "{raw}");
        }
    }

    #[test]
    fn the_running_part_is_read() {
        let raw = r#"{"config":{"Cmd":["/echo"],"Env":["A=1"],"ExposedPorts":{"8080/tcp":{}},
            "Healthcheck":{"Test":["CMD","/ok"],"Interval":1000000000,"Retries":2}}}"#;
        let defaults = defaults(raw.as_bytes()).unwrap();
        assert_eq!(defaults.command, ["/echo"]);
        assert_eq!(defaults.exposed_ports, ["8080/tcp"]);
        let health = defaults.health.unwrap();
        assert_eq!((health.interval, health.retries), (Duration::from_secs(1), 2));
    }
}
