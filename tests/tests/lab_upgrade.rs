//! A cluster is upgraded host by host, as docs/howto/upgrade.md says, and loses no request. With
//! OVN_PREVIOUS=FOLDER the hosts begin with the ovnd that lies there (scripts/upgrade-test builds
//! it); without, both builds are this one, and what is proved is the way, not the formats.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{Host, Lab, Options, lab::binary, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(90);
const NODES: [&str; 5] = [
    "manager01",
    "manager02",
    "manager03",
    "worker01",
    "worker02",
];

fn previous() -> PathBuf {
    let own = || binary("ovnd").unwrap();
    let Some(folder) = std::env::var_os("OVN_PREVIOUS") else {
        eprintln!("no OVN_PREVIOUS: both builds are this one");
        return own();
    };
    let program = Path::new(&folder).join("ovnd");
    let program = fs::canonicalize(&program);
    let program = program.unwrap_or_else(|error| panic!("OVN_PREVIOUS has no ovnd: {error}"));
    let same = fs::read(&program).unwrap() == fs::read(own()).unwrap();
    assert!(!same, "OVN_PREVIOUS has this build's ovnd");
    program
}

#[test]
fn a_rolling_upgrade_loses_no_request() {
    let previous = previous();
    let lab = Lab::up(Options {
        managers: 3,
        workers: 2,
        daemon: Some(previous.clone()),
        ..Options::for_test("upgrade")
    })
    .unwrap();
    until_whole(&lab, "the cluster is whole");
    work_begins(&lab);
    let upgraded = under_load(&lab, || follow_the_page(&lab, &previous));
    assert_eq!(upgraded, BTreeSet::from(NODES.map(str::to_owned)));
    for name in NODES {
        let format = fs::read_to_string(lab.host(name).dir().join("lib/format.json")).unwrap();
        assert!(format.starts_with("{\"format\":"), "{format}");
    }
    what_is_new_works(&lab);
    lab.down().unwrap();
}

/// Every line of the page's consoles, in their order; the hosts that were upgraded.
fn follow_the_page(lab: &Lab, previous: &Path) -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/howto/upgrade.md");
    let page = fs::read_to_string(page).unwrap();
    let before = started(lab);
    let (mut upgraded, mut console) = (BTreeSet::new(), false);
    for line in page.lines().map(str::trim) {
        if line.starts_with("```") {
            console = line == "```console";
            continue;
        }
        if !console {
            continue;
        }
        let (name, command) = line.split_once(['$', '#']).unwrap();
        let host = lab.host(name);
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["apt-get", "install", _] => {
                restart_with(&host, &binary("ovnd").unwrap());
                upgraded.insert(name.to_owned());
                until_whole(lab, &format!("all are back after {name}"));
                a_mixed_cluster_works(lab, upgraded.len());
                if upgraded.len() == 1 {
                    // And back again, as long as the formats are the same.
                    restart_with(&host, previous);
                    until_whole(lab, "worker01 is back with the build before");
                    restart_with(&host, &binary("ovnd").unwrap());
                    until_whole(lab, "and has the new one again");
                }
            }
            // The lab's kernel has findings of its own; that it answers is what counts.
            ["ovnctl", "doctor", ..] => {
                let said = host.ctl(&words[1..]);
                assert!(said.status <= 1, "{said:?}");
            }
            ["ovnctl", "node", "update", "--availability", "drain", name] => {
                // It is for whoever wants a host empty: until here everything has gone on.
                let lost: Vec<_> = before.difference(&started(lab)).cloned().collect();
                assert!(lost.is_empty(), "restarted or gone: {lost:?}");
                host.ctl(&words[1..]).ok();
                until_replicas(&host, "echo", "4/4");
                host.ctl(["node", "update", "--availability", "active", name])
                    .ok();
                until_replicas(&host, "echo", "5/5");
            }
            ["ovnctl", rest @ ..] => drop(host.ctl(rest).ok()),
            _ => panic!("what is {command:?}?"),
        }
    }
    upgraded
}

