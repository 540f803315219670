use super::*;
use crate::wireguard::PrivateKey;

#[derive(Default)]
struct Seen {
    network: Vec<(Vec<u8>, SocketAddr)>,
    host: Vec<Vec<u8>>,
}

impl Sink for Seen {
    fn network(&mut self, packet: &[u8], to: SocketAddr) {
        self.network.push((packet.to_vec(), to));
    }

    fn host(&mut self, packet: &[u8]) {
        self.host.push(packet.to_vec());
    }
}

struct Host {
    device: Device,
    key: PrivateKey,
    at: SocketAddr,
}

fn host(last: u8) -> Host {
    let key = PrivateKey::generate().unwrap();
    let mut device = Device::new();
    let settings = Settings {
        private_key: Some(key.clone()),
        ..Settings::default()
    };
    device.set(settings, Instant::now()).unwrap();
    Host {
        device,
        key,
        at: SocketAddr::new([192, 0, 2, last].into(), 51820),
    }
}

fn meet(host: &mut Host, other: &Host) {
    let peer = PeerSettings {
        endpoint: other.at,
        address: other.at.ip(),
    };
    let settings = Settings {
        private_key: None,
        peers: [(other.key.public(), Some(peer))].into(),
    };
    host.device.set(settings, Instant::now()).unwrap();
}

/// An IPv4 packet of that many bytes.
fn packet(from: SocketAddr, to: SocketAddr, length: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; length];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    for (at, address) in [(12, from.ip()), (16, to.ip())] {
        let IpAddr::V4(address) = address else {
            panic!()
        };
        bytes[at..at + 4].copy_from_slice(&address.octets());
    }
    bytes
}

/// Carries datagrams between the two until there are none; what has come out at each.
fn carry(a: &mut Host, b: &mut Host, mut seen: Seen, from_a: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut out = (Vec::new(), Vec::new());
    let mut queue: Vec<(bool, Vec<u8>)> =
        seen.network.drain(..).map(|(p, _)| (from_a, p)).collect();
    while !queue.is_empty() {
        let (from_a, datagram) = queue.remove(0);
        let mut seen = Seen::default();
        let now = Instant::now();
        if from_a {
            b.device.incoming(a.at, &datagram, now, &mut seen);
            out.1.append(&mut seen.host);
        } else {
            a.device.incoming(b.at, &datagram, now, &mut seen);
            out.0.append(&mut seen.host);
        }
        queue.extend(seen.network.into_iter().map(|(p, _)| (!from_a, p)));
    }
    out
}

fn send(a: &mut Host, b: &mut Host, packet: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut seen = Seen::default();
    a.device.outgoing(packet, Instant::now(), &mut seen);
    let plain = seen
        .network
        .iter()
        .any(|(sent, _)| sent.windows(16).any(|part| part == [0x5a; 16]));
    assert!(!plain, "nothing is sent as it is");
    carry(a, b, seen, true)
}

#[test]
fn a_packet_arrives_with_the_first_handshake() {
    let (mut a, mut b) = (host(1), host(2));
    meet(&mut a, &b);
    meet(&mut b, &a);
    let first = packet(a.at, b.at, 1440);
    assert_eq!(send(&mut a, &mut b, &first).1, [first]);
    let back = packet(b.at, a.at, 60);
    assert_eq!(send(&mut b, &mut a, &back).1, [back]);
    let state = a.device.peers();
    let of_b = state[&b.key.public()];
    assert_eq!((of_b.sent, of_b.received), (1440, 60));
    assert!(of_b.handshake_age.is_some_and(|age| age < 60));
}

#[test]
fn strangers_and_false_senders_get_nothing_in() {
    let (mut a, mut b, c) = (host(1), host(2), host(3));
    meet(&mut a, &b);
    // b does not know a.
    let from_a = packet(a.at, b.at, 100);
    assert_eq!(send(&mut a, &mut b, &from_a).1.len(), 0);
    let mut a = host(1);
    meet(&mut a, &b);
    meet(&mut b, &a);
    // To nobody we know.
    let mut seen = Seen::default();
    a.device
        .outgoing(&packet(a.at, c.at, 100), Instant::now(), &mut seen);
    a.device.outgoing(&[], Instant::now(), &mut seen);
    a.device.outgoing(&[0x45; 5], Instant::now(), &mut seen);
    assert_eq!(seen.network.len(), 0);
    // In another's name.
    let false_name = packet(c.at, b.at, 100);
    assert_eq!(send(&mut a, &mut b, &false_name).1.len(), 0);
    let own = packet(a.at, b.at, 100);
    assert_eq!(send(&mut a, &mut b, &own).1, [own]);
    // Noise of every length.
    for length in 0..300 {
        for kind in 0..6 {
            let mut noise = vec![0xff; length];
            for (at, byte) in noise.iter_mut().take(4).enumerate() {
                *byte = if at == 0 { kind } else { 0 };
            }
            let mut seen = Seen::default();
            b.device.incoming(a.at, &noise, Instant::now(), &mut seen);
            b.device.incoming(c.at, &noise, Instant::now(), &mut seen);
            assert_eq!(seen.host.len(), 0);
        }
    }
}

/// The process of one side is another than before: the first packet of the other side, lost
/// itself, makes a new session, and the next one arrives.
#[test]
fn a_session_that_one_side_has_lost_is_made_anew_at_once() {
    let (mut a, mut b) = (host(1), host(2));
    meet(&mut a, &b);
    meet(&mut b, &a);
    let one = packet(a.at, b.at, 100);
    assert_eq!(send(&mut a, &mut b, &one).1.len(), 1);
    let mut again = Host {
        device: Device::new(),
        key: b.key.clone(),
        at: b.at,
    };
    let settings = Settings {
        private_key: Some(b.key.clone()),
        ..Settings::default()
    };
    again.device.set(settings, Instant::now()).unwrap();
    meet(&mut again, &a);
    assert_eq!(send(&mut a, &mut again, &one).1.len(), 0);
    assert_eq!(send(&mut a, &mut again, &one).1, [one]);
}

#[test]
fn a_peer_that_stays_keeps_its_session_and_one_that_goes_loses_it() {
    let (mut a, mut b, c) = (host(1), host(2), host(3));
    meet(&mut a, &b);
    meet(&mut b, &a);
    let one = packet(a.at, b.at, 100);
    assert_eq!(send(&mut a, &mut b, &one).1.len(), 1);
    meet(&mut a, &c);
    meet(&mut a, &b);
    let mut seen = Seen::default();
    a.device.outgoing(&one, Instant::now(), &mut seen);
    assert_eq!(seen.network[0].0[0], 4, "data, and no handshake");
    let settings = Settings {
        private_key: None,
        peers: [(b.key.public(), None)].into(),
    };
    a.device.set(settings, Instant::now()).unwrap();
    let mut seen = Seen::default();
    a.device.outgoing(&one, Instant::now(), &mut seen);
    assert_eq!(seen.network.len(), 0);
    assert_eq!(a.device.peers().len(), 1);
}
