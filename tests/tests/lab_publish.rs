//! Which hosts publish a port, and by which of their addresses.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tests::{Host, Lab, Options, Output, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(30);
/// Addresses of an interface that worker01 gets.
const EDGE: [&str; 2] = ["198.51.100.20", "2001:db8:77::20"];

#[test]
fn ports_lead_by_the_hosts_and_interfaces_that_are_named() {
    let lab = Lab::up(Options {
        workers: 2,
        ..Options::for_test("publish")
    })
    .unwrap();
    labels_open_and_close_ports(&lab);
    only_hosts_that_publish_are_asked(&lab);
    an_interface_is_followed(&lab);
    only_hosts_with_the_interface_are_asked(&lab);
    what_cannot_be_is_refused(&lab);
    choices_are_what_all_hosts_can_have(&lab);
    the_ingress_network_is_made_anew(&lab);
    lab.down().unwrap();
}

fn create(lab: &Lab, name: &str, ports: &[&str]) -> Output {
    let mut words = vec!["service", "create", "-d", "--name", name];
    words.extend(["--constraint", "node.hostname==worker02"]);
    for port in ports {
        words.extend(["--publish", port]);
    }
    words.push(ECHO);
    // Stock clients know no fields of ours.
    lab.host("manager01").ctl(words)
}

fn remove(lab: &Lab, name: &str) {
    lab.host("manager01").ctl(["service", "rm", name]).ok();
}

fn label(lab: &Lab, change: &[&str], host: &str) {
    let words = [&["node", "update"], change, &[host]].concat();
    lab.host("manager01").ctl(words).ok();
}

/// What the target says to the client, or why it does not.
fn ask(lab: &Lab, target: &str) -> Result<String, String> {
    let echo = binary("echo").unwrap();
    let target = format!("tcp://{target}");
    let said = lab
        .host("client")
        .exec([echo.to_str().unwrap(), "ask", &target]);
    let said = said.ok();
    if said.contains("failed") {
        Err(said)
    } else {
        Ok(said)
    }
}

fn at(lab: &Lab, host: &str, port: u16) -> String {
    format!("{}:{port}", lab.host(host).member().address())
}

fn until_answers(lab: &Lab, target: &str) {
    wait::until(&format!("{target} answers"), LIMIT, || ask(lab, target));
}

fn until_refuses(lab: &Lab, target: &str) {
    wait::until(&format!("{target} refuses"), LIMIT, || {
        match ask(lab, target) {
            Err(said) if said.contains("refused") => Ok(()),
            other => Err(other),
        }
    });
}

/// Whether a program of the host could take the port.
fn is_free(host: &Host, port: u16) -> bool {
    let bind = move || std::net::TcpListener::bind(("0.0.0.0", port)).is_ok();
    host.within(bind).unwrap()
}

