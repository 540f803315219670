//! A device: our key, our peers, and what becomes of a packet. No socket, and no clock but the
//! library's own.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{
        Packet, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
        rate_limiter::RateLimiter,
    },
    x25519,
};

use super::{
    keys::PublicKey,
    uapi::{PeerSettings, PeerState, Settings},
};

/// How often the library's timers are turned, and how old its clock may be.
pub const TICK: Duration = Duration::from_millis(250);
/// A peer that neither sends nor gets anything for so long has no session any more.
const AWAKE: Duration = Duration::from_secs(600);
/// Between two handshakes that a peer's unknown session makes us begin.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Handshakes a second, beyond which initiators have to show that they are where they say.
const HANDSHAKES: u64 = 200;
/// Of a datagram, and of what it becomes.
pub const ROOM: usize = 1 << 16;
/// The library has 24 bits for a peer.
const INDEXES: u32 = 1 << 24;

/// Where packets go.
pub trait Sink {
    fn network(&mut self, packet: &[u8], to: SocketAddr);
    /// Decrypted, for the host's own network stack.
    fn host(&mut self, packet: &[u8]);
}

struct Own {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    limiter: Arc<RateLimiter>,
}

struct Peer {
    key: PublicKey,
    settings: PeerSettings,
    tunnel: Tunn,
    sent: u64,
    received: u64,
    ticked: Instant,
    active: Instant,
    asked: Option<Instant>,
}

pub struct Device {
    own: Option<Own>,
    /// By the number that the library knows them by.
    peers: HashMap<u32, Peer>,
    by_key: HashMap<PublicKey, u32>,
    by_address: HashMap<IpAddr, u32>,
    by_endpoint: HashMap<IpAddr, u32>,
    next: u32,
    scratch: Box<[u8]>,
}

impl Device {
    pub fn new() -> Self {
        Self {
            own: None,
            peers: HashMap::new(),
            by_key: HashMap::new(),
            by_address: HashMap::new(),
            by_endpoint: HashMap::new(),
            // A process that comes after another takes no session of it for its own.
            next: rand::random::<u32>() % INDEXES,
            scratch: vec![0; ROOM + 64].into_boxed_slice(),
        }
    }

    pub fn public_key(&self) -> Option<PublicKey> {
        let own = self.own.as_ref()?;
        Some(PublicKey(own.public.to_bytes()))
    }

    pub fn peers(&self) -> BTreeMap<PublicKey, PeerState> {
        let state = |peer: &Peer| PeerState {
            settings: peer.settings,
            handshake_age: peer
                .tunnel
                .time_since_last_handshake()
                .map(|age| age.as_secs()),
            sent: peer.sent,
            received: peer.received,
        };
        self.peers
            .values()
            .map(|peer| (peer.key, state(peer)))
            .collect()
    }

