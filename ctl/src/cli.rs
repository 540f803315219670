//! The tree of commands.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    archive, cluster, completion, config, container, copy, doctor, events, exec, image, info,
    inspect, lifecycle, logs, migrate, network, node, ps, pull, registry, run, secret, service,
    stack, stats, swarm, system, visualizer, volume,
};
use crate::failure::Failure;
use crate::flags::boolean;
use crate::session::Session;

/// Containers that talk across hosts.
#[derive(Parser, Debug)]
#[command(
    name = "ovnctl",
    version,
    disable_help_subcommand = true,
    disable_version_flag = true,
    override_usage = "ovnctl [OPTIONS] COMMAND"
)]
pub struct Cli {
    /// Daemon to talk to: unix:///path or tcp://host:port (also OVERNET_HOST, DOCKER_HOST)
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Option<String>,
    /// Print the calls that are made
    #[arg(short = 'D', long)]
    pub debug: bool,
    #[command(flatten)]
    pub tls: crate::client::TlsFlags,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Top,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Top {
    Attach(lifecycle::AttachArgs),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    Completion(completion::CompletionArgs),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[command(subcommand)]
    Container(Box<container::ContainerCommand>),
    Cp(copy::CopyArgs),
    Create(Box<run::CreateArgs>),
    Diff(archive::DiffArgs),
    Doctor(doctor::DoctorArgs),
    Events(events::EventsArgs),
    Exec(exec::ExecArgs),
    Export(archive::ExportArgs),
    History(image::HistoryArgs),
    #[command(subcommand)]
    Image(image::ImageCommand),
    Images(image::LsArgs),
    Import(archive::ImportArgs),
    Info(info::InfoArgs),
    Inspect(inspect::InspectArgs),
    Kill(lifecycle::KillArgs),
    Load(archive::LoadArgs),
    Login(registry::LoginArgs),
    Logout(registry::LogoutArgs),
    Logs(logs::LogsArgs),
    #[command(hide = true)]
    Man(completion::ManArgs),
    Migrate(migrate::MigrateArgs),
    #[command(subcommand)]
    Network(network::NetworkCommand),
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Freeze containers
    Pause(lifecycle::NamesArgs),
    Port(lifecycle::PortArgs),
    Ps(ps::PsArgs),
    Pull(pull::PullArgs),
    Push(image::PushArgs),
    Rename(lifecycle::RenameArgs),
    /// Stop containers and start them again
    Restart(lifecycle::StopArgs),
    Rm(lifecycle::RmArgs),
    Rmi(image::RmArgs),
    Run(Box<run::RunArgs>),
    Save(archive::SaveArgs),
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    #[command(subcommand)]
    Service(service::ServiceCommand),
    #[command(subcommand)]
    Stack(stack::StackCommand),
    Start(lifecycle::StartArgs),
    Stats(stats::StatsArgs),
    Stop(lifecycle::StopArgs),
    #[command(subcommand)]
    Swarm(swarm::SwarmCommand),
    #[command(subcommand)]
    System(system::SystemCommand),
    Tag(image::TagArgs),
    Top(lifecycle::TopArgs),
    /// Let frozen containers go on
    Unpause(lifecycle::NamesArgs),
    Update(lifecycle::UpdateArgs),
    Version(info::VersionArgs),
    Visualizer(visualizer::VisualizerArgs),
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Wait until containers have ended and print their exit statuses
    Wait(lifecycle::NamesArgs),
}

/// Help, the version, or a wrong command line.
#[derive(Debug)]
pub struct Stop {
    /// Exit status: 0 for help, else as Docker's.
    pub status: i32,
    /// What to print.
    pub text: String,
}

/// The tree as help shows it.
pub fn command() -> Command {
    let command = Cli::command();
    let help = overview(&command);
    command.override_help(help)
}

/// Reads a command line; the second value is the name of the command.
pub fn parse(arguments: &[OsString]) -> Result<(Cli, Vec<String>), Stop> {
    let lenient = docker_style(command());
    match lenient.try_get_matches_from(arguments) {
        Ok(matches) => {
            let mut words = Vec::new();
            let mut inner = matches.subcommand();
            while let Some((word, matches)) = inner {
                words.push(word.to_owned());
                inner = matches.subcommand();
            }
            match Cli::from_arg_matches(&matches) {
                Ok(cli) => Ok((cli, words)),
                Err(error) => Err(Stop {
                    status: 1,
                    text: error.to_string(),
                }),
            }
        }
        Err(error) => Err(stop(&error, arguments)),
    }
}

fn stop(error: &clap::Error, arguments: &[OsString]) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // The plain tree prints `--rm`, the lenient one `--rm[=<RM>]`.
            let plain = command()
                .args_override_self(true)
                .try_get_matches_from(arguments)
                .err();
            let plain = plain.filter(|e| e.kind() == error.kind());
            let text = plain.as_ref().unwrap_or(error).to_string();
            Stop {
                status: i32::from(error.kind() != ErrorKind::DisplayHelp),
                text,
            }
        }
        ErrorKind::DisplayVersion => Stop {
            status: 0,
            text: error.to_string(),
        },
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument => Stop {
            status: 1,
            text: error.to_string(),
        },
        // A word too many is no flag.
        ErrorKind::UnknownArgument if !is_about_a_flag(error) => Stop {
            status: 1,
            text: error.to_string(),
        },
        // Docker's status for flags it does not know or cannot read.
        _ => Stop {
            status: 125,
            text: error.to_string(),
        },
    }
}

