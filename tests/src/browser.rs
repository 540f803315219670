//! A real Chromium, headless, driven over the WebDriver protocol: on a host of a lab or on the
//! machine itself.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Host, http};

/// How long the driver may take to answer its first question.
const START: Duration = Duration::from_secs(60);
/// How long one command may take.
const CALL: Duration = Duration::from_secs(120);

/// Without the flags of the second line it asks hosts of its maker's at every start.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
];

/// A browser with one page; ended when dropped.
pub struct Browser {
    /// Where it runs; none is the machine itself.
    host: Option<Host>,
    port: u16,
    driver: Child,
    session: String,
    /// The browser's profile.
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts driver and browser. `trace` names categories of the performance log, see
    /// [`Self::trace`].
    pub fn start(host: Option<&Host>, size: (u32, u32), trace: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = within(host, free_port)??;
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let driver = match host {
            Some(host) => host.spawn(command),
            None => command.spawn().map_err(Into::into),
        };
        let driver = driver.context("chromedriver cannot be started: is chromium-driver there?")?;
        let mut browser = Self {
            host: host.cloned(),
            port,
            driver,
            session: String::new(),
            profile: folder,
        };
        browser.open_session(size, trace)?;
        Ok(browser)
    }

    fn open_session(&mut self, (width, height): (u32, u32), trace: Option<&str>) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.call("GET", "/status", &Value::Null) {
            if begun.elapsed() > START {
                return Err(error.context("chromedriver does not answer"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let window = format!("--window-size={width},{height}");
        let flags: Vec<&str> = FLAGS.iter().copied().chain([&*profile, &*window]).collect();
        let mut options = json!({"args": flags});
        let mut logs = json!({"browser": "ALL"});
        if let Some(categories) = trace {
            options["perfLoggingPrefs"] = json!({
                "enableNetwork": false, "enablePage": false, "traceCategories": categories,
            });
            logs["performance"] = json!("ALL");
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": logs,
        }}});
        let session = self.call("POST", "/session", &wanted)?;
        session["sessionId"]
            .as_str()
            .context("a session has an id")?
            .clone_into(&mut self.session);
        self.resize(width, height)
    }

    /// Goes to an address and waits until the page is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", "/url", &json!({"url": url})).map(drop)
    }

    /// Runs a script in the page and gives what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.ask(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// Clicks with a real pointer on the first element that the selector finds.
    pub fn click(&self, selector: &str) -> Result<()> {
        let using = json!({"using": "css selector", "value": selector});
        let found = self.ask("POST", "/element", &using)?;
        let element = found.as_object().and_then(|found| found.values().next());
        let element = element.and_then(Value::as_str).context("an element")?;
        self.ask("POST", &format!("/element/{element}/click"), &json!({}))
            .map(drop)
    }

    /// Types at whatever has the focus; `\u{e00c}` and the like are WebDriver's keys.
    pub fn press(&self, keys: &str) -> Result<()> {
        let steps: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": steps}]});
        self.ask("POST", "/actions", &actions).map(drop)
    }

    /// One command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.ask("POST", "/goog/cdp/execute", &body)
    }

    /// The size of the page in pixels.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .map(drop)
    }

    /// `light` or `dark`, as the person at the browser prefers.
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features)
            .map(drop)
    }

    /// Writes what is seen as a PNG.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let encoded = self.ask("GET", "/screenshot", &Value::Null)?;
        let bytes = STANDARD.decode(encoded.as_str().unwrap_or_default())?;
        let folder = file.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the page has written to its console since the last question.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.ask("POST", "/se/log", &json!({"type": "browser"}))?;
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        Ok(entries.as_array().into_iter().flatten().map(line).collect())
    }

    /// The events of the browser's trace since the last question.
    pub fn trace(&self) -> Result<Vec<Value>> {
        let entries = self.ask("POST", "/se/log", &json!({"type": "performance"}))?;
        let mut events = Vec::new();
        for entry in entries.as_array().into_iter().flatten() {
            let text = entry["message"].as_str().unwrap_or_default();
            let mut message: Value = serde_json::from_str(text)?;
            let message = &mut message["message"];
            if message["method"] == "Tracing.dataCollected" {
                events.push(message["params"].take());
            }
        }
        Ok(events)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let port = self.port;
        let stream = within(self.host.as_ref(), move || {
            TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        })?
        .context("chromedriver does not answer")?;
        stream.set_read_timeout(Some(CALL))?;
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        // The driver answers to this host's names only.
        let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
        let answer = http::request(stream, method, path, &headers, &bytes)?;
        let mut answer = answer.json();
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{method} {path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser's processes are the driver's to end.
            let _ = self.ask("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Where tests leave what a person may want to look at: `target/NAME`.
pub fn output_folder(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let target = own
        .ancestors()
        .find(|folder| folder.join("release").is_dir());
    let target = target.context("this program lies in no target folder")?;
    ensure!(target.is_dir(), "{} is no folder", target.display());
    Ok(target.join(name))
}

fn within<T: Send>(host: Option<&Host>, work: impl FnOnce() -> T + Send) -> Result<T> {
    match host {
        Some(host) => host.within(work),
        None => Ok(work()),
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
