//! A container in whose network connections are tried, for what measures times to a first answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::Host;

const TOOLBOX: &str = "registry:5000/example/toolbox";

/// Runs as container `asker` on the network `ch03`. Whose program uses it hands the words
/// `first ADDRESS:PORT` of its command line to [`first`].
pub struct Asker {
    host: Host,
    pid: String,
    program: String,
}

impl Asker {
    pub fn start(host: &Host) -> Result<Self> {
        let words = "run -d --name asker --network ch03";
        let words = words.split(' ').chain([TOOLBOX, "sleep", "100000"]);
        host.ctl(words).ok();
        let inspect = ["inspect", "--format", "{{.State.Pid}}", "asker"];
        Ok(Self {
            host: host.clone(),
            pid: host.ctl(inspect).ok(),
            program: std::env::current_exe()?.display().to_string(),
        })
    }

    /// Returns with the first answer of an echo server at that address.
    pub fn first(&self, address: &str) {
        let target = format!("{address}:8080");
        let enter = ["nsenter", "-t", &self.pid, "-n", "--"];
        let own = [self.program.as_str(), "first", &target];
        self.host.exec(enter.iter().chain(&own)).ok();
    }
}

/// Asks until there is an answer, for as long as `limit`.
pub fn first(address: SocketAddr, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let asked = (|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.write_all(b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer.contains("Hello Docker!!"))
        })();
        if matches!(asked, Ok(true)) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < limit,
            "no answer from {address}: {asked:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