fn is_about_a_flag(error: &clap::Error) -> bool {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word.starts_with('-'),
        _ => true,
    }
}

/// Go's habits: `--rm=false` is allowed, the last of several wins, a value may begin with a dash.
fn docker_style(command: Command) -> Command {
    command
        .args_override_self(true)
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .value_parser(boolean),
            ArgAction::Set | ArgAction::Append
                if !arg.is_positional() && !arg.is_require_equals_set() =>
            {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        })
        .mut_subcommands(docker_style)
}

const GROUPS: &[(&str, &[&str])] = &[
    (
        "Common Commands",
        &[
            "run", "exec", "ps", "pull", "push", "images", "login", "logout", "version", "info",
        ],
    ),
    (
        "Cluster Commands",
        &[
            "swarm",
            "node",
            "service",
            "stack",
            "network",
            "secret",
            "config",
            "cluster",
            "doctor",
            "visualizer",
        ],
    ),
    (
        "Management Commands",
        &["container", "image", "system", "volume"],
    ),
];

fn overview(command: &Command) -> String {
    let mut text =
        String::from("Usage:  ovnctl [OPTIONS] COMMAND\n\nContainers that talk across hosts\n");
    let mut section = |title: &str, names: &[&str]| {
        let _ = write!(text, "\n{title}:\n");
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(|c| c.get_about().map(ToString::to_string));
            let _ = writeln!(text, "  {name:<11} {}", about.unwrap_or_default());
        }
    };
    for (title, names) in GROUPS {
        section(title, names);
    }
    let rest: Vec<&str> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(Command::get_name)
        .filter(|name| !GROUPS.iter().any(|(_, names)| names.contains(name)))
        .collect();
    section("Commands", &rest);
    text.push_str(
        "\nGlobal Options:\n  -H, --host HOST   Daemon to talk to: unix:///path or tcp://host:port\n                    \
         (also OVERNET_HOST, DOCKER_HOST; default unix:///run/overnet/ovnd.sock)\n  \
         -D, --debug       Print the calls that are made\n      --tlsverify   Speak TLS with a tcp:// daemon (also \
         DOCKER_TLS_VERIFY)\n      --tlscacert, --tlscert, --tlskey FILE\n                    \
         Its certificates (default: in DOCKER_CERT_PATH)\n  -v, --version     Print the version\n\n\
         A first cluster:\n  ovnctl swarm init --advertise-addr ADDRESS     on the first host\n  \
         ovnctl network create -d overlay --attachable ch03\n  \
         ovnctl run -d --name api --network ch03 IMAGE\n\n\
         Run 'ovnctl COMMAND --help' for more information on a command.\n",
    );
    text
}

