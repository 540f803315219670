//! Checked against an independent implementation, hickory-proto.

use hickory_proto::{
    op::{Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery},
    rr::{Name, RecordType},
};
use proptest::prelude::*;

use super::*;

fn question(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

fn packet(name: &str, rtype: RecordType) -> Vec<u8> {
    question(name, rtype).to_vec().unwrap()
}

#[test]
fn a_question_is_understood() {
    for (name, expected) in [
        ("web.", "web"),
        ("WEB.Ch03.", "web.ch03"),
        (".", ""),
        ("a_b-c.d.", "a_b-c.d"),
    ] {
        let packet = packet(name, RecordType::AAAA);
        let query = Query::parse(&packet).unwrap();
        assert_eq!(query.name(), expected.as_bytes(), "{name}");
        assert_eq!((query.qtype, query.qclass), (rtype::AAAA, class::IN));
        assert_eq!(query.edns, None);
        assert_eq!(query.udp_limit(), PLAIN_UDP);
    }
}

#[test]
fn the_size_a_client_takes_is_honoured_within_limits() {
    for (said, limit) in [(0, 512), (512, 512), (1232, 1232), (65535, MAX_UDP)] {
        let mut message = question("web.", RecordType::A);
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
        let mut packet = message.to_vec().unwrap();
        // Written in place: the other side corrects sizes below 512.
        let at = packet.len() - 8;
        packet[at..at + 2].copy_from_slice(&u16::to_be_bytes(said));
        let query = Query::parse(&packet).unwrap();
        assert_eq!(query.udp_limit(), limit, "{said}");
    }
}

#[test]
fn packets_that_are_no_question_are_told_apart() {
    let good = packet("web.", RecordType::A);
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let form_err = Unfit::Refuse(Rcode::FormErr);
    for (what, packet, expected) in [
        ("empty", vec![], Unfit::Ignore),
        ("short", good[..11].to_vec(), Unfit::Ignore),
        ("an answer", with(2, 0x81), Unfit::Ignore),
        ("an update", with(2, 0x28), Unfit::Refuse(Rcode::NotImp)),
        ("no question", with(5, 0), form_err),
        ("two questions", with(5, 2), form_err),
        ("cut", good[..good.len() - 1].to_vec(), form_err),
        ("a pointer", with(12, 0xc0), form_err),
        ("a missing record", with(11, 1), form_err),
    ] {
        assert_eq!(Query::parse(&packet).unwrap_err(), expected, "{what}");
    }
}

#[test]
fn a_name_that_would_read_as_another_is_nobodys() {
    let mut packet = packet("a-b.", RecordType::A);
    packet[14] = b'.';
    assert_eq!(Query::parse(&packet).unwrap().name(), b"");
}

#[test]
fn reverse_names_mean_addresses() {
    let six = Name::from("fd00::1:2".parse::<Ipv6Addr>().unwrap()).to_ascii();
    for (name, expected) in [
        ("2.1.0.10.in-addr.arpa.", Some("10.0.1.2")),
        ("2.1.0.10.IN-ADDR.ARPA.", Some("10.0.1.2")),
        (six.as_str(), Some("fd00::1:2")),
        ("1.0.10.in-addr.arpa.", None),
        ("3.2.1.0.10.in-addr.arpa.", None),
        ("256.1.0.10.in-addr.arpa.", None),
        ("x.1.0.10.in-addr.arpa.", None),
        ("1.0.ip6.arpa.", None),
        ("in-addr.arpa.", None),
        ("web.", None),
    ] {
        let packet = packet(name, RecordType::PTR);
        let found = Query::parse(&packet).unwrap().reverse_address();
        assert_eq!(found.map(|a| a.to_string()).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_reply_reads_as_it_was_meant() {
    let mut message = question("WeB.", RecordType::A);
    message.set_edns(HickoryEdns::new());
    let packet = message.to_vec().unwrap();
    let query = Query::parse(&packet).unwrap();
    let mut out = [0; PLAIN_UDP];
    let mut reply = Reply::new(&query, PLAIN_UDP, &mut out);
    reply.address("10.0.1.2".parse().unwrap());
    reply.address("fd00::1".parse().unwrap());
    reply.pointer("web.ch03");
    let length = reply.finish(Rcode::NoError);
    let read = Message::from_vec(&out[..length]).unwrap();
    assert_eq!(read.metadata.id, 0x1234);
    assert!(read.metadata.recursion_desired && read.metadata.recursion_available);
    assert!(!read.metadata.truncation);
    assert_eq!(read.queries, message.queries);
    let answers: Vec<String> = read.answers.iter().map(|a| a.data.to_string()).collect();
    assert_eq!(answers, ["10.0.1.2", "fd00::1", "web.ch03."]);
    assert!(read.answers.iter().all(|a| a.ttl == TTL));
    assert!(read.edns.is_some());
}

#[test]
fn a_pointer_that_is_no_domain_name_is_left_out() {
    let long_label = "x".repeat(64);
    let long_name = ["x".repeat(60).as_str(); 5].join(".");
    for name in [long_label.as_str(), &long_name, "", "a..b"] {
        let packet = packet("2.1.0.10.in-addr.arpa.", RecordType::PTR);
        let query = Query::parse(&packet).unwrap();
        let mut out = [0; PLAIN_UDP];
        let mut reply = Reply::new(&query, PLAIN_UDP, &mut out);
        reply.pointer(name);
        let length = reply.finish(Rcode::NoError);
        assert!(
            Message::from_vec(&out[..length])
                .unwrap()
                .answers
                .is_empty()
        );
    }
}

#[test]
fn only_the_answer_to_the_question_counts() {
    let request = packet("Web.", RecordType::A);
    let answer = {
        let mut answer = request.clone();
        answer[2] |= 0x80;
        answer
    };
    let with = |at: usize, byte: u8| {
        let mut packet = answer.clone();
        packet[at] = byte;
        packet
    };
    let bare = |code: u8| {
        let mut packet = answer[..HEADER].to_vec();
        packet[3] = code;
        packet[4..6].fill(0);
        packet
    };
    for (what, reply, expected) in [
        ("the same", answer.clone(), true),
        ("other case", with(13, b'w'), true),
        ("the question itself", request.clone(), false),
        ("another id", with(0, 0), false),
        ("another name", with(13, b'x'), false),
        ("another type", with(18, 28), false),
        ("another opcode", with(2, 0xa9), false),
        ("cut", answer[..15].to_vec(), false),
        ("empty", vec![], false),
        ("an error without question", bare(1), true),
        ("success without question", bare(0), false),
        ("a denial without question", bare(3), false),
    ] {
        assert_eq!(answers(&request, &reply), expected, "{what}");
    }
}

#[test]
fn an_answer_too_large_is_cut_to_its_question() {
    let request = packet("web.", RecordType::A);
    let mut reply = request.clone();
    reply[2] |= 0x80;
    reply[3] = 0x83;
    assert_eq!(fit(&request, reply.clone()), reply);
    reply.resize(600, 0);
    let cut = Message::from_vec(&fit(&request, reply)).unwrap();
    assert!(cut.metadata.truncation);
    assert_eq!(cut.queries.len(), 1);
    assert_eq!(u16::from(cut.metadata.response_code), 3);
}

proptest! {
    #[test]
    fn anything_may_come(packet in prop::collection::vec(any::<u8>(), 0..600), reply in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Query::parse(&packet).map(|q| q.reverse_address());
        let mut out = [0; PLAIN_UDP];
        if let Some(length) = refuse(&packet, Rcode::ServFail, &mut out) {
            prop_assert!(length <= PLAIN_UDP);
        }
        if packet.len() >= HEADER {
            answers(&packet, &reply);
        }
        let _ = fit(&packet, reply);
    }

    #[test]
    fn a_question_that_the_other_reads_too_is_read_alike(
        labels in prop::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9_-]{0,19}", 1..8),
        rtype in 1..60u16,
    ) {
        let name = labels.join(".") + ".";
        let packet = packet(&name, RecordType::from(rtype));
        let query = Query::parse(&packet).unwrap();
        let expected = name.trim_end_matches('.').to_ascii_lowercase();
        prop_assert_eq!(query.name(), expected.as_bytes());
        prop_assert_eq!(query.qtype, rtype);
    }
}
