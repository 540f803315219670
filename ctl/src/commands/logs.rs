//! `logs`.

use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::attach::drain;
use crate::client::Frames;
use crate::failure::Failure;
use crate::output::when::moment;
use crate::session::Session;

/// Print what a container wrote
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl logs --tail 20 -f api\n  ovnctl logs --since 10m -t api"
)]
pub struct LogsArgs {
    /// Show the labels and variables the logging driver adds
    #[arg(long)]
    details: bool,
    /// Go on as the container writes
    #[arg(short, long)]
    follow: bool,
    /// From here: 42m back from now, a date, or Unix seconds
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Up to here
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `logs`.
pub async fn logs(session: &Session, args: LogsArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let time = |text: &Option<String>| {
        text.as_ref()
            .map(|t| moment(t, session.now_nanos(), session.surroundings.zone))
            .transpose()
    };
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    let container = client
        .get(format!("/containers/{}/json", args.container))
        .value()
        .await?;
    let raw = container
        .pointer("/Config/Tty")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let id = super::text(&container, "/Id");
    let id = if id.is_empty() { &args.container } else { id };
    let response = client
        .get(format!("/containers/{id}/logs"))
        .flag("details", args.details)
        .flag("follow", args.follow)
        .maybe("since", since)
        .flag("stderr", true)
        .flag("stdout", true)
        .query("tail", &args.tail)
        .flag("timestamps", args.timestamps)
        .maybe("until", until)
        .send()
        .await?;
    let mut body = response.into_body();
    let mut frames = Frames::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::new(format!("the stream of logs broke: {e}")))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if raw {
            session.io.out.put(data)?;
        } else {
            frames.push(data);
            drain(&mut frames, &session.io.out, &session.io.err)?;
        }
    }
    Ok(())
}
