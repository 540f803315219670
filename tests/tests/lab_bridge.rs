//! Networks of one host that users make, with the stock docker command line and with ovnctl: on
//! a host that is in no cluster, and on one that is.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use tests::{Host, Lab, Options, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(30);

fn docker(host: &Host, words: &str) -> String {
    host.docker(words.split_whitespace()).ok()
}

fn refused(host: &Host, words: &str, says: &str) {
    let said = host.docker(words.split_whitespace()).failed();
    assert!(said.contains(says), "{words}: {said}");
}

/// Status and body.
fn api(host: &Host, method: &str, path: &str, body: &str) -> (u16, String) {
    let answer = host.api(method, path, body.as_bytes()).unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status, text)
}

/// What a program in the container's network namespace says.
fn within(host: &Host, container: &str, words: &[&str]) -> tests::Output {
    let pid = docker(
        host,
        &format!("inspect --format {{{{.State.Pid}}}} {container}"),
    );
    host.exec([&["nsenter", "-t", &pid, "-n"], words].concat())
}

/// Asks by name, from inside.
fn answers(host: &Host, from: &str, name: &str) -> Result<(), String> {
    let looked = host.docker(["exec", from, "nslookup", name]);
    if !looked.success() {
        return Err(format!("{looked:?}"));
    }
    let url = format!("http://{name}:8080/");
    let asked = host.docker(["exec", from, "wget", "-qO-", "-t1", "-T3", &url]);
    if asked.stdout.contains("Hello") {
        Ok(())
    } else {
        Err(format!("{asked:?}"))
    }
}

/// Whether an address answers a program in the container's network within two seconds.
fn reaches(host: &Host, from: &str, address: &str) -> bool {
    let url = format!("http://{address}/");
    let asked = within(
        host,
        from,
        &["curl", "-s", "-m", "2", "--noproxy", "*", &url],
    );
    asked.stdout.contains("Hello")
}

fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    host.docker(["inspect", "--format", &format, container])
        .ok()
}

/// What the target says to the client.
fn from_outside(lab: &Lab, target: &str) -> String {
    let echo = binary("echo").unwrap();
    let target = format!("tcp://{target}");
    let words = [echo.to_str().unwrap(), "ask", &target];
    lab.host("client").exec(words).stdout
}

#[test]
fn a_host_alone_has_networks_of_its_own() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        ..Options::for_test("bridge-alone")
    })
    .unwrap();
    let host = lab.host("worker01");
    networks_are_made_and_shown(&host);
    containers_find_each_other(&host);
    networks_are_apart(&lab, &host);
    ports_lead_into_them(&lab, &host);
    options_are_followed(&host);
    ipv6_leads_in_and_out(&lab, &host);
    they_come_and_go_with_running_containers(&host);
    they_outlive_the_daemon(&lab, &host);
    they_are_removed(&host);
    lab.down().unwrap();
}

