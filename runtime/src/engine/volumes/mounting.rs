//! When a volume's file system is mounted: while a container that uses it is not at rest. What
//! is mounted is asked of the kernel each time, so an engine that was killed goes on where it was.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{ContainerId, Refusal};
use tokio::sync::OwnedMutexGuard;

use super::{
    device::{is_mounted, mount_once, unmount},
    options::FileSystem,
};
use crate::{
    engine::{Engine, VolumeView, container::Container, record::Record},
    oci::mountinfo,
};

/// How long somebody who stops a container waits for a file system whose server does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One change of a volume at a time.
#[derive(Default)]
pub(in crate::engine) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub async fn of(&self, volume: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock().expect("no panic under this lock");
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
            all.entry(volume.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

impl Engine {
    /// Mounts what the container's volumes ask for. Its record says already that it is starting:
    /// from then on nobody unmounts them.
    pub(in crate::engine) async fn mount_volumes(
        &self,
        container: &Container,
    ) -> Result<(), Refusal> {
        let names = volumes_of(&container.record());
        for name in names {
            let _turn = self.volumes.of(&name).await;
            // One whose folder is gone is told of by whoever looks for its content.
            let Some(view) = self.volume_read(&name) else {
                continue;
            };
            let Some(wish) = file_system(&view)? else {
                continue;
            };
            if wish.is_volatile() {
                self.refuse_a_second(&container.id, &view)?;
            }
            let place = self.mounted_place(&name);
            blocking(move || {
                if !is_mounted(&place)? && has_files(&view.mountpoint) {
                    tracing::warn!(
                        volume = view.name,
                        path = %place.display(),
                        "files in the volume's own folder are out of sight while its device is mounted"
                    );
                }
                mount_once(&view.name, &wish, &place)
            })
            .await?;
        }
        Ok(())
    }

    /// Unmounts what nobody uses any more. A failure is told in the log: the next end of a user,
    /// the volume's removal and the engine's next start try again.
    pub(in crate::engine) async fn release_volumes(&self, volumes: BTreeSet<String>) {
        for name in volumes {
            let this = self.arc();
            let released = self.tasks.spawn(async move { this.release(&name).await });
            let _ = tokio::time::timeout(PATIENCE, released).await;
        }
    }

    async fn release(&self, name: &str) {
        let _turn = self.volumes.of(name).await;
        let wish = self.volume_read(name).map(|view| file_system(&view));
        if !matches!(wish, Some(Ok(Some(_)))) || self.is_wanted(name) {
            return;
        }
        let place = self.mounted_place(name);
        let volume = name.to_owned();
        if let Err(refusal) = blocking(move || unmount(&volume, &place)).await {
            tracing::warn!(%refusal, "a volume that nobody uses");
        }
    }

    /// For the engine's start: releases what an earlier one left mounted.
    pub(in crate::engine) async fn release_left_volumes(&self) {
        let root = self.volumes_place();
        let places = match mountinfo::at_or_below(&root) {
            Ok(places) => places,
            Err(error) => {
                tracing::warn!(%error, "volumes of an earlier run may be mounted still");
                return;
            }
        };
        let names = places
            .iter()
            .filter_map(|place| {
                let below = place.strip_prefix(&root).ok()?;
                Some(below.iter().next()?.to_str()?.to_owned())
            })
            .collect();
        self.release_volumes(names).await;
    }

    /// A container that runs has the file system that was mounted when it started. One more
    /// tmpfs would be another, and two users of one volume would not see each other's files.
    fn refuse_a_second(&self, starting: &ContainerId, view: &VolumeView) -> Result<(), Refusal> {
        let holder = self.all().into_iter().find(|other| {
            other.id != *starting
                && other.running()
                && volumes_of(&other.record()).contains(&view.name)
        });
        let Some(holder) = holder else { return Ok(()) };
        if is_mounted(&self.mounted_place(&view.name))? {
            return Ok(());
        }
        Err(Refusal::conflict(format!(
            "volume {}: container {} has its file system, and {} is not mounted any more: it was \
             unmounted by hand, or ovnd got another mount namespace; stop that container first",
            view.name,
            holder.id.short(),
            view.mountpoint.display()
        )))
    }

    /// Whether a container that is not at rest has the volume.
    fn is_wanted(&self, volume: &str) -> bool {
        self.all().iter().any(|container| {
            let record = container.record();
            record.life.holds_volumes() && volumes_of(&record).contains(volume)
        })
    }

    /// `_data` as the kernel names it, without symbolic links on the way.
    pub(super) fn mounted_place(&self, volume: &str) -> PathBuf {
        self.volumes_place().join(volume).join("_data")
    }

    /// The folder of all volumes, as the kernel names it.
    pub(in crate::engine) fn volumes_place(&self) -> PathBuf {
        let named = self.config.root.join("volumes");
        named.canonicalize().unwrap_or(named)
    }
}

/// The names of the volumes that a container mounts.
pub(in crate::engine) fn volumes_of(record: &Record) -> BTreeSet<String> {
    let names = record.mounts.iter().filter_map(|point| point.volume());
    names.map(str::to_owned).collect()
}

fn file_system(view: &VolumeView) -> Result<Option<FileSystem>, Refusal> {
    FileSystem::of(&view.options).map_err(|refusal| Refusal {
        message: format!(
            "volume {}: {}; it was made when options were not looked at: remove it and create it \
             again",
            view.name, refusal.message
        ),
        ..refusal
    })
}

fn has_files(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut list| list.next().is_some())
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Refusal::internal(format!("the operation died: {error}"))))
}
