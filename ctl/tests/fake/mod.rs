//! A daemon that answers what a test tells it and records what it was asked.

#![allow(clippy::unwrap_used)] // helpers of tests: a broken fake must stop the test

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctl::{Io, Sink, Surroundings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What the daemon answers.
pub enum Reply {
    /// A status and JSON.
    Json(u16, Value),
    /// 200 and a body in these chunks.
    Chunks(Vec<Vec<u8>>),
    /// 101, then these bytes; then, when asked to, everything that comes in until the end is sent back as one frame.
    Hijack { bytes: Vec<u8>, echoes: bool },
    /// 200 with the head at once and the JSON after the container was started.
    AfterStart(Value),
}

/// One request: `METHOD /path?query` without the version, and the body.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub body: Value,
    pub auth: Option<String>,
}

/// A running fake.
pub struct Fake {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub variables: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub out: String,
    pub err: String,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Fake {
    /// Starts it; `answer` gets the request without its version and how often this line was asked before.
    pub fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("d.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, answer) = (asked.clone(), Arc::new(answer));
        let (started, _) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(
                    stream,
                    record.clone(),
                    answer.clone(),
                    started.clone(),
                ));
            }
        });
        Self {
            folder,
            asked,
            variables: Vec::new(),
        }
    }

    /// Runs a command line, without the program's name, with `input` on standard input.
    pub async fn ctl(&self, words: &[&str], input: &str) -> Done {
        let (out, err) = (Memory::default(), Memory::default());
        let io = Io {
            out: Sink::new(out.clone()),
            err: Sink::new(err.clone()),
            input: Mutex::new(Some(Box::new(io::Cursor::new(input.as_bytes().to_vec())))),
            input_is_terminal: false,
            output_is_terminal: false,
        };
        let mut surroundings = Surroundings {
            variables: [
                (
                    "OVERNET_HOST".to_owned(),
                    format!("unix://{}", self.folder.path().join("d.sock").display()),
                ),
                (
                    "DOCKER_CONFIG".to_owned(),
                    self.folder().display().to_string(),
                ),
            ]
            .into(),
            zone: time::UtcOffset::UTC,
            directory: self.folder(),
        };
        surroundings
            .variables
            .extend(self.variables.iter().cloned());
        let arguments = std::iter::once("ovnctl")
            .chain(words.iter().copied())
            .map(Into::into)
            .collect();
        let run = ctl::run(arguments, surroundings, io);
        let status = tokio::time::timeout(Duration::from_secs(20), run)
            .await
            .expect("the command ends");
        Done {
            status,
            out: out.text(),
            err: err.text(),
        }
    }

    /// A folder the command may write to.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// The requests so far, without pings.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Their lines.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.line).collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    record: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<impl Fn(&Asked, usize) -> Reply>,
    started: tokio::sync::watch::Sender<bool>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let header = |name: &str| {
        head.lines()
            .find_map(|l| {
                l.split_once(": ")
                    .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            })
            .map(|(_, v)| v.to_owned())
    };
    let mut body = vec![
        0;
        header("content-length")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    ];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if target == "/_ping" {
        let pong = "HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(pong.as_bytes()).await.ok();
    }
    let path = target
        .strip_prefix("/v1.50")
        .expect("the agreed version leads the path");
    let asked = Asked {
        line: format!("{method} {path}"),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        auth: header("x-registry-auth"),
    };
    let before = {
        let mut record = record.lock().unwrap();
        let before = record
            .iter()
            .filter(|a: &&Asked| a.line == asked.line)
            .count();
        record.push(asked.clone());
        before
    };
    if asked.line.ends_with("/start") && !asked.line.contains("/exec/") {
        let _ = started.send(true);
    }
    match answer(&asked, before) {
        Reply::Json(status, value) => {
            let text = if value.is_null() {
                String::new()
            } else {
                value.to_string()
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            stream.write_all((head + &text).as_bytes()).await.ok()?;
        }
        Reply::Chunks(chunks) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .ok()?;
            for chunk in chunks {
                stream
                    .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                    .await
                    .ok()?;
                stream.write_all(&chunk).await.ok()?;
                stream.write_all(b"\r\n").await.ok()?;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        Reply::AfterStart(value) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .ok()?;
            started
                .subscribe()
                .wait_for(|started| *started)
                .await
                .ok()?;
            let text = value.to_string();
            stream
                .write_all(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).as_bytes())
                .await
                .ok()?;
        }
        Reply::Hijack { bytes, echoes } => {
            assert_eq!(header("upgrade").as_deref(), Some("tcp"));
            let head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&bytes).await.ok()?;
            if echoes {
                // Ends only at the half-close of the other side.
                let mut typed = Vec::new();
                stream.read_to_end(&mut typed).await.ok()?;
                stream.write_all(&frame(1, &typed)).await.ok()?;
            }
        }
    }
    stream.shutdown().await.ok()
}

/// A frame of attach, exec and logs.
pub fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend((bytes.len() as u32).to_be_bytes());
    frame.extend(bytes);
    frame
}
