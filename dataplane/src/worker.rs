//! The thread that owns the kernel's sockets: it carries out orders, hears what others change and
//! puts it right.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        mpsc::{self, Receiver, TryRecvError},
    },
    time::{Duration, Instant, SystemTime},
};

use ipnetwork::IpNetwork;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tokio::sync::{oneshot, watch};

use crate::{
    balance,
    desired::{Change, Desired},
    ingress,
    kernel::Linux,
    orders::{Asked, Mailbox, Order},
    parts::{self, Parts},
    plan::{Plan, Step, plan},
    report::{Counters, Failure, Report, Standing, Status},
    rows::{Rows, Touched},
    view::{Observed, Place, tag},
};

/// Others change things in bursts; one look per burst is enough.
const DEBOUNCE: Duration = Duration::from_millis(20);
const FULL_LOOK: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
const DRIFTS_KEPT: usize = 32;
/// Removals that are carried out together at most.
const TOGETHER: usize = 256;

pub struct Worker {
    kernel: Linux,
    orders: Receiver<Asked>,
    bell: Arc<EventFd>,
    publish: watch::Sender<Status>,
    status: Status,
    desired: Desired,
    /// Whether there has been a wish; before it nothing is removed.
    told: bool,
    rows: Rows,
    seen: Observed,
    /// Places where `seen` is out of date by our own deeds.
    dirty: BTreeSet<Place>,
    /// Places where somebody else did something.
    pending: BTreeSet<Place>,
    lost: bool,
    look_at: Option<Instant>,
    full_at: Instant,
    retry_at: Option<Instant>,
    pause: Duration,
    failed: BTreeMap<(String, String), SystemTime>,
}

