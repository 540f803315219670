//! A lab as a whole: up, down, partitions.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Host, Role, cgroup, daemon,
    host_init::{self, HostSpec},
    members::members,
    registry,
    state::{self, State},
    switch,
};
use crate::images;

/// How a lab is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub dir: PathBuf,
    pub managers: u8,
    pub workers: u8,
    /// Of the underlay.
    pub mtu: u32,
    /// Whether `swarm init` and `swarm join` are done.
    pub cluster: bool,
    /// Whether ovnd is started at all.
    pub daemons: bool,
    /// Flags for every ovnd after the lab's own.
    pub daemon_args: Vec<String>,
    /// `NAME=value` for every ovnd.
    pub environment: Vec<String>,
    /// The ovnd of all hosts, until one is given another: [`Host::exchange_daemon`]. Absent: this
    /// build's, for good.
    pub daemon: Option<PathBuf>,
    /// Compose files shown as /stack on managers.
    pub stack: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: default_dir(),
            managers: 1,
            workers: 3,
            mtu: 1500,
            cluster: true,
            daemons: true,
            daemon_args: Vec::new(),
            environment: Vec::new(),
            daemon: None,
            stack: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/stack")),
        }
    }
}

impl Options {
    /// A lab for the test binary `name`, beside any other.
    pub fn for_test(name: &str) -> Self {
        Self {
            dir: format!("/var/tmp/ovn-lab-{name}").into(),
            ..Self::default()
        }
    }
}

/// `$OVN_LAB`, else /var/tmp/ovn-lab.
pub fn default_dir() -> PathBuf {
    std::env::var_os("OVN_LAB").map_or_else(|| PathBuf::from("/var/tmp/ovn-lab"), PathBuf::from)
}

/// What is kept between two ups, shared by all labs in one place: images, the docker program.
pub fn cache_dir(lab: &Path) -> PathBuf {
    lab.parent()
        .unwrap_or(Path::new("/var/tmp"))
        .join("ovn-lab.cache")
}

/// A program of this workspace: beside the running one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut folder = own.parent().context("this program lies nowhere")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("this program lies nowhere")?;
    }
    let file = folder.join(name);
    ensure!(
        file.is_file(),
        "{} is missing: build it with `cargo build --release --workspace`",
        file.display()
    );
    Ok(file)
}

/// A lab. Goes down when dropped, unless it was [left up](Lab::leave_up).
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    state: State,
    down_on_drop: bool,
}

impl Lab {
    /// Brings a lab up; whatever stands in the same folder goes down first. On failure nothing
    /// stays.
    pub fn up(options: Options) -> Result<Self> {
        let start = Instant::now();
        let say = |what: &str| eprintln!("lab {:6.2} s  {what}", start.elapsed().as_secs_f64());
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a lab needs root: it makes namespaces"
        );
        ensure!(
            (1280..=65535).contains(&options.mtu),
            "--mtu is 1280 to 65535"
        );
        let dir = state::absolute(&options.dir)?;
        down(&dir)?;
        let daemons = options.daemons;
        let state = State {
            id: state::id_of(&dir),
            mtu: options.mtu,
            members: members(options.managers, options.workers)?,
            daemon_args: options.daemon_args.clone(),
            environment: options.environment.clone(),
            daemons,
            daemon: options.daemon.as_deref().map(state::absolute).transpose()?,
            stack: state::absolute(&options.stack)?,
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let _lock = state::lock(&dir)?;
        state.save(&dir)?;
        let lab = Self {
            dir,
            state,
            down_on_drop: true,
        };
        say(&format!("hosts in {}", lab.dir.display()));
        lab.boot_switch()?;
        let hosts = lab.hosts();
        hosts.iter().try_for_each(Host::boot)?;
        let running: Vec<_> = hosts
            .iter()
            .filter(|h| h.member().role.has_daemon())
            .collect();
        if daemons {
            say("daemons");
            running.iter().try_for_each(|host| host.launch_daemon())?;
        }
        say("registry and images");
        images::restore(&lab.host("registry"), &cache_dir(&lab.dir))?;
        registry::start(
            &binary("lab")?,
            &lab.state.id,
            &lab.host("registry").dir(),
            registry::init(&lab.dir)?,
        )?;
        images::push(&lab.host("registry"), &cache_dir(&lab.dir))?;
        if daemons {
            running.iter().try_for_each(|host| host.await_daemon())?;
            if options.cluster {
                say("swarm init and join");
                lab.form_cluster().inspect_err(|_| lab.print_logs())?;
            }
        }
        say("up");
        Ok(lab)
    }

