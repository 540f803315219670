//! Starting containers and looking after them: carrying out what `machine::next` says.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use model::{ContainerId, Refusal};
use trace::Instrument as _;

use super::{
    Engine, Exit, RemoveOptions,
    container::Container,
    launch::{Plan, launch, write_files},
    machine::{Action, Observed, Phase, next},
    now,
    volumes::volumes_of,
};
use crate::{
    network::Connected,
    oci::{
        OciError, ProcessId,
        attach::{connect_in, resize},
        ended, read_pid,
    },
};

impl Engine {
    /// `Ok(false)`: it ran already (Docker's 304).
    pub async fn start_container(&self, reference: &str) -> Result<bool, Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        // On its own task: a client that goes away must not leave a start half done.
        let work = async move {
            let _turn = container.turn.lock().await;
            match container.phase() {
                Phase::Running => return Ok(false),
                Phase::Paused => {
                    return Err(Refusal::conflict(
                        "cannot start a paused container, try unpause instead",
                    ));
                }
                Phase::Removing => {
                    return Err(Refusal::conflict(
                        "container is marked for removal and cannot be started",
                    ));
                }
                Phase::Created | Phase::Restarting | Phase::Exited => {}
            }
            container.change(|record| {
                record.life.restart_count = 0;
                record.life.restart_delay = 0;
            })?;
            this.run(&container).await.map(|()| true)
        };
        let work = self.tasks.spawn(work.instrument(trace::part!("start")));
        flatten(work.await)
    }

    /// Starts a container whose turn is held. On failure nothing is left running.
    pub(super) async fn run(&self, container: &Arc<Container>) -> Result<(), Refusal> {
        let keep_network = container.phase() == Phase::Restarting;
        if container.record().life.dirty {
            self.clean_up(container, keep_network).await?;
        }
        let result = self.run_clean(container).await;
        if let Err(refusal) = &result {
            // Attached clients learn by the end of their streams.
            container
                .early
                .lock()
                .expect("no panic under this lock")
                .clear();
            self.clean_up(container, false).await?;
            let code = exit_code_of(&refusal.message);
            container.change(|record| {
                record.error.clone_from(&refusal.message);
                record.life.exit_code = code;
                record.life.finished_at = now();
                if record.life.phase != Phase::Created {
                    record.life.phase = Phase::Exited;
                }
            })?;
            container.signal.send_modify(|signal| {
                signal.exits += 1;
                signal.last = Exit {
                    code,
                    error: Some(refusal.message.clone()),
                };
            });
            let volumes = volumes_of(&container.record());
            self.release_volumes(volumes).await;
            if container.record().life.auto_remove {
                self.remove_held(
                    container,
                    RemoveOptions {
                        force: true,
                        volumes: true,
                    },
                )
                .await?;
            }
        }
        result
    }

    async fn run_clean(&self, container: &Arc<Container>) -> Result<(), Refusal> {
        container.change(|record| {
            record.life.dirty = true;
            record.life.stopped_by_hand = false;
            record.error.clear();
            record.oom_killed = false;
            record.boot.clone_from(&self.boot);
        })?;
        self.mount_volumes(container).await?;
        let request = container.connect_request();
        let connecting = self.config.network.connect(&request);
        let connected = connecting.instrument(trace::part!("networks")).await?;
        let plan = self.plan(container, &connected)?;
        let early = container.bundle.clone();
        let (process, monitor) = self
            .private_with_volumes(move |executor| launch(&executor, &plan))
            .instrument(trace::part!("runtime"))
            .await
            .map_err(|error| start_refusal(container, &error))?;
        for waiting in container
            .early
            .lock()
            .expect("no panic under this lock")
            .drain(..)
        {
            if let Ok(connection) = connect_in(&early) {
                // The client may have gone.
                let _ = waiting.send(connection);
            }
        }
        let size = *container.size.lock().expect("no panic under this lock");
        if let Some((rows, columns)) = size {
            let _ = resize(&container.bundle, rows, columns);
        }
        let id = container.id.clone();
        self.private(move |executor| executor.start(id.as_str()))
            .await
            .map_err(|error| start_refusal(container, &error))?;
        container.change(|record| {
            record.network = connected;
            record.process = Some(process);
            record.monitor = Some(monitor);
            record.life.phase = Phase::Running;
            record.life.ran = true;
            record.life.started_at = now();
            record.health = record
                .effective
                .health
                .as_ref()
                .map(|_| super::HealthView::default());
        })?;
        self.tell(&container.record(), "start", &[]);
        self.config.network.started(&container.id).await;
        self.look_after(container);
        Ok(())
    }

    fn plan(&self, container: &Container, connected: &Connected) -> Result<Plan, Refusal> {
        let record = container.record().clone();
        write_files(&container.directory, &record, connected).map_err(|error| {
            Refusal::internal(format!("writing the container's files: {error}"))
        })?;
        let mut shared = Vec::new();
        for (kind, mode, file) in [
            ("pid", &record.spec.host.pid_mode, "pid"),
            ("ipc", &record.spec.host.ipc_mode, "ipc"),
        ] {
            if let Some(other) = mode.strip_prefix("container:") {
                let other = self.find(other)?;
                other.must_run()?;
                let pid = other.record().process.map_or(0, |process| process.pid);
                shared.push((kind, PathBuf::from(format!("/proc/{pid}/ns/{file}"))));
            }
        }
        let init = if record.spec.host.init {
            Some(self.init_program()?)
        } else {
            None
        };
        Ok(Plan {
            directory: container.directory.clone(),
            bundle: container.bundle.clone(),
            cgroup: format!(
                "/{}/{}",
                self.config.cgroup_parent.trim_matches('/'),
                record.id
            ),
            netns: connected.netns.clone(),
            shared,
            init,
            cgroup_v2: super::cgroup::version() == super::cgroup::Version::V2,
            volumes: self.volumes_place(),
            record,
        })
    }

    fn init_program(&self) -> Result<PathBuf, Refusal> {
        const PLACES: &[&str] = &[
            "/usr/bin/docker-init",
            "/usr/libexec/docker/docker-init",
            "/usr/bin/tini-static",
            "/usr/bin/catatonit",
            "/usr/libexec/podman/catatonit",
        ];
        self.config
            .init
            .clone()
            .or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.is_file()))
            .ok_or_else(|| {
                Refusal::invalid(
                    "--init needs an init program: install the package tini or catatonit",
                )
            })
    }

    /// Waits for the end of a running container, then sees to what follows.
    pub(super) fn look_after(&self, container: &Arc<Container>) {
        let this = self.arc();
        let container = container.clone();
        let record = container.record().clone();
        super::health::watch(self, &container);
        self.spawn(async move {
            if let Some(monitor) = record.monitor.filter(|monitor| monitor.pid > 0) {
                ended(monitor).await;
            }
            if let Observed::Alive = this.observe(&container) {
                // Nobody would read its output or its exit code any more.
                this.kill_lost(&container).await;
            }
            let code = match this.observe(&container) {
                Observed::Ended { code } => code,
                Observed::Alive | Observed::Gone => super::machine::LOST,
            };
            // Who stops it holds the turn until it has ended, so this comes first.
            this.note_exit(&container, code, record.monitor);
            let _turn = container.turn.lock().await;
            this.settle(&container).await;
        });
    }

    /// Carries out steps until there is nothing to do; the turn is held.
    pub(super) fn settle<'a>(&'a self, container: &'a Arc<Container>) -> BoxFuture<'a, ()> {
        Box::pin(self.settle_steps(container))
    }

    async fn settle_steps(&self, container: &Arc<Container>) {
        loop {
            let observed = self.observe(container);
            let action = next(&container.record().life, observed, now());
            let result = match action {
                Action::Nothing => return,
                Action::NoteExit { code } => {
                    let monitor = container.record().monitor;
                    self.note_exit(container, code, monitor);
                    Ok(())
                }
                Action::Kill => {
                    self.kill_lost(container).await;
                    self.clean_up(container, false).await
                }
                Action::CleanUp { keep_network } => {
                    let cleaned = self.clean_up(container, keep_network).await;
                    let volumes = volumes_of(&container.record());
                    self.release_volumes(volumes).await;
                    cleaned
                }
                Action::Start => self.run(container).await,
                Action::WakeAt(at) => {
                    self.wake_at(container, at);
                    return;
                }
                Action::Remove => {
                    let options = RemoveOptions {
                        force: true,
                        volumes: container.record().life.auto_remove,
                    };
                    self.remove_held(container, options).await
                }
            };
            if let Err(refusal) = result {
                tracing::warn!(container = %container.id.short(), %refusal, ?action, "a step failed");
                return;
            }
            if container.signal.borrow().removed {
                return;
            }
        }
    }

    fn wake_at(&self, container: &Arc<Container>, at: i64) {
        let this = self.arc();
        let container = container.clone();
        self.spawn(async move {
            tokio::time::sleep(Duration::from_nanos((at - now()).max(0) as u64)).await;
            let _turn = container.turn.lock().await;
            if container.phase() == Phase::Restarting {
                this.settle(&container).await;
            }
        });
    }

    /// What is there of a container's process. Its monitor counts: it is about to write how the
    /// process ended.
    pub(super) fn observe(&self, container: &Container) -> Observed {
        let record = container.record();
        let running = matches!(record.life.phase, Phase::Running | Phase::Paused);
        let alive = if record.boot != self.boot {
            false
        } else if running {
            let both = [record.process, record.monitor];
            both.into_iter().flatten().any(ProcessId::alive)
        } else {
            record.life.dirty
                && read_pid(&container.bundle.join("init.pid"))
                    .and_then(ProcessId::of)
                    .is_some()
        };
        // Read last: whoever is gone by now has written it.
        match read_pid(&self.executor.exit_dir.join(record.id.as_str())) {
            Some(code) => Observed::Ended { code: code.into() },
            None if alive => Observed::Alive,
            None => Observed::Gone,
        }
    }

    async fn kill_lost(&self, container: &Arc<Container>) {
        let process = container
            .record()
            .process
            .or_else(|| read_pid(&container.bundle.join("init.pid")).and_then(ProcessId::of));
        let id = container.id.clone();
        let _ = self
            .private(move |executor| executor.kill(id.as_str(), libc::SIGKILL))
            .await;
        if let Some(process) = process {
            let _ = tokio::time::timeout(Duration::from_secs(10), ended(process)).await;
        }
    }

    /// Notes an end once; those who wait are woken.
    /// `monitor` is the run that ended: somebody may have noted it and begun another since.
    pub(super) fn note_exit(
        &self,
        container: &Arc<Container>,
        code: i64,
        monitor: Option<ProcessId>,
    ) {
        let oom = super::cgroup::oom_killed(&self.cgroup_of(&container.id));
        let changed = container.change(|record| {
            let same = record.monitor == monitor;
            if !same || !matches!(record.life.phase, Phase::Running | Phase::Paused) {
                return false;
            }
            record.oom_killed = oom;
            record.life.note_exit(code, now());
            true
        });
        match changed {
            Ok(false) => return,
            Ok(true) => {}
            Err(refusal) => {
                tracing::warn!(container = %container.id.short(), %refusal, "noting an exit");
            }
        }
        let record = container.record().clone();
        if oom {
            self.tell(&record, "oom", &[]);
        }
        let ran = (record.life.finished_at - record.life.started_at).max(0) / 1_000_000_000;
        self.tell(
            &record,
            "die",
            &[
                ("exitCode", code.to_string()),
                ("execDuration", ran.to_string()),
            ],
        );
        container.signal.send_modify(|signal| {
            signal.phase = record.life.phase;
            signal.exits += 1;
            signal.last = Exit { code, error: None };
        });
    }

    pub(super) fn cgroup_of(&self, id: &ContainerId) -> String {
        format!("{}/{id}", self.config.cgroup_parent.trim_matches('/'))
    }

    /// Takes back what a run left. Idempotent.
    pub(super) async fn clean_up(
        &self,
        container: &Arc<Container>,
        keep_network: bool,
    ) -> Result<(), Refusal> {
        let id = container.id.clone();
        let exit_file = self.executor.exit_dir.join(id.as_str());
        let link = self.executor.socket_dir.join(id.as_str());
        let bundle = container.bundle.clone();
        let cgroup = self.cgroup_of(&id);
        self.private(move |executor| {
            executor.delete(id.as_str())?;
            let _ = fs::remove_file(&link);
            match fs::remove_dir_all(&bundle) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(OciError::io(format!("removing {}", bundle.display()))(
                        error,
                    ));
                }
                _ => {}
            }
            let _ = fs::remove_file(&exit_file);
            super::cgroup::remove(&cgroup);
            Ok(())
        })
        .await
        .map_err(|error| Refusal::internal(error.to_string()))?;
        self.drop_execs(&container.id);
        if keep_network {
            return container.change(|record| {
                record.process = None;
                record.monitor = None;
                record.life.dirty = false;
            });
        }
        self.config.network.disconnect(&container.id).await?;
        container.change(|record| {
            record.life.dirty = false;
            record.process = None;
            record.monitor = None;
            for endpoint in &mut record.network.endpoints {
                endpoint.addresses.clear();
                endpoint.gateways.clear();
                endpoint.mac.clear();
            }
        })
    }
}

