use super::*;

fn flow(protocol: u8, state: u8, status: u32, timeout: u32) -> Flow {
    Flow {
        protocol,
        source: [10, 0, 0, 1].into(),
        source_port: 40_000,
        destination: [10, 0, 0, 9].into(),
        port: 80,
        answerer: [10, 0, 0, 2].into(),
        status,
        timeout,
        state,
        answer_flags: 0,
        tuple: Vec::new(),
        id: Vec::new(),
    }
}

#[test]
fn flows_that_nobody_ends_are_ended() {
    let other = BTreeSet::from([IpAddr::from([10, 0, 0, 3])]);
    let same = BTreeSet::from([IpAddr::from([10, 0, 0, 2])]);
    for (what, flow, ended) in [
        ("UDP stream", flow(UDP, 0, SEEN_REPLY | ASSURED, 100), true),
        ("UDP unanswered", flow(UDP, 0, 0, 30), true),
        ("ping", flow(ICMP, 0, SEEN_REPLY, 30), true),
        ("ping of IPv6", flow(ICMPV6, 0, SEEN_REPLY, 30), true),
        ("handshake", flow(TCP, 1, 0, 100), true),
        ("TCP", flow(TCP, 3, SEEN_REPLY, 100), false),
        ("SCTP", flow(SCTP, 4, SEEN_REPLY, 100), false),
        ("SCTP handshake", flow(SCTP, 2, 0, 3), true),
    ] {
        assert_eq!(flow.is_astray(&other), ended, "{what}");
        assert!(!flow.is_astray(&same), "{what} to one that stays");
    }
}

#[test]
fn connections_with_work_left_count() {
    let own = BTreeSet::from([IpAddr::from([10, 0, 0, 9])]);
    let server_closed = |state| Flow {
        answer_flags: CLOSE_INIT,
        ..flow(TCP, state, SEEN_REPLY, 60)
    };
    for (what, flow, counted) in [
        ("established", flow(TCP, 3, SEEN_REPLY, 100), true),
        ("handshake half way", flow(TCP, 2, SEEN_REPLY, 60), true),
        ("client closed", flow(TCP, 5, SEEN_REPLY, 60), true),
        ("server closed", server_closed(4), false),
        ("both closed", flow(TCP, 7, SEEN_REPLY, 120), false),
        ("SYN only", flow(TCP, 1, 0, 120), false),
        ("SCTP", flow(SCTP, 4, SEEN_REPLY, 100), true),
        ("SCTP shutting down", flow(SCTP, 5, SEEN_REPLY, 1), false),
        ("UDP just now", flow(UDP, 0, SEEN_REPLY, 29), true),
        ("UDP long ago", flow(UDP, 0, SEEN_REPLY, 20), false),
        (
            "stream just now",
            flow(UDP, 0, SEEN_REPLY | ASSURED, 119),
            true,
        ),
        (
            "stream long ago",
            flow(UDP, 0, SEEN_REPLY | ASSURED, 60),
            false,
        ),
        ("ping", flow(ICMP, 0, SEEN_REPLY, 29), false),
    ] {
        assert_eq!(flow.is_at_work(&own), counted, "{what}");
        let outgoing = Flow {
            destination: [10, 0, 0, 7].into(),
            ..flow.clone()
        };
        assert!(!outgoing.is_at_work(&own), "{what}, to somebody else");
        let loops = Flow {
            source: [10, 0, 0, 9].into(),
            ..flow
        };
        assert!(!loops.is_at_work(&own), "{what}, to oneself");
    }
}
