//! Processes by number and start time, so that a recycled number is never taken for ours.

use std::{
    fs, io,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process as the file `PID START` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after boot: field 22 of /proc/PID/stat, proc(5).
    start: u64,
}

impl Process {
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start: start_time(pid)?,
        })
    }

    /// Absent when nothing is recorded, or the recorded process has ended.
    pub fn recorded(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let process = Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        };
        process.alive().then_some(process)
    }

    pub fn record(self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.start))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// False for what has given its namespaces back: a zombie, and a first process that only
    /// waits until the exit status of the others of its PID namespace is taken.
    pub fn alive(self) -> bool {
        let same = start_time(self.pid).is_ok_and(|start| start == self.start);
        same && fs::read_link(format!("/proc/{}/ns/net", self.pid)).is_ok()
    }

    /// Kills it and waits until it is gone. A process that has ended is fine.
    pub fn end(self) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => bail!("cannot kill process {}: {error}", self.pid),
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.alive() {
            if Instant::now() > deadline {
                bail!("process {} does not end after SIGKILL", self.pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Lets a child live on by itself; its exit status is taken when it ends, because a PID
/// namespace ends only when that has happened for all of its processes.
pub fn detach(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name may hold spaces and brackets: count from the last bracket.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace();
    if fields.next() == Some("Z") {
        return Err(io::ErrorKind::NotFound.into());
    }
    fields
        .nth(18)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_for_one_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        process.record(&file).unwrap();
        assert_eq!(Process::recorded(&file), Some(process));
        let other = Process {
            start: process.start + 1,
            ..process
        };
        assert!(!other.alive());
        other.end().unwrap();
        assert!(process.alive());
        process.end().unwrap();
        assert_eq!(Process::recorded(&file), None);
        let _ = child.wait();
    }
}
