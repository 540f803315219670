//! One start, on a thread with private mounts: the root file system, `config.json`, the monitor.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{record::Record, sources::mounts, volumes::volumes_of};
use crate::{
    network::{Connected, NetworkMode},
    oci::{
        Executor, Launch, OciError, ProcessId,
        bundle::{self, Device, Facts},
        capability,
        mountinfo::hide_below,
        part::Temporary,
        rootfs::{Layers, ensure_dir, mount_overlay, open_root, read_in},
        user,
    },
};

/// What a start hands to the thread that does it.
pub(super) struct Plan {
    pub record: Record,
    pub directory: PathBuf,
    pub bundle: PathBuf,
    pub cgroup: String,
    pub netns: Option<PathBuf>,
    pub shared: Vec<(&'static str, PathBuf)>,
    pub init: Option<PathBuf>,
    pub cgroup_v2: bool,
    /// The folder of all volumes, as the kernel names it.
    pub volumes: PathBuf,
}

/// On the private thread: mounts, looks up, writes `config.json`, starts the monitor.
pub(super) fn launch(executor: &Executor, plan: &Plan) -> Result<(ProcessId, ProcessId), OciError> {
    let record = &plan.record;
    let spec = &record.spec;
    let _ = fs::remove_dir_all(&plan.bundle);
    fs::create_dir_all(&plan.bundle).map_err(OciError::io("making the bundle"))?;
    let _ = fs::remove_file(executor.exit_dir.join(record.id.as_str()));
    let rootfs = plan.directory.join("rootfs");
    mount_overlay(
        &Layers {
            lower: record.layers.clone(),
            writable: plan.directory.clone(),
        },
        &rootfs,
    )?;
    let root = open_root(&rootfs).map_err(OciError::io("opening the root file system"))?;
    let user = user::resolve(
        &record.effective.user,
        &spec.host.group_add,
        &read_in(&root, "/etc/passwd"),
        &read_in(&root, "/etc/group"),
    )
    .map_err(|refusal| OciError::Refused(refusal.message))?;
    if !record.effective.working_dir.is_empty() {
        ensure_dir(&root, &record.effective.working_dir).map_err(|error| {
            OciError::Refused(format!(
                "making the working directory {}: {error}",
                record.effective.working_dir
            ))
        })?;
    }
    let own = volumes_of(record);
    hide_below(&plan.volumes, &|place| {
        let below = place.strip_prefix(&plan.volumes).ok();
        let name = below.and_then(|below| below.iter().next()?.to_str());
        name.is_some_and(|name| own.contains(name))
    })?;
    let mut temporary = Temporary::new(plan.bundle.join("m"));
    let mounts = mounts(plan, &root, &mut temporary)?;
    let devices = devices(record)?;
    let config = bundle::config(&Facts {
        spec,
        effective: &record.effective,
        user: &user,
        rootfs: &rootfs,
        cgroup: &plan.cgroup,
        netns: plan.netns.as_deref(),
        shared: &plan.shared,
        mounts: &mounts,
        init: plan.init.as_deref(),
        devices: &devices,
        cgroup_v2: plan.cgroup_v2,
        capabilities: capability::held(),
    })
    .map_err(|refusal| OciError::Refused(refusal.message))?;
    fs::write(plan.bundle.join("config.json"), config.to_string())
        .map_err(OciError::io("writing config.json"))?;
    let log = plan.directory.join("container.log");
    let log_max = spec
        .host
        .log
        .options
        .get("max-size")
        .and_then(|text| super::logs::parse_size(text));
    let created = executor.create(&Launch {
        container: record.id.as_str(),
        bundle: &plan.bundle,
        tty: spec.tty,
        stdin: spec.open_stdin,
        leave_stdin_open: spec.open_stdin && !spec.stdin_once,
        log: (spec.host.log.driver != "none").then_some(log.as_path()),
        log_max,
    });
    // The container has its own by now. The monitor stays in this namespace for as long as the
    // container runs, and would keep all of it busy.
    drop(temporary);
    hide_below(&plan.volumes, &|_| false)?;
    created
}

fn devices(record: &Record) -> Result<Vec<Device>, OciError> {
    record
        .spec
        .host
        .devices
        .iter()
        .map(|wish| {
            let facts = fs::metadata(&wish.host).map_err(OciError::io(format!(
                "error gathering device information while adding custom device \"{}\"",
                wish.host.display()
            )))?;
            let kind = facts.file_type();
            if !kind.is_block_device() && !kind.is_char_device() {
                return Err(OciError::Refused(format!(
                    "{} is not a device node",
                    wish.host.display()
                )));
            }
            Ok(Device {
                wish: wish.clone(),
                block: kind.is_block_device(),
                major: nix::sys::stat::major(facts.rdev()),
                minor: nix::sys::stat::minor(facts.rdev()),
                mode: facts.permissions().mode(),
                uid: facts.uid(),
                gid: facts.gid(),
            })
        })
        .collect()
}

/// `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` of the container.
pub(super) fn write_files(
    directory: &Path,
    record: &Record,
    connected: &Connected,
) -> std::io::Result<()> {
    let name = &record.effective.hostname;
    let mut hosts = if matches!(record.spec.network, NetworkMode::Host) {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned()
    };
    for extra in &record.spec.extra_hosts {
        if let Some((name, address)) = extra.split_once([':', '=']) {
            let gateway = || {
                let gateway = connected
                    .endpoints
                    .iter()
                    .flat_map(|end| &end.gateways)
                    .next();
                gateway.map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string)
            };
            let address = match address.trim_matches(['[', ']']) {
                "host-gateway" => gateway(),
                address => address.to_owned(),
            };
            let _ = writeln!(hosts, "{address}\t{name}");
        }
    }
    for (address, names) in &connected.hosts {
        let _ = writeln!(hosts, "{address}\t{names}");
    }
    let full = if record.effective.domainname.is_empty() {
        name.clone()
    } else {
        format!("{name}.{}", record.effective.domainname)
    };
    for (file, text) in [
        ("hosts", hosts.as_str()),
        ("hostname", &format!("{full}\n")),
        ("resolv.conf", &connected.resolv_conf),
    ] {
        let path = directory.join(file);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}
