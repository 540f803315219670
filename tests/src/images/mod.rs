//! The images of the examples, made from this machine's Debian packages and the workspace's own
//! echo server, and pushed to the lab's registry under the names that the examples use.

mod push;
mod recipes;
mod tree;

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::push::{push_blob, push_manifest};
use self::{
    push::{CONFIG, LAYER, MANIFEST, digest},
    recipes::{LAYERS, Part, images},
    tree::{base_tree, find, install, tar_of, write},
};
use crate::lab::{Host, binary};

/// Changes with the making of layers, so that a kept image of an older way is not used. What
/// goes into them is looked at itself.
const RECIPE: &str = "2";

/// The registry's data as it was after the first push, in `cache`.
fn kept(cache: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    hash.update(format!("{:?}{:?}", LAYERS, images()));
    let mut programs = vec![find("busybox")?];
    for part in LAYERS.iter().flat_map(|(_, parts)| *parts) {
        programs.extend(source(part)?);
    }
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

/// The file of this machine that a part is made of.
fn source(part: &Part) -> Result<Option<PathBuf>> {
    match part {
        Part::Own { name, .. } => binary(name).map(Some),
        Part::Program(at) => {
            let name = at.rsplit('/').next().unwrap_or(at);
            find(name).map(Some)
        }
        Part::Script { .. } | Part::Text { .. } | Part::Folder(_) => Ok(None),
    }
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
    let base = Layer::of(&base)?;
    let mut layers = Vec::new();
    for (name, parts) in LAYERS {
        let tree = work.path().join(name);
        for part in *parts {
            lay(part, &tree)?;
        }
        layers.push((*name, Layer::of(&tree)?));
    }
    for image in images() {
        let mut stack = vec![&base];
        for name in image.layers {
            let layer = layers.iter().find(|(known, _)| known == name);
            stack.push(
                &layer
                    .with_context(|| format!("there is no layer {name}"))?
                    .1,
            );
        }
        push_image(registry, image.name, &stack, image.config)?;
    }
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

fn lay(part: &Part, tree: &Path) -> Result<()> {
    match (part, source(part)?) {
        (Part::Own { at, .. } | Part::Program(at), Some(program)) => install(&program, tree, at),
        (Part::Script { at, text }, _) => write(&tree.join(at), text, 0o755),
        (Part::Text { at, text }, _) => write(&tree.join(at), text, 0o644),
        (Part::Folder(at), _) => Ok(fs::create_dir_all(tree.join(at))?),
        (Part::Own { .. } | Part::Program(_), None) => bail!("{part:?} is made of nothing"),
    }
}

/// A layer, packed once for all images that have it.
struct Layer {
    diff_id: String,
    packed: Vec<u8>,
}

impl Layer {
    fn of(tree: &Path) -> Result<Self> {
        let tar = tar_of(tree)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar)?;
        Ok(Self {
            diff_id: digest(&tar),
            packed: gzip.finish()?,
        })
    }
}

fn push_image(registry: &Host, name: &str, layers: &[&Layer], mut config: Value) -> Result<()> {
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let mut descriptors = Vec::new();
    for layer in layers {
        descriptors.push(push_blob(registry, name, LAYER, &layer.packed)?);
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
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
