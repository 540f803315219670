//! `secret create`, `ls`, `inspect`, `rm`, and what `config` shares with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{ListFlags, joined_pairs, natural_key, text};
use crate::failure::Failure;
use crate::flags::service::edit::put;
use crate::flags::service::value::label;
use crate::flags::{Filters, pairs};
use crate::output::Listing;
use crate::output::when::{moment_text, since};
use crate::session::Session;

/// Manage secrets: passwords and keys that only the tasks that need them get
#[derive(Subcommand, Debug)]
pub enum SecretCommand {
    Create(CreateArgs),
    /// Show what is known of secrets; their content is never shown
    Inspect(InspectArgs),
    /// List secrets
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove secrets that no service uses
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Create a secret from a file or from standard input
///
/// Its content cannot be changed later: make one with a new name and update the service.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl secret create db-password ./password.txt\n  printf %s \"$PASSWORD\" | ovnctl secret create db-password -"
)]
pub struct CreateArgs {
    /// Driver that holds the content
    #[arg(short, long, value_name = "NAME")]
    driver: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<String>,
    /// Fill in templates in the content: golang
    #[arg(long, value_name = "NAME")]
    template_driver: Option<String>,
    /// Name
    #[arg(value_name = "SECRET")]
    name: String,
    /// File with the content, - for standard input
    #[arg(value_name = "FILE|-")]
    file: Option<String>,
}

/// The flags of `inspect` of both.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print it for people
    #[arg(long)]
    pretty: bool,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// The flags of `ls` of both.
#[derive(Args, Debug)]
pub struct LsArgs {
    #[command(flatten)]
    list: ListFlags,
}

/// The names of `rm` of both.
#[derive(Args, Debug)]
pub struct RmArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// The columns of `secret ls`.
pub const SECRETS: Listing = Listing {
    columns: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Labels", "LABELS"),
    ],
    quiet: "{{.ID}}",
};

/// What is different between secrets and configs.
pub struct Kind {
    /// `secrets`, as in the API's paths.
    pub path: &'static str,
    /// The key of the list's format in Docker's client settings.
    pub format: &'static str,
    /// The columns.
    pub listing: &'static Listing,
}

const SECRET: Kind = Kind {
    path: "secrets",
    format: "secretFormat",
    listing: &SECRETS,
};

/// Runs one of the group.
pub async fn run(session: &Session, command: SecretCommand) -> Result<(), Failure> {
    match command {
        SecretCommand::Create(args) => {
            let data = match (&args.driver, &args.file) {
                (Some(_), Some(_)) => {
                    return Err(Failure::new(
                        "when using secret driver secret data must be empty",
                    ));
                }
                (Some(_), None) => None,
                (None, None) => {
                    return Err(Failure::new(format!(
                        "the content of secret {} is missing: give a file, or - for standard input",
                        args.name
                    )));
                }
                (None, Some(file)) => Some(content(session, file).await?),
            };
            let mut body = json!({"Name": args.name, "Labels": pairs(&args.label)});
            if let Some(data) = data {
                body["Data"] = json!(STANDARD.encode(data));
            }
            put(&mut body, &["Driver", "Name"], json!(args.driver));
            put(
                &mut body,
                &["Templating", "Name"],
                json!(args.template_driver),
            );
            let id = create(session, SECRET.path, &body).await?;
            session.line(&id)
        }
        SecretCommand::Inspect(args) => inspect(session, &SECRET, args).await,
        SecretCommand::Ls(args) => ls(session, &SECRET, args).await,
        SecretCommand::Rm(args) => rm(session, &SECRET, args).await,
    }
}

/// Makes a secret or a config (`path` is `secrets` or `configs`) and returns its id.
pub async fn create(session: &Session, path: &str, body: &Value) -> Result<String, Failure> {
    let client = session.client().await?;
    let call = client.post(format!("/{path}/create")).json(body);
    Ok(text(&call.value().await?, "/ID").to_owned())
}

/// The bytes of a file, or of standard input for `-`.
pub async fn content(session: &Session, file: &str) -> Result<Vec<u8>, Failure> {
    let read = if file == "-" {
        let mut bytes = Vec::new();
        let mut input = session.io.take_input()?;
        input.read_to_end(&mut bytes).await.map(|_| bytes)
    } else {
        std::fs::read(session.surroundings.directory.join(file))
    };
    read.map_err(|e| Failure::new(format!("error reading content from {file:?}: {e}")))
}

/// The rows of a list of secrets or configs, sorted by name as people count.
pub fn rows(objects: &Value, now: i64) -> Vec<Value> {
    let mut objects: Vec<&Value> = objects.as_array().into_iter().flatten().collect();
    objects.sort_by_cached_key(|object| natural_key(text(object, "/Spec/Name")));
    objects
        .into_iter()
        .map(|object| {
            json!({
                "ID": text(object, "/ID"),
                "Name": text(object, "/Spec/Name"),
                "Driver": text(object, "/Spec/Driver/Name"),
                "CreatedAt": since(text(object, "/CreatedAt"), now),
                "UpdatedAt": since(text(object, "/UpdatedAt"), now),
                "Labels": joined_pairs(object.pointer("/Spec/Labels")),
            })
        })
        .collect()
}

