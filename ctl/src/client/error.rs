//! Why a call did not work, in words that say what to do.

use std::io;

use super::host::Host;

/// A call to the daemon that brought no answer, or one that refuses.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be reached at the socket.
    #[error("{}", unreachable(.host, .reason))]
    Unreachable {
        /// Where we tried.
        host: Host,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The daemon answered with an error status.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The sentence in the body.
        message: String,
    },
    /// The connection ended in the middle of a call.
    #[error("the connection to {host} broke during {call}: {reason}")]
    Broken {
        /// Where it went.
        host: Host,
        /// Method and path.
        call: String,
        /// What happened.
        reason: String,
    },
    /// The daemon answered something that is not what the API says.
    #[error("the daemon's answer to {call} cannot be read: {reason}")]
    Unreadable {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon speaks only API versions older than ours.
    #[error(
        "the daemon speaks API version {version}, and ovnctl needs at least {minimum}: update the daemon"
    )]
    TooOld {
        /// The daemon's newest.
        version: String,
        /// Our oldest.
        minimum: &'static str,
    },
}

fn unreachable(host: &Host, reason: &io::Error) -> String {
    let begin = format!("cannot connect to the daemon at {host}");
    match (host, reason.kind()) {
        (Host::Unix(path), io::ErrorKind::NotFound) => format!(
            "{begin}: there is no such socket. Is ovnd running? Start it (systemctl start ovnd), \
             or name its socket with -H unix:///PATH or OVERNET_HOST ({} does not exist).",
            path.display()
        ),
        (Host::Unix(path), io::ErrorKind::PermissionDenied) => format!(
            "{begin}: permission denied. Run this as root (sudo), or as a user who may write to {}.",
            path.display()
        ),
        (Host::Unix(_), io::ErrorKind::ConnectionRefused) => format!(
            "{begin}: the socket is there, but nobody listens. Is ovnd running? \
             See systemctl status ovnd and journalctl -u ovnd."
        ),
        (Host::Tcp(_), io::ErrorKind::ConnectionRefused) => {
            format!("{begin}: connection refused. Is a daemon listening on that port?")
        }
        (Host::Unix(_) | Host::Tcp(_), _) => format!("{begin}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_says_what_to_do() {
        let host = Host::Unix("/run/overnet/ovnd.sock".into());
        let cases = [
            (io::ErrorKind::NotFound, "Is ovnd running?"),
            (io::ErrorKind::PermissionDenied, "as root"),
            (io::ErrorKind::ConnectionRefused, "nobody listens"),
        ];
        for (kind, wanted) in cases {
            let text = ClientError::Unreachable {
                host: host.clone(),
                reason: kind.into(),
            }
            .to_string();
            assert!(text.contains(wanted), "{text}");
            assert!(text.contains("unix:///run/overnet/ovnd.sock"), "{text}");
        }
    }
}
