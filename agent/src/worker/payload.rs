//! Secrets and configs as files: in a tmpfs of this host, never on disk, one folder a task.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    path::{Component, Path, PathBuf},
};

use model::{
    Payload, PayloadKind, Refusal, SecretId, Task, TaskId,
    task::{FileTarget, PayloadReference},
};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{TMPFS_MAGIC, statfs},
};

use super::template::Values;

/// A file or folder that is bound into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Laid {
    pub source: PathBuf,
    /// Absolute, in the container.
    pub target: String,
}

/// Where secrets without an absolute target go.
const SECRETS: &str = "/run/secrets";

/// The folder of all tasks' files.
#[derive(Debug, Clone)]
pub(super) struct Payloads {
    directory: PathBuf,
}

impl Payloads {
    /// Makes the folder; where the run directory lies on a disk, a tmpfs is mounted on it.
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        let directory = run_dir.join("payloads");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let kind = statfs(&directory)
            .map_err(io::Error::from)?
            .filesystem_type();
        if kind != TMPFS_MAGIC {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(
                Some("tmpfs"),
                &directory,
                Some("tmpfs"),
                flags,
                Some("mode=0700"),
            )
            .map_err(io::Error::from)?;
        }
        Ok(Self { directory })
    }

    fn of(&self, task: &TaskId) -> PathBuf {
        self.directory.join(task.as_str())
    }

    /// Writes the files of a task, again at each start: a reboot has emptied the tmpfs.
    pub(super) fn lay(
        &self,
        task: &Task,
        payloads: &BTreeMap<SecretId, Payload>,
        values: &Values,
    ) -> Result<Vec<Laid>, Refusal> {
        let files = files(task, payloads, values)?;
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let directory = self.of(&task.id);
        self.write(&directory, &files).map_err(|error| {
            Refusal::internal(format!(
                "the secrets and configs of task {} cannot be written: {error}",
                task.name()
            ))
        })?;
        Ok(mounts(&directory, &files))
    }

    fn write(&self, directory: &Path, files: &[File]) -> io::Result<()> {
        for file in files {
            let path = directory.join(&file.place);
            if let Some(folder) = path.parent() {
                // Only root reaches it by this path; the container's users do by theirs.
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(folder)?;
            }
            let fresh = path.with_extension("overnet-new");
            fs::write(&fresh, &file.content)?;
            chown(&fresh, Some(file.uid), Some(file.gid))?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(file.mode))?;
            fs::rename(&fresh, &path)?;
        }
        Ok(())
    }

    /// Deletes a task's files; unknown tasks are fine.
    pub(super) fn remove(&self, task: &TaskId) {
        let _ = fs::remove_dir_all(self.of(task));
    }

    /// Deletes the files of all other tasks.
    pub(super) fn keep_only(&self, known: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if !known(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The names of what a task is to be given and this host has not got.
pub(super) fn missing(task: &Task, payloads: &BTreeMap<SecretId, Payload>) -> Vec<String> {
    let spec = &task.spec.container;
    let of = |kind: PayloadKind, list: &[PayloadReference]| {
        list.iter()
            .filter(|reference| !payloads.contains_key(&reference.id))
            .map(|reference| format!("{} {}", kind.as_str(), reference.name))
            .collect::<Vec<_>>()
    };
    let mut missing = of(PayloadKind::Secret, &spec.secrets);
    missing.extend(of(PayloadKind::Config, &spec.configs));
    missing
}

#[derive(Debug, PartialEq, Eq)]
struct File {
    /// Below the task's folder.
    place: PathBuf,
    target: String,
    /// Bound together with the others of its folder.
    in_secrets: bool,
    content: Vec<u8>,
    uid: u32,
    gid: u32,
    mode: u32,
}

fn files(
    task: &Task,
    payloads: &BTreeMap<SecretId, Payload>,
    values: &Values,
) -> Result<Vec<File>, Refusal> {
    let spec = &task.spec.container;
    let mut functions = BTreeMap::new();
    for (kind, list) in [("secret", &spec.secrets), ("config", &spec.configs)] {
        for reference in list {
            if let Some(payload) = payloads.get(&reference.id) {
                let named = reference.file.as_ref().map(|file| file.name.clone());
                for name in named.into_iter().chain([reference.name.clone()]) {
                    functions.insert((kind, name), payload.spec.data.0.clone());
                }
            }
        }
    }
    for variable in &spec.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let value = values.expand("an environment variable", value)?;
        functions.insert(("env", name.to_owned()), value.into_bytes());
    }
    let values = values.with_functions(functions);
    let mut files = Vec::new();
    for (kind, list) in [
        (PayloadKind::Secret, &spec.secrets),
        (PayloadKind::Config, &spec.configs),
    ] {
        for reference in list {
            let (Some(payload), Some(target)) = (payloads.get(&reference.id), &reference.file)
            else {
                continue;
            };
            files.push(file(kind, payload, target, &values, files.len())?);
        }
    }
    Ok(files)
}

fn file(
    kind: PayloadKind,
    payload: &Payload,
    target: &FileTarget,
    values: &Values,
    number: usize,
) -> Result<File, Refusal> {
    let what = format!("{} {}", kind.as_str(), payload.spec.name);
    let relative = Path::new(&target.name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    if target.name.is_empty() || !relative.components().all(plain) {
        return Err(Refusal::invalid(format!(
            "the target {:?} of {what} is no path of a file; leave out `..`",
            target.name
        )));
    }
    let id = |text: &str| {
        if text.is_empty() {
            return Ok(0);
        }
        text.parse::<u32>().map_err(|_| {
            Refusal::invalid(format!(
                "the owner {text:?} of {what} is no number; give uid and gid as numbers"
            ))
        })
    };
    let content = match &payload.spec.templating {
        Some(driver) if driver.name == "golang" => {
            values.expand_bytes(&what, &payload.spec.data.0)?
        }
        Some(driver) if !driver.name.is_empty() => {
            return Err(Refusal::invalid(format!(
                "template driver {:?} of {what} is not there; only \"golang\" is",
                driver.name
            )));
        }
        _ => payload.spec.data.0.clone(),
    };
    let in_secrets = kind == PayloadKind::Secret && !relative.is_absolute();
    let absolute = if relative.is_absolute() {
        target.name.clone()
    } else if in_secrets {
        format!("{SECRETS}/{}", target.name)
    } else {
        format!("/{}", target.name)
    };
    Ok(File {
        place: if in_secrets {
            Path::new("secrets").join(relative)
        } else {
            PathBuf::from(number.to_string())
        },
        target: absolute,
        in_secrets,
        content,
        uid: id(&target.uid)?,
        gid: id(&target.gid)?,
        mode: target.mode & 0o7777,
    })
}

/// One bind for `/run/secrets`, one for each other file.
fn mounts(directory: &Path, files: &[File]) -> Vec<Laid> {
    let mut mounts = Vec::new();
    if files.iter().any(|file| file.in_secrets) {
        mounts.push(Laid {
            source: directory.join("secrets"),
            target: SECRETS.to_owned(),
        });
    }
    mounts.extend(
        files
            .iter()
            .filter(|file| !file.in_secrets)
            .map(|file| Laid {
                source: directory.join(&file.place),
                target: file.target.clone(),
            }),
    );
    mounts
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
