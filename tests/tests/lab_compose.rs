//! Compose files against a real cluster beyond the plain case: what changed content, pruning,
//! a deploy that stops in the middle, a killed manager and bad files come to.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use tests::{Host, Lab, Options, Output, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn stacks_change_and_survive() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("compose")
    })
    .unwrap();
    let folder = lab.dir().join("compose");
    fs::create_dir(&folder).unwrap();
    let files = Files {
        manager: lab.host("manager01"),
        folder,
    };
    what_a_file_becomes_is_told(&files);
    changed_content_rolls_the_services(&files);
    every_key_that_is_honoured_stays(&files);
    services_that_left_the_file_are_pruned(&files);
    a_deploy_that_stopped_goes_on(&files);
    services_wait_for_what_they_depend_on(&files);
    bad_files_create_nothing(&files);
    whose_api_socket_a_container_sees(&files);
    a_manager_killed_in_mid_deploy(&files);
    lab.down().unwrap();
}

/// A folder of compose files, and the host that deploys them.
struct Files {
    manager: Host,
    folder: PathBuf,
}

impl Files {
    fn write(&self, name: &str, text: &str) -> String {
        let file = self.folder.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn ctl(&self, args: &[&str]) -> Output {
        self.manager.ctl(args)
    }

    fn stack(&self, word: &str, file: &str, name: &str) -> Output {
        self.ctl(&["stack", word, "-c", file, name])
    }

    /// Tasks of the stack that shall run, as `ID NAME`; fails while one of them does not.
    fn tasks(&self, stack: &str) -> Result<BTreeSet<String>, String> {
        let filter = "desired-state=running";
        let format = "{{.ID}} {{.Name}} {{.CurrentState}}";
        let listed = self.ctl(&[
            "stack",
            "ps",
            "--no-trunc",
            "--filter",
            filter,
            "--format",
            format,
            stack,
        ]);
        if !listed.success() || !listed.stdout.lines().all(|line| line.contains(" Running ")) {
            return Err(format!("{listed:?}"));
        }
        let first = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Ok(listed.stdout.lines().map(first).collect())
    }

    fn until_tasks(&self, stack: &str, count: usize) -> BTreeSet<String> {
        wait::until(&format!("{count} tasks of {stack} run"), LIMIT, || {
            let tasks = self.tasks(stack)?;
            if tasks.len() == count {
                Ok(tasks)
            } else {
                Err(format!("{tasks:?}"))
            }
        })
    }

    fn remove(&self, stack: &str) {
        self.ctl(&["stack", "rm", "--detach=false", stack]).ok();
    }

    /// Everything of the cluster that a deploy could make.
    fn inventory(&self) -> String {
        let mut all = String::new();
        for kind in ["service", "network", "secret", "config"] {
            let format = if kind == "service" {
                "{{.ID}} {{.Name}}"
            } else {
                "{{.ID}}"
            };
            let listed = self.ctl(&[kind, "ls", "--format", format]).ok();
            let mut lines: Vec<&str> = listed.lines().collect();
            lines.sort_unstable();
            writeln!(all, "{kind}: {}", lines.join(", ")).unwrap();
        }
        all
    }
}

const SHOP: &str = r#"
services:
  web:
    image: registry:5000/example/toolbox
    command: sh -c "cat /site /run/secrets/key; exec sleep 100000"
    stop_grace_period: 1s
    configs: [{source: site, target: /site}]
    secrets: [key]
    deploy: {replicas: 2, update_config: {order: start-first}}
  still:
    image: registry:5000/example/echo
    environment: {TOKEN: private}
    deploy: {placement: {constraints: [node.role == worker]}}
configs: {site: {file: site.conf}}
secrets: {key: {file: key.txt}}
"#;

fn what_a_file_becomes_is_told(files: &Files) {
    files.write("site.conf", "site one\n");
    files.write("key.txt", "key one\n");
    let file = files.write("shop.yml", SHOP);
    let before = files.inventory();
    let explain = ["stack", "config", "--explain", "-c", &file, "shop"];
    assert_eq!(
        files.ctl(&explain).ok(),
        "stack shop
  network shop_default: overlay
  secret shop_key: 8 bytes
  config shop_site: 9 bytes
  service shop_web
    image: registry:5000/example/toolbox
    tasks: 2
    arguments: sh, -c, cat /site /run/secrets/key; exec sleep 100000
    networks: shop_default (also as web)
    secrets: shop_key as key
    configs: shop_site as /site
  service shop_still
    image: registry:5000/example/echo
    tasks: 1
    where: node.role == worker
    variables: TOKEN
    networks: shop_default (also as still)
  created in this order: shop_web, shop_still"
    );
    assert_eq!(
        files.stack("diff", &file, "shop").ok(),
        "+ network shop_default
+ secret shop_key
+ config shop_site
+ service shop_web
+ service shop_still"
    );
    assert_eq!(files.inventory(), before, "nothing was created");
}

fn changed_content_rolls_the_services(files: &Files) {
    let file = files.folder.join("shop.yml").display().to_string();
    let deploy = ["stack", "deploy", "--detach=false", "-c", &file, "shop"];
    let printed = files.ctl(&deploy).ok();
    assert!(printed.contains("verify: Service"), "{printed}");
    let before = files.until_tasks("shop", 3);
    assert_eq!(
        files.stack("diff", &file, "shop").ok(),
        "= service shop_web\n= service shop_still"
    );
    let printed = files.stack("deploy", &file, "shop").ok();
    assert_eq!(printed.matches("nothing changed").count(), 2, "{printed}");
    assert_eq!(files.until_tasks("shop", 3), before);

    files.write("site.conf", "site two\n");
    files.write("key.txt", "key two\n");
    let diff = files.stack("diff", &file, "shop").ok();
    for line in [
        "+ secret shop_key.",
        "+ config shop_site.",
        "~ service shop_web",
        "= service shop_still",
    ] {
        assert!(diff.contains(line), "{line} is not in {diff}");
    }
    assert!(!diff.contains("private") && !diff.contains("two"), "{diff}");
    files.ctl(&deploy).ok();
    let after = files.until_tasks("shop", 3);
    let same = |name: &str| -> Vec<_> {
        before
            .intersection(&after)
            .filter(|task| task.contains(name))
            .collect()
    };
    assert_eq!((same("shop_web").len(), same("shop_still").len()), (0, 1));
    wait::until("the new tasks have the new content", LIMIT, || {
        let logs = files.ctl(&["service", "logs", "--raw", "shop_web"]).ok();
        match logs.matches("site two\nkey two").count() {
            2 => Ok(()),
            _ => Err(logs),
        }
    });
    // The versions before stay for a rollback, and go when nothing could need them.
    let names = |kind: &str| files.ctl(&[kind, "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(names("config").lines().count(), 2);
    files.write("site.conf", "site three\n");
    files
        .ctl(&[
            "stack",
            "deploy",
            "--prune",
            "--detach=false",
            "-c",
            &file,
            "shop",
        ])
        .ok();
    assert_eq!(names("config").lines().count(), 2, "{}", names("config"));
    assert!(!names("config").lines().any(|name| name == "shop_site"));
    // Content that comes back finds its object again.
    files.write("site.conf", "site two\n");
    files.stack("deploy", &file, "shop").ok();
    assert_eq!(names("config").lines().count(), 2, "{}", names("config"));
    files.until_tasks("shop", 3);
    files.remove("shop");
    assert_eq!(names("config") + &names("secret"), "");
}

/// One of each; none has tasks, because some ask for what these hosts do not have.
const EVERYTHING: &str = r#"
services:
  all:
    image: registry:5000/example/toolbox
    entrypoint: [sh, -c]
    command: ["exec sleep 100000"]
    annotations: {a: b}
    cap_add: [NET_ADMIN]
    cap_drop: [CHOWN]
    configs: [{source: c, target: /etc/c, uid: "7", gid: "8", mode: 0400}]
    secrets: [s, {source: t, target: other, mode: 0440}]
    cpus: 0.5
    mem_limit: 64m
    pids_limit: 50
    depends_on: [small]
    dns: 192.0.2.1
    dns_opt: [ndots:2]
    dns_search: [example.org]
    environment: {A: "1", B: }
    extra_hosts: ["host1:192.0.2.2", "six=2001:db8::1"]
    group_add: [audio, "44"]
    healthcheck: {test: [CMD, "true"], interval: 1m30s, timeout: 3s, retries: 4, start_period: 10s, start_interval: 2s}
    hostname: "{{.Node.Hostname}}"
    init: true
    labels: [x=y]
    logging: {driver: json-file, options: {max-size: 1m}}
    networks: {front: {aliases: [www]}, back: }
    oom_score_adj: 100
    platform: linux/amd64
    ports:
      - 8201-8202:81-82
      - {target: 53, published: 8253, protocol: udp, mode: ingress, name: dns}
    read_only: true
    security_opt: [no-new-privileges, "seccomp:unconfined"]
    shm_size: 16m
    stdin_open: true
    stop_grace_period: 12s
    stop_signal: SIGINT
    sysctls: {net.core.somaxconn: 1024}
    tmpfs: /run
    tty: true
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 300}
    user: "7:8"
    working_dir: /tmp
    volumes:
      - data:/data:nocopy
      - /tmp:/host:ro,rslave
      - {type: tmpfs, target: /fast, tmpfs: {size: 1m, mode: 01777}}
      - {type: volume, source: labelled, target: /labelled, volume: {nocopy: true}}
      - {type: bind, source: /var, target: /var2, bind: {propagation: rprivate, create_host_path: true, recursive: disabled}}
    deploy:
      replicas: 0
      endpoint_mode: vip
      labels: {service: label}
      update_config: {parallelism: 0, delay: 1s, failure_action: rollback, monitor: 2s, max_failure_ratio: 0.3333333, order: start-first}
      rollback_config: {parallelism: 2, order: stop-first}
      resources:
        limits: {cpus: "1.5", memory: 128m, pids: 60}
        reservations:
          cpus: "0.25"
          memory: 32m
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      restart_policy: {condition: on-failure, delay: 3s, max_attempts: 4, window: 1m}
      placement:
        constraints: [node.role == worker, node.labels.zone != z]
        preferences: [{spread: node.labels.zone}]
        max_replicas_per_node: 3
  small:
    image: registry:5000/example/toolbox:latest
    restart: on-failure:3
    healthcheck: {disable: true}
    networks: [front]
    deploy: {replicas: 0, update_config: {delay: 0s}, rollback_config: {max_failure_ratio: 1}}
  rr:
    image: registry:5000/example/toolbox
    restart: "no"
    deploy: {replicas: 0, endpoint_mode: dnsrr, update_config: {order: stop-first}, restart_policy: {condition: any}}
  host:
    image: registry:5000/example/toolbox
    network_mode: host
    scale: 0
  job:
    image: registry:5000/example/toolbox
    command: "true"
    deploy: {mode: replicated-job, placement: {constraints: [node.role == none]}}
  everywhere:
    image: registry:5000/example/toolbox
    deploy: {mode: global-job, placement: {constraints: [node.role == none]}}
networks:
  front: {attachable: true, labels: {n: m}}
  back: {internal: true, driver_opts: {com.docker.network.driver.mtu: "1400"}, ipam: {config: [{subnet: 10.99.0.0/24}]}}
volumes: {data: , labelled: {labels: {v: w}}}
configs: {c: {content: some text, labels: {c: d}}}
secrets: {s: {file: key.txt}, t: {file: key.txt, labels: {t: u}}}
"#;

/// What the cluster stores is what the file asks for: a second deploy finds no difference.
fn every_key_that_is_honoured_stays(files: &Files) {
    let file = files.write("everything.yml", EVERYTHING);
    let done = files.stack("deploy", &file, "every");
    assert_eq!(
        done.clone().ok().matches("Creating service").count(),
        6,
        "{done:?}"
    );
    let warned = done.stderr.lines().collect::<Vec<_>>();
    assert!(
        warned.len() == 1 && warned[0].contains("services.all.annotations"),
        "{warned:?}"
    );
    let diff = files.stack("diff", &file, "every").ok();
    assert!(
        diff.lines()
            .all(|line| line.starts_with("= service every_")),
        "{diff}"
    );
    assert_eq!(diff.lines().count(), 6, "{diff}");
    files.remove("every");
}

fn services_that_left_the_file_are_pruned(files: &Files) {
    let service = |name: &str| format!("  {name}: {{image: '{ECHO}', stop_grace_period: 1s}}\n");
    let two = files.write(
        "two.yml",
        &format!("services:\n{}{}", service("a"), service("b")),
    );
    let one = files.write("one.yml", &format!("services:\n{}", service("a")));
    files.stack("deploy", &two, "p").ok();
    let before = files.until_tasks("p", 2);
    assert_eq!(
        files.stack("diff", &one, "p").ok(),
        "= service p_a\n- service p_b"
    );
    // Without being asked nothing goes.
    files.stack("deploy", &one, "p").ok();
    assert_eq!(files.until_tasks("p", 2), before);
    let printed = files
        .ctl(&["stack", "deploy", "--prune", "-c", &one, "p"])
        .ok();
    assert!(printed.contains("Removing service p_b"), "{printed}");
    let after = files.until_tasks("p", 1);
    assert!(before.is_superset(&after));
    files.remove("p");
}

fn a_deploy_that_stopped_goes_on(files: &Files) {
    files
        .ctl(&[
            "service",
            "create",
            "-d",
            "--name",
            "taken",
            "-p",
            "8100:8080",
            ECHO,
        ])
        .ok();
    let file = files.write(
        "middle.yml",
        &format!(
            "services:\n  a: {{image: '{ECHO}'}}\n  b: {{image: '{ECHO}', ports: ['8100:8080'], depends_on: [a]}}\n  c: {{image: '{ECHO}', depends_on: [b]}}\n"
        ),
    );
    let said = files.stack("deploy", &file, "m").failed();
    for words in [
        "failed to create service m_b",
        "8100",
        "taken",
        "created before that: network m_default, service m_a",
        "the next deploy of the same files goes on from here",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let first = files.until_tasks("m", 1);
    files.ctl(&["service", "rm", "taken"]).ok();
    let printed = files.stack("deploy", &file, "m").ok();
    assert!(
        printed.contains("m_a") && printed.contains("nothing changed"),
        "{printed}"
    );
    let all = files.until_tasks("m", 3);
    assert!(all.is_superset(&first), "{all:?} {first:?}");
    files.remove("m");
}

fn services_wait_for_what_they_depend_on(files: &Files) {
    let file = files.write(
        "order.yml",
        &format!(
            "services:
  web:
    image: {ECHO}
    depends_on:
      prepare: {{condition: service_completed_successfully}}
      db: {{condition: service_healthy}}
  db:
    image: {TOOLBOX}
    command: sh -c 'sleep 2; touch /tmp/up; exec sleep 100000'
    stop_grace_period: 1s
    healthcheck: {{test: test -e /tmp/up, interval: 200ms, retries: 100}}
  prepare:
    image: {TOOLBOX}
    command: sleep 1
    deploy: {{mode: replicated-job}}
"
        ),
    );
    files.stack("deploy", &file, "o").ok();
    // Once the web tier runs, what it waits for is there.
    wait::until("the last service runs", LIMIT, || {
        let format = "{{.Name}} {{.Replicas}}";
        let listed = files
            .ctl(&["stack", "services", "--format", format, "o"])
            .ok();
        let shown = |line: &str| listed.lines().any(|found| found.starts_with(line));
        if !shown("o_web 1/1") {
            return Err(listed);
        }
        assert!(
            shown("o_db 1/1") && shown("o_prepare 0/1 (1/1 completed)"),
            "{listed}"
        );
        Ok(())
    });
    files.remove("o");
}

/// Each is one message with the place and the way out, and leaves the cluster as it is.
fn bad_files_create_nothing(files: &Files) {
    let image = format!("image: '{ECHO}'");
    let bomb = (1..30).fold("x0: &x0 [a, a]\n".to_owned(), |text, n| {
        format!("{text}x{n}: &x{n} [*x{m}, *x{m}]\n", m = n - 1)
    });
    files.write("ring.yml", "include: [ring2.yml]\n");
    files.write("ring2.yml", "include: [ring.yml]\n");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("empty.yml", String::new(), &["empty.yml", "empty"]),
        (
            "notyaml.yml",
            "services: [1, 2".into(),
            &["notyaml.yml:1:", "not YAML"],
        ),
        (
            "ring.yml",
            "include: [ring2.yml]\n".into(),
            &["ring2.yml:1:", "includes itself"],
        ),
        (
            "unset.yml",
            "services: {a: {image: '${WHICH:?say which}'}}".into(),
            &["unset.yml:1:24", "WHICH", "say which"],
        ),
        (
            "network.yml",
            format!("services: {{a: {{{image}, networks: [nowhere]}}}}"),
            &["network.yml:1:", "nowhere"],
        ),
        (
            "external.yml",
            format!(
                "services: {{a: {{{image}, networks: [n]}}}}\nnetworks: {{n: {{external: true}}}}"
            ),
            &[
                "network \"n\" is declared as external",
                "ovnctl network create",
            ],
        ),
        (
            "scope.yml",
            format!(
                "services: {{a: {{{image}, networks: [n]}}}}\nnetworks: {{n: {{external: true, name: docker_gwbridge}}}}"
            ),
            &["docker_gwbridge", "not in the right scope"],
        ),
        (
            "range.yml",
            format!("services: {{a: {{{image}, ports: ['8000-8002:80-81']}}}}"),
            &["range.yml:1:", "services.a.ports"],
        ),
        (
            "large.yml",
            format!("x-a: {}\n", "y".repeat(10 << 20)),
            &["large.yml", "too large"],
        ),
        ("bomb.yml", bomb, &["bomb.yml:", "grows beyond"]),
        (
            "typo.yml",
            format!("services: {{a: {{{image}, replica: 2}}}}"),
            &["typo.yml:1:", "services.a.replica"],
        ),
        (
            "twice.yml",
            format!("services: {{a: {{{image}, tty: true, tty: false}}}}"),
            &["twice.yml:1:", "written twice with different values"],
        ),
        (
            "noimage.yml",
            "services: {a: {command: x}}".into(),
            &["noimage.yml:1:", "image"],
        ),
        (
            "file.yml",
            format!(
                "services: {{a: {{{image}, configs: [c]}}}}\nconfigs: {{c: {{file: not-there}}}}"
            ),
            &["file.yml:2:", "not-there"],
        ),
        (
            "secret.yml",
            format!(
                "services: {{a: {{{image}, secrets: [s]}}}}\nsecrets: {{s: {{external: true}}}}"
            ),
            &[
                "secret \"s\" is declared as external",
                "ovnctl secret create",
            ],
        ),
        (
            "wait.yml",
            format!(
                "services: {{a: {{{image}, depends_on: [b]}}, b: {{{image}, depends_on: [a]}}}}"
            ),
            &["services wait for one another", "a -> b -> a"],
        ),
        (
            "constraint.yml",
            format!(
                "services: {{a: {{{image}, deploy: {{placement: {{constraints: ['node.role = x']}}}}}}}}"
            ),
            &["node.role = x"],
        ),
    ];
    let before = files.inventory();
    for (name, text, words) in cases {
        let file = files.write(name, &text);
        let begun = Instant::now();
        let said = files.stack("deploy", &file, "bad").failed();
        for word in words {
            assert!(said.contains(word), "{name}: {word} is not in: {said}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            begun.elapsed()
        );
        assert_eq!(files.inventory(), before, "{name}");
    }
    for (args, word) in [
        (
            &["stack", "deploy", "-c", "/not/there.yml", "bad"][..],
            "/not/there.yml",
        ),
        (&["stack", "deploy", "-c", "/", "bad"], "regular file"),
        (
            &["stack", "deploy", "-c", "/stack/visualizer.yml", "a/b"],
            "a/b",
        ),
        (
            &["stack", "rm", "nothing"],
            "Nothing found in stack: nothing",
        ),
        (
            &["stack", "ps", "nothing"],
            "nothing found in stack: nothing",
        ),
    ] {
        let done = files.ctl(args);
        assert!(done.stderr.contains(word), "{done:?}");
        assert_eq!(files.inventory(), before, "{args:?}");
    }
}

/// Ours without Docker, and with Docker where it is asked for.
fn whose_api_socket_a_container_sees(files: &Files) {
    let mount = "/var/run/docker.sock:/var/run/docker.sock";
    let url = "http://docker/v1.41/info";
    let curl = ["curl", "-sS", "--unix-socket", "/var/run/docker.sock", url];
    let seen = |flags: &[&str]| {
        let run = ["run", "--rm", "-v", mount];
        let args: Vec<&str> = run
            .iter()
            .chain(flags)
            .chain(&[TOOLBOX])
            .chain(&curl)
            .copied()
            .collect();
        files.ctl(&args).ok()
    };
    assert!(seen(&[]).contains("\"ControlAvailable\":true"));
    // A socket as Docker's would be; whoever mounts it is answered by the host.
    let host = files.manager.dir().join("run/docker.sock");
    let docker = UnixListener::bind(&host).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = docker.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nDocker itself")
            .unwrap();
    });
    let link = ["ln", "-s", "/run/overnet/docker.sock", "/run/docker.sock"];
    files.manager.exec(link).ok();
    assert!(seen(&["--label", "overnet.api-socket=true"]).contains("\"ControlAvailable\":true"));
    assert_eq!(seen(&[]), "Docker itself");
    answers.join().unwrap();
    files.manager.exec(["rm", "/run/docker.sock"]).ok();
}

/// Whatever the deploy had come to: the next one brings the whole, and restarts nothing.
fn a_manager_killed_in_mid_deploy(files: &Files) {
    const SERVICES: usize = 12;
    let mut text = "services:\n".to_owned();
    for n in 1..=SERVICES {
        writeln!(text, "  s{n}: {{image: '{ECHO}', stop_grace_period: 1s}}").unwrap();
    }
    let file = files.write("many.yml", &text);
    let mut command = files
        .manager
        .ctl_command(["stack", "deploy", "-c", &file, "many"])
        .unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let deploy = files.manager.spawn(command).unwrap();
    let names = || {
        let listed = files.ctl(&["service", "ls", "--format", "{{.Name}}"]);
        listed
            .stdout
            .lines()
            .filter(|name| name.starts_with("many_"))
            .count()
    };
    wait::until("the deploy is in its middle", LIMIT, || match names() {
        0 | 1 => Err(()),
        _ => Ok(()),
    });
    files.manager.kill().unwrap();
    let done = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    eprintln!("killed: {}", said.trim());
    if !done.status.success() {
        assert!(
            said.contains("created before that: network many_default"),
            "{said}"
        );
    }
    files.manager.start().unwrap();
    let before = names();
    let tasks_before = wait::until("what was made runs", LIMIT, || {
        let tasks = files.tasks("many")?;
        if tasks.len() == before {
            Ok(tasks)
        } else {
            Err(format!("{tasks:?}"))
        }
    });
    let printed = files.stack("deploy", &file, "many").ok();
    assert_eq!(
        printed.matches("nothing changed").count(),
        before,
        "{printed}"
    );
    let all = files.until_tasks("many", SERVICES);
    assert!(all.is_superset(&tasks_before));
    files.remove("many");
}
