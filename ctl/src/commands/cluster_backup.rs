//! `cluster backup`, `cluster restore` and `cluster rejoin`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::text;
use crate::failure::Failure;
use crate::session::Session;
use crate::terminal::NoEcho;

const PASSPHRASE: &str = "x-overnet-passphrase";

/// Write the cluster's state to an encrypted archive, while everything goes on
///
/// Services, networks, secrets, configs, nodes, the certificate authority and the tokens are in
/// it; images, volumes and logs are not. Any manager can be asked. Without the passphrase nothing
/// can be read from the archive, by anybody.
#[derive(Args, Debug)]
#[command(
    after_help = "FILE is written whole or not at all; - is standard output.\n\n\
                  Examples:\n  ovnctl cluster backup state.ovn\n  ovnctl cluster backup --passphrase-file /root/passphrase - | ssh vault 'cat > state.ovn'"
)]
pub struct BackupArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Archive to write, or -
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// Make a cluster with the state of an archive, with this host as its only manager
///
/// For the day when too many managers are lost for ever. Hosts that still run find the restored
/// manager by themselves if it has the address of one they know; otherwise `cluster rejoin` tells
/// them. What runs there goes on.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl cluster restore state.ovn\n  ovnctl cluster restore --advertise-addr 192.0.2.11 --passphrase-file /root/passphrase state.ovn"
)]
pub struct RestoreArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Address other hosts reach this one at
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// Address or interface for the containers' traffic
    #[arg(long, value_name = "IP|INTERFACE")]
    data_path_addr: Option<String>,
    /// Also on a member of the archive's cluster, which is lost, or beside a manager of it
    #[arg(short, long)]
    force: bool,
    /// Address to listen on (default 0.0.0.0:2377)
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    listen_addr: Option<String>,
    /// Archive to read, or -
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// Tell this host where a manager of its cluster is
///
/// For a host whose managers are all gone or have other addresses, after `cluster restore`. It
/// keeps what it runs.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl cluster rejoin 192.0.2.14")]
pub struct RejoinArgs {
    /// A manager
    #[arg(value_name = "HOST[:PORT]")]
    manager: String,
}

/// Where the passphrase comes from.
#[derive(Args, Debug)]
struct PassphraseArgs {
    /// File with the passphrase, or - for standard input; else it is asked for
    #[arg(long, value_name = "FILE|-")]
    passphrase_file: Option<String>,
}

impl PassphraseArgs {
    /// The passphrase; asked for twice when it is a new one.
    async fn read(&self, session: &Session, file: &str, new: bool) -> Result<String, Failure> {
        let from_input = match self.passphrase_file.as_deref() {
            None => true,
            Some(path) => path == "-",
        };
        if from_input && !new && file == "-" {
            return Err(Failure::new(
                "the archive and the passphrase cannot both come from standard input: name the file of one of them",
            ));
        }
        let text = match self.passphrase_file.as_deref() {
            Some("-") => from_reader(session).await?,
            Some(path) => fs::read_to_string(session.surroundings.directory.join(path))
                .map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?,
            None if session.io.input_is_terminal => return ask(session, new).await,
            None => from_reader(session).await?,
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(Failure::new("the passphrase is empty"));
        }
        Ok(text.to_owned())
    }
}

async fn from_reader(session: &Session) -> Result<String, Failure> {
    let mut text = String::new();
    session.io.take_input()?.read_to_string(&mut text).await?;
    Ok(text)
}

/// Questions go to standard error: the archive may go to standard output.
async fn ask(session: &Session, new: bool) -> Result<String, Failure> {
    let mut input = session.io.take_input()?;
    let quiet = NoEcho::enter();
    let questions: &[&str] = if new {
        &["Passphrase of the archive: ", "The same again: "]
    } else {
        &["Passphrase of the archive: "]
    };
    let mut answers = Vec::new();
    for question in questions {
        session.io.err.put(question.as_bytes())?;
        let mut line = Vec::new();
        let mut byte = [0_u8];
        while input.read(&mut byte).await? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        session.io.err.put(b"\n")?;
        answers.push(String::from_utf8_lossy(&line).into_owned());
    }
    drop(quiet);
    answers.dedup();
    match <[String; 1]>::try_from(answers) {
        Ok([answer]) if answer.is_empty() => Err(Failure::new("the passphrase is empty")),
        Ok([answer]) => Ok(answer),
        Err(_) => Err(Failure::new("the two passphrases are not the same")),
    }
}

