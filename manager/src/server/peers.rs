//! For managers among themselves: consensus, and what is asked of the leader on others' behalf.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use model::node::Role;
use tonic::{Request, Response, Status};
use trace::Instrument as _;

use super::{certificate, part_of};
use crate::{
    ca::Member,
    leader::Manager,
    raft::RaftCall,
    wire::{ManagerAsk, Payload, ReadLogs, pack, proto::peers_server::Peers as Service, unpack},
};

pub(super) struct Peers(pub Arc<Manager>);

impl Peers {
    /// Who calls: a manager's certificate of this cluster. What this manager knows of the nodes
    /// may be old, or nothing yet, so only those are refused that it knows to be no managers.
    fn manager<T>(&self, request: &Request<T>) -> Result<Member, Status> {
        let member = self.certified(request)?;
        let view = self.0.store().view();
        let removed = view
            .cluster()
            .is_some_and(|record| record.removed.contains_key(&member.node));
        // Whoever leaves consensus still says so to the others.
        let part = || self.0.roster().of(&member.node).is_some();
        let demoted = view
            .node(&member.node)
            .is_some_and(|node| node.spec.role == Role::Worker && !part());
        if removed || demoted {
            return Err(no_manager());
        }
        Ok(member)
    }

    /// The same, whatever has become of it since its certificate was issued.
    fn certified<T>(&self, request: &Request<T>) -> Result<Member, Status> {
        if self.0.ending().is_cancelled() {
            return Err(Status::unavailable("this manager ends"));
        }
        let member = certificate(request)?;
        if member.role != Role::Manager {
            return Err(no_manager());
        }
        Ok(member)
    }
}

fn no_manager() -> Status {
    Status::permission_denied("this call is for managers of the cluster, and this node is none")
}

#[tonic::async_trait]
impl Service for Peers {
    async fn raft(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.certified(&request)?;
        let call: RaftCall = unpack(request.get_ref())?;
        // Whoever the cluster was begun anew without has to hear of it, although it is no manager here.
        if self.0.consensus().outlives(&call).is_none() {
            self.manager(&request)?;
        }
        // Whoever asked may give up; what has begun is done to its end all the same.
        let manager = Arc::clone(&self.0);
        let answering = tokio::spawn(async move { manager.consensus().answer(call).await });
        let answer = answering
            .await
            .map_err(|_| Status::unavailable("this manager ends"))?;
        Ok(Response::new(pack(&answer)?))
    }

    async fn forward(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = self.manager(&request)?;
        let ask: ManagerAsk = unpack(request.get_ref())?;
        let part = part_of(&request, "Peers/Forward");
        // The same: a change that was begun does not stop half-way because a follower died.
        let manager = Arc::clone(&self.0);
        let carrying =
            async move { manager.carry_out(Some(&member.node), ask).await }.instrument(part);
        let reply = tokio::spawn(carrying)
            .await
            .map_err(|_| Status::unavailable("this manager ends"))?;
        Ok(Response::new(pack(&reply)?))
    }

    type ReadLogsStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

    async fn read_logs(
        &self,
        request: Request<Payload>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        self.manager(&request)?;
        let ask: ReadLogs = unpack(request.get_ref())?;
        if self.0.term().is_none() {
            return Err(Status::unavailable("this manager does not lead"));
        }
        let items = self
            .0
            .logs_here(&ask.selector, &ask.options)
            .map_err(|refusal| Status::unavailable(refusal.message))?;
        Ok(Response::new(Box::pin(items.map(|item| pack(&item)))))
    }
}
