//! Heartbeats, on a thread of their own: a busy daemon must not look like a dead host.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use manager::{
    client::{ClientError, Connection},
    tls::{self, LiveIdentity},
    wire::{BeatReply, Reply},
};
use model::Id;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Beats that may fail in a row before the session counts as lost.
const FAILURES: u32 = 3;
/// Nice value of the thread; refused without the right to raise it, which does no harm.
const PRIORITY: i32 = -10;

pub(super) struct Heartbeat {
    pub(super) address: SocketAddr,
    /// The session's own connection, for as long as there is none for heartbeats.
    pub(super) beside: Connection,
    pub(super) identity: Arc<LiveIdentity>,
    pub(super) session: Id,
    pub(super) period: watch::Receiver<Duration>,
    pub(super) stop: CancellationToken,
}

/// Starts to beat; the receiver hears why it ended, or nothing if it was stopped.
pub(super) fn start(heartbeat: Heartbeat) -> std::io::Result<oneshot::Receiver<String>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("heartbeat".to_owned())
        .spawn(move || {
            raise_priority();
            let stop = heartbeat.stop.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let reason = match runtime {
                Ok(runtime) => runtime.block_on(stop.run_until_cancelled(beat(heartbeat))),
                Err(error) => Some(format!("no heartbeat can be sent: {error}")),
            };
            if let Some(reason) = reason {
                let _ = ended.send(reason);
            }
        })?;
    Ok(end)
}

fn raise_priority() {
    // SAFETY: takes numbers only; on Linux id 0 means the calling thread (setpriority(2)).
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PRIORITY) } != 0;
    if refused {
        tracing::debug!("the heartbeat keeps the usual priority");
    }
}

/// Returns why the session is over.
async fn beat(mut heartbeat: Heartbeat) -> String {
    let mut connection = None;
    let mut failures = 0;
    // The session has just begun, which counts as a heartbeat; others may wait for theirs to begin.
    let mut due = tokio::time::Instant::now() + *heartbeat.period.borrow_and_update();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // A shorter one counts from now on.
            Ok(()) = heartbeat.period.changed() => {}
        }
        due = tokio::time::Instant::now() + *heartbeat.period.borrow_and_update();
        match once(&heartbeat, &mut connection).await {
            Ok(Ok(BeatReply::Fine)) => failures = 0,
            Ok(Ok(BeatReply::UnknownSession)) => return "the manager ended the session".to_owned(),
            Ok(Err(refusal)) => return refusal.message,
            Err(error) => {
                connection = None;
                failures += 1;
                if failures == FAILURES {
                    return error.to_string();
                }
            }
        }
    }
}

/// Where thousands of hosts come at once, another handshake may wait longer than a host may be silent;
/// who has a session keeps it meanwhile.
async fn once(
    heartbeat: &Heartbeat,
    connection: &mut Option<Connection>,
) -> Result<Reply<BeatReply>, ClientError> {
    if let Some(connection) = connection {
        return connection.beat(&heartbeat.session).await;
    }
    let beat = heartbeat.beside.beat(&heartbeat.session);
    let (said, opened) = tokio::join!(beat, open(heartbeat));
    match opened {
        Ok(opened) => *connection = Some(opened),
        Err(error) => tracing::debug!(%error, "no connection for heartbeats yet"),
    }
    said
}

async fn open(heartbeat: &Heartbeat) -> Result<Connection, ClientError> {
    let tls = tls::member(&heartbeat.identity).map_err(|error| ClientError::Refused {
        address: heartbeat.address,
        reason: error.to_string(),
    })?;
    Connection::open_busy(heartbeat.address, tls).await
}
