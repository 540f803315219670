//! Raw streams over a connection that was HTTP: attach and exec.

use std::{convert::Infallible, os::fd::AsFd as _};

use api::{ApiVersion, frame};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use model::Refusal;
use runtime::engine::{Attached, Output, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf, unix::AsyncFd},
    net::UnixStream,
    sync::mpsc,
};

/// What is read from a client at once.
const CHUNK: usize = 32 << 10;

/// Whether the client wants the connection itself.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The content type that tells the client whether frames come.
pub fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < ApiVersion::new(1, 42) {
        frame::RAW
    } else {
        frame::MULTIPLEXED
    }
}

/// One chunk of output as it goes over the wire: as it is for a terminal, else in a frame.
pub fn encode(output: Output, tty: bool) -> Bytes {
    if tty {
        return output.bytes;
    }
    framed(output.stream, &[&output.bytes])
}

/// Parts joined in one frame.
pub fn framed(stream: Stream, parts: &[&[u8]]) -> Bytes {
    let stream = match stream {
        Stream::Stdout => frame::Stream::Stdout,
        Stream::Stderr => frame::Stream::Stderr,
    };
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(8 + length);
    bytes.extend_from_slice(&frame::header(
        stream,
        u32::try_from(length).unwrap_or(u32::MAX),
    ));
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.into()
}

/// Hands the streams to the client: over the connection itself when it asked for that (101),
/// else as the body of a 200, with the request's body as input.
pub fn hand_over(request: Request, attached: Attached, version: ApiVersion) -> Response {
    let tty = attached.tty;
    if wants_upgrade(request.headers()) {
        return switch(request, tty, version, std::future::ready(Ok(attached)));
    }
    let Attached {
        mut output, input, ..
    } = attached;
    tokio::spawn(feed_body(request.into_body(), input));
    let stream = async_stream::stream! {
        while let Some(chunk) = output.recv().await {
            yield Ok::<_, Infallible>(encode(chunk, tty));
        }
    };
    typed(Response::new(Body::from_stream(stream)), tty, version)
}

/// Answers 101, and asks for the streams when that has been sent, as Docker does: some clients lose what
/// comes in one piece with the answer's head. A refusal is told in the stream.
pub fn switch(
    mut request: Request,
    tty: bool,
    version: ApiVersion,
    attached: impl Future<Output = Result<Attached, Refusal>> + Send + 'static,
) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, "the client went before the upgrade");
                return;
            }
        };
        match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner();
                let left = left(&stream);
                let client = Client {
                    connection: stream,
                    said: parts.read_buf,
                    left,
                };
                client.serve(tty, attached).await;
            }
            // Over a network only the next write shows that nobody is there.
            Err(upgraded) => {
                let client = Client {
                    connection: TokioIo::new(upgraded),
                    said: Bytes::new(),
                    left: std::future::pending(),
                };
                client.serve(tty, attached).await;
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    typed(response, tty, version)
}

