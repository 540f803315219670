//! Connecting a client to a container's standard streams.

use futures_util::StreamExt as _;
use model::Refusal;
use tokio::sync::{mpsc, oneshot};

use super::{AttachOptions, Attached, Engine, LogOptions, Output, machine::Phase};
use crate::oci::attach::{Input, connect_in, detach_keys};

impl Engine {
    /// May be called before the start: nothing of the output is missed.
    pub async fn attach(
        &self,
        reference: &str,
        options: AttachOptions,
    ) -> Result<Attached, Refusal> {
        let container = self.find(reference)?;
        let (tty, open_stdin) = {
            let record = container.record();
            (record.spec.tty, record.spec.open_stdin)
        };
        let keys = detach_keys(&options.detach_keys).ok_or_else(|| {
            Refusal::invalid(format!(
                "Invalid detach keys ({}) provided",
                options.detach_keys
            ))
        })?;
        if container.phase() == Phase::Paused {
            return Err(Refusal::conflict(format!(
                "Container {} is paused, unpause the container before attach",
                container.id
            )));
        }
        let (sender, output) = mpsc::channel::<Output>(64);
        let (input, from) = if options.stdin && open_stdin && options.stream {
            let (input, from) = mpsc::channel(64);
            (Some(input), Some(from))
        } else {
            (None, None)
        };
        let input_side = from.map(|from| Input {
            from,
            detach: tty.then_some(keys),
        });
        // With the log, the output is followed there: each byte comes once.
        if options.logs {
            let mut lines = self.logs(
                container.id.as_str(),
                LogOptions {
                    stdout: options.stdout,
                    stderr: options.stderr,
                    follow: options.stream,
                    ..LogOptions::default()
                },
            )?;
            let sender = sender.clone();
            self.spawn(async move {
                while let Some(line) = until_left(&sender, lines.next()).await {
                    let chunk = Output {
                        stream: line.stream,
                        bytes: line.bytes,
                    };
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            });
            if input_side.is_none() {
                self.tell(&container.record(), "attach", &[]);
                return Ok(Attached { tty, output, input });
            }
        }
        if !options.stream {
            return Ok(Attached { tty, output, input });
        }
        let carry_output = !options.logs && (options.stdout || options.stderr);
        let (early_sender, early) = oneshot::channel();
        {
            // Registered under this lock: a start either sees it or has made the socket.
            let mut waiting = container.early.lock().expect("no panic under this lock");
            match connect_in(&container.bundle).ok() {
                Some(connection) => {
                    let _ = early_sender.send(connection);
                }
                None => waiting.push(early_sender),
            }
        }
        self.tell(&container.record(), "attach", &[]);
        let wanted = (options.stdout, options.stderr);
        self.spawn(async move {
            let Ok(connection) = early.await else { return };
            if !carry_output {
                // Holding the sender keeps the client connected until the end.
                let carrying = async {
                    connection.carry(None, input_side).await;
                    None::<()>
                };
                until_left(&sender, carrying).await;
                return;
            }
            let (all, mut chunks) = mpsc::channel::<Output>(8);
            let filter = async move {
                while let Some(chunk) = until_left(&sender, chunks.recv()).await {
                    let is_wanted = match chunk.stream {
                        super::Stream::Stdout => wanted.0,
                        super::Stream::Stderr => wanted.1,
                    };
                    if is_wanted && sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(connection.carry(Some(all), input_side), filter);
        });
        Ok(Attached { tty, output, input })
    }
}

/// What comes next, or nothing once the listener has gone: a container that says nothing must not keep
/// what was opened for it.
pub(super) async fn until_left<T>(
    listener: &mpsc::Sender<Output>,
    next: impl Future<Output = Option<T>>,
) -> Option<T> {
    tokio::select! {
        next = next => next,
        () = listener.closed() => None,
    }
}
