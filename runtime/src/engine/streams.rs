//! Streams between a container and whoever listens.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

/// Docker's stream numbers, as in its eight-byte frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch; 0: from the first.
    pub since: i64,
    /// Nanoseconds since the Unix epoch; 0: to the last.
    pub until: i64,
    /// Lines from the end; absent: all.
    pub tail: Option<usize>,
    /// Go on until the container stops for good.
    pub follow: bool,
}

/// A line (or a part of a long one) as the container wrote it, its newline included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub stream: Stream,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    pub bytes: Bytes,
}

/// Dropping it ends the following.
pub type LogStream = BoxStream<'static, LogLine>;

/// `POST /containers/{id}/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Give what was logged so far first.
    pub logs: bool,
    /// Go on with what comes; without it only the logs are given.
    pub stream: bool,
    /// Docker's notation, such as `ctrl-p,ctrl-q`; empty: that one. Looked for on terminals only.
    pub detach_keys: String,
}

/// A chunk of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stream: Stream,
    pub bytes: Bytes,
}

/// A live connection to a container's or an exec's standard streams.
pub struct Attached {
    /// With a terminal everything is [`Stream::Stdout`] and is to be sent without frames.
    pub tty: bool,
    /// Ends when the process has ended and everything was read, or on the detach keys.
    pub output: mpsc::Receiver<Output>,
    /// Dropping it closes the standard input of a container that wants that (half-close);
    /// absent when input was not asked for or the container has none.
    pub input: Option<mpsc::Sender<Bytes>>,
}
