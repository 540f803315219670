//! Files of images and containers as tars: `load`, `save`, `import`, `export`; and `diff`.

use clap::Args;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::pull::{Progress, show};
use crate::client::{Body, Call};
use crate::failure::Failure;
use crate::session::Session;

/// Read images from a tar archive
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl load -i echo.tar\n  ssh other ovnctl save echo | ovnctl load"
)]
pub struct LoadArgs {
    /// File to read (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Only this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// Write images to a tar archive
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl save -o echo.tar registry:5000/example/echo")]
pub struct SaveArgs {
    /// File to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Only this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Write a container's files to a tar archive
///
/// What is mounted in it, volumes for example, is left out.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl export -o api.tar api")]
pub struct ExportArgs {
    /// File to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Make an image of a tar archive of files
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl import -c 'CMD [\"serve\"]' api.tar api:kept\n  ovnctl export api | ovnctl import - api:kept"
)]
pub struct ImportArgs {
    /// Instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What `history` says of it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the files
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// File to read; - for standard input
    #[arg(value_name = "FILE|-")]
    source: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// List the files that a container has changed
///
/// A is added, C changed, D deleted.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl diff api")]
pub struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `export`.
pub async fn export(session: &Session, args: ExportArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let call = client.get(format!("/containers/{}/export", args.container));
    write(session, call, args.output.as_deref()).await
}

/// `import`.
pub async fn import(session: &Session, args: ImportArgs) -> Result<(), Failure> {
    let named = Some(args.source.as_str()).filter(|source| *source != "-");
    let body = input(session, named, "name a file, or pipe one in").await?;
    let mut call = session
        .client()
        .await?
        .post("/images/create")
        .query("fromSrc", "-")
        .maybe("repo", args.name)
        .maybe("message", args.message)
        .maybe("platform", args.platform);
    for change in &args.change {
        call = call.query("changes", change);
    }
    let values = call.stream_body("application/x-tar", body).values().await?;
    show(session, values, Progress::OnOutput).await
}

/// `diff`.
pub async fn diff(session: &Session, args: DiffArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let path = format!("/containers/{}/changes", args.container);
    let changes = client.get(path).value().await?;
    for change in changes.as_array().into_iter().flatten() {
        let kind = match change["Kind"].as_u64() {
            Some(0) => 'C',
            Some(1) => 'A',
            _ => 'D',
        };
        let path = change["Path"].as_str().unwrap_or_default();
        session.line(&format!("{kind} {path}"))?;
    }
    Ok(())
}

/// `load`.
pub async fn load(session: &Session, args: LoadArgs) -> Result<(), Failure> {
    let body = input(session, args.input.as_deref(), "name a file with --input").await?;
    let call = session
        .client()
        .await?
        .post("/images/load")
        .flag("quiet", args.quiet)
        .maybe("platform", args.platform);
    let values = call.stream_body("application/x-tar", body).values().await?;
    show(session, values, Progress::OnOutput).await
}

/// `save`.
pub async fn save(session: &Session, args: SaveArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut call = client.get("/images/get").maybe("platform", args.platform);
    for image in &args.images {
        call = call.query("names", image);
    }
    write(session, call, args.output.as_deref()).await
}

/// A file or standard input as a request's body.
pub fn streamed(reader: impl AsyncRead + Send + 'static) -> Body {
    StreamBody::new(ReaderStream::with_capacity(reader, 64 * 1024).map_ok(Frame::data))
        .boxed_unsync()
}

/// The file, or standard input; `way_out` is said when that is a terminal.
async fn input(session: &Session, path: Option<&str>, way_out: &str) -> Result<Body, Failure> {
    match path {
        Some(path) => {
            let file = tokio::fs::File::open(session.surroundings.directory.join(path)).await;
            let file = file.map_err(|e| Failure::new(format!("cannot read {path}: {e}")))?;
            Ok(streamed(file))
        }
        None if session.io.input_is_terminal => Err(Failure::new(format!(
            "an archive is expected on stdin, but stdin is empty: {way_out}"
        ))),
        None => Ok(streamed(session.io.take_input()?)),
    }
}

/// Writes the answer to the file, or to standard output.
async fn write(session: &Session, call: Call<'_>, output: Option<&str>) -> Result<(), Failure> {
    if output.is_none() && session.io.output_is_terminal {
        return Err(Failure::new(
            "refusing to write an archive to the terminal: use -o FILE or a pipe",
        ));
    }
    let mut body = call.send().await?.into_body();
    let broken = |e: hyper::Error| Failure::new(format!("the archive broke off: {e}"));
    let Some(path) = output else {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                session.io.out.put(&data)?;
            }
        }
        return Ok(());
    };
    // Written beside and renamed: a broken archive never bears the name.
    let path = session.surroundings.directory.join(path);
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let written = async {
        let mut file = tokio::fs::File::create(&beside).await?;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                file.write_all(&data).await?;
            }
        }
        file.sync_all().await?;
        tokio::fs::rename(&beside, &path).await?;
        Ok::<(), Failure>(())
    }
    .await;
    if written.is_err() {
        let _ = tokio::fs::remove_file(&beside).await;
    }
    written
}
