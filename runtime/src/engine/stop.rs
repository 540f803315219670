//! Everything that ends, suspends, renames or removes, and waiting for it.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use model::{Refusal, name::check_container_name};

use super::{
    Engine, Exit, ListOptions, Pruned, RemoveOptions, StopOptions, WaitCondition,
    container::Container, create::signal_number, machine::Phase, run::flatten, volumes::volumes_of,
};
use crate::oci::{self, OciError};

/// How long a killed process may take to be gone before somebody is told.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// `Ok(false)`: it did not run (Docker's 304).
    pub async fn stop(&self, reference: &str, options: StopOptions) -> Result<bool, Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        flatten(
            self.tasks
                .spawn(async move {
                    let _turn = container.turn.lock().await;
                    let stopped = this.stop_held(&container, &options).await?;
                    if stopped {
                        this.tell(&container.record(), "stop", &[]);
                        this.settle(&container).await;
                    }
                    Ok(stopped)
                })
                .await,
        )
    }

    pub async fn restart(&self, reference: &str, options: StopOptions) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        flatten(
            self.tasks
                .spawn(async move {
                    let _turn = container.turn.lock().await;
                    // Not removed on the way, even if it removes itself at its end.
                    let auto_remove =
                        container.change(|record| std::mem::take(&mut record.life.auto_remove))?;
                    let stopped = this.stop_held(&container, &options).await;
                    container.change(|record| record.life.auto_remove = auto_remove)?;
                    if stopped? {
                        this.tell(&container.record(), "stop", &[]);
                    }
                    this.run(&container).await?;
                    this.tell(&container.record(), "restart", &[]);
                    Ok(())
                })
                .await,
        )
    }

    /// Ends it if it runs; the turn is held. Its clean-up is the caller's.
    async fn stop_held(
        &self,
        container: &Arc<Container>,
        options: &StopOptions,
    ) -> Result<bool, Refusal> {
        if container.phase() == Phase::Restarting {
            container.change_durably(|record| {
                record.life.stopped_by_hand = true;
                record.life.phase = Phase::Exited;
            })?;
            return Ok(true);
        }
        if !container.running() {
            return Ok(false);
        }
        let (signal, timeout) = {
            let record = container.record();
            let signal = options
                .signal
                .as_deref()
                .unwrap_or(&record.effective.stop_signal);
            (
                signal_number(signal)?,
                options.timeout.or(record.spec.stop_timeout),
            )
        };
        container.change_durably(|record| record.life.stopped_by_hand = true)?;
        if container.phase() == Phase::Paused {
            self.resume_held(container).await?;
        }
        self.send(container, signal)?;
        let patience = match timeout {
            Some(seconds) if seconds < 0 => None,
            Some(seconds) => Some(Duration::from_secs(seconds as u64)),
            None => Some(Self::STOP_TIMEOUT),
        };
        let ended = self.until_ended(container);
        let in_time = match patience {
            None => {
                ended.await;
                true
            }
            Some(patience) => tokio::time::timeout(patience, ended).await.is_ok(),
        };
        if !in_time {
            self.send(container, libc::SIGKILL)?;
            tokio::time::timeout(KILL_LIMIT, self.until_ended(container))
                .await
                .map_err(|_| {
                    Refusal::internal(format!(
                        "container {} did not end within {} s of SIGKILL",
                        container.id.short(),
                        KILL_LIMIT.as_secs()
                    ))
                })?;
        }
        Ok(true)
    }

    async fn until_ended(&self, container: &Container) {
        let mut signal = container.signal.subscribe();
        let _ = signal
            .wait_for(|signal| !matches!(signal.phase, Phase::Running | Phase::Paused))
            .await;
    }

    /// A process that has just ended is no error: its end is on the way.
    fn send(&self, container: &Container, signal: i32) -> Result<(), Refusal> {
        let record = container.record().clone();
        self.tell(&record, "kill", &[("signal", signal.to_string())]);
        match record.process.map(|process| oci::signal(process, signal)) {
            None | Some(Ok(())) => Ok(()),
            // It has ended by itself meanwhile.
            Some(Err(error)) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Some(Err(error)) => Err(Refusal::internal(format!(
                "Cannot kill container: {}: {error}",
                container.id
            ))),
        }
    }

    /// Absent signal: SIGKILL. Not running: 409.
    pub async fn kill(&self, reference: &str, signal: Option<&str>) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let signal = signal
            .filter(|text| !text.is_empty())
            .map_or(Ok(libc::SIGKILL), signal_number)?;
        // No turn: it must work while somebody waits for a stop.
        if !container.running() {
            return Err(Refusal::conflict(format!(
                "Cannot kill container: {reference}: Container {} is not running",
                container.id
            )));
        }
        let ends = {
            let record = container.record();
            signal == libc::SIGKILL
                || signal_number(&record.effective.stop_signal).is_ok_and(|stop| stop == signal)
        };
        if ends {
            container.change_durably(|record| record.life.stopped_by_hand = true)?;
        }
        if signal == libc::SIGKILL && container.phase() == Phase::Paused {
            self.resume_held(&container).await?;
        }
        self.send(&container, signal)?;
        if signal == libc::SIGKILL {
            let _ = tokio::time::timeout(KILL_LIMIT, self.until_ended(&container)).await;
        }
        Ok(())
    }

    pub async fn pause(&self, reference: &str) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let _turn = container.turn.lock().await;
        match container.phase() {
            Phase::Running => {}
            Phase::Paused => {
                return Err(Refusal::conflict(format!(
                    "Container {} is already paused",
                    container.id
                )));
            }
            _ => {
                return Err(Refusal::conflict(format!(
                    "Container {} is not running",
                    container.id
                )));
            }
        }
        let id = container.id.clone();
        self.private(move |executor| executor.pause(id.as_str()))
            .await
            .map_err(|error| refused(&container, "pause", &error))?;
        container.change(|record| {
            if record.life.phase == Phase::Running {
                record.life.phase = Phase::Paused;
            }
        })?;
        self.tell(&container.record(), "pause", &[]);
        Ok(())
    }

    pub async fn unpause(&self, reference: &str) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let _turn = container.turn.lock().await;
        if container.phase() != Phase::Paused {
            return Err(Refusal::conflict(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        self.resume_held(&container).await?;
        self.tell(&container.record(), "unpause", &[]);
        Ok(())
    }

    async fn resume_held(&self, container: &Arc<Container>) -> Result<(), Refusal> {
        let id = container.id.clone();
        self.private(move |executor| executor.resume(id.as_str()))
            .await
            .map_err(|error| refused(container, "unpause", &error))?;
        container.change(|record| {
            if record.life.phase == Phase::Paused {
                record.life.phase = Phase::Running;
            }
        })
    }

    pub async fn rename(&self, reference: &str, name: &str) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let name = name.trim_start_matches('/');
        check_container_name(name)?;
        let _turn = container.turn.lock().await;
        let old = container.record().name.clone();
        if old == name {
            return Err(Refusal::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.take_name(name, &container.id)
            .map_err(|refusal| Refusal {
                message: format!("Error when allocating new name: {}", refusal.message),
                ..refusal
            })?;
        container.change_durably(|record| name.clone_into(&mut record.name))?;
        self.free_name(&old, &container.id);
        let request = container.connect_request();
        if let Some(connected) = self.config.network.renamed(&request).await {
            container.change(|record| record.network = connected)?;
        }
        self.tell(
            &container.record(),
            "rename",
            &[("oldName", format!("/{old}"))],
        );
        Ok(())
    }

    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        let reference = reference.to_owned();
        flatten(
            self.tasks
                .spawn(async move {
                    if options.force && container.running() {
                        // Whoever holds the turn may be waiting for a slow stop.
                        let _ = this.kill(container.id.as_str(), None).await;
                    }
                    let _turn = container.turn.lock().await;
                    if container.signal.borrow().removed {
                        return Err(Refusal::not_found(format!(
                            "No such container: {reference}"
                        )));
                    }
                    this.remove_held(&container, options).await
                })
                .await,
        )
    }

    /// Removes it; the turn is held.
    pub(super) async fn remove_held(
        &self,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<(), Refusal> {
        let name = container.record().name.clone();
        match container.phase() {
            phase @ (Phase::Running | Phase::Paused | Phase::Restarting) => {
                if !options.force {
                    let word = super::record::status(phase).as_str();
                    return Err(Refusal::conflict(format!(
                        "cannot remove container \"/{name}\": container is {word}: stop the \
                         container before removing or force remove"
                    )));
                }
                let at_once = StopOptions {
                    signal: Some("SIGKILL".into()),
                    timeout: None,
                };
                self.stop_held(container, &at_once).await?;
            }
            Phase::Created | Phase::Exited | Phase::Removing => {}
        }
        container.change(|record| record.life.phase = Phase::Removing)?;
        self.clean_up(container, false).await?;
        let record = container.record().clone();
        self.release_volumes(volumes_of(&record)).await;
        let directory = container.directory.clone();
        tokio::task::spawn_blocking(move || {
            // The record goes last but one: what is half removed is found again.
            for part in ["upper", "work", "rootfs", "empty"] {
                let path = directory.join(part);
                let _ = fs::remove_dir_all(path);
            }
            fs::remove_dir_all(&directory)
        })
        .await
        .map_err(|error| Refusal::internal(format!("removing the container died: {error}")))?
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(Refusal::internal(format!(
                "unable to remove {}: {error}",
                container.directory.display()
            ))),
        })?;
        {
            let mut table = self.table.write().expect("no panic under this lock");
            table.by_id.remove(&container.id);
            if table.names.get(&record.name) == Some(&container.id) {
                table.names.remove(&record.name);
            }
        }
        *container.pin.lock().expect("no panic under this lock") = None;
        container
            .early
            .lock()
            .expect("no panic under this lock")
            .clear();
        if options.volumes {
            for point in record.mounts.iter().filter(|point| point.anonymous) {
                if let Some(name) = &point.name {
                    let _ = self.volume_remove(name, true).await;
                }
            }
        }
        self.tell(&record, "destroy", &[]);
        container.signal.send_modify(|signal| signal.removed = true);
        Ok(())
    }

    /// Registers at once (so it may be called before the start); the inner future ends with
    /// the condition and may be dropped.
    pub fn wait(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, Exit>, Refusal> {
        let container = self.find(reference)?;
        let mut signal = container.signal.subscribe();
        let seen = signal.borrow_and_update().exits;
        Ok(Box::pin(async move {
            let done = signal
                .wait_for(|signal| match condition {
                    WaitCondition::NotRunning => {
                        signal.removed || !matches!(signal.phase, Phase::Running | Phase::Paused)
                    }
                    WaitCondition::NextExit => signal.removed || signal.exits > seen,
                    WaitCondition::Removed => signal.removed,
                })
                .await;
            // `container` keeps the sender alive until here.
            match done {
                Ok(signal) => signal.last.clone(),
                Err(_) => container.signal.borrow().last.clone(),
            }
        }))
    }

    /// Removes all that do not run; filters `label`, `until`.
    pub async fn prune(&self, filters: &BTreeMap<String, Vec<String>>) -> Result<Pruned, Refusal> {
        let mut filters = filters.clone();
        let until = filters
            .remove("until")
            .and_then(|list| list.into_iter().next())
            .map(|text| super::listing::parse_until(&text))
            .transpose()?;
        if let Some(unknown) = filters
            .keys()
            .find(|key| !matches!(key.as_str(), "label" | "label!"))
        {
            return Err(Refusal::invalid(format!("invalid filter '{unknown}'")));
        }
        let options = ListOptions {
            all: true,
            limit: None,
            filters,
        };
        let mut pruned = Pruned::default();
        for view in self.list(&options)? {
            let stopped = matches!(
                view.state.status,
                super::Status::Created | super::Status::Exited
            );
            if !stopped || until.is_some_and(|until| view.created_at >= until) {
                continue;
            }
            let (size, _) = self.size(view.id.as_str()).await.unwrap_or_default();
            if self
                .remove(view.id.as_str(), RemoveOptions::default())
                .await
                .is_ok()
            {
                pruned.reclaimed += size;
                pruned.deleted.push(view.id.to_string());
            }
        }
        Ok(pruned)
    }

    /// Sets the terminal's size; before the start it is kept for it.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        *container.size.lock().expect("no panic under this lock") = Some((rows, columns));
        if !container.running() {
            return if matches!(container.phase(), Phase::Created | Phase::Restarting) {
                Ok(())
            } else {
                container.must_run()
            };
        }
        oci::attach::resize(&container.bundle, rows, columns)
            .map_err(|error| Refusal::internal(format!("resizing the terminal: {error}")))
    }
}

pub(super) fn refused(container: &Container, what: &str, error: &OciError) -> Refusal {
    Refusal::internal(format!("Cannot {what} container {}: {error}", container.id))
}
