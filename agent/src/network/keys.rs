//! This host's keys for encrypted networks: one for each generation that the cluster asks for.
//!
//! They lie below the run folder, which is memory and ends with the boot, like the tunnels
//! themselves: a boot begins with new keys, and no disk has ever had one.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use dataplane::{
    desired::{OwnKey, Tunnels},
    kernel::WireguardBy,
    wireguard::{PrivateKey, PublicKey},
};
use model::{
    Refusal,
    encryption::{Encryptor, HostEncryption, KeyPhase, TunnelKey},
};

const PREFIX: &str = "key-";

pub struct HostKeys {
    folder: PathBuf,
    port: u16,
    by: Encryptor,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    keys: BTreeMap<u64, PublicKey>,
    sending: u64,
    /// What the kernel has reached.
    receives: u64,
    sends: u64,
    trouble: Option<String>,
}

impl HostKeys {
    /// Takes up the keys that an earlier daemon has left, or begins with the first generation.
    pub fn open(run_dir: &Path, port: u16, by: Result<WireguardBy, String>) -> io::Result<Self> {
        let keys = Self {
            folder: run_dir.join("wireguard"),
            port,
            by: match by {
                Ok(WireguardBy::Kernel) => Encryptor::Kernel,
                Ok(WireguardBy::Process) => Encryptor::Process,
                Err(why) => Encryptor::Nothing(why),
            },
            inner: Mutex::default(),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&keys.folder)?;
        let mut inner = keys.lock();
        for entry in fs::read_dir(&keys.folder)? {
            let path = entry?.path();
            if let Some(generation) = generation_of(&path)
                && let Ok(key) = PrivateKey::read(&path)
            {
                inner.keys.insert(generation, key.public());
            }
        }
        if inner.keys.is_empty() {
            keys.make(&mut inner, 0)?;
        }
        drop(inner);
        Ok(keys)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Keys come and go as wholes; none is left half made by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{generation}"))
    }

    /// Written whole before it is known to anybody.
    fn make(&self, inner: &mut Inner, generation: u64) -> io::Result<()> {
        let key = PrivateKey::generate()?;
        let (path, new) = (self.file(generation), self.folder.join("new"));
        let _ = fs::remove_file(&new);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(key.to_text().as_bytes())?;
        fs::rename(&new, &path)?;
        inner.keys.insert(generation, key.public());
        Ok(())
    }

    /// Has the keys that the cluster asks for, and no others; answers whether there are others
    /// than before.
    pub fn follow(&self, phase: &KeyPhase) -> bool {
        let mut inner = self.lock();
        let before = inner.keys.clone();
        let asked = phase.oldest..=phase.newest;
        for generation in asked.clone() {
            if !inner.keys.contains_key(&generation)
                && let Err(error) = self.make(&mut inner, generation)
            {
                tracing::error!(generation, %error, "a key for encrypted networks cannot be made");
            }
        }
        let gone: Vec<u64> = inner
            .keys
            .keys()
            .copied()
            .filter(|generation| !asked.contains(generation))
            .collect();
        for generation in gone {
            inner.keys.remove(&generation);
            if let Err(error) = fs::remove_file(self.file(generation)) {
                tracing::warn!(generation, %error, "a key of the past cannot be removed");
            }
        }
        inner.sending = phase.sending;
        inner.keys != before
    }

    /// Notes what the kernel has reached; answers whether that is news.
    pub fn reached(&self, receives: u64, sends: u64) -> bool {
        let mut inner = self.lock();
        let news = (inner.receives, inner.sends) != (receives, sends);
        (inner.receives, inner.sends) = (receives, sends);
        news
    }

    /// Notes what is in the way of the tunnels; answers whether that is news.
    pub fn note_trouble(&self, trouble: Option<String>) -> bool {
        let mut inner = self.lock();
        let news = inner.trouble != trouble;
        inner.trouble = trouble;
        news
    }

