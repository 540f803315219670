//! One manager's connections to the others: made when they are needed, kept, made again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use crate::{
    client::{ClientError, Connection, REACH_LIMIT},
    raft::{Carrier, CarryError, Peer, RaftCall, RaftSaid},
    tls::{self, LiveIdentity},
};

/// Calls in a row that may go unanswered before the connection counts as dead.
const UNANSWERED: u32 = 3;

/// The connections by address.
pub struct Lines {
    identity: Arc<LiveIdentity>,
    lines: Mutex<HashMap<SocketAddr, Line>>,
}

type Opening = Shared<BoxFuture<'static, Result<Connection, ClientError>>>;

/// A connection, made or in the making. Making it outlives whoever asked first, because calls
/// of Raft are given up sooner than a handshake may take.
#[derive(Clone)]
struct Line {
    opening: Opening,
    number: u64,
    unanswered: u32,
}

impl Lines {
    pub fn new(identity: Arc<LiveIdentity>) -> Self {
        Self {
            identity,
            lines: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Line>> {
        // Entries are replaced whole; none is left half made by a panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a manager, and its number for [`Self::drop_line`].
    pub async fn reach(&self, address: SocketAddr) -> Result<(Connection, u64), ClientError> {
        let line = {
            let mut lines = self.lock();
            let line = lines.get(&address).cloned();
            line.unwrap_or_else(|| {
                let line = Line {
                    opening: self.open(address),
                    number: rand::random(),
                    unanswered: 0,
                };
                lines.insert(address, line.clone());
                line
            })
        };
        match line.opening.await {
            Ok(connection) => Ok((connection, line.number)),
            Err(error) => {
                self.drop_line(address, line.number);
                Err(error)
            }
        }
    }

    fn open(&self, address: SocketAddr) -> Opening {
        let tls = tls::member(&self.identity);
        let opening = tokio::spawn(async move {
            let tls = tls.map_err(|error| ClientError::Refused {
                address,
                reason: error.to_string(),
            })?;
            Connection::open_within(address, tls, REACH_LIMIT).await
        });
        let opened = opening.map(move |opened| {
            opened.unwrap_or_else(|_| {
                Err(ClientError::Unreachable {
                    address,
                    reason: "this manager ends".to_owned(),
                })
            })
        });
        opened.boxed().shared()
    }

    /// The connection is of no use any more.
    pub fn drop_line(&self, address: SocketAddr, number: u64) {
        let mut lines = self.lock();
        if lines.get(&address).is_some_and(|l| l.number == number) {
            lines.remove(&address);
        }
    }

    fn answered(&self, address: SocketAddr, number: u64, answered: bool) {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(&address).filter(|l| l.number == number) else {
            return;
        };
        line.unanswered = if answered { 0 } else { line.unanswered + 1 };
        if line.unanswered == UNANSWERED {
            lines.remove(&address);
        }
    }
}

impl Carrier for Lines {
    fn carry<'a>(
        &'a self,
        peer: &'a Peer,
        call: RaftCall,
        limit: Duration,
    ) -> BoxFuture<'a, Result<RaftSaid, CarryError>> {
        Box::pin(async move {
            let address = peer.address.ok_or_else(|| {
                CarryError::Unreachable(format!("manager {} has no address", peer.node))
            })?;
            let unreachable = |error: ClientError| CarryError::Unreachable(error.to_string());
            let (connection, number) = self.reach(address).await.map_err(unreachable)?;
            // Whoever calls gives up after `limit` too; a little earlier, this still counts.
            let limit = limit.mul_f64(0.95);
            match connection.raft(&call, limit).await {
                Ok(said) => {
                    self.answered(address, number, true);
                    said.map_err(CarryError::Refused)
                }
                Err(ClientError::Refused { reason, .. }) => Err(CarryError::Refused(reason)),
                Err(error @ ClientError::Late { .. }) => {
                    self.answered(address, number, false);
                    Err(CarryError::Late(error.to_string()))
                }
                Err(error @ ClientError::Unreachable { .. }) => {
                    self.drop_line(address, number);
                    Err(unreachable(error))
                }
            }
        })
    }
}
