//! The containers in memory, and how they are found.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use model::{ContainerId, Refusal, service::Protocol};
use tokio::sync::{oneshot, watch};

use super::{
    Engine, Exit,
    machine::Phase,
    record::{Record, write_json},
};
use crate::{
    network::{ConnectRequest, NetworkMode, PortBinding},
    oci::attach::Connection,
};

#[derive(Default)]
pub(super) struct Table {
    pub by_id: BTreeMap<ContainerId, Arc<Container>>,
    pub names: HashMap<String, ContainerId>,
}

pub(super) struct Container {
    pub id: ContainerId,
    /// `containers/ID`.
    pub directory: PathBuf,
    /// In the run directory: `config.json`, pid files, the monitor's sockets.
    pub bundle: PathBuf,
    /// Held by whoever changes the container; one change at a time.
    pub turn: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    pub signal: watch::Sender<Signal>,
    /// Attached before the start: they are connected before the process runs.
    pub early: Mutex<Vec<oneshot::Sender<Connection>>>,
    /// A terminal's size asked for before the start.
    pub size: Mutex<Option<(u16, u16)>>,
    /// Keeps the layers.
    pub pin: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// What those who wait look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Signal {
    pub phase: Phase,
    pub exits: u64,
    pub last: Exit,
    pub removed: bool,
}

impl Container {
    pub fn new(engine: &Engine, record: Record) -> Self {
        let (signal, _) = watch::channel(Signal {
            phase: record.life.phase,
            exits: 0,
            last: Exit {
                code: record.life.exit_code,
                error: None,
            },
            removed: false,
        });
        Self {
            id: record.id.clone(),
            directory: engine.container_dir(&record.id),
            bundle: engine.config.run_dir.join("b").join(record.id.as_str()),
            turn: tokio::sync::Mutex::new(()),
            record: Mutex::new(record),
            signal,
            early: Mutex::default(),
            size: Mutex::default(),
            pin: Mutex::default(),
        }
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic under this lock")
    }

    pub fn phase(&self) -> Phase {
        self.record().life.phase
    }

    pub fn running(&self) -> bool {
        matches!(self.phase(), Phase::Running | Phase::Paused)
    }

    /// Changes the record, writes it, and wakes those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T, Refusal> {
        self.change_as(false, change)
    }

    /// As `change`, for what must survive a power cut from now on.
    pub fn change_durably<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T, Refusal> {
        self.change_as(true, change)
    }

    fn change_as<T>(
        &self,
        durable: bool,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Result<T, Refusal> {
        let mut record = self.record();
        let result = change(&mut record);
        let phase = record.life.phase;
        let last = Exit {
            code: record.life.exit_code,
            error: (!record.error.is_empty()).then(|| record.error.clone()),
        };
        // Under the lock, so that the file is never older than memory.
        let written = write_json(&self.directory.join("record.json"), &*record, durable);
        drop(record);
        self.signal.send_if_modified(|signal| {
            let changed = signal.phase != phase;
            signal.phase = phase;
            // Who waits for the end of a run wakes up now, and asks how it ended.
            if changed && !matches!(phase, Phase::Running | Phase::Paused) {
                signal.last = last;
            }
            changed
        });
        written.map(|()| result)
    }

    pub fn connect_request(&self) -> ConnectRequest {
        let record = self.record();
        ConnectRequest {
            container: record.id.clone(),
            name: record.name.clone(),
            hostname: record.effective.hostname.clone(),
            mode: record.spec.network.clone(),
            dns: record.spec.dns.clone(),
            dns_search: record.spec.dns_search.clone(),
            dns_options: record.spec.dns_options.clone(),
            ports: ports(&record.spec.host, &record.effective.exposed_ports),
        }
    }

    /// Docker's `409` for an operation on a container that does not run.
    pub fn must_run(&self) -> Result<(), Refusal> {
        match self.phase() {
            Phase::Running => Ok(()),
            Phase::Paused => Err(Refusal::conflict(format!(
                "Container {} is paused, unpause the container before this",
                self.id
            ))),
            _ => Err(Refusal::conflict(format!(
                "container {} is not running",
                self.id
            ))),
        }
    }
}

impl Engine {
    pub(super) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join("containers").join(id.as_str())
    }

    pub(super) fn all(&self) -> Vec<Arc<Container>> {
        let table = self.table.read().expect("no panic under this lock");
        table.by_id.values().cloned().collect()
    }

    /// By full id, name or unique id prefix, in this order, as Docker does.
    pub(super) fn find(&self, reference: &str) -> Result<Arc<Container>, Refusal> {
        let table = self.table.read().expect("no panic under this lock");
        let name = reference.trim_start_matches('/');
        if let Some(container) = table.by_id.get(&ContainerId::new(reference)) {
            return Ok(container.clone());
        }
        if let Some(container) = table.names.get(name).and_then(|id| table.by_id.get(id)) {
            return Ok(container.clone());
        }
        let mut found = table
            .by_id
            .range(ContainerId::new(reference)..)
            .take_while(|(id, _)| !reference.is_empty() && id.as_str().starts_with(reference));
        match (found.next(), found.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Refusal::invalid(format!(
                "multiple IDs found with provided prefix: {reference}"
            ))),
            (None, _) => Err(Refusal::not_found(format!(
                "No such container: {reference}"
            ))),
        }
    }

    /// Takes a name for a container, or says who has it.
    pub(super) fn take_name(&self, name: &str, id: &ContainerId) -> Result<(), Refusal> {
        let mut table = self.table.write().expect("no panic under this lock");
        match table.names.get(name) {
            Some(owner) if owner != id => Err(Refusal::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \
                 \"{owner}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            ))),
            _ => {
                table.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    pub(super) fn free_name(&self, name: &str, id: &ContainerId) {
        let mut table = self.table.write().expect("no panic under this lock");
        if table.names.get(name) == Some(id) {
            table.names.remove(name);
        }
    }

    /// The id of a container named by id, name or prefix in `container:X`.
    pub(super) fn resolve_mode(&self, mode: NetworkMode) -> Result<NetworkMode, Refusal> {
        Ok(match mode {
            NetworkMode::Container(id) => {
                NetworkMode::Container(self.find(id.as_str())?.id.clone())
            }
            other => other,
        })
    }
}

/// The ports asked for, and the exposed ones that are asked for all together.
fn ports(host: &super::HostSpec, exposed: &std::collections::BTreeSet<String>) -> Vec<PortBinding> {
    let mut ports = host.ports.clone();
    for text in exposed.iter().filter(|_| host.publish_all) {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = protocols.into_iter().find(|one| one.as_str() == protocol);
        if let (Ok(target), Some(protocol)) = (port.parse(), protocol)
            && !ports
                .iter()
                .any(|one| one.target == target && one.protocol == protocol)
        {
            ports.push(PortBinding {
                target,
                protocol,
                published: None,
                address: None,
            });
        }
    }
    ports
}