fn typed(mut response: Response, tty: bool, version: ApiVersion) -> Response {
    let kind = HeaderValue::from_static(content_type(tty, version));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn tell<C: tokio::io::AsyncWrite + Unpin>(mut connection: C, refusal: &Refusal, tty: bool) {
    let output = Output {
        stream: Stream::Stderr,
        bytes: format!("{refusal}\r\n").into(),
    };
    // A client that is gone does not care.
    if connection.write_all(&encode(output, tty)).await.is_ok() {
        let _ = connection.shutdown().await;
    }
}

async fn feed_body(body: Body, input: Option<mpsc::Sender<Bytes>>) {
    let Some(input) = input else { return };
    let mut body = body.into_data_stream();
    while let Some(Ok(bytes)) = body.next().await {
        if input.send(bytes).await.is_err() {
            return;
        }
    }
}

/// Resolves once the client has closed its end whole; one that has ended its input is still there.
fn left(stream: &UnixStream) -> impl Future<Output = ()> + Send + 'static {
    // There is no urgent data on these sockets, and EPOLLHUP comes unasked (epoll_ctl(2)).
    let watched = stream.as_fd().try_clone_to_owned();
    // SAFETY: an owned descriptor is the same one for life.
    let register = |fd| unsafe { AsyncFd::register_with_interest(fd, Interest::PRIORITY) };
    let watched = watched.and_then(|fd| register(fd).map_err(Into::into));
    async move {
        match watched {
            Ok(watched) => drop(watched.ready(Interest::PRIORITY).await),
            Err(error) => {
                tracing::warn!(%error, "it will not be seen when a client goes");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Who has taken a connection over.
struct Client<C, L> {
    connection: C,
    /// Read with the request.
    said: Bytes,
    left: L,
}

impl<C, L> Client<C, L>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    L: Future<Output = ()>,
{
    async fn serve(self, tty: bool, attached: impl Future<Output = Result<Attached, Refusal>>) {
        match attached.await {
            Ok(attached) => self.pump(attached).await,
            Err(refusal) => tell(self.connection, &refusal, tty).await,
        }
    }

    /// Carries bytes both ways until the output ends or the client is gone. The client's half-close
    /// ends the input only.
    async fn pump(self, attached: Attached) {
        let Attached { tty, output, input } = attached;
        let (reader, writer) = tokio::io::split(self.connection);
        let feeding = tokio::spawn(feed(reader, self.said, input));
        tokio::select! {
            () = write_out(writer, output, tty) => {}
            // A container that says nothing would keep it for ever.
            () = self.left => {}
        }
        feeding.abort();
    }
}

async fn feed<C: tokio::io::AsyncRead>(
    mut reader: ReadHalf<C>,
    said: Bytes,
    input: Option<mpsc::Sender<Bytes>>,
) {
    if let Some(input) = input.as_ref().filter(|_| !said.is_empty())
        && input.send(said).await.is_err()
    {
        return;
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                // Without input what the client says is read and dropped, so that it never blocks.
                let Some(input) = &input else { continue };
                if input
                    .send(Bytes::copy_from_slice(&buffer[..count]))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}

async fn write_out<C: tokio::io::AsyncWrite>(
    mut writer: WriteHalf<C>,
    mut output: mpsc::Receiver<Output>,
    tty: bool,
) {
    while let Some(chunk) = output.recv().await {
        if writer.write_all(&encode(chunk, tty)).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // The end of the output is what the client waits for; one that is gone does not care.
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(tty: bool) -> (mpsc::Sender<Output>, mpsc::Receiver<Bytes>, Attached) {
        let (out, output) = mpsc::channel(4);
        let (input, inside) = mpsc::channel(4);
        (
            out,
            inside,
            Attached {
                tty,
                output,
                input: Some(input),
            },
        )
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_half_close_ends_the_input_only() {
        let (out, mut inside, attached) = attached(false);
        let (client, server) = tokio::io::duplex(1024);
        let theirs = Client {
            connection: server,
            said: "first ".into(),
            left: std::future::pending(),
        };
        tokio::spawn(theirs.pump(attached));
        assert_eq!(inside.recv().await.unwrap(), "first ");
        let (mut reader, mut writer) = tokio::io::split(client);
        writer.write_all(b"question").await.unwrap();
        assert_eq!(inside.recv().await.unwrap(), "question");
        writer.shutdown().await.unwrap();
        assert_eq!(inside.recv().await, None);
        out.send(Output {
            stream: Stream::Stderr,
            bytes: "answer".into(),
        })
        .await
        .unwrap();
        drop(out);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x02\0\0\0\0\0\0\x06answer");
    }

    #[tokio::test]
    async fn who_goes_is_missed_and_who_only_listens_is_not() {
        let (out, _inside, attached) = attached(false);
        let (mut client, server) = UnixStream::pair().unwrap();
        let left = left(&server);
        let theirs = Client {
            connection: server,
            said: Bytes::new(),
            left,
        };
        let pumping = tokio::spawn(theirs.pump(attached));
        client.shutdown().await.unwrap();
        let say = || Output {
            stream: Stream::Stdout,
            bytes: "x".into(),
        };
        out.send(say()).await.unwrap();
        let mut heard = [0; 9];
        client.read_exact(&mut heard).await.unwrap();
        assert!(!pumping.is_finished());
        drop(client);
        pumping.await.unwrap();
        assert!(out.is_closed());
    }

    #[test]
    fn terminals_have_no_frames_and_old_clients_the_old_type() {
        let output = Output {
            stream: Stream::Stdout,
            bytes: "x".into(),
        };
        assert_eq!(encode(output.clone(), true), "x");
        assert_eq!(encode(output, false), &b"\x01\0\0\0\0\0\0\x01x"[..]);
        for (tty, minor, kind) in [
            (true, 53, frame::RAW),
            (false, 53, frame::MULTIPLEXED),
            (false, 41, frame::RAW),
        ] {
            assert_eq!(content_type(tty, ApiVersion::new(1, minor)), kind);
        }
    }
}
