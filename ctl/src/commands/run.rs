//! `run` and `create`.

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::pull::{Progress, pull};
use super::text;
use crate::attach::{Ended, Resized, Wiring, exit_status, follow_size, forward_signals, pump};
use crate::client::Client;
use crate::failure::Failure;
use crate::flags::container::ContainerFlags;
use crate::reference::Reference;
use crate::session::Session;
use crate::terminal::{self, DetachKeys};

/// Create a container from an image and start it
///
/// Flags end at the image's name: everything after it belongs to the container.
/// The exit status is the container's own; 125 when it could not be made,
/// 126 when its command cannot be run, 127 when its command is not there.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "ovnctl run [OPTIONS] IMAGE [COMMAND] [ARG...]"
)]
#[command(
    after_help = "Examples:\n  ovnctl run -d --name api --network ch03 registry:5000/example/echo\n  ovnctl run --rm -it --network ch03 debian:12 bash"
)]
pub struct RunArgs {
    #[command(flatten)]
    container: ContainerFlags,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Pass the signals this program gets on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image, then the command and its arguments
    #[arg(
        value_name = "IMAGE [COMMAND] [ARG...]",
        trailing_var_arg = true,
        required = true
    )]
    image_and_command: Vec<String>,
}

/// Create a container, to be started later
///
/// Takes the flags of `run` and prints the id.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "ovnctl create [OPTIONS] IMAGE [COMMAND] [ARG...]"
)]
#[command(
    after_help = "Example:\n  ovnctl create --name api --network ch03 registry:5000/example/echo && ovnctl start api"
)]
pub struct CreateArgs {
    #[command(flatten)]
    container: ContainerFlags,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image, then the command and its arguments
    #[arg(
        value_name = "IMAGE [COMMAND] [ARG...]",
        trailing_var_arg = true,
        required = true
    )]
    image_and_command: Vec<String>,
}

/// Failures before the container runs end with 125.
fn not_made(failure: Failure) -> Failure {
    Failure {
        status: 125,
        ..failure
    }
}

/// `create`.
pub async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let (image, command) = split(&args.image_and_command)?;
    let body = args.container.body(image, command, &session.surroundings)?;
    let id = make(session, &args.container, image, &body).await?;
    session.line(&id)
}

fn split(words: &[String]) -> Result<(&str, &[String]), Failure> {
    match words.split_first() {
        Some((image, command)) if !image.is_empty() => Ok((image, command)),
        _ => Err(Failure::with_status(
            125,
            "the image is missing: ovnctl run [OPTIONS] IMAGE [COMMAND] [ARG...]",
        )),
    }
}

/// `run`.
pub async fn run(session: &Session, args: RunArgs) -> Result<(), Failure> {
    let (image, command) = split(&args.image_and_command)?;
    let flags = &args.container;
    let mut streams = flags.streams().map_err(|e| Failure::with_status(125, e))?;
    if args.detach {
        if !flags.attach.is_empty() {
            return Err(Failure::with_status(
                125,
                "--detach and --attach cannot be combined",
            ));
        }
        streams = crate::flags::container::Streams::default();
    }
    if flags.tty && streams.input && !session.io.input_is_terminal {
        return Err(Failure::new(
            "the input device is not a TTY: leave -t out when standard input is a pipe or a file",
        ));
    }
    let keys = DetachKeys::parse(flags.detach_keys.as_deref().unwrap_or_default())
        .map_err(|e| Failure::with_status(125, e))?;
    let mut body = flags
        .body(image, command, &session.surroundings)
        .map_err(|e| Failure::with_status(125, e))?;
    if args.detach {
        for name in ["AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"] {
            body[name] = json!(false);
        }
    }
    if flags.tty
        && let Some((height, width)) = terminal::size()
    {
        body["HostConfig"]["ConsoleSize"] = json!([height, width]);
    }
    let client = session.client().await.map_err(not_made)?;
    let id = make(session, flags, image, &body).await.map_err(not_made)?;
    let mut tasks = JoinSet::new();
    if args.sig_proxy && !args.detach {
        forward_signals(session, client, &id, &mut tasks);
    }
    if args.detach {
        start(client, &id).await?;
        return session.line(&id);
    }
    let attached = streams.input || streams.output || streams.error;
    let stream = if attached {
        let call = client
            .post(format!("/containers/{id}/attach"))
            .flag("stream", true)
            .flag("stdin", streams.input)
            .flag("stdout", streams.output)
            .flag("stderr", streams.error)
            .maybe("detachKeys", flags.detach_keys.as_deref());
        Some(call.hijack().await.map_err(|e| not_made(e.into()))?)
    } else {
        None
    };
    // Asked before the start, so that a container that ends at once is not missed.
    let condition = if flags.rm { "removed" } else { "next-exit" };
    let mut waiting = client
        .post(format!("/containers/{id}/wait"))
        .query("condition", condition)
        .values()
        .await
        .map_err(|e| not_made(e.into()))?;
    if let Err(failure) = start(client, &id).await {
        if flags.rm {
            // The daemon removes it; give that a moment, so that the name is free when we return.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), waiting.next()).await;
        }
        return Err(failure);
    }
    if flags.tty && session.io.output_is_terminal {
        follow_size(client, Resized::Container(id.clone()), &mut tasks);
    }
    let Some(stream) = stream else {
        return session.line(&id);
    };
    let wiring = Wiring {
        tty: flags.tty,
        input: streams.input,
        keys,
    };
    if pump(session, stream, &wiring).await? == Ended::Detached {
        session.note("\r\nread escape sequence");
        return Ok(());
    }
    match exit_status(waiting).await? {
        0 => Ok(()),
        status => Err(Failure::silent(status)),
    }
}

