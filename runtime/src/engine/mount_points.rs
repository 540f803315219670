//! A container's mounts at its creation: what of the host each one leads to.

use std::{collections::BTreeMap, path::PathBuf};

use model::Refusal;

use super::{
    ContainerSpec, Effective, Engine, MountKind, MountPoint, MountSpec, ResolvedImage,
    create::clean,
};
use crate::oci::part::check_subpath;

impl Engine {
    /// The images that a container mounts, by the words they were asked for with.
    pub(super) async fn mounted_images(
        &self,
        spec: &ContainerSpec,
    ) -> Result<BTreeMap<String, ResolvedImage>, Refusal> {
        let mut images = BTreeMap::new();
        for mount in &spec.host.mounts {
            if let MountKind::Image { image, .. } = &mount.kind
                && !images.contains_key(image)
            {
                let found = self.config.images.resolve(image).await;
                let found = found.map_err(|refusal| Refusal {
                    message: format!(
                        "{}, which is mounted at {}; pull it first: ovnctl pull {image}",
                        refusal.message, mount.target
                    ),
                    ..refusal
                })?;
                images.insert(image.clone(), found);
            }
        }
        Ok(images)
    }

    /// Volumes are made here, so that they exist as soon as the container does.
    pub(super) async fn mount_points(
        &self,
        spec: &ContainerSpec,
        effective: &Effective,
        images: &BTreeMap<String, ResolvedImage>,
    ) -> Result<Vec<MountPoint>, Refusal> {
        let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
        for mount in &spec.host.mounts {
            let target = clean(&mount.target);
            if points.contains_key(&target) {
                return Err(Refusal::invalid(format!("Duplicate mount point: {target}")));
            }
            let point = self.mount_point(mount, target.clone(), images).await?;
            points.insert(target, point);
        }
        for path in &effective.volumes {
            let target = clean(path);
            if points.contains_key(&target) {
                continue;
            }
            let mount = MountSpec {
                target: target.clone(),
                read_only: false,
                kind: MountKind::Volume {
                    name: None,
                    no_copy: false,
                    labels: BTreeMap::new(),
                    options: BTreeMap::new(),
                    subpath: String::new(),
                },
            };
            let point = self.mount_point(&mount, target.clone(), images).await?;
            points.insert(target, point);
        }
        Ok(points.into_values().collect())
    }

    async fn mount_point(
        &self,
        mount: &MountSpec,
        target: String,
        images: &BTreeMap<String, ResolvedImage>,
    ) -> Result<MountPoint, Refusal> {
        let plain = MountPoint {
            kind: String::new(),
            name: None,
            source: PathBuf::new(),
            destination: target,
            driver: String::new(),
            mode: if mount.read_only { "ro" } else { "" }.to_owned(),
            writable: !mount.read_only,
            propagation: String::new(),
            anonymous: false,
            layers: Vec::new(),
        };
        Ok(match &mount.kind {
            MountKind::Bind {
                source,
                create_source,
                propagation,
                ..
            } => {
                let path = PathBuf::from(source);
                if !path.is_absolute() {
                    return Err(Refusal::invalid(format!(
                        "invalid mount path: '{source}' mount path must be absolute"
                    )));
                }
                if !path.exists() && !create_source {
                    return Err(Refusal::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                    )));
                }
                MountPoint {
                    kind: "bind".into(),
                    source: path,
                    propagation: if propagation.is_empty() {
                        "rprivate".into()
                    } else {
                        propagation.clone()
                    },
                    ..plain
                }
            }
            MountKind::Volume {
                name,
                labels,
                options,
                ..
            } => {
                let volume = self
                    .volume_create(name.as_deref(), labels.clone(), options.clone())
                    .await?;
                MountPoint {
                    kind: "volume".into(),
                    anonymous: name.is_none(),
                    name: Some(volume.name),
                    source: volume.mountpoint,
                    driver: "local".into(),
                    mode: if mount.read_only {
                        plain.mode
                    } else {
                        "z".into()
                    },
                    ..plain
                }
            }
            MountKind::Image { image, .. } => {
                let found = images
                    .get(image)
                    .ok_or_else(|| Refusal::not_found(format!("No such image: {image}")))?;
                MountPoint {
                    kind: "image".into(),
                    name: Some(image.clone()),
                    source: found.id.clone().into(),
                    writable: false,
                    layers: found.layers.clone(),
                    ..plain
                }
            }
            MountKind::Tmpfs { .. } => MountPoint {
                kind: "tmpfs".into(),
                ..plain
            },
        })
    }
}

/// What is wrong with the mounts by themselves.
pub(super) fn check(mounts: &[MountSpec]) -> Result<(), Refusal> {
    for mount in mounts {
        let target = &mount.target;
        if !target.starts_with('/') {
            return Err(Refusal::invalid(format!(
                "invalid mount path: '{target}' mount path must be absolute"
            )));
        }
        if clean(target) == "/" {
            return Err(Refusal::invalid(
                "invalid specification: destination can't be '/'",
            ));
        }
        match &mount.kind {
            MountKind::Volume { name, subpath, .. } => {
                check_subpath(subpath)?;
                if name.is_none() && !subpath.is_empty() {
                    return Err(Refusal::invalid(format!(
                        "mount {target}: an anonymous volume is empty and has no subpath {subpath:?}; name a volume"
                    )));
                }
            }
            MountKind::Image { image, subpath } => {
                check_subpath(subpath)?;
                if image.is_empty() {
                    return Err(Refusal::invalid(format!(
                        "mount {target}: the source of a mount of type image is the image; give it a name such as busybox:latest"
                    )));
                }
            }
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_builds_have_stored_is_read() {
        let mount = r#"{"target":"/v","read_only":true,"kind":{"volume":{"name":"data"}}}"#;
        let mount: MountSpec = serde_json::from_str(mount).unwrap();
        let MountKind::Volume {
            options, subpath, ..
        } = mount.kind
        else {
            panic!("no volume");
        };
        assert!(options.is_empty() && subpath.is_empty());
        let point = r#"{"kind":"volume","name":"data","source":"/x/_data","destination":"/v",
            "driver":"local","mode":"z","writable":true,"propagation":""}"#;
        let point: MountPoint = serde_json::from_str(point).unwrap();
        assert_eq!((point.volume(), point.image()), (Some("data"), None));
        assert!(point.layers.is_empty());
    }

    #[test]
    fn mounts_that_contradict_themselves() {
        let volume = |name: Option<&str>, subpath: &str| MountKind::Volume {
            name: name.map(Into::into),
            no_copy: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: subpath.into(),
        };
        let image = |image: &str, subpath: &str| MountKind::Image {
            image: image.into(),
            subpath: subpath.into(),
        };
        for (target, kind, words) in [
            ("/x", volume(Some("a"), "b/c"), ""),
            ("/x", image("a", "b"), ""),
            ("x", volume(None, ""), "absolute"),
            ("/..", volume(None, ""), "can't be '/'"),
            ("/x", volume(None, "a"), "anonymous"),
            ("/x", volume(Some("a"), "/b"), "stays inside"),
            ("/x", image("a", "../b"), "stays inside"),
            ("/x", image("", ""), "busybox"),
        ] {
            let mount = MountSpec {
                target: target.into(),
                read_only: false,
                kind,
            };
            let refusal = check(&[mount]).map_err(|refusal| refusal.message).err();
            let refusal = refusal.unwrap_or_default();
            assert!(
                refusal.contains(words) && refusal.is_empty() == words.is_empty(),
                "{words}: {refusal}"
            );
        }
    }
}
