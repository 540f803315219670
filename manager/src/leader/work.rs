//! The verbs of services, tasks, secrets and configs.

use std::time::{Duration, Instant};

use model::{
    Refusal,
    control::{Answer, Verb},
};

use super::Manager;
use crate::{
    clock,
    control::{self, find_payload, find_service, find_task, service_status, shown},
    dispatcher, orchestrator, server,
    store::Transaction,
};

/// How long the removal of a network waits for tasks that are stopping.
const EMPTYING: Duration = Duration::from_secs(30);

impl Manager {
    /// Carries out a verb that [`Manager::call`] has allowed; those of others are not for here.
    pub(super) async fn work(&self, verb: Verb) -> Result<Answer, Refusal> {
        let store = self.store();
        let view = store.view();
        match verb {
            Verb::ServiceCreate { spec } => {
                // What is wrong for another reason is told before hosts are asked.
                control::draft(&view, (*spec).clone(), clock::now())?;
                let taken = self.take_ports(&spec, None).await?;
                let chosen = taken.chosen();
                let made = store.update(move |tx| {
                    let id = control::service_create(tx, *spec)?;
                    server::give(tx, &id, chosen);
                    Ok(id)
                });
                let (id, _) = made.await?;
                taken.used();
                Ok(written(id))
            }
            Verb::ServiceUpdate {
                reference,
                version,
                spec,
                credentials,
                rollback,
            } => {
                let service = find_service(&view, &reference)?;
                let previous = service.previous.as_deref().filter(|_| rollback);
                let taken = self
                    .take_ports(previous.unwrap_or(&spec), Some(service))
                    .await?;
                let chosen = taken.chosen();
                let change = move |tx: &mut Transaction| {
                    let id = control::service_update(
                        tx,
                        &reference,
                        version,
                        *spec,
                        credentials,
                        rollback,
                    )?;
                    server::give(tx, &id, chosen);
                    Ok(id)
                };
                let (id, _) = store.update(change).await?;
                taken.used();
                Ok(written(id))
            }
            Verb::ServiceList => {
                let counted =
                    |service: &model::Service| (service.clone(), service_status(&view, service));
                Ok(Answer::Services(
                    view.work().services().map(counted).collect(),
                ))
            }
            Verb::ServiceInspect { reference } => {
                let service = find_service(&view, &reference)?.clone();
                Ok(Answer::Service(Box::new(service)))
            }
            Verb::ServiceRemove { reference } => {
                let removed = store.update(move |tx| control::service_remove(tx, &reference));
                removed.await?;
                Ok(Answer::Done)
            }
            Verb::ServiceRebalance { reference } => {
                let moved = store.update(move |tx| {
                    let service = find_service(tx.tables(), &reference)?.clone();
                    let (decision, moves) =
                        orchestrator::rebalance(tx.tables(), &service, tx.now());
                    for change in decision.changes {
                        tx.push(change);
                    }
                    Ok(moves)
                });
                let (moves, _) = moved.await?;
                Ok(Answer::Moved(moves))
            }
            Verb::TaskList => Ok(Answer::Tasks(view.work().tasks().cloned().collect())),
            Verb::TaskInspect { reference } => {
                let task = find_task(&view, &reference)?.clone();
                Ok(Answer::Task(Box::new(task)))
            }
            Verb::TaskReport { node, statuses } => {
                let reported = store.update(move |tx| {
                    dispatcher::report(tx, &node, statuses);
                    Ok(())
                });
                reported.await?;
                Ok(Answer::Done)
            }
            other => self.payloads(other).await,
        }
    }

    async fn payloads(&self, verb: Verb) -> Result<Answer, Refusal> {
        let store = self.store();
        let view = store.view();
        match verb {
            Verb::PayloadCreate { kind, spec } => {
                let made = store.update(move |tx| control::payload_create(tx, kind, *spec));
                let (payload, tables) = made.await?;
                let stored = tables.work().payload(&payload.id).unwrap_or(&payload);
                Ok(Answer::Payload(Box::new(shown(stored))))
            }
            Verb::PayloadList { kind } => Ok(Answer::Payloads(
                view.work().payloads(kind).map(shown).collect(),
            )),
            Verb::PayloadInspect { kind, reference } => {
                let payload = find_payload(&view, kind, &reference)?;
                Ok(Answer::Payload(Box::new(shown(payload))))
            }
            Verb::PayloadUpdate {
                kind,
                reference,
                version,
                spec,
            } => {
                let change = move |tx: &mut Transaction| {
                    control::payload_update(tx, kind, &reference, version, *spec)
                };
                store.update(change).await?;
                Ok(Answer::Done)
            }
            Verb::PayloadRemove { kind, reference } => {
                let removed = store.update(move |tx| control::payload_remove(tx, kind, &reference));
                removed.await?;
                Ok(Answer::Done)
            }
            other => Err(Refusal::internal(format!("verb {other:?} has no place"))),
        }
    }

    /// Removes a network; tasks on it that are stopping already are waited for.
    pub(super) async fn remove_network(&self, reference: String) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + EMPTYING;
        let (mut view, mut watch) = self.store().view_and_watch();
        while control::is_emptying(&view, &reference) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, watch.next()).await.is_err() {
                break;
            }
            view = self.store().view();
        }
        self.store()
            .update(move |tx| control::network_remove(tx, &reference))
            .await?;
        Ok(Answer::Done)
    }

    /// Says where the tasks of a service would go, once its spec has passed every check.
    pub(super) fn dry_run(&self, spec: model::ServiceSpec) -> Result<Answer, Refusal> {
        let view = self.store().view();
        let draft = control::draft(&view, spec, clock::now())?;
        let answer = crate::scheduler::dry_run(&view, &draft.spec, clock::now());
        Ok(Answer::DryRun(Box::new(answer)))
    }
}

fn written(id: model::ServiceId) -> Answer {
    Answer::ServiceWritten {
        id,
        warnings: Vec::new(),
    }
}
