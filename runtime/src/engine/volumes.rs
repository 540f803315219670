//! Local volumes: `volumes/NAME/_data` and `volumes/NAME/volume.json`. One with driver options
//! has a file system of its own at `_data` while it is used.

mod device;
mod mounting;
mod options;
mod removal;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use model::Refusal;

pub(super) use self::mounting::{Turns, volumes_of};
use self::{
    mounting::blocking,
    options::{FileSystem, Options, difference},
};
use super::{
    Engine, Pruned, VolumeView,
    listing::{label_matches, tree_size},
    now, random_id,
    record::{read_json, write_json},
};
use crate::oci::{OciError, mountinfo};

/// Marks a volume that has not been used yet: the image's content goes in at the first start.
const FRESH: &str = "fresh";

impl Engine {
    /// Absent name: an anonymous one. An existing one of that name is given back, unless other
    /// options are asked for than it has (409).
    pub async fn volume_create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: Options,
    ) -> Result<VolumeView, Refusal> {
        if let Some(name) = name {
            check_name(name)?;
        }
        FileSystem::of(&options).map_err(|refusal| Refusal {
            message: format!("create {}: {}", name.unwrap_or_default(), refusal.message),
            ..refusal
        })?;
        let anonymous = name.is_none();
        let name = name.map_or_else(|| random_id().to_string(), str::to_owned);
        let _turn = self.volumes.of(&name).await;
        if let Some(view) = self.volume_read(&name) {
            return match difference(&view.options, &options) {
                None => Ok(view),
                Some(words) => Err(Refusal::conflict(format!(
                    "create {name}: the volume exists with other driver options: {words}; use \
                     another name, leave the options out to take it as it is, or remove it first: \
                     ovnctl volume rm {name}"
                ))),
            };
        }
        let directory = self.volume_dir(&name);
        let mountpoint = directory.join("_data");
        fs::create_dir_all(&mountpoint)
            .and_then(|()| fs::write(directory.join(FRESH), ""))
            .map_err(|error| {
                Refusal::internal(format!("making {}: {error}", mountpoint.display()))
            })?;
        let view = VolumeView {
            name: name.clone(),
            driver: "local".into(),
            mountpoint,
            created_at: now(),
            labels,
            options,
            anonymous,
        };
        write_json(&directory.join("volume.json"), &view, true)?;
        self.tell_volume(&name, "create");
        Ok(view)
    }

    /// Filters `name`, `label`, `dangling`, `driver`.
    pub fn volume_list(
        &self,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<VolumeView>, Refusal> {
        let known = ["name", "label", "dangling", "driver"];
        if let Some(unknown) = filters.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Refusal::invalid(format!("invalid filter '{unknown}'")));
        }
        let mut list: Vec<VolumeView> = fs::read_dir(self.config.root.join("volumes"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| self.volume_read(&entry.file_name().to_string_lossy()))
            .filter(|view| {
                filters.iter().all(|(key, values)| match key.as_str() {
                    "name" => values
                        .iter()
                        .any(|value| view.name.contains(value.as_str())),
                    "label" => values
                        .iter()
                        .all(|value| label_matches(&view.labels, value)),
                    "driver" => values.contains(&view.driver),
                    _ => values.iter().any(|value| {
                        let dangling = matches!(value.as_str(), "true" | "1");
                        dangling == self.volume_users(&view.name).is_empty()
                    }),
                })
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    pub fn volume_inspect(&self, name: &str) -> Result<VolumeView, Refusal> {
        self.volume_read(name)
            .ok_or_else(|| Refusal::not_found(format!("get {name}: no such volume")))
    }

    /// In use: 409, with the users named. What is on a device or a server stays there.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), Refusal> {
        let _turn = self.volumes.of(name).await;
        let Some(view) = self.volume_read(name) else {
            return if force {
                Ok(())
            } else {
                Err(Refusal::not_found(format!("get {name}: no such volume")))
            };
        };
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(Refusal::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        let place = self.volumes_place().join(name);
        blocking(move || delete(&view, &place)).await?;
        self.tell_volume(name, "destroy");
        Ok(())
    }

    /// Unused anonymous volumes; with filter `all=true` named ones too.
    pub async fn volume_prune(
        &self,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Pruned, Refusal> {
        let mut filters = filters.clone();
        let all = filters.remove("all").is_some_and(|values| {
            values
                .iter()
                .any(|value| matches!(value.as_str(), "true" | "1"))
        });
        filters.insert("dangling".into(), vec!["true".into()]);
        let mut pruned = Pruned::default();
        for view in self.volume_list(&filters)? {
            if !(all || view.anonymous) {
                continue;
            }
            // What is on a device stays there.
            let size = if view.options.is_empty() {
                tree_size(&view.mountpoint)
            } else {
                0
            };
            if self.volume_remove(&view.name, false).await.is_ok() {
                pruned.reclaimed += size;
                pruned.deleted.push(view.name);
            }
        }
        Ok(pruned)
    }

    fn volume_users(&self, name: &str) -> Vec<String> {
        self.all()
            .iter()
            .filter(|container| {
                let record = container.record();
                record
                    .mounts
                    .iter()
                    .any(|point| point.volume() == Some(name))
            })
            .map(|container| container.id.to_string())
            .collect()
    }

    fn volume_dir(&self, name: &str) -> PathBuf {
        self.config.root.join("volumes").join(name)
    }

    fn volume_read(&self, name: &str) -> Option<VolumeView> {
        check_name(name).ok()?;
        read_json(&self.volume_dir(name).join("volume.json"))
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fine = name.len() > 1
        && name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if fine {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )))
}

/// Unmounts and deletes a volume that nobody uses.
fn delete(view: &VolumeView, place: &Path) -> Result<(), Refusal> {
    let data = place.join("_data");
    if !matches!(FileSystem::of(&view.options), Ok(None)) {
        device::unmount(&view.name, &data)?;
    }
    let left = mountinfo::at_or_below(place).map_err(|e| Refusal::internal(e.to_string()))?;
    if let Some(left) = left.first() {
        return Err(Refusal::conflict(format!(
            "remove {}: something is mounted at {}, whose files are not to be deleted; unmount it \
             first",
            view.name,
            left.display()
        )));
    }
    // Its record goes last: what is half removed is still a volume that can be removed.
    removal::remove_tree(&data)
        .and_then(|()| removal::remove_tree(place))
        .map_err(|error| Refusal::internal(format!("removing {}: {error}", place.display())))
}

/// Fills a volume that was never used. One whose content is gone with each unmount stays as it
/// is, for it would be filled the first time only.
pub(super) fn fill(
    mountpoint: &Path,
    no_copy: bool,
    copy: impl FnOnce(&Path) -> Result<(), OciError>,
) -> Result<(), OciError> {
    let Some(mark) = mountpoint.parent().map(|parent| parent.join(FRESH)) else {
        return Ok(());
    };
    if !mark.exists() {
        return Ok(());
    }
    let volume: Option<VolumeView> = read_json(&mark.with_file_name("volume.json"));
    let wish = volume.and_then(|volume| FileSystem::of(&volume.options).ok().flatten());
    if wish.is_some_and(|wish| wish.is_volatile()) {
        return Ok(());
    }
    let is_empty = fs::read_dir(mountpoint).is_ok_and(|mut list| list.next().is_none());
    if !no_copy && is_empty {
        copy(mountpoint)?;
    }
    let _ = fs::remove_file(mark);
    Ok(())
}