    /// Refused on a host that cannot encrypt: its container would reach nobody.
    pub fn check(&self, network: &str) -> Result<(), Refusal> {
        match &self.by {
            Encryptor::Nothing(why) => Err(Refusal::conflict(format!(
                "network {network} is encrypted, and this host cannot encrypt: {why}"
            ))),
            Encryptor::Kernel | Encryptor::Process => Ok(()),
        }
    }

    /// For the dataplane.
    pub fn tunnels(&self) -> Tunnels {
        let inner = self.lock();
        let keys = inner.keys.iter().map(|(generation, public)| {
            let key = OwnKey {
                public: *public,
                file: self.file(*generation),
                port: self.port_of(*generation),
            };
            (*generation, key)
        });
        Tunnels {
            keys: keys.collect(),
            sending: inner.sending,
        }
    }

    /// Two generations can be side by side.
    fn port_of(&self, generation: u64) -> u16 {
        self.port.saturating_add((generation % 2) as u16)
    }

    /// For the cluster.
    pub fn described(&self) -> HostEncryption {
        let inner = self.lock();
        let keys = inner.keys.iter().map(|(generation, public)| TunnelKey {
            generation: *generation,
            public: public.0,
            port: self.port_of(*generation),
        });
        HostEncryption {
            by: self.by.clone(),
            keys: keys.collect(),
            receives: inner.receives,
            sends: inner.sends,
            trouble: inner.trouble.clone(),
        }
    }
}

fn generation_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn generations(keys: &HostKeys) -> Vec<u64> {
        let described = keys.described();
        described.keys.iter().map(|key| key.generation).collect()
    }

    fn phase(oldest: u64, newest: u64) -> KeyPhase {
        KeyPhase {
            newest,
            sending: oldest,
            oldest,
            since: 0,
        }
    }

    #[test]
    fn keys_follow_the_cluster_and_outlive_the_daemon() {
        let run = tempfile::tempdir().unwrap();
        let open = || HostKeys::open(run.path(), 51820, Ok(WireguardBy::Process)).unwrap();
        let keys = open();
        assert_eq!(generations(&keys), [0]);
        assert!(!keys.follow(&phase(0, 0)));
        assert!(keys.follow(&phase(0, 1)));
        assert_eq!(generations(&keys), [0, 1]);
        let before = keys.described();
        assert_eq!(before.keys[1].port, 51821);
        assert_eq!(open().described().keys, before.keys);
        assert!(keys.follow(&phase(1, 1)));
        assert_eq!(keys.described().keys, [before.keys[1].clone()]);
        assert_eq!(generations(&open()), [1]);
        // Into another cluster.
        assert!(keys.follow(&phase(7, 7)));
        assert_eq!(generations(&keys), [7]);
    }

    #[test]
    fn a_private_key_is_its_owners_alone() {
        let run = tempfile::tempdir().unwrap();
        let keys = HostKeys::open(run.path(), 51820, Ok(WireguardBy::Kernel)).unwrap();
        let tunnels = keys.tunnels();
        let key = &tunnels.keys[&0];
        let mode = fs::metadata(&key.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = fs::metadata(run.path().join("wireguard")).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        let private = PrivateKey::read(&key.file).unwrap();
        assert_eq!(private.public(), key.public);
        let shown = serde_json::to_string(&tunnels).unwrap();
        assert!(!shown.contains(private.to_text().trim()), "{shown}");
        assert!(keys.check("secret").is_ok());
        let other = tempfile::tempdir().unwrap();
        let none = HostKeys::open(other.path(), 51820, Err("no module tun".into())).unwrap();
        let refused = none.check("secret").unwrap_err();
        assert!(refused.message.contains("no module tun"), "{refused}");
        assert!(keys.reached(0, 1));
        assert!(!keys.reached(0, 1));
        let taken = Some("UDP port 51820 is taken".to_owned());
        assert!(keys.note_trouble(taken.clone()) && !keys.note_trouble(taken.clone()));
        assert_eq!(keys.described().trouble, taken);
    }
}