/// A panicked task is our fault; say so instead of panicking on.
pub(super) fn flatten<T>(
    result: Result<Result<T, Refusal>, tokio::task::JoinError>,
) -> Result<T, Refusal> {
    result.unwrap_or_else(|error| Err(Refusal::internal(format!("the operation died: {error}"))))
}

/// Docker's exit codes for what could not be started.
pub(super) fn exit_code_of(message: &str) -> i64 {
    if message.contains("executable file not found")
        || message.contains("no such file or directory")
    {
        127
    } else if message.contains("permission denied") || message.contains("is a directory") {
        126
    } else {
        128
    }
}

/// The runtime's reason in the words that Docker's clients look for.
fn start_refusal(container: &Container, error: &OciError) -> Refusal {
    if let OciError::Wish(refusal) = error {
        return refusal.clone();
    }
    let text = error.to_string();
    let program = container
        .record()
        .effective
        .argv
        .first()
        .cloned()
        .unwrap_or_default();
    let lower = text.to_lowercase();
    let because = |reason: &str| {
        Refusal::invalid(format!(
            "failed to create task for container: OCI runtime create failed: exec: \"{program}\": {reason}: unknown"
        ))
    };
    let about_program = lower.contains("executable file")
        || lower.contains(&format!("`{}`", program.to_lowercase()))
        || lower.contains("exec:")
        || lower.contains("open executable");
    if about_program && lower.contains("permission denied") {
        return because("permission denied");
    }
    if lower.contains("executable file") && lower.contains("not found") {
        return because(if program.contains('/') {
            "stat: no such file or directory"
        } else {
            "executable file not found in $PATH"
        });
    }
    if about_program && lower.contains("no such file") {
        return because("no such file or directory");
    }
    Refusal::internal(format!(
        "failed to create task for container: OCI runtime create failed: {text}"
    ))
}