/// A program of the host that has the port.
fn occupy(host: &Host, port: u16) -> Child {
    let mut occupant = Command::new(binary("echo").unwrap());
    occupant.args(["listen", &port.to_string()]);
    occupant.stdout(Stdio::piped());
    let mut occupant = host.spawn(occupant).unwrap();
    let mut line = [0; 9];
    let out = occupant.stdout.as_mut().unwrap();
    out.read_exact(&mut line).unwrap();
    occupant
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn still_answers(flow: &mut TcpStream) {
    let question = b"GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n";
    flow.write_all(question).unwrap();
    let mut answer = [0; 512];
    assert!(flow.read(&mut answer).unwrap() > 0, "it was closed");
}

fn flow(lab: &Lab, target: &str) -> TcpStream {
    let target: SocketAddr = target.parse().unwrap();
    let connect = move || TcpStream::connect(target);
    let flow = lab.host("client").within(connect).unwrap().unwrap();
    flow.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    flow
}

fn labels_open_and_close_ports(lab: &Lab) {
    create(lab, "everywhere", &["8000:8080"]).ok();
    let edge = "published=8001,target=8080,nodes=node.labels.edge==true,nodes=node.role==worker";
    create(lab, "edge", &[edge]).ok();
    for host in lab.nodes() {
        until_answers(lab, &at(lab, host.name(), 8000));
    }
    let mut flows = ["worker01", "worker02"].map(|host| flow(lab, &at(lab, host, 8000)));
    // The manager has the label and is no worker.
    label(lab, &["--label-add", "edge=true"], "manager01");
    label(lab, &["--label-add", "edge=true"], "worker02");
    until_answers(lab, &at(lab, "worker02", 8001));
    let mut by_edge = flow(lab, &at(lab, "worker02", 8001));
    for _ in 0..2 {
        label(lab, &["--label-add", "edge=true"], "worker01");
        until_answers(lab, &at(lab, "worker01", 8001));
        assert!(!is_free(&lab.host("worker01"), 8001));
        label(lab, &["--label-rm", "edge"], "worker01");
        until_refuses(lab, &at(lab, "worker01", 8001));
        wait::until("the port is given up", LIMIT, || {
            is_free(&lab.host("worker01"), 8001).then_some(()).ok_or("")
        });
    }
    until_refuses(lab, &at(lab, "manager01", 8001));
    assert!(is_free(&lab.host("manager01"), 8001));
    for flow in flows.iter_mut().chain([&mut by_edge]) {
        still_answers(flow);
    }
    // What a host publishes it knows without a manager.
    let hosts = ["worker01", "worker02"].map(|host| lab.host(host));
    for host in &hosts {
        host.kill().unwrap();
    }
    lab.host("manager01").kill().unwrap();
    for host in &hosts {
        host.start().unwrap();
    }
    until_answers(lab, &at(lab, "worker02", 8001));
    until_answers(lab, &at(lab, "worker01", 8000));
    until_refuses(lab, &at(lab, "worker01", 8001));
    lab.host("manager01").start().unwrap();
    wait::until("the manager answers", LIMIT, || {
        let listed = lab.host("manager01").ctl(["service", "ls"]);
        listed.success().then_some(()).ok_or(())
    });
    remove(lab, "everywhere");
}

/// worker02 has the label still.
fn only_hosts_that_publish_are_asked(lab: &Lab) {
    let edge = "published=8101,target=8080,nodes=node.labels.edge==true";
    let elsewhere = occupy(&lab.host("worker01"), 8101);
    create(lab, "asked", &[edge]).ok();
    until_answers(lab, &at(lab, "worker02", 8101));
    // To publish it there, too, is a matter of that host.
    let label = "overnet.publish.8080/tcp=policy=all";
    let update = ["service", "update", "-d", "--label-add", label, "asked"];
    let refused = lab.host("manager01").ctl(update).failed();
    assert!(
        refused.contains("worker01") && refused.contains("8101/tcp"),
        "{refused}"
    );
    end(elsewhere);
    remove(lab, "asked");
    let there = occupy(&lab.host("worker02"), 8102);
    let edge = "published=8102,target=8080,nodes=node.labels.edge==true";
    let refused = create(lab, "asked", &[edge]).failed();
    assert!(refused.contains("worker02"), "{refused}");
    end(there);
}

fn ip(host: &Host, words: &str) {
    host.exec(["ip"].into_iter().chain(words.split(' '))).ok();
}

/// worker01 alone has an interface of this name. The client knows the way there before it asks,
/// or it would be sent elsewhere for minutes.
fn make_edge(lab: &Lab) {
    let host = lab.host("worker01");
    ip(&host, "link add edge0 type veth peer name edge1");
    ip(&host, "link set edge1 up");
    ip(&host, "link set edge0 up");
    let (v4, v6) = (host.member().address(), host.member().address6());
    let client = lab.host("client");
    ip(&client, &format!("route add 198.51.100.0/24 via {v4}"));
    ip(&client, &format!("-6 route add 2001:db8:77::/64 via {v6}"));
}

fn unpublished(host: &Host) -> String {
    let sight = host.api("GET", "/overnet/dataplane", b"").unwrap().json();
    assert_eq!(sight["status"]["failed"].to_string(), "[]");
    sight["status"]["unpublished"].to_string()
}

fn an_interface_is_followed(lab: &Lab) {
    let port = "published=8200,target=8080,host_ip=edge0";
    create(lab, "bound", &[port]).ok();
    create(lab, "everywhere", &["8000:8080"]).ok();
    for host in lab.nodes() {
        until_answers(lab, &at(lab, host.name(), 8000));
        assert!(is_free(&host, 8200), "{}", host.name());
        let said = unpublished(&host);
        assert!(said.contains("8200/tcp: interface edge0"), "{said}");
    }
    make_edge(lab);
    let host = lab.host("worker01");
    ip(&host, "address add 198.51.100.20/24 dev edge0");
    ip(&host, "address add 2001:db8:77::20/64 dev edge0 nodad");
    for address in EDGE {
        let target = SocketAddr::new(address.parse().unwrap(), 8200).to_string();
        until_answers(lab, &target);
    }
    assert_eq!(unpublished(&host), "[]");
    let mut kept = flow(lab, "198.51.100.20:8200");
    until_refuses(lab, &at(lab, "worker01", 8200));
    until_refuses(lab, &at(lab, "worker02", 8200));
    ip(&host, "address add 198.51.100.21/24 dev edge0");
    until_answers(lab, "198.51.100.21:8200");
    ip(&host, "address del 198.51.100.21/24 dev edge0");
    ip(&host, "address add 198.51.100.21/24 dev eth0");
    until_refuses(lab, "198.51.100.21:8200");
    still_answers(&mut kept);
    ip(&host, "address del 198.51.100.21/24 dev eth0");
    ip(&host, "link set edge0 down");
    ip(&host, "link set edge0 name edge9");
    wait::until("the port is given up", LIMIT, || {
        is_free(&host, 8200).then_some(()).ok_or(())
    });
    assert!(unpublished(&host).contains("edge0"));
    ip(&host, "link set edge9 name edge0");
    ip(&host, "link set edge0 up");
    until_answers(lab, "198.51.100.20:8200");
    // An update to another set of addresses.
    let label = "overnet.publish.8080/tcp=host_ip=eth0";
    let update = ["service", "update", "-d", "--label-add", label, "bound"];
    lab.host("manager01").ctl(update).ok();
    until_answers(lab, &at(lab, "worker02", 8200));
    until_refuses(lab, "198.51.100.20:8200");
    remove(lab, "bound");
}

fn only_hosts_with_the_interface_are_asked(lab: &Lab) {
    let occupants = ["worker01", "worker02"].map(|host| occupy(&lab.host(host), 8300));
    let port = "published=8300,target=8080,host_ip=edge0";
    let refused = create(lab, "late", &[port]).failed();
    assert!(
        refused.contains("worker01") && !refused.contains("worker02"),
        "{refused}"
    );
    let [here, there] = occupants;
    end(here);
    create(lab, "late", &[port]).ok();
    until_answers(lab, "198.51.100.20:8300");
    end(there);
    remove(lab, "late");
}

fn what_cannot_be_is_refused(lab: &Lab) {
    for (port, said) in [
        ("published=8400,target=8080,nodes=edge", "no operator"),
        ("published=8400,target=8080,nodes=label.a==b", "not known"),
        ("published=8400,target=8080,host_ip=a/b", "host_ip"),
        (
            "published=8400,target=8080,host_ip=a-name-that-is-too-long",
            "15 bytes",
        ),
        (
            "published=8400,target=8080,mode=host,host_ip=edge0",
            "mode=ingress",
        ),
        (
            "published=8400,target=8080,mode=host,nodes=node.role==worker",
            "mode=ingress",
        ),
    ] {
        let refused = create(lab, "wrong", &[port]).failed();
        assert!(refused.contains(said), "{port}: {refused}");
    }
}

/// The first ports to choose are other programs' on some hosts.
fn choices_are_what_all_hosts_can_have(lab: &Lab) {
    let first = occupy(&lab.host("worker01"), 30_000);
    let second = occupy(&lab.host("worker02"), 30_001);
    create(lab, "chosen", &["8080", "8081"]).ok();
    let ports = || {
        let format = "{{range .Endpoint.Ports}}{{.PublishedPort}} {{end}}";
        let words = ["service", "inspect", "--format", format, "chosen"];
        lab.host("manager01").ctl(words).ok()
    };
    assert_eq!(ports().trim(), "30002 30003");
    for host in lab.nodes() {
        until_answers(lab, &at(lab, host.name(), 30_002));
        let said = unpublished(&host);
        assert_eq!(said, "[]", "{}", host.name());
    }
    end(first);
    end(second);
    let add = ["service", "update", "-d", "--publish-add", "9000", "chosen"];
    lab.host("manager01").ctl(add).ok();
    assert_eq!(ports().trim(), "30002 30003 30000");
    remove(lab, "chosen");
}

fn the_ingress_network_is_made_anew(lab: &Lab) {
    let manager = lab.host("manager01");
    let network = |words: &str| manager.ctl(["network"].into_iter().chain(words.split(' ')));
    let second = network("create -d overlay --ingress second").failed();
    assert!(
        second.contains("ingress network (") && second.contains(") is already present"),
        "{second}"
    );
    let delete = || manager.api("DELETE", "/networks/ingress", b"").unwrap();
    let refused = delete();
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        refused.status == 400 && said.contains("ingress network cannot be removed because service"),
        "{said}"
    );
    for name in ["edge", "everywhere"] {
        remove(lab, name);
    }
    wait::until("the ingress network is removed", LIMIT, || {
        let answer = delete();
        (answer.status == 204).then_some(()).ok_or(answer.body)
    });
    for host in lab.nodes() {
        wait::until("nothing is published", LIMIT, || {
            is_free(&host, 8001).then_some(()).ok_or(())
        });
    }
    let refused = create(lab, "late", &["8500:8080"]).failed();
    assert!(
        refused.contains("no ingress network is present"),
        "{refused}"
    );
    let attachable = network("create -d overlay --ingress --attachable mesh").failed();
    assert!(attachable.contains("attachable"), "{attachable}");
    let own = "create -d overlay --ingress --subnet 10.55.0.0/20 --ipv6 \
               --opt com.docker.network.driver.mtu=1400 mesh";
    network(own).ok();
    create(lab, "late", &["8500:8080"]).ok();
    for host in lab.nodes() {
        until_answers(lab, &at(lab, host.name(), 8500));
        until_answers(lab, &format!("[{}]:8500", host.member().address6()));
        let addresses = host.exec(["ip", "-o", "address"]).ok();
        assert!(addresses.contains("inet 10.55.0.1/20"), "{addresses}");
        // VXLAN takes 50 bytes of what the option says of the underlay.
        let links = host.exec(["ip", "-o", "link"]).ok();
        let mut gateways = links.lines().filter(|line| line.contains("ovtg"));
        assert!(gateways.all(|line| line.contains("mtu 1350")), "{links}");
    }
}
