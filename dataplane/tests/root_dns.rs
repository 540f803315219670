//! The name server in real network namespaces.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests: a panic is their failure.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dataplane::{
    Change, Desired,
    desired::{Dns, Interface, Network, NetworkKind, Remote, Sandbox, Subnet},
    dns::{ADDRESS, DnsConfig, DnsServer, FdKeeper, Forgetful, PORT},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace that ends with the value.
struct Netns {
    namespace: File,
}

impl Netns {
    fn new() -> Self {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
            raise_lo();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            namespace: made.join().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        let pid = std::process::id();
        format!("/proc/{pid}/fd/{}", self.namespace.as_raw_fd()).into()
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// A client's socket, connected to the name server.
    fn client(&self) -> UdpSocket {
        self.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect((ADDRESS, PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // Hundreds of answers come at once; by default some 270 have room.
            let room = nix::sys::socket::sockopt::RcvBufForce;
            nix::sys::socket::setsockopt(&socket, room, &(4 << 20)).unwrap();
            socket
        })
    }

    fn dig(&self, words: &str) -> String {
        let port = PORT.to_string();
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("dig")
                .args(["@127.0.0.11", "-p", &port, "+tries=1", "+time=10"])
                .args(&words)
                .output()
                .expect("dig");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        })
    }
}

fn raise_lo() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: a zeroed ifreq is valid; the name is shorter than its field.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let result = libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request);
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

/// What systemd's store would hold.
#[derive(Default)]
struct Store(Mutex<BTreeMap<String, OwnedFd>>);

impl Store {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn config(self: &Arc<Self>) -> DnsConfig {
        let kept = self.0.lock().unwrap();
        DnsConfig {
            inherited: kept
                .iter()
                .map(|(name, fd)| (name.clone(), fd.try_clone().unwrap()))
                .collect(),
            keeper: Arc::clone(self) as Arc<dyn FdKeeper>,
        }
    }
}

