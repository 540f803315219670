//! Mounts of a task's container.

use std::collections::BTreeMap;

use model::{
    Refusal,
    task::{BindOptions, ImageOptions, Mount, MountKind, TmpfsOptions, VolumeOptions},
};
use serde::{Deserialize, Serialize};

use super::template::DriverView;
use crate::{omit, word::Word};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountView {
    #[serde(rename = "Type", skip_serializing_if = "omit::empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub source: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub target: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub propagation: String,
    #[serde(skip_serializing_if = "omit::empty")]
    pub non_recursive: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub create_mountpoint: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub read_only_force_recursive: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub no_copy: bool,
    #[serde(skip_serializing_if = "omit::empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "omit::empty")]
    pub subpath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub subpath: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsView {
    #[serde(skip_serializing_if = "omit::empty")]
    pub size_bytes: i64,
    #[serde(skip_serializing_if = "omit::empty")]
    pub mode: u32,
    #[serde(skip_serializing_if = "omit::empty")]
    pub options: Vec<Vec<String>>,
}

impl MountView {
    pub(super) fn into_model(self) -> Result<Mount, Refusal> {
        let kind = MountKind::read("ContainerSpec.Mounts.Type", &self.kind)?;
        let target = &self.target;
        match kind {
            MountKind::Npipe => {
                return Err(Refusal::invalid(format!(
                    "mount {target}: type npipe belongs to Windows; use bind, volume or tmpfs"
                )));
            }
            MountKind::Cluster => {
                return Err(Refusal::not_implemented(format!(
                    "mount {target}: cluster volumes (CSI) are not there; use a volume of the host"
                )));
            }
            MountKind::Bind | MountKind::Volume | MountKind::Tmpfs | MountKind::Image => {}
        }
        Ok(Mount {
            kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            consistency: self.consistency,
            bind: self.bind_options.map(|options| BindOptions {
                propagation: options.propagation,
                non_recursive: options.non_recursive,
                create_mountpoint: options.create_mountpoint,
                read_only_non_recursive: options.read_only_non_recursive,
                read_only_force_recursive: options.read_only_force_recursive,
            }),
            volume: self.volume_options.map(|options| VolumeOptions {
                no_copy: options.no_copy,
                labels: options.labels,
                driver: options.driver_config.map(DriverView::into_model),
                subpath: options.subpath,
            }),
            image: self.image_options.map(|options| ImageOptions {
                subpath: options.subpath,
            }),
            tmpfs: self.tmpfs_options.map(|options| TmpfsOptions {
                size_bytes: options.size_bytes,
                mode: options.mode,
                options: options.options,
            }),
        })
    }
}

impl From<&Mount> for MountView {
    fn from(mount: &Mount) -> Self {
        Self {
            kind: mount.kind.word().to_owned(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            consistency: mount.consistency.clone(),
            bind_options: mount.bind.as_ref().map(|options| BindView {
                propagation: options.propagation.clone(),
                non_recursive: options.non_recursive,
                create_mountpoint: options.create_mountpoint,
                read_only_non_recursive: options.read_only_non_recursive,
                read_only_force_recursive: options.read_only_force_recursive,
            }),
            volume_options: mount.volume.as_ref().map(|options| VolumeView {
                no_copy: options.no_copy,
                labels: options.labels.clone(),
                subpath: options.subpath.clone(),
                driver_config: options.driver.as_ref().map(DriverView::from),
            }),
            image_options: mount.image.as_ref().map(|options| ImageView {
                subpath: options.subpath.clone(),
            }),
            tmpfs_options: mount.tmpfs.as_ref().map(|options| TmpfsView {
                size_bytes: options.size_bytes,
                mode: options.mode,
                options: options.options.clone(),
            }),
        }
    }
}
