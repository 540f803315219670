//! The files of a command, read and converted; what is ignored is told.

use std::collections::BTreeSet;

use clap::Args;
use tokio::io::AsyncReadExt;

use crate::compose::convert::{self, Stack, Surround};
use crate::compose::load::{self, Input, Loaded, Request};
use crate::compose::problem::{Problems, Sources, Warning};
use crate::compose::read::LARGEST;
use crate::failure::Failure;
use crate::session::Session;

/// The files a command works on.
#[derive(Args, Debug, Clone)]
pub struct FileFlags {
    /// Compose file, - for standard input; repeatable, later ones over earlier ones
    #[arg(
        short = 'c',
        long = "compose-file",
        value_name = "FILE",
        required = true,
        value_delimiter = ','
    )]
    pub compose_file: Vec<String>,
    /// Use services of this profile too, * for all (also COMPOSE_PROFILES); repeatable
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
}

/// Files that were read: the merged tree, and everything to show messages with.
pub struct Files {
    /// The merged tree.
    pub loaded: Loaded,
    /// The files.
    pub sources: Sources,
}

/// Reads and merges; `raw` leaves variables alone.
pub async fn files(session: &Session, flags: &FileFlags, raw: bool) -> Result<Files, Failure> {
    let mut inputs = Vec::new();
    for name in &flags.compose_file {
        let text = match name.as_str() {
            "-" => Some(standard_input(session).await?),
            _ => None,
        };
        inputs.push(Input {
            name: name.clone(),
            text,
        });
    }
    let surroundings = &session.surroundings;
    let named = surroundings
        .variables
        .get("COMPOSE_PROFILES")
        .map(String::as_str);
    let profiles: BTreeSet<String> = named
        .unwrap_or_default()
        .split(',')
        .chain(flags.profile.iter().map(String::as_str))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let request = Request {
        files: &inputs,
        directory: &surroundings.directory,
        variables: &surroundings.variables,
        profiles: &profiles,
        raw,
        reader: &read_file,
    };
    let mut sources = Sources::default();
    match load::load(&request, &mut sources) {
        Ok(loaded) => Ok(Files { loaded, sources }),
        Err(problems) => Err(refused(&problems, &sources)),
    }
}

/// Converts for a stack of this name and prints the warnings.
pub fn stack(session: &Session, files: &Files, name: &str) -> Result<Stack, Failure> {
    let mut warnings = files.loaded.warnings.clone();
    let around = Surround {
        stack: name,
        sources: &files.sources,
        reader: &read_file,
        variables: &files.loaded.variables,
    };
    let converted = convert::convert(&files.loaded, &around, &mut warnings);
    warn(session, &warnings, &files.sources);
    converted.map_err(|problems| refused(&problems, &files.sources))
}

/// Prints warnings, each once.
pub fn warn(session: &Session, warnings: &[Warning], sources: &Sources) {
    let mut seen = BTreeSet::new();
    for warning in warnings {
        let line = warning.line(sources);
        if seen.insert(line.clone()) {
            session.note(&format!("warning: {line}"));
        }
    }
}

fn refused(problems: &Problems, sources: &Sources) -> Failure {
    Failure::new(problems.render(sources))
}

/// A regular file's content; one byte more than the limit is enough to refuse it.
fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn standard_input(session: &Session) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let input = session.io.take_input()?;
    input
        .take(LARGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}
