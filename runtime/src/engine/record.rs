//! What is on disk of a container: `containers/ID/record.json`, replaced whole.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use model::{ContainerId, Refusal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    ContainerSpec, ContainerView, Effective, HealthView, MountPoint, StateView, Status,
    machine::{Life, Phase},
};
use crate::{network::Connected, oci::ProcessId};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: ContainerId,
    pub name: String,
    pub created_at: i64,
    pub spec: ContainerSpec,
    pub image_id: String,
    /// The bottom one first.
    pub layers: Vec<PathBuf>,
    pub effective: Effective,
    pub mounts: Vec<MountPoint>,
    pub life: Life,
    pub error: String,
    pub oom_killed: bool,
    pub network: Connected,
    /// The container's first process.
    pub process: Option<ProcessId>,
    pub monitor: Option<ProcessId>,
    /// The kernel's boot in which these processes are.
    pub boot: String,
    pub health: Option<HealthView>,
}

impl Record {
    /// Those of its image and of the images it mounts.
    pub fn all_layers(&self) -> Vec<PathBuf> {
        let mounted = self.mounts.iter().flat_map(|point| &point.layers);
        self.layers.iter().chain(mounted).cloned().collect()
    }

    pub fn view(&self, directory: &Path, execs: Vec<String>) -> ContainerView {
        let alive = matches!(self.life.phase, Phase::Running | Phase::Paused);
        ContainerView {
            id: self.id.clone(),
            name: self.name.clone(),
            created_at: self.created_at,
            spec: self.spec.clone(),
            image_id: self.image_id.clone(),
            effective: self.effective.clone(),
            state: StateView {
                status: status(self.life.phase),
                paused: self.life.phase == Phase::Paused,
                restarting: self.life.phase == Phase::Restarting,
                oom_killed: self.oom_killed,
                dead: false,
                pid: self
                    .process
                    .filter(|_| alive)
                    .map_or(0, |process| process.pid),
                exit_code: if alive { 0 } else { self.life.exit_code },
                error: self.error.clone(),
                started_at: self.life.started_at,
                finished_at: self.life.finished_at,
                health: self.health.clone(),
            },
            restart_count: self.life.restart_count,
            mounts: self.mounts.clone(),
            network: self.network.clone(),
            exec_ids: execs,
            log_path: directory.join("container.log"),
            resolv_conf_path: directory.join("resolv.conf"),
            hostname_path: directory.join("hostname"),
            hosts_path: directory.join("hosts"),
            upper_dir: directory.join("upper"),
            lower_dirs: self.layers.iter().rev().cloned().collect(),
        }
    }
}

pub(super) fn status(phase: Phase) -> Status {
    match phase {
        Phase::Created => Status::Created,
        Phase::Running => Status::Running,
        Phase::Paused => Status::Paused,
        Phase::Restarting => Status::Restarting,
        Phase::Exited => Status::Exited,
        Phase::Removing => Status::Removing,
    }
}

/// Writes a whole file in one step. `durable` also survives a power cut from now on; without
/// it one of the two versions does.
pub(super) fn write_json(
    path: &Path,
    value: &impl Serialize,
    durable: bool,
) -> Result<(), Refusal> {
    let failed =
        |error: std::io::Error| Refusal::internal(format!("writing {}: {error}", path.display()));
    let text = serde_json::to_vec(value)
        .map_err(|error| Refusal::internal(format!("encoding {}: {error}", path.display())))?;
    let half = path.with_extension("new");
    let mut file = File::create(&half).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    if durable {
        file.sync_data().map_err(failed)?;
    }
    fs::rename(&half, path).map_err(failed)
}

/// Absent when it is not there or not readable as one.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a record is not readable and is left alone");
            None
        }
    }
}
