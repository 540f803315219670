//! Networks that are encrypted: what containers say to each other leaves no host in clear, whatever
//! happens to daemons, processes, hosts and keys.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox:latest";
const LIMIT: Duration = Duration::from_secs(60);
const GREETING: &[u8] = b"Hello Docker!!";
/// Of the lab's hosts.
const UNDERLAY: &str = "eth0";
const PLAIN: u16 = 4789;
const INNER: u16 = 4790;
const WIREGUARD: [u16; 2] = [51820, 51821];
/// Datagrams a second of the flows that must lose none.
const RATE: u32 = 200;

#[test]
fn what_is_encrypted_never_leaves_in_clear() {
    let lab = Lab::up(Options::for_test("encrypted")).unwrap();
    let manager = lab.host("manager01");
    mistakes_are_refused(&manager);
    for (name, options) in [("secret", &["--opt", "encrypted"][..]), ("plain", &[])] {
        let create = ["network", "create", "-d", "overlay", "--attachable"];
        let words = create.iter().chain(options).chain([&name]);
        manager.ctl(words).ok();
    }
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    for network in ["secret", "plain"] {
        run(&one, &format!("server-{network}"), network, ECHO);
        run(&two, &format!("asker-{network}"), network, TOOLBOX);
    }

    containers_talk_with_full_packets(&two);
    nothing_is_seen_on_the_wire(&lab);
    nothing_in_clear_comes_in(&lab);
    a_killed_daemon_loses_nothing(&lab);
    a_killed_process_is_replaced(&lab);
    its_packets_are_counted(&lab);
    a_tunnel_that_cannot_be_set_up_is_said(&lab);
    hosts_come_and_go(&lab);
    keys_are_rotated_without_loss(&lab);
    nothing_is_left(&lab);
    lab.down().unwrap();
}

fn run(host: &Host, name: &str, network: &str, image: &str) {
    let mut words = vec!["run", "-d", "--name", name, "--network", network, image];
    if image == TOOLBOX {
        words.extend(["sleep", "100000"]);
    }
    host.ctl(words).ok();
}

fn mistakes_are_refused(manager: &Host) {
    let create = |words: &[&str]| {
        let all = ["network", "create"].iter().chain(words);
        manager.ctl(all).failed()
    };
    let said = create(&["--opt", "encrypted", "local"]);
    assert!(said.contains("encrypted"), "{said}");
    let said = create(&["-d", "overlay", "--opt", "encrypted=no", "half"]);
    assert!(
        said.contains("encrypted=no") && said.contains("leave it out"),
        "{said}"
    );
}

fn ask(host: &Host, network: &str) -> tests::Output {
    let (asker, url) = (
        format!("asker-{network}"),
        format!("http://server-{network}:8080"),
    );
    host.ctl(["exec", &asker, "wget", "-T", "2", "-qO-", &url])
}

#[track_caller]
fn answers(host: &Host, network: &str) {
    wait::until(&format!("server-{network} answers"), LIMIT, || {
        let answer = ask(host, network);
        (answer.stdout.as_bytes() == GREETING)
            .then_some(())
            .ok_or(answer)
    });
}

fn containers_talk_with_full_packets(two: &Host) {
    for (network, mtu) in [("secret", "1390"), ("plain", "1450")] {
        answers(two, network);
        let asker = format!("asker-{network}");
        let found = two
            .ctl(["exec", &asker, "cat", "/sys/class/net/eth0/mtu"])
            .ok();
        assert_eq!(found, mtu);
    }
    // 1390 bytes with the headers of IP and ICMP, and one that has to be cut.
    for size in ["1362", "4000"] {
        let ping = [
            "exec",
            "asker-secret",
            "ping",
            "-c",
            "2",
            "-W",
            "2",
            "-s",
            size,
        ];
        two.ctl(ping.iter().chain(&["server-secret"])).ok();
    }
}

/// What passes the underlay's device of a host.
struct Capture {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Destination ports of UDP that matter here.
    ports: BTreeSet<u16>,
    greetings: usize,
}

