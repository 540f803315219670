use super::*;

fn key(byte: u8) -> PublicKey {
    PublicKey([byte; 32])
}

/// All after netlink's header of a message, whose length the socket fills in.
fn body(message: &Message) -> Vec<u8> {
    message.bytes()[16..].to_vec()
}

fn hex_of(message: &Message) -> String {
    hex::encode(body(message))
}

/// An attribute as the kernel's headers say: length, number, value, padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, value: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | 0x8000, &value.concat())
}

#[test]
fn the_family_is_asked_for_by_its_name() {
    // CTRL_CMD_GETFAMILY, version 1; CTRL_ATTR_FAMILY_NAME.
    let expected = [vec![3, 1, 0, 0], attribute(2, b"wireguard\0")].concat();
    assert_eq!(hex_of(&get_family()), hex::encode(expected));
    assert_eq!(get_family().bytes()[4..6], 16_u16.to_ne_bytes());
}

#[test]
fn a_device_is_set_as_linux_wireguard_h_says() {
    let four = PeerSettings {
        endpoint: "192.0.2.7:51820".parse().unwrap(),
        address: "192.0.2.7".parse().unwrap(),
    };
    let six = PeerSettings {
        endpoint: "[2001:db8::7]:51821".parse().unwrap(),
        address: "2001:db8::7".parse().unwrap(),
    };
    let settings = Settings {
        private_key: Some(PrivateKey::from_bytes([9; 32])),
        peers: [(key(1), Some(four)), (key(2), Some(six)), (key(3), None)].into(),
    };
    let messages = set_device(28, "ovtw0", 51820, &settings);
    assert_eq!(messages.len(), 2);
    assert!(
        messages
            .iter()
            .all(|m| m.bytes()[4..6] == 28_u16.to_ne_bytes())
    );
    // WG_CMD_SET_DEVICE; WGDEVICE_A_IFNAME, _PRIVATE_KEY, _LISTEN_PORT.
    let name = attribute(2, b"ovtw0\0");
    let expected = [
        vec![1, 1, 0, 0],
        name.clone(),
        attribute(3, &[9; 32]),
        attribute(6, &51820_u16.to_ne_bytes()),
    ];
    assert_eq!(hex_of(&messages[0]), hex::encode(expected.concat()));
    // WGPEER_A_PUBLIC_KEY, _FLAGS, _ENDPOINT, _ALLOWEDIPS; WGALLOWEDIP_A_FAMILY, _IPADDR, _CIDR_MASK.
    let peer = |place: u16, byte: u8, at: &[u8], net: &[Vec<u8>]| {
        nest(
            place,
            &[
                attribute(1, &[byte; 32]),
                attribute(3, &2_u32.to_ne_bytes()),
                attribute(4, at),
                nest(9, &[nest(0, net)]),
            ],
        )
    };
    let octets = |text: &str| octets(&text.parse().unwrap());
    let mut at4 = vec![2, 0, 0xca, 0x6c];
    at4.extend([192, 0, 2, 7]);
    at4.extend([0; 8]);
    let mut at6 = vec![10, 0, 0xca, 0x6d, 0, 0, 0, 0];
    at6.extend(octets("2001:db8::7"));
    at6.extend([0; 4]);
    let net4 = [
        attribute(1, &2_u16.to_ne_bytes()),
        attribute(2, &[192, 0, 2, 7]),
        attribute(3, &[32]),
    ];
    let net6 = [
        attribute(1, &10_u16.to_ne_bytes()),
        attribute(2, &octets("2001:db8::7")),
        attribute(3, &[128]),
    ];
    let gone = nest(
        2,
        &[attribute(1, &[3; 32]), attribute(3, &1_u32.to_ne_bytes())],
    );
    let peers = [peer(0, 1, &at4, &net4), peer(1, 2, &at6, &net6), gone];
    let expected = [vec![1, 1, 0, 0], name, nest(8, &peers)].concat();
    assert_eq!(hex_of(&messages[1]), hex::encode(expected));
}

