//! The `registry` host's two programs: Debian's docker-registry and the lab's name server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    cgroup,
    daemon::tail,
    namespace::{self, within},
    process::{Process, detach},
    state,
};

/// Name of the host.
pub const NAME: &str = "registry";
pub const PORT: u16 = 5000;

/// Starts both; `hosts` are the names to serve.
pub fn start(lab_program: &Path, lab: &str, dir: &Path, init: Process) -> Result<()> {
    start_registry(lab, dir, init)?;
    let mut resolver = Command::new(lab_program);
    resolver.arg("resolver").arg(dir.join("underlay.hosts"));
    spawn(lab, dir, init, resolver, "resolver")?;
    Ok(())
}

/// Starts docker-registry alone, and waits until it answers.
pub fn start_registry(lab: &str, dir: &Path, init: Process) -> Result<()> {
    let data = dir.join("data");
    fs::create_dir_all(&data)?;
    let config = dir.join("registry.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: ':{PORT}'}}\n",
            data.display()
        ),
    )?;
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(&config);
    let process = spawn(lab, dir, init, registry, "docker-registry")?;
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let deadline = Instant::now() + Duration::from_secs(20);
    while within(init, || TcpStream::connect(address))?.is_err() {
        if Instant::now() > deadline || !process.alive() {
            bail!(
                "the registry does not start: {}",
                tail(&dir.join("docker-registry.log"), 5)
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Ends docker-registry; its data stays.
pub fn stop_registry(dir: &Path) -> Result<()> {
    let file = dir.join("docker-registry");
    Process::recorded(&file)
        .context("the registry does not run")?
        .end()
}

fn spawn(
    lab: &str,
    dir: &Path,
    init: Process,
    mut command: Command,
    name: &str,
) -> Result<Process> {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{name}.log")))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its tracing would look for a collector.
        .env("OTEL_TRACES_EXPORTER", "none")
        .process_group(0);
    let child = namespace::spawn(init, &cgroup::procs(lab, NAME)?, None, command)?;
    let process = Process::of(child.id() as i32).with_context(|| format!("{name} has gone"))?;
    process.record(&dir.join(name))?;
    detach(child);
    Ok(process)
}

/// The registry host's first process.
pub fn init(dir: &Path) -> Result<Process> {
    state::init_of(dir, NAME).context("host registry is down")
}