/// What the package does: other files, then a restart of the service.
fn restart_with(host: &Host, program: &Path) {
    host.exchange_daemon(program).unwrap();
    let begun = Instant::now();
    host.stop().unwrap();
    host.start().unwrap();
    let runs = fs::read_link(format!("/proc/{}/exe", host.daemon_pid().unwrap())).unwrap();
    assert_eq!(runs, fs::canonicalize(program).unwrap());
    eprintln!("{} restarted in {:?}", host.name(), begun.elapsed());
}

fn until_whole(lab: &Lab, what: &str) {
    let wanted = NODES.map(|name| {
        let manager = name.starts_with("manager");
        let role = if manager { "Reachable" } else { "" };
        format!("{name} Ready {role}").trim_end().to_owned()
    });
    // Each manager's own word: one that has just come back has not seen all at once.
    for name in &NODES[..3] {
        let host = lab.host(name);
        wait::until(&format!("{what}, says {name}"), LIMIT, || {
            let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
            let listed = host.ctl(["node", "ls", "--format", format]).stdout;
            let seen = listed.replace("Leader", "Reachable");
            let seen: BTreeSet<&str> = seen.lines().map(str::trim).collect();
            let all = wanted.iter().all(|line| seen.contains(line.as_str()));
            all.then_some(()).ok_or(listed)
        });
    }
}

fn until_replicas(host: &Host, service: &str, wanted: &str) {
    wait::until(&format!("{service} has {wanted}"), LIMIT, || {
        let filter = format!("name={service}");
        let words = [
            "service",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Replicas}}",
        ];
        let listed = host.ctl(words);
        let there = listed.stdout.trim().starts_with(wanted);
        there.then_some(()).ok_or_else(|| {
            let tasks = host.ctl(["service", "ps", "--no-trunc", service]);
            format!("{listed:?} {}", tasks.stdout)
        })
    });
}

fn work_begins(lab: &Lab) {
    let any = lab.host("manager01");
    any.ctl(["network", "create", "-d", "overlay", "--attachable", "net1"])
        .ok();
    let secret = lab.dir().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    any.ctl(["secret", "create", "word", &secret.display().to_string()])
        .ok();
    let words = "service create -d --network net1 --secret word --mode global --publish 8000:8080 --name echo";
    any.ctl(words.split(' ').chain([ECHO])).ok();
    until_replicas(&any, "echo", "5/5");
    let words = "service create -d --network net1 --replicas 2 --name other";
    any.ctl(words.split(' ').chain([ECHO])).ok();
    until_replicas(&any, "other", "2/2");
    let run = "run -d --name asker --network net1";
    for name in ["worker01", "worker02"] {
        let run = run.split(' ').chain([TOOLBOX, "sleep", "100000"]);
        lab.host(name).ctl(run).ok();
        wait::until("the service answers", LIMIT, || by_name(&lab.host(name)));
    }
    wait::until("every host publishes", LIMIT, || {
        lab.host("client")
            .within(|| NODES.iter().try_for_each(|name| published(lab, name)))
            .unwrap()
    });
}

/// Containers that have to go on, with the moment at which they were started.
fn started(lab: &Lab) -> BTreeSet<String> {
    let of = |name: &&str| {
        let host = lab.host(name);
        let ids = host.ctl(["ps", "-q", "--no-trunc"]).ok();
        let inspect = |id: &str| {
            let format = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
            host.ctl(["inspect", "--format", format, id]).ok()
        };
        ids.lines().map(inspect).collect::<Vec<_>>()
    };
    let all = NODES.iter().flat_map(of);
    all.filter(|line| line.contains("echo") || line.contains("asker"))
        .collect()
}

