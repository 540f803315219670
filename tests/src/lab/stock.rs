//! The stock docker command line: the one on PATH, else Debian's, unpacked but not installed
//! (installing it would start a daemon).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Where the stock `docker` program is; fetches Debian's into `cache` when there is none.
pub fn docker_cli(cache: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("docker"));
    if let Some(found) = on_path.into_iter().find(|file| file.is_file()) {
        return Ok(found);
    }
    let folder = cache.join("docker.io");
    let found = folder.join("usr/bin/docker");
    if found.is_file() {
        return Ok(found);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    run(Command::new("apt-get")
        .args(["download", "-qq", "docker.io"])
        .current_dir(&folder))?;
    let mut packages = std::fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path());
    let package = packages.find(|file| file.extension().is_some_and(|e| e == "deb"));
    let package = package.context("apt-get brought no docker.io package")?;
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&folder))?;
    std::fs::remove_file(&package)?;
    if !found.is_file() {
        bail!("Debian's docker.io package holds no usr/bin/docker");
    }
    Ok(found)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
