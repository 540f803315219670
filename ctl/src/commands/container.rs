//! The `container` group: the long names of everyday commands.

use clap::Subcommand;

use super::{archive, copy, exec, inspect, lifecycle, logs, ps, run, stats};
use crate::failure::Failure;
use crate::session::Session;

/// Manage containers
#[derive(Subcommand, Debug)]
pub enum ContainerCommand {
    Attach(lifecycle::AttachArgs),
    Cp(copy::CopyArgs),
    Create(Box<run::CreateArgs>),
    Diff(archive::DiffArgs),
    Exec(exec::ExecArgs),
    Export(archive::ExportArgs),
    /// Show everything known of containers
    Inspect(inspect::TypedArgs),
    Kill(lifecycle::KillArgs),
    Logs(logs::LogsArgs),
    #[command(alias = "list", alias = "ps")]
    Ls(ps::PsArgs),
    /// Freeze containers
    Pause(lifecycle::NamesArgs),
    Port(lifecycle::PortArgs),
    Prune(lifecycle::PruneArgs),
    Rename(lifecycle::RenameArgs),
    /// Stop containers and start them again
    Restart(lifecycle::StopArgs),
    #[command(alias = "remove")]
    Rm(lifecycle::RmArgs),
    Run(Box<run::RunArgs>),
    Start(lifecycle::StartArgs),
    Stats(stats::StatsArgs),
    Stop(lifecycle::StopArgs),
    Top(lifecycle::TopArgs),
    /// Let frozen containers go on
    Unpause(lifecycle::NamesArgs),
    Update(lifecycle::UpdateArgs),
    /// Wait until containers have ended and print their exit statuses
    Wait(lifecycle::NamesArgs),
}

/// Runs one of them.
pub async fn dispatch(session: &Session, command: ContainerCommand) -> Result<(), Failure> {
    match command {
        ContainerCommand::Attach(args) => lifecycle::attach(session, args).await,
        ContainerCommand::Cp(args) => copy::copy(session, args).await,
        ContainerCommand::Create(args) => run::create(session, *args).await,
        ContainerCommand::Diff(args) => archive::diff(session, args).await,
        ContainerCommand::Exec(args) => exec::exec(session, args).await,
        ContainerCommand::Export(args) => archive::export(session, args).await,
        ContainerCommand::Inspect(args) => inspect::typed(session, args, "container").await,
        ContainerCommand::Kill(args) => lifecycle::kill(session, args).await,
        ContainerCommand::Logs(args) => logs::logs(session, args).await,
        ContainerCommand::Ls(args) => ps::ps(session, args).await,
        ContainerCommand::Pause(args) => lifecycle::plain(session, args, "pause").await,
        ContainerCommand::Port(args) => lifecycle::port(session, args).await,
        ContainerCommand::Prune(args) => lifecycle::prune(session, args).await,
        ContainerCommand::Rename(args) => lifecycle::rename(session, args).await,
        ContainerCommand::Restart(args) => lifecycle::stop(session, args, "restart").await,
        ContainerCommand::Rm(args) => lifecycle::rm(session, args).await,
        ContainerCommand::Run(args) => run::run(session, *args).await,
        ContainerCommand::Start(args) => lifecycle::start(session, args).await,
        ContainerCommand::Stats(args) => stats::stats(session, args).await,
        ContainerCommand::Stop(args) => lifecycle::stop(session, args, "stop").await,
        ContainerCommand::Top(args) => lifecycle::top(session, args).await,
        ContainerCommand::Unpause(args) => lifecycle::plain(session, args, "unpause").await,
        ContainerCommand::Update(args) => lifecycle::update(session, args).await,
        ContainerCommand::Wait(args) => lifecycle::wait(session, args).await,
    }
}
