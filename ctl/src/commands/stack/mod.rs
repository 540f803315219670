//! `stack deploy`, `ls`, `ps`, `services`, `rm`, `config`, `diff`.

mod apply;
mod compare;
mod config;
mod decide;
mod deploy;
mod diff;
mod explain;
mod list;
mod observe;
mod read;
mod remove;
mod version;

use clap::Subcommand;

use crate::compose::convert::NAMESPACE;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::session::Session;

/// Manage stacks: services, networks, secrets and configs that belong together
#[derive(Subcommand, Debug)]
pub enum StackCommand {
    Config(config::ConfigArgs),
    #[command(alias = "up")]
    Deploy(deploy::DeployArgs),
    Diff(diff::DiffArgs),
    #[command(alias = "list")]
    Ls(list::LsArgs),
    Ps(list::PsArgs),
    #[command(aliases = ["down", "remove"])]
    Rm(remove::RmArgs),
    Services(list::ServicesArgs),
}

/// Runs one of them.
pub async fn run(session: &Session, command: StackCommand) -> Result<(), Failure> {
    match command {
        StackCommand::Config(args) => config::config(session, args).await,
        StackCommand::Deploy(args) => deploy::deploy(session, args).await,
        StackCommand::Diff(args) => diff::diff(session, args).await,
        StackCommand::Ls(args) => list::ls(session, args).await,
        StackCommand::Ps(args) => list::ps(session, args).await,
        StackCommand::Rm(args) => remove::rm(session, args).await,
        StackCommand::Services(args) => list::services(session, args).await,
    }
}

/// The filter that finds what belongs to a stack.
fn of_stack(name: &str) -> Filters {
    let mut filters = Filters::default();
    filters.add("label", &format!("{NAMESPACE}={name}"));
    filters
}
