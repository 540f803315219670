//! UDP questions of all sandboxes, answered by one thread of its own: a busy daemon does not slow
//! the names, and questions are taken from the kernel and given back in batches.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};

use super::{
    answer::{Outcome, Scratch, Transport, answer},
    forward::Forwarder,
    wire::{MAX_UDP, Rcode, refuse},
    zone::Zone,
};

/// Questions taken from the kernel at a time.
const BATCH: usize = 32;
/// Batches from one sandbox before the others have their turn.
const ROUNDS: usize = 4;
/// The largest question; longer ones are cut and found malformed.
const MAX_QUESTION: usize = 4096;
/// Questions that come closer together than this are waited for without sleeping: waking a
/// sleeping core costs several times what an answer does.
const HURRY: Duration = Duration::from_micros(100);
/// The token of the descriptor that wakes the thread to stop.
const WAKE: u64 = 0;

/// One sandbox's UDP socket.
pub struct UdpListener {
    pub sandbox: Arc<str>,
    pub socket: UdpSocket,
    pub forwarder: Forwarder,
}

/// The thread's handle; dropping it stops the thread.
pub struct UdpServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    stop: AtomicBool,
    zone: Arc<arc_swap::ArcSwap<Zone>>,
    listeners: Mutex<HashMap<u64, Arc<UdpListener>>>,
    next_token: AtomicU64,
}

impl UdpServer {
    pub fn start(zone: Arc<arc_swap::ArcSwap<Zone>>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let shared = Arc::new(Shared {
            epoll,
            wake,
            stop: AtomicBool::new(false),
            zone,
            listeners: Mutex::default(),
            next_token: AtomicU64::new(WAKE + 1),
        });
        let thread = std::thread::Builder::new().name("dns".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve()
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Answers this socket's questions from now on, until [`Self::forget`] with the returned token.
    pub fn watch(&self, listener: UdpListener) -> io::Result<u64> {
        let token = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        let listener = Arc::new(listener);
        self.shared.listeners().insert(token, Arc::clone(&listener));
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        if let Err(error) = self.shared.epoll.add(&listener.socket, event) {
            self.shared.listeners().remove(&token);
            return Err(error.into());
        }
        Ok(token)
    }

    pub fn forget(&self, token: u64) {
        if let Some(listener) = self.shared.listeners().remove(&token) {
            // A keeper's duplicate keeps the socket alive, so closing alone would not end the watch.
            let _ = self.shared.epoll.delete(&listener.socket);
        }
    }

    /// Stops and waits until the last batch is answered.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the name server's thread had panicked");
        }
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<UdpListener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut batch = Batch::new();
        let mut scratch = Scratch::new();
        let mut events = [EpollEvent::empty(); 64];
        let mut last = Instant::now();
        let mut hurried = false;
        loop {
            let ready = match self.wait(&mut events, hurried) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "name server: epoll_wait; no name is answered any more");
                    return;
                }
            };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            for event in &events[..ready] {
                let listener = self.listeners().get(&event.data()).cloned();
                if let Some(listener) = listener {
                    self.answer_waiting(&listener, &mut batch, &mut scratch);
                }
            }
            let now = Instant::now();
            hurried = now - last < HURRY;
            last = now;
        }
    }

    /// Waits for questions; `hurried`, it looks for a moment before it sleeps, and lets others
    /// have the core meanwhile.
    fn wait(&self, events: &mut [EpollEvent], hurried: bool) -> nix::Result<usize> {
        let begun = Instant::now();
        while hurried && begun.elapsed() < HURRY {
            let ready = self.epoll.wait(events, EpollTimeout::ZERO)?;
            if ready > 0 {
                return Ok(ready);
            }
            std::thread::yield_now();
        }
        self.epoll.wait(events, EpollTimeout::NONE)
    }

    fn answer_waiting(
        &self,
        listener: &Arc<UdpListener>,
        batch: &mut Batch,
        scratch: &mut Scratch,
    ) {
        let fd = listener.socket.as_raw_fd();
        for _ in 0..ROUNDS {
            let received = match batch.receive(fd) {
                Ok(received) => received,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        let sandbox = &*listener.sandbox;
                        tracing::warn!(%error, sandbox, "name server: receiving questions");
                    }
                    return;
                }
            };
            let zone = self.zone.load();
            for at in 0..received {
                let (packet, out) = batch.question(at);
                let length = match answer(
                    &zone,
                    &listener.sandbox,
                    packet,
                    Transport::Udp,
                    scratch,
                    out,
                ) {
                    Outcome::Reply(length) => length,
                    Outcome::Ignore => 0,
                    Outcome::Forward(upstreams) => {
                        let packet = packet.to_vec();
                        match batch.peer(at) {
                            Some(peer) => forward(listener, packet, upstreams, peer),
                            None => None,
                        }
                        .and_then(|packet| {
                            let (_, out) = batch.question(at);
                            refuse(&packet, Rcode::ServFail, out)
                        })
                        .unwrap_or(0)
                    }
                };
                if length > 0 {
                    batch.queue(at, length);
                }
            }
            drop(zone);
            batch.send(fd);
            if received < BATCH {
                return;
            }
        }
    }
}

