//! A load of one question on an API's socket.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// How long a sample takes.
const SAMPLE: Duration = Duration::from_secs(2);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What came of it.
pub struct Sample {
    /// Answers a second.
    pub rate: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Of one answer's body.
    pub bytes: usize,
}

/// The same question again and again over so many connections that stay open.
///
/// # Errors
/// When there is another answer than 200.
pub fn load(socket: &Path, path: &str, connections: usize) -> Result<Sample> {
    let begun = Instant::now();
    let results: Vec<Result<(Vec<f64>, usize)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| one_connection(socket, path, begun)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            let joined = thread.join();
            joined.unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        });
        joined.collect()
    });
    let (mut times, mut bytes) = (Vec::new(), 0);
    for result in results {
        let (more, size) = result?;
        times.extend(more);
        bytes = size;
    }
    times.sort_by(f64::total_cmp);
    Ok(Sample {
        rate: times.len() as f64 / begun.elapsed().as_secs_f64(),
        p99: times[(times.len() - 1) * 99 / 100],
        bytes,
    })
}

fn one_connection(socket: &Path, path: &str, begun: Instant) -> Result<(Vec<f64>, usize)> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::with_capacity(1 << 18, stream.try_clone()?);
    let mut stream = stream;
    let question = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let (mut times, mut size, mut body) = (Vec::new(), 0, Vec::new());
    while begun.elapsed() < SAMPLE {
        let asked = Instant::now();
        stream.write_all(question.as_bytes())?;
        body.clear();
        read_answer(&mut reader, &mut body)?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        size = body.len();
    }
    Ok((times, size))
}

/// Its body.
fn read_answer(reader: &mut BufReader<UnixStream>, body: &mut Vec<u8>) -> Result<()> {
    let (mut line, mut length, mut chunked) = (String::new(), None, false);
    loop {
        line.clear();
        ensure!(
            reader.read_line(&mut line)? != 0,
            "the connection was closed"
        );
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            break;
        }
        if text.starts_with("http/1.1 ") {
            ensure!(text.contains(" 200 "), "{text}");
        }
        if let Some(number) = text.strip_prefix("content-length: ") {
            length = Some(number.parse::<u64>()?);
        }
        chunked |= text == "transfer-encoding: chunked";
    }
    if !chunked {
        let length = length.context("an answer without a length")?;
        reader.by_ref().take(length).read_to_end(body)?;
        return Ok(());
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16)?;
        reader.by_ref().take(size).read_to_end(body)?;
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}
