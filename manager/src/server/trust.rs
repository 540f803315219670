//! Connections end when what they were opened with is not trusted any more: after the cluster's root
//! was replaced, whoever came with a certificate of the old one has to come again.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::{
    ca::{Member, member_of},
    tls::{self, LiveIdentity},
};

/// The other end of a connection, as each of its calls is told.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub from: Option<SocketAddr>,
    /// Who its certificate says it is, or why that cannot be read; nothing of who showed none. Read
    /// once: a host calls with each heartbeat.
    pub member: Option<Arc<Result<Member, String>>>,
}

/// A member's connection, until it is not trusted any more.
pub(super) struct Trusted {
    stream: TlsStream<TcpStream>,
    ends: Pin<Box<WaitForCancellationFutureOwned>>,
    _over: DropGuard,
}

impl Trusted {
    /// `within` says over how much time connections that end together are spread.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        identity: Arc<LiveIdentity>,
        within: impl Fn() -> Duration + Send + 'static,
    ) -> Self {
        let (end, over) = (CancellationToken::new(), CancellationToken::new());
        let shown = stream.get_ref().1.peer_certificates();
        if let Some(chain) = shown.map(<[_]>::to_vec) {
            let (end, over) = (end.clone(), over.clone());
            let watching = async move {
                until_distrusted(&identity, &chain).await;
                tokio::time::sleep(within().mul_f64(rand::random())).await;
                end.cancel();
            };
            tokio::spawn(over.run_until_cancelled_owned(watching));
        }
        Self {
            stream,
            ends: Box::pin(end.cancelled_owned()),
            _over: over.drop_guard(),
        }
    }
}

/// Returns when the chain leads to no root that is trusted then.
async fn until_distrusted(identity: &LiveIdentity, chain: &[CertificateDer<'static>]) {
    let mut replaced = identity.replaced();
    loop {
        let roots = identity.current();
        if let Err(error) = tls::still_accepts(roots.roots_pem(), chain) {
            tracing::info!(%error, "a connection ends: its certificate is not trusted any more");
            return;
        }
        if replaced.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

impl AsyncRead for Trusted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Trusted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Trusted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let (stream, tls) = self.stream.get_ref();
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        let member = shown.map(|shown| member_of(shown).map_err(|error| error.to_string()));
        Caller {
            from: stream.peer_addr().ok(),
            member: member.map(Arc::new),
        }
    }
}
