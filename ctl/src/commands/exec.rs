//! `exec`.

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::text;
use crate::attach::{Ended, Resized, Wiring, follow_size, pump};
use crate::failure::Failure;
use crate::flags::variables::environment;
use crate::session::Session;
use crate::terminal::{self, DetachKeys};

/// Run a command in a running container
///
/// The exit status is the command's own.
#[derive(Args, Debug)]
#[command(override_usage = "ovnctl exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
#[command(
    after_help = "Examples:\n  ovnctl exec -it api sh\n  ovnctl exec -e DEBUG=1 -w /tmp api ls -l"
)]
pub struct ExecArgs {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give all capabilities
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, by name or number, and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    #[arg(
        value_name = "CONTAINER COMMAND [ARG...]",
        trailing_var_arg = true,
        required = true
    )]
    container_and_command: Vec<String>,
}

/// `exec`.
pub async fn exec(session: &Session, args: ExecArgs) -> Result<(), Failure> {
    let Some((container, command)) = args
        .container_and_command
        .split_first()
        .filter(|(_, c)| !c.is_empty())
    else {
        return Err(Failure::new(
            "a command is missing: ovnctl exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        ));
    };
    let input = args.interactive && !args.detach;
    if args.tty && input && !session.io.input_is_terminal {
        return Err(Failure::new(
            "the input device is not a TTY: leave -t out when standard input is a pipe or a file",
        ));
    }
    let keys = DetachKeys::parse(args.detach_keys.as_deref().unwrap_or_default())?;
    let around = &session.surroundings;
    let mut body = json!({
        "User": args.user.clone().unwrap_or_default(),
        "Privileged": args.privileged,
        "Tty": args.tty,
        "AttachStdin": input,
        "AttachStdout": !args.detach,
        "AttachStderr": !args.detach,
        "DetachKeys": args.detach_keys.clone().unwrap_or_default(),
        "Env": environment(&args.env_file, &args.env, &around.directory, &around.variables)?,
        "WorkingDir": args.workdir.clone().unwrap_or_default(),
        "Cmd": command,
    });
    if args.tty
        && let Some((height, width)) = terminal::size()
    {
        body["ConsoleSize"] = json!([height, width]);
    }
    let client = session.client().await?;
    // Asked first, because it gives the better sentence for a container that is not there.
    client
        .get(format!("/containers/{container}/json"))
        .value()
        .await?;
    let made = client
        .post(format!("/containers/{container}/exec"))
        .json(&body)
        .value()
        .await?;
    let id = text(&made, "/Id").to_owned();
    if id.is_empty() {
        return Err(Failure::new("the daemon made no exec id"));
    }
    let mut start = json!({"Detach": args.detach, "Tty": args.tty});
    if let Some(size) = body.get("ConsoleSize") {
        start["ConsoleSize"] = size.clone();
    }
    let begin = client.post(format!("/exec/{id}/start")).json(&start);
    if args.detach {
        return Ok(begin.done().await?);
    }
    let stream = begin.hijack().await.map_err(|error| {
        let failure = Failure::from(error);
        Failure {
            status: start_status(failure.text()),
            ..failure
        }
    })?;
    let mut tasks = JoinSet::new();
    if args.tty && session.io.output_is_terminal {
        follow_size(client, Resized::Exec(id.clone()), &mut tasks);
    }
    if pump(
        session,
        stream,
        &Wiring {
            tty: args.tty,
            input,
            keys,
        },
    )
    .await?
        == Ended::Detached
    {
        session.note("\r\nread escape sequence");
        return Ok(());
    }
    let state = client.get(format!("/exec/{id}/json")).value().await?;
    match state["ExitCode"].as_i64().unwrap_or(0) as i32 {
        0 => Ok(()),
        status => Err(Failure::silent(status)),
    }
}

fn start_status(message: &str) -> i32 {
    let message = message.to_lowercase();
    if message.contains("not found") || message.contains("no such file") {
        127
    } else if message.contains("permission denied") {
        126
    } else {
        1
    }
}

/// The columns of a process table, as `top` prints it.
pub fn process_table(answer: &Value) -> String {
    let cells = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|c| c.as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\t")
    };
    let mut lines = vec![cells(&answer["Titles"])];
    lines.extend(
        answer["Processes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(cells),
    );
    crate::output::table::align(&(lines.join("\n") + "\n"))
}
