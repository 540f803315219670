//! A thread with a mount namespace of its own.

use std::{path::Path, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tokio::sync::oneshot;

use super::OciError;

const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Whether both cgroup versions are mounted.
pub fn hybrid_cgroups() -> bool {
    Path::new(UNIFIED).join("cgroup.procs").exists()
}

/// Runs blocking work on a new thread in a private copy of the mount namespace: what it mounts
/// is seen by it and by programs it starts, and gone with the last of them. Unmounts on the host
/// still reach it.
pub async fn in_private_mounts<T: Send + 'static>(
    hide_unified: bool,
    work: impl FnOnce() -> Result<T, OciError> + Send + 'static,
) -> Result<T, OciError> {
    let (answer, result) = oneshot::channel();
    thread::Builder::new()
        .name("mounts".into())
        .spawn(move || {
            let _ = answer.send(enter(hide_unified).and_then(|()| work()));
        })
        .map_err(OciError::io("starting a thread"))?;
    result
        .await
        .unwrap_or_else(|_| Err(OciError::Refused("the worker thread died".into())))
}

fn enter(hide_unified: bool) -> Result<(), OciError> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: nix::Error| OciError::Io {
            doing,
            source: error.into(),
        }
    };
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .map_err(failed("making a private mount namespace"))?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(failed("making mounts private"))?;
    if hide_unified {
        let _ = umount2(UNIFIED, MntFlags::MNT_DETACH);
    }
    Ok(())
}
