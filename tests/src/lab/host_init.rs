//! The first process of a host: makes the host's namespaces and file tree, then only takes the
//! exit status of whoever dies. With it the host is gone.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{FileTypeExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{chdir, pivot_root, sethostname},
};
use serde::{Deserialize, Serialize};

use super::{
    cgroup::{self, Hierarchy},
    namespace,
    process::{Process, detach},
    state,
};

/// What the first process is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostSpec {
    pub lab: String,
    pub name: String,
    /// The host's own folder.
    pub dir: PathBuf,
    /// Shown read-only as /stack.
    pub stack: Option<PathBuf>,
    pub hosts: String,
    pub resolv_conf: String,
    pub hierarchies: Vec<Hierarchy>,
}

/// Starts a host and waits until its file tree stands.
pub fn start(program: &Path, lab_dir: &Path, spec: &HostSpec) -> Result<Process> {
    let name = &spec.name;
    for folder in ["run", "lib", "etc", "etc.work", "varlib", "varlib.work"] {
        let folder = spec.dir.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = spec.dir.join("host.json");
    fs::write(&file, serde_json::to_vec(spec)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let log = fs::File::create(spec.dir.join("init.log")).context("cannot write the host's log")?;
    let mut command = Command::new(program);
    command
        .arg("host-init")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let procs = cgroup::create(&spec.lab, name)?;
    let child = namespace::spawn_first(&procs, command)?;
    let process = Process::of(child.id() as i32).context("the host's first process has gone")?;
    process.record(&state::init_file(lab_dir, name))?;
    await_ready(child).with_context(|| {
        let log = fs::read_to_string(spec.dir.join("init.log")).unwrap_or_default();
        format!("host {name} does not start: {}", log.trim())
    })?;
    Ok(process)
}

fn await_ready(mut child: Child) -> Result<()> {
    let mut stdout = child.stdout.take().context("no pipe")?;
    let mut text = String::new();
    stdout.read_to_string(&mut text)?;
    detach(child);
    if text != READY {
        bail!("its first process ended");
    }
    Ok(())
}

const READY: &str = "ready\n";

/// Body of the first process; returns only on failure.
pub fn run(spec: &Path) -> Result<()> {
    let spec: HostSpec =
        serde_json::from_slice(&fs::read(spec)?).context("the host's description is damaged")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("cannot make namespaces")?;
    cgroup::settle(&spec.hierarchies, &spec.lab, &spec.name)?;
    build_tree(&spec)?;
    sethostname(&spec.name).context("cannot set the host's name")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("cannot block SIGCHLD")?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()?;
    let null = fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null).context("cannot leave the pipe")?;
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        signals.wait().context("cannot wait for signals")?;
    }
}

/// Parts of the root that a host has for itself.
const OWN: [&str; 6] = ["etc", "lost+found", "proc", "run", "stack", "sys"];

/// A root of its own: memory with the machine's folders bound into it, so that /stack and
/// other mount points need nothing on the machine's own disk.
fn build_tree(spec: &HostSpec) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    // /run is the one folder that exists everywhere and is not carried over.
    let root = Path::new("/run");
    mount_kind("tmpfs", root, "mode=755")?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        let at = root.join(&name);
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &at)?;
        } else if kind.is_dir() {
            fs::create_dir(&at)?;
            bind(&entry.path(), &at)?;
        } else if !kind.is_socket() && !kind.is_fifo() {
            fs::write(&at, "")?;
            bind(&entry.path(), &at)?;
        }
    }
    for own in OWN {
        fs::create_dir_all(root.join(own))?;
    }
    mount_kind("proc", &root.join("proc"), "")?;
    mount_kind("sysfs", &root.join("sys"), "")?;
    mount_cgroups(&spec.hierarchies, root)?;
    write_etc(spec)?;
    overlay(&spec.dir, "etc", "/etc", &root.join("etc"))?;
    overlay(&spec.dir, "varlib", "/var/lib", &root.join("var/lib"))?;
    fs::create_dir_all(root.join("var/lib/overnet"))?;
    bind(&spec.dir.join("lib"), &root.join("var/lib/overnet"))?;
    mount_kind("tmpfs", &root.join("run"), "mode=755")?;
    fs::create_dir_all(root.join("run/lock"))?;
    fs::create_dir(root.join("run/overnet"))?;
    bind(&spec.dir.join("run"), &root.join("run/overnet"))?;
    match &spec.stack {
        Some(stack) => {
            let at = root.join("stack");
            bind(stack, &at)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, &at, none, flags, none).context("cannot make /stack read-only")?;
        }
        None => fs::remove_dir(root.join("stack"))?,
    }
    chdir(root)?;
    pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    chdir("/")?;
    Ok(())
}

fn mount_cgroups(hierarchies: &[Hierarchy], root: &Path) -> Result<()> {
    let mut below = hierarchies
        .iter()
        .filter(|h| h.at != Path::new("/sys/fs/cgroup"))
        .peekable();
    if below.peek().is_some() {
        mount_kind("tmpfs", &root.join("sys/fs/cgroup"), "mode=755")?;
    }
    for hierarchy in hierarchies {
        let at = root.join(hierarchy.at.strip_prefix("/").unwrap_or(&hierarchy.at));
        fs::create_dir_all(&at)?;
        mount_kind(
            if hierarchy.unified {
                "cgroup2"
            } else {
                "cgroup"
            },
            &at,
            &hierarchy.data,
        )?;
    }
    Ok(())
}

/// The layer over the machine's /etc. A file here replaces a link there.
fn write_etc(spec: &HostSpec) -> Result<()> {
    let etc = spec.dir.join("etc");
    for (name, text) in [
        ("hosts", spec.hosts.clone()),
        ("resolv.conf", spec.resolv_conf.clone()),
        ("hostname", format!("{}\n", spec.name)),
    ] {
        fs::write(etc.join(name), text).with_context(|| format!("cannot write /etc/{name}"))?;
    }
    Ok(())
}

fn overlay(dir: &Path, upper: &str, lower: &str, at: &Path) -> Result<()> {
    let options = format!(
        "lowerdir={lower},upperdir={},workdir={}",
        dir.join(upper).display(),
        dir.join(format!("{upper}.work")).display()
    );
    mount_kind("overlay", at, &options)
}

fn mount_kind(kind: &str, at: &Path, data: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(data))
        .with_context(|| format!("cannot mount {kind} ({data}) at {}", at.display()))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    mount(
        Some(from),
        at,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("cannot bind {} to {}", from.display(), at.display()))
}
