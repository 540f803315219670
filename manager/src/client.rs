//! A member's, or a newcomer's, way to a manager: one connection, typed calls, every one with a
//! deadline.
//!
//! A connection that broke stays broken: tonic would reconnect in a tight loop when a manager
//! refuses the certificate (TLS 1.3 tells the client only at its first read), so the connector
//! works once and whoever owns the [`Connection`] decides when to make another.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use hyper_util::rt::TokioIo;
use model::{
    Generation, Id, Refusal,
    control::{Answer, Verb},
    log::LogItem,
    node::NodeDescription,
};
use rustls::{ClientConfig, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    raft::{RaftCall, RaftSaid},
    tls::MANAGER_NAME,
    wire::{
        Acknowledge, Beat, BeatReply, ForwardReply, IssueReply, IssueRequest, LogOpening, LogPush,
        MESSAGE_LIMIT, ManagerAsk, Payload, ReadLogs, Register, Reply, RootReply, SessionMessage,
        TRACE, pack,
        proto::{
            join_client::JoinClient, members_client::MembersClient, peers_client::PeersClient,
        },
        unpack,
    },
};

/// Limit for the connection and for calls that do not wait for others.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Limit for a TCP connection by itself.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Limit for the way to another manager's port.
pub const REACH_LIMIT: Duration = Duration::from_secs(2);
/// Limit for a verb; attaching may wait for other hosts and for resting addresses.
pub const VERB_LIMIT: Duration = Duration::from_secs(30);

/// Why a manager could not be asked. What it answers is no such error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    #[error("manager {address} cannot be reached: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    /// It may have got the call, and even carried it out; where the connection was still being
    /// opened, it has taken that and no more.
    #[error("manager {address} has not answered within {} s", limit.as_secs_f32())]
    Late {
        address: SocketAddr,
        limit: Duration,
    },
    #[error("manager {address} refused this node: {reason}")]
    Refused { address: SocketAddr, reason: String },
}

/// One connection to one manager.
#[derive(Clone)]
pub struct Connection {
    address: SocketAddr,
    join: JoinClient<Channel>,
    members: MembersClient<Channel>,
    peers: PeersClient<Channel>,
}

impl Connection {
    /// Connects and finishes the handshake.
    pub async fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Self, ClientError> {
        Self::open_within(address, tls, CALL_LIMIT).await
    }

    /// [`Self::open`] with a limit of one's own.
    pub async fn open_within(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        Self::connect(address, tls, limit, true).await
    }

