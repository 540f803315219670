//! Log lines for systemd's journal with their fields, over its native protocol
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL): `journalctl OVERNET_TASK=…` finds a task's lines on any host.

use std::{
    fmt::Write as _,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A datagram has to fit into the socket's buffer.
const LONGEST_VALUE: usize = 32 << 10;

/// Sends every event to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, when it is what standard error leads to (JOURNAL_STREAM, systemd.exec(5)).
    pub fn of_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = nix::sys::stat::fstat(std::io::stderr().as_fd()).ok()?;
        (stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            path: path.to_owned(),
        })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let entry = Entry::of(event);
        // A journal that restarts takes nothing for a moment; standard error is kept for it.
        if self.socket.send_to(&entry.bytes(), &self.path).is_err() {
            eprintln!("{}", entry.message);
        }
    }
}

/// One event, taken apart.
struct Entry {
    priority: u8,
    target: String,
    /// The sentence, and the fields behind it as `name=value`.
    message: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let mut message = fields.message;
        for (name, value) in &fields.others {
            let _ = write!(message, " {name}={value}");
        }
        Self {
            priority: match *meta.level() {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                Level::DEBUG | Level::TRACE => 7,
            },
            target: meta.target().to_owned(),
            message,
            fields: fields.others,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        put(&mut bytes, "MESSAGE", &self.message);
        put(&mut bytes, "PRIORITY", &self.priority.to_string());
        put(&mut bytes, "SYSLOG_IDENTIFIER", "ovnd");
        put(&mut bytes, "TARGET", &self.target);
        for (name, value) in &self.fields {
            put(&mut bytes, &journal_name(name), value);
        }
        bytes
    }
}

/// `task` becomes `OVERNET_TASK`; a name may have capitals, digits and underscores only.
fn journal_name(field: &str) -> String {
    let upper = field.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_ascii_uppercase(),
        _ => '_',
    });
    "OVERNET_".chars().chain(upper).take(64).collect()
}

/// `NAME=value`, or with its length where the value has line breaks.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(LONGEST_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value[..end];
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, String)>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name().to_owned(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_event_arrives_with_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(task = "t1", exit.status = 3, "it ended\nbadly");
        });
        let mut buffer = [0; 1024];
        let length = journal.recv(&mut buffer).unwrap();
        let message = "it ended\nbadly task=t1 exit.status=3";
        let mut expected = b"MESSAGE\n".to_vec();
        expected.extend_from_slice(&(message.len() as u64).to_le_bytes());
        expected.extend_from_slice(message.as_bytes());
        expected.extend_from_slice(
            b"\nPRIORITY=4\nSYSLOG_IDENTIFIER=ovnd\nTARGET=agent::journal::tests\n\
              OVERNET_TASK=t1\nOVERNET_EXIT_STATUS=3\n",
        );
        assert_eq!(
            String::from_utf8_lossy(&buffer[..length]),
            String::from_utf8_lossy(&expected)
        );
    }

    #[test]
    fn long_values_are_cut_between_letters() {
        let mut bytes = Vec::new();
        put(&mut bytes, "A", &"ä".repeat(LONGEST_VALUE));
        assert!(bytes.len() <= LONGEST_VALUE + 3);
        assert!(std::str::from_utf8(&bytes).is_ok());
    }
}
