//! What a lab remembers between two runs of the program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Member, process::Process};

/// The content of `lab.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Name of the lab's control groups: follows from the folder, so that `down` finds them
    /// without this file too.
    pub id: String,
    pub mtu: u32,
    pub members: Vec<Member>,
    /// Flags that every ovnd gets after the lab's own.
    pub daemon_args: Vec<String>,
    /// `NAME=value` for every ovnd.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Whether the daemons are to be started.
    pub daemons: bool,
    /// The ovnd that hosts begin with, where it may be exchanged.
    #[serde(default)]
    pub daemon: Option<PathBuf>,
    /// Compose files, shown as /stack on managers.
    pub stack: PathBuf,
}

/// The name that a lab's folder gives it.
pub fn id_of(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    format!("ovn-lab-{}", hex::encode(&digest[..4]))
}

/// The folder as an absolute path; parts that do not exist yet stay as they are.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).with_context(|| format!("no such place: {}", dir.display()))
}

impl State {
    pub fn file(dir: &Path) -> PathBuf {
        dir.join("lab.json")
    }

    pub fn load(dir: &Path) -> Result<Self> {
        let file = Self::file(dir);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!(
                    "there is no lab in {}: bring one up with `lab up`",
                    dir.display()
                )
            }
            Err(error) => bail!("cannot read {}: {error}", file.display()),
        };
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("cannot write the lab's state")?;
        let file = Self::file(dir);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Held by whoever brings the lab up or down.
pub fn lock(dir: &Path) -> Result<Flock<fs::File>> {
    let file = fs::File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::anyhow!("another `lab` is at work in {}: {error}", dir.display())
    })
}

/// Where the first process of `host` is recorded.
pub fn init_file(dir: &Path, host: &str) -> PathBuf {
    dir.join(host).join("init")
}

/// The first process of `host`, if the host is up.
pub fn init_of(dir: &Path, host: &str) -> Option<Process> {
    Process::recorded(&init_file(dir, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_a_name_of_its_own() {
        assert_eq!(id_of(Path::new("/a")), id_of(Path::new("/a")));
        assert_ne!(id_of(Path::new("/a")), id_of(Path::new("/b")));
    }
}
