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
    let found = unpacked(cache, "docker.io")?.join("usr/bin/docker");
    if !found.is_file() {
        bail!("Debian's docker.io package holds no usr/bin/docker");
    }
    Ok(found)
}

/// The folder that a package of Debian's lies in as it would below `/`; unpacked into `cache` once.
pub fn unpacked(cache: &Path, package: &str) -> Result<PathBuf> {
    let folder = cache.join(package);
    if folder.join("usr").is_dir() {
        return Ok(folder);
    }
    // Others may do the same at the same time.
    let own = cache.join(format!("{package}.{}", std::process::id()));
    std::fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    run(Command::new("apt-get")
        .args(["download", "-qq", package])
        .current_dir(&own))?;
    let mut files = std::fs::read_dir(&own)?.flatten().map(|entry| entry.path());
    let file = files.find(|file| file.extension().is_some_and(|e| e == "deb"));
    let file = file.with_context(|| format!("apt-get brought no package {package}"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&own))?;
    std::fs::remove_file(&file)?;
    let _ = std::fs::remove_dir_all(&folder);
    if std::fs::rename(&own, &folder).is_err() {
        std::fs::remove_dir_all(&own)?;
    }
    Ok(folder)
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
