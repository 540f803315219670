//! What every command works with: the streams, the environment, the daemon.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcOffset;
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use crate::client::{Client, Host, TlsFiles};
use crate::credentials::Credentials;
use crate::failure::Failure;

/// A shared place to write to.
#[derive(Clone)]
pub struct Sink(Arc<Mutex<Box<dyn Write + Send>>>);

impl Sink {
    /// Wraps a writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(writer))))
    }

    /// Writes everything and flushes: output of a container must be seen at once.
    pub fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self
            .0
            .lock()
            .map_err(|_| io::Error::other("another writer panicked"))?;
        writer.write_all(bytes)?;
        writer.flush()
    }
}

/// The three standard streams, and whether they are terminals.
pub struct Io {
    /// Standard output.
    pub out: Sink,
    /// Standard error.
    pub err: Sink,
    /// Standard input; taken by the one command part that reads it.
    pub input: Mutex<Option<Box<dyn AsyncRead + Send + Unpin>>>,
    /// Standard input is a terminal.
    pub input_is_terminal: bool,
    /// Standard output is a terminal.
    pub output_is_terminal: bool,
}

impl Io {
    /// The streams of this process.
    pub fn of_process() -> Self {
        Self {
            out: Sink::new(io::stdout()),
            err: Sink::new(io::stderr()),
            input: Mutex::new(Some(Box::new(tokio::io::stdin()))),
            input_is_terminal: io::stdin().is_terminal(),
            output_is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Standard input, once.
    pub fn take_input(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>, Failure> {
        self.input
            .lock()
            .ok()
            .and_then(|mut input| input.take())
            .ok_or_else(|| Failure::new("standard input is already in use"))
    }
}

/// What a command may know of the process around it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// The zone times are printed in.
    pub zone: UtcOffset,
    /// Relative paths start here.
    pub directory: PathBuf,
}

impl Surroundings {
    /// Those of this process. Call before threads start: the zone cannot be read safely after.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os()
                .map(|(name, value)| {
                    (
                        name.to_string_lossy().into_owned(),
                        value.to_string_lossy().into_owned(),
                    )
                })
                .collect(),
            zone: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// The folder of Docker's client settings: `$DOCKER_CONFIG` or `~/.docker`.
    pub fn docker_folder(&self) -> PathBuf {
        match self
            .variables
            .get("DOCKER_CONFIG")
            .filter(|v| !v.is_empty())
        {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(self.variables.get("HOME").map_or("/root", String::as_str))
                .join(".docker"),
        }
    }
}

/// One run of the program.
pub struct Session {
    /// The streams.
    pub io: Io,
    /// The environment.
    pub surroundings: Surroundings,
    host: Host,
    tls: Option<TlsFiles>,
    debug: bool,
    client: OnceCell<Client>,
}

impl Session {
    /// A session with the daemon at `host`; it is reached when first needed.
    pub fn new(
        io: Io,
        surroundings: Surroundings,
        host: Host,
        tls: Option<TlsFiles>,
        debug: bool,
    ) -> Self {
        Self {
            io,
            surroundings,
            host,
            tls,
            debug,
            client: OnceCell::new(),
        }
    }

    /// The daemon; connects and agrees on a version at the first call.
    pub async fn client(&self) -> Result<&Client, Failure> {
        let fixed = self
            .surroundings
            .variables
            .get("DOCKER_API_VERSION")
            .filter(|v| !v.is_empty());
        let connect = async || -> Result<Client, Failure> {
            let tls = match (&self.host, &self.tls) {
                (Host::Tcp(_), Some(files)) => Some(files.read().map_err(Failure::new)?),
                (Host::Unix(_), _) | (Host::Tcp(_), None) => None,
            };
            let fixed = fixed.map(String::as_str);
            Ok(Client::connect(self.host.clone(), tls, fixed, self.debug).await?)
        };
        self.client.get_or_try_init(connect).await
    }

    /// Writes to standard output.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        Ok(self.io.out.put(text.as_bytes())?)
    }

    /// Writes a line to standard output.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{text}\n"))
    }

    /// Writes a line to standard error; that nobody reads it is no error.
    pub fn note(&self, text: &str) {
        let _ = self.io.err.put(format!("{text}\n").as_bytes());
    }

    /// `--format`, else what Docker's client settings say under `key`, such as `servicesFormat`;
    /// those do not apply to a list of ids.
    pub fn format(
        &self,
        given: Option<&str>,
        key: &str,
        quiet: bool,
    ) -> Result<Option<String>, Failure> {
        if quiet || given.is_some_and(|format| !format.trim().is_empty()) {
            return Ok(given.map(str::to_owned));
        }
        let settings = Credentials::read(&self.surroundings.docker_folder())?;
        Ok(settings.text(key).map(str::to_owned))
    }

    /// Nanoseconds since 1970.
    pub fn now_nanos(&self) -> i128 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as i128)
    }

    /// Seconds since 1970.
    pub fn now(&self) -> i64 {
        (self.now_nanos() / 1_000_000_000) as i64
    }

    /// Does `work` for each name and prints what it returns; goes on after a failure and
    /// reports all of them together at the end.
    pub async fn each(
        &self,
        names: &[String],
        work: impl AsyncFn(&str) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for name in names {
            match work(name).await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => self.line(&text)?,
                Err(failure) => failures.push(failure),
            }
        }
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => {
                let texts: Vec<&str> = failures.iter().map(Failure::text).collect();
                Err(Failure::new(texts.join("\n")))
            }
        }
    }

    /// Reads one line from standard input, without its end.
    pub async fn read_line(&self) -> Result<String, Failure> {
        use tokio::io::AsyncReadExt;
        let mut input = self.io.take_input()?;
        let mut line = Vec::new();
        let mut byte = [0_u8];
        while input.read(&mut byte).await? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line)
            .trim_end_matches('\r')
            .to_owned())
    }

    /// Asks `question [y/N]`; anything but y or yes is no.
    pub async fn confirm(&self, question: &str) -> Result<bool, Failure> {
        self.print(&format!("{question} [y/N] "))?;
        let answer = self.read_line().await?;
        Ok(matches!(
            answer.trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        ))
    }
}
