//! What does the other side of a port speak? Asked of registries that may use plain http, and
//! to explain a failed connection.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    Http,
    Tls,
    /// It answers with neither.
    Other,
    /// Nobody answers, with the reason.
    Nothing(String),
}

/// Sends a plain request and looks at the answer. Without a port, 443 is TLS when it answers,
/// and 80 is asked otherwise.
pub async fn ask(registry: &str) -> Speech {
    if has_port(registry) {
        return talk(registry).await;
    }
    match talk(&format!("{registry}:443")).await {
        Speech::Nothing(_) => talk(&format!("{registry}:80")).await,
        answer => answer,
    }
}

async fn talk(address: &str) -> Speech {
    let conversation = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        while answer.len() < 4096 {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
            }
        }
        std::io::Result::Ok(judge(&answer))
    };
    match timeout(PATIENCE, conversation).await {
        Ok(Ok(speech)) => speech,
        Ok(Err(error)) => Speech::Nothing(error.to_string()),
        Err(_) => Speech::Nothing(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// TLS servers answer plain text with an alert record (RFC 8446 5.1: 0x15), or, as Go and nginx
/// do, with a sentence in http.
fn judge(answer: &[u8]) -> Speech {
    if answer.starts_with(&[0x15, 0x03]) {
        return Speech::Tls;
    }
    if !answer.starts_with(b"HTTP/") {
        return Speech::Other;
    }
    let text = String::from_utf8_lossy(answer);
    if text.contains("to an HTTPS server") || text.contains("sent to HTTPS port") {
        Speech::Tls
    } else {
        Speech::Http
    }
}

fn has_port(registry: &str) -> bool {
    host_only(registry).len() < registry.trim_start_matches('[').len() && !registry.ends_with(']')
}

/// Without port and brackets.
pub fn host_only(registry: &str) -> &str {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    registry.split(':').next().unwrap_or(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_the_protocol() {
        for (answer, speech) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Speech::Http),
            (b"HTTP/1.1 401 Unauthorized\r\n", Speech::Http),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", Speech::Tls),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port", Speech::Tls),
            (&[0x15, 3, 1, 0, 2, 2, 70], Speech::Tls),
            (b"SSH-2.0-x", Speech::Other),
            (b"", Speech::Other),
        ] {
            assert_eq!(judge(answer), speech);
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (registry, host, port) in [
            ("a", "a", false),
            ("a:1", "a", true),
            ("[::1]", "::1", false),
            ("[::1]:5", "::1", true),
        ] {
            assert_eq!(
                (host_only(registry), has_port(registry)),
                (host, port),
                "{registry}"
            );
        }
    }
}
