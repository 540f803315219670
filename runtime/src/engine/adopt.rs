//! The engine's start: what runs is adopted, what ended is noticed, what is left is taken back.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use model::{ContainerId, Refusal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Engine, EngineConfig,
    container::{Container, Table},
    events::EventLog,
    machine::{Observed, Phase},
    record::{Record, read_json},
};
use crate::oci::{Executor, private::hybrid_cgroups};

impl Engine {
    /// Opens the state, adopts what still runs, notices what ended meanwhile, takes back what
    /// is left over, starts what the restart policies ask for.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>, Refusal> {
        let runtime = match &config.runtime {
            Some(path) => path.clone(),
            None => program("crun").or_else(|| program("runc")).ok_or_else(|| {
                Refusal::unavailable("no OCI runtime: install the package crun or runc")
            })?,
        };
        let monitor = match &config.monitor {
            Some(path) => path.clone(),
            None => program("conmon")
                .ok_or_else(|| Refusal::unavailable("no monitor: install the package conmon"))?,
        };
        let run = &config.run_dir;
        let executor = Executor {
            hide_unified: hybrid_cgroups() && runtime.ends_with("crun"),
            runtime,
            monitor,
            state_dir: run.join("r"),
            exit_dir: run.join("x"),
            socket_dir: run.join("s"),
        };
        for path in [
            &config.root.join("containers"),
            &config.root.join("volumes"),
            &run.join("b"),
            &run.join("e"),
            &executor.state_dir,
            &executor.exit_dir,
            &executor.socket_dir,
        ] {
            fs::create_dir_all(path).map_err(|error| {
                Refusal::internal(format!("making {}: {error}", path.display()))
            })?;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Refusal::internal(format!("reading the boot id: {error}")))?;
        let engine = Arc::new_cyclic(|this| Self {
            config,
            executor,
            boot: boot.trim().to_owned(),
            table: RwLock::new(Table::default()),
            execs: Mutex::new(HashMap::new()),
            volumes: super::volumes::Turns::default(),
            events: EventLog::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            this: this.clone(),
        });
        engine.load();
        engine.adopt().await?;
        Ok(engine)
    }

    fn load(&self) {
        let directory = self.config.root.join("containers");
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(record) = read_json::<Record>(&path.join("record.json")) else {
                // Made or removed only by half; without a record nothing can refer to it.
                if !path.join("record.json").exists() {
                    let _ = fs::remove_dir_all(&path);
                }
                continue;
            };
            let container = Arc::new(Container::new(self, record));
            let (name, layers) = {
                let record = container.record();
                (record.name.clone(), record.all_layers())
            };
            match self.config.images.pin(&layers) {
                Ok(pin) => {
                    *container.pin.lock().expect("no panic under this lock") = Some(pin);
                }
                Err(refusal) => {
                    tracing::warn!(container = %container.id.short(), %refusal, "its layers are gone");
                }
            }
            let mut table = self.table.write().expect("no panic under this lock");
            table.names.insert(name, container.id.clone());
            table.by_id.insert(container.id.clone(), container);
        }
    }

    async fn adopt(&self) -> Result<(), Refusal> {
        let all = self.all();
        let (alive, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|container| {
            container.running() && self.observe(container) == Observed::Alive
        });
        let running: Vec<_> = alive
            .iter()
            .map(|container| container.connect_request())
            .collect();
        self.config.network.adopt(&running).await?;
        for container in &alive {
            self.config.network.started(&container.id).await;
            self.look_after(container);
        }
        self.remove_strays();
        let this = self.arc();
        self.spawn(async move { this.release_left_volumes().await });
        for container in ended {
            let this = self.arc();
            self.spawn(async move {
                let _turn = container.turn.lock().await;
                this.settle(&container).await;
                if !container.signal.borrow().removed
                    && container.phase() == Phase::Exited
                    && container.record().life.starts_with_engine()
                {
                    let _ = container.change(|record| record.life.stopped_by_hand = false);
                    if let Err(refusal) = this.run(&container).await {
                        tracing::warn!(container = %container.id.short(), %refusal, "not started again");
                    }
                }
            });
        }
        Ok(())
    }

    /// Run-time files of containers that are no more, and of execs of an earlier engine.
    fn remove_strays(&self) {
        let known = |name: &str| {
            let table = self.table.read().expect("no panic under this lock");
            table.by_id.contains_key(&ContainerId::new(name))
        };
        for part in ["b", "x", "s"] {
            for entry in fs::read_dir(self.config.run_dir.join(part))
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name();
                if !known(&name.to_string_lossy()) {
                    remove_any(&entry.path());
                }
            }
        }
        for entry in fs::read_dir(self.config.run_dir.join("e"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let monitor = crate::oci::read_pid(&entry.path().join("monitor.pid"));
            if monitor.and_then(crate::oci::ProcessId::of).is_none() {
                remove_any(&entry.path());
            }
        }
    }
}

fn remove_any(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir_all(path);
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let search = std::env::var("PATH").unwrap_or_default();
    search
        .split(':')
        .chain([
            "/usr/bin",
            "/usr/sbin",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/bin",
            "/sbin",
        ])
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}