/// Runs a command.
pub async fn dispatch(session: &Session, command: Top) -> Result<(), Failure> {
    match command {
        Top::Attach(args) => lifecycle::attach(session, args).await,
        Top::Cluster(inner) => cluster::run(session, inner).await,
        Top::Completion(args) => completion::completion(session, &args),
        Top::Config(inner) => config::run(session, inner).await,
        Top::Container(inner) => container::dispatch(session, *inner).await,
        Top::Cp(args) => copy::copy(session, args).await,
        Top::Create(args) => run::create(session, *args).await,
        Top::Diff(args) => archive::diff(session, args).await,
        Top::Doctor(args) => doctor::doctor(session, args).await,
        Top::Events(args) => events::events(session, args).await,
        Top::Exec(args) => exec::exec(session, args).await,
        Top::Export(args) => archive::export(session, args).await,
        Top::History(args) => image::history(session, args).await,
        Top::Image(inner) => image::run(session, inner).await,
        Top::Images(args) => image::ls(session, args).await,
        Top::Import(args) => archive::import(session, args).await,
        Top::Info(args) => info::info(session, args).await,
        Top::Inspect(args) => inspect::inspect(session, args).await,
        Top::Kill(args) => lifecycle::kill(session, args).await,
        Top::Load(args) => archive::load(session, args).await,
        Top::Login(args) => registry::login(session, args).await,
        Top::Logout(args) => registry::logout(session, args),
        Top::Logs(args) => logs::logs(session, args).await,
        Top::Man(args) => completion::man(&args),
        Top::Migrate(args) => migrate::run(session, args).await,
        Top::Network(inner) => network::run(session, inner).await,
        Top::Node(inner) => node::run(session, inner).await,
        Top::Pause(args) => lifecycle::plain(session, args, "pause").await,
        Top::Port(args) => lifecycle::port(session, args).await,
        Top::Ps(args) => ps::ps(session, args).await,
        Top::Pull(args) => pull::command(session, args).await,
        Top::Push(args) => image::push(session, args).await,
        Top::Rename(args) => lifecycle::rename(session, args).await,
        Top::Restart(args) => lifecycle::stop(session, args, "restart").await,
        Top::Rm(args) => lifecycle::rm(session, args).await,
        Top::Rmi(args) => image::rm(session, args).await,
        Top::Run(args) => run::run(session, *args).await,
        Top::Save(args) => archive::save(session, args).await,
        Top::Secret(inner) => secret::run(session, inner).await,
        Top::Service(inner) => service::run(session, inner).await,
        Top::Stack(inner) => stack::run(session, inner).await,
        Top::Start(args) => lifecycle::start(session, args).await,
        Top::Stats(args) => stats::stats(session, args).await,
        Top::Stop(args) => lifecycle::stop(session, args, "stop").await,
        Top::Swarm(inner) => swarm::run(session, inner).await,
        Top::System(inner) => system::run(session, inner).await,
        Top::Tag(args) => image::tag(session, args).await,
        Top::Top(args) => lifecycle::top(session, args).await,
        Top::Unpause(args) => lifecycle::plain(session, args, "unpause").await,
        Top::Update(args) => lifecycle::update(session, args).await,
        Top::Version(args) => info::version(session, args).await,
        Top::Visualizer(args) => visualizer::run(session, args).await,
        Top::Volume(inner) => volume::run(session, inner).await,
        Top::Wait(args) => lifecycle::wait(session, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
        docker_style(command()).debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn check(command: &Command, path: &str) {
            for inner in command.get_subcommands() {
                let path = format!("{path} {}", inner.get_name());
                assert!(inner.get_about().is_some(), "{path} has no description");
                for arg in inner.get_arguments() {
                    assert!(
                        arg.get_help().is_some(),
                        "{path} {} has no description",
                        arg.get_id()
                    );
                }
                check(inner, &path);
            }
        }
        check(&command(), "ovnctl");
    }
}
