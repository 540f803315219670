//! Asks the other hosts in turn and answers what they ask: one task, one socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use dataplane::paths::{HEADERS, PathSocket};
use model::NodeId;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::Instant,
};

use super::{
    DEVICE, Measured, Sights, Targets, Total,
    packet::{self, Kind, SMALL},
    window::{Outcome, Size, Window},
};

/// That of the echo protocol (RFC 862); nothing else is in the sandbox.
const PORT: u16 = 7;
/// Between two probes, to whomever: 200 a second at most.
const APART: Duration = Duration::from_millis(5);
/// Before a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between looks whether another namespace is at the socket's place.
const LOOK: Duration = Duration::from_secs(10);
/// Packets that are taken before others have a turn.
const BATCH: usize = 64;
const LARGEST: usize = 65_536;

pub(super) struct Prober {
    targets: watch::Receiver<Targets>,
    sights: Arc<Sights>,
    socket: Option<AsyncFd<PathSocket>>,
    paths: BTreeMap<NodeId, Path>,
    by_address: BTreeMap<Ipv4Addr, NodeId>,
    /// When whose turn is.
    turns: BTreeSet<(Instant, NodeId)>,
    buffer: Vec<u8>,
    /// More packets wait than were taken.
    more: bool,
    /// The trouble that was told last, so that it is told once.
    told: Option<String>,
}

/// The way to one host.
struct Path {
    address: Ipv4Addr,
    window: Window,
    /// The probe that is under way.
    asked: Option<Asked>,
    full_size: u32,
    small: Total,
    full: Total,
}

struct Asked {
    number: u64,
    size: Size,
    at: Instant,
    outcome: Outcome,
}

impl Prober {
    pub(super) fn new(targets: watch::Receiver<Targets>, sights: Arc<Sights>) -> Self {
        Self {
            targets,
            sights,
            socket: None,
            paths: BTreeMap::new(),
            by_address: BTreeMap::new(),
            turns: BTreeSet::new(),
            buffer: vec![0; LARGEST],
            more: false,
            told: None,
        }
    }