impl Worker {
    pub fn new(kernel: Linux, publish: watch::Sender<Status>) -> io::Result<(Mailbox, Self)> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, orders) = mpsc::channel();
        let mailbox = Mailbox {
            orders: sender,
            bell: Arc::clone(&bell),
        };
        let worker = Self {
            kernel,
            orders,
            bell,
            publish,
            status: Status::default(),
            desired: Desired::default(),
            told: false,
            rows: Rows::default(),
            seen: Observed::default(),
            dirty: BTreeSet::new(),
            pending: BTreeSet::new(),
            lost: false,
            look_at: None,
            full_at: Instant::now() + FULL_LOOK,
            retry_at: None,
            pause: FIRST_RETRY,
            failed: BTreeMap::new(),
        };
        Ok((mailbox, worker))
    }

    /// Until [`Order::Stop`] or the end of the mailbox.
    pub fn run(mut self) {
        loop {
            self.wait();
            self.kernel.expire_ports();
            // Events first: an order's own noise is drained with the order.
            self.hear();
            let mut next = None;
            loop {
                let Asked { order, within } =
                    match next.take().map_or_else(|| self.orders.try_recv(), Ok) {
                        Ok(asked) => asked,
                        Err(TryRecvError::Disconnected) => return,
                        Err(TryRecvError::Empty) => break,
                    };
                let _part = within.in_scope(|| trace::part!("dataplane")).entered();
                match order {
                    Order::Stop => return,
                    Order::Change(changes, answer) if only_removes(&changes) => {
                        next = self.remove_together(changes, answer);
                    }
                    order => self.obey(order),
                }
            }
            if self.told {
                self.when_due();
            }
        }
    }

    fn wait(&self) {
        let kept = self.kernel.ports_due();
        let deadlines = [self.look_at, self.retry_at, Some(self.full_at), kept];
        let next = deadlines.into_iter().flatten().min();
        let now = Instant::now();
        let left = next.map_or(FULL_LOOK, |at| at.saturating_duration_since(now));
        // Rounded up, so as not to wake just before the time.
        let timeout = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut sockets = vec![PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        let events = self.kernel.event_sockets();
        sockets.extend(events.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if let Err(error) = poll(&mut sockets, PollTimeout::from(timeout))
            && error != nix::errno::Errno::EINTR
        {
            tracing::error!("cannot wait for the kernel's events: {error}");
            std::thread::sleep(DEBOUNCE);
        }
        // Empty is an error of reading, too, and no matter.
        let _ = self.bell.read();
    }

    fn hear(&mut self) {
        let lost = self.kernel.hear(&mut self.pending);
        if self.kernel.reap() {
            self.pending.insert(Place::Host);
        }
        self.lost |= lost;
        if lost || !self.pending.is_empty() {
            self.look_at.get_or_insert(Instant::now() + DEBOUNCE);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Replace(desired, answer) => {
                self.desired = *desired;
                self.told = true;
                self.rows = Rows::new(&self.desired);
                for sandbox in self.desired.sandboxes.values() {
                    self.kernel.remember(&sandbox.netns);
                }
                self.pause = FIRST_RETRY;
                let failures = self.pass_all(false);
                self.answer(answer, failures);
            }
            Order::Change(changes, answer) => {
                let failures = self.change(changes);
                self.answer(answer, failures);
            }
            Order::Observe(answer) => {
                let _ = answer.send(self.kernel.observe());
            }
            Order::Flows(id, answer) => {
                let _ = answer.send(self.flows(&id));
            }
            Order::Probe(answer) => {
                let _ = answer.send(self.kernel.probe());
            }
            Order::KeepPorts(ports, time, answer) => {
                let _ = answer.send(self.kernel.keep_ports(&ports, time));
            }
            Order::ReleasePorts(ports) => self.kernel.release_ports(&ports),
            Order::Addresses(interface, answer) => {
                let _ = answer.send(self.addresses(&interface));
            }
            Order::Counters(answer) => {
                let _ = answer.send(self.counters());
            }
            Order::Stop => {}
        }
    }

    fn counters(&mut self) -> io::Result<Counters> {
        let mut counters = self.kernel.counters()?;
        for sandbox in self.desired.sandboxes.values() {
            let publishing = ingress::rules::publishing(&self.desired, sandbox);
            let interfaces = sandbox.interfaces.iter().filter(|one| {
                let names = publishing.as_ref();
                names.is_some_and(|names| names.contains(&one.name))
            });
            let mut addresses = interfaces.flat_map(|one| &one.addresses).peekable();
            if addresses.peek().is_none() {
                continue;
            }
            // A sandbox that has just gone has counted nothing that anyone asks for.
            let crossed = self.kernel.crossed(&sandbox.netns).unwrap_or_default();
            for address in addresses {
                counters.entry(address.ip()).or_default().crossed = crossed;
            }
        }
        Ok(counters)
    }

    fn answer(&mut self, answer: oneshot::Sender<Report>, failures: Vec<Failure>) {
        self.status.requests += 1;
        self.publish();
        // The asker may have left; the work stays done.
        let _ = answer.send(Report { failures });
    }

    /// Carries out a removal with those that wait behind it: many containers that end at once
    /// cost little more than one. Answers the order behind them.
    fn remove_together(
        &mut self,
        mut removals: Vec<Change>,
        asker: oneshot::Sender<Report>,
    ) -> Option<Asked> {
        let (mut askers, mut next) = (vec![asker], None);
        while next.is_none()
            && askers.len() < TOGETHER
            && let Ok(asked) = self.orders.try_recv()
        {
            match asked.order {
                Order::Change(more, asker) if only_removes(&more) => {
                    removals.extend(more);
                    askers.push(asker);
                }
                order => next = Some(Asked { order, ..asked }),
            }
        }
        let failures = self.change(removals);
        for asker in askers {
            self.answer(asker, failures.clone());
        }
        next
    }

    fn change(&mut self, changes: Vec<Change>) -> Vec<Failure> {
        let (mut parts, mut touched) = (Parts::default(), Touched::default());
        let mut vips = balance::Touched::default();
        let published_over = ingress::networks(&self.desired);
        let published_over = published_over.into_iter().map(str::to_owned).collect();
        for change in changes {
            parts.add(&self.desired, &change);
            match &change {
                Change::SetRemote(id, remote) => {
                    self.release(id, &mut touched);
                    self.rows.add(id, remote);
                    touched.add(remote);
                }
                Change::RemoveRemote(id) => self.release(id, &mut touched),
                Change::SetSandbox(_, sandbox) => self.kernel.remember(&sandbox.netns),
                Change::SetVip(id, _) | Change::RemoveVip(id) => vips.add(&self.desired, id),
                Change::SetUnderlay(_)
                | Change::SetNetwork(..)
                | Change::RemoveNetwork(_)
                | Change::RemoveSandbox(_)
                | Change::SetPublished(..)
                | Change::RemovePublished(_) => {}
            }
            self.desired.apply(change);
        }
        if parts.all {
            return self.pass_all(false);
        }
        parts.cross(&published_over, &self.desired);
        let mut parts = parts.widen(&self.desired);
        let balancing = vips.steps(&self.desired, &self.seen.view, &mut parts.sandboxes);
        let looks = parts != Parts::default();
        if looks {
            self.add_heard(&mut parts);
        }
        let rows = self.rows.steps(&self.desired, &touched, &parts.networks);
        // Who is chosen, by a port or a virtual IP, can be reached, and nobody is chosen who cannot
        // be reached any more.
        let comes = |step: &Step| matches!(step, Step::SetEntries { .. });
        let (come, leave): (Vec<Step>, Vec<Step>) = rows.into_iter().partition(comes);
        let heard = std::mem::take(&mut self.dirty);
        let mut failures = self.apply(&come);
        let noise = std::mem::replace(&mut self.dirty, heard);
        if looks {
            failures.extend(self.pass(&mut parts, false));
        }
        self.dirty.extend(noise);
        failures.extend(self.apply(&[balancing, leave].concat()));
        self.note_failures(&failures, false);
        failures
    }

    fn flows(&mut self, id: &str) -> io::Result<u64> {
        let Some(sandbox) = self.desired.sandboxes.get(id) else {
            let sentence = "there is no sandbox of this id";
            return Err(io::Error::new(io::ErrorKind::NotFound, sentence));
        };
        let interfaces = sandbox.interfaces.iter();
        let own = interfaces.flat_map(|interface| interface.addresses.iter().map(IpNetwork::ip));
        let (netns, own) = (sandbox.netns.clone(), own.collect());
        self.kernel.flows(&netns, &own)
    }

    fn addresses(&mut self, interface: &str) -> Vec<IpAddr> {
        if !self.told {
            // Nothing has been looked at yet; what cannot be is tried again with the first wish.
            let _ = self.kernel.look(&Place::Host, &mut self.seen);
        }
        let interfaces = &self.seen.facts.interfaces;
        let own = interfaces.get(interface).into_iter().flatten();
        own.copied().collect()
    }

    fn release(&mut self, id: &str, touched: &mut Touched) {
        if let Some(before) = self.desired.remotes.get(id) {
            self.rows.remove(id, before);
            touched.add(before);
        }
    }

    fn when_due(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(Some(self.full_at)) || due(self.retry_at) {
            self.pass_all(true);
        } else if due(self.look_at) {
            self.look_at = None;
            let pending = std::mem::take(&mut self.pending);
            let mut parts = Parts::at(&self.desired, &pending);
            if self.lost || parts.all {
                self.pass_all(true);
            } else {
                let failures = self.pass(&mut parts, true);
                self.note_failures(&failures, false);
            }
        } else {
            return;
        }
        self.publish();
    }

    /// Looks at everything and puts everything right.
    fn pass_all(&mut self, drift: bool) -> Vec<Failure> {
        self.full_at = Instant::now() + FULL_LOOK;
        self.look_at = None;
        self.pending.clear();
        self.lost = false;
        let failures = match self.kernel.observe() {
            Ok(observed) => {
                self.seen = observed;
                self.dirty.clear();
                let plan = plan(&self.desired, &self.seen);
                self.carry_out(&plan, drift)
            }
            Err(error) => vec![Failure::blind(&error)],
        };
        self.note_failures(&failures, true);
        failures
    }

    /// Looks at a few places and puts right what hangs on them.
    fn pass(&mut self, parts: &mut Parts, drift: bool) -> Vec<Failure> {
        self.add_heard(parts);
        let mut places = parts.places(&self.desired);
        places.append(&mut self.dirty);
        let before = self.seen.facts.clone();
        let mut looked = self.look(&places);
        if looked.is_ok() {
            looked = self.look(&parts.doubt(&self.desired, &self.seen.view));
        }
        if let Err(error) = looked {
            self.dirty = places;
            return vec![Failure::blind(&error)];
        }
        let plan = if self.seen.facts == before {
            parts::diff(&self.desired, parts, &self.seen)
        } else {
            // Every MTU hangs on the host's devices, and so do ports of an interface.
            plan(&self.desired, &self.seen)
        };
        // That the host is another one is nobody's meddling.
        self.carry_out(&plan, drift && self.seen.facts == before)
    }

    /// What others did among our own deeds was heard with their noise.
    fn add_heard(&self, parts: &mut Parts) {
        let heard = Parts::at(&self.desired, &self.dirty);
        parts.networks.extend(heard.networks);
    }

    fn look<'a>(&mut self, places: impl IntoIterator<Item = &'a Place>) -> io::Result<()> {
        let mut places = places.into_iter();
        places.try_for_each(|at| self.kernel.look(at, &mut self.seen))
    }

    fn carry_out(&mut self, plan: &Plan, drift: bool) -> Vec<Failure> {
        for reason in &plan.reasons {
            if drift && self.failed.is_empty() {
                tracing::warn!("drift: {reason}");
                self.status.drifts += 1;
                self.status.drift.push(reason.clone());
            } else {
                tracing::debug!("{reason}");
            }
        }
        let extra = self.status.drift.len().saturating_sub(DRIFTS_KEPT);
        self.status.drift.drain(..extra);
        self.apply(&plan.steps)
    }

    fn apply(&mut self, steps: &[Step]) -> Vec<Failure> {
        if steps.is_empty() {
            return Vec::new();
        }
        let failures = self.kernel.apply(steps);
        for step in steps {
            // Steps whose effect is known without a look.
            match step {
                Step::SetBalance { sandbox, change } if failures.is_empty() => {
                    if let Some(seen) = self.seen.view.sandboxes.get_mut(sandbox) {
                        seen.balance.get_or_insert_default().apply(change);
                        continue;
                    }
                }
                Step::SetPorts(change) if failures.is_empty() => {
                    if let Some(seen) = &mut self.seen.view.ingress {
                        change.apply(seen);
                        continue;
                    }
                }
                Step::HoldPort(_) | Step::FreePort(_) => {
                    self.seen.view.ports = self.kernel.published_ports();
                    if failures.is_empty() {
                        continue;
                    }
                }
                Step::CutPublished { .. } => continue,
                _ => {}
            }
            self.dirty.insert(self.kernel.touches(step));
            if let Step::MakePair(pair) = step {
                self.dirty.insert(Place::Sandbox(pair.sandbox.clone()));
            }
        }
        // Our own noise, which the next look takes in with everything else.
        if self.kernel.hear(&mut self.dirty) {
            self.lost = true;
            self.look_at.get_or_insert(Instant::now() + DEBOUNCE);
        }
        failures.into_iter().map(|f| self.named(f)).collect()
    }

    /// With the id that the asker knows in place of the tag or the path.
    fn named(&self, mut failure: Failure) -> Failure {
        let networks = self.desired.networks.keys();
        let mut by_tag = networks.filter(|id| tag(id) == failure.scope);
        let mut by_path = self
            .desired
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| sandbox.netns.as_os_str() == failure.scope.as_str())
            .map(|(id, _)| id);
        if let Some(id) = by_tag.next().or_else(|| by_path.next()) {
            failure.scope.clone_from(id);
        }
        failure
    }

    fn note_failures(&mut self, failures: &[Failure], all: bool) {
        let key = |failure: &Failure| (failure.scope.clone(), failure.sentence.clone());
        if all {
            let standing: BTreeSet<_> = failures.iter().map(key).collect();
            self.failed.retain(|failure, _| standing.contains(failure));
        }
        for failure in failures {
            self.failed.entry(key(failure)).or_insert_with(|| {
                tracing::warn!(scope = failure.scope, "{failure}");
                SystemTime::now()
            });
        }
        if self.failed.is_empty() {
            self.retry_at = None;
            self.pause = FIRST_RETRY;
        } else if all || self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LAST_RETRY);
        }
    }

    fn publish(&mut self) {
        let standing = self
            .failed
            .iter()
            .map(|((scope, sentence), since)| Standing {
                failure: Failure {
                    scope: scope.clone(),
                    sentence: sentence.clone(),
                },
                since: *since,
            });
        self.status.failed = standing.collect();
        self.status.unpublished = ingress::unpublished(&self.desired, &self.seen.facts);
        self.publish.send_replace(self.status.clone());
    }
}

/// Whether it takes containers away and nothing else: nobody waits for such a change to succeed,
/// so one's failure is not taken for another's.
fn only_removes(changes: &[Change]) -> bool {
    changes.iter().all(|change| {
        matches!(
            change,
            Change::RemoveSandbox(_) | Change::RemovePublished(_)
        )
    })
}
