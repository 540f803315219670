//! The one port of a manager: newcomers join, members call. Mutual TLS from the first packet.

mod choice;
mod desk;
mod handshakes;
mod join;
mod logs;
mod members;
pub mod merge;
mod peers;
mod ports;
mod sights;
mod told;
mod traffic;
mod trust;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use self::{
    choice::give,
    desk::{Desk, Word},
    logs::LogDesk,
};

use model::node::Role;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, transport::Server};

use trace::Span;

use self::trust::Caller;
use crate::{
    ca::Member,
    leader::Manager,
    wire::{
        MESSAGE_LIMIT, TRACE,
        proto::{
            join_server::JoinServer, members_server::MembersServer, peers_server::PeersServer,
        },
    },
};

/// Connections that may wait for being served.
const READY: usize = 256;

/// Silence after which a connection is asked whether anybody is there. Who holds it asks earlier, or
/// calls; this is for what has vanished, and hosts that have are noticed by their heartbeats.
const QUIET: Duration = Duration::from_secs(20);

/// The task that serves the port until the manager ends.
pub(crate) fn serve(
    manager: Arc<Manager>,
    listener: TcpListener,
) -> impl Future<Output = ()> + Send + 'static {
    let identity = manager.identity();
    let join = JoinServer::new(join::Newcomers(Arc::clone(&manager)));
    let members = MembersServer::new(members::Members(Arc::clone(&manager)))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let peers = PeersServer::new(peers::Peers(Arc::clone(&manager)))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    async move {
        let (ready, incoming) = mpsc::channel(READY);
        let ending = manager.ending().clone();
        let stop = ending.clone();
        let asked = Arc::clone(&manager);
        let at_once = move |from| {
            let tables = asked.store().view();
            tables.managers().any(|(_, other)| other.ip() == from)
        };
        let within = move || told::spread(&manager.store().view());
        let accepting = async move {
            let accepting = handshakes::accept(listener, identity, ready, at_once, within);
            stop.run_until_cancelled(accepting).await;
            std::future::pending::<()>().await;
        };
        let serving = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(QUIET))
            .add_service(join)
            .add_service(members)
            .add_service(peers)
            // Connections end with the manager: another may follow at the same port, in the same
            // process.
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                ending.cancelled_owned(),
            );
        tokio::select! {
            () = accepting => {}
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "the manager's port is no longer served");
            },
        }
    }
}

/// The part of a trace that a call asks for; no span where it says of none.
fn part_of<T>(request: &Request<T>, method: &str) -> Span {
    let said = request.metadata().get(TRACE);
    let above = said.and_then(|said| said.to_str().ok()?.parse().ok());
    if above.is_none() {
        return Span::none();
    }
    let part = trace::request!("rpc", otel.name = method, otel.kind = "server");
    trace::below(&part, above);
    part
}

fn address_of<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Caller>()?.from
}

/// Who the other end's certificate says it is.
fn certificate<T>(request: &Request<T>) -> Result<Member, Status> {
    let caller = request.extensions().get::<Caller>();
    let member = caller.and_then(|caller| caller.member.as_deref());
    let member = member.ok_or_else(|| {
        Status::unauthenticated("this call needs a certificate of the cluster; join it first")
    })?;
    member.clone().map_err(Status::unauthenticated)
}

/// Who calls: a certificate of this cluster whose node still exists. A node that was demoted is
/// a worker at once, whatever its certificate still says.
fn caller<T>(manager: &Manager, request: &Request<T>) -> Result<Member, Status> {
    let mut member = certificate(request)?;
    let view = manager.store().view();
    let removed = view
        .cluster()
        .is_some_and(|record| record.removed.contains_key(&member.node));
    match view.node(&member.node) {
        Some(node) => {
            if node.spec.role == Role::Worker {
                member.role = Role::Worker;
            }
            Ok(member)
        }
        None if removed || manager.term().is_some() => Err(Status::permission_denied(
            "this node was removed from the cluster; leave it and join again",
        )),
        None => Err(Status::unavailable(
            "this manager has not heard of the node yet; try again in a moment",
        )),
    }
}