    /// The lab that stands in `dir`; it stays up when the handle is dropped.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = state::absolute(dir)?;
        let state = State::load(&dir)?;
        Ok(Self {
            dir,
            state,
            down_on_drop: false,
        })
    }

    /// Lets the lab outlive this handle.
    pub fn leave_up(mut self) {
        self.down_on_drop = false;
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All hosts, `registry` and `client` first.
    pub fn hosts(&self) -> Vec<Host> {
        self.state
            .members
            .iter()
            .map(|member| Host::new(&self.dir, &self.state, member))
            .collect()
    }

    /// A host by its name.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        self.find(name).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A host by its name.
    pub fn find(&self, name: &str) -> Result<Host> {
        let member = self.state.members.iter().find(|member| member.name == name);
        let member = member.with_context(|| {
            let names: Vec<_> = self.state.members.iter().map(|m| m.name.as_str()).collect();
            format!("there is no host {name}; there are {}", names.join(", "))
        })?;
        Ok(Host::new(&self.dir, &self.state, member))
    }

    /// Hosts with a daemon.
    pub fn nodes(&self) -> Vec<Host> {
        self.hosts()
            .into_iter()
            .filter(|host| host.member().role.has_daemon())
            .collect()
    }

    /// The switch passes nothing between `a` and `b` any more.
    pub fn partition(&self, a: &str, b: &str) -> Result<()> {
        let (a, b) = (self.find(a)?, self.find(b)?);
        ensure!(a.name() != b.name(), "a host cannot be parted from itself");
        switch::partition(
            &self.dir,
            switch::init(&self.dir)?,
            (a.member(), b.member()),
        )
    }

    /// Takes all partitions back.
    pub fn heal(&self) -> Result<()> {
        switch::heal(&self.dir, switch::init(&self.dir)?)
    }

    /// One line a host: name, address, whether it is up, its daemon.
    pub fn status(&self) -> String {
        let mut text = format!("{:<12}{:<16}{:<7}OVND\n", "HOST", "ADDRESS", "STATE");
        for host in self.hosts() {
            let member = host.member();
            let daemon = match member.role.has_daemon() && host.is_up() {
                true if !self.state.daemons => "not started".to_owned(),
                true => host
                    .daemon_status()
                    .unwrap_or_else(|_| "no keeper".to_owned()),
                false => "-".to_owned(),
            };
            let up = if host.is_up() { "up" } else { "down" };
            let (name, address) = (host.name(), member.address().to_string());
            let _ = writeln!(text, "{name:<12}{address:<16}{up:<7}{daemon}");
        }
        let parted = fs::read_to_string(self.dir.join(switch::NAME).join("partitions"));
        for pair in parted.unwrap_or_default().lines() {
            let name = |mac: &str| {
                let of = self.state.members.iter().find(|member| member.mac() == mac);
                of.map_or("?", |member| &member.name)
            };
            let (from, to) = pair.split_once(' ').unwrap_or_default();
            let _ = writeln!(text, "partition: {} to {}", name(from), name(to));
        }
        text
    }

    /// Takes the lab down and tells how it went.
    pub fn down(mut self) -> Result<()> {
        self.down_on_drop = false;
        down(&self.dir)
    }

    fn boot_switch(&self) -> Result<()> {
        let dir = self.dir.join(switch::NAME);
        fs::create_dir_all(&dir)?;
        let spec = HostSpec {
            lab: self.state.id.clone(),
            name: switch::NAME.into(),
            dir,
            stack: None,
            hosts: super::members::hosts_file(&self.state.members, switch::NAME),
            resolv_conf: String::new(),
            hierarchies: cgroup::hierarchies()?,
        };
        let init = host_init::start(&binary("lab")?, &self.dir, &spec)?;
        switch::prepare(init, self.state.mtu)
    }

    /// What a user types: init on the first manager, join on all others.
    fn form_cluster(&self) -> Result<()> {
        let nodes = self.nodes();
        let (first, rest) = nodes.split_first().context("a lab has a manager")?;
        let address = first.member().address().to_string();
        succeed(first.ctl(["swarm", "init", "--advertise-addr", &address]))?;
        let token = |role| succeed(first.ctl(["swarm", "join-token", "-q", role]));
        let worker = token("worker")?;
        let manager = if rest.iter().any(|h| h.member().role == Role::Manager) {
            token("manager")?
        } else {
            String::new()
        };
        let remote = format!("{address}:2377");
        for host in rest {
            let token = if host.member().role == Role::Manager {
                &manager
            } else {
                &worker
            };
            succeed(host.ctl(["swarm", "join", "--token", token.trim(), &remote]))?;
        }
        Ok(())
    }

    fn print_logs(&self) {
        for host in self.nodes() {
            let log = host.log();
            eprintln!(
                "--- last lines of {}\n{}",
                log.display(),
                daemon::tail(&log, 40)
            );
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.down_on_drop {
            return;
        }
        if std::thread::panicking() {
            self.print_logs();
        }
        if std::env::var_os("OVN_LAB_KEEP").is_some() {
            eprintln!("lab left up in {} (OVN_LAB_KEEP)", self.dir.display());
            return;
        }
        if let Err(error) = take_down(&self.dir) {
            eprintln!("lab {} did not go down: {error:#}", self.dir.display());
        }
    }
}

/// Ends and deletes everything of the lab in `dir`, whatever is left of it. Nothing there is
/// fine; a folder that is no lab is refused.
pub fn down(dir: &Path) -> Result<()> {
    let dir = state::absolute(dir)?;
    let id = state::id_of(&dir);
    if !dir.exists() {
        return cgroup::remove(&id, None);
    }
    let is_lab = State::file(&dir).exists() || fs::read_dir(&dir)?.next().is_none();
    if !is_lab {
        bail!(
            "{} holds no lab: it is left alone; choose another OVN_LAB",
            dir.display()
        );
    }
    let _lock = state::lock(&dir)?;
    take_down(&dir)
}

/// [`down`] for whoever is alone with the folder.
fn take_down(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if let Some(init) = state::init_of(dir, &entry.file_name().to_string_lossy()) {
            init.end()?;
        }
    }
    cgroup::remove(&state::id_of(dir), None)?;
    for entry in fs::read_dir(dir)?.flatten() {
        // lab.json goes last, so that an interrupted `down` can be repeated.
        if entry.path() != State::file(dir) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

fn succeed(output: super::Output) -> Result<String> {
    if output.success() {
        return Ok(output.stdout.trim().to_owned());
    }
    bail!(
        "{}: exit status {}: {}",
        output.command,
        output.status,
        output.stderr.trim()
    )
}
