//! Counters of tunnels by their peers, in a network namespace of the test.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
};

use dataplane::traffic::{self, Traffic};
use nix::sched::{CloneFlags, unshare};

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn packets_are_counted_by_peer_while_somebody_looks() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    run(
        "ip link set lo up; ip address add 192.0.2.1/24 dev lo; ip address add fd00::1/64 dev lo nodad",
    );
    let peers: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let mut counting = Traffic::open(4789).unwrap();
    assert!(counting.read().unwrap().is_empty());
    for peer in peers {
        let socket = UdpSocket::bind((peer, 0)).unwrap();
        // Of plain networks, and of encrypted ones inside their tunnels.
        for port in [4789, 4789, 4790] {
            socket.send_to(&[0; 100], (peer, port)).unwrap();
        }
        // Another port is no tunnel.
        socket.send_to(&[0; 100], (peer, 4791)).unwrap();
    }
    let flows = counting.read().unwrap();
    assert_eq!(flows.keys().copied().collect::<Vec<_>>(), peers);
    for (peer, header) in peers.into_iter().zip([20, 40]) {
        let flow = flows[&peer];
        assert_eq!((flow.sent.packets, flow.received.packets), (3, 3), "{peer}");
        assert_eq!(flow.sent.bytes, 3 * (100 + 8 + header), "{peer}");
        assert_eq!(flow.received.bytes, flow.sent.bytes);
    }
    // Whoever opens it anew begins from zero, and what is dropped leaves nothing.
    let mut again = Traffic::open(4789).unwrap();
    assert!(again.read().unwrap().is_empty());
    drop((counting, again));
    assert_eq!(run("nft list tables"), "");
    traffic::sweep().unwrap();
    std::mem::forget(Traffic::open(4789).unwrap());
    traffic::sweep().unwrap();
    assert_eq!(run("nft list tables"), "");
}
