//! TCP questions: for answers that are too large for UDP.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::{Outcome, Scratch, Transport, answer},
    forward::{Forwarder, write_framed},
    wire::MAX_TCP,
    zone::Zone,
};

/// How long a client may keep a connection without asking or without taking its answer.
const IDLE: Duration = Duration::from_secs(10);
/// Connections of one sandbox at once; more wait in the socket.
const CONNECTIONS: usize = 64;

/// One sandbox's TCP side.
pub struct TcpSandbox {
    pub sandbox: Arc<str>,
    pub zone: Arc<ArcSwap<Zone>>,
    pub forwarder: Forwarder,
    pub stop: CancellationToken,
}

/// Accepts until `stop`; every connection is a task of `tasks` that ends with `stop` too.
pub async fn serve(listener: TcpListener, sandbox: TcpSandbox, tasks: TaskTracker) {
    let sandbox = Arc::new(sandbox);
    let stop = sandbox.stop.clone();
    let accept = async {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let sandbox = Arc::clone(&sandbox);
                    tasks.spawn(async move {
                        let served = sandbox.stop.run_until_cancelled(converse(stream, &sandbox));
                        if let Some(Err(error)) = served.await {
                            let sandbox = &*sandbox.sandbox;
                            tracing::debug!(%error, sandbox, "name server: connection");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    let sandbox = &*sandbox.sandbox;
                    tracing::warn!(%error, sandbox, "name server: accepting a connection");
                    // Out of descriptors, most likely: the kernel would fail again at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn converse(mut stream: TcpStream, sandbox: &TcpSandbox) -> io::Result<()> {
    let mut scratch = Scratch::new();
    let mut out = vec![0; MAX_TCP];
    loop {
        let Some(packet) = tokio::time::timeout(IDLE, read_question(&mut stream)).await?? else {
            return Ok(());
        };
        let outcome = answer(
            &sandbox.zone.load(),
            &sandbox.sandbox,
            &packet,
            Transport::Tcp,
            &mut scratch,
            &mut out,
        );
        let forwarded;
        let reply = match outcome {
            Outcome::Reply(length) => &out[..length],
            Outcome::Ignore => return Ok(()),
            Outcome::Forward(upstreams) => {
                let ask = sandbox.forwarder.ask(&packet, &upstreams, Transport::Tcp);
                forwarded = ask.await.unwrap_or_default();
                &forwarded
            }
        };
        tokio::time::timeout(IDLE, write_framed(&mut stream, reply)).await??;
    }
}

/// Nothing when the client has closed.
async fn read_question(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet))
}
