//! The two images of the examples, made from this machine's Debian packages and the workspace's
//! own echo server, and pushed in the words of the registry's HTTP API (OCI distribution
//! specification 1.1): the lab does not lean on the very code it tests.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    http,
    lab::{Host, binary},
};

/// Programs of the toolbox beside busybox.
const TOOLS: [&str; 4] = ["curl", "wget", "iperf3", "dig"];

/// Changes with the recipe below, so that a kept image of an older recipe is not used.
const RECIPE: &str = "1";

/// The registry's data as it was after the first push, in `cache`.
fn kept(cache: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    let mut programs = vec![binary("echo")?, find("busybox")?];
    programs.extend(
        TOOLS
            .iter()
            .map(|tool| find(tool))
            .collect::<Result<Vec<_>>>()?,
    );
    for program in programs {
        let facts = fs::metadata(&program)?;
        hash.update(format!(
            "{} {} {}.{}\n",
            program.display(),
            facts.size(),
            facts.mtime(),
            facts.mtime_nsec()
        ));
    }
    Ok(cache.join(format!("registry-{}", hex::encode(&hash.finalize()[..8]))))
}

/// Gives the registry, before it starts, what an earlier lab pushed.
pub fn restore(registry: &Host, cache: &Path) -> Result<()> {
    let kept = kept(cache)?;
    if kept.is_dir() {
        copy_tree(&kept, &registry.dir().join("data"))?;
    }
    Ok(())
}

/// Builds and pushes the images, unless they were restored.
pub fn push(registry: &Host, cache: &Path) -> Result<()> {
    let kept = kept(cache)?;
    if kept.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let work = tempfile::Builder::new()
        .prefix("images-")
        .tempdir_in(cache)?;
    let base = work.path().join("base");
    base_tree(&base)?;
    let echo = work.path().join("echo");
    install(&binary("echo")?, &echo, "usr/bin/echo-server")?;
    let tools = work.path().join("tools");
    for tool in TOOLS {
        install(&find(tool)?, &tools, &format!("usr/bin/{tool}"))?;
    }
    let echo_config = json!({
        "Entrypoint": ["/usr/bin/echo-server"],
        "ExposedPorts": {"8080/tcp": {}, "8080/udp": {}},
    });
    push_one(registry, "example/echo", &[&base, &echo], echo_config)?;
    push_one(
        registry,
        "example/toolbox",
        &[&base, &tools],
        json!({"Cmd": ["sh"]}),
    )?;
    let copy = work.path().join("data");
    copy_tree(&registry.dir().join("data"), &copy)?;
    for old in fs::read_dir(cache)?.flatten() {
        if old.file_name().to_string_lossy().starts_with("registry-") {
            let _ = fs::remove_dir_all(old.path());
        }
    }
    match fs::rename(&copy, &kept) {
        // Another lab was quicker with the same images.
        Err(_) if kept.is_dir() => Ok(()),
        renamed => renamed.context("cannot keep the images"),
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn push_one(registry: &Host, name: &str, layers: &[&Path], mut config: Value) -> Result<()> {
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let mut diff_ids = Vec::new();
    let mut descriptors = Vec::new();
    for tree in layers {
        let tar = tar_of(tree)?;
        diff_ids.push(digest(&tar));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&tar)?;
        descriptors.push(push_blob(registry, name, LAYER, &gzip.finish()?)?);
    }
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let image = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let image = push_blob(registry, name, CONFIG, &serde_json::to_vec(&image)?)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": image, "layers": descriptors,
    });
    push_manifest(registry, (name, "latest"), &manifest).map(drop)
}

/// Sends a manifest or a list of them, under a tag; gives its descriptor.
pub fn push_manifest(
    registry: &Host,
    (name, tag): (&str, &str),
    manifest: &Value,
) -> Result<Value> {
    let bytes = serde_json::to_vec(manifest)?;
    let kind = manifest["mediaType"].as_str().context("a media type")?;
    let path = format!("/v2/{name}/manifests/{tag}");
    send(registry, "PUT", &path, kind, &bytes)?;
    Ok(json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()}))
}

/// Sends a blob and gives its descriptor.
pub fn push_blob(registry: &Host, name: &str, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    let begun = send(
        registry,
        "POST",
        &format!("/v2/{name}/blobs/uploads/"),
        LAYER,
        &[],
    )?;
    let place = begun
        .header("location")
        .context("the registry names no place for a blob")?;
    // The place is a whole URL or a path, and may bring a query of its own.
    let place = place
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]))
        .unwrap_or(place);
    let separator = if place.contains('?') { '&' } else { '?' };
    let path = format!("{place}{separator}digest={digest}");
    send(registry, "PUT", &path, "application/octet-stream", bytes)?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
}

fn send(
    registry: &Host,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Result<http::Response> {
    let response = registry.within(|| {
        let stream = std::net::TcpStream::connect(("127.0.0.1", 5000))?;
        http::request(stream, method, path, &[("Content-Type", kind)], body)
    })??;
    if !(200..300).contains(&response.status) {
        bail!(
            "the registry answers {} to {method} {path}: {}",
            response.status,
            response.text()
        );
    }
    Ok(response)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tree as a layer: sorted, owned by root, without times, so that it is the same each time.
fn tar_of(root: &Path) -> Result<Vec<u8>> {
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
fn base_tree(root: &Path) -> Result<()> {
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
    for folder in ["etc", "root", "tmp", "usr/bin", "proc", "sys", "dev"] {
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
fn install(program: &Path, root: &Path, at: &str) -> Result<()> {
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

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a folder to copy into")?)?;
    let output = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .output()?;
    if !output.status.success() {
        bail!(
            "cannot copy {}: {}",
            from.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A program of this machine.
fn find(name: &str) -> Result<PathBuf> {
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
