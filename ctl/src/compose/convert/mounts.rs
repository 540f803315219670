//! `volumes`, `tmpfs` and `shm_size` to mounts.

use serde_json::{Map, Value as Json, json};

use super::{Cx, Fields, environment, flag, int, on, size, text, texts};
use crate::compose::node::{Node, Place};
use crate::compose::problem::Problem;
use crate::output::units::parse_memory;

/// `Mounts`, in the order written.
pub fn mounts(cx: &mut Cx<'_>, service: &Node, path: &str) -> Result<Vec<Json>, Problem> {
    let mut all: Vec<(Json, Place)> = Vec::new();
    for (index, item) in service
        .get("volumes")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.volumes[{index}]");
        let mount = match item.text() {
            Some(text) => short(cx, text, item.at, &path)?,
            None => long(cx, item, &path)?,
        };
        all.push((mount, item.at));
    }
    for written in texts(service.get("tmpfs")) {
        let at = service.get("tmpfs").map_or(service.at, |n| n.at);
        all.push((
            tmpfs(&written).map_err(|m| Problem::new(at, &format!("{path}.tmpfs"), m))?,
            at,
        ));
    }
    if let Some(bytes) = size(service, "shm_size") {
        let mount =
            json!({"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": bytes}});
        all.push((mount, service.at));
    }
    for (index, (mount, at)) in all.iter().enumerate() {
        let target = &mount["Target"];
        if let Some((_, first)) = all[..index]
            .iter()
            .find(|(other, _)| other["Target"] == *target)
        {
            return Err(Problem::new(
                *at,
                &format!("{path}.volumes"),
                format!("two mounts have the target {target}"),
            )
            .and(*first));
        }
    }
    Ok(all.into_iter().map(|(mount, _)| mount).collect())
}

fn short(cx: &mut Cx<'_>, written: &str, at: Place, path: &str) -> Result<Json, Problem> {
    let bad = |message: String| Problem::new(at, path, message).help("write [SOURCE:]TARGET[:ro]");
    let parts: Vec<&str> = written.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(bad(format!("{written:?} has too many colons"))),
    };
    if !target.starts_with('/') {
        return Err(bad(format!(
            "the target {target:?} must be an absolute path"
        )));
    }
    if source == Some("") {
        return Err(bad(format!("{written:?} has no source before the colon")));
    }
    let is_path = source.is_some_and(|s| s.starts_with(['/', '.', '~']));
    let mut mount = Fields::default();
    mount.put("Type", Some(if is_path { "bind" } else { "volume" }));
    let (mut bind, mut volume) = (Fields::default(), Fields::default());
    match source {
        Some(source) if is_path => {
            mount.put("Source", Some(cx.resolve(source, at).display().to_string()));
        }
        Some(source) => named(cx, source, at, path, &mut mount, &mut volume)?,
        None => {}
    }
    mount.put("Target", Some(target));
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "rw" => {}
            "ro" => { mount.put("ReadOnly", Some(true)); }
            "nocopy" => { volume.put("NoCopy", Some(true)); }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => { bind.put("Propagation", Some(option)); }
            "cached" | "delegated" | "consistent" => { mount.put("Consistency", Some(option)); }
            "z" | "Z" => cx.warn(at, format!("{path}: the option {option} is ignored: a service of a cluster has no such setting")),
            other => return Err(bad(format!("{other:?} is no option of a mount"))),
        }
    }
    mount
        .put("BindOptions", Some(bind.done()))
        .put("VolumeOptions", Some(volume.done()));
    Ok(mount.done())
}

/// Fills in a named volume of the file.
fn named(
    cx: &Cx<'_>,
    name: &str,
    at: Place,
    path: &str,
    mount: &mut Fields,
    options: &mut Fields,
) -> Result<(), Problem> {
    let volume = cx.definition("volumes", name, at, path)?;
    mount.put("Source", Some(volume.name.clone()));
    if volume.external {
        return Ok(());
    }
    options.put(
        "Labels",
        Some(cx.labels(volume.node.get("labels"), "volumes.*.labels")),
    );
    let mut driver = Fields::default();
    driver.put("Name", text(volume.node, "driver"));
    driver.put(
        "Options",
        Some(environment::pairs(
            volume.node.get("driver_opts"),
            "volumes.*.driver_opts",
        )),
    );
    options.put("DriverConfig", Some(driver.done()));
    Ok(())
}

