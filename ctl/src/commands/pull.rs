//! `pull`, and the progress every command with a stream of layers shows.

use std::collections::HashMap;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::client::JsonStream;
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::output::units::size;
use crate::reference::Reference;
use crate::session::Session;

/// Download an image from a registry
///
/// Several layers come at once, and a broken download goes on where it ended.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl pull registry:5000/example/echo:latest\n  ovnctl pull -q debian:12"
)]
pub struct PullArgs {
    /// Download all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Accepted and ignored, as signatures are not checked
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Platform, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Image to download
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Standard output.
    OnOutput,
    /// Standard error: standard output is the container's.
    OnError,
    /// Nowhere; errors still count.
    Silent,
}

/// `pull`.
pub async fn command(session: &Session, args: PullArgs) -> Result<(), Failure> {
    let reference = Reference::parse(&args.image)?;
    if args.all_tags && (reference.tag.is_some() || reference.digest.is_some()) {
        return Err(Failure::new(
            "--all-tags goes with a name without tag or digest",
        ));
    }
    if args.all_tags {
        let client = session.client().await?;
        let call = authorised(session, client.post("/images/create"), &reference)?
            .query("fromImage", reference.repository());
        let stream = call.maybe("platform", args.platform).values().await?;
        return show(
            session,
            stream,
            if args.quiet {
                Progress::Silent
            } else {
                Progress::OnOutput
            },
        )
        .await;
    }
    if !args.quiet && reference.tag.is_none() && reference.digest.is_none() {
        session.line("Using default tag: latest")?;
    }
    let progress = if args.quiet {
        Progress::Silent
    } else {
        Progress::OnOutput
    };
    let name = pull(session, &args.image, args.platform.as_deref(), progress).await?;
    session.line(&name)
}

/// Downloads one image and returns its full name.
pub async fn pull(
    session: &Session,
    image: &str,
    platform: Option<&str>,
    progress: Progress,
) -> Result<String, Failure> {
    let reference = Reference::parse(image)?;
    let client = session.client().await?;
    let call = authorised(session, client.post("/images/create"), &reference)?
        .query("fromImage", reference.repository())
        .query("tag", reference.tag_or_digest())
        .maybe("platform", platform);
    show(session, call.values().await?, progress).await?;
    Ok(reference.with_version(&reference.repository()))
}

/// Adds the stored credentials of the reference's registry.
pub fn authorised<'a>(
    session: &Session,
    call: crate::client::Call<'a>,
    reference: &Reference,
) -> Result<crate::client::Call<'a>, Failure> {
    let credentials = Credentials::read(&session.surroundings.docker_folder())?;
    Ok(match credentials.header(reference.credential_key()) {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    })
}

/// Shows a stream of progress; an error in it is the end.
pub async fn show(
    session: &Session,
    mut stream: JsonStream,
    progress: Progress,
) -> Result<(), Failure> {
    let bars = progress == Progress::OnOutput && session.io.output_is_terminal;
    let mut board = bars.then(Board::new);
    while let Some(message) = stream.next().await? {
        if let Some(error) = error_of(&message) {
            return Err(Failure::new(error));
        }
        match (&mut board, progress) {
            (_, Progress::Silent) => {}
            (Some(board), _) => board.show(&message),
            (None, _) => {
                if let Some(line) = plain_line(&message) {
                    match progress {
                        Progress::OnError => session.note(&line),
                        Progress::OnOutput | Progress::Silent => session.line(&line)?,
                    }
                }
            }
        }
    }
    Ok(())
}

fn error_of(message: &Value) -> Option<String> {
    message
        .pointer("/errorDetail/message")
        .or_else(|| message.get("error"))
        .and_then(Value::as_str)
        .map(str::to_owned)
}

/// The line for a pipe: steps are printed, counters are not.
fn plain_line(message: &Value) -> Option<String> {
    if let Some(text) = message.get("stream").and_then(Value::as_str) {
        let text = text.trim_end_matches('\n');
        return (!text.is_empty()).then(|| text.to_owned());
    }
    let status = message.get("status").and_then(Value::as_str)?;
    let counts = message
        .pointer("/progressDetail/current")
        .and_then(Value::as_u64)
        .unwrap_or(0)
        > 0;
    if counts {
        return None;
    }
    Some(
        match message
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
        {
            Some(id) => format!("{id}: {status}"),
            None => status.to_owned(),
        },
    )
}

/// One bar a layer, on a terminal.
struct Board {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Board {
    fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            bars: HashMap::new(),
        }
    }

    fn show(&mut self, message: &Value) {
        let Some(id) = message
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
        else {
            if let Some(line) = plain_line(message) {
                // A line that cannot be drawn is a terminal that went away.
                let _ = self.all.println(line);
            }
            return;
        };
        let status = message
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let bar = self.bars.entry(id.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0));
            bar.set_prefix(id.to_owned());
            bar
        });
        let current = message
            .pointer("/progressDetail/current")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let total = message
            .pointer("/progressDetail/total")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if current > 0 && total > 0 {
            bar.set_style(style("{prefix}: {msg} [{bar:30.=>}] {postfix}"));
            bar.set_length(total);
            bar.set_position(current);
            bar.set_message(format!(
                "{status} {}/{}",
                size(current as f64),
                size(total as f64)
            ));
        } else {
            bar.set_style(style("{prefix}: {msg}"));
            bar.set_message(status.to_owned());
            if matches!(
                status,
                "Pull complete" | "Already exists" | "Pushed" | "Layer already exists"
            ) {
                bar.abandon();
            }
        }
        bar.tick();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(&template.replace(" {postfix}", ""))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_for_a_pipe() {
        let cases = [
            (
                json!({"status": "Pulling from library/alpine", "id": "latest"}),
                Some("latest: Pulling from library/alpine"),
            ),
            (
                json!({"status": "Pulling fs layer", "progressDetail": {}, "id": "4abc"}),
                Some("4abc: Pulling fs layer"),
            ),
            (
                json!({"status": "Downloading", "progressDetail": {"current": 5, "total": 9}, "id": "4abc"}),
                None,
            ),
            (
                json!({"status": "Digest: sha256:00"}),
                Some("Digest: sha256:00"),
            ),
            (
                json!({"stream": "Loaded image: a:b\n"}),
                Some("Loaded image: a:b"),
            ),
            (json!({"aux": {"Tag": "x"}}), None),
        ];
        for (message, wanted) in cases {
            assert_eq!(plain_line(&message).as_deref(), wanted, "{message}");
        }
    }

    #[test]
    fn errors_in_the_stream() {
        assert_eq!(
            error_of(&json!({"errorDetail": {"message": "gone"}, "error": "x"})).as_deref(),
            Some("gone")
        );
        assert_eq!(error_of(&json!({"status": "ok"})), None);
    }
}