#[test]
fn many_peers_go_in_several_messages() {
    let peer = PeerSettings {
        endpoint: "192.0.2.7:1".parse().unwrap(),
        address: "192.0.2.7".parse().unwrap(),
    };
    let peers = (0..1000_u32).map(|number| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        (PublicKey(bytes), Some(peer))
    });
    let settings = Settings {
        private_key: None,
        peers: peers.collect(),
    };
    let messages = set_device(28, "ovtw0", 1, &settings);
    assert_eq!(messages.len(), 6);
    assert!(messages.iter().all(|m| m.bytes().len() < 1 << 16));
}

#[test]
fn what_the_kernel_says_is_read_and_compared() {
    let peer = |byte: u8, last: u8| {
        let mut at = vec![2, 0, 0xca, 0x6c];
        // It was heard from another of its addresses.
        at.extend([198, 51, 100, last]);
        at.extend([0; 8]);
        let net = [
            attribute(1, &2_u16.to_ne_bytes()),
            attribute(2, &[192, 0, 2, last]),
            attribute(3, &[32]),
        ];
        nest(
            0,
            &[
                attribute(1, &[byte; 32]),
                attribute(4, &at),
                attribute(6, &[0; 16]),
                nest(9, &[nest(0, &net)]),
            ],
        )
    };
    let private = PrivateKey::from_bytes([9; 32]);
    let first = [
        vec![0, 1, 0, 0],
        attribute(1, &7_u32.to_ne_bytes()),
        attribute(2, b"ovtw0\0"),
        attribute(4, &private.public().0),
        attribute(6, &51820_u16.to_ne_bytes()),
        nest(8, &[peer(1, 1)]),
    ];
    // The rest of the peers comes with a message of its own.
    let second = [vec![0, 1, 0, 0], nest(8, &[peer(2, 2)])];
    let mut seen = Tunnel::default();
    read_device(&first.concat(), &mut seen);
    read_device(&second.concat(), &mut seen);
    let at = |last: u8| SocketAddr::new([192, 0, 2, last].into(), 51820);
    let expected = Tunnel {
        public_key: Some(private.public()),
        port: 51820,
        peers: [(key(1), at(1)), (key(2), at(2))].into(),
        ..Tunnel::default()
    };
    assert_eq!(seen, expected);
    assert!(difference(&seen, &expected, private.clone()).is_empty());
    let mut other = expected.clone();
    other.peers.remove(&key(2));
    other.peers.insert(key(1), at(9));
    let change = difference(&seen, &other, private.clone());
    assert!(change.private_key.is_none());
    let moved = PeerSettings {
        endpoint: at(9),
        address: at(9).ip(),
    };
    assert_eq!(change.peers, [(key(1), Some(moved)), (key(2), None)].into());
    other.port = 51821;
    assert!(difference(&seen, &other, private).private_key.is_some());
}

/// Each rule and route as `ip` would say it, by the numbers of linux/fib_rules.h and
/// linux/rtnetlink.h.
#[test]
fn the_rule_and_the_routes() {
    use crate::kernel::{links::NEW_ROUTE, ways};
    let rule = ways::rule(32, false, 4790);
    let expected = [
        vec![2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        attribute(6, &79_u32.to_ne_bytes()),
        attribute(15, &0x4f56_u32.to_ne_bytes()),
        attribute(21, &[79]),
        attribute(22, &[17]),
        attribute(
            24,
            &[4790_u16.to_ne_bytes(), 4790_u16.to_ne_bytes()].concat(),
        ),
    ];
    assert_eq!(hex_of(&rule), hex::encode(expected.concat()));
    let end = ways::route(NEW_ROUTE, true, None);
    assert_eq!(body(&end)[..12], [10, 0, 0, 0, 0, 79, 0, 7, 0, 0, 0, 0]);
    assert_eq!(ways::read_route(&body(&end)), Some((true, None)));
    let to: IpAddr = [192, 0, 2, 7].into();
    let way = ways::route(NEW_ROUTE, false, Some((to, 5)));
    assert_eq!(body(&way)[..12], [2, 32, 0, 0, 0, 79, 253, 1, 0, 0, 0, 0]);
    assert_eq!(ways::read_route(&body(&way)), Some((false, Some((to, 5)))));
}
