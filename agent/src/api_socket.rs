//! The API socket that containers get: which one a container sees that mounts Docker's, and how
//! ours outlives the daemon.
//!
//! A mount holds on to the socket that was there when it was made. Were ours made anew at each
//! start, every container that has it would knock at a dead one from then on; so it lies with
//! the service manager between two lives of the daemon, and what containers ask meanwhile waits.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::FileTypeExt,
            net::{SocketAddr, UnixListener as StdListener},
        },
    },
    path::{Path, PathBuf},
};

use dataplane::dns::FdKeeper;
use tokio::net::UnixListener;

use crate::http;

/// Label of a service or container: `true` gives it our API socket where it mounts Docker's,
/// also where the host has Docker's.
pub const LABEL: &str = "overnet.api-socket";
/// Where Docker's API socket is, by its two paths.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// The socket's name with the service manager.
const KEPT_AS: &str = "api.containers";

/// What a host's settings say.
#[derive(Debug, Clone, Default)]
pub struct ApiSocket {
    /// Ours; absent: containers get what the host has.
    pub path: Option<PathBuf>,
    /// Ours also where the host has Docker's.
    pub always: bool,
}

impl ApiSocket {
    /// What they come to now.
    pub fn here(&self) -> Here {
        let is_socket =
            |path: &str| std::fs::metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
        Here {
            ours: self.path.clone(),
            docker: !self.always && is_socket(DOCKER_SOCKETS[0]),
        }
    }
}

/// The sockets there are on this host.
#[derive(Debug, Clone, Default)]
pub struct Here {
    pub ours: Option<PathBuf>,
    /// Whether Docker's is there, and preferred.
    pub docker: bool,
}

impl Here {
    /// The source of a bind mount: ours in place of Docker's where the host has no Docker, or
    /// where the container's or its service's label asks for ours. Absent: what was given.
    pub fn in_place_of(&self, source: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        let asked = labels.get(LABEL).is_some_and(|value| value == "true");
        self.ours
            .as_ref()
            .filter(|_| DOCKER_SOCKETS.contains(&source) && (asked || !self.docker))
            .map(|path| path.display().to_string())
    }
}

/// Takes the socket of the daemon's life before from what the service manager has kept.
pub fn take_kept(inherited: &mut Vec<(String, OwnedFd)>) -> Option<OwnedFd> {
    let at = inherited.iter().position(|(name, _)| name == KEPT_AS)?;
    Some(inherited.remove(at).1)
}

/// The listening socket at `path`: the kept one where it stands there, else a new one, which is
/// given to the service manager.
pub fn listen(
    path: &Path,
    kept: Option<OwnedFd>,
    keeper: &dyn FdKeeper,
) -> io::Result<UnixListener> {
    if let Some(socket) = kept {
        let socket = StdListener::from(socket);
        if stands_at(&socket, path) {
            socket.set_nonblocking(true)?;
            return UnixListener::from_std(socket);
        }
        keeper.remove(KEPT_AS)?;
    }
    // One daemon has this folder; what still answers there is a copy that nobody will accept from.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = http::bind(path)?;
    if let Err(error) = keeper.store(KEPT_AS, socket.as_fd()) {
        tracing::warn!(%error, "after a restart, containers that mount the API socket must be started anew");
    }
    Ok(socket)
}

/// Whether somebody who connects to `path` comes to this socket. A file that was removed and
/// made anew in the meantime would show as another inode, which nobody but us makes.
fn stands_at(socket: &StdListener, path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    let own = |address: SocketAddr| address.as_pathname() == Some(path);
    there && socket.local_addr().is_ok_and(own)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::BorrowedFd, os::unix::net::UnixStream, sync::Mutex};

    use super::*;

    #[test]
    fn ours_where_there_is_no_docker_or_ours_is_asked_for() {
        let ours = "/run/overnet/containers.sock";
        for (source, label, docker, wanted) in [
            ("/var/run/docker.sock", None, false, Some(ours)),
            ("/run/docker.sock", None, false, Some(ours)),
            ("/var/run/docker.sock", None, true, None),
            ("/var/run/docker.sock", Some("true"), true, Some(ours)),
            ("/var/run/docker.sock", Some("no"), true, None),
            ("/data", None, false, None),
        ] {
            let labels = label.map(|value: &str| (LABEL.to_owned(), value.to_owned()));
            let here = Here {
                ours: Some(ours.into()),
                docker,
            };
            let found = here.in_place_of(source, &labels.into_iter().collect());
            assert_eq!(found.as_deref(), wanted, "{source} {label:?} {docker}");
        }
        let labels = BTreeMap::new();
        let none = Here::default();
        assert_eq!(none.in_place_of("/run/docker.sock", &labels), None);
    }

    /// A service manager in memory.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(String, OwnedFd)>>);

    impl FdKeeper for Kept {
        fn store(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
            let fd = fd.try_clone_to_owned()?;
            self.0.lock().unwrap().push((name.to_owned(), fd));
            Ok(())
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.lock().unwrap().retain(|(kept, _)| kept != name);
            Ok(())
        }
    }

    #[tokio::test]
    async fn who_connected_before_the_restart_is_heard_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("containers.sock");
        let kept = Kept::default();
        drop(listen(&path, None, &kept).unwrap());
        let mut early = UnixStream::connect(&path).unwrap();
        early.write_all(b"x").unwrap();
        let mut inherited = std::mem::take(&mut *kept.0.lock().unwrap());
        let socket = listen(&path, take_kept(&mut inherited), &kept).unwrap();
        let (stream, _) = socket.accept().await.unwrap();
        stream.readable().await.unwrap();
        assert_eq!(stream.try_read(&mut [0; 2]).unwrap(), 1);
        assert!(inherited.is_empty());
        // Somebody removed it: a new one, also with the service manager.
        std::fs::remove_file(&path).unwrap();
        let copy = socket.as_fd().try_clone_to_owned().unwrap();
        drop(socket);
        let _socket = listen(&path, Some(copy), &kept).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }
}
