//! A blocking HTTP/1.1 client, over any stream: the API's Unix
//! socket, or TCP from inside a host's namespace. Tests send what no proper client would.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
};

/// Status line, headers and whole body of an answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` when it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends one request and reads the answer to its end.
pub fn request<S: Read + Write>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let close = [&[("Connection", "close")], headers].concat();
    send(&mut stream, method, path, &close, body)?;
    read_response(&mut BufReader::new(stream), method == "HEAD")
}

/// A connection for one request after another.
pub struct Kept<S>(BufReader<S>);

impl<S: Read + Write> Kept<S> {
    pub fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        let headers = [("Content-Type", "application/json")];
        send(self.0.get_mut(), method, path, &headers, body)?;
        read_response(&mut self.0, method == "HEAD")
    }
}

fn send(
    stream: &mut impl Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += "Host: lab\r\n";
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    match stream.write_all(body) {
        // A body that is refused half way: the answer is there all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    stream.flush()
}

fn read_response(reader: &mut impl BufRead, no_body: bool) -> io::Result<Response> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("not an HTTP status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => break,
        }
    }
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    if no_body || matches!(status, 204 | 304) {
        return Ok(response);
    }
    let chunked = response
        .header("transfer-encoding")
        .is_some_and(|how| how.contains("chunked"));
    if chunked {
        read_chunks(reader, &mut response.body)?;
    } else if let Some(length) = response
        .header("content-length")
        .and_then(|n| n.parse().ok())
    {
        reader.take(length).read_to_end(&mut response.body)?;
    } else {
        reader.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(invalid("the answer ended within its chunks".to_owned()));
        }
        let digits = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(digits, 16)
            .map_err(|_| invalid(format!("not a chunk size: {line:?}")))?;
        if size == 0 {
            return Ok(());
        }
        reader.by_ref().take(size).read_to_end(body)?;
        line.clear();
        reader.read_line(&mut line)?;
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Response {
        read_response(&mut text.as_bytes(), false).unwrap()
    }

    #[test]
    fn bodies_by_length_by_chunks_and_by_end() {
        let length = parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc");
        assert_eq!((length.status, length.text().as_str()), (200, "ab"));
        let chunks = parse(
            "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n",
        );
        assert_eq!((chunks.status, chunks.text().as_str()), (404, "abc"));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\nall").text(), "all");
        assert!(parse("HTTP/1.1 204 No Content\r\n\r\n").body.is_empty());
    }
}
