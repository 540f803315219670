//! What the dataplane's thread is asked to do.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use nix::sys::eventfd::EventFd;
use tokio::sync::oneshot;
use trace::Span;

use crate::{
    desired::{Change, Desired, HostPort},
    report::{Counters, Report},
    view::Observed,
};

pub enum Order {
    Replace(Box<Desired>, oneshot::Sender<Report>),
    Change(Vec<Change>, oneshot::Sender<Report>),
    Observe(oneshot::Sender<io::Result<Observed>>),
    /// Connections into the sandbox of this id.
    Flows(String, oneshot::Sender<io::Result<u64>>),
    Probe(oneshot::Sender<Vec<String>>),
    /// Keeps ports for some time.
    KeepPorts(
        Vec<HostPort>,
        Duration,
        oneshot::Sender<Result<(), Vec<(HostPort, String)>>>,
    ),
    ReleasePorts(Vec<HostPort>),
    /// The addresses of this interface.
    Addresses(String, oneshot::Sender<Vec<IpAddr>>),
    /// What published ports have counted.
    Counters(oneshot::Sender<io::Result<Counters>>),
    Stop,
}

/// An order, and what it is a part of.
pub struct Asked {
    pub order: Order,
    pub within: Span,
}

/// Where orders are put; an order to a worker that has ended is dropped with its answer.
pub struct Mailbox {
    pub(crate) orders: Sender<Asked>,
    pub(crate) bell: Arc<EventFd>,
}

impl Mailbox {
    pub fn send(&self, order: Order) {
        let asked = Asked {
            order,
            within: Span::current(),
        };
        if self.orders.send(asked).is_ok()
            && let Err(error) = self.bell.write(1)
        {
            tracing::error!("cannot wake the dataplane's thread: {error}");
        }
    }
}
