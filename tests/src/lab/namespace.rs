//! Going into a host's namespaces: a child process into all of them, a thread into the
//! network one.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::process::Process;

/// All of a host's namespaces but the PID one, which only a fork enters.
const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// A handle on the process that holds the namespaces, safe against recycled numbers.
fn pidfd(process: Process) -> Result<OwnedFd> {
    // SAFETY: plain system call; the kernel returns a new descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error()).context("the host is down");
    }
    // SAFETY: the descriptor was just made for us.
    let fd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    if !process.alive() {
        bail!("the host is down");
    }
    Ok(fd)
}

/// Starts `command` as a process of the host: in its namespaces and its control groups. `cwd`
/// is taken where the host has it.
pub fn spawn(
    init: Process,
    procs: &[PathBuf],
    cwd: Option<&Path>,
    mut command: Command,
) -> Result<Child> {
    let target = pidfd(init)?;
    let target_raw = target.as_raw_fd();
    let cwd = cwd.and_then(|cwd| std::ffi::CString::new(cwd.as_os_str().as_encoded_bytes()).ok());
    let mut groups = open_groups(procs)?;
    // SAFETY: between fork and exec only system calls are made; everything they need was
    // prepared before.
    unsafe {
        command.pre_exec(move || {
            join_groups(&mut groups)?;
            // SAFETY: the descriptor lives until the spawn below has returned.
            let target = std::os::fd::BorrowedFd::borrow_raw(target_raw);
            setns(target, ALL)?;
            let root = c"/".as_ptr();
            let there = cwd
                .as_ref()
                .is_some_and(|cwd| libc::chdir(cwd.as_ptr()) == 0);
            if !there && libc::chdir(root) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let program = command.get_program().to_owned();
    // A thread of its own, because entering a PID namespace is for a thread's future children.
    let child = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            setns(&target, CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        });
        work.join()
            .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
    });
    child.with_context(|| format!("cannot start {}", program.display()))
}

/// Starts `command` as the first process of a new PID namespace, in these control groups.
pub fn spawn_first(procs: &[PathBuf], mut command: Command) -> Result<Child> {
    let mut groups = open_groups(procs)?;
    // SAFETY: as above.
    unsafe {
        command.pre_exec(move || {
            join_groups(&mut groups)?;
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    let child = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        });
        work.join()
            .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
    });
    child.context("cannot start a host's first process")
}

/// Runs `work` on a thread inside the host's network namespace (sockets it makes stay there).
pub fn within<T: Send>(init: Process, work: impl FnOnce() -> T + Send) -> Result<T> {
    let target = pidfd(init)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<T> {
            setns(&target, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            Ok(work())
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs `command` in the host's network namespace only and gives its output; an error exit is
/// an error.
pub fn run_in_network(init: Process, mut command: Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = within(init, || command.spawn())?;
    let mut child = child.with_context(|| format!("cannot start {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .with_context(|| format!("{shown} takes no input"))?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\ninput:\n{input}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn open_groups(procs: &[PathBuf]) -> Result<Vec<File>> {
    procs
        .iter()
        .map(|file| {
            let opened = File::options().write(true).open(file);
            opened.with_context(|| format!("cannot join the control group {}", file.display()))
        })
        .collect()
}

fn join_groups(groups: &mut [File]) -> io::Result<()> {
    for group in groups {
        group.write_all(b"0")?;
    }
    Ok(())
}