impl FdKeeper for Store {
    fn store(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fd = fd.try_clone_to_owned()?;
        self.0.lock().unwrap().insert(name.to_owned(), fd);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

fn forgetful() -> DnsConfig {
    DnsConfig {
        inherited: Vec::new(),
        keeper: Arc::new(Forgetful),
    }
}

fn desired(netns: &Netns, upstreams: &[SocketAddr]) -> Desired {
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
    let sandbox = Sandbox {
        netns: netns.path(),
        interfaces: vec![Interface {
            endpoint: "e".into(),
            network: "n".into(),
            name: "eth0".into(),
            addresses: vec!["10.0.1.2/24".parse().unwrap()],
            mac: [2; 6],
            default_via: Vec::new(),
            publishes: false,
            names: vec!["web".into()],
        }],
        dns: Some(Dns {
            upstreams: upstreams.to_vec(),
        }),
        counted: false,
    };
    desired.apply(Change::SetSandbox("s".into(), sandbox));
    for n in 0..100u8 {
        let id = format!("r{n}");
        desired.apply(Change::SetRemote(
            id,
            remote(&format!("10.0.1.{}", n + 100), "crowd"),
        ));
    }
    desired
}

fn remote(address: &str, name: &str) -> Remote {
    Remote {
        network: "n".into(),
        addresses: vec![address.parse().unwrap()],
        mac: [2; 6],
        vtep: "192.0.2.1".parse().unwrap(),
        names: vec![name.into()],
    }
}

async fn serving(netns: &Netns, upstreams: &[SocketAddr]) -> DnsServer {
    let server = DnsServer::start(forgetful()).unwrap();
    server.replace(&desired(netns, upstreams));
    server.open("s", &netns.path()).await.unwrap();
    server
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn ask(client: &UdpSocket, name: &str) -> Message {
    client.send(&question(77, name)).unwrap();
    hear(client)
}

fn hear(client: &UdpSocket) -> Message {
    let mut reply = [0; 4096];
    let length = client.recv(&mut reply).expect("an answer");
    Message::from_vec(&reply[..length]).unwrap()
}

fn addresses(message: &Message) -> String {
    let all: Vec<_> = message.answers.iter().map(|a| a.data.to_string()).collect();
    all.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_is_content() {
    let netns = Netns::new();
    let server = serving(&netns, &[]).await;
    for (words, expected) in [
        ("+short web A", "10.0.1.2"),
        ("+short WEB.ch03 A", "10.0.1.2"),
        ("+short web AAAA", ""),
        ("+short +tcp web A", "10.0.1.2"),
        ("+short -x 10.0.1.2", "web.ch03."),
    ] {
        assert_eq!(netns.dig(words), expected, "{words}");
    }
    for (words, expected) in [
        ("web AAAA", "status: NOERROR"),
        ("nosuch A", "status: SERVFAIL"),
        ("-x 10.0.1.77", "status: NXDOMAIN"),
        ("web A", "flags: qr rd ra;"),
        ("web A +edns=1", "status: NOERROR"),
    ] {
        let found = netns.dig(words);
        assert!(found.contains(expected), "{words}: {found}");
    }
    // Without EDNS the hundred do not fit into a UDP answer: dig asks again over TCP by itself.
    for words in [
        "+short +noedns crowd A",
        "+short crowd A",
        "+short +tcp crowd A",
    ] {
        assert_eq!(netns.dig(words).lines().count(), 100, "{words}");
    }
    server.apply(&[Change::SetRemote("late".into(), remote("10.0.1.9", "late"))]);
    assert_eq!(netns.dig("+short late"), "10.0.1.9");
    server.apply(&[Change::RemoveRemote("late".into())]);
    assert!(netns.dig("late").contains("SERVFAIL"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_asked_while_nobody_lives_is_answered_by_the_next() {
    let netns = Netns::new();
    let store = Arc::new(Store::default());
    let wish = desired(&netns, &[]);
    let first = DnsServer::start(store.config()).unwrap();
    first.replace(&wish);
    first.open("s", &netns.path()).await.unwrap();
    first.open("s", &netns.path()).await.unwrap();
    assert_eq!(store.names(), ["dns.tcp.s", "dns.udp.s"]);
    let client = netns.client();
    assert_eq!(addresses(&ask(&client, "web.")), "10.0.1.2");
    first.shutdown().await;

    // Nobody is there, yet nothing is refused.
    for id in 0..300 {
        client.send(&question(id, "web.")).unwrap();
    }
    let mut stream = netns.run(|| TcpStream::connect((ADDRESS, PORT)).unwrap());
    let over_tcp = question(9, "web.");
    stream
        .write_all(&(over_tcp.len() as u16).to_be_bytes())
        .unwrap();
    stream.write_all(&over_tcp).unwrap();

    let next = DnsServer::start(store.config()).unwrap();
    next.replace(&wish);
    next.open("s", &netns.path()).await.unwrap();
    for id in 0..300 {
        let reply = hear(&client);
        assert_eq!(reply.metadata.id, id);
        assert_eq!(addresses(&reply), "10.0.1.2");
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(reply))];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(addresses(&Message::from_vec(&reply).unwrap()), "10.0.1.2");
    next.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_an_earlier_namespace_are_not_adopted() {
    let before = Netns::new();
    let store = Arc::new(Store::default());
    let first = DnsServer::start(store.config()).unwrap();
    first.replace(&desired(&before, &[]));
    first.open("s", &before.path()).await.unwrap();
    first.shutdown().await;

    let after = Netns::new();
    let next = DnsServer::start(store.config()).unwrap();
    next.replace(&desired(&after, &[]));
    next.open("s", &after.path()).await.unwrap();
    assert_eq!(addresses(&ask(&after.client(), "web.")), "10.0.1.2");
    // The same when it changes under a living server.
    let third = Netns::new();
    next.open("s", &third.path()).await.unwrap();
    assert_eq!(addresses(&ask(&third.client(), "web.")), "10.0.1.2");
    assert_eq!(store.names(), ["dns.tcp.s", "dns.udp.s"]);
    next.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wished_is_let_go_of() {
    let netns = Netns::new();
    let store = Arc::new(Store::default());
    let wish = desired(&netns, &[]);
    let first = DnsServer::start(store.config()).unwrap();
    first.replace(&wish);
    first.open("s", &netns.path()).await.unwrap();
    first.shutdown().await;
    assert_eq!(store.names().len(), 2);

    // Removed while nobody lived.
    let next = DnsServer::start(store.config()).unwrap();
    next.replace(&Desired::default());
    assert_eq!(store.names(), [""; 0]);
    // Made again, and removed by a step.
    next.replace(&wish);
    next.open("s", &netns.path()).await.unwrap();
    assert_eq!(store.names().len(), 2);
    next.apply(&[Change::RemoveSandbox("s".into())]);
    assert_eq!(store.names(), [""; 0]);
    let client = netns.client();
    let begun = Instant::now();
    loop {
        // The socket is gone once the kernel says "connection refused".
        let _ = client.send(&question(1, "web."));
        if client.send(&question(2, "web.")).is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the socket is still there");
    }
    next.close("s");
    next.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_named() {
    let netns = Netns::new();
    let server = DnsServer::start(forgetful()).unwrap();
    let nowhere = PathBuf::from("/nowhere/netns");
    let error = server.open("s", &nowhere).await.unwrap_err().to_string();
    assert!(
        error.contains("sandbox s") && error.contains("/nowhere/netns"),
        "{error}"
    );
    let squatter = netns.run(|| UdpSocket::bind((ADDRESS, PORT)).unwrap());
    let error = server
        .open("s", &netns.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("61053/udp") && error.contains("in use"),
        "{error}"
    );
    drop(squatter);
    server.open("s", &netns.path()).await.unwrap();
    server.shutdown().await;
}

/// An upstream server on this host's loopback that treats each packet as `behave` says.
fn upstream(
    behave: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<u16>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let ports = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ports);
    // Ends with the process: it waits for packets for ever.
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            seen.lock().unwrap().push(peer.port());
            for reply in behave(&Message::from_vec(&packet[..length]).unwrap()) {
                let _ = socket.send_to(&reply, peer);
            }
        }
    });
    (address, ports)
}

fn reply_to(question: &Message, address: &str) -> Message {
    let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_available = true;
    for query in &question.queries {
        reply.add_query(query.clone());
        let data = RData::A(A(address.parse().unwrap()));
        reply.add_answer(Record::from_rdata(query.name.clone(), 60, data));
    }
    reply
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn silent() -> (SocketAddr, Arc<Mutex<Vec<u16>>>) {
    upstream(|_| Vec::new())
}

fn good() -> (SocketAddr, Arc<Mutex<Vec<u16>>>) {
    upstream(|question| vec![bytes(&reply_to(question, "192.0.2.80"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_names_are_asked_of_the_first_that_answers_well() {
    let failing = || {
        upstream(|question| {
            let mut reply = reply_to(question, "192.0.2.99");
            reply.answers.clear();
            reply.metadata.response_code = ResponseCode::ServFail;
            vec![bytes(&reply)]
        })
        .0
    };
    let deaf_port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let liar = upstream(|question| {
        let mut other_id = reply_to(question, "192.0.2.66");
        other_id.metadata.id ^= 1;
        let mut other_name = question.clone();
        other_name.queries[0].name = Name::from_ascii("evil.").unwrap();
        let other_name = reply_to(&other_name, "192.0.2.66");
        vec![
            b"noise".to_vec(),
            bytes(&other_id),
            bytes(&other_name),
            bytes(question),
            bytes(&reply_to(question, "192.0.2.81")),
        ]
    });
    let denying = upstream(|question| {
        let mut reply = reply_to(question, "192.0.2.99");
        reply.answers.clear();
        reply.metadata.response_code = ResponseCode::NXDomain;
        vec![bytes(&reply)]
    });
    let second = Duration::from_secs(1);
    for (what, upstreams, code, expected, at_most) in [
        (
            "good",
            vec![good().0],
            ResponseCode::NoError,
            "192.0.2.80",
            second,
        ),
        (
            "failing, good",
            vec![failing(), good().0],
            ResponseCode::NoError,
            "192.0.2.80",
            second,
        ),
        (
            "refused, good",
            vec![deaf_port, good().0],
            ResponseCode::NoError,
            "192.0.2.80",
            second,
        ),
        (
            "silent, good",
            vec![silent().0, good().0],
            ResponseCode::NoError,
            "192.0.2.80",
            second * 3,
        ),
        (
            "a liar",
            vec![liar.0],
            ResponseCode::NoError,
            "192.0.2.81",
            second,
        ),
        (
            "denying, good",
            vec![denying.0, good().0],
            ResponseCode::NXDomain,
            "",
            second,
        ),
        (
            "failing",
            vec![failing()],
            ResponseCode::ServFail,
            "",
            second,
        ),
        (
            "refused",
            vec![deaf_port],
            ResponseCode::ServFail,
            "",
            second,
        ),
        (
            "silent",
            vec![silent().0],
            ResponseCode::ServFail,
            "",
            second * 6,
        ),
    ] {
        let netns = Netns::new();
        let server = serving(&netns, &upstreams).await;
        let begun = Instant::now();
        let reply = ask(&netns.client(), "example.org.");
        let took = begun.elapsed();
        println!("{what}: {took:?}");
        assert_eq!(reply.metadata.id, 77, "{what}");
        assert_eq!(reply.metadata.response_code, code, "{what}");
        assert_eq!(addresses(&reply), expected, "{what}");
        assert_eq!(reply.queries.len(), 1, "{what}");
        assert!(took < at_most, "{what}: {took:?}");
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_leaves_from_another_port() {
    let netns = Netns::new();
    let (address, ports) = good();
    let server = serving(&netns, &[address]).await;
    let client = netns.client();
    for _ in 0..20 {
        assert_eq!(addresses(&ask(&client, "example.org.")), "192.0.2.80");
    }
    let mut ports = ports.lock().unwrap().clone();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() >= 18, "{ports:?}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_foreign_answers_come_over_tcp() {
    let netns = Netns::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut packet) {
            let mut reply = reply_to(&Message::from_vec(&packet[..length]).unwrap(), "192.0.2.1");
            reply.answers.clear();
            reply.metadata.truncation = true;
            let _ = udp.send_to(&bytes(&reply), peer);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut packet).unwrap();
            let question = Message::from_vec(&packet).unwrap();
            let mut reply = reply_to(&question, "192.0.2.0");
            for n in 1..200u8 {
                let more = reply_to(&question, &format!("192.0.2.{n}"));
                reply.answers.extend(more.answers.clone());
            }
            let reply = bytes(&reply);
            stream
                .write_all(&(reply.len() as u16).to_be_bytes())
                .unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    let server = serving(&netns, &[address]).await;
    assert_eq!(netns.dig("+short large.example").lines().count(), 200);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_foreign_names_does_not_silence_our_own() {
    let netns = Netns::new();
    let server = serving(&netns, &[silent().0]).await;
    let client = netns.client();
    for id in 0..600 {
        client.send(&question(id, "example.org.")).unwrap();
    }
    let begun = Instant::now();
    client.send(&question(1000, "web.")).unwrap();
    let mut failed = 0;
    loop {
        let reply = hear(&client);
        if reply.metadata.id == 1000 {
            assert_eq!(addresses(&reply), "10.0.1.2");
            break;
        }
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        failed += 1;
    }
    println!(
        "answered after {:?}, {failed} foreign ones had failed",
        begun.elapsed()
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(failed, 600 - 512);
    // Those under way fail in their time, and then there is room again.
    for _ in 0..512 {
        assert_eq!(hear(&client).metadata.response_code, ResponseCode::ServFail);
    }
    println!("all answered after {:?}", begun.elapsed());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_is_survived() {
    let netns = Netns::new();
    let server = serving(&netns, &[]).await;
    let client = netns.client();
    client.send(b"").unwrap();
    client.send(&[0xff; 5000]).unwrap();
    client.send(&[0; 12]).unwrap();
    assert_eq!(hear(&client).metadata.response_code, ResponseCode::FormErr);
    let mut stream = netns.run(|| TcpStream::connect((ADDRESS, PORT)).unwrap());
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "closed");
    assert_eq!(addresses(&ask(&client, "web.")), "10.0.1.2");
    server.shutdown().await;
}
