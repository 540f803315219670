//! What a member keeps on disk: its identity and its membership.
//!
//! `membership.json` is written last and deleted first: a folder without it is the remains of
//! an attempt, and is emptied.

use std::{
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use manager::{
    ca::Identity,
    unlock::{self, UnlockKey},
};
use model::{ClusterId, NodeId, node::Role};
use serde::{Deserialize, Serialize};

const MEMBERSHIP: &str = "membership.json";
const IDENTITY: &str = "identity.pem";
/// Stands between the chain and the roots that are trusted; text outside of PEM blocks is ignored.
const ROOTS: &str = "Trusted roots:\n";

/// Where and as what this node belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    pub(super) node_id: NodeId,
    pub(super) cluster_id: ClusterId,
    pub(super) role: Role,
    /// Where this node's manager listens, when it has one.
    pub(super) listen: Option<SocketAddr>,
    pub(super) advertise: IpAddr,
    /// It has been on an interface of this host.
    #[serde(default)]
    pub(super) seen: bool,
    /// Of the manager, where it is not the one it listens at.
    #[serde(default)]
    pub(super) advertise_port: Option<u16>,
    pub(super) data_path: IpAddr,
    /// The address this node joined by; tried after the advertised ones.
    pub(super) joined_by: Option<SocketAddr>,
    pub(super) managers: Vec<(NodeId, SocketAddr)>,
}

/// The folder `swarm`.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.join("swarm"))
    }

    /// Where the manager keeps its log.
    pub(super) fn manager(&self) -> PathBuf {
        self.0.join("manager")
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    /// What a locked manager's host goes on with.
    pub(super) fn open_ledger(&self) -> PathBuf {
        self.0.join("ledger.open")
    }

    /// Makes the folder, for its owner only.
    pub(super) fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.0)
    }

    /// The membership, if this node is a member; otherwise the folder is deleted.
    pub(super) fn load(&self) -> anyhow::Result<Option<(Membership, KeptIdentity)>> {
        let path = self.0.join(MEMBERSHIP);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.wipe()
                    .with_context(|| format!("cannot empty {}", self.0.display()))?;
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let way_out = || {
            format!(
                "delete the folder {} to leave the cluster",
                self.0.display()
            )
        };
        let mut membership: Membership = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; {}", path.display(), way_out()))?;
        let path = self.0.join(IDENTITY);
        let pem = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; {}", path.display(), way_out()))?;
        let identity = read_identity(&pem)
            .with_context(|| format!("{} is damaged; {}", path.display(), way_out()))?;
        // The certificate is written first when the role changes.
        membership.role = match &identity {
            KeptIdentity::Open(identity) => identity.member().role,
            KeptIdentity::Locked(_) => Role::Manager,
        };
        Ok(Some((membership, identity)))
    }

    /// With an unlock key the private key is sealed under it.
    pub(super) fn write_identity(
        &self,
        identity: &Identity,
        unlock_key: Option<&UnlockKey>,
    ) -> io::Result<()> {
        let line_end = |pem: &str| format!("{}\n", pem.trim_end());
        let key = match unlock_key {
            Some(unlock) => unlock.lock(identity.key_pem()).map_err(io::Error::other)?,
            None => identity.key_pem().to_owned(),
        };
        let [key, chain, roots] = [&key, identity.chain_pem(), identity.roots_pem()].map(line_end);
        let text = format!("{key}{chain}{ROOTS}{roots}");
        write_whole(&self.0.join(IDENTITY), text.as_bytes())
    }

    pub(super) fn write_membership(&self, membership: &Membership) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(membership)?;
        write_whole(&self.0.join(MEMBERSHIP), &text)
    }

    /// Deletes everything.
    pub(super) fn wipe(&self) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        gone(fs::remove_file(self.0.join(MEMBERSHIP)))?;
        gone(fs::remove_dir_all(&self.0))
    }
}

/// An identity as it lies on disk.
#[derive(Debug)]
pub(super) enum KeptIdentity {
    Open(Identity),
    Locked(LockedIdentity),
}

/// An identity whose private key is sealed under the cluster's unlock key.
#[derive(Debug)]
pub(super) struct LockedIdentity {
    locked_key: String,
    chain_pem: String,
    roots_pem: String,
}

impl LockedIdentity {
    pub(super) fn open(&self, key: &UnlockKey) -> anyhow::Result<Identity> {
        let key_pem = key.open(&self.locked_key)?;
        Ok(Identity::new(
            key_pem,
            self.chain_pem.clone(),
            &self.roots_pem,
        )?)
    }
}