    /// A peer that is as before keeps its session; another key of the device ends all of them.
    pub fn set(&mut self, settings: Settings, now: Instant) -> Result<(), String> {
        if let Some(key) = &settings.private_key
            && self.public_key() != Some(key.public())
        {
            let secret = key.secret();
            let public = x25519::PublicKey::from(&secret);
            self.own = Some(Own {
                limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES)),
                secret,
                public,
            });
            let before: Vec<(PublicKey, PeerSettings)> = self
                .peers
                .values()
                .map(|peer| (peer.key, peer.settings))
                .collect();
            for (key, peer) in before {
                self.remove(key);
                self.add(key, peer, now)?;
            }
        }
        for (key, peer) in settings.peers {
            let index = self.by_key.get(&key);
            let held = index.and_then(|index| self.peers.get(index));
            if held.map(|held| held.settings) == peer {
                continue;
            }
            self.remove(key);
            if let Some(peer) = peer {
                self.add(key, peer, now)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: PublicKey) {
        let Some(index) = self.by_key.remove(&key) else {
            return;
        };
        if let Some(peer) = self.peers.remove(&index) {
            // Another peer may have its address by now.
            let places = [
                (&mut self.by_address, peer.settings.address),
                (&mut self.by_endpoint, peer.settings.endpoint.ip()),
            ];
            for (map, address) in places {
                if map.get(&address) == Some(&index) {
                    map.remove(&address);
                }
            }
        }
    }

    fn add(&mut self, key: PublicKey, settings: PeerSettings, now: Instant) -> Result<(), String> {
        let own = self
            .own
            .as_ref()
            .ok_or("a device needs a key before it has peers")?;
        let free = (0..INDEXES).map(|step| self.next.wrapping_add(step) % INDEXES);
        let index = free
            .into_iter()
            .find(|index| !self.peers.contains_key(index))
            .ok_or("there are too many peers")?;
        self.next = (index + 1) % INDEXES;
        let tunnel = Tunn::new(
            own.secret.clone(),
            x25519::PublicKey::from(key.0),
            None,
            None,
            index,
            Some(Arc::clone(&own.limiter)),
        );
        self.by_key.insert(key, index);
        self.by_address.insert(settings.address, index);
        self.by_endpoint.insert(settings.endpoint.ip(), index);
        let peer = Peer {
            key,
            settings,
            tunnel,
            sent: 0,
            received: 0,
            ticked: now,
            active: now.checked_sub(AWAKE).unwrap_or(now),
            asked: None,
        };
        self.peers.insert(index, peer);
        Ok(())
    }

    /// A packet of the host's for a peer; for nobody that we know it ends here.
    pub fn outgoing(&mut self, packet: &[u8], now: Instant, sink: &mut impl Sink) {
        let index = Tunn::dst_address(packet).and_then(|to| self.by_address.get(&to));
        let Some(peer) = index.and_then(|index| self.peers.get_mut(index)) else {
            return;
        };
        peer.wind(now, &mut self.scratch, sink);
        peer.active = now;
        peer.sent += packet.len() as u64;
        let to = peer.settings.endpoint;
        if let TunnResult::WriteToNetwork(packet) =
            peer.tunnel.encapsulate(packet, &mut self.scratch)
        {
            sink.network(packet, to);
        }
    }

    /// A datagram from the network; what no peer has sent ends here.
    pub fn incoming(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        sink: &mut impl Sink,
    ) {
        let Some(own) = &self.own else { return };
        let Ok(packet) = Tunn::parse_incoming_packet(datagram) else {
            return;
        };
        let by_place = self.by_endpoint.get(&from.ip()).copied();
        let is_data = matches!(packet, Packet::PacketData(_));
        let index = match &packet {
            Packet::HandshakeInit(init) => by_place.or_else(|| {
                // A peer that sends from another of its addresses.
                let mut cookie = [0; 64];
                let limiter = &own.limiter;
                limiter
                    .verify_packet(Some(from.ip()), datagram, &mut cookie)
                    .ok()?;
                let half = parse_handshake_anon(&own.secret, &own.public, init).ok()?;
                self.by_key
                    .get(&PublicKey(half.peer_static_public))
                    .copied()
            }),
            Packet::HandshakeResponse(packet) => Some(packet.receiver_idx >> 8),
            Packet::PacketCookieReply(packet) => Some(packet.receiver_idx >> 8),
            Packet::PacketData(packet) => Some(packet.receiver_idx >> 8),
        };
        let known = index.filter(|index| self.peers.contains_key(index));
        let Some(index) = known else {
            if is_data && let Some(index) = by_place {
                self.ask(index, now, sink);
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        peer.wind(now, &mut self.scratch, sink);
        let mut next = datagram;
        loop {
            let result = peer
                .tunnel
                .decapsulate(Some(from.ip()), next, &mut self.scratch);
            match result {
                TunnResult::WriteToNetwork(packet) => {
                    peer.active = now;
                    sink.network(packet, from);
                    // What waited for the session goes after it.
                    next = &[];
                }
                TunnResult::WriteToTunnelV4(packet, source) => {
                    peer.active = now;
                    peer.received += packet.len() as u64;
                    if peer.settings.address == IpAddr::V4(source) {
                        sink.host(packet);
                    }
                    return;
                }
                TunnResult::WriteToTunnelV6(packet, source) => {
                    peer.active = now;
                    peer.received += packet.len() as u64;
                    if peer.settings.address == IpAddr::V6(source) {
                        sink.host(packet);
                    }
                    return;
                }
                TunnResult::Err(WireGuardError::NoCurrentSession) if is_data => {
                    if by_place == Some(index) {
                        self.ask(index, now, sink);
                    }
                    return;
                }
                TunnResult::Done | TunnResult::Err(_) => return,
            }
        }
    }

    /// A peer uses a session that we do not have: it is one of a process before this. Instead of
    /// waiting until the peer finds that it is not answered, we begin another.
    fn ask(&mut self, index: u32, now: Instant, sink: &mut impl Sink) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        let early = peer
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < ASK_AGAIN);
        if early {
            return;
        }
        peer.asked = Some(now);
        peer.wind(now, &mut self.scratch, sink);
        peer.active = now;
        let to = peer.settings.endpoint;
        if let TunnResult::WriteToNetwork(packet) = peer
            .tunnel
            .format_handshake_initiation(&mut self.scratch, false)
        {
            sink.network(packet, to);
        }
    }

    /// Turns the timers; answers whether they have to be turned again before anything happens.
    pub fn tick(&mut self, now: Instant, sink: &mut impl Sink) -> bool {
        if let Some(own) = &self.own {
            own.limiter.reset_count();
        }
        let mut awake = false;
        for peer in self.peers.values_mut() {
            if now.saturating_duration_since(peer.active) < AWAKE {
                awake = true;
                peer.wind(now, &mut self.scratch, sink);
            }
        }
        awake
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// Brings the library's clock up to now, and does what it asks for.
    fn wind(&mut self, now: Instant, scratch: &mut [u8], sink: &mut impl Sink) {
        if now.saturating_duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        let to = self.settings.endpoint;
        if let TunnResult::WriteToNetwork(packet) = self.tunnel.update_timers(scratch) {
            sink.network(packet, to);
        }
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