fn long(cx: &mut Cx<'_>, item: &Node, path: &str) -> Result<Json, Problem> {
    let bad = |message: &str| Problem::new(item.at, path, message);
    let kind =
        text(item, "type").ok_or_else(|| bad("type is missing: bind, volume, tmpfs or image"))?;
    let target = text(item, "target").ok_or_else(|| bad("target is missing"))?;
    if !target.starts_with('/') && kind != "npipe" {
        return Err(bad("the target must be an absolute path"));
    }
    let mut mount = Fields::default();
    let mut volume = Fields::default();
    mount.put("Type", Some(kind.clone()));
    match (kind.as_str(), item.get("source")) {
        ("bind", Some(source)) => {
            mount.put("Source", Some(cx.path(source).display().to_string()));
        }
        ("volume" | "cluster", Some(source)) => {
            named(
                cx,
                source.text().unwrap_or_default(),
                source.at,
                path,
                &mut mount,
                &mut volume,
            )?;
        }
        ("tmpfs", Some(_)) => return Err(bad("a tmpfs has no source")),
        (_, Some(source)) => {
            mount.put("Source", source.text());
        }
        ("bind" | "image" | "npipe" | "cluster", None) => return Err(bad("source is missing")),
        (_, None) => {}
    }
    mount
        .put("Target", Some(target))
        .put("ReadOnly", on(item, "read_only"))
        .put("Consistency", text(item, "consistency"));
    if let Some(bind) = item.get("bind") {
        let mut options = Fields::default();
        options.put("Propagation", text(bind, "propagation"));
        options.put("CreateMountpoint", on(bind, "create_host_path"));
        match bind.text_of("recursive") {
            Some("disabled") => {
                options.put("NonRecursive", Some(true));
            }
            Some("writable") => {
                options.put("ReadOnlyNonRecursive", Some(true));
            }
            Some("readonly") => {
                options.put("ReadOnlyForceRecursive", Some(true));
            }
            _ => {}
        }
        mount.put("BindOptions", Some(options.done()));
    }
    if let Some(node) = item.get("volume") {
        volume
            .put("NoCopy", flag(node.get("nocopy")).then_some(true))
            .put("Subpath", text(node, "subpath"));
        let mut labels: Map<String, Json> =
            environment::pairs(node.get("labels"), "services.*.volumes.[].volume.labels");
        if let Some(Json::Object(more)) = volume.0.get("Labels") {
            labels.extend(more.clone());
        }
        volume.put("Labels", Some(labels));
    }
    mount.put("VolumeOptions", Some(volume.done()));
    if let Some(node) = item.get("tmpfs") {
        let mut options = Fields::default();
        options
            .put("SizeBytes", size(node, "size"))
            .put("Mode", int(node, "mode"));
        mount.put("TmpfsOptions", Some(options.done()));
    }
    if let Some(node) = item.get("image") {
        let mut options = Fields::default();
        options.put("Subpath", text(node, "subpath"));
        mount.put("ImageOptions", Some(options.done()));
    }
    Ok(mount.done())
}

/// `PATH[:size=64m,mode=1770]`.
fn tmpfs(written: &str) -> Result<Json, String> {
    let (target, options) = written.split_once(':').unwrap_or((written, ""));
    if !target.starts_with('/') {
        return Err(format!("the path {target:?} must be absolute"));
    }
    let mut fields = Fields::default();
    let mut rest: Vec<Json> = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                fields.put("SizeBytes", Some(parse_memory(value)?));
            }
            Some(("mode", value)) => {
                let mode = i64::from_str_radix(value, 8)
                    .map_err(|_| format!("mode={value} is not octal"))?;
                fields.put("Mode", Some(mode));
            }
            Some((name, value)) => rest.push(json!([name, value])),
            None => rest.push(json!([option])),
        }
    }
    fields.put("Options", Some(rest));
    let mut mount = Fields::default();
    mount
        .put("Type", Some("tmpfs"))
        .put("Target", Some(target))
        .put("TmpfsOptions", Some(fields.done()));
    Ok(mount.done())
}
