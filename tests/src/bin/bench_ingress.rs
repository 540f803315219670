//! From outside to a published port of a host without a task, beside the same way laid by hand
//! with masquerade (Docker's way) and beside the port of the task's own host; with one and with a
//! thousand published services, with one, ten and a hundred tasks; and how long a port takes to
//! answer on all hosts.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Host, Lab, Options, wait,
    yardstick::{Figure, PORT, Place, Way, by_hand, head, median, more_by_hand, play, row},
};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const ECHO: &str = "registry:5000/example/echo:latest";
const PUBLISHED: u16 = 8000;
const BY_HAND: u16 = 8001;
const OTHER_SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 250);
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(15, 50),
        ["--quick"] => measure(3, 5),
        ["reach", ref addresses @ ..] => reach(addresses),
        _ if play(&words)? => Ok(()),
        _ => bail!("usage: bench_ingress [--quick]"),
    }
}

fn measure(rounds: usize, publishings: usize) -> Result<()> {
    let lab = Lab::up(Options {
        workers: 3,
        ..Options::default()
    })?;
    let mut ways = ways(&lab)?;
    let hand = more_by_hand(&lab.host("worker02"), 100);
    let pairs = [(1, 0), (2, 0)];
    println!("{}", head(&ways, &pairs));
    let figures = [Figure::Connections, Figure::Requests, Figure::OneStream];
    for (label, services, tasks) in [
        ("1 service, 1 task", 0, 1),
        ("1 service, 10 tasks", 0, 10),
        ("1 service, 100 tasks", 0, 100),
        ("1,000 services, 1 task", 999, 1),
    ] {
        publish_more(&lab.host("manager01"), services)?;
        let servers = scale(&lab, tasks);
        for way in &mut ways[1..] {
            way.servers.clone_from(&servers);
        }
        ways[0].servers = lead_by_hand(&lab, &hand[..tasks]);
        // The connections of one stream's program would come to different tasks.
        let figures = &figures[..if tasks == 1 { 3 } else { 2 }];
        for figure in figures {
            println!("{}", row(*figure, label, &ways, &pairs, rounds)?);
        }
    }
    until_reachable(&lab, publishings)
}

fn ways(lab: &Lab) -> Result<Vec<Way>> {
    let (one, two) = (lab.host("worker01"), lab.host("worker02"));
    let client = Place::Process {
        host: lab.host("client"),
        pid: "1".into(),
    };
    let second = format!("ip addr add {OTHER_SOURCE}/24 dev eth0");
    lab.host("client").exec(second.split(' ')).ok();
    by_hand(&one, &two)?;
    let laid = "ip addr add 10.250.0.254/24 dev hand && sysctl -qw net.ipv4.ip_forward=1";
    one.exec(["sh", "-c", laid]).ok();
    let manager = lab.host("manager01");
    let words = format!(
        "service create -d --name bench --constraint node.hostname==worker02 --publish {PUBLISHED}:{PORT}"
    );
    let command = [TOOLBOX, "sleep", "90000"];
    manager.ctl(words.split(' ').chain(command)).ok();
    let way = |name, servers: Vec<Place>, host: &Host, port| Way {
        name,
        servers,
        client: client.clone(),
        target: SocketAddr::new(host.member().address().into(), port),
        source: None,
    };
    Ok(vec![
        way("by hand", Vec::new(), &one, BY_HAND),
        way("Overnet", Vec::new(), &one, PUBLISHED),
        // To a task a client's port is one connection, whichever host it comes by: without an
        // address of its own this way would be in the other one's.
        Way {
            source: Some(OTHER_SOURCE.into()),
            ..way("Overnet at the task", Vec::new(), &two, PUBLISHED)
        },
    ])
}

