//! What the host remembers of each container's network while it is up.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dataplane::desired::Interface;
use model::ContainerId;
use runtime::network::{ConnectRequest, Connected};
use serde::{Deserialize, Serialize};

/// One container's sandbox; written before the kernel is touched, so that after a kill at any
/// instruction the next start knows what may be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub request: ConnectRequest,
    pub connected: Connected,
    pub interfaces: Vec<Interface>,
    /// Cluster endpoints that were given for it.
    pub endpoints: Vec<GivenEndpoint>,
    /// Addresses of local networks that were given for it: network id, address.
    pub local: Vec<(String, IpAddr)>,
    /// Whether the container has been started, so that its names are answered.
    pub running: bool,
    /// The namespace is another's, and no container of ours is in it.
    #[serde(default)]
    pub guest: Option<Guest>,
}

/// Of a namespace that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Where its owner has it. Once another one is there, or none, it is not looked after any more.
    pub source: PathBuf,
    /// Its interface was made in the host's namespace, and its owner takes it into one of his;
    /// `source` is empty before he has said where that is.
    #[serde(default)]
    pub handed: bool,
    /// It has its way out by us.
    pub gateway: bool,
    /// Devices that were in it before, whose names are taken.
    pub taken: BTreeSet<String>,
    /// What those who attached it call their attachments, by the network as they wrote it.
    #[serde(default)]
    pub owners: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenEndpoint {
    pub endpoint: model::EndpointId,
    pub network: model::NetworkId,
    pub names: Vec<String>,
    /// A task's: the manager made it, says when it is in use, and takes it back.
    #[serde(default)]
    pub task: bool,
}

/// The folder of sandbox records; it lies where a reboot empties it.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    pub fn open(run_dir: &Path) -> std::io::Result<Self> {
        let directory = run_dir.join("sandboxes");
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.directory.join(format!("{container}.json"))
    }

    pub fn write(&self, record: &SandboxRecord) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(record)?;
        write_atomically(
            &self.path(&record.request.container),
            &bytes,
            Survives::DaemonDeath,
        )
    }

    pub fn remove(&self, container: &ContainerId) -> std::io::Result<()> {
        match std::fs::remove_file(self.path(container)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All readable records; a damaged one is reported and skipped, because one container's
    /// record must not keep the others from their networks.
    pub fn read_all(&self) -> std::io::Result<Vec<SandboxRecord>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match std::fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
                Ok(Ok(record)) => records.push(record),
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "sandbox record is damaged");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "sandbox record is unreadable");
                }
            }
        }
        Ok(records)
    }
}

/// What a written file must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// The daemon's death: the page cache is enough.
    DaemonDeath,
    /// Loss of power.
    PowerLoss,
}

/// Replaces `path` so that a reader sees the old or the new content, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8], survives: Survives) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    if survives == Survives::PowerLoss {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)
}
