//! Runs one daemon as systemd would: speaks the server's side of the notify protocol
//! (sd_notify(3)), holds the file descriptors the daemon stores, and hands them to its next
//! life. The lab runs one keeper for each `ovnd`.
//!
//! The control socket is a unix stream socket. A client sends one word a line and gets one line
//! back: `ok …` or `error: …`.
//!
//! | word | deed | answer |
//! |---|---|---|
//! | `start` | starts the child if it does not run, waits for its READY=1 | `ok PID` |
//! | `kill` | SIGKILL to the child, waits for its end; keeps its descriptors | `ok` |
//! | `stop` | SIGTERM, waits (SIGKILL after `stop_timeout`); keeps its descriptors | `ok` |
//! | `status` | | `ok STATE PID FDS TEXT`: STATE is `ready`, `starting` or `stopped`; PID 0 without child; FDS is the number of descriptors held; TEXT is the last STATUS= |
//! | `quit` | `stop`, lets go of all descriptors, ends the keeper | `ok` |

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

/// What to run and how.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Added to the keeper's own environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Where the keeper listens; replaced if it exists. Usable as soon as it exists, also while the
    /// child starts.
    pub control_socket: PathBuf,
    /// Gets the child's stdout and stderr, appended.
    pub log_file: PathBuf,
    /// How long `start` waits for READY=1 before it answers with an error (the child runs on).
    pub start_timeout: Duration,
    /// How long `stop` waits before SIGKILL.
    pub stop_timeout: Duration,
    /// WATCHDOG_USEC of the child: without WATCHDOG=1 for that long it is killed and restarted, as
    /// with `Restart=on-watchdog`. Absent: no watchdog.
    pub watchdog: Option<Duration>,
}

/// Starts the child at once and serves the control socket until `quit`, SIGTERM or SIGINT.
/// Blocks; run it as a process of its own, in the namespaces the child shall have.
pub fn run(_options: KeeperOptions) -> anyhow::Result<()> {
    todo!()
}

/// Sends one word to the keeper at `control_socket` and returns the text after `ok`.
/// Fails with the keeper's sentence, or when nobody listens.
pub fn ask(
    _control_socket: &std::path::Path,
    _word: &str,
    _timeout: Duration,
) -> anyhow::Result<String> {
    todo!()
}