/// Has the question asked of `upstreams`; gives it back when too many are under way.
fn forward(
    listener: &Arc<UdpListener>,
    packet: Vec<u8>,
    upstreams: Arc<[SocketAddr]>,
    peer: SocketAddr,
) -> Option<Vec<u8>> {
    // A question under way does not keep the namespace of a sandbox that ends.
    let weak = Arc::downgrade(listener);
    listener
        .forwarder
        .spawn(packet, upstreams, Transport::Udp, move |reply| {
            if let Some(listener) = weak.upgrade()
                && let Err(error) = listener.socket.send_to(&reply, peer)
            {
                tracing::debug!(%error, sandbox = &*listener.sandbox, "name server: answer lost");
            }
        })
}

/// Buffers for one turn, laid out for recvmmsg(2) and sendmmsg(2).
struct Batch {
    questions: Box<[[u8; MAX_QUESTION]]>,
    answers: Box<[[u8; MAX_UDP]]>,
    lengths: [usize; BATCH],
    peers: [libc::sockaddr_in; BATCH],
    /// Which answers to send and how long they are.
    queued: Vec<(usize, usize)>,
}

impl Batch {
    fn new() -> Self {
        // SAFETY: a sockaddr_in of zeros is a valid value.
        let peer: libc::sockaddr_in = unsafe { MaybeUninit::zeroed().assume_init() };
        Self {
            questions: vec![[0; MAX_QUESTION]; BATCH].into_boxed_slice(),
            answers: vec![[0; MAX_UDP]; BATCH].into_boxed_slice(),
            lengths: [0; BATCH],
            peers: [peer; BATCH],
            queued: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits, without blocking; at least one question or an error.
    fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        // SAFETY: zeroed headers and vectors are valid; every pointer set below is into `self`,
        // which outlives the call and is not touched during it.
        let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        for at in 0..BATCH {
            vectors[at].iov_base = self.questions[at].as_mut_ptr().cast();
            vectors[at].iov_len = MAX_QUESTION;
            address_header(
                &mut headers[at].msg_hdr,
                &mut self.peers[at],
                &mut vectors[at],
            );
        }
        // SAFETY: as above; `headers` has BATCH elements.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        let received = received as usize;
        for (length, header) in self.lengths.iter_mut().zip(&headers[..received]) {
            *length = header.msg_len as usize;
        }
        self.queued.clear();
        Ok(received)
    }

    fn question(&mut self, at: usize) -> (&[u8], &mut [u8]) {
        (
            &self.questions[at][..self.lengths[at]],
            &mut self.answers[at],
        )
    }

    fn peer(&self, at: usize) -> Option<SocketAddr> {
        let peer = &self.peers[at];
        let address = std::net::Ipv4Addr::from(u32::from_be(peer.sin_addr.s_addr));
        (i32::from(peer.sin_family) == libc::AF_INET)
            .then(|| SocketAddr::from((address, u16::from_be(peer.sin_port))))
    }

    fn queue(&mut self, at: usize, length: usize) {
        self.queued.push((at, length));
    }

    /// Sends the queued answers. One that the kernel refuses is lost, as UDP may be; the others
    /// still go out.
    fn send(&mut self, fd: RawFd) {
        // SAFETY: as in `receive`.
        let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        for (slot, &(at, length)) in self.queued.iter().enumerate() {
            vectors[slot].iov_base = self.answers[at].as_mut_ptr().cast();
            vectors[slot].iov_len = length;
            address_header(
                &mut headers[slot].msg_hdr,
                &mut self.peers[at],
                &mut vectors[slot],
            );
        }
        let mut from = 0;
        while from < self.queued.len() {
            // SAFETY: as above; `headers` has BATCH elements, of which the queued are filled.
            let sent = unsafe {
                libc::sendmmsg(
                    fd,
                    headers[from..].as_mut_ptr(),
                    (self.queued.len() - from) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            from += if sent > 0 { sent as usize } else { 1 };
        }
    }
}

fn address_header(
    header: &mut libc::msghdr,
    peer: &mut libc::sockaddr_in,
    vector: &mut libc::iovec,
) {
    header.msg_name = std::ptr::from_mut(peer).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    header.msg_iov = vector;
    header.msg_iovlen = 1;
}