fn index(device: &str) -> i32 {
    nix::net::if_::if_nametoindex(device).unwrap() as i32
}

fn packet_socket() -> Socket {
    const ALL: u16 = 3; // ETH_P_ALL
    let protocol = Protocol::from(i32::from(ALL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    // SAFETY: all bytes that are written are inside the storage, whose length is told.
    let ((), at) = unsafe {
        SockAddr::try_init(|storage, length| {
            let at = storage.cast::<libc::sockaddr_ll>();
            (*at).sll_family = libc::AF_PACKET as u16;
            (*at).sll_protocol = ALL.to_be();
            (*at).sll_ifindex = index(UNDERLAY);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .unwrap();
    socket.bind(&at).unwrap();
    socket
}

impl Capture {
    fn of(host: &Host) -> Self {
        let socket = host.within(packet_socket).unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut frame = vec![0; 1 << 17];
            loop {
                match std::io::Read::read(&mut &socket, &mut frame) {
                    Ok(length) => seen.note(&frame[..length]),
                    // What was sent before the end has been read by now.
                    Err(_) if end.load(Ordering::Relaxed) => return seen,
                    Err(_) => {}
                }
            }
        });
        Self { over, thread }
    }

    fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn note(&mut self, frame: &[u8]) {
        let found = frame.windows(GREETING.len()).any(|part| part == GREETING);
        self.greetings += usize::from(found);
        // IPv4 without options, and UDP.
        if frame.len() > 42 && frame[12..15] == [8, 0, 0x45] && frame[23] == 17 {
            let port = u16::from_be_bytes([frame[36], frame[37]]);
            let measures = port == PLAIN && frame.get(46..49) == Some(&[0, 0x0f, 0xff]);
            if [PLAIN, INNER, WIREGUARD[0], WIREGUARD[1]].contains(&port) && !measures {
                self.ports.insert(port);
            }
        }
    }

    #[track_caller]
    fn is_secret(&self) {
        assert_eq!(self.greetings, 0, "{self:?}");
        let clear = self.ports.iter().any(|port| !WIREGUARD.contains(port));
        assert!(!clear, "{self:?}");
    }
}

fn nothing_is_seen_on_the_wire(lab: &Lab) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    let capture = Capture::of(&one);
    answers(&two, "secret");
    let seen = capture.end();
    seen.is_secret();
    assert_eq!(seen.ports, [WIREGUARD[0]].into());
    // And the capture would see it.
    let capture = Capture::of(&one);
    answers(&two, "plain");
    let seen = capture.end();
    assert!(
        seen.greetings > 0 && seen.ports.contains(&PLAIN),
        "{seen:?}"
    );
}

fn pid_of(host: &Host, container: &str) -> String {
    let format = "{{.State.Pid}}";
    host.ctl(["inspect", "--format", format, container]).ok()
}

/// Datagrams that a container has been given, and those for which nobody listened.
fn datagrams(host: &Host, container: &str) -> u64 {
    let pid = pid_of(host, container);
    let words = ["nsenter", "-t", &pid, "-n", "cat", "/proc/net/snmp"];
    let text = host.exec(words).ok();
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1);
    let mut numbers = line.unwrap().split_whitespace().skip(1);
    let mut next = || numbers.next().unwrap().parse::<u64>().unwrap();
    next() + next()
}

fn hardware_address(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn datagram(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() + 8) as u16;
    let mut header = vec![0x45, 0];
    header.extend((length + 20).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(from);
    header.extend(to);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    for word in [40_000, port, length, 0] {
        header.extend(word.to_be_bytes());
    }
    header.extend(payload);
    header
}

fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[8, 0], packet].concat()
}

