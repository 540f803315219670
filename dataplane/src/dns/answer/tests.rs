use std::{collections::BTreeSet, net::Ipv4Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode},
    rr::{Name, RecordType},
};
use proptest::prelude::*;

use super::{
    super::wire::{HEADER, MAX_TCP, MAX_UDP},
    *,
};
use crate::desired::{
    Change, Desired, Dns, Interface, Network, NetworkKind, Remote, Sandbox, Subnet,
};

fn desired(upstreams: &[&str]) -> Desired {
    let mut desired = Desired::default();
    let subnet = "10.0.1.0/24".parse().unwrap();
    let network = Network {
        name: "ch03".into(),
        kind: NetworkKind::Overlay {
            vni: 4097,
            encrypted: false,
        },
        subnets: vec![Subnet {
            subnet,
            gateway: subnet.ip(),
        }],
        mtu: None,
    };
    desired.apply(Change::SetNetwork("n".into(), network));
    let interface = |address: &str, name: &str| Interface {
        endpoint: name.into(),
        network: "n".into(),
        name: "eth0".into(),
        addresses: vec![address.parse().unwrap()],
        mac: [2; 6],
        default_via: Vec::new(),
        publishes: false,
        names: vec![name.into()],
    };
    for (id, address, dns) in [
        ("asker", "10.0.1.2/24", true),
        ("deaf", "10.0.1.3/24", false),
    ] {
        let upstreams = upstreams.iter().map(|u| u.parse().unwrap()).collect();
        let sandbox = Sandbox {
            netns: "/nowhere".into(),
            interfaces: vec![interface(address, id)],
            dns: dns.then_some(Dns { upstreams }),
            counted: false,
        };
        desired.apply(Change::SetSandbox(id.into(), sandbox));
    }
    let remote = |address: String, name: &str| Remote {
        network: "n".into(),
        addresses: vec![address.parse().unwrap()],
        mac: [2; 6],
        vtep: "192.0.2.1".parse().unwrap(),
        names: vec![name.into()],
    };
    let mut crowd = |name: &str, count: u32, base: u32| {
        for n in 0..count {
            let address = Ipv4Addr::from(base + n).to_string();
            desired.apply(Change::SetRemote(
                format!("{name}{n}"),
                remote(address, name),
            ));
        }
    };
    crowd("ten", 10, 0x0a00_0110);
    crowd("hundred", 100, 0x0a01_0000);
    crowd("army", 10_000, 0x0a02_0000);
    desired.apply(Change::SetRemote(
        "six".into(),
        remote("fd00::6".into(), "six"),
    ));
    desired
}

fn question(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

struct Bench {
    zone: Zone,
    scratch: Scratch,
    out: Vec<u8>,
}

impl Bench {
    fn new(upstreams: &[&str]) -> Self {
        Self {
            zone: Zone::from(&desired(upstreams)),
            scratch: Scratch::new(),
            out: vec![0; MAX_TCP],
        }
    }

    fn outcome(&mut self, asker: &str, message: &Message, transport: Transport) -> Outcome {
        let out = match transport {
            Transport::Udp => &mut self.out[..MAX_UDP],
            Transport::Tcp => &mut self.out,
        };
        let packet = message.to_vec().unwrap();
        answer(
            &self.zone,
            asker,
            &packet,
            transport,
            &mut self.scratch,
            out,
        )
    }

    fn reply(&mut self, asker: &str, message: &Message, transport: Transport) -> Message {
        match self.outcome(asker, message, transport) {
            Outcome::Reply(length) => Message::from_vec(&self.out[..length]).unwrap(),
            other => panic!("{message:?}: {other:?}"),
        }
    }
}

#[test]
fn every_question_has_its_answer() {
    use RecordType::{A, AAAA, ANY, MX, PTR};
    use ResponseCode::{NXDomain, NoError};
    let mut bench = Bench::new(&["192.0.2.53:53"]);
    for (name, rtype, code, expected) in [
        ("asker.", A, NoError, "10.0.1.2"),
        ("ASKER.ch03.", A, NoError, "10.0.1.2"),
        ("deaf.", A, NoError, "10.0.1.3"),
        ("asker.", AAAA, NoError, ""),
        ("asker.", MX, NoError, ""),
        ("asker.", ANY, NoError, "10.0.1.2"),
        ("six.", AAAA, NoError, "fd00::6"),
        ("six.", A, NoError, ""),
        ("2.1.0.10.in-addr.arpa.", PTR, NoError, "asker.ch03."),
        ("2.1.0.10.in-addr.arpa.", A, NoError, ""),
        ("99.1.0.10.in-addr.arpa.", PTR, NXDomain, ""),
    ] {
        let reply = bench.reply("asker", &question(name, rtype), Transport::Udp);
        assert_eq!(reply.metadata.response_code, code, "{name} {rtype}");
        let answers: Vec<_> = reply.answers.iter().map(|a| a.data.to_string()).collect();
        assert_eq!(answers.join(" "), expected, "{name} {rtype}");
    }
}

#[test]
fn foreign_names_go_to_the_upstreams() {
    use RecordType::{A, MX, PTR};
    let upstreams = ["192.0.2.53:53", "[fd00::53]:53"];
    let mut bench = Bench::new(&upstreams);
    let expected: Vec<SocketAddr> = upstreams.iter().map(|u| u.parse().unwrap()).collect();
    for (name, rtype) in [
        ("nosuch.", A),
        ("example.org.", MX),
        ("nosuch.ch03.", A),
        (".", A),
        ("8.8.8.8.in-addr.arpa.", PTR),
    ] {
        let outcome = bench.outcome("asker", &question(name, rtype), Transport::Udp);
        assert_eq!(outcome, Outcome::Forward(expected.clone().into()), "{name}");
    }
}

#[test]
fn nobody_to_ask_is_a_failure_and_no_denial() {
    let mut none = Bench::new(&[]);
    for asker in ["asker", "deaf", "stranger"] {
        let reply = none.reply(asker, &question("nosuch.", RecordType::A), Transport::Udp);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::ServFail,
            "{asker}"
        );
    }
}

