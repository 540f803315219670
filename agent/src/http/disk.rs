//! `/system/df`: what takes up the disk.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use api::timestamp;
use axum::{Router, extract::State, routing::get};
use runtime::{
    engine::{ContainerView, ListOptions, VolumeView},
    images::Image,
};
use serde::Serialize;

use super::{
    Answer, AppState, Asked, containers, json,
    volumes::{Shown, Usage},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/system/df", get(usage))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageUsage {
    id: String,
    parent_id: &'static str,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    created: i64,
    size: u64,
    shared_size: u64,
    containers: usize,
    labels: BTreeMap<String, String>,
}

async fn usage(State(state): State<AppState>, Asked(query): Asked) -> Answer {
    let wanted = |kind: &str| {
        let types = query.all("type");
        types.is_empty() || types.iter().any(|name| name == kind)
    };
    let everything = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    let views = state.engine.list(&everything)?;
    let mut answer = serde_json::json!({
        "LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": [],
    });
    if wanted("image") {
        let images = state.images.list();
        answer["LayersSize"] = images.iter().map(|image| image.size).sum::<u64>().into();
        answer["Images"] = value(
            &images
                .iter()
                .map(|image| of_image(image, &views))
                .collect::<Vec<_>>(),
        );
    }
    if wanted("container") {
        answer["Containers"] = value(&containers::summaries(&state, &everything, true).await?);
    }
    if wanted("volume") {
        let volumes = state.engine.volume_list(&BTreeMap::new())?;
        let counted: Vec<(VolumeView, usize)> = volumes
            .into_iter()
            .map(|volume| {
                let users = users(&volume.name, &views);
                (volume, users)
            })
            .collect();
        let shown = tokio::task::spawn_blocking(move || {
            counted
                .into_iter()
                .map(|(volume, users)| of_volume(volume, users))
                .collect::<Vec<_>>()
        })
        .await
        .unwrap_or_default();
        answer["Volumes"] = value(&shown);
    }
    Ok(json(&answer))
}

fn value<T: Serialize>(list: &T) -> serde_json::Value {
    serde_json::to_value(list).unwrap_or_default()
}

fn of_image(image: &Image, containers: &[ContainerView]) -> ImageUsage {
    ImageUsage {
        id: image.id.to_string(),
        parent_id: "",
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        created: timestamp::parse(&image.created).map_or(0, timestamp::seconds),
        size: image.size,
        shared_size: 0,
        containers: containers
            .iter()
            .filter(|view| view.uses_image(image.id.as_str()))
            .count(),
        labels: BTreeMap::new(),
    }
}

fn users(volume: &str, containers: &[ContainerView]) -> usize {
    containers
        .iter()
        .filter(|view| {
            view.mounts
                .iter()
                .any(|mount| mount.volume() == Some(volume))
        })
        .count()
}

fn of_volume(volume: VolumeView, ref_count: usize) -> Shown {
    // What a device or a server holds is not measured, as in Docker: it may take long.
    let plain = volume.options.is_empty();
    let size = plain
        .then(|| disk_usage(&volume.mountpoint))
        .flatten()
        .and_then(|bytes| i64::try_from(bytes).ok());
    let mut shown = Shown::from(volume);
    shown.usage_data = Some(Usage {
        size: size.unwrap_or(-1),
        ref_count,
    });
    shown
}

/// Bytes that the files below a folder take; links are not followed.
fn disk_usage(folder: &Path) -> Option<u64> {
    let mut total = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                open.push(entry.path());
            }
            total += metadata.blocks() * 512;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), vec![1; 10_000]).unwrap();
        assert!(disk_usage(folder.path()).unwrap() >= 10_000);
        assert_eq!(disk_usage(&folder.path().join("absent")), None);
    }
}
