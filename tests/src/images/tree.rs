//! File trees of images, from programs of this machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// A tree as a layer: sorted, owned by root, without times, so that it is the same each time.
pub fn tar_of(root: &Path) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let facts = fs::symlink_metadata(&path)?;
            let inside = path.strip_prefix(root)?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(facts.permissions().mode() & 0o7777);
            header.set_size(0);
            header.set_mtime(0);
            if facts.is_symlink() {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, inside, fs::read_link(&path)?)?;
            } else if facts.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, inside, std::io::empty())?;
                waiting.push(path);
            } else {
                header.set_size(facts.len());
                builder.append_data(&mut header, inside, fs::File::open(&path)?)?;
            }
        }
    }
    Ok(builder.into_inner()?)
}

/// busybox with all its names, and the files every image has.
pub fn base_tree(root: &Path) -> Result<()> {
    let busybox = find("busybox")?;
    install(&busybox, root, "bin/busybox")?;
    let names = Command::new(&busybox)
        .arg("--list")
        .output()
        .context("cannot run busybox")?;
    for name in String::from_utf8_lossy(&names.stdout)
        .lines()
        // A static busybox cannot load the name service's libraries: its wget crashes.
        .filter(|name| !["busybox", "wget"].contains(name))
    {
        symlink("busybox", root.join("bin").join(name))?;
    }
    for folder in ["etc", "root", "run", "tmp", "usr/bin", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    Ok(())
}

/// Copies a program and the libraries it needs, each to the place its loader looks for it.
pub fn install(program: &Path, root: &Path, at: &str) -> Result<()> {
    copy(program, &root.join(at))?;
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
        copy(
            Path::new(library),
            &root.join(library.trim_start_matches('/')),
        )?;
    }
    // Libraries that are loaded by name only: glibc's name service.
    if output.status.success() {
        let libc = libraries(&String::from_utf8_lossy(&output.stdout))
            .iter()
            .find(|library| library.ends_with("/libc.so.6"))
            .map(|library| (*library).to_owned());
        for name in ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
            let Some(folder) = libc.as_deref().and_then(|libc| Path::new(libc).parent()) else {
                break;
            };
            let library = folder.join(name);
            if library.is_file() {
                copy(
                    &library,
                    &root.join(library.strip_prefix("/").unwrap_or(&library)),
                )?;
            }
        }
    }
    Ok(())
}

/// Absolute paths in ldd's answer; a static program has none.
fn libraries(ldd: &str) -> Vec<&str> {
    ldd.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .collect()
}

/// Writes a file and the folders above it.
pub fn write(at: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(at, text)?;
    fs::set_permissions(at, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A program of this machine.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(fixed)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is missing: `scripts/lab` installs what a lab needs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_dynamic_and_static_programs() {
        let dynamic = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(libraries(dynamic), ["/lib/x/libc.so.6", "/lib64/ld.so"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
