//! The Engine API of a real daemon that is in no cluster: refusals with their status and
//! sentence, and the stock client where there is one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A daemon with a root of its own; ended when dropped.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(path("log")).unwrap();
        // Namespaces of its own, so that a daemon of this host keeps its networks; `unshare`
        // becomes the daemon, so the pid is the daemon's.
        let child = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(env!("CARGO_BIN_EXE_ovnd"))
            .arg("--root")
            .arg(path("root"))
            .arg("--run")
            .arg(path("run"))
            .arg("--socket")
            .arg(path("api.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child, folder };
        let begun = Instant::now();
        while UnixStream::connect(daemon.socket()).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the daemon does not answer: {}",
                std::fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("the daemon answered after {:?}", begun.elapsed());
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Status, headers in lower case, and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn requests_are_answered_or_refused_in_one_sentence() {
    let daemon = Daemon::start();
    for (method, path, body, status, words) in [
        ("GET", "/_ping", "", 200, "OK"),
        ("GET", "/v1.24/_ping", "", 200, "OK"),
        ("GET", "/v1.23/_ping", "", 400, "too old"),
        ("GET", "/v1.99/_ping", "", 400, "too new"),
        ("GET", "/version", "", 200, "\"ApiVersion\":\"1.53\""),
        (
            "GET",
            "/v1.30/info",
            "",
            200,
            "\"LocalNodeState\":\"inactive\"",
        ),
        ("GET", "/containers/json?all=True", "", 200, "[]"),
        (
            "GET",
            "/containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
            "",
            400,
            "colour",
        ),
        ("GET", "/containers/nobody/json", "", 404, "nobody"),
        (
            "POST",
            "/containers/create",
            "",
            400,
            "config cannot be empty",
        ),
        (
            "POST",
            "/containers/create",
            "{\"Image\":",
            400,
            "line 1 column 9",
        ),
        (
            "POST",
            "/containers/create",
            "{\"Image\":5}",
            400,
            "Image: expected a string",
        ),
        (
            "POST",
            "/containers/create",
            "{\"Image\":\"a\",\"hostconfig\":{\"restartpolicy\":{\"name\":\"x\"}}}",
            400,
            "not one of no, always",
        ),
        (
            "POST",
            "/containers/create?name=-",
            "{\"Image\":\"a\"}",
            400,
            "name",
        ),
        (
            "POST",
            "/containers/create",
            "{\"Image\":\"absent:1\"}",
            404,
            "No such image: absent:1",
        ),
        ("POST", "/containers/nobody/start", "", 404, "nobody"),
        (
            "POST",
            "/volumes/create",
            "{\"Name\":\"data\",\"DriverOpts\":{\"type\":\"tmpfs\"}}",
            400,
            "missing required option: \\\"device\\\"",
        ),
        (
            "POST",
            "/volumes/create",
            "{\"Name\":\"data\",\"DriverOpts\":{\"quota\":\"1\"}}",
            400,
            "invalid option: \\\"quota\\\"",
        ),
        (
            "POST",
            "/volumes/create",
            "{\"Name\":\"data\",\"DriverOpts\":{\"type\":\"tmpfs\",\"device\":\"tmpfs\"}}",
            201,
            "\"Options\":{\"device\":\"tmpfs\",\"type\":\"tmpfs\"}",
        ),
        (
            "POST",
            "/volumes/create",
            "{\"Name\":\"data\",\"DriverOpts\":{\"type\":\"ramfs\",\"device\":\"tmpfs\"}}",
            409,
            "type is \\\"tmpfs\\\" and \\\"ramfs\\\" is asked for",
        ),
        (
            "POST",
            "/volumes/create",
            "{\"Name\":\"data\"}",
            201,
            "tmpfs",
        ),
        ("GET", "/networks", "", 200, "\"Name\":\"bridge\""),
        ("GET", "/networks/ch03", "", 404, "network ch03 not found"),
        ("DELETE", "/networks/bridge", "", 403, "pre-defined"),
        (
            "POST",
            "/networks/create",
            "{\"Name\":\"n\",\"Driver\":\"overlay\"}",
            503,
            "swarm",
        ),
        (
            "POST",
            "/networks/create",
            "{\"Name\":\"n\",\"Driver\":\"bridge\"}",
            201,
            "Id",
        ),
        ("GET", "/nodes", "", 503, "swarm"),
        ("GET", "/services", "", 503, "swarm"),
        ("POST", "/services/create", "{}", 503, "swarm"),
        ("POST", "/services/create", "[]", 400, "expected an object"),
        ("GET", "/services/web/logs", "", 400, "at least one stream"),
        ("GET", "/services/web/logs?stdout=1", "", 503, "swarm"),
        (
            "POST",
            "/services/web/update?version=1&registryAuthFrom=x",
            "{}",
            503,
            "swarm",
        ),
        ("GET", "/v1.24/tasks", "", 503, "swarm"),
        (
            "GET",
            "/tasks?filters=%7B%22desired-state%22%3A%5B%22asleep%22%5D%7D",
            "",
            400,
            "asleep",
        ),
        ("GET", "/tasks/web.1", "", 503, "swarm"),
        ("GET", "/secrets", "", 503, "swarm"),
        ("POST", "/configs/create", "{\"Name\":5}", 400, "Name"),
        ("DELETE", "/configs/a", "", 503, "swarm"),
        (
            "POST",
            "/swarm/join",
            "{\"RemoteAddrs\":[\"192.0.2.1\"]}",
            400,
            "JoinToken",
        ),
        ("POST", "/swarm/leave", "", 503, "not part of a swarm"),
        ("GET", "/plugins", "", 200, "[]"),
        ("GET", "/nowhere", "", 404, "page not found"),
    ] {
        let (found, head, text) = daemon.ask(method, path, body);
        assert_eq!(found, status, "{method} {path} {body}: {text}");
        assert!(text.contains(words), "{method} {path} {body}: {text}");
        for header in [
            "api-version: 1.53",
            "ostype: linux",
            "swarm: inactive",
            "server: ",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
        if status >= 400 {
            let value: serde_json::Value =
                serde_json::from_str(text.trim_matches(|c| c != '{' && c != '}')).unwrap();
            assert!(value["message"].is_string(), "{text}");
        }
    }
}
