//! Reading what the monitor kept: one line a record, `TIME STREAM F|P text`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use model::Refusal;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{io::unix::AsyncFd, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{Engine, LogLine, LogOptions, LogStream, Stream, container::Container, machine::Phase};

impl Engine {
    pub fn logs(&self, reference: &str, options: LogOptions) -> Result<LogStream, Refusal> {
        let container = self.find(reference)?;
        if !options.stdout && !options.stderr {
            return Err(Refusal::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        if container.record().spec.host.log.driver == "none" {
            return Err(Refusal::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        let (sender, receiver) = mpsc::channel(64);
        self.spawn(async move {
            if let Err(error) = follow(&container, &options, &sender).await {
                tracing::warn!(container = %container.id.short(), %error, "reading a log");
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

async fn follow(
    container: &Arc<Container>,
    options: &LogOptions,
    sender: &mpsc::Sender<LogLine>,
) -> std::io::Result<()> {
    let path = container.directory.join("container.log");
    let mut reader = Reader::new(path.clone());
    let mut signal = container.signal.subscribe();
    // Watched before the first read: what comes in between is noticed.
    let watch = if options.follow {
        Some(watch_file(&container.directory, &path)?)
    } else {
        None
    };
    let mut first = true;
    loop {
        // Asked before reading: what it wrote until its end is still read below.
        let over = {
            let now = signal.borrow_and_update();
            now.removed
                || !matches!(
                    now.phase,
                    Phase::Running | Phase::Paused | Phase::Restarting
                )
        };
        let tail = options.tail.filter(|_| std::mem::take(&mut first));
        loop {
            let tail = tail.filter(|_| reader.at_start());
            let (taken, lines) = tokio::task::spawn_blocking(move || {
                let mut reader = reader;
                let lines = reader.more(tail);
                (reader, lines)
            })
            .await
            .map_err(std::io::Error::other)?;
            reader = taken;
            let lines = lines?;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                let wanted = match line.stream {
                    Stream::Stdout => options.stdout,
                    Stream::Stderr => options.stderr,
                };
                if options.until > 0 && line.time > options.until {
                    return Ok(());
                }
                if wanted && line.time >= options.since && sender.send(line).await.is_err() {
                    return Ok(());
                }
            }
        }
        let Some(watch) = &watch else { return Ok(()) };
        if over {
            return Ok(());
        }
        let limit = async {
            if options.until > 0 {
                let left = (options.until - super::now()).max(0);
                tokio::time::sleep(std::time::Duration::from_nanos(left as u64)).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            ready = watch.readable() => {
                let mut ready = ready?;
                let _ = watch.get_ref().0.read_events();
                ready.clear_ready();
            }
            _ = signal.changed() => {}
            () = limit => return Ok(()),
        }
    }
}

/// nix's handle, as tokio wants one.
struct Watch(Inotify);

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The file, and its directory in case a new file takes its place.
fn watch_file(directory: &Path, path: &Path) -> std::io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(
        directory,
        AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
    )?;
    // Not there before the first start.
    let _ = inotify.add_watch(path, AddWatchFlags::IN_MODIFY);
    // SAFETY: the watch owns its descriptor and gives the same one for life.
    Ok(unsafe { AsyncFd::register(Watch(inotify)) }?)
}

/// Reads on from where it was, also in a file that took the old one's place.
struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    /// The last bytes of a line that is not whole yet.
    rest: Vec<u8>,
}

const BATCH: usize = 256;

impl Reader {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            inode: 0,
            rest: Vec::new(),
        }
    }

    fn at_start(&self) -> bool {
        self.file.is_none()
    }

    /// The next lines, at most [`BATCH`]; none at the end.
    fn more(&mut self, tail: Option<usize>) -> std::io::Result<Vec<LogLine>> {
        if self.file.is_none() && !self.open(tail)? {
            return Ok(Vec::new());
        }
        let lines = self.read()?;
        if !lines.is_empty() {
            return Ok(lines);
        }
        let replaced = std::fs::metadata(&self.path).is_ok_and(|facts| facts.ino() != self.inode);
        if replaced && self.open(None)? {
            return self.read();
        }
        Ok(Vec::new())
    }

    fn open(&mut self, tail: Option<usize>) -> std::io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.inode = file.metadata()?.ino();
        if let Some(count) = tail {
            let start = tail_start(&mut file, count)?;
            file.seek(SeekFrom::Start(start))?;
        }
        self.rest.clear();
        self.file = Some(BufReader::with_capacity(64 << 10, file));
        Ok(true)
    }

    fn read(&mut self) -> std::io::Result<Vec<LogLine>> {
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let mut lines = Vec::new();
        while lines.len() < BATCH {
            file.read_until(b'\n', &mut self.rest)?;
            if self.rest.last() != Some(&b'\n') {
                break;
            }
            if let Some(line) = parse_line(&self.rest) {
                lines.push(line);
            }
            self.rest.clear();
        }
        Ok(lines)
    }
}

/// The lines of a file as it is now, all or the last ones, for whoever has no engine.
pub fn lines_of(path: &Path, tail: Option<usize>) -> std::io::Result<Vec<LogLine>> {
    let mut reader = Reader::new(path.to_owned());
    let mut lines = Vec::new();
    loop {
        let more = reader.more(tail)?;
        if more.is_empty() {
            return Ok(lines);
        }
        lines.extend(more);
    }
}

/// Where the last `count` lines begin. Parts of a long line count as one with its end.
fn tail_start(file: &mut File, count: usize) -> std::io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let length = file.seek(SeekFrom::End(0))?;
    let mut from = length;
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let start = from.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let mut block = vec![0; (from - start) as usize];
        file.read_exact(&mut block)?;
        block.extend_from_slice(&kept);
        kept = block;
        from = start;
        let mut seen = 0;
        let mut end = kept.len();
        while end > 0 {
            let begin = kept[..end - 1]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            // Begin 0 is a whole line only at the start of the file.
            if begin == 0 && from > 0 {
                break;
            }
            if parse_line(&kept[begin..end]).is_some_and(|line| line.bytes.ends_with(b"\n")) {
                seen += 1;
                if seen > count {
                    return Ok(from + end as u64);
                }
            }
            end = begin;
        }
        if from == 0 {
            return Ok(if count == 0 { length } else { 0 });
        }
    }
}

/// One record of the file, its newline included.
fn parse_line(line: &[u8]) -> Option<LogLine> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_whole = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let text = parts.next()?;
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text);
    if is_whole {
        bytes.push(b'\n');
    }
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    Some(LogLine {
        stream,
        time: time.unix_timestamp_nanos() as i64,
        bytes: Bytes::from(bytes),
    })
}