/// Leads the port by hand to one of `to` at random; their places.
fn lead_by_hand(lab: &Lab, to: &[(Place, String)]) -> Vec<Place> {
    let numbered = to.iter().enumerate();
    let map: Vec<String> = numbered
        .map(|(number, (_, address))| format!("{number} : {address}"))
        .collect();
    let target = match to {
        [(_, address)] => format!("{address}:{PORT}"),
        _ => format!(
            "numgen random mod {} map {{ {} }}:{PORT}",
            to.len(),
            map.join(", ")
        ),
    };
    let rules = format!(
        "nft -f - <<'RULES'\n\
         table ip hand {{}}\ndelete table ip hand\ntable ip hand {{\n\
         chain to {{ type nat hook prerouting priority -100; tcp dport {BY_HAND} dnat to {target}; }}\n\
         chain from {{ type nat hook postrouting priority 100; oifname hand masquerade; }}\n\
         }}\nRULES"
    );
    lab.host("worker01").exec(["sh", "-c", &rules]).ok();
    to.iter().map(|(place, _)| place.clone()).collect()
}

/// The service's tasks, as many as wished.
fn scale(lab: &Lab, tasks: usize) -> Vec<Place> {
    let host = lab.host("worker02");
    let manager = lab.host("manager01");
    let wish = format!("bench={tasks}");
    manager.ctl(["service", "scale", "-d", &wish]).ok();
    wait::until("as many tasks run", LIMIT, || {
        let ids = host.ctl(["ps", "-q"]).stdout;
        let format = ["inspect", "--format", "{{.State.Pid}}"];
        let pids = host.ctl(format.into_iter().chain(ids.split_whitespace()));
        let pids: Vec<String> = pids.stdout.split_whitespace().map(str::to_owned).collect();
        if pids.len() != tasks || pids.iter().any(|pid| pid == "0") {
            return Err(format!("{} of {tasks}", pids.len()));
        }
        let host = host.clone();
        let place = |pid| Place::Process {
            host: host.clone(),
            pid,
        };
        Ok(pids.into_iter().map(place).collect())
    })
}

/// Services that have a port and nothing behind it.
fn publish_more(manager: &Host, services: u16) -> Result<()> {
    for number in 0..services {
        let body = serde_json::json!({
            "Name": format!("more{number}"),
            "TaskTemplate": {"ContainerSpec": {"Image": ECHO}},
            "Mode": {"Replicated": {"Replicas": 0}},
            "EndpointSpec": {"Ports": [{"PublishedPort": 20000 + number, "TargetPort": 8080}]},
        });
        let answer = manager.api("POST", "/services/create", body.to_string().as_bytes())?;
        ensure!(
            answer.status == 201,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    Ok(())
}

/// From the command to an answer from every host.
fn until_reachable(lab: &Lab, times: usize) -> Result<()> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path of plain text")?;
    let (manager, client) = (lab.host("manager01"), lab.host("client"));
    let hosts = ["manager01", "worker01", "worker02", "worker03"];
    let mut taken = Vec::new();
    for (number, port) in (0..times).zip(9000..) {
        let addresses = hosts.map(|name| format!("{}:{port}", lab.host(name).member().address()));
        let name = format!("reach{number}");
        let publish = format!("{port}:8080");
        let begun = Instant::now();
        manager
            .ctl([
                "service",
                "create",
                "-d",
                "--name",
                &name,
                "--publish",
                &publish,
                ECHO,
            ])
            .ok();
        let words = [own, "reach"].into_iter();
        client
            .exec(words.chain(addresses.iter().map(String::as_str)))
            .ok();
        taken.push(begun.elapsed().as_secs_f64());
        manager.ctl(["service", "rm", &name]).ok();
    }
    taken.sort_by(f64::total_cmp);
    let worst = taken.last().copied().unwrap_or(f64::NAN);
    println!(
        "\npublished to answering on all four hosts: median {:.3} s, worst of {times} {worst:.3} s",
        median(taken)
    );
    Ok(())
}

/// Asks each until it answers.
fn reach(addresses: &[&str]) -> Result<()> {
    for address in addresses {
        let address: SocketAddr = address.parse()?;
        let begun = Instant::now();
        while !answers(address) {
            ensure!(begun.elapsed() < LIMIT, "{address} does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text.contains("Hello"))
    };
    ask().unwrap_or(false)
}
