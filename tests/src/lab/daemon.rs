//! A host's ovnd under its keeper.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    cgroup, namespace,
    process::{Process, detach},
};
use crate::keeper;

/// How long a daemon may take to say READY.
const START: Duration = Duration::from_secs(60);

pub fn keeper_socket(host: &Path) -> PathBuf {
    host.join("keeper.sock")
}

fn keeper_file(host: &Path) -> PathBuf {
    host.join("keeper")
}

pub fn log_file(host: &Path) -> PathBuf {
    host.join("ovnd.log")
}

/// Starts the keeper, which starts the daemon; does not wait for the daemon.
pub fn launch(
    lab_program: &Path,
    lab: &str,
    host: (&str, &Path),
    init: Process,
    command: &[OsString],
) -> Result<()> {
    let (name, dir) = host;
    let socket = keeper_socket(dir);
    let _ = fs::remove_file(&socket);
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("keeper.log"))?;
    let mut keeper = Command::new(lab_program);
    keeper
        .arg("keeper")
        .arg(&socket)
        .arg(log_file(dir))
        .arg("--")
        .args(command)
        .env("HOME", "/root")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let child = namespace::spawn(init, &cgroup::procs(lab, name)?, None, keeper)?;
    Process::of(child.id() as i32)
        .with_context(|| format!("the keeper of {name} has gone"))?
        .record(&keeper_file(dir))?;
    detach(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if Instant::now() > deadline || !running(dir) {
            let log = fs::read_to_string(dir.join("keeper.log")).unwrap_or_default();
            bail!("the keeper of {name} does not start: {}", log.trim());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether the keeper lives (the daemon may not).
pub fn running(host: &Path) -> bool {
    Process::recorded(&keeper_file(host)).is_some()
}

/// One word to the keeper; see [`keeper`].
pub fn ask(host: &Path, word: &str) -> Result<String> {
    keeper::ask(&keeper_socket(host), word, START).map_err(|error| {
        let log = log_file(host);
        anyhow::anyhow!(
            "{word}: {error:#}\nlast lines of {}:\n{}",
            log.display(),
            tail(&log, 15)
        )
    })
}

/// The last lines of a file; empty if there is none.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