/// `10m`, `512k`, `1g`, plain bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines() {
        for (text, wanted) in [
            (
                "2026-01-02T03:04:05.000000006+00:00 stdout F hello world\n",
                Some((Stream::Stdout, "hello world\n")),
            ),
            (
                "2026-01-02T03:04:05.000000006+00:00 stderr P part\n",
                Some((Stream::Stderr, "part")),
            ),
            (
                "2026-01-02T03:04:05.000000006+00:00 stdout F \n",
                Some((Stream::Stdout, "\n")),
            ),
            ("2026-01-02T03:04:05.000000006+00:00 stdlog F x\n", None),
            ("nonsense\n", None),
        ] {
            let line = parse_line(text.as_bytes());
            let found = line
                .as_ref()
                .map(|line| (line.stream, std::str::from_utf8(&line.bytes).unwrap()));
            assert_eq!(found, wanted, "{text}");
            if let Some(line) = line {
                assert_eq!(line.time, 1_767_323_045_000_000_006);
            }
        }
    }

    #[test]
    fn the_last_lines() {
        let mut file = tempfile::tempfile().unwrap();
        let mut starts = Vec::new();
        let mut at = 0;
        for number in 0..5000 {
            starts.push(at);
            let line = format!("2026-01-02T03:04:05.000000006+00:00 stdout F line {number}\n");
            at += line.len() as u64;
            file.write_all(line.as_bytes()).unwrap();
        }
        for (count, wanted) in [
            (0, at),
            (1, starts[4999]),
            (3000, starts[2000]),
            (5000, 0),
            (9999, 0),
        ] {
            assert_eq!(tail_start(&mut file, count).unwrap(), wanted, "{count}");
        }
    }

    #[test]
    fn sizes() {
        for (text, wanted) in [
            ("10m", Some(10 << 20)),
            ("7", Some(7)),
            ("1G", Some(1 << 30)),
            ("x", None),
        ] {
            assert_eq!(parse_size(text), wanted, "{text}");
        }
    }
}