/// VXLAN as the other host would send it, on the wire as it stands: to the server of a network.
fn inject(lab: &Lab, network: &str, vni: u32, port: u16) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    let of = |host: &Host, container: &str, what: &str| {
        let format = format!("{{{{.NetworkSettings.Networks.{network}.{what}}}}}");
        host.ctl(["inspect", "--format", &format, container]).ok()
    };
    let address = |text: String| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let (server, asker) = (format!("server-{network}"), format!("asker-{network}"));
    let inner = datagram(
        address(of(&two, &asker, "IPAddress")),
        address(of(&one, &server, "IPAddress")),
        8080,
        b"who are you?",
    );
    let inner = frame(
        hardware_address(&of(&one, &server, "MacAddress")),
        hardware_address(&of(&two, &asker, "MacAddress")),
        &inner,
    );
    let vxlan = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), &inner].concat();
    let underlay = |host: &Host| address(host.member().address().to_string());
    let outer = datagram(underlay(&two), underlay(&one), port, &vxlan);
    let device = format!("/sys/class/net/{UNDERLAY}/address");
    let hardware = |host: &Host| hardware_address(&host.exec(["cat", &device]).ok());
    let frame = frame(hardware(&one), hardware(&two), &outer);
    two.within(|| packet_socket().send(&frame).unwrap())
        .unwrap();
}

fn vni_of(host: &Host, network: &str) -> u32 {
    let id = host
        .ctl(["network", "inspect", "--format", "{{.Id}}", network])
        .ok();
    let sight = host.api("GET", "/overnet/dataplane", b"").unwrap().json();
    let kind = &sight["desired"]["networks"][&id]["kind"];
    kind["overlay"]["vni"].as_u64().unwrap() as u32
}

fn nothing_in_clear_comes_in(lab: &Lab) {
    let one = lab.host("worker01");
    let (plain, secret) = (vni_of(&one, "plain"), vni_of(&one, "secret"));
    let before = datagrams(&one, "server-plain");
    inject(lab, "plain", plain, PLAIN);
    wait::until(
        "what is injected arrives where nothing is encrypted",
        LIMIT,
        || {
            let now = datagrams(&one, "server-plain");
            (now > before).then_some(()).ok_or(now)
        },
    );
    let before = datagrams(&one, "server-secret");
    for port in [INNER, PLAIN] {
        inject(lab, "secret", secret, port);
    }
    // Whatever was sent before is there when this is.
    let plain_before = datagrams(&one, "server-plain");
    inject(lab, "plain", plain, PLAIN);
    wait::until("what is sent afterwards arrives", LIMIT, || {
        let now = datagrams(&one, "server-plain");
        (now > plain_before).then_some(()).ok_or(now)
    });
    assert_eq!(datagrams(&one, "server-secret"), before);
    let rules = one
        .exec(["nft", "list", "chain", "inet", "overnet", "tunnels"])
        .ok();
    let dropped = rules.lines().find(|line| line.contains("ovtw")).unwrap();
    assert!(dropped.contains("packets 1 "), "{rules}");
}

/// A steady flow beside the containers, without any daemon.
struct Flow {
    pid: String,
    server: String,
    host: Host,
}

impl Flow {
    fn between(lab: &Lab) -> Self {
        let (one, two) = (lab.host("worker01"), lab.host("worker02"));
        let format = "{{.NetworkSettings.Networks.secret.IPAddress}}";
        Self {
            pid: pid_of(&two, "asker-secret"),
            server: one
                .ctl(["inspect", "--format", format, "server-secret"])
                .ok(),
            host: two,
        }
    }

    fn begin(&self, seconds: u32) -> Child {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.pid, "-n", "--"])
            .arg(env!("CARGO_BIN_EXE_echo"))
            .args(["probe", &format!("{}:8080", self.server)])
            .args([seconds.to_string(), RATE.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.host.spawn(command).unwrap()
    }
}

#[track_caller]
fn nothing_lost(flow: Child, seconds: u32) {
    let output = flow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprint!("{said}");
    let all = seconds * RATE;
    assert!(
        said.starts_with(&format!("sent {all} answered {all} ")),
        "{said}"
    );
}

/// The processes of WireGuard devices on the host.
fn processes(host: &Host) -> Vec<String> {
    let script = r#"for p in /proc/[0-9]*; do
        case "$(tr '\0' ' ' 2>/dev/null <$p/cmdline)" in
            "ovnd wireguard --device"*) echo "${p#/proc/}" ;;
        esac
    done"#;
    let found = host.exec(["sh", "-c", script]).ok();
    found.lines().map(str::to_owned).collect()
}

