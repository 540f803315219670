//! Moving bytes between the user's streams and a container's.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::client::{Client, Frames, Hijacked, JsonStream, Source};
use crate::failure::Failure;
use crate::session::{Session, Sink};
use crate::terminal::{self, DetachKeys, KeyFilter, RawMode};

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The container closed it.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// What to connect.
pub struct Wiring {
    /// The container has a terminal: bytes are raw, not framed.
    pub tty: bool,
    /// Pass standard input on.
    pub input: bool,
    /// Keys that detach; only looked for with a terminal.
    pub keys: DetachKeys,
}

/// Copies until the container closes the stream or the user detaches.
///
/// The end of standard input closes only our half, so what the container still says is read.
pub async fn pump(session: &Session, stream: Hijacked, wiring: &Wiring) -> Result<Ended, Failure> {
    let raw = if wiring.tty && wiring.input && session.io.input_is_terminal {
        RawMode::enter()
    } else {
        None
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let input = async {
        if !wiring.input {
            return Ok(false);
        }
        let mut reader = session.io.take_input()?;
        let mut filter = KeyFilter::new(wiring.keys.clone());
        let mut buffer = vec![0_u8; 32 * 1024];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                // The other side may have gone first; its exit status tells more than this error.
                let _ = to.shutdown().await;
                return Ok(false);
            }
            let (pass, detached) = if wiring.tty && session.io.input_is_terminal {
                filter.push(&buffer[..count])
            } else {
                (buffer[..count].to_vec(), false)
            };
            if !pass.is_empty() && to.write_all(&pass).await.is_err() {
                return Ok(false);
            }
            if detached {
                return Ok::<bool, Failure>(true);
            }
        }
    };
    let output = copy_output(&mut from, wiring.tty, &session.io.out, &session.io.err);
    tokio::pin!(input, output);
    let ended = tokio::select! {
        done = &mut output => done.map(|()| Ended::Closed),
        detached = &mut input => match detached {
            Ok(true) => Ok(Ended::Detached),
            Ok(false) => output.await.map(|()| Ended::Closed),
            Err(failure) => Err(failure),
        },
    };
    drop(raw);
    ended
}

async fn copy_output(
    from: &mut (impl AsyncReadExt + Unpin),
    raw: bool,
    out: &Sink,
    err: &Sink,
) -> Result<(), Failure> {
    let mut buffer = vec![0_u8; 32 * 1024];
    let mut frames = Frames::default();
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            // A daemon that closes hard after the last byte is a normal end.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => {
                return Err(Failure::new(format!(
                    "the stream from the daemon broke: {error}"
                )));
            }
        };
        if raw {
            out.put(&buffer[..count])?;
        } else {
            frames.push(&buffer[..count]);
            drain(&mut frames, out, err)?;
        }
    }
}

/// Writes the whole pieces that have arrived; a message of the daemon ends the stream.
pub fn drain(frames: &mut Frames, out: &Sink, err: &Sink) -> Result<(), Failure> {
    while let Some((source, piece)) = frames.next_piece().map_err(Failure::new)? {
        match source {
            Source::Out => out.put(&piece)?,
            Source::Err => err.put(&piece)?,
            Source::Daemon => {
                return Err(Failure::new(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(&piece)
                )));
            }
        }
    }
    Ok(())
}

/// What is resized with the user's window.
#[derive(Clone, Debug)]
pub enum Resized {
    /// A container by id.
    Container(String),
    /// An exec by id.
    Exec(String),
}

/// Tells the daemon the window's size now and whenever it changes, until the set is dropped.
pub fn follow_size(client: &Client, what: Resized, tasks: &mut JoinSet<()>) {
    let client = client.clone();
    tasks.spawn(async move {
        let path = match &what {
            Resized::Container(id) => format!("/containers/{id}/resize"),
            Resized::Exec(id) => format!("/exec/{id}/resize"),
        };
        let Ok(mut changed) = signal(SignalKind::window_change()) else {
            return;
        };
        // The process may need a moment until it has its terminal: the first size is retried.
        let mut attempts = 10;
        loop {
            if let Some((height, width)) = terminal::size() {
                let sent = client
                    .post(&path)
                    .query("h", height)
                    .query("w", width)
                    .done()
                    .await;
                if sent.is_err() && attempts > 0 {
                    attempts -= 1;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                }
            }
            attempts = 0;
            if changed.recv().await.is_none() {
                return;
            }
        }
    });
}

/// Hands the signals this program gets to the container, until the set is dropped.
///
/// A third SIGINT or SIGTERM ends this program: the container may not listen.
pub fn forward_signals(session: &Session, client: &Client, id: &str, tasks: &mut JoinSet<()>) {
    const FORWARDED: &[(i32, &str)] = &[
        (libc::SIGHUP, "HUP"),
        (libc::SIGINT, "INT"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
        (libc::SIGALRM, "ALRM"),
        (libc::SIGCONT, "CONT"),
    ];
    for &(number, name) in FORWARDED {
        let Ok(mut stream) = signal(SignalKind::from_raw(number)) else {
            continue;
        };
        let (client, id, err) = (client.clone(), id.to_owned(), session.io.err.clone());
        tasks.spawn(async move {
            let mut count = 0;
            while stream.recv().await.is_some() {
                count += 1;
                if count >= 3 && matches!(number, libc::SIGINT | libc::SIGTERM) {
                    let _ = err.put(
                        format!("ovnctl: got 3 times SIG{name}, leaving without the container\n")
                            .as_bytes(),
                    );
                    std::process::exit(128 + number);
                }
                // The container may just have ended; then there is nobody to tell.
                let _ = client
                    .post(format!("/containers/{id}/kill"))
                    .query("signal", name)
                    .done()
                    .await;
            }
        });
    }
}

/// The exit status at the end of a wait.
pub async fn exit_status(mut waiting: JsonStream) -> Result<i32, Failure> {
    let Some(answer) = waiting.next().await? else {
        return Err(Failure::with_status(
            125,
            "the daemon ended the wait without an exit status",
        ));
    };
    if let Some(message) = answer
        .pointer("/Error/Message")
        .and_then(Value::as_str)
        .filter(|m| !m.is_empty())
    {
        return Err(Failure::with_status(
            125,
            format!("error while waiting for the container: {message}"),
        ));
    }
    Ok(answer["StatusCode"].as_i64().unwrap_or(125) as i32)
}
