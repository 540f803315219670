//! `lab`: brings hosts up on this machine, and goes into them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tests::{
    keeper::{self, KeeperOptions},
    lab::{self, Host, Lab, Options, default_dir, exit_code},
};

#[derive(Parser)]
#[command(
    about = "Overnet on several hosts, all of them on this machine",
    after_help = "$OVN_LAB is the lab's folder (default /var/tmp/ovn-lab); labs in different folders \
                  stand side by side. HOST/ovn.sock in it is HOST's API socket."
)]
struct Arguments {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Bring the lab up: hosts manager01.., worker01.., registry and client
    Up {
        #[arg(long, default_value_t = 1, value_name = "M")]
        managers: u8,
        #[arg(long, default_value_t = 3, value_name = "W")]
        workers: u8,
        /// MTU of the underlay
        #[arg(long, default_value_t = 1500, value_name = "N")]
        mtu: u32,
        /// Start the daemons, but do not form a cluster
        #[arg(long)]
        no_cluster: bool,
        /// Start no daemons either
        #[arg(long)]
        no_daemons: bool,
        /// One more flag for every ovnd; may be given several times
        #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
        daemon_arg: Vec<String>,
    },
    /// Run ovnctl on a host
    Ctl {
        host: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the stock docker command line against a host
    Docker {
        host: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a program on a host
    Exec {
        host: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// SIGKILL to a host's ovnd
    Kill { host: String },
    /// Start a host's ovnd, after a crash the host itself
    Start { host: String },
    /// The host is gone: daemon, containers, namespaces
    Crash { host: String },
    /// The switch passes nothing between two hosts any more
    Partition { a: String, b: String },
    /// Take all partitions back
    Heal,
    /// Show hosts and daemons
    Status,
    /// End and delete everything
    Down,
    #[command(hide = true)]
    HostInit { description: PathBuf },
    #[command(hide = true)]
    Keeper {
        socket: PathBuf,
        log: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    #[command(hide = true)]
    Resolver { names: PathBuf },
}

fn main() -> ExitCode {
    match run(Arguments::parse().word) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(word: Word) -> Result<u8> {
    let open = || Lab::open(&default_dir());
    let host = |name: &str| open()?.find(name);
    match word {
        Word::Up {
            managers,
            workers,
            mtu,
            no_cluster,
            no_daemons,
            daemon_arg,
        } => {
            let options = Options {
                managers,
                workers,
                mtu,
                cluster: !no_cluster && !no_daemons,
                daemons: !no_daemons,
                daemon_args: daemon_arg,
                ..Options::default()
            };
            Lab::up(options)?.leave_up();
        }
        Word::Ctl { host: name, args } => {
            let host = host(&name)?;
            return into_host(&host, host.ctl_command(args)?);
        }
        Word::Docker { host: name, args } => {
            let host = host(&name)?;
            return into_host(&host, host.docker_command(args)?);
        }
        Word::Exec {
            host: name,
            command,
        } => {
            let (program, args) = command.split_first().context("no program given")?;
            let mut command = Command::new(program);
            command.args(args);
            return into_host(&host(&name)?, command);
        }
        Word::Kill { host: name } => daemon_host(&host(&name)?)?.kill()?,
        Word::Start { host: name } => host(&name)?.start()?,
        Word::Crash { host: name } => host(&name)?.crash()?,
        Word::Partition { a, b } => open()?.partition(&a, &b)?,
        Word::Heal => open()?.heal()?,
        Word::Status => print!("{}", open()?.status()),
        Word::Down => lab::down(&default_dir())?,
        Word::HostInit { description } => lab::host_init(&description)?,
        Word::Keeper {
            socket,
            log,
            command,
        } => keeper::run(KeeperOptions {
            command,
            env: BTreeMap::new(),
            control_socket: socket,
            log_file: log,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
            watchdog: None,
        })?,
        Word::Resolver { names } => lab::resolver(&std::fs::read_to_string(names)?)?,
    }
    Ok(0)
}

fn daemon_host(host: &Host) -> Result<&Host> {
    if host.member().role.has_daemon() {
        return Ok(host);
    }
    bail!(
        "host {} runs no ovnd; to end the host itself: `lab crash {}`",
        host.name(),
        host.name()
    )
}

/// Runs a program on a host with this terminal; its exit status becomes ours.
fn into_host(host: &Host, command: Command) -> Result<u8> {
    let mut child = host.spawn(command)?;
    // An interrupt goes to the program too, which decides what it means.
    // SAFETY: setting a disposition, no handler of ours runs.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    Ok(exit_code(child.wait()?) as u8)
}