fn a_killed_daemon_loses_nothing(lab: &Lab) {
    let flow = Flow::between(lab);
    for name in ["worker01", "worker02"] {
        let host = lab.host(name);
        let before = processes(&host);
        assert_eq!(before.len(), 1, "{name}");
        let stream = flow.begin(4);
        host.kill().unwrap();
        host.start().unwrap();
        nothing_lost(stream, 4);
        assert_eq!(processes(&host), before, "{name}");
    }
}

fn a_killed_process_is_replaced(lab: &Lab) {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    let flow = Flow::between(lab);
    let capture = Capture::of(&one);
    for host in [&one, &two] {
        let before = processes(host);
        let stream = flow.begin(3);
        host.exec(["kill", "-9", &before[0]]).ok();
        wait::until("there is another process", LIMIT, || {
            let now = processes(host);
            (now.len() == 1 && now != before).then_some(()).ok_or(now)
        });
        answers(&two, "secret");
        let output = stream.wait_with_output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
    }
    capture.end().is_secret();
    // And without a daemon that would mend it nothing leaves at all.
    two.kill().unwrap();
    let capture = Capture::of(&one);
    two.exec(["kill", "-9", &processes(&two)[0]]).ok();
    let stream = flow.begin(1);
    let output = stream.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(" answered 0 "), "{said}");
    capture.end().is_secret();
    two.start().unwrap();
    answers(&two, "secret");
}

