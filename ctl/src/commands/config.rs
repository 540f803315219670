//! `config create`, `ls`, `inspect`, `rm`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;

use super::secret::{self, InspectArgs, Kind, LsArgs, RmArgs};
use crate::failure::Failure;
use crate::flags::pairs;
use crate::flags::service::edit::put;
use crate::flags::service::value::label;
use crate::output::Listing;
use crate::session::Session;

/// Manage configs: files that the tasks of services get
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    Create(CreateArgs),
    /// Show everything known of configs
    Inspect(InspectArgs),
    /// List configs
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove configs that no service uses
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Create a config from a file or from standard input
///
/// Its content cannot be changed later: make one with a new name and update the service.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl config create nginx-conf ./nginx.conf\n  ovnctl config create --template-driver golang env-file ./env.tmpl"
)]
pub struct CreateArgs {
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<String>,
    /// Fill in templates in the content: golang
    #[arg(long, value_name = "NAME")]
    template_driver: Option<String>,
    /// Name
    #[arg(value_name = "CONFIG")]
    name: String,
    /// File with the content, - for standard input
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// The columns of `config ls`.
pub const CONFIGS: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Labels", "LABELS"),
    ],
    quiet: "{{.ID}}",
};

const CONFIG: Kind = Kind {
    path: "configs",
    format: "configFormat",
    listing: &CONFIGS,
};

/// Runs one of the group.
pub async fn run(session: &Session, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Create(args) => {
            let data = secret::content(session, &args.file).await?;
            let mut body = json!({
                "Name": args.name, "Labels": pairs(&args.label), "Data": STANDARD.encode(data),
            });
            put(
                &mut body,
                &["Templating", "Name"],
                json!(args.template_driver),
            );
            let id = secret::create(session, CONFIG.path, &body).await?;
            session.line(&id)
        }
        ConfigCommand::Inspect(args) => secret::inspect(session, &CONFIG, args).await,
        ConfigCommand::Ls(args) => secret::ls(session, &CONFIG, args).await,
        ConfigCommand::Rm(args) => secret::rm(session, &CONFIG, args).await,
    }
}
