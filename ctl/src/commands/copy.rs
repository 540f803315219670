//! `cp`.

use std::path::{Path, PathBuf};

use clap::Args;
use http_body_util::{BodyExt, Full};

use super::archive::streamed;
use crate::failure::Failure;
use crate::session::Session;

/// Copy files between a container and this host
///
/// `-` stands for a tar archive on standard input or output.
#[derive(Args, Debug)]
#[command(
    override_usage = "ovnctl cp [OPTIONS] CONTAINER:PATH PATH|-\n       ovnctl cp [OPTIONS] PATH|- CONTAINER:PATH"
)]
#[command(after_help = "Examples:\n  ovnctl cp api:/etc/hosts .\n  ovnctl cp site/ web:/srv")]
pub struct CopyArgs {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link given as the source on this host
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// From
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// To
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
}

/// `container:/path` to its two halves; a path of this host has none.
fn inside(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':')
        .filter(|(container, _)| !container.is_empty())
}

/// `cp`.
pub async fn copy(session: &Session, args: CopyArgs) -> Result<(), Failure> {
    match (inside(&args.source), inside(&args.destination)) {
        (Some((container, path)), None) => out(session, &args, container, path).await,
        (None, Some((container, path))) => into(session, &args, container, path).await,
        (Some(_), Some(_)) => Err(Failure::new(
            "copying between containers is not supported: go through this host",
        )),
        (None, None) => Err(Failure::new("one side must be CONTAINER:PATH")),
    }
}

async fn out(
    session: &Session,
    args: &CopyArgs,
    container: &str,
    path: &str,
) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut body = client
        .get(format!("/containers/{container}/archive"))
        .query("path", path)
        .send()
        .await?
        .into_body();
    let broken = |e: hyper::Error| Failure::new(format!("the archive broke off: {e}"));
    if args.destination == "-" {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                session.io.out.put(&data)?;
            }
        }
        return Ok(());
    }
    let archive = body.collect().await.map_err(broken)?.to_bytes();
    let destination = session.surroundings.directory.join(&args.destination);
    unpack(&archive, &destination, args.archive)?;
    if !args.quiet {
        session.note(&format!("Successfully copied to {}", destination.display()));
    }
    Ok(())
}

/// Unpacks into an existing folder, or renames the top entry to the destination's name.
///
/// Entries that would leave the destination are refused by the archive reader.
fn unpack(archive: &[u8], destination: &Path, keep_owners: bool) -> Result<(), Failure> {
    let (folder, new_name) = if destination.is_dir() {
        (destination.to_path_buf(), None)
    } else {
        let folder = destination
            .parent()
            .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        (folder, destination.file_name().map(PathBuf::from))
    };
    if !folder.is_dir() {
        return Err(Failure::new(format!(
            "the folder {} does not exist",
            folder.display()
        )));
    }
    let Some(new_name) = new_name else {
        let mut archive = tar::Archive::new(archive);
        archive.set_preserve_ownerships(keep_owners);
        archive.set_preserve_permissions(true);
        return Ok(archive.unpack(&folder)?);
    };
    // A folder of our own beside the destination, so that only the wanted name appears there.
    let beside = folder.join(format!(".ovnctl-cp-{}", std::process::id()));
    std::fs::create_dir(&beside)?;
    let moved = (|| {
        let mut archive = tar::Archive::new(archive);
        archive.set_preserve_ownerships(keep_owners);
        archive.set_preserve_permissions(true);
        archive.unpack(&beside)?;
        let top = std::fs::read_dir(&beside)?.next().transpose()?;
        match top {
            Some(top) => std::fs::rename(top.path(), folder.join(new_name)),
            None => Err(std::io::Error::other("the archive is empty")),
        }
    })();
    let _ = std::fs::remove_dir_all(&beside);
    Ok(moved?)
}

async fn into(
    session: &Session,
    args: &CopyArgs,
    container: &str,
    path: &str,
) -> Result<(), Failure> {
    let client = session.client().await?;
    let call = |folder: &str| {
        client
            .put(format!("/containers/{container}/archive"))
            .query("path", folder)
            .query("noOverwriteDirNonDir", "true")
            .flag("copyUIDGID", args.archive)
    };
    if args.source == "-" {
        let body = streamed(session.io.take_input()?);
        return Ok(call(path)
            .stream_body("application/x-tar", body)
            .done()
            .await?);
    }
    let source = session.surroundings.directory.join(&args.source);
    let about = if args.follow_link {
        std::fs::metadata(&source)
    } else {
        std::fs::symlink_metadata(&source)
    };
    let about = about.map_err(|e| Failure::new(format!("cannot read {}: {e}", args.source)))?;
    // A folder that exists receives the source under its own name; else the path names the copy.
    let exists = client
        .head(format!("/containers/{container}/archive"))
        .query("path", path)
        .send()
        .await;
    let is_folder = path.ends_with('/')
        || exists
            .ok()
            .and_then(|r| r.headers().get("x-docker-container-path-stat").cloned())
            .is_some_and(|h| is_folder(h.as_bytes()));
    let own_name = source
        .canonicalize()
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()));
    let (folder, name) = if is_folder {
        (path.to_owned(), own_name.unwrap_or_default())
    } else {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        (
            if folder.is_empty() {
                "/".to_owned()
            } else {
                folder.to_owned()
            },
            name.to_owned(),
        )
    };
    let contents_only = is_folder && (args.source.ends_with("/.") || args.source == ".");
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(args.follow_link);
    if about.is_dir() {
        archive.append_dir_all(if contents_only { "." } else { &name }, &source)?;
    } else {
        archive.append_path_with_name(&source, &name)?;
    }
    let bytes = archive.into_inner()?;
    let body = Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    call(&folder)
        .stream_body("application/x-tar", body)
        .done()
        .await?;
    if !args.quiet {
        session.note(&format!("Successfully copied to {container}:{path}"));
    }
    Ok(())
}

/// Reads the mode in the daemon's base64 JSON; Go marks folders with the highest bit.
fn is_folder(header: &[u8]) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
        .and_then(|stat| stat["mode"].as_u64())
        .is_some_and(|mode| mode & (1 << 31) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides() {
        let cases = [
            ("api:/etc", Some(("api", "/etc"))),
            ("/a:b", None),
            ("./a:b", None),
            ("file", None),
            ("-", None),
            (":x", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(inside(text), wanted, "{text}");
        }
    }

    #[test]
    fn unpacking_into_a_folder_and_under_a_new_name() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "hosts", &b"hi"[..])
            .unwrap();
        let archive = builder.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        unpack(&archive, folder.path(), false).unwrap();
        unpack(&archive, &folder.path().join("copy"), false).unwrap();
        for name in ["hosts", "copy"] {
            assert_eq!(
                std::fs::read(folder.path().join(name)).unwrap(),
                b"hi",
                "{name}"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(unpack(&archive, &folder.path().join("no/such"), false).is_err());
    }
}