    /// [`Self::open`] for who calls every moment: silence is not asked whether anybody is there.
    pub async fn open_busy(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, ClientError> {
        Self::connect(address, tls, CALL_LIMIT, false).await
    }

    async fn connect(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        limit: Duration,
        asks: bool,
    ) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { address, reason };
        let mut endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| unreachable(error.to_string()))?;
        if asks {
            endpoint = endpoint
                .http2_keep_alive_interval(Duration::from_secs(3))
                .keep_alive_timeout(Duration::from_secs(3))
                .keep_alive_while_idle(true);
        }
        let (used, there) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let arrived = Arc::clone(&there);
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, used, there) = (Arc::clone(&tls), Arc::clone(&used), Arc::clone(&there));
            async move {
                if used.swap(true, Ordering::Relaxed) {
                    return Err(std::io::Error::other("the connection was lost"));
                }
                let connecting = TcpStream::connect(address);
                let tcp = tokio::time::timeout(CONNECT_LIMIT, connecting).await??;
                there.store(true, Ordering::Relaxed);
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(MANAGER_NAME).expect("a valid DNS name");
                let stream = TlsConnector::from(tls).connect(name, tcp).await?;
                Ok(TokioIo::new(stream))
            }
        });
        let connecting = endpoint.connect_with_connector(connector);
        let channel = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| {
                if arrived.load(Ordering::Relaxed) {
                    return ClientError::Late { address, limit };
                }
                unreachable(format!("no answer within {} s", limit.as_secs()))
            })?
            .map_err(|error| unreachable(root_cause(&error)))?;
        Ok(Self {
            address,
            join: JoinClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            members: MembersClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            peers: PeersClient::new(channel)
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn root(&self) -> Result<Reply<RootReply>, ClientError> {
        let mut client = self.join.clone();
        self.ask(CALL_LIMIT, &(), async |payload| client.root(payload).await)
            .await
    }

    pub async fn issue(&self, request: &IssueRequest) -> Result<Reply<IssueReply>, ClientError> {
        let mut client = self.join.clone();
        self.ask(CALL_LIMIT, request, async |payload| {
            client.issue(payload).await
        })
        .await
    }

    pub async fn call(&self, verb: &Verb) -> Result<Reply<Answer>, ClientError> {
        let mut client = self.members.clone();
        self.ask(VERB_LIMIT, verb, async |payload| {
            client.call(placed(payload)).await
        })
        .await
    }

    /// Opens a session; its messages come until the connection breaks.
    pub async fn session(&self, register: &Register) -> Result<SessionStream, ClientError> {
        let mut client = self.members.clone();
        let payload = pack(register).map_err(|status| self.failed(&status))?;
        let opening = client.session(payload);
        let stream = tokio::time::timeout(CALL_LIMIT, opening)
            .await
            .map_err(|_| self.too_late(CALL_LIMIT))?
            .map_err(|status| self.failed(&status))?;
        Ok(SessionStream {
            connection: self.clone(),
            stream: stream.into_inner(),
        })
    }

    pub async fn describe(&self, description: &NodeDescription) -> Result<Reply<()>, ClientError> {
        let mut client = self.members.clone();
        self.ask(CALL_LIMIT, description, async |payload| {
            client.describe(payload).await
        })
        .await
    }

    pub async fn beat(&self, session: &Id) -> Result<Reply<BeatReply>, ClientError> {
        let mut client = self.members.clone();
        let beat = Beat {
            session: session.clone(),
        };
        self.ask(CALL_LIMIT, &beat, async |payload| {
            client.beat(payload).await
        })
        .await
    }

    pub async fn acknowledge(
        &self,
        session: &Id,
        generation: Generation,
    ) -> Result<Reply<()>, ClientError> {
        let mut client = self.members.clone();
        let acknowledge = Acknowledge {
            session: session.clone(),
            generation,
        };
        self.ask(CALL_LIMIT, &acknowledge, async |payload| {
            client.acknowledge(payload).await
        })
        .await
    }

    pub async fn leave(&self) -> Result<Reply<()>, ClientError> {
        let mut client = self.members.clone();
        self.ask(CALL_LIMIT, &(), async |payload| client.leave(payload).await)
            .await
    }

    /// One manager to another, for consensus. An inner error is a sentence for the log.
    pub async fn raft(
        &self,
        call: &RaftCall,
        limit: Duration,
    ) -> Result<Result<RaftSaid, String>, ClientError> {
        let mut client = self.peers.clone();
        let payload = pack(call).map_err(|status| self.failed(&status))?;
        let answer = tokio::time::timeout(limit, client.raft(payload))
            .await
            .map_err(|_| self.too_late(limit))?
            .map_err(|status| self.failed(&status))?;
        unpack(answer.get_ref()).map_err(|status| self.failed(&status))
    }

    /// One manager to the leader, on behalf of whoever asked it.
    pub async fn forward(
        &self,
        ask: &ManagerAsk,
        limit: Duration,
    ) -> Result<ForwardReply, ClientError> {
        let mut client = self.peers.clone();
        let payload = pack(ask).map_err(|status| self.failed(&status))?;
        let answer = tokio::time::timeout(limit, client.forward(placed(payload)))
            .await
            .map_err(|_| self.too_late(limit))?
            .map_err(|status| self.failed(&status))?;
        unpack(answer.get_ref()).map_err(|status| self.failed(&status))
    }

    /// Reads logs through the leader; the stream ends when all is said, or the connection does.
    pub async fn read_logs(
        &self,
        ask: &ReadLogs,
    ) -> Result<BoxStream<'static, LogItem>, ClientError> {
        let mut client = self.peers.clone();
        let payload = pack(ask).map_err(|status| self.failed(&status))?;
        let opened = tokio::time::timeout(CALL_LIMIT, client.read_logs(payload))
            .await
            .map_err(|_| self.too_late(CALL_LIMIT))?
            .map_err(|status| self.failed(&status))?;
        let items = opened
            .into_inner()
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| {
                std::future::ready(message.ok().and_then(|payload| unpack(&payload).ok()))
            });
        Ok(items.boxed())
    }

    /// Pushes what a manager asked for; returns when all is said, or nobody reads any more.
    /// Without a deadline: whoever follows logs does so for as long as it likes. The stream
    /// takes its share of the connection's flow control, so it has a connection to itself.
    pub async fn push_logs(
        &self,
        opening: &LogOpening,
        mut pushes: BoxStream<'static, LogPush>,
    ) -> Result<(), ClientError> {
        let first = pack(opening).map_err(|status| self.failed(&status))?;
        let (sender, receiver) = mpsc::channel(1);
        let pump = async move {
            let mut next = Some(first);
            while let Some(payload) = next.take() {
                if sender.send(payload).await.is_err() {
                    return;
                }
                let push = pushes.next().await;
                next = push.and_then(|push| pack(&push).ok());
            }
        };
        let mut client = self.members.clone();
        let mut pump = std::pin::pin!(pump);
        let mut answer = std::pin::pin!(client.logs(ReceiverStream::new(receiver)));
        let answered = tokio::select! {
            answered = &mut answer => answered,
            () = &mut pump => answer.await,
        };
        answered.map(drop).map_err(|status| self.failed(&status))
    }

    async fn ask<Q: Serialize, T: DeserializeOwned>(
        &self,
        limit: Duration,
        question: &Q,
        call: impl AsyncFnOnce(Payload) -> Result<tonic::Response<Payload>, Status>,
    ) -> Result<Reply<T>, ClientError> {
        let payload = pack(question).map_err(|status| self.failed(&status))?;
        let answer = tokio::time::timeout(limit, call(payload))
            .await
            .map_err(|_| self.too_late(limit))?
            .map_err(|status| self.failed(&status))?;
        unpack(answer.get_ref()).map_err(|status| self.failed(&status))
    }

    fn failed(&self, status: &Status) -> ClientError {
        let (address, reason) = (self.address, status.message().to_owned());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
                ClientError::Refused { address, reason }
            }
            _ => ClientError::Unreachable {
                address,
                reason: root_cause(status),
            },
        }
    }

    fn too_late(&self, limit: Duration) -> ClientError {
        ClientError::Late {
            address: self.address,
            limit,
        }
    }
}

/// A call that says of which trace it is a part.
fn placed(payload: Payload) -> tonic::Request<Payload> {
    let mut request = tonic::Request::new(payload);
    let place = trace::present().and_then(|trace| trace.to_string().parse().ok());
    if let Some(place) = place {
        request.metadata_mut().insert(TRACE, place);
    }
    request
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Refusal::unavailable(error.to_string())
    }
}

/// See [`Connection::session`].
pub struct SessionStream {
    connection: Connection,
    stream: Streaming<Payload>,
}

impl SessionStream {
    /// The next message; an error also when the manager ends the session.
    pub async fn next(&mut self) -> Result<SessionMessage, ClientError> {
        let message = self.stream.message().await;
        let payload = message
            .map_err(|status| self.connection.failed(&status))?
            .ok_or_else(|| ClientError::Unreachable {
                address: self.connection.address,
                reason: "it ended the session".to_owned(),
            })?;
        unpack(&payload).map_err(|status| self.connection.failed(&status))
    }
}

/// The innermost reason: transport errors wrap the interesting one several times.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    if text.is_empty() {
        error.to_string()
    } else {
        text
    }
}
