//! `migrate`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::failure::Failure;
use crate::migrate::{Cluster, Migration, migrate};
use crate::session::Session;

/// Write a running Swarm's services as stack files
///
/// Reads a Docker Swarm through a manager's socket and changes nothing there. Each stack becomes a
/// compose file; the contents of configs lie beside them. Networks and secrets that the files expect are in
/// before.sh, to be looked through and run first: the contents of secrets are in no API.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl --host unix:///var/run/docker.sock migrate --output moved\n  sh moved/before.sh\n  ovnctl stack deploy -c moved/web.yml web"
)]
pub struct MigrateArgs {
    /// Folder for the files; it must not be there yet
    #[arg(short, long, value_name = "FOLDER", default_value = "migrated")]
    output: PathBuf,
}

/// `migrate`.
pub async fn run(session: &Session, args: MigrateArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let list = async |path: &str| -> Result<Vec<Value>, Failure> {
        let answer = client.get(path).value().await?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    };
    let cluster = Cluster {
        services: list("/services").await?,
        networks: list("/networks").await?,
        configs: list("/configs").await?,
        secrets: list("/secrets").await?,
    };
    if cluster.services.is_empty() {
        return Err(Failure::new(
            "there are no services to write: ask a manager of the Swarm, with --host or --context",
        ));
    }
    let migration = migrate(&cluster);
    write(&args.output, &migration)?;
    session.print(&summary(&args.output, &migration))
}

fn write(folder: &Path, migration: &Migration) -> Result<(), Failure> {
    let shown = folder.display();
    fs::create_dir(folder).map_err(|error| {
        Failure::new(format!(
            "the folder {shown} cannot be made: {error}; name another with --output"
        ))
    })?;
    for stack in &migration.stacks {
        put(
            &folder.join(format!("{}.yml", stack.name)),
            stack.text.as_bytes(),
        )?;
    }
    if !migration.configs.is_empty() {
        let configs = folder.join("configs");
        fs::create_dir(&configs).map_err(|error| failed(&configs, &error))?;
        for (name, content) in &migration.configs {
            put(&configs.join(name), content)?;
        }
    }
    if !migration.before.is_empty() {
        let mut script = String::from(
            "#!/bin/sh\n# What the stack files expect to be there.\nset -eu\ncd \"$(dirname \"$0\")\"\n",
        );
        for command in &migration.before {
            let _ = writeln!(script, "{command}");
        }
        put(&folder.join("before.sh"), script.as_bytes())?;
    }
    Ok(())
}

/// For its owner only: environment variables may hold what nobody else should read.
fn put(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(content));
    written.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be written: {error}", path.display()))
}

fn summary(folder: &Path, migration: &Migration) -> String {
    let mut text = String::new();
    let shown = folder.display();
    for remark in &migration.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    if !migration.before.is_empty() {
        let _ = writeln!(text, "look through {shown}/before.sh and run it, then:");
    }
    for stack in &migration.stacks {
        let name = &stack.name;
        let _ = writeln!(text, "ovnctl stack deploy -c {shown}/{name}.yml {name}");
    }
    text
}
