//! For members: verbs, sessions, heartbeats, acknowledgements.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::Stream;
use model::{
    Id, NodeId, Refusal,
    control::{Answer, Verb},
    node::{NodeDescription, NodeState, Role},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use trace::Instrument as _;

use super::{address_of, caller, part_of, told::Told};
use crate::{
    control, dispatcher,
    leader::{Manager, Place, liveness},
    wire::{
        Acknowledge, Beat, BeatReply, Elsewhere, Payload, Register, Reply, SessionMessage, pack,
        proto::members_server::Members as Service, unpack,
    },
};

/// How long a host that asks for a session waits with the manager for a leader.
const ELECTION: Duration = Duration::from_secs(3);

pub(super) struct Members(pub Arc<Manager>);

#[tonic::async_trait]
impl Service for Members {
    async fn call(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let verb: Verb = unpack(request.get_ref())?;
        let part = part_of(&request, "Members/Call");
        let asking = self.0.call_by_leader(&member, &verb);
        let reply: Reply<Answer> = asking.instrument(part).await;
        Ok(Response::new(pack(&reply)?))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Payload>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let member = caller(&self.0, &request)?;
        let register: Register = unpack(request.get_ref())?;
        let Some(term) = self.term_soon(member.role).await else {
            let elsewhere = pack(&elsewhere(&self.0))?;
            let only = futures_util::stream::once(std::future::ready(Ok(elsewhere)));
            return Ok(Response::new(Box::pin(only)));
        };
        let from = address_of(&request).map(|address| address.ip());
        control::check_newcomer(&self.0.store().view(), &register.description)
            .map_err(|refusal| Status::failed_precondition(refusal.message))?;
        self.set_description(
            &member.node,
            register.description,
            Said::AtRegistration { from },
        )
        .await
        .map_err(|refusal| Status::unavailable(refusal.message))?;
        Ok(Response::new(Box::pin(messages(
            Arc::clone(&self.0),
            member.node,
            register.level,
            term,
        ))))
    }

    async fn describe(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let description: NodeDescription = unpack(request.get_ref())?;
        let reply: Reply<()> = self
            .set_description(&member.node, description, Said::Meanwhile)
            .await;
        Ok(Response::new(pack(&reply)?))
    }

    async fn beat(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let beat: Beat = unpack(request.get_ref())?;
        let known = self
            .0
            .sessions()
            .beat(&member.node, &beat.session, Instant::now());
        let known = known
            && liveness::beats_again(&self.0, &member.node, &beat.session)
                .await
                .map_err(|refusal| Status::unavailable(refusal.message))?;
        let reply: Reply<BeatReply> = Ok(if known {
            BeatReply::Fine
        } else {
            BeatReply::UnknownSession
        });
        Ok(Response::new(pack(&reply)?))
    }

    async fn acknowledge(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let said: Acknowledge = unpack(request.get_ref())?;
        self.0
            .sessions()
            .acknowledge(&member.node, &said.session, said.generation);
        let reply: Reply<()> = Ok(());
        Ok(Response::new(pack(&reply)?))
    }

    async fn logs(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let pushed = request.into_inner();
        self.0.log_desk().receive(&member.node, pushed).await?;
        let reply: Reply<()> = Ok(());
        Ok(Response::new(pack(&reply)?))
    }

    async fn leave(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let member = caller(&self.0, &request)?;
        let reply: Reply<()> = self.0.leave(member).await;
        Ok(Response::new(pack(&reply)?))
    }
}

/// When a node describes itself.
#[derive(Debug, Clone, Copy)]
enum Said {
    /// With the address its session comes from.
    AtRegistration {
        from: Option<IpAddr>,
    },
    Meanwhile,
}

impl Members {
    /// This manager's term, if it leads; while nobody does, the answer waits for the election: all
    /// hosts would ask for it again and again otherwise. Managers' hosts do not wait: they may have
    /// to hear from others that their manager was left behind.
    async fn term_soon(&self, role: Role) -> Option<CancellationToken> {
        if role == Role::Worker {
            let mut place = self.0.place();
            let decided = place.wait_for(|place| !matches!(place, Place::Nobody(_)));
            // Who waits longer asks somebody else.
            let _ = tokio::time::timeout(ELECTION, decided).await;
        }
        self.0.term()
    }

    /// Stores what a node says of itself; a registration makes it ready.
    async fn set_description(
        &self,
        id: &NodeId,
        description: NodeDescription,
        said: Said,
    ) -> Result<(), Refusal> {
        let id = id.clone();
        let set = self.0.store().update(move |tx| {
            let Some(old) = tx.tables().node(&id) else {
                return Err(Refusal::not_found(format!("node {id} was removed")));
            };
            let mut node = old.clone();
            node.description = description;
            if node.description.advertise != old.description.advertise {
                node.status.address = node.description.advertise.or(old.status.address);
            }
            if let Said::AtRegistration { from: address } = said {
                node.status.state = NodeState::Ready;
                node.status.message = String::new();
                // A manager's own session comes from loopback, which is nobody's address.
                let address = address.filter(|address| !address.is_loopback());
                node.status.address = node.description.advertise.or(address);
            }
            let back = old.status.state != node.status.state;
            if node != *old {
                tx.set_node(node);
            }
            if back {
                dispatcher::returned(tx, &id);
            }
            Ok(())
        });
        set.await.map(|_| ())
    }
}

/// Ends the session when the stream is dropped, however that comes about.
struct Open {
    manager: Arc<Manager>,
    node: NodeId,
    session: Id,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.manager.sessions().close(&self.node, &self.session);
    }
}

/// Where a session is to be had instead.
fn elsewhere(manager: &Manager) -> SessionMessage {
    let leader = match &*manager.place().borrow() {
        Place::Following(address) => Some(*address),
        Place::Leading(_) | Place::Nobody(_) => None,
    };
    SessionMessage::Elsewhere(Box::new(Elsewhere {
        leader,
        managers: manager.managers(),
    }))
}

/// What a session says: welcome, full set, increments; for as long as the manager leads.
fn messages(
    manager: Arc<Manager>,
    node: NodeId,
    level: u32,
    term: CancellationToken,
) -> impl Stream<Item = Result<Payload, Status>> + Send {
    async_stream::stream! {
        let (tables, mut mailbox) = manager.post().open(manager.store(), &node);
        let session = control::new_id();
        manager.sessions().open(&node, session.clone(), model::Generation::default(), Instant::now());
        let mut orders = manager.log_desk().session(&node);
        let mut questions = manager.desk().session(&node, level);
        let open = Open { manager: Arc::clone(&manager), node: node.clone(), session: session.clone() };
        let Some((mut told, first)) = Told::begin(&tables, &node, level, session) else {
            yield pack(&SessionMessage::Removed);
            return;
        };
        for message in first {
            yield pack(&message);
        }
        // A session that nothing concerns would keep all that has changed since.
        drop(tables);
        loop {
            let letter = tokio::select! {
                letter = mailbox.next() => Ok(letter),
                Some(order) = orders.recv() => Err(SessionMessage::Logs(Box::new(order))),
                Some(order) = questions.recv() => Err(order.into()),
                () = term.cancelled() => {
                    yield pack(&elsewhere(&manager));
                    break;
                }
            };
            let letter = match letter {
                Ok(letter) => letter,
                Err(order) => {
                    yield pack(&order);
                    continue;
                }
            };
            let news = told.news(&letter);
            let removed = matches!(news.last(), Some(SessionMessage::Removed));
            for message in news {
                yield pack(&message);
            }
            if removed {
                break;
            }
        }
        drop(open);
    }
}