/// `ls` of either.
pub async fn ls(session: &Session, kind: &Kind, args: LsArgs) -> Result<(), Failure> {
    let filters = Filters::parse(&args.list.filter)?;
    let call = session.client().await?.get(format!("/{}", kind.path));
    let objects = call.filters(&filters).value().await?;
    let format = session.format(args.list.format.as_deref(), kind.format, args.list.quiet)?;
    let rows = rows(&objects, session.now());
    session.print(
        &kind
            .listing
            .render(&rows, format.as_deref(), args.list.quiet)?,
    )
}

/// `rm` of either.
pub async fn rm(session: &Session, kind: &Kind, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.names, async |name| {
            client
                .delete(format!("/{}/{name}", kind.path))
                .done()
                .await?;
            Ok(name.to_owned())
        })
        .await
}

/// `inspect` of either.
pub async fn inspect(session: &Session, kind: &Kind, args: InspectArgs) -> Result<(), Failure> {
    let given = args.format.as_deref().filter(|f| !f.trim().is_empty());
    if args.pretty && given.is_some() {
        return Err(Failure::new(
            "--format is incompatible with human friendly format",
        ));
    }
    let client = session.client().await?;
    let fetch = async |name: &str| Ok(client.get(format!("/{}/{name}", kind.path)).value().await?);
    if !args.pretty && given != Some("pretty") {
        return super::inspect::print_all(session, &args.names, given, fetch).await;
    }
    for name in &args.names {
        let object = fetch(name).await?;
        session.print(&pretty(&object, kind))?;
    }
    Ok(())
}

/// The page of one, with the blanks Docker's client puts after the labels.
fn pretty(object: &Value, kind: &Kind) -> String {
    let secret = kind.path == SECRET.path;
    let [id, name, created, updated] = if secret {
        [
            "ID:              ",
            "Name:              ",
            "Created at:        ",
            "Updated at:        ",
        ]
    } else {
        [
            "ID:\t\t\t",
            "Name:\t\t\t",
            "Created at:            \t",
            "Updated at:            \t",
        ]
    };
    let mut lines = vec![
        format!("{id}{}", text(object, "/ID")),
        format!("{name}{}", text(object, "/Spec/Name")),
    ];
    let labels = object.pointer("/Spec/Labels").and_then(Value::as_object);
    let mut labels: Vec<_> = labels.into_iter().flatten().collect();
    labels.sort_by_key(|(key, _)| *key);
    if !labels.is_empty() {
        lines.push("Labels:".to_owned());
    }
    for (key, value) in labels {
        let value = value.as_str().unwrap_or_default();
        let equals = if value.is_empty() { "" } else { "=" };
        lines.push(format!(" - {key}{equals}{value}"));
    }
    if secret {
        let driver = text(object, "/Spec/Driver/Name");
        lines.push(format!("Driver:            {driver}"));
    }
    for (label, pointer) in [(created, "/CreatedAt"), (updated, "/UpdatedAt")] {
        lines.push(format!("{label}{}", moment_text(text(object, pointer))));
    }
    if !secret {
        // What is no base64 or no text is shown as it came.
        let data = text(object, "/Spec/Data");
        let bytes = STANDARD.decode(data).ok();
        let plain = bytes.and_then(|b| String::from_utf8(b).ok());
        lines.push("Data:".to_owned());
        lines.push(plain.unwrap_or_else(|| data.to_owned()));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let secrets = json!([
            {"ID": "b2b2b2b2b2b2b2b2b2b2b2b2b", "CreatedAt": "2023-11-11T22:13:20Z", "UpdatedAt": "2023-11-14T22:13:20Z",
             "Spec": {"Name": "pw10", "Labels": {"x": "1"}, "Driver": {"Name": "vault"}}},
            {"ID": "a1a1a1a1a1a1a1a1a1a1a1a1a", "CreatedAt": "2023-11-14T22:13:20Z", "UpdatedAt": "2023-11-14T22:13:20Z",
             "Spec": {"Name": "pw2", "Labels": {}}},
        ]);
        let shown = SECRETS
            .render(&rows(&secrets, 1_700_000_060), None, false)
            .unwrap();
        insta::assert_snapshot!(shown, @r"
        ID                          NAME      DRIVER    CREATED              UPDATED
        a1a1a1a1a1a1a1a1a1a1a1a1a   pw2                 About a minute ago   About a minute ago
        b2b2b2b2b2b2b2b2b2b2b2b2b   pw10      vault     3 days ago           About a minute ago
        ");
    }
}