/// Creates the container, pulling the image when it is missing, and prints the daemon's warnings.
async fn make(
    session: &Session,
    flags: &ContainerFlags,
    image: &str,
    body: &Value,
) -> Result<String, Failure> {
    let client = session.client().await?;
    let cidfile = flags
        .cidfile
        .as_ref()
        .map(|file| session.surroundings.directory.join(file));
    if let Some(file) = &cidfile
        && file.exists()
    {
        return Err(Failure::new(format!(
            "--cidfile {}: the file exists already: remove it if its container is gone",
            file.display()
        )));
    }
    let progress = if flags.quiet {
        Progress::Silent
    } else {
        Progress::OnError
    };
    match flags.pull.as_str() {
        "always" => drop(pull(session, image, flags.platform.as_deref(), progress).await?),
        "missing" | "never" => {}
        other => {
            return Err(Failure::new(format!(
                "--pull {other:?}: use always, missing or never"
            )));
        }
    }
    let ask = || {
        client
            .post("/containers/create")
            .maybe("name", flags.name.as_deref())
            .maybe("platform", flags.platform.as_deref())
            .json(body)
            .value()
    };
    let answer = match ask().await.map_err(Failure::from) {
        Err(failure)
            if flags.pull == "missing" && failure.is_not_found() && says_no_image(&failure) =>
        {
            let reference = Reference::parse(image)?;
            if !flags.quiet {
                session.note(&format!(
                    "Unable to find image '{}' locally",
                    reference.with_version(&reference.familiar())
                ));
            }
            pull(session, image, flags.platform.as_deref(), progress).await?;
            ask().await?
        }
        other => other?,
    };
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        session.note(&format!(
            "WARNING: {}",
            warning.as_str().unwrap_or_default()
        ));
    }
    let id = text(&answer, "/Id").to_owned();
    if let Some(file) = cidfile {
        std::fs::write(&file, &id)
            .map_err(|e| Failure::new(format!("cannot write {}: {e}", file.display())))?;
    }
    Ok(id)
}

/// A 404 of create is about the image or about something else it names, such as a network.
fn says_no_image(failure: &Failure) -> bool {
    let text = failure.text().to_lowercase();
    // Docker, too, pulls the image that runs and not those it mounts.
    text.contains("no such image") && !text.contains("which is mounted at")
}

/// Starts it; the exit status tells why it could not be.
async fn start(client: &Client, id: &str) -> Result<(), Failure> {
    client
        .post(format!("/containers/{id}/start"))
        .done()
        .await
        .map_err(|error| {
            let failure = Failure::from(error);
            Failure {
                status: start_status(failure.text()),
                ..failure
            }
        })
}

/// 127: the command is not there; 126: it cannot be run; else 125.
fn start_status(message: &str) -> i32 {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "executable file not found",
        "no such file or directory",
        "command not found",
    ]) {
        127
    } else if says(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_failed_start() {
        let cases = [
            ("exec: \"nope\": executable file not found in $PATH", 127),
            ("exec /nope: no such file or directory", 127),
            ("exec /etc/passwd: Permission denied", 126),
            ("exec /etc: is a directory", 126),
            ("network ch03 is gone", 125),
        ];
        for (message, status) in cases {
            assert_eq!(start_status(message), status, "{message}");
        }
    }
}
