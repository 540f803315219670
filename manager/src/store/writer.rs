//! Transactions: closures run one after the other on a working copy; those that wait while an
//! entry is under way become the next entry together.

use std::{future::Future, pin::Pin, sync::Arc};

use model::{
    Endpoint, EndpointId, Network, NetworkId, Node, NodeId, Payload, Refusal, SecretId, Service,
    ServiceId, Task, TaskId, TraceParent,
};
use tokio::sync::{mpsc, oneshot};

use super::{ClusterRecord, Proposal, Store, StoreChange, Tables};

/// Transactions that one entry holds at most, so that one entry stays far below a megabyte.
const GROUP: usize = 200;

/// Makes an entry durable and applies it.
pub trait Proposer: Send + Sync + 'static {
    /// Returns once the entry has been committed and applied to the local tables.
    fn propose(
        &self,
        proposal: Proposal,
    ) -> Pin<Box<dyn Future<Output = Result<(), ProposeError>> + Send + '_>>;
}

/// Why an entry was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Another manager leads, or none does; nothing was done.
    #[error("this manager does not lead the cluster (any more)")]
    NotLeader,
    /// The lead was lost while the entry was under way.
    #[error(
        "the cluster's leader changed while this was being done, and it is not known whether it was"
    )]
    Unknown,
    /// Another leader has changed the state that this was decided on; nothing was done.
    #[error("the cluster's state was changed by another leader meanwhile")]
    Overtaken,
    /// Raft or its storage has stopped.
    #[error("the cluster's log cannot be written: {0}")]
    Fatal(String),
}

impl From<&ProposeError> for Refusal {
    fn from(error: &ProposeError) -> Self {
        match error {
            ProposeError::NotLeader | ProposeError::Overtaken => {
                Refusal::unavailable(format!("{error}; nothing was done, try again in a moment"))
            }
            ProposeError::Unknown => Refusal::unavailable(format!(
                "{error}; look whether it took effect before trying again"
            )),
            ProposeError::Fatal(_) => Refusal::internal(format!(
                "{error}; look at the disk and at the log of ovnd on this manager"
            )),
        }
    }
}

/// A working copy of the tables that records what is changed.
pub struct Transaction {
    tables: Tables,
    changes: Vec<StoreChange>,
    now: i64,
    trace: Option<TraceParent>,
}

impl Transaction {
    /// A transaction of its own on `tables`, to try decisions without committing them.
    pub fn on(tables: &Tables, now: i64) -> Self {
        Self {
            tables: tables.clone(),
            changes: Vec::new(),
            now,
            trace: None,
        }
    }

    /// The state with this transaction's own changes.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The leader's clock, nanoseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.now
    }

    pub fn changes(&self) -> &[StoreChange] {
        &self.changes
    }

    pub fn set_cluster(&mut self, record: ClusterRecord) {
        self.push(StoreChange::SetCluster(Box::new(record)));
    }

    pub fn set_node(&mut self, node: Node) {
        self.push(StoreChange::SetNode(Box::new(node)));
    }

    pub fn remove_node(&mut self, id: &NodeId) {
        self.push(StoreChange::RemoveNode(id.clone()));
    }

    pub fn set_network(&mut self, network: Network) {
        self.push(StoreChange::SetNetwork(Box::new(network)));
    }

    pub fn remove_network(&mut self, id: &NetworkId) {
        self.push(StoreChange::RemoveNetwork(id.clone()));
    }

    pub fn set_endpoint(&mut self, endpoint: Endpoint) {
        self.push(StoreChange::SetEndpoint(Box::new(endpoint)));
    }

    pub fn remove_endpoint(&mut self, id: &EndpointId) {
        self.push(StoreChange::RemoveEndpoint(id.clone()));
    }

    /// A changed spec gets a new [`Service::spec_version`].
    pub fn set_service(&mut self, mut service: Service) {
        // Of an earlier request what comes now is no part.
        service.meta.trace = self.trace;
        self.push(StoreChange::SetService(Box::new(service)));
    }

    pub fn remove_service(&mut self, id: &ServiceId) {
        self.push(StoreChange::RemoveService(id.clone()));
    }

    pub fn set_task(&mut self, task: Task) {
        self.push(StoreChange::SetTask(Box::new(task)));
    }

    pub fn remove_task(&mut self, id: &TaskId) {
        self.push(StoreChange::RemoveTask(id.clone()));
    }

    pub fn set_payload(&mut self, payload: Payload) {
        self.push(StoreChange::SetPayload(Box::new(payload)));
    }

    pub fn remove_payload(&mut self, id: &SecretId) {
        self.push(StoreChange::RemovePayload(id.clone()));
    }

    pub fn push(&mut self, change: StoreChange) {
        // The entry's own index is not known yet; the real one is stamped when it is applied.
        let index = self.tables.index() + 1;
        self.tables.apply_change(index, self.now, &change);
        self.changes.push(change);
    }
}

/// A waiting transaction. It answers with what to tell the caller once the entry is committed.
pub(super) struct Job(Box<dyn FnOnce(&mut Transaction) -> Done + Send>);

/// Tells the caller how it ended.
type Done = Box<dyn FnOnce(Result<Arc<Tables>, &ProposeError>) + Send>;

pub(super) async fn submit<T, F>(
    jobs: &mpsc::UnboundedSender<Job>,
    decide: F,
) -> Result<(T, Arc<Tables>), Refusal>
where
    T: Send + 'static,
    F: FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let trace = trace::present().filter(|trace| trace.sampled);
    let job = Job(Box::new(move |transaction| {
        let (tables, length) = (transaction.tables.clone(), transaction.changes.len());
        transaction.trace = trace;
        let outcome = decide(transaction);
        if outcome.is_err() {
            transaction.tables = tables;
            transaction.changes.truncate(length);
        }
        Box::new(move |committed: Result<Arc<Tables>, &ProposeError>| {
            let answer = match (outcome, committed) {
                (Ok(value), Ok(tables)) => Ok((value, tables)),
                (Ok(_), Err(error)) => Err(Refusal::from(error)),
                (Err(refusal), _) => Err(refusal),
            };
            // The caller may have gone away; the transaction stands all the same.
            let _ = tell.send(answer);
        })
    }));
    let stopped = || Refusal::unavailable("this manager is stopping; try again in a moment");
    jobs.send(job).map_err(|_| stopped())?;
    told.await.map_err(|_| stopped())?
}

pub(super) async fn run(
    mut queue: mpsc::UnboundedReceiver<Job>,
    store: Store,
    proposer: Arc<dyn Proposer>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let view = store.view();
        let base = view.index();
        let mut transaction = Transaction::on(&view, crate::clock::now());
        let done: Vec<Done> = group
            .drain(..)
            .map(|Job(decide)| decide(&mut transaction))
            .collect();
        let committed = if transaction.changes.is_empty() {
            Ok(())
        } else {
            let proposal = Proposal {
                time: transaction.now,
                changes: transaction.changes,
                base: Some(base),
            };
            proposer.propose(proposal).await
        };
        let result = committed.as_ref().map(|()| store.view());
        for tell in done {
            tell(result.clone());
        }
    }
}
