//! The session with a manager: made, kept, made again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use manager::{
    client::{CALL_LIMIT, ClientError, Connection, SessionStream},
    tls,
    wire::{LEVEL, Register, SessionMessage},
};
use model::{Generation, Id, Refusal, node::NodeDescription};
use rand::Rng as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    Standing,
    heartbeat::{self, Heartbeat},
    ledger::LedgerError,
    logs,
    member::{Member, Shared},
    ports, traffic,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The longest pause where a manager answers that nobody leads.
const ELECTION: Duration = Duration::from_millis(500);
/// Pause before the leader that a manager has named is asked.
const HOP: Duration = Duration::from_millis(20);
/// How long a manager may take for the handshake at first, and once it has taken too long: after a
/// lost leader all hosts come at once, and a manager takes one after the other.
const REACH: Duration = Duration::from_secs(3);
const LONGEST_REACH: Duration = Duration::from_secs(12);
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Lost(String),
    #[error("this node was removed from the cluster; leave it with `ovnctl swarm leave`")]
    Removed,
    /// The leader is another manager, or is being elected.
    #[error("the cluster has no leader at the moment")]
    Elsewhere(Option<SocketAddr>),
}

/// Keeps a session until the membership stops or the node is removed.
pub(super) async fn run(shared: Arc<Shared>, member: Arc<Member>) {
    let mut pause = FIRST_PAUSE;
    let mut reach = REACH;
    let mut leader: Option<SocketAddr> = None;
    let mut lines = BTreeMap::new();
    let mut lost = None;
    for attempt in 0.. {
        let next = next(&member.candidates(), attempt, lost);
        let named = leader.take();
        let Some(address) = named.or(next) else {
            shared.fail("no manager of the cluster is known");
            return;
        };
        let began = Instant::now();
        let end = match open(&shared, &member, address, reach, &mut lines).await {
            Ok(open) => {
                lines.clear();
                open.keep(&shared, &member).await
            }
            Err(end) => end,
        };
        member.set_connection(None);
        if matches!(end, End::Removed) {
            shared.fail(&end.to_string());
            member.ledger.close();
            return;
        }
        lost = (!matches!(end, End::Elsewhere(_))).then_some(address);
        reach = match end {
            End::Client(ClientError::Late { .. }) => (reach * 2).min(LONGEST_REACH),
            _ => REACH,
        };
        if let End::Elsewhere(Some(other)) = end
            && other != address
        {
            tracing::debug!(%address, leader = %other, "the leader is another manager");
            leader = Some(other);
            tokio::time::sleep(HOP).await;
            continue;
        }
        if named.is_some() || matches!(end, End::Elsewhere(_)) {
            // An election takes about a second, and names the lost leader for a part of it.
            pause = pause.min(ELECTION);
        }
        tracing::warn!(%address, "no session: {end}");
        shared.change(|state| state.error = end.to_string());
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let share = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(share)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whom to ask at an attempt: not whoever has just failed, where there is anybody else. A host that
/// is gone takes seconds to say so.
fn next(candidates: &[SocketAddr], attempt: usize, lost: Option<SocketAddr>) -> Option<SocketAddr> {
    let count = candidates.len();
    let from = attempt.checked_rem(count)?;
    let mut around = candidates.iter().cycle().skip(from).take(count);
    let other = around.find(|address| Some(**address) != lost);
    other.or(candidates.first()).copied()
}

struct Open {
    connection: Connection,
    stream: SessionStream,
    session: Id,
    period: watch::Sender<Duration>,
    described: NodeDescription,
}

/// `lines` are connections to managers that do not lead and may have to be asked again: a handshake
/// for each question would be most of an election's work.
async fn open(
    shared: &Shared,
    member: &Member,
    address: SocketAddr,
    reach: Duration,
    lines: &mut BTreeMap<SocketAddr, Connection>,
) -> Result<Open, End> {
    let connection = if let Some(line) = lines.remove(&address) {
        line
    } else {
        let tls = tls::member(&member.identity).map_err(|error| End::Lost(error.to_string()))?;
        Connection::open_within(address, tls, reach).await?
    };
    let described = member.description(shared);
    let register = Register {
        description: described.clone(),
        generation: shared.feed.current().generation,
        level: LEVEL,
    };
    let mut stream = connection.session(&register).await?;
    let first = tokio::time::timeout(CALL_LIMIT, stream.next())
        .await
        .map_err(|_| End::Lost(format!("manager {address} did not welcome this node")))??;
    let welcome = match first {
        SessionMessage::Welcome(welcome) => welcome,
        SessionMessage::Removed => return Err(End::Removed),
        SessionMessage::Elsewhere(elsewhere) => {
            member.adopt_managers(shared, elsewhere.managers);
            lines.insert(address, connection);
            return Err(End::Elsewhere(elsewhere.leader));
        }
        _ => {
            return Err(End::Lost(format!(
                "manager {address} did not begin with a welcome"
            )));
        }
    };
    member.adopt_managers(shared, welcome.managers);
    member.tell(&welcome.node);
    if let Some(trust) = welcome.trust {
        member.be_told_trust(trust);
    }
    Ok(Open {
        connection,
        stream,
        session: welcome.session,
        period: watch::Sender::new(welcome.heartbeat_period),
        described,
    })
}

impl Open {
    async fn keep(self, shared: &Shared, member: &Arc<Member>) -> End {
        let stop = member.stop.child_token();
        let _stops = stop.clone().drop_guard();
        let beating = heartbeat::start(Heartbeat {
            address: self.connection.address(),
            beside: self.connection.clone(),
            identity: Arc::clone(&member.identity),
            session: self.session.clone(),
            period: self.period.subscribe(),
            stop,
        });
        let beating = match beating {
            Ok(beating) => beating,
            Err(error) => return End::Lost(format!("no heartbeat can be sent: {error}")),
        };
        let Self {
            connection,
            stream,
            session,
            period,
            described,
        } = self;
        let reached = shared.reached.subscribe();
        tokio::select! {
            end = receive(shared, member, &connection, stream, &period) => end,
            end = acknowledge(&connection, &session, reached) => end,
            end = describe(shared, member, &connection, described) => end,
            reason = beating => End::Lost(reason.unwrap_or_else(|_| "the heartbeat stopped".to_owned())),
        }
    }
}

async fn receive(
    shared: &Shared,
    member: &Arc<Member>,
    connection: &Connection,
    mut stream: SessionStream,
    period: &watch::Sender<Duration>,
) -> End {
    let mut ahead = None;
    let mut pushes = JoinSet::new();
    loop {
        let message = match ahead.take() {
            Some(message) => message,
            None => stream.next().await,
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => return error.into(),
        };
        let accepted = match message {
            SessionMessage::Full(full) => {
                let accepted = member.ledger.accept_full(*full);
                if accepted.is_ok() {
                    member.set_connection(Some(connection.clone()));
                    shared.change(|state| {
                        state.state = Standing::Active;
                        state.error.clear();
                    });
                }
                accepted
            }
            SessionMessage::Increment(increment) => {
                // What has come meanwhile is written with it, once.
                let mut together = vec![increment];
                while let Some(next) = stream.next().now_or_never() {
                    match next {
                        Ok(SessionMessage::Increment(increment)) => together.push(increment),
                        other => {
                            ahead = Some(other);
                            break;
                        }
                    }
                }
                member.ledger.accept_increments(together)
            }
            SessionMessage::Managers(managers) => {
                member.adopt_managers(shared, managers);
                Ok(())
            }
            SessionMessage::HeartbeatPeriod(new) => {
                period.send_replace(new);
                Ok(())
            }
            SessionMessage::Node(node) => {
                tracing::debug!(version = node.meta.version, "this node's object changed");
                member.tell(&node);
                Ok(())
            }
            SessionMessage::Logs(order) => {
                let source = shared.logs.get().cloned();
                let push = logs::push(Arc::clone(member), connection.address(), source, *order);
                // Ends with its reader, or with the session.
                pushes.spawn(push);
                while pushes.try_join_next().is_some() {}
                Ok(())
            }
            SessionMessage::Ports(order) => {
                if let Some(keeper) = shared.ports.get().cloned() {
                    let node = member.membership().node_id;
                    pushes.spawn(ports::obey(connection.clone(), node, keeper, *order));
                }
                Ok(())
            }
            SessionMessage::LookAtPorts(question) => {
                if let Some(keeper) = shared.ports.get().cloned() {
                    let node = member.membership().node_id;
                    pushes.spawn(ports::answer(connection.clone(), node, keeper, *question));
                }
                Ok(())
            }
            SessionMessage::CountTraffic(question) => {
                if let Some(source) = shared.traffic.get().cloned() {
                    let node = member.membership().node_id;
                    pushes.spawn(traffic::answer(connection.clone(), node, source, *question));
                }
                Ok(())
            }
            SessionMessage::Trust(trust) => {
                member.be_told_trust(*trust);
                Ok(())
            }
            SessionMessage::Removed => return End::Removed,
            SessionMessage::Elsewhere(elsewhere) => {
                member.adopt_managers(shared, elsewhere.managers);
                return End::Elsewhere(elsewhere.leader);
            }
            SessionMessage::Welcome(_) => {
                return End::Lost("the manager sent a second welcome".to_owned());
            }
        };
        if let Err(error) = accepted {
            return error.into();
        }
    }
}

async fn acknowledge(
    connection: &Connection,
    session: &Id,
    mut reached: watch::Receiver<Generation>,
) -> End {
    loop {
        let generation = *reached.borrow_and_update();
        if generation != Generation::default() {
            match connection.acknowledge(session, generation).await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => return refusal.into(),
                Err(error) => return error.into(),
            }
        }
        if reached.changed().await.is_err() {
            return End::Lost("the daemon ends".to_owned());
        }
    }
}

async fn describe(
    shared: &Shared,
    member: &Member,
    connection: &Connection,
    mut described: NodeDescription,
) -> End {
    loop {
        // At once what a rotation of the root waits for.
        tokio::select! {
            () = tokio::time::sleep(DESCRIBE_EVERY) => {}
            () = member.news.notified() => {}
        }
        let now = member.description(shared);
        if now == described {
            continue;
        }
        match connection.describe(&now).await {
            Ok(Ok(())) => described = now,
            Ok(Err(refusal)) => return refusal.into(),
            Err(error) => return error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_failed_is_not_asked_at_once() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let all = [at(1), at(2), at(3)];
        for (candidates, attempt, lost, expected) in [
            (&all[..], 0, None, Some(at(1))),
            (&all, 4, None, Some(at(2))),
            (&all, 0, Some(at(1)), Some(at(2))),
            (&all, 5, Some(at(3)), Some(at(1))),
            (&all, 5, Some(at(9)), Some(at(3))),
            (&all[..1], 3, Some(at(1)), Some(at(1))),
            (&[], 3, None, None),
        ] {
            assert_eq!(
                next(candidates, attempt, lost),
                expected,
                "{attempt} {lost:?}"
            );
        }
    }
}
