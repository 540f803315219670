//! The handle of the dataplane: requests go to one thread that owns the kernel's sockets.

use std::{net::IpAddr, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{oneshot, watch};

use crate::{
    desired::{Change, Desired, HostPort},
    dns::{DnsConfig, DnsServer},
    kernel::{Linux, place::is_namespace},
    orders::{Mailbox, Order},
    report::{Counters, Error, Report, Status},
    view::{self, Observed},
    worker::Worker,
};

pub struct Config {
    /// Volatile folder of the daemon; namespaces of overlay networks are bound in `netns/`.
    pub run_dir: PathBuf,
    pub dns: DnsConfig,
}

/// The networks of this host. Dropping it, like [`Self::shutdown`], leaves the kernel standing.
pub struct Dataplane {
    mailbox: Mailbox,
    status: watch::Receiver<Status>,
    thread: Option<JoinHandle<()>>,
    dns: Arc<DnsServer>,
}

impl Dataplane {
    /// Opens the sockets and looks at the kernel; changes nothing before the first wish.
    /// Call it inside a tokio runtime, on a thread in the host's network namespace.
    pub fn start(config: Config) -> Result<Self, Error> {
        let kernel = Linux::open(&config.run_dir)?;
        let dns = Arc::new(DnsServer::start(config.dns)?);
        let (publish, status) = watch::channel(Status::default());
        let (mailbox, worker) = Worker::new(kernel, publish).map_err(Error::Host)?;
        let thread = std::thread::Builder::new()
            .name("dataplane".into())
            .spawn(move || worker.run())
            .map_err(Error::Thread)?;
        Ok(Self {
            mailbox,
            status,
            thread: Some(thread),
            dns,
        })
    }

    /// Makes the kernel follow `desired` and nothing else; resolves when it does.
    pub async fn replace(&self, desired: Desired) -> Report {
        self.dns.replace(&desired);
        let sandboxes: Vec<_> = with_dns(desired.sandboxes.iter());
        let mut report = self
            .ask(|answer| Order::Replace(Box::new(desired), answer))
            .await;
        self.open_dns(sandboxes, &mut report).await;
        report
    }

    /// Carries out a difference without looking at the rest. It is on its way when this returns,
    /// after those of earlier calls; removals that wait together are carried out together.
    pub fn change(&self, changes: Vec<Change>) -> impl Future<Output = Report> + Send + '_ {
        self.dns.apply(&changes);
        let mut opened = Vec::new();
        for change in &changes {
            match change {
                Change::SetSandbox(id, sandbox) => {
                    if sandbox.dns.is_some() {
                        opened.push((id.clone(), sandbox.netns.clone()));
                    } else {
                        self.dns.close(id);
                    }
                }
                Change::RemoveSandbox(id) => self.dns.close(id),
                Change::SetUnderlay(_)
                | Change::SetNetwork(..)
                | Change::RemoveNetwork(_)
                | Change::SetRemote(..)
                | Change::RemoveRemote(_)
                | Change::SetVip(..)
                | Change::RemoveVip(_)
                | Change::SetPublished(..)
                | Change::RemovePublished(_) => {}
            }
        }
        let answer = self.order(|answer| Order::Change(changes, answer));
        async move {
            let mut report = answer.await.unwrap_or_else(|_| down());
            self.open_dns(opened, &mut report).await;
            report
        }
    }

    /// Newest status; a slow reader misses nothing but what is past.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What is in the kernel and ours.
    pub async fn observe(&self) -> Result<Observed, Error> {
        self.ask_for(Order::Observe)
            .await
            .ok_or(Error::Down)?
            .map_err(Error::Observe)
    }

    /// Connections into the sandbox of this id that something may still happen on: of TCP and SCTP
    /// the established ones, of UDP those that had a packet in the last two seconds. They are
    /// counted in the sandbox's own connection tracking, which is on where the wish says that
    /// they are counted, and in reach of a virtual IP.
    pub async fn flows(&self, sandbox: &str) -> Result<u64, Error> {
        let id = sandbox.to_owned();
        self.ask_for(|answer| Order::Flows(id, answer))
            .await
            .ok_or(Error::Down)?
            .map_err(|source| Error::Flows {
                sandbox: sandbox.to_owned(),
                source,
            })
    }

    /// Keeps ports from other programs for some time, all or none, so that what is about to be
    /// published can be; those that are published stay. Answers which cannot be had, and why.
    pub async fn keep_ports(
        &self,
        ports: Vec<HostPort>,
        time: Duration,
    ) -> Result<(), Vec<(HostPort, String)>> {
        let first = ports.first().copied();
        let kept = self
            .ask_for(|answer| Order::KeepPorts(ports, time, answer))
            .await;
        // Whoever is down keeps nothing and refuses for one.
        kept.unwrap_or_else(|| match first {
            Some(port) => Err(vec![(port, Error::Down.to_string())]),
            None => Ok(()),
        })
    }

    /// The addresses of an interface of the host, without the link-local ones of IPv6.
    pub async fn addresses(&self, interface: &str) -> Vec<IpAddr> {
        let interface = interface.to_owned();
        let asked = self.ask_for(|answer| Order::Addresses(interface, answer));
        asked.await.unwrap_or_default()
    }

    /// Gives up ports that are only kept.
    pub fn release_ports(&self, ports: Vec<HostPort>) {
        self.mailbox.send(Order::ReleasePorts(ports));
    }

    /// What published ports of this host have counted.
    pub async fn counters(&self) -> Result<Counters, Error> {
        self.ask_for(Order::Counters)
            .await
            .ok_or(Error::Down)?
            .map_err(Error::Counters)
    }

    /// What this host cannot do, and what stands in the way, as sentences; empty when all is well.
    pub async fn probe(&self) -> Vec<String> {
        self.ask_for(Order::Probe)
            .await
            .unwrap_or_else(|| vec![Error::Down.to_string()])
    }

    /// Removes everything of ours from the kernel: the plan against the empty wish.
    pub async fn purge(&self) -> Report {
        self.replace(Desired::default()).await
    }

    /// Ends the threads; the kernel keeps what it has.
    pub async fn shutdown(mut self) {
        self.mailbox.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the dataplane's thread ended by a panic");
            }
        }
        let dns = Arc::clone(&self.dns);
        drop(self);
        if let Some(dns) = Arc::into_inner(dns) {
            dns.shutdown().await;
        }
    }

    async fn open_dns(&self, sandboxes: Vec<(String, PathBuf)>, report: &mut Report) {
        for (id, netns) in sandboxes {
            // A guest's comes later, or has gone; nothing is made in its place.
            if view::is_guest(&netns) && !is_namespace(&netns) {
                continue;
            }
            if let Err(error) = self.dns.open(&id, &netns).await {
                report.failures.push(crate::Failure {
                    scope: id,
                    sentence: error.to_string(),
                });
            }
        }
    }

    async fn ask(&self, order: impl FnOnce(oneshot::Sender<Report>) -> Order) -> Report {
        self.ask_for(order).await.unwrap_or_else(down)
    }

    async fn ask_for<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        self.order(order).await.ok()
    }

    fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> oneshot::Receiver<T> {
        let (answer, wait) = oneshot::channel();
        self.mailbox.send(order(answer));
        wait
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.mailbox.send(Order::Stop);
    }
}

fn down() -> Report {
    Report {
        failures: vec![crate::Failure {
            scope: "host".into(),
            sentence: Error::Down.to_string(),
        }],
    }
}

fn with_dns<'a>(
    sandboxes: impl Iterator<Item = (&'a String, &'a crate::desired::Sandbox)>,
) -> Vec<(String, PathBuf)> {
    sandboxes
        .filter(|(_, sandbox)| sandbox.dns.is_some())
        .map(|(id, sandbox)| (id.clone(), sandbox.netns.clone()))
        .collect()
}
