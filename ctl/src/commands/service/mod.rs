//! `service create`, `update`, `scale`, `rollback`, `rebalance`, `ls`, `ps`, `inspect`, `logs`, `rm`.

mod create;
mod inspect;
mod log_lines;
mod logs;
mod lookup;
mod ls;
mod pretty;
mod ps;
mod published;
mod scale;
pub mod send;
mod status;
mod update;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::session::Session;

pub use lookup::{Wanted, look_up};
pub use ls::{SERVICES, rows, shown_image};
pub use status::with_status;

/// Manage services: what should run, kept running on the hosts of the cluster
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    Create(Box<create::CreateArgs>),
    Inspect(inspect::InspectArgs),
    Logs(logs::LogsArgs),
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Ps(ps::PsArgs),
    Rebalance(scale::RebalanceArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Rollback(scale::RollbackArgs),
    Scale(scale::ScaleArgs),
    Update(Box<update::UpdateArgs>),
}

/// Remove services and their tasks
///
/// The name is free at once; the tasks stop in the background.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl service rm echo")]
pub struct RmArgs {
    /// Names or ids of services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

/// Runs one of them.
pub async fn run(session: &Session, command: ServiceCommand) -> Result<(), Failure> {
    match command {
        ServiceCommand::Create(args) => create::create(session, *args).await,
        ServiceCommand::Inspect(args) => inspect::inspect(session, args).await,
        ServiceCommand::Logs(args) => logs::logs(session, args).await,
        ServiceCommand::Ls(args) => ls::ls(session, args).await,
        ServiceCommand::Ps(args) => ps::ps(session, args).await,
        ServiceCommand::Rebalance(args) => scale::rebalance(session, args).await,
        ServiceCommand::Rm(args) => rm(session, args).await,
        ServiceCommand::Rollback(args) => scale::rollback(session, args).await,
        ServiceCommand::Scale(args) => scale::scale(session, args).await,
        ServiceCommand::Update(args) => update::update(session, *args).await,
    }
}

async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.services, async |name| {
            client.delete(format!("/services/{name}")).done().await?;
            Ok(name.to_owned())
        })
        .await
}