/// Key, chain and roots follow each other. An older daemon wrote no line before the root, which
/// then is the last certificate.
fn read_identity(pem: &str) -> anyhow::Result<KeptIdentity> {
    let mut key = None;
    let mut certificates = Vec::new();
    let chain_end = pem.find(ROOTS);
    let mut in_chain = 0;
    let starts = pem.match_indices("-----BEGIN ").map(|(at, _)| at);
    let starts: Vec<usize> = starts.collect();
    for (n, start) in starts.iter().enumerate() {
        let block = &pem[*start..starts.get(n + 1).copied().unwrap_or(pem.len())];
        if block.starts_with("-----BEGIN CERTIFICATE-----") {
            let block = block.trim_end().trim_end_matches(ROOTS.trim_end());
            certificates.push(block.trim_end());
            in_chain += usize::from(chain_end.is_some_and(|end| *start < end));
        } else {
            key = Some(block);
        }
    }
    let key = key.context("it has no key")?;
    if chain_end.is_none() {
        in_chain = certificates.len().saturating_sub(1);
    }
    let (chain, roots) = certificates.split_at(in_chain);
    anyhow::ensure!(!chain.is_empty(), "it has no certificate of its own");
    anyhow::ensure!(!roots.is_empty(), "it has no root certificate");
    let (chain_pem, roots_pem) = (chain.join("\n"), roots.join("\n"));
    if unlock::is_locked(key) {
        return Ok(KeptIdentity::Locked(LockedIdentity {
            locked_key: key.to_owned(),
            chain_pem,
            roots_pem,
        }));
    }
    let identity = Identity::new(key.to_owned(), chain_pem, &roots_pem)?;
    Ok(KeptIdentity::Open(identity))
}

/// Writes a file for its owner only, so that after a crash it is the old or the new one.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use manager::ca::{Authority, Subject, certificate_request};
    use std::time::Duration;

    use super::*;

    fn identity() -> Identity {
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::create(now).expect("an authority");
        let (key, request) = certificate_request().expect("a request");
        let subject = Subject {
            node: "n1".into(),
            role: Role::Worker,
            cluster: "c1".into(),
        };
        let chain = authority
            .issue(&request, &subject, Duration::from_secs(3600), now)
            .expect("a certificate");
        Identity::new(key, chain, authority.root_pem()).expect("an identity")
    }

    #[test]
    fn a_membership_survives_and_remains_do_not() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        assert!(folder.load().expect("nothing yet").is_none());
        let membership = Membership {
            node_id: "n1".into(),
            cluster_id: "c1".into(),
            role: Role::Worker,
            listen: None,
            advertise: [10, 0, 0, 1].into(),
            seen: false,
            advertise_port: None,
            data_path: [10, 0, 0, 1].into(),
            joined_by: Some(([10, 0, 0, 2], 2377).into()),
            managers: vec![("m".into(), ([10, 0, 0, 2], 2377).into())],
        };
        let identity = identity();
        folder.make().expect("made");
        folder.write_identity(&identity, None).expect("written");
        folder.write_membership(&membership).expect("written");
        let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(folder.0.clone()), 0o700);
        assert_eq!(mode(folder.0.join(IDENTITY)), 0o600);
        let (read, again) = folder.load().expect("readable").expect("a member");
        assert_eq!(read, membership);
        let KeptIdentity::Open(again) = again else {
            panic!("locked");
        };
        assert_eq!(again.member(), identity.member());
        assert_eq!(again.key_pem().trim(), identity.key_pem().trim());
        assert_eq!(again.roots_pem(), identity.roots_pem());
        assert_eq!(again.tls_info(), identity.tls_info());

        // As an older daemon wrote it.
        let text = fs::read_to_string(folder.0.join(IDENTITY)).expect("there");
        fs::write(folder.0.join(IDENTITY), text.replace(ROOTS, "")).expect("written");
        let (_, old) = folder.load().expect("readable").expect("a member");
        let KeptIdentity::Open(old) = old else {
            panic!("locked");
        };
        assert_eq!(old.roots_pem(), identity.roots_pem());
        assert_eq!(old.chain_pem().trim(), identity.chain_pem().trim());

        // While the root is replaced: two that are trusted, and a certificate between.
        let other = Authority::create(time::OffsetDateTime::now_utc()).expect("an authority");
        let chain = format!("{}{}", identity.chain_pem(), other.root_pem());
        let roots = format!("{}{}", identity.roots_pem(), other.root_pem());
        let turning =
            Identity::new(identity.key_pem().to_owned(), chain, &roots).expect("an identity");
        folder.write_identity(&turning, None).expect("written");
        let (_, read) = folder.load().expect("readable").expect("a member");
        let KeptIdentity::Open(read) = read else {
            panic!("locked");
        };
        assert_eq!(read.roots_pem(), turning.roots_pem());
        assert_eq!(read.chain_pem().trim(), turning.chain_pem().trim());
        assert_eq!(read.tls_info(), identity.tls_info());

        let unlock = UnlockKey::generate().expect("random");
        folder
            .write_identity(&identity, Some(&unlock))
            .expect("written");
        let text = fs::read_to_string(folder.0.join(IDENTITY)).expect("there");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        let (_, locked) = folder.load().expect("readable").expect("a member");
        let KeptIdentity::Locked(locked) = locked else {
            panic!("not locked");
        };
        let opened = locked.open(&unlock).expect("its key");
        assert_eq!(opened.key_pem().trim(), identity.key_pem().trim());
        assert!(
            locked
                .open(&UnlockKey::generate().expect("random"))
                .is_err()
        );

        fs::remove_file(folder.0.join(MEMBERSHIP)).expect("removed");
        assert!(folder.load().expect("emptied").is_none());
        assert!(!folder.0.exists());
    }
}