fn networks_are_made_and_shown(host: &Host) {
    // As the SDKs ask: no driver is the driver bridge.
    let body = r#"{"Name":"red","CheckDuplicate":true,"Driver":"","Options":null,"Labels":{"a":"b"},"Attachable":true}"#;
    let (status, said) = api(host, "POST", "/v1.24/networks/create", body);
    assert_eq!(status, 201, "{said}");
    docker(
        host,
        "network create --subnet 10.77.0.0/24 --gateway 10.77.0.254 --ip-range 10.77.0.128/25 \
         --aux-address router=10.77.0.129 -o com.docker.network.bridge.name=br-blue \
         -o com.docker.network.driver.mtu=1400 blue",
    );
    host.ctl(["network", "create", "--internal", "--ipv6", "green"])
        .ok();
    let shown = docker(host, "network inspect blue");
    for words in [
        "\"Scope\": \"local\"",
        "\"Driver\": \"bridge\"",
        "\"Subnet\": \"10.77.0.0/24\"",
        "\"IPRange\": \"10.77.0.128/25\"",
        "\"Gateway\": \"10.77.0.254\"",
        "\"router\": \"10.77.0.129\"",
        "\"com.docker.network.bridge.name\": \"br-blue\"",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    for (filter, names) in [
        ("type=custom", "blue green red"),
        ("driver=bridge", "blue bridge green red"),
        ("label=a=b", "red"),
        ("scope=swarm", ""),
        ("dangling=true", "blue green red"),
    ] {
        let listed = docker(
            host,
            &format!("network ls --filter {filter} --format {{{{.Name}}}}"),
        );
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(listed.join(" "), names, "{filter}");
    }
    for (body, status, words) in [
        (r#"{"Name":"red"}"#, 409, "already exists"),
        (r#"{"Name":"bridge"}"#, 403, "predefined"),
        (
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.77.0.0/25"}]}}"#,
            403,
            "Pool overlaps with other one on this address space",
        ),
        (
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"192.168.77.0/25"}]}}"#,
            403,
            "has a route to",
        ),
        (
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.8.0.1"}]}}"#,
            400,
            "outside subnet",
        ),
        (r#"{"Name":"x","Driver":"macvlan"}"#, 404, "macvlan"),
        (r#"{"Name":"x","Scope":"swarm"}"#, 400, "scope local"),
        (
            r#"{"Name":"x","Options":{"com.docker.network.bridge.name":"eth0"}}"#,
            409,
            "device eth0",
        ),
        (
            r#"{"Name":"x","Options":{"com.docker.network.bridge.enable_icc":"perhaps"}}"#,
            400,
            "true or false",
        ),
    ] {
        let (found, said) = api(host, "POST", "/networks/create", body);
        assert_eq!(found, status, "{body}: {said}");
        assert!(said.contains(words), "{body}: {said}");
    }
}

fn containers_find_each_other(host: &Host) {
    docker(
        host,
        &format!("run -d --name web --network red --network-alias www -p 8081:8080 {ECHO}"),
    );
    docker(
        host,
        &format!("run -d --name near --network red {TOOLBOX} sleep 100000"),
    );
    let id = docker(host, "inspect --format {{.Id}} web");
    for name in ["web", "www", "web.red", &id[..12]] {
        wait::until(name, LIMIT, || answers(host, "near", name));
    }
    docker(
        host,
        &format!("run -d --name fixed --network blue --ip 10.77.0.7 -p 8082:8080 {ECHO}"),
    );
    docker(
        host,
        &format!("run -d --name far --network blue {TOOLBOX} sleep 100000"),
    );
    wait::until("fixed", LIMIT, || answers(host, "far", "fixed"));
    assert_eq!(address(host, "fixed", "blue"), "10.77.0.7");
    assert_eq!(address(host, "far", "blue"), "10.77.0.128");
    for (words, says) in [
        ("--network blue --ip 10.77.0.7", "already in use"),
        ("--network blue --ip 10.78.0.7", "outside 10.77.0.0/24"),
        (
            "--network bridge --ip 172.17.0.9",
            "user specified IP address is supported",
        ),
        ("--network absent", "network absent not found"),
    ] {
        refused(host, &format!("run --rm {words} {TOOLBOX} true"), says);
    }
    // Both families, and no way out.
    docker(host, &format!("run -d --name inner --network green {ECHO}"));
    docker(
        host,
        &format!("run -d --name inner2 --network green {TOOLBOX} sleep 100000"),
    );
    wait::until("inner", LIMIT, || answers(host, "inner2", "inner"));
    let format = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    let ipv6 = host.docker(["inspect", "--format", format, "inner"]).ok();
    assert!(reaches(host, "inner2", &format!("[{ipv6}]:8080")), "{ipv6}");
}

fn networks_are_apart(lab: &Lab, host: &Host) {
    let registry = lab.host("registry").member().address();
    let outside = |from: &str| {
        let url = format!("http://{registry}:5000/v2/");
        let words = [
            "curl",
            "-s",
            "-m",
            "2",
            "-o",
            "/dev/null",
            "--noproxy",
            "*",
            &url,
        ];
        within(host, from, &words).success()
    };
    assert!(outside("near") && outside("far"), "by way of this host");
    assert!(!outside("inner2"), "the network is internal");
    let web = address(host, "web", "red");
    assert!(reaches(host, "near", &format!("{web}:8080")));
    for from in ["far", "inner2"] {
        assert!(!reaches(host, from, &format!("{web}:8080")), "{from}");
        assert!(answers(host, from, "web").is_err(), "{from}");
    }
    let inner = address(host, "inner", "green");
    assert!(!reaches(host, "near", &format!("{inner}:8080")));
}

fn ports_lead_into_them(lab: &Lab, host: &Host) {
    let own = host.member().address();
    for port in [8081, 8082] {
        let target = format!("{own}:{port}");
        wait::until(&target, LIMIT, || {
            let said = from_outside(lab, &target);
            if said.contains("failed") || said.is_empty() {
                Err(said)
            } else {
                Ok(())
            }
        });
        let local = format!("http://127.0.0.1:{port}/");
        let said = host.exec(["curl", "-s", "-m", "5", "--noproxy", "*", &local]);
        assert!(said.stdout.contains("Hello"), "{said:?}");
        assert!(reaches(host, "far", &target), "from another network");
    }
}

fn options_are_followed(host: &Host) {
    let links = host.exec(["ip", "-o", "link", "show", "br-blue"]).ok();
    assert!(
        links.contains("mtu 1400") && links.contains("state UP"),
        "{links}"
    );
    let inside = docker(host, "exec far ip -o link show eth0");
    assert!(inside.contains("mtu 1400"), "{inside}");
    docker(
        host,
        "network create -o com.docker.network.bridge.enable_icc=false lonely",
    );
    docker(host, &format!("run -d --name one --network lonely {ECHO}"));
    docker(
        host,
        &format!("run -d --name two --network lonely {TOOLBOX} sleep 100000"),
    );
    let one = address(host, "one", "lonely");
    assert!(!reaches(host, "two", &format!("{one}:8080")));
    docker(host, "rm -f one two");
    docker(host, "network rm lonely");
    docker(
        host,
        "network create -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 \
         -o com.docker.network.bridge.enable_ip_masquerade=false bound",
    );
    docker(
        host,
        &format!("run -d --name bound1 --network bound -p 8083:8080 {ECHO}"),
    );
    let port = docker(host, "port bound1 8080");
    assert_eq!(port, "127.0.0.1:8083");
    docker(host, "rm -f bound1");
    docker(host, "network rm bound");
}

fn ipv6_leads_in_and_out(lab: &Lab, host: &Host) {
    docker(host, "network create --ipv6 --subnet fd00:5::/64 six");
    docker(
        host,
        &format!("run -d --name six1 --network six -p 8084:8080 {ECHO}"),
    );
    let target = format!("[{}]:8084", host.member().address6());
    wait::until(&target, LIMIT, || {
        let said = from_outside(lab, &target);
        let fine = !said.is_empty() && !said.contains("failed");
        fine.then_some(()).ok_or(said)
    });
    let registry = lab.host("registry").member().address6();
    let url = format!("http://[{registry}]:5000/v2/");
    let words = [
        "curl",
        "-s",
        "-m",
        "2",
        "-o",
        "/dev/null",
        "--noproxy",
        "*",
        &url,
    ];
    assert!(
        within(host, "six1", &words).success(),
        "by way of this host"
    );
    docker(host, "rm -f six1");
    docker(host, "network rm six");
}

fn they_come_and_go_with_running_containers(host: &Host) {
    docker(host, "network connect --ip 10.77.0.9 --alias w2 blue web");
    for name in ["web", "w2"] {
        wait::until(name, LIMIT, || answers(host, "far", name));
    }
    answers(host, "near", "web").unwrap();
    assert_eq!(address(host, "web", "blue"), "10.77.0.9");
    let routes = within(host, "web", &["ip", "route"]).ok();
    assert_eq!(routes.matches("default via").count(), 1, "{routes}");
    docker(host, "network disconnect blue web");
    wait::until("web is gone from blue", LIMIT, || {
        answers(host, "far", "web").err().ok_or("it answers")
    });
    // From the start on two.
    docker(host, "rm -f near");
    docker(
        host,
        &format!("create --name near --network red {TOOLBOX} sleep 100000"),
    );
    docker(host, "network connect blue near");
    docker(host, "start near");
    for name in ["web", "fixed"] {
        wait::until(name, LIMIT, || answers(host, "near", name));
    }
    docker(host, "network disconnect blue near");
}

fn they_outlive_the_daemon(lab: &Lab, host: &Host) {
    let before = docker(host, "network inspect red blue green");
    host.kill().unwrap();
    host.start().unwrap();
    assert_eq!(docker(host, "network inspect red blue green"), before);
    answers(host, "near", "www").unwrap();
    answers(host, "far", "fixed").unwrap();
    let own = host.member().address();
    assert!(!from_outside(lab, &format!("{own}:8081")).contains("failed"));
    // And the host: its networks are there again before a container is.
    host.crash().unwrap();
    host.start().unwrap();
    host.exec(["ip", "link", "show", "br-blue"]).ok();
    for name in ["web", "near", "fixed", "far"] {
        docker(host, &format!("start {name}"));
    }
    wait::until("www", LIMIT, || answers(host, "near", "www"));
    wait::until("fixed", LIMIT, || answers(host, "far", "fixed"));
    assert_eq!(address(host, "fixed", "blue"), "10.77.0.7");
}

fn they_are_removed(host: &Host) {
    refused(host, "network rm red", "has active endpoints");
    let (status, said) = api(host, "DELETE", "/networks/red", "");
    assert_eq!(status, 403, "{said}");
    assert_eq!(api(host, "DELETE", "/networks/absent", "").0, 404);
    refused(host, "network rm bridge", "pre-defined");
    docker(host, "rm -f web near fixed far");
    docker(host, "network rm blue");
    let gone = host.exec(["ip", "link", "show", "br-blue"]);
    assert!(!gone.success(), "{gone:?}");
    let pruned = docker(host, "network prune -f");
    for name in ["red", "green"] {
        assert!(pruned.contains(name), "{pruned}");
    }
    let left = docker(host, "network ls --filter type=custom --format {{.Name}}");
    assert_eq!(left, "");
    docker(host, "network create brief");
    docker(host, "network rm brief");
    // The client asks up to the last whole second.
    wait::until("its events", LIMIT, || {
        let events = docker(
            host,
            "events --since 1h --until 0s --filter network=brief --format {{.Action}}:{{.Actor.Attributes.type}}",
        );
        let both = events == "create:bridge\ndestroy:bridge";
        both.then_some(()).ok_or(events)
    });
    let devices = host.exec(["ip", "-o", "link"]).ok();
    assert!(!devices.contains("ovtb"), "{devices}");
}

#[test]
fn a_hosts_own_networks_stand_beside_the_clusters() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("bridge-beside")
    })
    .unwrap();
    let (manager, worker) = (lab.host("manager01"), lab.host("worker01"));
    docker(&manager, "network create -d overlay --attachable wide");
    for host in [&manager, &worker] {
        docker(host, "network create mine");
        refused(host, "network create wide", "already exists in the cluster");
    }
    refused(
        &manager,
        "network create -d overlay mine",
        "already exists on this host",
    );
    let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let words = ["network", "inspect", "--format", format, "wide"];
    let subnet = manager.docker(words).ok();
    let words = ["network", "create", "--subnet", &subnet, "clash"];
    let said = manager.docker(words).failed();
    assert!(said.contains("network wide"), "{said}");
    let body = format!(
        r#"{{"Name":"s","TaskTemplate":{{"ContainerSpec":{{"Image":"{ECHO}"}},"Networks":[{{"Target":"mine"}}]}}}}"#
    );
    let (status, said) = api(&manager, "POST", "/services/create", &body);
    assert_eq!(status, 403, "{said}");
    assert!(said.contains("cannot be used with services"), "{said}");
    // One container on both: found on each by those who are there.
    docker(
        &manager,
        &format!("run -d --name web --network wide {ECHO}"),
    );
    docker(&manager, "network connect mine web");
    docker(
        &manager,
        &format!("run -d --name near --network mine {TOOLBOX} sleep 100000"),
    );
    docker(
        &worker,
        &format!("run -d --name far --network wide {TOOLBOX} sleep 100000"),
    );
    docker(
        &worker,
        &format!("run -d --name other --network mine {TOOLBOX} sleep 100000"),
    );
    wait::until("web from near", LIMIT, || answers(&manager, "near", "web"));
    wait::until("web from far", LIMIT, || answers(&worker, "far", "web"));
    assert!(answers(&worker, "other", "web").is_err(), "another host's");
    manager.kill().unwrap();
    manager.start().unwrap();
    answers(&manager, "near", "web").unwrap();
    lab.down().unwrap();
}