/// `cluster backup`.
pub async fn backup(session: &Session, args: BackupArgs) -> Result<(), Failure> {
    let to_output = args.file == "-";
    if to_output && session.io.output_is_terminal {
        return Err(Failure::new(
            "standard output is a terminal: name a file, or send the output elsewhere",
        ));
    }
    let passphrase = args.passphrase.read(session, &args.file, true).await?;
    let client = session.client().await?;
    let answer = client
        .get("/overnet/backup")
        .header(PASSPHRASE, STANDARD.encode(passphrase))
        .send()
        .await
        .map_err(known)?;
    let archive = answer.into_body().collect().await;
    let archive = archive
        .map_err(|error| Failure::new(format!("the archive broke off: {error}")))?
        .to_bytes();
    if to_output {
        return Ok(session.io.out.put(&archive)?);
    }
    let path = session.surroundings.directory.join(&args.file);
    write_whole(&path, &archive)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    session.line(&format!(
        "The cluster's state is in {} ({} bytes). Keep it and its passphrase apart, and both away from this cluster.",
        args.file,
        archive.len()
    ))
}

/// `cluster restore`.
pub async fn restore(session: &Session, args: RestoreArgs) -> Result<(), Failure> {
    let passphrase = args.passphrase.read(session, &args.file, false).await?;
    let archive = if args.file == "-" {
        let mut bytes = Vec::new();
        session.io.take_input()?.read_to_end(&mut bytes).await?;
        bytes
    } else {
        fs::read(session.surroundings.directory.join(&args.file))
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", args.file)))?
    };
    let body = Full::new(Bytes::from(archive))
        .map_err(|never| match never {})
        .boxed_unsync();
    let client = session.client().await?;
    let restored = client
        .post("/overnet/restore")
        .header(PASSPHRASE, STANDARD.encode(passphrase))
        .maybe("advertiseAddr", args.advertise_addr)
        .maybe("listenAddr", args.listen_addr)
        .maybe("dataPathAddr", args.data_path_addr)
        .flag("force", args.force)
        .stream_body("application/octet-stream", body)
        .value()
        .await
        .map_err(known)?;
    session.print(&told(&restored))
}

fn told(restored: &Value) -> String {
    let address = text(restored, "/Address");
    let mut before = restored["Before"].as_array().into_iter().flatten();
    let same = before.any(|manager| manager.as_str() == Some(address));
    let others = if same {
        format!(
            "The other hosts knew a manager at {address}: those that run come back by themselves. A host that does\nnot is told with:\n"
        )
    } else {
        format!(
            "No manager was at {address} before, so hosts that still run have to be told, each with:\n"
        )
    };
    format!(
        "Cluster {} is restored as it was at {}. This node ({}) is its only manager now.\n\n\
         {others}\n    ovnctl cluster rejoin {address}\n\n\
         To add managers, run 'ovnctl swarm join-token manager'; to drop those that are lost, 'ovnctl node demote'\n\
         and 'ovnctl node rm'.\n",
        text(restored, "/ClusterID"),
        text(restored, "/MadeAt"),
        text(restored, "/NodeID"),
    )
}

/// `cluster rejoin`.
pub async fn rejoin(session: &Session, args: RejoinArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    client
        .post("/overnet/rejoin")
        .json(&json!({"Manager": args.manager}))
        .done()
        .await
        .map_err(known)?;
    session.line(&format!(
        "This host has a session with its cluster again, by manager {}.",
        args.manager
    ))
}

/// A daemon that does not know the path is another one.
fn known(error: crate::client::ClientError) -> Failure {
    let failure = Failure::from(error);
    if failure.is_not_found() {
        return Failure::new("this daemon does not know archives: it is not ovnd, or an older one");
    }
    failure
}

/// Writes a file for its owner only, so that after a crash it is the old or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let fresh = path.with_file_name(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        // Not there, mostly.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_archive_is_written_whole_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.ovn");
        fs::write(&path, "an older one").unwrap();
        write_whole(&path, b"archive").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"archive");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(write_whole(&folder.path().join("folder"), b"archive").is_err());
        assert!(write_whole(&folder.path().join("none/state.ovn"), b"archive").is_err());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "nothing is left behind");
    }

    #[test]
    fn hosts_are_said_to_come_back_or_to_be_told() {
        let restored = |before: &str| {
            json!({"NodeID": "n1", "ClusterID": "c1", "MadeAt": "2026-01-02T03:04:05Z",
                   "Address": "192.0.2.1:2377", "Before": [before]})
        };
        let same = told(&restored("192.0.2.1:2377"));
        assert!(same.contains("come back by themselves"), "{same}");
        let other = told(&restored("192.0.2.2:2377"));
        assert!(other.contains("have to be told"), "{other}");
        for said in [same, other] {
            assert!(
                said.contains("ovnctl cluster rejoin 192.0.2.1:2377"),
                "{said}"
            );
        }
    }
}