/// What the visualizer draws counts encrypted networks' packets, too.
fn its_packets_are_counted(lab: &Lab) {
    let two = lab.host("worker02");
    let mut stream = UnixStream::connect(two.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = "GET /overnet/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut sent = || -> u64 {
        let line = lines.find(|line| line.starts_with('{')).unwrap();
        let host: serde_json::Value = serde_json::from_str(&line).unwrap();
        let peers = host["Peers"].as_array().unwrap().iter();
        let bytes = peers.filter_map(|peer| peer["TxBytes"].as_u64());
        bytes.sum()
    };
    let first = sent();
    let words = "exec asker-secret ping -q -c 400 -i 0.01 -s 1300 server-secret";
    two.ctl(words.split(' ')).ok();
    let begun = Instant::now();
    loop {
        let more = sent() - first;
        if more > 400 * 1300 {
            eprintln!("{more} bytes counted after {:?}", begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{more} bytes counted");
    }
}

/// Somebody else has WireGuard's ports.
fn a_tunnel_that_cannot_be_set_up_is_said(lab: &Lab) {
    let (manager, one, two) = (
        lab.host("manager01"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    one.kill().unwrap();
    for process in processes(&one) {
        one.exec(["kill", "-9", &process]).ok();
    }
    // The kernel takes down a killed process's TUN device before its sockets.
    let bind = |port| one.within(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
    let held =
        WIREGUARD.map(|port| wait::until(&format!("port {port} is free"), LIMIT, || bind(port)));
    one.start().unwrap();
    let shows = |host: &Host, words: &[&str], wanted: &[&str]| {
        wait::until(&format!("{words:?} says it"), LIMIT, || {
            let output = host.ctl(words);
            let said = |part: &&str| output.stdout.contains(part);
            wanted.iter().all(said).then_some(()).ok_or(output)
        });
    };
    let failed = "cannot set up the WireGuard device";
    shows(
        &one,
        &["doctor"],
        &["encrypted networks", failed, "wireguard-port"],
    );
    shows(&manager, &["doctor"], &["encryption on worker01", failed]);
    shows(&manager, &["cluster", "status"], &[failed]);
    let create = "service create -d --name late --network secret --constraint node.hostname==worker01 --restart-condition none";
    manager.ctl(create.split(' ').chain([ECHO])).ok();
    let tasks = [
        "service",
        "ps",
        "--no-trunc",
        "--format",
        "{{.Error}}",
        "late",
    ];
    shows(
        &manager,
        &tasks,
        &["this host's tunnels are not there", failed],
    );
    manager.ctl(["service", "rm", "late"]).ok();
    drop(held);
    answers(&two, "secret");
    wait::until("nothing is wrong any more", LIMIT, || {
        let said = manager.ctl(["doctor"]);
        let well = !said.stdout.contains("encryption on");
        well.then_some(()).ok_or(said)
    });
}

fn hosts_come_and_go(lab: &Lab) {
    let three = lab.host("worker03");
    assert_eq!(processes(&three).len(), 0);
    let capture = Capture::of(&three);
    run(&three, "asker-secret", "secret", TOOLBOX);
    answers(&three, "secret");
    three.ctl(["rm", "-f", "asker-secret"]).ok();
    until_bare(&three);
    // With its containers on the network a host leaves, and comes back with another key.
    run(&three, "asker-secret", "secret", TOOLBOX);
    answers(&three, "secret");
    let key = |host: &Host| host.exec(["cat", "/run/overnet/wireguard/key-0"]).ok();
    let before = key(&three);
    capture.end().is_secret();
    three.crash().unwrap();
    three.start().unwrap();
    let capture = Capture::of(&three);
    let ready = "{{.Status}}";
    let manager = lab.host("manager01");
    wait::until("worker03 is there again", LIMIT, || {
        let state = manager.ctl(["node", "ls", "--format", ready]).stdout;
        let down = state.contains("Down");
        (!down).then_some(()).ok_or(state)
    });
    three.ctl(["rm", "-f", "asker-secret"]).ok();
    run(&three, "asker-secret", "secret", TOOLBOX);
    answers(&three, "secret");
    assert_ne!(key(&three), before);
    three.ctl(["rm", "-f", "asker-secret"]).ok();
    three.ctl(["swarm", "leave"]).ok();
    until_bare(&three);
    capture.end().is_secret();
}

#[track_caller]
fn until_bare(host: &Host) {
    let script = "ip -o link show | grep -o ' ovtw[01]'; ip rule | grep 4790; \
                  ip route show table 20310 2>/dev/null; true";
    wait::until(
        &format!("nothing is left on {}", host.name()),
        LIMIT,
        || {
            let left = (host.exec(["sh", "-c", script]).ok(), processes(host));
            (left.0.is_empty() && left.1.is_empty())
                .then_some(())
                .ok_or(left)
        },
    );
}

fn devices(host: &Host) -> String {
    let script = "ip -o link show | grep -o 'ovtw[01]' | sort -u | tr '\\n' ' '";
    host.exec(["sh", "-c", script]).ok()
}

fn keys_are_rotated_without_loss(lab: &Lab) {
    let (manager, two) = (lab.host("manager01"), lab.host("worker02"));
    let hosts = [lab.host("worker01"), two.clone()];
    let capture = Capture::of(&two);
    let stream = Flow::between(lab).begin(20);
    manager.ctl(["cluster", "rotate-keys"]).ok();
    let again = manager.ctl(["cluster", "rotate-keys"]).failed();
    assert!(again.contains("being rotated already"), "{again}");
    for host in &hosts {
        wait::until("the next key alone is left", LIMIT, || {
            let now = devices(host);
            (now == "ovtw1").then_some(()).ok_or(now)
        });
        assert_eq!(
            host.exec(["sh", "-c", "ls /run/overnet/wireguard | grep key"])
                .ok(),
            "key-1"
        );
    }
    nothing_lost(stream, 20);
    let seen = capture.end();
    seen.is_secret();
    assert_eq!(seen.ports, WIREGUARD.into());
}

fn nothing_is_left(lab: &Lab) {
    for (host, name) in [("worker01", "server"), ("worker02", "asker")] {
        let host = lab.host(host);
        host.ctl(["rm", "-f", &format!("{name}-secret")]).ok();
        until_bare(&host);
    }
    lab.host("manager01").ctl(["network", "rm", "secret"]).ok();
}
