//! More processes in running containers.

use std::{
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use model::{ContainerId, Refusal};
use tokio::sync::{mpsc, watch};

use super::{
    Attached, Engine, ExecSpec, ExecView, Output, Stream, attach::until_left, container::Container,
    random_id, run::exit_code_of,
};
use crate::oci::{
    LaunchExec, OciError, PreparedExec,
    attach::{Connection, Input, connect_in, detach_keys, resize},
    bundle::{Process, Security, merge_environment, process},
    capability,
    rootfs::{open_root, read_in},
    user,
};

/// One exec, from its creation to the end of its container's run.
pub(super) struct Exec {
    pub id: String,
    pub container: ContainerId,
    pub spec: ExecSpec,
    pub dir: PathBuf,
    pub state: watch::Sender<ExecState>,
    size: Mutex<Option<(u16, u16)>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ExecState {
    pub begun: bool,
    pub running: bool,
    pub pid: i32,
    pub exit_code: Option<i64>,
}

impl Engine {
    /// Returns the exec's id.
    pub async fn exec_create(&self, reference: &str, spec: ExecSpec) -> Result<String, Refusal> {
        let container = self.find(reference)?;
        container.must_run()?;
        if spec.command.is_empty() {
            return Err(Refusal::invalid("No exec command specified"));
        }
        detach_keys(&spec.detach_keys).ok_or_else(|| {
            Refusal::invalid(format!(
                "Invalid detach keys ({}) provided",
                spec.detach_keys
            ))
        })?;
        let id = random_id().to_string();
        self.tell(
            &container.record(),
            format!("exec_create: {}", spec.command.join(" ")),
            &[("execID", id.clone())],
        );
        let exec = Arc::new(Exec {
            dir: self.config.run_dir.join("e").join(&id),
            id: id.clone(),
            container: container.id.clone(),
            size: Mutex::new(spec.console_size),
            spec,
            state: watch::channel(ExecState::default()).0,
        });
        self.execs
            .lock()
            .expect("no panic under this lock")
            .insert(id.clone(), exec);
        Ok(id)
    }

    /// Runs it and hands over its streams; `console_size` as in `ExecStart`.
    pub async fn exec_start(
        &self,
        exec: &str,
        console_size: Option<(u16, u16)>,
    ) -> Result<Attached, Refusal> {
        let exec = self.exec(exec)?;
        if let Some(size) = console_size {
            *exec.size.lock().expect("no panic under this lock") = Some(size);
        }
        let (sender, output) = mpsc::channel::<Output>(64);
        let held = sender.clone();
        let (input, from) = if exec.spec.attach_stdin {
            let (input, from) = mpsc::channel(64);
            (Some(input), Some(from))
        } else {
            (None, None)
        };
        let keys = detach_keys(&exec.spec.detach_keys);
        let input_side = from.map(|from| Input {
            from,
            detach: keys.filter(|_| exec.spec.tty),
        });
        let tty = exec.spec.tty;
        let connection = self.exec_run(&exec).await?;
        let wanted = (exec.spec.attach_stdout || tty, exec.spec.attach_stderr);
        let mut state = exec.state.subscribe();
        self.spawn(async move {
            let (all, mut chunks) = mpsc::channel::<Output>(8);
            let filter = async move {
                while let Some(chunk) = until_left(&sender, chunks.recv()).await {
                    let is_wanted = match chunk.stream {
                        Stream::Stdout => wanted.0,
                        Stream::Stderr => wanted.1,
                    };
                    if is_wanted && sender.send(chunk).await.is_err() {
                        return false;
                    }
                }
                !sender.is_closed()
            };
            let (whole, ()) = tokio::join!(filter, connection.carry(Some(all), input_side));
            // The exit code is there before the stream ends: clients ask for it at once.
            if whole {
                let _ = tokio::time::timeout(
                    std::time::Duration::from_secs(2),
                    state.wait_for(|state| !state.running),
                )
                .await;
            }
            drop(held);
        });
        Ok(Attached { tty, output, input })
    }

    /// Whether it can be started, as far as that is known before; answers whether it has a terminal.
    pub fn exec_check(&self, exec: &str) -> Result<bool, Refusal> {
        let exec = self.exec(exec)?;
        self.find(exec.container.as_str())?.must_run()?;
        if exec.state.borrow().begun {
            return Err(has_run(&exec));
        }
        Ok(exec.spec.tty)
    }

    /// Runs it without streams (`Detach: true`).
    pub async fn exec_start_detached(&self, exec: &str) -> Result<(), Refusal> {
        let exec = self.exec(exec)?;
        self.exec_run(&exec).await.map(drop)
    }

    pub fn exec_inspect(&self, exec: &str) -> Result<ExecView, Refusal> {
        let exec = self.exec(exec)?;
        let state = exec.state.borrow().clone();
        Ok(ExecView {
            id: exec.id.clone(),
            container: exec.container.clone(),
            spec: exec.spec.clone(),
            running: state.running,
            exit_code: state.exit_code,
            pid: if state.running { state.pid } else { 0 },
        })
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let exec = self.exec(exec)?;
        *exec.size.lock().expect("no panic under this lock") = Some((rows, columns));
        if exec.state.borrow().running {
            resize(&exec.dir, rows, columns)
                .map_err(|error| Refusal::internal(format!("resizing the terminal: {error}")))?;
        }
        Ok(())
    }

    fn exec(&self, id: &str) -> Result<Arc<Exec>, Refusal> {
        self.execs
            .lock()
            .expect("no panic under this lock")
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::not_found(format!("No such exec instance: {id}")))
    }

    pub(super) fn exec_ids(&self, container: &ContainerId) -> Vec<String> {
        let execs = self.execs.lock().expect("no panic under this lock");
        let mut ids: Vec<String> = execs
            .values()
            .filter(|exec| exec.container == *container && exec.state.borrow().running)
            .map(|exec| exec.id.clone())
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The container's run is over, and so are its execs.
    pub(super) fn drop_execs(&self, container: &ContainerId) {
        let mut execs = self.execs.lock().expect("no panic under this lock");
        execs.retain(|_, exec| {
            let keep = exec.container != *container;
            if !keep {
                let _ = fs::remove_dir_all(&exec.dir);
            }
            keep
        });
    }

    /// Ends it if it runs and forgets it: nobody asks about a health check's exec again, and a
    /// container that runs for months makes many.
    pub(super) fn exec_discard(&self, id: &str) {
        let exec = self
            .execs
            .lock()
            .expect("no panic under this lock")
            .remove(id);
        let Some(exec) = exec else { return };
        let state = exec.state.borrow().clone();
        if state.running && state.pid > 0 {
            let pid = nix::unistd::Pid::from_raw(state.pid);
            // It may have ended by itself since.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&exec.dir);
    }

    async fn exec_run(&self, exec: &Arc<Exec>) -> Result<Connection, Refusal> {
        let container = self.find(exec.container.as_str())?;
        container.must_run()?;
        let again = exec.state.send_if_modified(|state| {
            let first = !state.begun;
            state.begun = true;
            first
        });
        if !again {
            return Err(has_run(exec));
        }
        let connection = self.exec_run_once(exec, container).await;
        if let Err(refusal) = &connection {
            // Clients that have the streams already ask for it.
            let code = match exit_code_of(&refusal.message) {
                127 => 127,
                _ => 126,
            };
            exec.state.send_modify(|state| state.exit_code = Some(code));
        }
        connection
    }

    async fn exec_run_once(
        &self,
        exec: &Arc<Exec>,
        container: Arc<Container>,
    ) -> Result<Connection, Refusal> {
        let text = exec.spec.command.join(" ");
        self.tell(
            &container.record(),
            format!("exec_start: {text}"),
            &[("execID", exec.id.clone())],
        );
        let size = *exec.size.lock().expect("no panic under this lock");
        let description = describe(&container, &exec.spec, size)?;
        let executor = self.executor.clone();
        let work = exec.clone();
        let handle = tokio::runtime::Handle::current();
        let (mut prepared, connection) = self
            .private(move |_| {
                // The socket is registered with the runtime from this foreign thread.
                let _guard = handle.enter();
                prepare(&executor, &work, &description)
            })
            .await
            .map_err(|error| refused(exec, &error))?;
        let begun = tokio::task::spawn_blocking(move || prepared.run().map(|pid| (pid, prepared)))
            .await
            .map_err(|error| Refusal::internal(format!("the exec died: {error}")))?;
        let (pid, prepared) = begun.map_err(|error| refused(exec, &error))?;
        exec.state.send_modify(|state| {
            state.running = true;
            state.pid = pid;
        });
        let this = self.this.clone();
        let exec = exec.clone();
        // A thread of its own: it may block for days.
        std::thread::Builder::new()
            .name("exec".into())
            .stack_size(64 << 10)
            .spawn(move || {
                let code = prepared.wait().unwrap_or(137);
                exec.state.send_modify(|state| {
                    state.running = false;
                    state.exit_code = Some(code);
                });
                let _ = fs::remove_dir_all(&exec.dir);
                let Some(this) = this.upgrade() else { return };
                let _ = fs::remove_file(this.executor.socket_dir.join(&exec.id));
                this.tell(
                    &container.record(),
                    "exec_die",
                    &[("execID", exec.id.clone()), ("exitCode", code.to_string())],
                );
            })
            .map_err(|error| Refusal::internal(format!("starting a thread: {error}")))?;
        Ok(connection)
    }
}

/// The OCI process object of an exec.
fn describe(
    container: &Container,
    spec: &ExecSpec,
    size: Option<(u16, u16)>,
) -> Result<String, Refusal> {
    let record = container.record().clone();
    let host = &record.spec.host;
    let pid = record.process.map_or(0, |process| process.pid);
    let root: OwnedFd =
        open_root(&PathBuf::from(format!("/proc/{pid}/root"))).map_err(|error| {
            Refusal::conflict(format!("container {} is not running: {error}", record.id))
        })?;
    let wish = if spec.user.is_empty() {
        &record.effective.user
    } else {
        &spec.user
    };
    let user = user::resolve(
        wish,
        &host.group_add,
        &read_in(&root, "/etc/passwd"),
        &read_in(&root, "/etc/group"),
    )?;
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", record.effective.hostname),
    ];
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut env, &record.effective.env);
    merge_environment(&mut env, &spec.env);
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let privileged = host.privileged || spec.privileged;
    let capabilities = capability::within(
        capability::effective(privileged, &host.cap_add, &host.cap_drop)?,
        capability::held(),
    );
    let mut host = host.clone();
    host.console_size = size;
    Ok(process(&Process {
        argv: &spec.command,
        env,
        working_dir: if spec.working_dir.is_empty() {
            &record.effective.working_dir
        } else {
            &spec.working_dir
        },
        user: &user,
        tty: spec.tty,
        capabilities: &capabilities,
        no_new_privileges: Security::parse(&host)?.no_new_privileges,
        host: &host,
    })
    .to_string())
}

fn prepare(
    executor: &crate::oci::Executor,
    exec: &Exec,
    description: &str,
) -> Result<(PreparedExec, Connection), OciError> {
    fs::create_dir_all(exec.dir.join("exit"))
        .map_err(OciError::io("making the exec's directory"))?;
    fs::write(exec.dir.join("process.json"), description)
        .map_err(OciError::io("writing process.json"))?;
    let prepared = executor.prepare_exec(&LaunchExec {
        container: exec.container.as_str(),
        exec: &exec.id,
        dir: &exec.dir,
        tty: exec.spec.tty,
        stdin: exec.spec.attach_stdin,
    })?;
    let connection = connect_in(&exec.dir).map_err(OciError::io("connecting to the exec"))?;
    Ok((prepared, connection))
}

/// In the words that Docker's clients look for.
fn has_run(exec: &Exec) -> Refusal {
    Refusal::conflict(format!("Error: Exec command {} has already run", exec.id))
}

fn refused(exec: &Exec, error: &OciError) -> Refusal {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let program = exec.spec.command.first().cloned().unwrap_or_default();
    let reason = if lower.contains("permission denied") {
        "permission denied"
    } else if lower.contains("not found") || lower.contains("no such file") {
        if program.contains('/') {
            "no such file or directory"
        } else {
            "executable file not found in $PATH"
        }
    } else {
        return Refusal::internal(format!("OCI runtime exec failed: {text}"));
    };
    Refusal::invalid(format!(
        "OCI runtime exec failed: exec failed: exec: \"{program}\": {reason}: unknown"
    ))
}