/// From a container, by the service's name.
fn by_name(host: &Host) -> Result<(), String> {
    let words = "exec asker wget -T 10 -qO- http://echo:8080";
    let said = host.ctl(words.split(' '));
    if said.stdout == "Hello Docker!!" {
        return Ok(());
    }
    Err(format!("{said:?}"))
}

/// From outside, by a host's published port; in the client's network.
fn published(lab: &Lab, name: &str) -> Result<(), String> {
    let address: Ipv4Addr = lab.host(name).member().address();
    let asked = || {
        let address = SocketAddr::from((address, 8000));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    match asked() {
        Ok(answer) if answer.contains("Hello Docker!!") => Ok(()),
        other => Err(format!("{name}: {other:?}")),
    }
}

/// Asks all the while: published ports of every host from outside, and the service by its name from
/// a container whose API is there (nobody can be asked to start a program by a daemon that restarts,
/// so a loop within the containers asks). None of the questions may fail.
fn under_load<T: Send>(lab: &Lab, what: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let loops: Vec<_> = ["worker01", "worker02"]
        .map(|name| InContainer::start(&lab.host(name)))
        .into();
    let client = lab.host("client");
    std::thread::scope(|scope| {
        let outside = scope.spawn(|| {
            let ask = || {
                let mut failed = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    for name in NODES {
                        if let Err(why) = published(lab, name) {
                            failed.push(why);
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                failed
            };
            client.within(ask).unwrap()
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        end.store(true, Ordering::Relaxed);
        let failed = outside.join().unwrap();
        let inside: Vec<_> = loops.into_iter().map(InContainer::end).collect();
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let asked = asked.load(Ordering::Relaxed);
        eprintln!("asked {asked} times from outside, from containers: {inside:?} (answered, lost)");
        assert!(failed.is_empty(), "{} lost: {failed:?}", failed.len());
        assert!(asked > 200, "{asked}");
        for (answered, lost) in inside {
            assert_eq!(lost, 0);
            assert!(answered > 50, "{answered}");
        }
        done
    })
}

/// A loop in the container `asker` that asks by name and by virtual address, new each time.
struct InContainer(std::process::Child);

impl InContainer {
    fn start(host: &Host) -> Self {
        let pid = host
            .ctl(["inspect", "--format", "{{.State.Pid}}", "asker"])
            .ok();
        // A process of the host within the container's namespaces: it needs no daemon. It ends with
        // a signal, since the shell's `read -t` forgets a word that comes as its time is up.
        let script = "trap end=1 TERM; n=0; lost=0; while [ -z \"$end\" ]; do sleep 0.05; \
            if wget -T 10 -qO- http://echo:8080 2>/dev/null | grep -q Hello; then n=$((n+1)); else lost=$((lost+1)); fi; \
            done; echo $n $lost";
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid, "-n", "-m", "--", "sh", "-c", script])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped());
        Self(host.spawn(command).unwrap())
    }

    /// How many were answered, and how many were not.
    fn end(self) -> (u64, u64) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (answered, lost) = text.trim().split_once(' ').unwrap();
        (answered.parse().unwrap(), lost.parse().unwrap())
    }
}

/// Everyday changes while hosts are of two builds, asked of another manager each time.
fn a_mixed_cluster_works(lab: &Lab, step: usize) {
    let any = lab.host(NODES[step % 3]);
    let network = format!("step{step}");
    any.ctl([
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        &network,
    ])
    .ok();
    let replicas = if step.is_multiple_of(2) { "2" } else { "4" };
    any.ctl(["service", "scale", "-d", &format!("other={replicas}")])
        .ok();
    until_replicas(&any, "other", &format!("{replicas}/{replicas}"));
    for name in ["worker01", "worker02", "manager02"] {
        let run = ["run", "-d", "--name", "passing", "--network", &network];
        lab.host(name)
            .ctl(run.iter().chain(&[TOOLBOX, "sleep", "100000"]))
            .ok();
    }
    for (from, to) in [
        ("worker01", "worker02"),
        ("worker02", "manager02"),
        ("manager02", "worker01"),
    ] {
        let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        let address = lab
            .host(to)
            .ctl(["inspect", "--format", &format, "passing"])
            .ok();
        let host = lab.host(from);
        wait::until(
            &format!("{from} reaches {to} over a new network"),
            LIMIT,
            || {
                let said = host.ctl(["exec", "passing", "ping", "-c", "1", "-W", "1", &address]);
                said.success().then_some(()).ok_or(said)
            },
        );
    }
    for name in ["worker01", "worker02", "manager02"] {
        lab.host(name).ctl(["rm", "-f", "passing"]).ok();
    }
    any.ctl(["network", "rm", &network]).ok();
    let logs = any.ctl(["service", "logs", "echo"]);
    assert!(logs.success(), "{logs:?}");
    let task = any.ctl([
        "service",
        "ps",
        "-q",
        "--filter",
        "desired-state=running",
        "echo",
    ]);
    assert_eq!(task.ok().lines().count(), 5);
    let secret = lab
        .host("worker01")
        .ctl(["ps", "-q", "--filter", "name=echo"])
        .ok();
    let read = ["exec", secret.trim(), "cat", "/run/secrets/word"];
    assert_eq!(lab.host("worker01").ctl(read).ok(), "s3cret");
}

/// What only this build knows of is there when all hosts have it.
fn what_is_new_works(lab: &Lab) {
    let one = lab.host("manager01");
    let words = "network create -d overlay --attachable --opt encrypted secret";
    one.ctl(words.split(' ')).ok();
    for name in ["manager01", "worker02"] {
        let run = "run -d --name encrypted --network secret";
        let run = run.split(' ').chain([TOOLBOX, "sleep", "100000"]);
        lab.host(name).ctl(run).ok();
    }
    let format = "{{.NetworkSettings.Networks.secret.IPAddress}}";
    let address = one.ctl(["inspect", "--format", format, "encrypted"]).ok();
    wait::until("an encrypted network works", LIMIT, || {
        let words = ["exec", "encrypted", "ping", "-c", "1", "-W", "1", &address];
        let said = lab.host("worker02").ctl(words);
        said.success().then_some(()).ok_or(said)
    });
}

#[test]
fn a_downgrade_is_refused_with_its_reason() {
    let lab = Lab::up(Options {
        workers: 1,
        cluster: false,
        daemon: Some(binary("ovnd").unwrap()),
        ..Options::for_test("downgrade")
    })
    .unwrap();
    let host = lab.host("worker01");
    let run = ["run", "-d", "--name", "web", ECHO];
    host.ctl(run).ok();
    let inspect = ["inspect", "--format", "{{.State.Pid}}", "web"];
    let web = host.ctl(inspect).ok();
    let file = host.dir().join("lib/format.json");
    let own = fs::read_to_string(&file).unwrap();
    host.stop().unwrap();
    let later = r#"{"format":4000000000,"by":"9.8.7"}"#;
    fs::write(&file, later).unwrap();
    let ovnd = binary("ovnd").unwrap().display().to_string();
    for words in [vec![ovnd.as_str()], vec![ovnd.as_str(), "settings"]] {
        let said = host.exec(&words);
        assert_eq!(said.status, 78, "{said:?}");
        let why = said.failed();
        for part in [
            "the data in /var/lib/overnet has format 4000000000, made by ovnd 9.8.7",
            "Install ovnd 9.8.7 or later",
            "containers go on",
        ] {
            assert!(why.contains(part), "{why}");
        }
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        later,
        "nothing was changed"
    );
    assert!(
        host.exec(["kill", "-0", &web]).success(),
        "the container goes on"
    );
    fs::write(&file, own).unwrap();
    host.start().unwrap();
    assert_eq!(host.ctl(inspect).ok(), web, "and is found again");
    lab.down().unwrap();
}