#[test]
fn all_ten_addresses_come_in_ever_new_order() {
    let mut bench = Bench::new(&[]);
    let mut orders = BTreeSet::new();
    let mut firsts = BTreeSet::new();
    for _ in 0..200 {
        let reply = bench.reply("asker", &question("ten.", RecordType::A), Transport::Udp);
        assert!(!reply.metadata.truncation);
        let order: Vec<_> = reply.answers.iter().map(|a| a.data.to_string()).collect();
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 10);
        firsts.insert(order[0].clone());
        orders.insert(order);
    }
    assert_eq!(firsts.len(), 10);
    assert!(orders.len() > 150, "{}", orders.len());
}

#[test]
fn what_does_not_fit_is_marked_and_comes_over_tcp() {
    let mut bench = Bench::new(&[]);
    let mut with_edns = question("hundred.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    with_edns.set_edns(edns);
    let plain = question("hundred.", RecordType::A);
    let army = question("army.", RecordType::A);
    for (what, message, transport, least, most, cut) in [
        ("plain", &plain, Transport::Udp, 29, 30, true),
        ("edns", &with_edns, Transport::Udp, 100, 100, false),
        ("tcp", &plain, Transport::Tcp, 100, 100, false),
        (
            "more than any message",
            &army,
            Transport::Tcp,
            4000,
            4100,
            true,
        ),
    ] {
        let reply = bench.reply("asker", message, transport);
        let different: BTreeSet<_> = reply.answers.iter().map(|a| a.data.to_string()).collect();
        assert!(
            (least..=most).contains(&different.len()),
            "{what}: {}",
            different.len()
        );
        assert_eq!(reply.answers.len(), different.len(), "{what}");
        assert_eq!(reply.metadata.truncation, cut, "{what}");
        assert_eq!(reply.edns.is_some(), message.edns.is_some(), "{what}");
    }
}

#[test]
fn a_newer_edns_is_told_so() {
    let mut bench = Bench::new(&[]);
    let mut message = question("asker.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let reply = bench.reply("asker", &message, Transport::Udp);
    // BADVERS; hickory-proto reads the same number as BADSIG.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
}

proptest! {
    #[test]
    fn anything_may_be_asked(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bench = Bench::small();
        let asked = answer(&bench.zone, "asker", &packet, Transport::Udp, &mut bench.scratch, &mut bench.out[..MAX_UDP]);
        if let Outcome::Reply(length) = asked {
            prop_assert!((HEADER..=MAX_UDP).contains(&length));
            prop_assert_eq!(&bench.out[..2], &packet[..2]);
        }
    }

    /// A good question with some bytes changed comes further into the code than noise does.
    #[test]
    fn a_damaged_question_does_no_harm(changes in prop::collection::vec((0..40usize, any::<u8>()), 1..6), cut in 0..60usize) {
        let mut message = question("asker.ch03.", RecordType::A);
        message.set_edns(Edns::new());
        let mut packet = message.to_vec().unwrap();
        for (at, byte) in changes {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet.truncate(cut);
        let mut bench = Bench::small();
        let asked = answer(&bench.zone, "asker", &packet, Transport::Udp, &mut bench.scratch, &mut bench.out[..MAX_UDP]);
        if let Outcome::Reply(length) = asked {
            prop_assert!(length <= MAX_UDP);
        }
    }
}

impl Bench {
    fn small() -> Self {
        let mut desired = desired(&[]);
        desired.remotes.clear();
        Self {
            zone: Zone::from(&desired),
            scratch: Scratch::new(),
            out: vec![0; MAX_UDP],
        }
    }
}
