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

use super::{address_of, caller, part_of};
use crate::{
    ca, control,
    dispatcher::{self, Letter, assignments, increment},
    leader::{Manager, Place, liveness},
    store::StoreChange,
    wire::{
        Acknowledge, Beat, BeatReply, Elsewhere, Payload, Register, Reply, SessionMessage, Trust,
        Welcome, pack, proto::members_server::Members as Service, unpack,
    },
};

/// From which level on a session is told what to trust.
const TRUST_LEVEL: u32 = 2;
/// The leader's share of work for one node's next certificate.
const EACH: Duration = Duration::from_millis(10);

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
        let Some(own) = tables.node(&node).cloned() else {
            yield pack(&SessionMessage::Removed);
            return;
        };
        let mut period = heartbeat(&tables);
        let mut managers = manager.managers();
        let mut trusted = trust(&tables);
        yield pack(&SessionMessage::Welcome(Box::new(Welcome {
            session,
            heartbeat_period: period,
            managers: managers.clone(),
            node: own,
            data_path_port: tables.cluster().map_or(0, |record| record.public.data_path_port),
            trust: trusted.clone(),
        })));
        let mut sent = assignments(&tables, &node);
        // A session that nothing concerns would keep all that has changed since.
        drop(tables);
        yield pack(&SessionMessage::Full(Box::new(sent.clone())));
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
            let tables = letter.tables();
            let anew = matches!(letter, Letter::StartOver(_));
            let Some(own) = tables.node(&node) else {
                yield pack(&SessionMessage::Removed);
                break;
            };
            if anew {
                sent = assignments(tables, &node);
                yield pack(&SessionMessage::Full(Box::new(sent.clone())));
            } else if let Some(step) = increment(&mut sent, tables, letter.changes(&node), &node) {
                yield pack(&SessionMessage::Increment(step));
            }
            let of_own = |change: &StoreChange| matches!(change, StoreChange::SetNode(set) if set.id == node);
            if anew || letter.changes(&node).any(of_own) {
                yield pack(&SessionMessage::Node(Box::new(own.clone())));
            }
            if !tables.managers().eq(managers.iter().map(|(id, address)| (id, *address))) {
                managers = tables.managers().map(|(id, address)| (id.clone(), address)).collect();
                yield pack(&SessionMessage::Managers(managers.clone()));
            }
            let of_cluster = |change: &StoreChange| matches!(change, StoreChange::SetCluster(_));
            if level >= TRUST_LEVEL && (anew || letter.changes(&node).any(of_cluster)) {
                let now = trust(tables);
                if let Some(news) = now.clone().filter(|_| now != trusted) {
                    yield pack(&SessionMessage::Trust(Box::new(news)));
                }
                trusted = now;
            }
            let now = heartbeat(tables);
            if now != period {
                period = now;
                yield pack(&SessionMessage::HeartbeatPeriod(period));
            }
        }
        drop(open);
    }
}

/// What a node is told to trust.
fn trust(tables: &crate::store::Tables) -> Option<Trust> {
    let cluster = &tables.cluster()?.public;
    let announced = ca::announced(cluster);
    let announced = announced.inspect_err(|error| tracing::error!("the cluster's root: {error}"));
    Some(Trust {
        roots_pem: cluster.trusted_pem(),
        issuer_public_key_der: announced.ok()?.issuer_public_key_der,
        within: spread(tables),
    })
}

/// Over how much time the nodes come for the same thing.
pub(super) fn spread(tables: &crate::store::Tables) -> Duration {
    let nodes = u32::try_from(tables.node_count()).unwrap_or(u32::MAX);
    EACH.saturating_mul(nodes)
}

fn heartbeat(tables: &crate::store::Tables) -> Duration {
    tables
        .cluster()
        .map_or(Duration::from_secs(1), |r| r.public.spec.heartbeat_period)
}