    /// Until the daemon ends.
    pub(super) async fn run(mut self) {
        let mut look = Instant::now();
        let mut free = Instant::now();
        loop {
            let turn = self.turns.first().map(|(at, _)| (*at).max(free));
            let waiting = self.targets.borrow().netns.is_some();
            // All arms are cancel-safe: nothing is taken before one of them is chosen.
            tokio::select! {
                biased;
                changed = self.targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.retarget();
                    look = Instant::now();
                }
                () = readable(self.socket.as_ref()) => self.hear(),
                () = tokio::task::yield_now(), if self.more => self.hear(),
                () = at(turn), if self.socket.is_some() => {
                    self.hear();
                    self.ask_next();
                    free = Instant::now() + APART;
                }
                () = tokio::time::sleep_until(look), if waiting => {
                    self.look().await;
                    let pause = if self.socket.is_some() { LOOK } else { AGAIN };
                    look = Instant::now() + pause;
                }
            }
        }
    }

    /// Other hosts, or none any more.
    fn retarget(&mut self) {
        let targets = self.targets.borrow_and_update().clone();
        if targets.netns.is_none() {
            // An open socket keeps the namespace.
            self.socket = None;
        }
        // The other host learns of this one at the same time, and has to make its end.
        let first = Instant::now() + Window::default().pause();
        self.paths
            .retain(|node, path| targets.peers.get(node) == Some(&path.address));
        for (node, address) in &targets.peers {
            if !self.paths.contains_key(node) {
                self.paths.insert(node.clone(), Path::new(*address));
                self.turns.insert((first, node.clone()));
            }
        }
        self.turns.retain(|(_, node)| self.paths.contains_key(node));
        self.by_address = self
            .paths
            .iter()
            .map(|(n, path)| (path.address, n.clone()))
            .collect();
        self.sights.retain(|node| self.paths.contains_key(node));
    }

    /// Makes the socket where there is none in the namespace that is wanted.
    async fn look(&mut self) {
        let Some(netns) = self.targets.borrow().netns.clone() else {
            return;
        };
        if self
            .socket
            .as_ref()
            .is_some_and(|socket| socket.get_ref().is_in(&netns))
        {
            return;
        }
        self.socket = None;
        let made = PathSocket::open(netns, DEVICE, PORT).await;
        // SAFETY: a `PathSocket` has one descriptor, its own, for as long as it lives.
        let register =
            |socket| unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        match made.and_then(|socket| register(socket).map_err(io::Error::from)) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.told = None;
                // Nothing that was sent by another socket is waited for.
                for path in self.paths.values_mut() {
                    path.asked = None;
                }
            }
            Err(error) => self.tell(&error),
        }
    }

    /// Everything that has come: questions are answered, answers noted.
    fn hear(&mut self) {
        self.more = false;
        let Some(socket) = &self.socket else {
            return;
        };
        for _ in 0..BATCH {
            let (length, from) = match socket.get_ref().receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.tell(&error),
            };
            let packet = &mut self.buffer[..length];
            match packet::read(packet) {
                Some((Kind::Question, _)) => {
                    packet::turn(packet);
                    // One that cannot be sent is lost, and the asker counts it.
                    let _ = socket.get_ref().send(from, packet);
                }
                Some((Kind::Answer, number)) => {
                    let known = self.by_address.get(from.ip());
                    if let Some(path) = known.and_then(|node| self.paths.get_mut(node)) {
                        path.note(number, |asked| Outcome::Back(asked.at.elapsed()));
                    }
                }
                None => {}
            }
        }
        self.more = true;
    }

    /// Probes that reached a host whose ovnd does not run just then.
    fn hear_refusals(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        for _ in 0..BATCH {
            let Some((length, to)) = socket.get_ref().refused(&mut self.buffer) else {
                return;
            };
            let number = packet::read(&self.buffer[..length]).map(|(_, number)| number);
            let known = self.by_address.get(to.ip());
            let path = known.and_then(|node| self.paths.get_mut(node));
            if let (Some(number), Some(path)) = (number, path) {
                path.note(number, |_| Outcome::Arrived);
            }
        }
    }

    /// Judges the last probe of the host whose turn it is, and sends it the next one.
    fn ask_next(&mut self) {
        self.hear_refusals();
        let Some((_, node)) = self.turns.pop_first() else {
            return;
        };
        let (Some(path), Some(socket)) = (self.paths.get_mut(&node), &self.socket) else {
            return;
        };
        if let Some(asked) = path.asked.take() {
            path.judge(&asked);
            self.sights.set(path.measured(node.clone()));
        }
        let sent = path.ask(socket.get_ref());
        self.turns
            .insert((Instant::now() + path.window.pause(), node));
        if let Err(error) = sent {
            self.tell(&error);
        }
    }

    fn tell(&mut self, error: &io::Error) {
        let error = error.to_string();
        if self.told.as_ref() != Some(&error) {
            tracing::debug!(error, "the paths to other hosts cannot be measured");
            self.told = Some(error);
        }
    }
}

impl Path {
    fn new(address: Ipv4Addr) -> Self {
        Self {
            address,
            window: Window::default(),
            asked: None,
            full_size: 0,
            small: Total::default(),
            full: Total::default(),
        }
    }

    fn judge(&mut self, asked: &Asked) {
        self.window.note(asked.size, asked.outcome);
        let total = match asked.size {
            Size::Small => &mut self.small,
            Size::Full => &mut self.full,
        };
        total.sent += 1;
        total.lost += u64::from(asked.outcome == Outcome::Lost);
    }

    fn measured(&self, to: NodeId) -> Measured {
        Measured {
            sight: self.window.sight(to, self.full_size),
            small: self.small,
            full: self.full,
        }
    }

    fn ask(&mut self, socket: &PathSocket) -> io::Result<()> {
        let size = self.window.next_size();
        let bytes = match size {
            Size::Small => SMALL,
            Size::Full => {
                self.full_size = socket.mtu()?;
                self.full_size.saturating_sub(HEADERS) as usize
            }
        };
        let number = rand::random();
        let question = packet::question(bytes, number);
        let at = Instant::now();
        let sent = socket.send(SocketAddrV4::new(self.address, PORT), &question);
        self.asked = Some(Asked {
            number,
            size,
            at,
            // Until it is known better, also of one that the kernel did not take.
            outcome: Outcome::Lost,
        });
        sent
    }

    /// The first word on a probe counts; one about an earlier probe comes too late.
    fn note(&mut self, number: u64, outcome: impl FnOnce(&Asked) -> Outcome) {
        if let Some(asked) = &mut self.asked
            && asked.number == number
            && asked.outcome == Outcome::Lost
        {
            asked.outcome = outcome(asked);
        }
    }
}

async fn readable(socket: Option<&AsyncFd<PathSocket>>) {
    match socket {
        Some(socket) => match socket.readable().await {
            // What is there is taken at once, as far as a batch goes.
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
