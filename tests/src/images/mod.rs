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
    time::{Duration, SystemTime},
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

/// What was not used for so long goes from the cache.
const KEEP: Duration = Duration::from_secs(3 * 24 * 3600);

/// The registry's data as it was after the first push, in `cache`.
fn kept(cache: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", images()));
    for (_, parts) in LAYERS {
        hash.update(key(parts)?);
    }
    let name = hex::encode(&hash.finalize()[..8]);
    Ok(cache.join(format!("registry-{name}")))
}

/// Changes with everything that a layer, or with no parts the base, is made of.
fn key(parts: &[Part]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{RECIPE} {parts:?}"));
    let mut programs = vec![find("busybox")?];
    for part in parts {
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
    Ok(hex::encode(&hash.finalize()[..8]))
}

/// Says that something of the cache is in use.
fn touch(kept: &Path) {
    // Only its age: at worst it is made again one day.
    let _ = fs::File::open(kept).and_then(|file| file.set_modified(SystemTime::now()));
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
        touch(&kept);
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
    let base = Layer::cached(cache, &[], || {
        let tree = work.path().join("base");
        base_tree(&tree)?;
        Ok(tree)
    })?;
    let mut layers = Vec::new();
    for (name, parts) in LAYERS {
        let layer = Layer::cached(cache, parts, || {
            let tree = work.path().join(name);
            parts.iter().try_for_each(|part| lay(part, &tree))?;
            Ok(tree)
        })?;
        layers.push((*name, layer));
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
    forget_unused(cache)?;
    match fs::rename(&copy, &kept) {
        // Another lab was quicker with the same images.
        Err(_) if kept.is_dir() => Ok(()),
        renamed => renamed.context("cannot keep the images"),
    }
}

/// Several trees of this workspace may share the cache, each with programs of its own.
fn forget_unused(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("registry-") || name.starts_with("layer-");
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if !ours || age < KEEP {
            continue;
        }
        // Somebody else may have been quicker.
        let _ = if entry.path().is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
    }
    Ok(())
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
    /// From the cache, else made from the tree. In its file the digest comes first, in a line.
    fn cached(
        cache: &Path,
        parts: &[Part],
        tree: impl FnOnce() -> Result<PathBuf>,
    ) -> Result<Self> {
        let file = cache.join(format!("layer-{}", key(parts)?));
        if let Ok(bytes) = fs::read(&file)
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
        {
            touch(&file);
            return Ok(Self {
                diff_id: String::from_utf8_lossy(&bytes[..end]).into_owned(),
                packed: bytes[end + 1..].to_vec(),
            });
        }
        let layer = Self::of(&tree()?)?;
        let mut whole = tempfile::NamedTempFile::new_in(cache)?;
        writeln!(whole, "{}", layer.diff_id)?;
        whole.write_all(&layer.packed)?;
        whole.persist(&file).context("cannot keep a layer")?;
        Ok(layer)
    }

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
